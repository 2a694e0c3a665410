//! Ed25519 keys (RFC 8032) and what a signature is for.

use std::fmt;

use ring::{
    rand::SecureRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use crate::{blob::Blob, digest::Digest};

/// What a signature is for. It is signed along, so a signature of one kind is never valid for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The controller assigns a release to a device.
    Desired,
    /// The controller acknowledges or asks a device.
    Command,
    /// The controller halts or resumes a whole fleet.
    Halt,
    /// The controller announces its sealing keys.
    SealKeys,
    /// A device vouches for a sealed report.
    Report,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Desired => b"socle/1/desired\0",
            Self::Command => b"socle/1/command\0",
            Self::Halt => b"socle/1/halt\0",
            Self::SealKeys => b"socle/1/seal-keys\0",
            Self::Report => b"socle/1/report\0",
        }
    }

    fn message(self, payload: &[u8]) -> Vec<u8> {
        [self.label(), payload].concat()
    }
}

/// An Ed25519 public key: 32 raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// An Ed25519 private key. It is never printed.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// Why a key cannot be made or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The system's random generator failed.
    #[error("the system's random generator gave no key")]
    Random,
    /// Not a PKCS#8 document with an Ed25519 key.
    #[error("not an Ed25519 private key in PKCS#8: {0}")]
    Pkcs8(String),
    /// Not 32 bytes.
    #[error("an Ed25519 public key has 32 bytes, not {0}")]
    Public(usize),
}

impl PublicKey {
    /// A key from its 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's name in our binary formats: SHA-256 of its raw bytes. (TUF names keys by their JSON instead.)
    pub fn id(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Whether `signature` is this key's over `payload`, made for `purpose`.
    pub fn verifies(&self, purpose: Purpose, payload: &[u8], signature: &[u8]) -> bool {
        self.verifies_raw(&purpose.message(payload), signature)
    }

    /// Whether `signature` is this key's over exactly `message`. For formats that fix what is signed (TUF).
    pub fn verifies_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Self).map_err(|_| KeyError::Public(bytes.len()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id().short())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest::from_bytes(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(|raw| Self(*raw.as_bytes()))
    }
}

impl SigningKey {
    /// A new key as a PKCS#8 document, from the given generator.
    pub fn generate_pkcs8(random: &dyn SecureRandom) -> Result<Vec<u8>, KeyError> {
        Ed25519KeyPair::generate_pkcs8(random)
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| KeyError::Random)
    }

    /// Reads a PKCS#8 document: version 2 as ring writes it, or version 1 without the public key.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(document)
            .map(|pair| Self { pair })
            .map_err(|rejected| KeyError::Pkcs8(rejected.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs `payload` for `purpose`: 64 bytes.
    pub fn sign(&self, purpose: Purpose, payload: &[u8]) -> Blob {
        self.sign_raw(&purpose.message(payload))
    }

    /// Signs exactly `message`. For formats that fix what is signed (TUF).
    pub fn sign_raw(&self, message: &[u8]) -> Blob {
        Blob::from(self.pair.sign(message).as_ref().to_vec())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {:?})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn a_signature_holds_for_its_purpose_only() {
        let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
        let signature = key.sign(Purpose::Desired, b"x");
        assert!(key.public().verifies(Purpose::Desired, b"x", signature.as_slice()));
        assert!(!key.public().verifies(Purpose::Halt, b"x", signature.as_slice()));
        assert!(!key.public().verifies(Purpose::Desired, b"y", signature.as_slice()));
        assert!(!key.public().verifies(Purpose::Desired, b"x", &[]));
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
        let shown = format!("{:?}", SigningKey::from_pkcs8(&pkcs8).unwrap());
        assert!(shown.starts_with("SigningKey(public PublicKey("), "{shown}");
        assert!(shown.len() < 60);
    }
}
