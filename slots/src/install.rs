//! A slot from a manifest and the store: cleared, filled, made durable, and, once committed, stamped.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{digest::Digest, id::Slot, manifest::Manifest};
use serde::{Deserialize, Serialize};

use crate::{
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
    /// The targets metadata that lists it.
    pub targets: &'a [u8],
    /// Roots newer than the trusted one, with their versions, in order.
    pub roots: &'a [(u64, Vec<u8>)],
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
    /// The slot's roots do not lead anywhere.
    #[error("adopting the newest root")]
    Root(#[source] Box<SlotError>),
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
}

/// Empties `slot` and makes its folders. Nothing of this has to be durable: the boot record names the slot only after
/// [`fill`], and should the record be lost meanwhile, the other slot's stamp has the higher counter.
pub fn clear(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
    manifest: &Manifest,
) -> Result<SlotDir, InstallError> {
    let place = dir.slot(slot);
    if disk.list(place.path()).is_ok() {
        done("clearing", place.path(), disk.remove_dir_all(place.path()))?;
    }
    let agent = place.agent();
    let mut folders = vec![place.path().to_owned(), place.release(), place.models()];
    folders.extend(agent.parent().map(Path::to_owned));
    folders.extend(manifest.models().iter().map(|name| place.models().join(name)));
    for folder in &folders {
        done("making", folder, disk.create_dir(folder))?;
    }
    Ok(place)
}

/// Fills a cleared slot: files by hard link from the store (the agent too, unless it was placed already), documents by
/// copy. Afterwards everything in it is durable and was read back and compared with the manifest.
pub fn fill(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
    manifest: &Manifest,
    documents: &Documents<'_>,
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
    let mut texts =
        vec![(place.manifest(), documents.manifest), (place.targets(), documents.targets)];
    texts.extend(documents.roots.iter().map(|(n, bytes)| (place.root(*n), bytes.as_slice())));
    for (path, mut bytes) in texts {
        done("writing", &path, disk.write(&path, &mut bytes))?;
        done("syncing", &path, disk.sync_file(&path))?;
    }
    let mut folders: Vec<PathBuf> =
        manifest.models().iter().map(|name| place.models().join(name)).collect();
    folders.extend([place.models(), place.release(), place.path().join("bin")]);
    folders.extend([place.path().to_owned(), dir.slots()]);
    for folder in folders {
        done("syncing", &folder, disk.sync_dir(&folder))?;
    }
    verify::complete(disk, &place, manifest)
        .map_err(|(digest, source)| InstallError::Damaged { digest, source })
}

/// Stamps the slot as committed. Nothing happens when it is stamped so already.
pub fn stamp(disk: &dyn Disk, dir: &StateDir, held: &Held) -> Result<(), InstallError> {
    let path = dir.slot(held.slot).stamp();
    let stamp = Stamp { release: held.release, name: held.name.clone(), counter: held.counter };
    let bytes = serde_json::to_vec(&stamp).map_err(InstallError::Stamp)?;
    if disk.read(&path, STAMP_BYTES_MAX).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    done("writing", &path, disk::replace(disk, &path, &bytes))
}

/// Trusts from now on the newest root that came with the committed release.
pub fn adopt_root(disk: &dyn Disk, dir: &StateDir, held: &Held) -> Result<(), InstallError> {
    let (_, newest) = verify::chain(disk, dir, held.slot)
        .map_err(|source| InstallError::Root(Box::new(source)))?;
    match newest {
        Some(bytes) => {
            let path = dir.trusted_root();
            done("writing", &path, disk::replace(disk, &path, &bytes))
        }
        None => Ok(()),
    }
}

/// The stamped slot to go on with when the boot record is lost: of two, the one with the higher counter. A stamp counts
/// only beside the manifest it names.
pub fn stamped(disk: &dyn Disk, dir: &StateDir) -> Option<Held> {
    Slot::BOTH.into_iter().filter_map(|slot| read_stamp(disk, dir, slot)).max_by_key(|h| h.counter)
}

fn read_stamp(disk: &dyn Disk, dir: &StateDir, slot: Slot) -> Option<Held> {
    let place = dir.slot(slot);
    let bytes = disk.read(&place.stamp(), STAMP_BYTES_MAX).ok()?;
    let Stamp { release, name, counter } = serde_json::from_slice(&bytes).ok()?;
    let manifest = disk.read(&place.manifest(), MANIFEST_BYTES_MAX).ok()?;
    (Digest::of(&manifest) == release).then_some(Held { slot, release, name, counter })
}

fn done<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, InstallError> {
    result.map_err(|source| InstallError::Io { doing, path: path.to_owned(), source })
}
