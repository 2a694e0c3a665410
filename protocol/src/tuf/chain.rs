//! The steps from a trusted root to a fresh snapshot, each usable alone (TUF specification, sections 5.3 to 5.5).
//!
//! Order of checks per document: size; length and digest, where another document lists them; shape; signatures; type;
//! version; expiry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    time::UnixMs,
    tuf::{
        document::{Document, Signers},
        metadata::{Hashed, Meta, Root, Snapshot, Timestamp, hashed},
        refusal::{ROOTS_MAX, VerifyError},
        shape::Shape,
    },
    verified::Verified,
};

/// Largest timestamp, in bytes. It is fetched without anything that says its size.
pub const TIMESTAMP_BYTES_MAX: usize = 16 * 1024;

/// The newest versions a device has seen; it accepts none below them. `trust/seen.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Of the timestamp; 0 for none.
    pub timestamp: u64,
    /// Of the snapshot; 0 for none.
    pub snapshot: u64,
    /// Of every targets role that the snapshot lists, by file name (`targets.json`).
    pub roles: BTreeMap<String, u64>,
}

impl Seen {
    /// What is seen once `timestamp` and `snapshot` are accepted.
    pub fn after(timestamp: &Verified<Timestamp>, snapshot: &Verified<Snapshot>) -> Self {
        let listed = snapshot.get().meta.iter();
        Self {
            timestamp: timestamp.get().version,
            snapshot: snapshot.get().version,
            roles: listed.map(|(name, meta)| (name.clone(), meta.version)).collect(),
        }
    }
}

/// Reads the root a device was given when it was enrolled or installed. Its own threshold must hold; its expiry is
/// not looked at, since a newer root may follow.
pub fn pinned_root(bytes: &[u8]) -> Result<Verified<Root>, VerifyError> {
    let document = parse("root", bytes)?;
    let root: Root = content("root", "root", &document)?;
    meets(&document, &by_root(&root, "root")?)?;
    Ok(Verified::new(root))
}

/// Walks from the trusted root through `newer`, in order. Each must be signed by the one before and by itself. Only the
/// last one's expiry counts, and only when something is to be believed by it.
pub fn newest_root(
    trusted: Verified<Root>,
    newer: &[Vec<u8>],
) -> Result<Verified<Root>, VerifyError> {
    if newer.len() > ROOTS_MAX {
        return Err(VerifyError::TooManyRoots(newer.len()));
    }
    newer.iter().try_fold(trusted, |trusted, bytes| next_root(&trusted, bytes))
}

/// The root that follows `trusted`.
pub fn next_root(trusted: &Verified<Root>, bytes: &[u8]) -> Result<Verified<Root>, VerifyError> {
    let document = parse("root", bytes)?;
    meets(&document, &by_root(trusted.get(), "root")?)?;
    let root: Root = content("root", "root", &document)?;
    meets(&document, &by_root(&root, "root")?)?;
    let trusted = trusted.get().version;
    if trusted.checked_add(1) != Some(root.version) {
        return Err(VerifyError::RootSequence { trusted, got: root.version });
    }
    Ok(Verified::new(root))
}

/// Whether between two roots the keys or the threshold of snapshot or timestamp changed. What was seen by the old keys
/// is then forgotten: it is how a fleet recovers when a stolen key signed a version near the largest there is.
pub fn online_keys_changed(before: &Root, after: &Root) -> bool {
    ["snapshot", "timestamp"].into_iter().any(|role| {
        let of = |root: &Root| {
            root.roles.get(role).map(|role| {
                let mut keyids = role.keyids.clone();
                keyids.sort_unstable();
                (keyids, role.threshold)
            })
        };
        of(before) != of(after)
    })
}

/// A timestamp that may be acted on at `now`. The root must be fresh too: nobody else could say that it is replaced.
pub fn fresh_timestamp(
    root: &Verified<Root>,
    bytes: &[u8],
    seen: &Seen,
    now: UnixMs,
) -> Result<Verified<Timestamp>, VerifyError> {
    fresh("root", root.get(), now)?;
    let role = "timestamp";
    if bytes.len() > TIMESTAMP_BYTES_MAX {
        let (bytes, bytes_max) = (bytes.len(), TIMESTAMP_BYTES_MAX);
        return Err(VerifyError::TooLarge { role: role.to_owned(), bytes, bytes_max });
    }
    let document = parse(role, bytes)?;
    meets(&document, &by_root(root.get(), role)?)?;
    let timestamp: Timestamp = content(role, role, &document)?;
    not_below(role, seen.timestamp, timestamp.version)?;
    let listed = snapshot_of(&timestamp)?.version;
    not_below("snapshot", seen.snapshot, listed)?;
    if timestamp.version == seen.timestamp && listed != seen.snapshot {
        return Err(VerifyError::TwoContents { role, version: timestamp.version });
    }
    fresh(role, &timestamp, now)?;
    Ok(Verified::new(timestamp))
}

