//! The content of root and targets metadata (TUF specification 1.0.x, sections 4.3 and 4.5).

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{digest::Digest, key::PublicKey};

/// The specification version we write.
pub const SPEC_VERSION: &str = "1.0.31";

/// Who may sign what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Always `root`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this document; each new root is exactly one higher.
    pub version: u64,
    /// When it ceases to be fresh, RFC 3339 in UTC.
    pub expires: String,
    /// Whether files carry their version or hash in their names.
    pub consistent_snapshot: bool,
    /// All keys by their id.
    pub keys: BTreeMap<String, Key>,
    /// Which keys sign which role, and how many of them.
    pub roles: BTreeMap<String, Role>,
    /// Fields of newer specification versions, kept because they are signed.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A public key as TUF writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// `ed25519`; other types are carried but never count towards a threshold.
    pub keytype: String,
    /// `ed25519`.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
    /// Fields of newer specification versions.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The material of a [`Key`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Raw public key, hexadecimal.
    pub public: String,
    /// Fields of newer specification versions.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Which keys sign a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Ids of the keys that may sign.
    pub keyids: Vec<String>,
    /// How many distinct ones must; at least 1.
    pub threshold: u32,
}

/// Which files are genuine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// Always `targets`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this document; never goes down.
    pub version: u64,
    /// When it ceases to be fresh, RFC 3339 in UTC.
    pub expires: String,
    /// Files by path. A release's manifest is `releases/<name>.json`.
    pub targets: BTreeMap<String, Target>,
    /// Fields of newer specification versions, kept because they are signed.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One file of [`Targets`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its exact size in bytes.
    pub length: u64,
    /// Its digests by algorithm; `sha256` is required.
    pub hashes: BTreeMap<String, String>,
    /// Free for the application; unused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
}

impl Key {
    /// An Ed25519 key.
    pub fn ed25519(public: &PublicKey) -> Self {
        Self {
            keytype: "ed25519".into(),
            scheme: "ed25519".into(),
            keyval: KeyValue { public: HEXLOWER.encode(public.as_bytes()), other: BTreeMap::new() },
            other: BTreeMap::new(),
        }
    }

    /// The key, if it is of a kind we can check.
    pub fn public(&self) -> Option<PublicKey> {
        if self.keytype != "ed25519" || self.scheme != "ed25519" {
            return None;
        }
        let raw = HEXLOWER.decode(self.keyval.public.as_bytes()).ok()?;
        PublicKey::try_from(raw.as_slice()).ok()
    }
}

impl Target {
    /// The target whose content is `content`.
    pub fn of(content: &[u8]) -> Self {
        Self {
            length: content.len() as u64,
            hashes: BTreeMap::from([("sha256".to_owned(), Digest::of(content).to_string())]),
            custom: None,
        }
    }

    /// Its SHA-256, if it names one.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.get("sha256")?.parse().ok()
    }
}
