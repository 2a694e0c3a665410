//! End-to-end sealing of reports: HPKE (RFC 9180), base mode, X25519-HKDF-SHA256 / HKDF-SHA256 / ChaCha20-Poly1305.
//!
//! A device opens one session per process start: an HPKE sender context to the controller's current key. From it the
//! session key is exported (RFC 9180 §5.3, context `socle report 1`), and every report is sealed under that key with
//! its own sequence number as nonce. So a report can be opened alone, lost ones are seen as gaps, and sending the same
//! report twice gives the same bytes. The device's Ed25519 signature stands outside, over everything.
//!
//! The broker sees topic, sizes, times and sequence numbers, and nothing else.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    digest, hkdf, hmac,
    rand::SecureRandom,
};
use serde::{Deserialize, Serialize};

use crate::{
    blob::Blob,
    cbor::{self, DecodeError, EncodeError, MESSAGE_BYTES_MAX},
    command::SealKey,
    digest::Digest,
    id::{DeviceId, FleetId},
    key::{PublicKey, Purpose, SigningKey},
    topic::{Channel, Topic},
};

/// HPKE `info`: binds a session to this protocol.
pub const INFO: &[u8] = b"socle/1 report";
/// Exporter context of the session key.
pub const EXPORT_CONTEXT: &[u8] = b"socle report 1";
/// Version and suite, authenticated with every report.
const SUITE: u32 = 0x0001_0020;

/// A sealed report as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Everything that is signed.
    pub header: Header,
    /// ChaCha20-Poly1305 of the report's CBOR, with [`Header`] as additional data.
    pub sealed: Blob,
    /// Ed25519 by the device over header and `sealed`.
    pub signature: Blob,
}

/// What is authenticated but readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Protocol version and cipher suite.
    pub suite: u32,
    /// Sender's fleet.
    pub fleet: FleetId,
    /// Sender.
    pub device: DeviceId,
    /// Channel it is published on.
    pub channel: Channel,
    /// HPKE encapsulated key: names the session, 32 bytes.
    pub session: Blob,
    /// Grows with every report of the device, across sessions and restarts.
    pub sequence: u64,
    /// [`SealKey::sequence`] of the key sealed to.
    pub seal_key: u64,
}

/// Why a report cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system's random generator failed.
    #[error("the system's random generator gave no session key")]
    Random,
    /// The controller's key is not a usable X25519 key.
    #[error("the controller's sealing key is not usable")]
    Peer,
    /// A header or report that cannot be written.
    #[error("writing a report")]
    Encode(#[from] EncodeError),
    /// Longer than a message may be.
    #[error("report of {0} bytes is too large to send")]
    TooLarge(usize),
    /// The cipher refused (a length beyond its limit).
    #[error("the cipher refused the report")]
    Cipher,
}

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope.
    #[error("reading a sealed report")]
    Shape(#[source] DecodeError),
    /// Another version or suite.
    #[error("sealed with version and suite {0:#x}, which is not supported")]
    Suite(u32),
    /// Header and topic name different senders or channels.
    #[error("published on `{topic}` but made for another: refused as foreign")]
    Foreign {
        /// Where it arrived.
        topic: String,
    },
    /// The device's signature does not hold.
    #[error("signature of device {} does not hold", .0.short())]
    BadSignature(DeviceId),
    /// A session key that is not 32 bytes.
    #[error("session key has {0} bytes, not 32")]
    Session(usize),
    /// Opened with the wrong key, or altered.
    #[error("sealed content does not open: altered, or sealed to another key")]
    Sealed,
    /// Opened, but not a report.
    #[error("reading an opened report")]
    Content(#[source] DecodeError),
}

/// One sealing session of a device.
pub struct Sealer {
    session: Blob,
    seal_key: u64,
    key: LessSafeKey,
}

impl Sealer {
    /// Opens a session to the controller's key.
    pub fn open(to: &SealKey, random: &dyn SecureRandom) -> Result<Self, SealError> {
        let ours = EphemeralPrivateKey::generate(&X25519, random).map_err(|_| SealError::Random)?;
        let session = ours.compute_public_key().map_err(|_| SealError::Random)?.as_ref().to_vec();
        let context = [session.as_slice(), to.public.as_bytes()].concat();
        let peer = UnparsedPublicKey::new(&X25519, to.public.as_bytes());
        let key = agree_ephemeral(ours, &peer, |shared| session_key(shared, &context))
            .map_err(|_| SealError::Peer)?
            .ok_or(SealError::Cipher)?;
        Ok(Self {
            session: Blob::from(session),
            seal_key: to.sequence,
            key: aead_key(&key).ok_or(SealError::Cipher)?,
        })
    }

    /// [`SealKey::sequence`] of the key this session seals to.
    pub const fn seal_key(&self) -> u64 {
        self.seal_key
    }

    /// Seals and signs `plaintext`. `sequence` must not have been used in this session for another content.
    pub fn seal(
        &self,
        signer: &SigningKey,
        (fleet, channel, sequence): (&FleetId, Channel, u64),
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let header = Header {
            suite: SUITE,
            fleet: fleet.clone(),
            device: DeviceId::of(&signer.public()),
            channel,
            session: self.session.clone(),
            sequence,
            seal_key: self.seal_key,
        };
        let aad = cbor::encode(&header)?;
        let mut sealed = plaintext.to_vec();
        self.key
            .seal_in_place_append_tag(nonce(sequence), Aad::from(&aad), &mut sealed)
            .map_err(|_| SealError::Cipher)?;
        let signature = signer.sign(Purpose::Report, &signed_bytes(&aad, &sealed));
        let bytes = cbor::encode(&Envelope { header, sealed: Blob::from(sealed), signature })?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            Err(SealError::TooLarge(bytes.len()))
        } else {
            Ok(bytes)
        }
    }
}

