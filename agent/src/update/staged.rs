//! The files that the gateway leaves in the staging area, read with their bounds and removed when they are done with.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{
    cbor::{self, DecodeError, MESSAGE_BYTES_MAX},
    handover::{REQUEST_BYTES_MAX, Request, Verdict},
};
use serde::{Serialize, de::DeserializeOwned};
use slots::disk::{self, Disk};

/// Largest verdict.
const VERDICT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// What became of looking for a file.
#[derive(Debug)]
pub enum Found<T> {
    /// There is none.
    Nothing,
    /// It says this.
    Content(T),
    /// It is there and of no use.
    Unusable(Unusable),
}

/// Why a staged file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] io::Error),
    /// It is not what it should be.
    #[error("{0} is damaged; the gateway writes it again")]
    Content(PathBuf, #[source] DecodeError),
}

/// The request, if there is one.
pub fn request(disk: &dyn Disk, path: &Path) -> Found<Request> {
    content(disk, path, REQUEST_BYTES_MAX)
}

/// The verdict, if there is one.
pub fn verdict(disk: &dyn Disk, path: &Path) -> Found<Verdict> {
    content(disk, path, VERDICT_BYTES_MAX)
}

/// The newest halt as the controller signed it, if there is one.
pub fn halt(disk: &dyn Disk, path: &Path) -> Found<Vec<u8>> {
    match bytes(disk, path, MESSAGE_BYTES_MAX) {
        Ok(None) => Found::Nothing,
        Ok(Some(bytes)) => Found::Content(bytes),
        Err(unusable) => Found::Unusable(unusable),
    }
}

/// Removes a file that is done with, so that it stays removed.
pub fn consume(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk::remove(disk, path)
}

fn content<T: DeserializeOwned + Serialize>(disk: &dyn Disk, path: &Path, max: usize) -> Found<T> {
    match bytes(disk, path, max) {
        Ok(None) => Found::Nothing,
        Ok(Some(bytes)) => match cbor::decode(&bytes, max) {
            Ok(content) => Found::Content(content),
            Err(error) => Found::Unusable(Unusable::Content(path.to_owned(), error)),
        },
        Err(unusable) => Found::Unusable(unusable),
    }
}

fn bytes(disk: &dyn Disk, path: &Path, max: usize) -> Result<Option<Vec<u8>>, Unusable> {
    match disk.read(path, max as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unusable::Read(path.to_owned(), error)),
    }
}
