//! What the controller says to devices: which release to run, halts, acknowledgements, sealing keys.
//!
//! Each is CBOR inside [`Signed`], and each reader checks signer, purpose, addressee, order and expiry in one place.

use serde::{Deserialize, Serialize};

use crate::{
    cbor::{self, EncodeError},
    digest::Digest,
    id::{DeviceId, FleetId},
    key::{PublicKey, Purpose, SigningKey},
    signed::{Signed, SignedError},
    time::UnixMs,
    verified::Verified,
};

/// Most sequence numbers one acknowledgement may carry.
pub const ACKS_MAX: usize = 256;

/// The release a device should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Fleet addressed.
    pub fleet: FleetId,
    /// Device addressed.
    pub device: DeviceId,
    /// Grows with every assignment to this device.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: UnixMs,
    /// When it ceases to hold.
    pub expires_at: UnixMs,
    /// SHA-256 of the release's manifest.
    pub release: Digest,
    /// Size of the manifest in bytes.
    pub manifest_bytes: u64,
    /// Version of the targets metadata that lists it.
    pub targets_version: u64,
    /// The rollout it belongs to, for reports.
    pub rollout: u64,
    /// Try the release although this device quarantined it.
    pub retry_quarantined: bool,
    /// Object that holds a signed permit for this device to install this older release.
    pub permit: Option<Digest>,
}

/// Whether a fleet takes updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// Fleet addressed.
    pub fleet: FleetId,
    /// Grows with every change.
    pub sequence: u64,
    /// No device arms a release while this holds.
    pub halted: bool,
    /// The releases it holds for; empty means all.
    pub releases: Vec<Digest>,
    /// Why, for people.
    pub reason: String,
}

/// A message on a device's command topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Device addressed.
    pub device: DeviceId,
    /// Sequence numbers of reports that the controller has stored durably; at most [`ACKS_MAX`].
    pub acknowledged: Vec<u64>,
}

/// The controller's current sealing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealKey {
    /// Fleet it is for.
    pub fleet: FleetId,
    /// Grows with every key.
    pub sequence: u64,
    /// X25519 public key, 32 raw bytes.
    pub public: PublicKey,
    /// Until when devices seal to it.
    pub expires_at: UnixMs,
}

/// Why a message of the controller is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Envelope, signer or signature.
    #[error("checking the controller's signature")]
    Signature(#[source] SignedError),
    /// Signed, but not of the expected shape.
    #[error("reading what the controller signed")]
    Content(#[source] cbor::DecodeError),
    /// For another fleet or device.
    #[error("addressed to another {0}")]
    Foreign(&'static str),
    /// Older than one already obeyed.
    #[error(
        "sequence {got} is not above {seen}, which was obeyed already: a replay, or out of order"
    )]
    Replayed {
        /// Highest obeyed.
        seen: u64,
        /// Offered.
        got: u64,
    },
    /// No longer valid.
    #[error("expired at {}; ask the controller to issue it again", .0.to_rfc3339())]
    Expired(UnixMs),
    /// A list longer than allowed.
    #[error("{0} entries where at most {ACKS_MAX} are allowed")]
    TooLong(usize),
}

/// Who reads, and what it has obeyed so far.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The fleet this device belongs to.
    pub fleet: &'a FleetId,
    /// This device.
    pub device: DeviceId,
    /// Keys whose word counts.
    pub controller_keys: &'a [PublicKey],
}

impl Reader<'_> {
    /// An assignment for this device, newer than `seen`. An equal sequence is accepted: it is the retained message
    /// again, and obeying it twice changes nothing.
    pub fn desired(
        &self,
        bytes: &[u8],
        seen: u64,
        now: UnixMs,
    ) -> Result<Verified<Desired>, Refusal> {
        let desired: Desired = self.read(bytes, Purpose::Desired)?;
        self.same_fleet(&desired.fleet)?;
        self.same_device(desired.device)?;
        if desired.sequence < seen {
            return Err(Refusal::Replayed { seen, got: desired.sequence });
        }
        if now >= desired.expires_at {
            return Err(Refusal::Expired(desired.expires_at));
        }
        Ok(Verified::new(desired))
    }

    /// A halt for this fleet, not older than `seen`.
    pub fn halt(&self, bytes: &[u8], seen: u64) -> Result<Verified<Halt>, Refusal> {
        let halt: Halt = self.read(bytes, Purpose::Halt)?;
        self.same_fleet(&halt.fleet)?;
        if halt.sequence < seen {
            return Err(Refusal::Replayed { seen, got: halt.sequence });
        }
        if halt.releases.len() > ACKS_MAX {
            return Err(Refusal::TooLong(halt.releases.len()));
        }
        Ok(Verified::new(halt))
    }

    /// A message on this device's command topic.
    pub fn command(&self, bytes: &[u8]) -> Result<Verified<Command>, Refusal> {
        let command: Command = self.read(bytes, Purpose::Command)?;
        self.same_device(command.device)?;
        if command.acknowledged.len() > ACKS_MAX {
            return Err(Refusal::TooLong(command.acknowledged.len()));
        }
        Ok(Verified::new(command))
    }

    /// A sealing key, not older than `seen` and not expired.
    pub fn seal_key(
        &self,
        bytes: &[u8],
        seen: u64,
        now: UnixMs,
    ) -> Result<Verified<SealKey>, Refusal> {
        let key: SealKey = self.read(bytes, Purpose::SealKeys)?;
        self.same_fleet(&key.fleet)?;
        if key.sequence < seen {
            return Err(Refusal::Replayed { seen, got: key.sequence });
        }
        if now >= key.expires_at {
            return Err(Refusal::Expired(key.expires_at));
        }
        Ok(Verified::new(key))
    }

    fn read<T>(&self, bytes: &[u8], purpose: Purpose) -> Result<T, Refusal>
    where
        T: serde::de::DeserializeOwned + Serialize,
    {
        let payload =
            Signed::open(bytes, purpose, self.controller_keys).map_err(Refusal::Signature)?;
        cbor::decode(&payload, cbor::MESSAGE_BYTES_MAX).map_err(Refusal::Content)
    }

    fn same_fleet(&self, fleet: &FleetId) -> Result<(), Refusal> {
        if fleet == self.fleet { Ok(()) } else { Err(Refusal::Foreign("fleet")) }
    }

    fn same_device(&self, device: DeviceId) -> Result<(), Refusal> {
        if device == self.device { Ok(()) } else { Err(Refusal::Foreign("device")) }
    }
}

impl Halt {
    /// Whether it forbids arming `release`.
    pub fn forbids(&self, release: &Digest) -> bool {
        self.halted && (self.releases.is_empty() || self.releases.contains(release))
    }
}

/// A content that the controller signs.
pub trait Signable: Serialize + Sized {
    /// What the signature is for.
    const PURPOSE: Purpose;

    /// The signed envelope's bytes, ready to publish.
    fn signed_by(&self, key: &SigningKey) -> Result<Vec<u8>, EncodeError> {
        Signed::seal(key, Self::PURPOSE, cbor::encode(self)?)
    }
}

impl Signable for Desired {
    const PURPOSE: Purpose = Purpose::Desired;
}

impl Signable for Halt {
    const PURPOSE: Purpose = Purpose::Halt;
}

impl Signable for Command {
    const PURPOSE: Purpose = Purpose::Command;
}

impl Signable for SealKey {
    const PURPOSE: Purpose = Purpose::SealKeys;
}