impl Envelope {
    /// Reads an envelope that arrived on `topic` and checks that its header belongs there. The device's key is not
    /// known yet; call [`Envelope::check_signature`] with it before anything else.
    pub fn parse(topic: &Topic, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope: Self =
            cbor::decode(bytes, MESSAGE_BYTES_MAX).map_err(EnvelopeError::Shape)?;
        let header = &envelope.header;
        if header.suite != SUITE {
            return Err(EnvelopeError::Suite(header.suite));
        }
        let expected = Topic::Report(header.fleet.clone(), header.device, header.channel);
        if *topic != expected {
            return Err(EnvelopeError::Foreign { topic: topic.to_string() });
        }
        if header.session.as_slice().len() != 32 {
            return Err(EnvelopeError::Session(header.session.as_slice().len()));
        }
        Ok(envelope)
    }

    /// Holds if the device with key `public` signed exactly this.
    pub fn check_signature(&self, public: &PublicKey) -> Result<(), EnvelopeError> {
        let bad = EnvelopeError::BadSignature(self.header.device);
        let Ok(aad) = cbor::encode(&self.header) else { return Err(bad) };
        let message = signed_bytes(&aad, self.sealed.as_slice());
        let holds = DeviceId::of(public) == self.header.device
            && public.verifies(Purpose::Report, &message, self.signature.as_slice());
        if holds { Ok(()) } else { Err(bad) }
    }

    /// Opens the content with the session key, which the receiver exports from its HPKE context for
    /// [`Header::session`] with [`INFO`] and [`EXPORT_CONTEXT`].
    pub fn open(&self, session_key: &[u8; 32]) -> Result<Vec<u8>, EnvelopeError> {
        let key = aead_key(session_key).ok_or(EnvelopeError::Sealed)?;
        let aad = cbor::encode(&self.header).map_err(|_| EnvelopeError::Sealed)?;
        let mut content = self.sealed.as_slice().to_vec();
        let length = key
            .open_in_place(nonce(self.header.sequence), Aad::from(&aad), &mut content)
            .map_err(|_| EnvelopeError::Sealed)?
            .len();
        content.truncate(length);
        Ok(content)
    }
}

/// What a device signs: the digest of the header, then the sealed bytes.
fn signed_bytes(aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    [Digest::of(aad).as_bytes().as_slice(), sealed].concat()
}

fn aead_key(raw: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, raw).ok().map(LessSafeKey::new)
}

fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

// RFC 9180 key schedule for mode_base, KEM 0x0020, KDF 0x0001, AEAD 0x0003, as far as the exporter secret.

const KEM_SUITE: &[u8] = b"KEM\x00\x20";
const HPKE_SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x03";
const MODE_BASE: u8 = 0;

fn session_key(shared: &[u8], kem_context: &[u8]) -> Option<[u8; 32]> {
    let eae_prk = labeled_extract(KEM_SUITE, &[], b"eae_prk", shared);
    let shared_secret = labeled_expand(KEM_SUITE, &eae_prk, b"shared_secret", kem_context)?;
    let mut schedule = vec![MODE_BASE];
    schedule.extend(labeled_extract_raw(HPKE_SUITE, b"psk_id_hash", &[]).as_ref());
    schedule.extend(labeled_extract_raw(HPKE_SUITE, b"info_hash", INFO).as_ref());
    let secret = labeled_extract(HPKE_SUITE, &shared_secret, b"secret", &[]);
    let exporter = labeled_expand(HPKE_SUITE, &secret, b"exp", &schedule)?;
    let exporter = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &exporter);
    labeled_expand(HPKE_SUITE, &exporter, b"sec", EXPORT_CONTEXT)
}

fn labeled(suite: &[u8], label: &[u8], rest: &[u8]) -> Vec<u8> {
    [b"HPKE-v1", suite, label, rest].concat()
}

fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&labeled(suite, label, ikm))
}

/// The same with an empty salt, as bytes: HKDF-Extract is HMAC keyed by the salt.
fn labeled_extract_raw(suite: &[u8], label: &[u8], ikm: &[u8]) -> hmac::Tag {
    let zero_salt = [0; digest::SHA256_OUTPUT_LEN];
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &zero_salt), &labeled(suite, label, ikm))
}

fn labeled_expand(suite: &[u8], prk: &hkdf::Prk, label: &[u8], info: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let length = 32_u16.to_be_bytes();
    let info = labeled(suite, label, info);
    prk.expand(&[&length, &info], hkdf::HKDF_SHA256).ok()?.fill(&mut out).ok()?;
    Some(out)
}
