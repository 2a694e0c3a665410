//! A slot from a manifest and the store: cleared, filled, made durable, and, once committed, stamped.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use protocol::{
    digest::Digest,
    id::Slot,
    manifest::Manifest,
    tuf::{shape::is_role_name, walk::RoleBytes},
};
use serde::{Deserialize, Serialize};

use crate::{
    boot::Stamped,
    disk::{self, Disk},
    layout::{SlotDir, StateDir},
    state::Held,
    store::{Store, StoreError},
    verify::{self, SlotError},
};

const STAMP_BYTES_MAX: u64 = 4096;
const MANIFEST_BYTES_MAX: u64 = protocol::cbor::DOCUMENT_BYTES_MAX as u64;

/// The documents that prove a release, byte for byte as received.
#[derive(Clone, Copy, Debug)]
pub struct Documents<'a> {
    /// The manifest.
    pub manifest: &'a [u8],
    /// Targets metadata that proves it, by role: `targets` first.
    pub roles: &'a [RoleBytes],
    /// The root under which it was verified, with its version.
    pub root: (u64, &'a [u8]),
}

/// Why a slot is not filled or stamped.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file could not be linked.
    #[error("installing {path}")]
    Link {
        /// File.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// A step on the disk failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The filled slot is not as its manifest says.
    #[error("checking the installed release")]
    Damaged {
        /// Digest of the file that is damaged.
        digest: Digest,
        /// Why.
        source: Box<SlotError>,
    },
    /// A document whose role cannot be a file's name.
    #[error("`{0}` is not the name of a role; have the release signed by roles with plain names")]
    Role(String),
    /// The stamp cannot be encoded.
    #[error("encoding the stamp")]
    Stamp(#[source] serde_json::Error),
}

/// What the stamp says. It decides only when both copies of the boot record are lost.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    release: Digest,
    name: String,
    counter: u64,
    /// Which commit it was. Stamps of the first format carry none.
    #[serde(default)]
    commit: u64,
}

/// Empties `slot` and makes its folders. The stamp goes first, durably: what is stamped is whole. Nothing else of this
/// has to be durable: the boot record names the slot only after [`fill`].
pub fn clear(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
    manifest: &Manifest,
) -> Result<SlotDir, InstallError> {
    let place = dir.slot(slot);
    empty(disk, &place)?;
    let agent = place.agent();
    let mut folders = vec![place.path().to_owned(), place.release(), place.roles(), place.models()];
    folders.extend(agent.parent().map(Path::to_owned));
    folders.extend(manifest.models().iter().map(|name| place.models().join(name)));
    for folder in &folders {
        done("making", folder, disk.create_dir(folder))?;
    }
    Ok(place)
}

/// Fills a cleared slot: files by hard link from the store (the agent too, unless it was placed already), documents by
/// copy. Afterwards everything in it is durable and was compared with the manifest: what is `fresh` was hashed on its
/// way into the store by this very run, so reading it back would only ask the page cache again; all else is read here.
pub fn fill(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
    manifest: &Manifest,
    documents: &Documents<'_>,
    fresh: &BTreeSet<Digest>,
) -> Result<(), InstallError> {
    let (place, store) = (dir.slot(slot), Store::new(disk, dir));
    for file in &manifest.files {
        let path = place.file(&file.path);
        if disk.length(&path).ok().flatten().is_none() {
            store
                .link(&file.sha256, &path)
                .map_err(|source| InstallError::Link { path: path.clone(), source })?;
        }
    }
    let agent = place.agent();
    done("making executable", &agent, disk.set_mode(&agent, 0o555))?;
    done("syncing", &agent, disk.sync_file(&agent))?;
    let (version, root) = documents.root;
    let mut texts = vec![(place.manifest(), documents.manifest), (place.root(version), root)];
    for (role, bytes) in documents.roles {
        let path = match role.as_str() {
            "targets" => place.targets(),
            name if is_role_name(name) => place.role(name),
            other => return Err(InstallError::Role(other.chars().take(80).collect())),
        };
        texts.push((path, bytes.as_slice()));
    }
    for (path, mut bytes) in texts {
        done("writing", &path, disk.write(&path, &mut bytes))?;
        done("syncing", &path, disk.sync_file(&path))?;
    }
    let mut folders: Vec<PathBuf> =
        manifest.models().iter().map(|name| place.models().join(name)).collect();
    folders.extend([place.models(), place.roles(), place.release(), place.path().join("bin")]);
    folders.extend([place.path().to_owned(), dir.slots()]);
    for folder in folders {
        done("syncing", &folder, disk.sync_dir(&folder))?;
    }
    let older = manifest.files.iter().filter(|file| !fresh.contains(&file.sha256));
    verify::complete(disk, &place, older)
        .map_err(|(digest, source)| InstallError::Damaged { digest, source })
}

