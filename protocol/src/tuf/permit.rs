//! The permit to go back: one device may install one older release, until a date.
//!
//! A device never installs a release whose counter is not above the highest it committed, because an attacker would
//! choose the one with a known hole. When going back is what the operator wants, the role that signs for the release
//! signs for that too, device by device. The floor stays where it is: the next release must be above it again.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    id::{DeviceId, FleetId},
    time::{NotATime, UnixMs},
    tuf::{
        document::{Document, DocumentError},
        metadata::SPEC_VERSION,
        refusal::VerifyError,
        verify::{Release, newer_than},
    },
    verified::Verified,
};

/// The type a permit says it is.
pub const KIND: &str = "downgrade-permit";
/// Largest permit, in bytes.
pub const PERMIT_BYTES_MAX: usize = 16 * 1024;

/// The signed content of a permit; its envelope is a TUF [`Document`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// Always [`KIND`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version of the envelope, `1.0.x`.
    pub spec_version: String,
    /// Fleet of the device.
    pub fleet: FleetId,
    /// The device that may go back.
    pub device: DeviceId,
    /// The release it may install.
    pub release: Digest,
    /// When it ceases to hold, RFC 3339 in UTC.
    pub expires: String,
}

/// Whose permit counts: the device that asks.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Its fleet.
    pub fleet: &'a FleetId,
    /// Itself.
    pub device: DeviceId,
}

/// Why a release may not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PermitError {
    /// It is old, and no permit came with the assignment.
    #[error("no permit to go back came with it")]
    None(#[source] VerifyError),
    /// Larger than any permit.
    #[error("the permit to go back has {0} bytes; at most {PERMIT_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not a document, or not signed by those who sign for the release.
    #[error("the permit to go back does not hold")]
    Signatures(#[source] DocumentError),
    /// Signed, but not a permit.
    #[error("what came as a permit to go back is none")]
    Content(#[source] serde_json::Error),
    /// It is something else.
    #[error("what came as a permit to go back is a `{0}`")]
    Kind(String),
    /// It allows something else.
    #[error("the permit to go back is for another {0}")]
    Foreign(&'static str),
    /// Its end is not a time.
    #[error("the permit to go back has no readable expiry")]
    Expiry(#[source] NotATime),
    /// Too late.
    #[error("the permit to go back expired at {0}; have a new one signed")]
    Expired(String),
}

impl Permit {
    /// A permit for `holder`.
    pub fn new(holder: Holder<'_>, release: Digest, expires: UnixMs) -> Self {
        Self {
            kind: KIND.into(),
            spec_version: SPEC_VERSION.into(),
            fleet: holder.fleet.clone(),
            device: holder.device,
            release,
            expires: expires.to_rfc3339(),
        }
    }
}

/// Holds if the device may install `release`: it is above `floor`, or a valid permit allows just this.
pub fn may_install(
    release: &Verified<Release>,
    floor: u64,
    permit: Option<&[u8]>,
    holder: Holder<'_>,
    now: UnixMs,
) -> Result<(), PermitError> {
    match (newer_than(release, floor), permit) {
        (Ok(()), _) => Ok(()),
        (Err(old), None) => Err(PermitError::None(old)),
        (Err(_), Some(bytes)) => permitted(release, bytes, holder, now).map(|_| ()),
    }
}

/// The permit in `bytes`, if those who sign for `release` allow it to `holder` at `now`.
pub fn permitted(
    release: &Verified<Release>,
    bytes: &[u8],
    holder: Holder<'_>,
    now: UnixMs,
) -> Result<Verified<Permit>, PermitError> {
    if bytes.len() > PERMIT_BYTES_MAX {
        return Err(PermitError::TooLarge(bytes.len()));
    }
    let document = Document::parse(KIND, bytes).map_err(PermitError::Signatures)?;
    document.meets(&release.get().signers).map_err(PermitError::Signatures)?;
    let permit: Permit = serde_json::from_value(document.signed).map_err(PermitError::Content)?;
    if permit.kind != KIND || !permit.spec_version.starts_with("1.") {
        return Err(PermitError::Kind(permit.kind.chars().take(40).collect()));
    }
    if permit.fleet != *holder.fleet {
        return Err(PermitError::Foreign("fleet"));
    }
    if permit.device != holder.device {
        return Err(PermitError::Foreign("device"));
    }
    if permit.release != release.get().digest {
        return Err(PermitError::Foreign("release"));
    }
    let end = UnixMs::from_rfc3339_seconds(&permit.expires).map_err(PermitError::Expiry)?;
    if now < end { Ok(Verified::new(permit)) } else { Err(PermitError::Expired(permit.expires)) }
}
