//! The trust folder: the newest root, every root before it, the versions seen, and whom the device obeys.
//!
//! It is written by enrolment, and by the updater once everything about a request was checked. Files are replaced one by
//! one, the roots before the versions seen: what was seen says under which root, so after a power cut between the two
//! the walk from that root to the newest is done again, and forgets what the walk forgets.

use std::{io, path::PathBuf};

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    enrol::Authority,
    tuf::{
        chain::{Seen, next_root, pinned_root},
        refusal::{ROOTS_MAX, VerifyError},
        verify::Trusted,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    disk::{self, Disk},
    layout::StateDir,
};

/// Why the trust folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file is missing or unreadable.
    #[error("reading {path}; enrol the device with `socle-agent enrol`")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what was written there.
    #[error("{path} is damaged; enrol the device again")]
    Content {
        /// File.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A root is not one.
    #[error("{path} is not a root that can be trusted; enrol the device again")]
    Root {
        /// File.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
    /// A file cannot be written.
    #[error("writing {path}; check that the disk has room and is healthy")]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value that cannot be written.
    #[error("encoding {path}")]
    Encode {
        /// File.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// `seen.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenFile {
    /// Version of the root under which it was seen.
    root: u64,
    seen: Seen,
}

/// What this device trusts.
pub fn load(disk: &dyn Disk, dir: &StateDir) -> Result<Trusted, TrustError> {
    let path = dir.trusted_root();
    let newest = read(disk, &path)?;
    let SeenFile { root, seen } = match disk.length(&dir.seen()) {
        Ok(None) => SeenFile::default(),
        Ok(Some(_)) => json(disk, dir.seen())?,
        Err(source) => return Err(TrustError::Read { path: dir.seen(), source }),
    };
    let refused = |source| TrustError::Root { path: path.clone(), source };
    let trusted = Trusted::new(newest, seen).map_err(refused)?;
    let version = trusted.root().get().version;
    if root >= version || trusted.seen() == &Seen::default() {
        return Ok(trusted);
    }
    // A power cut came between the roots and what was seen.
    Ok(walked(disk, dir, (root, version), &trusted).unwrap_or(trusted))
}

/// Trust as it is after walking from the root under which things were seen to the newest.
fn walked(
    disk: &dyn Disk,
    dir: &StateDir,
    (from, to): (u64, u64),
    newest: &Trusted,
) -> Option<Trusted> {
    let known = |version| read(disk, &dir.known_root(version)).ok();
    let count = usize::try_from(to.checked_sub(from)?).ok().filter(|count| *count <= ROOTS_MAX)?;
    let newer: Vec<Vec<u8>> = (1..=count as u64).map_while(|step| known(from + step)).collect();
    let walked =
        Trusted::new(known(from)?, newest.seen().clone()).ok()?.after_roots(&newer).ok()?;
    (walked.root_bytes() == newest.root_bytes()).then_some(walked)
}

/// Remembers `trusted`, which was reached by walking through `roots`. Only after every check: what is kept here is never
/// gone back on. Nothing is written when nothing changed.
pub fn keep(
    disk: &dyn Disk,
    dir: &StateDir,
    roots: &[Vec<u8>],
    trusted: &Trusted,
) -> Result<(), TrustError> {
    for root in roots.iter().map(Vec::as_slice).chain([trusted.root_bytes()]) {
        let known = pinned_root(root)
            .map_err(|source| TrustError::Root { path: dir.trusted_root(), source })?;
        replace(disk, dir, dir.known_root(known.get().version), root)?;
    }
    replace(disk, dir, dir.trusted_root(), trusted.root_bytes())?;
    let seen = SeenFile { root: trusted.root().get().version, seen: trusted.seen().clone() };
    write_json(disk, dir, dir.seen(), &seen)
}

/// Trusts `root`, which the operator's token pins, and obeys `authority`. A newer root that this device already walked
/// to from the pinned one stays, with all that was seen; of anything else it trusted, nothing stays.
pub fn enrol(
    disk: &dyn Disk,
    dir: &StateDir,
    root: &[u8],
    authority: &Authority,
) -> Result<(), TrustError> {
    let path = dir.trusted_root();
    let refused = |source| TrustError::Root { path: path.clone(), source };
    let pinned = pinned_root(root).map_err(refused)?;
    let known = load(disk, dir).ok();
    let version = pinned.get().version;
    match known {
        Some(known) if descends(disk, dir, &known, version, root) => {
            keep(disk, dir, &[], &known)?;
        }
        Some(known) if next_root(known.root(), root).is_ok() => {
            let trusted = known.after_roots(&[root.to_vec()]).map_err(refused)?;
            keep(disk, dir, &[], &trusted)?;
        }
        Some(_) | None => {
            forget(disk, dir)?;
            let trusted = Trusted::new(root.to_vec(), Seen::default()).map_err(refused)?;
            keep(disk, dir, &[], &trusted)?;
        }
    }
    write_json(disk, dir, dir.authority(), authority)
}

/// Whom this device obeys.
pub fn authority(disk: &dyn Disk, dir: &StateDir) -> Result<Authority, TrustError> {
    json(disk, dir.authority())
}

/// Whether `known` is `root`, or was reached from it: every step in between is kept, and holds.
fn descends(disk: &dyn Disk, dir: &StateDir, known: &Trusted, version: u64, root: &[u8]) -> bool {
    let newest = known.root().get().version;
    if version == newest {
        return known.root_bytes() == root;
    }
    version < newest
        && read(disk, &dir.known_root(version)).is_ok_and(|kept| kept == root)
        && walked(disk, dir, (version, newest), known).is_some()
}

/// Removes what was trusted, the versions seen first: they mean nothing without their root.
fn forget(disk: &dyn Disk, dir: &StateDir) -> Result<(), TrustError> {
    let folder = dir.trust();
    let failed = |path: PathBuf| move |source| TrustError::Write { path, source };
    disk::remove(disk, &dir.seen()).map_err(failed(dir.seen()))?;
    for name in disk.list(&folder).map_err(failed(folder.clone()))? {
        if name.ends_with(".root.json") {
            let path = folder.join(name);
            disk.remove_file(&path).map_err(failed(path.clone()))?;
        }
    }
    disk.sync_dir(&folder).map_err(failed(folder.clone()))
}

fn read(disk: &dyn Disk, path: &std::path::Path) -> Result<Vec<u8>, TrustError> {
    disk.read(path, DOCUMENT_BYTES_MAX as u64)
        .map_err(|source| TrustError::Read { path: path.to_owned(), source })
}

fn json<T: DeserializeOwned>(disk: &dyn Disk, path: PathBuf) -> Result<T, TrustError> {
    let bytes = read(disk, &path)?;
    serde_json::from_slice(&bytes).map_err(|source| TrustError::Content { path, source })
}

fn write_json<T: Serialize>(
    disk: &dyn Disk,
    dir: &StateDir,
    path: PathBuf,
    value: &T,
) -> Result<(), TrustError> {
    match serde_json::to_vec(value) {
        Ok(bytes) => replace(disk, dir, path, &bytes),
        Err(source) => Err(TrustError::Encode { path, source }),
    }
}

fn replace(disk: &dyn Disk, dir: &StateDir, path: PathBuf, bytes: &[u8]) -> Result<(), TrustError> {
    let written = if read(disk, &path).is_ok_and(|known| known == bytes) {
        // Whoever wrote it may have been stopped before its name was durable.
        disk.sync_dir(&dir.trust())
    } else {
        disk::replace(disk, &path, bytes)
    };
    written.map_err(|source| TrustError::Write { path, source })
}
