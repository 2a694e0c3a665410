//! Small durable files of the gateway: one CBOR value each, replaced as a whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::cbor::{self, DecodeError, EncodeError};
use serde::{Serialize, de::DeserializeOwned};
use slots::disk::{self, Disk};

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The disk refused.
    #[error("using the state file {}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("reading the content of {}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
    /// A value that cannot be written.
    #[error("writing {}", path.display())]
    Encode {
        /// Which.
        path: PathBuf,
        /// Why.
        source: EncodeError,
    },
}

/// The value in `path`; none if there is no such file.
pub fn load<T: DeserializeOwned + Serialize>(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: usize,
) -> Result<Option<T>, StateFileError> {
    bytes(disk, path, bytes_max)
        .map_err(|source| StateFileError::Disk { path: path.to_owned(), source })?
        .map(|bytes| cbor::decode(&bytes, bytes_max))
        .transpose()
        .map_err(|source| StateFileError::Content { path: path.to_owned(), source })
}

/// Replaces the value in `path`: after a power cut it is the old or the new one.
pub fn save<T: Serialize>(disk: &dyn Disk, path: &Path, value: &T) -> Result<(), StateFileError> {
    let bytes = cbor::encode(value)
        .map_err(|source| StateFileError::Encode { path: path.to_owned(), source })?;
    disk::replace(disk, path, &bytes)
        .map_err(|source| StateFileError::Disk { path: path.to_owned(), source })
}

/// The bytes in `path`; none if there is no such file.
pub fn bytes(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    match disk.read(path, bytes_max as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
