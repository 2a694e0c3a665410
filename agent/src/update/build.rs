//! The inactive slot, from the staging area and the store.

use std::{collections::BTreeSet, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use protocol::{digest::Digest, manifest::Manifest};
use slots::{
    disk::Disk,
    install::{self, Documents, InstallError},
    layout::StateDir,
    state::Held,
    store::{Store, StoreError},
};

use crate::update::{
    archive::{self, ArchiveError, Unpacking},
    fit::{self, Host, Unfit},
    selfcheck::{self, SelfCheckError},
};

/// Why a slot is not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// This machine cannot hold the release.
    #[error("the release does not fit this machine")]
    Unfit(#[source] Unfit),
    /// A staged file is missing or cannot be read.
    #[error("reading staged object {path}; it has to be fetched again")]
    Staged {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A staged file is not what its name says, or does not go into the store.
    #[error("storing an object")]
    Store(#[source] StoreError),
    /// The agent's archive.
    #[error("placing the agent")]
    Archive(#[source] ArchiveError),
    /// The slot.
    #[error("filling slot {slot}")]
    Install {
        /// Slot.
        slot: protocol::id::Slot,
        /// Why.
        source: InstallError,
    },
    /// The staged agent does not run here.
    #[error("the staged agent does not pass its self-check")]
    SelfCheck(#[source] SelfCheckError),
    /// The release names no agent.
    #[error("the release names no agent")]
    NoAgent,
}

impl BuildError {
    /// Whether the release is at fault: then it is quarantined. Otherwise the same release may come again.
    pub fn is_the_release(&self) -> bool {
        match self {
            Self::Unfit(Unfit::Disk { .. })
            | Self::Staged { .. }
            | Self::Store(_)
            | Self::Install { .. } => false,
            Self::Unfit(Unfit::Platform { .. } | Unfit::Memory { .. })
            | Self::SelfCheck(_)
            | Self::NoAgent => true,
            Self::Archive(error) => error.is_the_release(),
        }
    }
}

/// Builds the slot of `held` and runs its agent's self-check. May be done again after any interruption.
pub fn build(
    disk: &dyn Disk,
    dir: &StateDir,
    held: &Held,
    manifest: &Manifest,
    documents: &Documents<'_>,
    limits: &Limits,
) -> Result<(), BuildError> {
    let store = Store::new(disk, dir);
    let installing = |source| BuildError::Install { slot: held.slot, source };
    let missing = store.missing(manifest);
    let new_bytes = missing.iter().map(|object| object.length).sum();
    let room = give_back(disk, dir)
        .map_err(|source| BuildError::Staged { path: dir.reserved(), source })?;
    let free = limits.host.disk_free_bytes.saturating_add(room);
    let host = Host { disk_free_bytes: free, ..limits.host.clone() };
    fit::fits(&host, &manifest.requires, new_bytes).map_err(BuildError::Unfit)?;

    let agent = manifest.agent().ok_or(BuildError::NoAgent)?.clone();
    let mut fresh = BTreeSet::new();
    for object in missing.iter().filter(|object| **object != agent.object()) {
        let path = dir.staged_object(&object.sha256);
        match store.add_file(*object, &path) {
            Ok(()) => drop(fresh.insert(object.sha256)),
            Err(StoreError::Source { source, .. }) => {
                return Err(BuildError::Staged { path, source });
            }
            Err(error) => {
                forget_staged(disk, dir, &error);
                return Err(BuildError::Store(error));
            }
        }
    }
    let place = install::clear(disk, dir, held.slot, manifest).map_err(installing)?;
    let named = agent.archive.clone().ok_or(BuildError::NoAgent)?;
    let fresh_agent = !store.has(&agent.sha256);
    if fresh_agent {
        let archive = dir.staged_object(&named.sha256);
        if disk.length(&archive).ok().flatten().is_none() {
            let source = io::ErrorKind::NotFound.into();
            return Err(BuildError::Staged { path: archive, source });
        }
        let unpacking = Unpacking {
            archive,
            named,
            version: semver_of(&manifest.agent_version),
            agent_sha256: agent.sha256,
            agent_length: agent.length,
            to: place.agent(),
        };
        if let Err(error) = archive::unpack(&unpacking) {
            if error.is_the_file() {
                // Left behind, it would only be refused again.
                drop(disk.remove_file(&unpacking.archive));
            }
            return Err(BuildError::Archive(error));
        }
    }
    match install::fill(disk, dir, held.slot, manifest, documents, &fresh) {
        Err(InstallError::Damaged { digest, source }) => {
            // The store holds a damaged file under this name: without it, the next request brings it again.
            store.forget(&digest).map_err(BuildError::Store)?;
            return Err(installing(InstallError::Damaged { digest, source }));
        }
        other => other.map_err(installing)?,
    }
    if fresh_agent {
        store.adopt(&place.agent(), agent.sha256).map_err(BuildError::Store)?;
    }
    selfcheck::run(&place.agent(), limits.self_check_ms).map_err(BuildError::SelfCheck)
}

/// What a build may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What this machine offers.
    pub host: Host,
    /// Longest self-check.
    pub self_check_ms: u64,
}

/// Frees the room that the gateway held for the copies which are made now; says how much that is.
fn give_back(disk: &dyn Disk, dir: &StateDir) -> io::Result<u64> {
    let path = dir.reserved();
    let held = path.symlink_metadata().map_or(0, |meta| meta.blocks().saturating_mul(512));
    disk.remove_file(&path).map(|()| held)
}

/// Removes the staged objects of a release that is built or given up.
pub fn tidy(disk: &dyn Disk, dir: &StateDir, objects: &[Digest]) -> io::Result<()> {
    for digest in objects {
        disk.remove_file(&dir.staged_object(digest))?;
    }
    disk.sync_dir(&dir.staged_objects())
}

fn forget_staged(disk: &dyn Disk, dir: &StateDir, error: &StoreError) {
    if let StoreError::Altered { digest, .. } = error {
        // Left behind, it would only be refused again.
        drop(disk.remove_file(&dir.staged_object(digest)));
    }
}

/// `self_update` compares versions; ours decides nothing, so what is not one is written as one.
fn semver_of(version: &str) -> String {
    let parts: Vec<&str> = version.split('.').collect();
    let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(numeric) { version.to_owned() } else { "0.0.1".into() }
}
