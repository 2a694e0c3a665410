//! The content of root, targets, snapshot and timestamp metadata (TUF specification 1.0.x, sections 4.3 to 4.6).

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, SHA512, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{digest::Digest, key::PublicKey};

/// The specification version we write.
pub const SPEC_VERSION: &str = "1.0.31";

/// The roles that the root names itself.
pub const TOP_LEVEL: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

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
    /// Ids of the keys that may sign; none twice.
    pub keyids: Vec<String>,
    /// How many distinct ones must; at least 1.
    pub threshold: u32,
}

/// Which files are genuine, and who else may say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// Always `targets`, for delegated roles too.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this document; never goes down.
    pub version: u64,
    /// When it ceases to be fresh, RFC 3339 in UTC.
    pub expires: String,
    /// Files by path. A release's manifest is `env/<environment>/<name>.json`.
    pub targets: BTreeMap<String, Target>,
    /// Roles that speak for some paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
    /// Fields of newer specification versions, kept because they are signed.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One file of [`Targets`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its exact size in bytes.
    pub length: u64,
    /// Its digests by algorithm; `sha256` is required where a release uses it.
    pub hashes: BTreeMap<String, String>,
    /// Free for the application: repositories keep a release's counter here; clients do not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
    /// Fields of newer specification versions.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// To whom [`Targets`] gives some of its paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delegations {
    /// Keys of the roles, by their id.
    pub keys: BTreeMap<String, Key>,
    /// The roles, the first asked first.
    pub roles: Vec<DelegatedRole>,
    /// Fields of newer specification versions.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A role that speaks for some paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name: 1 to 64 of `a-z 0-9 . _ -`, not beginning with a dot, and none of [`TOP_LEVEL`].
    pub name: String,
    /// Ids of the keys that may sign; none twice.
    pub keyids: Vec<String>,
    /// How many distinct ones must; at least 1.
    pub threshold: u32,
    /// Patterns of the paths it speaks for. `*` and `?` never match a `/`. Either this or `path_hash_prefixes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Beginnings of the hexadecimal SHA-256 of the paths it speaks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
    /// No role after it is asked about its paths, whether or not it lists them.
    pub terminating: bool,
    /// Fields of newer specification versions.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Which versions of targets metadata belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Always `snapshot`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this document; never goes down.
    pub version: u64,
    /// When it ceases to be fresh, RFC 3339 in UTC.
    pub expires: String,
    /// `targets.json` and `<role>.json` of every delegated role.
    pub meta: BTreeMap<String, Meta>,
    /// Fields of newer specification versions, kept because they are signed.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Which snapshot is the newest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Always `timestamp`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// Specification version, `1.0.x`.
    pub spec_version: String,
    /// Version of this document; never goes down.
    pub version: u64,
    /// When it ceases to be fresh, RFC 3339 in UTC.
    pub expires: String,
    /// `snapshot.json`.
    pub meta: BTreeMap<String, Meta>,
    /// Fields of newer specification versions, kept because they are signed.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One metadata file, as another one lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Its version; at least 1.
    pub version: u64,
    /// Its exact size in bytes, if it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digests by algorithm, if they are said; then at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<BTreeMap<String, String>>,
    /// Fields of newer specification versions.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Whether some bytes have the digests that are signed for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// All of them.
    Same,
    /// Not this one.
    Other {
        /// Algorithm.
        algorithm: String,
    },
    /// None is given, or one by an algorithm we do not know.
    Unknown,
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
        Self::named(Digest::of(content), content.len() as u64)
    }

    /// The target of `length` bytes whose SHA-256 is `sha256`.
    pub fn named(sha256: Digest, length: u64) -> Self {
        Self {
            length,
            hashes: BTreeMap::from([("sha256".to_owned(), sha256.to_string())]),
            custom: None,
            other: BTreeMap::new(),
        }
    }

    /// Its SHA-256, if it names one.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.get("sha256")?.parse().ok()
    }
}

impl Meta {
    /// The entry of `version` whose bytes are `bytes`.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        let sha256 = ("sha256".to_owned(), Digest::of(bytes).to_string());
        Self {
            version,
            length: Some(bytes.len() as u64),
            hashes: Some(BTreeMap::from([sha256])),
            other: BTreeMap::new(),
        }
    }
}

impl Timestamp {
    /// A timestamp that lists `snapshot`. `expires` is RFC 3339 in UTC, whole seconds.
    pub fn of(version: u64, expires: String, snapshot: Meta) -> Self {
        Self {
            kind: "timestamp".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires,
            meta: BTreeMap::from([("snapshot.json".to_owned(), snapshot)]),
            other: BTreeMap::new(),
        }
    }

    /// What it says about the snapshot.
    pub fn snapshot(&self) -> Option<&Meta> {
        self.meta.get("snapshot.json")
    }
}

impl Snapshot {
    /// A snapshot that lists `roles` by name, `targets` among them. `expires` as in [`Timestamp::of`].
    pub fn of(
        version: u64,
        expires: String,
        roles: impl IntoIterator<Item = (String, Meta)>,
    ) -> Self {
        Self {
            kind: "snapshot".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires,
            meta: roles.into_iter().map(|(role, meta)| (format!("{role}.json"), meta)).collect(),
            other: BTreeMap::new(),
        }
    }

    /// What it says about the targets role `role`.
    pub fn role(&self, role: &str) -> Option<&Meta> {
        self.meta.get(&format!("{role}.json"))
    }
}

/// Holds `bytes` against every digest in `hashes`.
pub fn hashed(hashes: &BTreeMap<String, String>, bytes: &[u8]) -> Hashed {
    if hashes.is_empty() {
        return Hashed::Unknown;
    }
    for (algorithm, signed) in hashes {
        let found = match algorithm.as_str() {
            "sha256" => digest(&SHA256, bytes),
            "sha512" => digest(&SHA512, bytes),
            _ => return Hashed::Unknown,
        };
        if HEXLOWER.encode(found.as_ref()) != *signed {
            return Hashed::Other { algorithm: algorithm.clone() };
        }
    }
    Hashed::Same
}
