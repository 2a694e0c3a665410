//! Whether what lies in a slot is the genuine release it claims to be.
//!
//! Signatures count, age does not: a machine must be able to start from what it has, however old it is.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    digest::{Digest, Hasher},
    id::Slot,
    manifest::{File, Manifest},
    tuf::{
        early::{Release, VerifyError, listed_release, newest_root, pinned_root, signed_targets},
        metadata::Root,
    },
    verified::Verified,
};

use crate::{
    disk::Disk,
    layout::{SlotDir, StateDir},
};

/// Why a slot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// A file that is needed cannot be read.
    #[error(
        "reading {path}; enrol the device if it is the trusted root, else let the release be installed again"
    )]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The documents do not prove the release.
    #[error("{path} does not prove the release in slot {slot}; let the release be installed again")]
    Untrusted {
        /// Document.
        path: PathBuf,
        /// Slot.
        slot: Slot,
        /// Why.
        source: VerifyError,
    },
    /// Genuine, but not the release that the boot record names.
    #[error("slot {slot} holds release {} where the boot record names {}", .found.short(), .named.short())]
    OtherRelease {
        /// Slot.
        slot: Slot,
        /// Named by the boot record.
        named: Digest,
        /// Found.
        found: Digest,
    },
    /// A file is not as its manifest says.
    #[error(
        "{path} is not as its release says ({found}): it was altered or damaged; let the release be installed again"
    )]
    Altered {
        /// File.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The release brings no agent.
    #[error("the release in slot {0} names no agent")]
    NoAgent(Slot),
}

/// The release in `slot`, if its documents prove it and every file is there with its length. `named` is the release
/// that the boot record expects there.
pub fn installed(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
    named: Option<&Digest>,
) -> Result<Verified<Release>, SlotError> {
    let place = dir.slot(slot);
    let root = chain(disk, dir, slot)?.0;
    let untrusted = |path: PathBuf| move |source| SlotError::Untrusted { path, slot, source };
    let targets = signed_targets(&root, &document(disk, &place.targets())?)
        .map_err(untrusted(place.targets()))?;
    let release = listed_release(&targets, &document(disk, &place.manifest())?)
        .map_err(untrusted(place.manifest()))?;
    let found = release.get().digest;
    if let Some(named) = named.filter(|named| **named != found) {
        return Err(SlotError::OtherRelease { slot, named: *named, found });
    }
    for file in &release.get().manifest.files {
        let path = place.file(&file.path);
        match disk.length(&path) {
            Ok(Some(length)) if length == file.length => {}
            Ok(Some(length)) => return Err(altered(path, format!("{length} bytes"))),
            Ok(None) => return Err(altered(path, "missing".into())),
            Err(source) => return Err(SlotError::Unreadable { path, source }),
        }
    }
    Ok(release)
}

/// The newest root that the slot's documents lead to from the trusted one, and its bytes if it is a newer one.
pub fn chain(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
) -> Result<(Verified<Root>, Option<Vec<u8>>), SlotError> {
    let untrusted = |path: PathBuf| move |source| SlotError::Untrusted { path, slot, source };
    let trusted = pinned_root(&document(disk, &dir.trusted_root())?)
        .map_err(untrusted(dir.trusted_root()))?;
    let place = dir.slot(slot);
    let mut newer = Vec::new();
    let mut version = trusted.get().version.saturating_add(1);
    while matches!(disk.length(&place.root(version)), Ok(Some(_))) {
        newer.push(document(disk, &place.root(version))?);
        version = version.saturating_add(1);
    }
    let root = newest_root(trusted, &newer).map_err(untrusted(place.release()))?;
    Ok((root, newer.pop()))
}

/// Holds if every file of the slot is byte for byte as `manifest` says. Reads all of it. A damaged file is named with
/// its digest, so that the store can forget it.
pub fn complete(
    disk: &dyn Disk,
    slot: &SlotDir,
    manifest: &Manifest,
) -> Result<(), (Digest, Box<SlotError>)> {
    for file in &manifest.files {
        whole(disk, &slot.file(&file.path), file)
            .map_err(|error| (file.sha256, Box::new(error)))?;
    }
    Ok(())
}

/// The slot's agent, opened, and checked through the opened file: what is checked is what will run.
pub fn open_agent(slot: &SlotDir, id: Slot, manifest: &Manifest) -> Result<fs::File, SlotError> {
    let expected = manifest.agent().ok_or(SlotError::NoAgent(id))?;
    open_executable(&slot.agent(), &expected.sha256)
}

/// Opens an executable and checks its digest through the opened file.
pub fn open_executable(path: &Path, expected: &Digest) -> Result<fs::File, SlotError> {
    let unreadable = |source| SlotError::Unreadable { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Err(altered(path.to_owned(), "not an executable file".into()));
    }
    let found = hash(&mut &file).map_err(unreadable)?;
    if found == *expected {
        Ok(file)
    } else {
        Err(altered(path.to_owned(), format!("SHA-256 {found}, expected {expected}")))
    }
}

fn whole(disk: &dyn Disk, path: &Path, file: &File) -> Result<(), SlotError> {
    let unreadable = |source| SlotError::Unreadable { path: path.to_owned(), source };
    let found = hash(&mut disk.open(path).map_err(unreadable)?).map_err(unreadable)?;
    if found == file.sha256 {
        Ok(())
    } else {
        Err(altered(path.to_owned(), format!("SHA-256 {found}, expected {}", file.sha256)))
    }
}

/// The digest of all that `content` gives.
pub fn hash(content: &mut dyn io::Read) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn document(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, SlotError> {
    disk.read(path, DOCUMENT_BYTES_MAX as u64)
        .map_err(|source| SlotError::Unreadable { path: path.to_owned(), source })
}

const fn altered(path: PathBuf, found: String) -> SlotError {
    SlotError::Altered { path, found }
}
