//! How a device joins a fleet: a single-use token from the operator, a request, and what comes back.

use std::{collections::BTreeMap, fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::{
    blob::Blob,
    cbor,
    digest::Digest,
    id::{DeviceId, Environment, FleetId},
    key::PublicKey,
    time::UnixMs,
};

/// Prefix of a token's text form.
const TOKEN_PREFIX: &str = "socle1.";

/// What the operator hands to a device. It carries the pins that let the device trust what answers: the certificate
/// authority by its digest, and the release root by its digest, so that neither the network nor the controller can
/// choose them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolToken {
    /// Names the token at the controller.
    pub id: Blob,
    /// 32 random bytes; the controller keeps only their digest.
    pub secret: Blob,
    /// Fleet to join.
    pub fleet: FleetId,
    /// Environment to belong to: only releases that are signed for it are ever installed.
    pub environment: Environment,
    /// SHA-256 of the certificate authority's certificate (DER).
    pub ca: Digest,
    /// SHA-256 of the release root (`root.json`, as published).
    pub root: Digest,
    /// When it ceases to hold.
    pub expires_at: UnixMs,
}

/// Why a text is not a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not of the shape `socle1.…`.
    #[error(
        "not an enrolment token: it starts with {TOKEN_PREFIX} and is one line; copy it whole from `socle device enrol`"
    )]
    Text,
    /// Inside is not what a token holds.
    #[error("the enrolment token is damaged; copy it whole from `socle device enrol`")]
    Content(#[source] cbor::DecodeError),
}

impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolToken(fleet {}, expires {})", self.fleet, self.expires_at.to_rfc3339())
    }
}

impl EnrolToken {
    /// The text the operator copies. It is a secret until it is used or expires.
    pub fn to_text(&self) -> Result<String, cbor::EncodeError> {
        Ok(format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&cbor::encode(self)?)))
    }
}

impl FromStr for EnrolToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Text)?;
        if body.len() > 2048 {
            return Err(TokenError::Text);
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| TokenError::Text)?;
        cbor::decode(&bytes, 2048).map_err(TokenError::Content)
    }
}

/// Whom a device obeys and where it belongs: `trust/authority.json`, JSON. Written at enrolment, read by the updater.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its fleet.
    pub fleet: FleetId,
    /// Itself.
    pub device: DeviceId,
    /// Its environment.
    pub environment: Environment,
    /// Keys whose commands count.
    pub controller_keys: Vec<PublicKey>,
}

impl From<&Enrolled> for Authority {
    fn from(enrolled: &Enrolled) -> Self {
        Self {
            fleet: enrolled.fleet.clone(),
            device: enrolled.device,
            environment: enrolled.environment.clone(),
            controller_keys: enrolled.controller_keys.clone(),
        }
    }
}

/// Body of `POST /enrol/v1`, JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// [`EnrolToken::id`].
    pub token_id: Blob,
    /// [`EnrolToken::secret`].
    pub token_secret: Blob,
    /// PKCS#10 certificate request in PEM, by an Ed25519 key. Its subject is ignored.
    pub csr_pem: String,
    /// The host's name, for people; at most 64 characters.
    pub name: String,
    /// Labels for groups; at most 32, each part at most 64 characters.
    pub labels: BTreeMap<String, String>,
}

/// Answer to [`EnrolRequest`], JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Who the device is now.
    pub device: DeviceId,
    /// Fleet it joined.
    pub fleet: FleetId,
    /// Environment it belongs to; must match the token's.
    pub environment: Environment,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The certificate authority, PEM.
    pub ca_pem: String,
    /// The broker: `mqtts://host:port`.
    pub broker: String,
    /// Where releases are fetched: `https://host:port/artifacts`.
    pub artifacts: String,
    /// Keys whose commands count.
    pub controller_keys: Vec<PublicKey>,
    /// A signed [`crate::command::SealKey`].
    pub seal_key: Blob,
    /// The release root; must match the token's pin.
    pub root: Blob,
}
