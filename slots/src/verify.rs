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
        chain::{newest_root, pinned_root},
        metadata::Root,
        refusal::{ROOTS_MAX, VerifyError},
        shape::is_role_name,
        verify::{Release, installed_release},
        walk::RoleBytes,
    },
    verified::Verified,
};

use crate::{
    disk::Disk,
    layout::{SlotDir, StateDir},
};

/// Most roles whose documents are read from a slot: as many as a release may need.
pub const ROLES_IN_SLOT_MAX: usize = 64;

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
    let root = root(disk, dir, slot)?;
    let roles = roles(disk, &place)?;
    let manifest = document(disk, &place.manifest())?;
    let release = installed_release(&root, &roles, &manifest)
        .map_err(|source| SlotError::Untrusted { path: blamed(&place, &source), slot, source })?;
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

/// The document that `error` is about.
fn blamed(place: &SlotDir, error: &VerifyError) -> PathBuf {
    let (VerifyError::Document { role, .. }
    | VerifyError::Content { role, .. }
    | VerifyError::Shape { role, .. }
    | VerifyError::Kind { role, .. }
    | VerifyError::Wanted { role, .. }) = error
    else {
        return place.manifest();
    };
    if role == "targets" { place.targets() } else { place.role(role) }
}

/// The root under which the release in `slot` was verified, as this device keeps it: replacing keys does not make what
/// is installed unusable. Where it is not kept, the slot's own roots must lead there from the trusted one.
fn root(disk: &dyn Disk, dir: &StateDir, slot: Slot) -> Result<Verified<Root>, SlotError> {
    let place = dir.slot(slot);
    let untrusted = |path: PathBuf| move |source| SlotError::Untrusted { path, slot, source };
    let named = roots_in(disk, &place).last().copied();
    if let Some(version) = named {
        let path = dir.known_root(version);
        if matches!(disk.length(&path), Ok(Some(_))) {
            return pinned_root(&document(disk, &path)?).map_err(untrusted(path));
        }
    }
    let trusted = pinned_root(&document(disk, &dir.trusted_root())?)
        .map_err(untrusted(dir.trusted_root()))?;
    let newer = roots_in(disk, &place)
        .into_iter()
        .filter(|version| *version > trusted.get().version)
        .map(|version| document(disk, &place.root(version)))
        .collect::<Result<Vec<_>, _>>()?;
    newest_root(trusted, &newer).map_err(untrusted(place.release()))
}

/// Versions of the roots that lie in the slot, in order.
fn roots_in(disk: &dyn Disk, place: &SlotDir) -> Vec<u64> {
    let names = disk.list(&place.release()).unwrap_or_default();
    let version = |name: &String| name.strip_suffix(".root.json")?.parse::<u64>().ok();
    let mut versions: Vec<u64> = names.iter().filter_map(version).collect();
    versions.sort_unstable();
    versions.truncate(ROOTS_MAX);
    versions
}

/// The targets metadata in the slot: the top-level role's and those of delegated roles.
fn roles(disk: &dyn Disk, place: &SlotDir) -> Result<Vec<RoleBytes>, SlotError> {
    let mut roles = vec![("targets".to_owned(), document(disk, &place.targets())?)];
    let names = disk.list(&place.roles()).unwrap_or_default();
    let named = names.iter().filter_map(|name| name.strip_suffix(".json"));
    for role in named.filter(|role| is_role_name(role)).take(ROLES_IN_SLOT_MAX) {
        roles.push((role.to_owned(), document(disk, &place.role(role))?));
    }
    Ok(roles)
}

/// Holds if each of `files` lies in the slot byte for byte as its manifest says. Reads all of them. A damaged file is
/// named with its digest, so that the store can forget it.
pub fn complete<'a>(
    disk: &dyn Disk,
    slot: &SlotDir,
    files: impl IntoIterator<Item = &'a File>,
) -> Result<(), (Digest, Box<SlotError>)> {
    for file in files {
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
    let mut buffer = vec![0; 1 << 18];
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