/// The snapshot that `listed` names, if it may be acted on at `now`. It lists every role that was listed before, none
/// with a lower version.
pub fn fresh_snapshot(
    root: &Verified<Root>,
    bytes: &[u8],
    listed: &Verified<Timestamp>,
    seen: &Seen,
    now: UnixMs,
) -> Result<Verified<Snapshot>, VerifyError> {
    let (role, by) = ("snapshot", "timestamp");
    fresh(by, listed.get(), now)?;
    let meta = snapshot_of(listed.get())?;
    as_listed(role, by, meta, bytes)?;
    let document = parse(role, bytes)?;
    meets(&document, &by_root(root.get(), role)?)?;
    let snapshot: Snapshot = content(role, role, &document)?;
    if snapshot.version != meta.version {
        let (listed, got) = (meta.version, snapshot.version);
        return Err(VerifyError::Version { role: role.to_owned(), by, listed, got });
    }
    for (name, floor) in &seen.roles {
        let now_listed = snapshot
            .meta
            .get(name)
            .ok_or_else(|| VerifyError::Unlisted { role: name.clone(), by: role })?;
        not_below(name, *floor, now_listed.version)?;
    }
    fresh(role, &snapshot, now)?;
    Ok(Verified::new(snapshot))
}

/// The version that a document says it has. Nothing is checked: good for choosing what to check.
pub fn stated_version(bytes: &[u8]) -> Option<u64> {
    Document::parse("any", bytes).ok()?.signed.get("version")?.as_u64()
}

pub(crate) fn parse(role: &str, bytes: &[u8]) -> Result<Document, VerifyError> {
    Document::parse(role, bytes)
        .map_err(|source| VerifyError::Document { role: role.to_owned(), source })
}

pub(crate) fn meets(document: &Document, signers: &Signers) -> Result<(), VerifyError> {
    document
        .meets(signers)
        .map_err(|source| VerifyError::Document { role: signers.role().to_owned(), source })
}

pub(crate) fn by_root(root: &Root, role: &str) -> Result<Signers, VerifyError> {
    Signers::of_root(root, role)
        .map_err(|source| VerifyError::Document { role: role.to_owned(), source })
}

/// The content of a signed document of `role`, which must say that it is a `kind`.
pub(crate) fn content<T: DeserializeOwned + Shape>(
    role: &str,
    kind: &str,
    document: &Document,
) -> Result<T, VerifyError> {
    let field = |name: &str| {
        let text = document.signed.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        text.chars().take(40).collect::<String>()
    };
    let (said, spec_version) = (field("_type"), field("spec_version"));
    if said != kind || !is_spec_1(&spec_version) {
        return Err(VerifyError::Kind { role: role.to_owned(), kind: said, spec_version });
    }
    let value: T = serde_json::from_value(document.signed.clone())
        .map_err(|source| VerifyError::Content { role: role.to_owned(), source })?;
    value.check().map_err(|source| VerifyError::Shape { role: role.to_owned(), source })?;
    Ok(value)
}

/// Holds `bytes` against length and digests in the document that lists them, as far as those are given.
pub(crate) fn as_listed(
    role: &str,
    by: &'static str,
    meta: &Meta,
    bytes: &[u8],
) -> Result<(), VerifyError> {
    let differs = |what: String| VerifyError::Listed { role: role.to_owned(), by, what };
    if meta.length.is_some_and(|length| length != bytes.len() as u64) {
        return Err(differs("length".into()));
    }
    match meta.hashes.as_ref().map(|hashes| hashed(hashes, bytes)) {
        None | Some(Hashed::Same) => Ok(()),
        Some(Hashed::Other { algorithm }) => Err(differs(algorithm)),
        Some(Hashed::Unknown) => Err(differs("digest (by an algorithm we do not know)".into())),
    }
}

pub(crate) fn fresh(role: &str, document: &dyn Shape, now: UnixMs) -> Result<(), VerifyError> {
    let expires = document.expires();
    let at = UnixMs::from_rfc3339_seconds(expires)
        .map_err(|source| VerifyError::Expiry { role: role.to_owned(), source })?;
    if now < at {
        Ok(())
    } else {
        Err(VerifyError::Expired { role: role.to_owned(), expires: expires.to_owned() })
    }
}

fn not_below(role: &str, floor: u64, got: u64) -> Result<(), VerifyError> {
    if got < floor {
        Err(VerifyError::Rollback { role: role.to_owned(), floor, got })
    } else {
        Ok(())
    }
}

fn snapshot_of(timestamp: &Timestamp) -> Result<&Meta, VerifyError> {
    timestamp
        .snapshot()
        .ok_or_else(|| VerifyError::Unlisted { role: "snapshot.json".into(), by: "timestamp" })
}

/// `1.x` or `1.x.y`.
fn is_spec_1(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (2..=3).contains(&parts.len()) && parts.iter().all(number) && parts.first() == Some(&"1")
}
