//! Executables, opened so that what was checked is what runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protocol::digest::Digest;

use crate::{
    disk::{Disk, RealDisk},
    verify::{self, SlotError},
};

/// A disk whose executables can be started.
pub trait Executables: Disk {
    /// An opened executable. Its name may mean another file by the time it is started.
    type Opened;

    /// Opens the executable at `path` and checks its digest through what it opened.
    fn open_executable(&self, path: &Path, expected: &Digest) -> Result<Self::Opened, SlotError>;
}

impl Executables for RealDisk {
    type Opened = fs::File;

    fn open_executable(&self, path: &Path, expected: &Digest) -> Result<fs::File, SlotError> {
        verify::open_executable(path, expected)
    }
}

/// Holds if a file of these permission bits and this digest is the executable that is expected.
pub(crate) fn is_executable(
    path: &Path,
    mode: u32,
    found: &Digest,
    expected: &Digest,
) -> Result<(), SlotError> {
    let altered = |found| SlotError::Altered { path: PathBuf::from(path), found };
    if mode & 0o111 == 0 {
        return Err(altered("not an executable file".to_owned()));
    }
    if found == expected {
        Ok(())
    } else {
        Err(altered(format!("SHA-256 {found}, expected {expected}")))
    }
}
