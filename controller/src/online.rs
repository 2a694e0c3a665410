//! The two roles that a controller signs by itself: snapshot (which metadata belongs together) and timestamp (which
//! snapshot is the newest). Their keys can neither name a release nor another key; whoever steals them can hold the
//! fleet at what it has, for as long as root and targets are fresh.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use protocol::{
    key::{KeyError, SigningKey},
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{Key, Meta, Root, SPEC_VERSION, Snapshot, Timestamp},
        online::OnlineKeys,
    },
};
use ring::rand::SystemRandom;

use crate::{
    disk::{self, Access, DiskError},
    layout::Layout,
};

const HOUR_MS: u64 = 3_600_000;
/// How long a snapshot holds. It is signed again at half of that, if nothing was published.
const SNAPSHOT_MS: u64 = 30 * 24 * HOUR_MS;

/// The keys, and how long what they sign holds.
#[derive(Debug)]
pub struct OnlineRoles {
    snapshot: SigningKey,
    timestamp: SigningKey,
    timestamp_ms: u64,
}

/// Why there are no such keys.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// A file cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key cannot be made or read.
    #[error("the {role} key")]
    Key {
        /// Whose.
        role: &'static str,
        /// Why.
        source: KeyError,
    },
    /// A file cannot be written.
    #[error("writing the online keys")]
    Disk(#[source] DiskError),
    /// The public halves cannot be encoded: a mistake of ours.
    #[error("writing the public halves of the online keys")]
    Json(#[source] serde_json::Error),
}

impl OnlineRoles {
    /// The keys in `layout`, made if there are none yet. Timestamps hold for `timestamp_hours`.
    pub fn open(layout: &Layout, timestamp_hours: u32) -> Result<Self, OnlineError> {
        let roles = Self {
            snapshot: key(layout, "snapshot")?,
            timestamp: key(layout, "timestamp")?,
            timestamp_ms: u64::from(timestamp_hours) * HOUR_MS,
        };
        let path = layout.online_keys();
        let public = roles.public().map_err(OnlineError::Json)?;
        if fs::read(&path).ok().as_deref() != Some(public.as_slice()) {
            disk::write(&path, &public, Access::Anyone).map_err(OnlineError::Disk)?;
        }
        Ok(roles)
    }

    fn public(&self) -> Result<Vec<u8>, serde_json::Error> {
        let keys = OnlineKeys {
            snapshot: vec![Key::ed25519(&self.snapshot.public())],
            timestamp: vec![Key::ed25519(&self.timestamp.public())],
        };
        let mut bytes = serde_json::to_vec_pretty(&keys)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whether `root` lets these keys sign both roles alone.
    pub fn named_by(&self, root: &Root) -> bool {
        [("snapshot", &self.snapshot), ("timestamp", &self.timestamp)].into_iter().all(
            |(role, key)| {
                let id = Key::ed25519(&key.public()).id().ok();
                root.roles.get(role).is_some_and(|role| {
                    role.threshold == 1 && id.is_some_and(|id| role.keyids.contains(&id))
                })
            },
        )
    }

    /// A signed snapshot of `roles`, by file name.
    pub fn snapshot(
        &self,
        version: u64,
        roles: BTreeMap<String, Meta>,
        now: UnixMs,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let snapshot = Snapshot {
            kind: "snapshot".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: now.plus(SNAPSHOT_MS).to_rfc3339(),
            meta: roles,
            other: BTreeMap::new(),
        };
        signed(Document::unsigned(&snapshot)?, &self.snapshot)
    }

    /// A signed timestamp for the snapshot of `version` with these bytes.
    pub fn timestamp(
        &self,
        version: u64,
        (snapshot_version, snapshot): (u64, &[u8]),
        now: UnixMs,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let meta = Meta::of(snapshot_version, snapshot);
        let timestamp = Timestamp {
            kind: "timestamp".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: now.plus(self.timestamp_ms).to_rfc3339(),
            meta: BTreeMap::from([("snapshot.json".to_owned(), meta)]),
            other: BTreeMap::new(),
        };
        signed(Document::unsigned(&timestamp)?, &self.timestamp)
    }

    /// Whether a timestamp that ends at `expires` is due to be signed again: a quarter of its time is over.
    pub fn timestamp_due(&self, expires: UnixMs, now: UnixMs) -> bool {
        expires.since(now) <= self.timestamp_ms / 4 * 3
    }

    /// Whether a snapshot that ends at `expires` is due to be signed again: half of its time is over.
    pub fn snapshot_due(&self, expires: UnixMs, now: UnixMs) -> bool {
        expires.since(now) <= SNAPSHOT_MS / 2
    }
}

fn signed(mut document: Document, key: &SigningKey) -> Result<Vec<u8>, serde_json::Error> {
    document.sign(key)?;
    document.to_bytes()
}

fn key(layout: &Layout, role: &'static str) -> Result<SigningKey, OnlineError> {
    let failed = |source| OnlineError::Key { role, source };
    let path = layout.online_key(role);
    let document = match fs::read(&path) {
        Ok(document) => document,
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
            let document = SigningKey::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
            disk::folder(path.parent().unwrap_or_else(|| layout.state()))
                .and_then(|()| disk::write(&path, &document, Access::Owner))
                .map_err(OnlineError::Disk)?;
            document
        }
        Err(source) => return Err(OnlineError::Read { path, source }),
    };
    SigningKey::from_pkcs8(&document).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_made_once_and_stay_their_owners() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let first = OnlineRoles::open(&layout, 24).unwrap().public().unwrap();
        assert_eq!(OnlineRoles::open(&layout, 24).unwrap().public().unwrap(), first);
        assert_eq!(fs::read(layout.online_keys()).unwrap(), first);
        for role in ["snapshot", "timestamp"] {
            let mode = fs::metadata(layout.online_key(role)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{role}");
        }
    }

    #[test]
    fn a_timestamp_is_due_after_a_quarter_of_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let roles = OnlineRoles::open(&Layout::new(folder.path()), 24).unwrap();
        let signed_at = UnixMs(1_795_000_000_000);
        let expires = signed_at.plus(24 * HOUR_MS);
        assert!(!roles.timestamp_due(expires, signed_at.plus(6 * HOUR_MS - 1)));
        assert!(roles.timestamp_due(expires, signed_at.plus(6 * HOUR_MS)));
        assert!(roles.timestamp_due(expires, expires.plus(HOUR_MS)));
    }
}