/// Stamps the slot as committed, the `commit`th of this device. One that is stamped so already is only synced.
pub fn stamp(
    disk: &dyn Disk,
    dir: &StateDir,
    held: &Held,
    commit: u64,
) -> Result<(), InstallError> {
    let place = dir.slot(held.slot);
    let path = place.stamp();
    let Held { release, name, counter, .. } = held.clone();
    let bytes = serde_json::to_vec(&Stamp { release, name, counter, commit })
        .map_err(InstallError::Stamp)?;
    if disk.read(&path, STAMP_BYTES_MAX).is_ok_and(|found| found == bytes) {
        return done("syncing", place.path(), disk.sync_dir(place.path()));
    }
    done("writing", &path, disk::replace(disk, &path, &bytes))
}

/// Empties every slot that holds neither `keep` nor a release that was committed before: what a trial left behind.
/// Returns the slots that were emptied.
pub fn sweep(
    disk: &dyn Disk,
    dir: &StateDir,
    keep: Option<&Held>,
) -> Result<Vec<Slot>, InstallError> {
    let mut emptied = Vec::new();
    for slot in Slot::BOTH {
        let place = dir.slot(slot);
        let kept = keep.is_some_and(|held| held.slot == slot);
        // A stamp that the disk does not give back may be one.
        let committed = !matches!(read_stamp(disk, dir, slot), Ok(None));
        if kept || committed || disk.list(place.path()).is_err() {
            continue;
        }
        empty(disk, &place)?;
        emptied.push(slot);
    }
    Ok(emptied)
}

/// The stamped slot to go on with when the boot record is lost: of two, the one that was committed last. A stamp counts
/// only beside the manifest it names.
pub fn stamped(disk: &dyn Disk, dir: &StateDir) -> Option<Stamped> {
    let stamps = Slot::BOTH.into_iter().filter_map(|slot| read_stamp(disk, dir, slot).ok()?);
    stamps.max_by_key(|stamped| (stamped.commit, stamped.held.counter))
}

fn read_stamp(disk: &dyn Disk, dir: &StateDir, slot: Slot) -> io::Result<Option<Stamped>> {
    let place = dir.slot(slot);
    let Some(bytes) = present(disk.read(&place.stamp(), STAMP_BYTES_MAX))? else {
        return Ok(None);
    };
    let Some(manifest) = present(disk.read(&place.manifest(), MANIFEST_BYTES_MAX))? else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&bytes).ok().and_then(|stamp| {
        let Stamp { release, name, counter, commit } = stamp;
        let held = Held { slot, release, name, counter };
        (Digest::of(&manifest) == release).then_some(Stamped { held, commit })
    }))
}

fn present(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn empty(disk: &dyn Disk, place: &SlotDir) -> Result<(), InstallError> {
    let stamp = place.stamp();
    if matches!(disk.length(&stamp), Ok(Some(_))) {
        done("removing", &stamp, disk::remove(disk, &stamp))?;
    }
    if disk.list(place.path()).is_ok() {
        done("clearing", place.path(), disk.remove_dir_all(place.path()))?;
    }
    Ok(())
}

fn done<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, InstallError> {
    result.map_err(|source| InstallError::Io { doing, path: path.to_owned(), source })
}
