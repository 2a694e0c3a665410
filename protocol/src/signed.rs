//! Bytes with one signature outside: the envelope of everything the controller says.

use serde::{Deserialize, Serialize};

use crate::{
    blob::Blob,
    cbor::{self, DecodeError, EncodeError},
    digest::Digest,
    key::{PublicKey, Purpose, SigningKey},
};

/// A payload and who signed it. The payload is parsed only after [`Signed::open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// [`PublicKey::id`] of the signer.
    pub key_id: Digest,
    /// Ed25519 over the purpose's label and `payload`.
    pub signature: Blob,
    /// The exact bytes signed.
    pub payload: Blob,
}

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// Not an envelope.
    #[error("reading a signed envelope")]
    Envelope(#[source] DecodeError),
    /// The signer is not one we trust for this.
    #[error("signed by key {}, which is not trusted for this; check that the device is enrolled with this controller", .0.short())]
    UnknownKey(Digest),
    /// The signature does not hold.
    #[error("signature by key {} does not hold: the content was altered or made for another purpose", .0.short())]
    BadSignature(Digest),
    /// Signed, but not of the expected shape.
    #[error("reading the signed content")]
    Content(#[source] DecodeError),
}

impl Signed {
    /// Signs `payload` and returns the envelope's bytes.
    pub fn seal(
        key: &SigningKey,
        purpose: Purpose,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, EncodeError> {
        let signature = key.sign(purpose, &payload);
        cbor::encode(&Self { key_id: key.public().id(), signature, payload: Blob::from(payload) })
    }

    /// The payload, if one of `trusted` signed it for `purpose`.
    pub fn open(
        bytes: &[u8],
        purpose: Purpose,
        trusted: &[PublicKey],
    ) -> Result<Vec<u8>, SignedError> {
        let envelope: Self =
            cbor::decode(bytes, cbor::MESSAGE_BYTES_MAX).map_err(SignedError::Envelope)?;
        let key = trusted
            .iter()
            .find(|key| key.id() == envelope.key_id)
            .ok_or(SignedError::UnknownKey(envelope.key_id))?;
        if key.verifies(purpose, envelope.payload.as_slice(), envelope.signature.as_slice()) {
            Ok(envelope.payload.into_vec())
        } else {
            Err(SignedError::BadSignature(envelope.key_id))
        }
    }
}
