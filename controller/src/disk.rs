//! Files that survive a power cut: written beside their place, synced, renamed, and the folder synced.
//!
//! All functions block; callers on async threads wrap them in `spawn_blocking`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner only: keys and tokens.
    Owner,
    /// Everyone: certificates and settings.
    Anyone,
}

/// What could not be done on the disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A folder.
    #[error("creating the folder {}", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file.
    #[error("writing {}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A finished file could not take its place.
    #[error("moving a finished file to {}", .path.display())]
    Place {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Creates a folder and its parents, closed to other users.
pub fn folder(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DiskError::Folder { path: path.to_owned(), source })
}

/// Writes `bytes` to `path`: afterwards the file holds all of them, durably, or is as it was.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), DiskError> {
    let failed = |source| DiskError::Write { path: path.to_owned(), source };
    let mode = match access {
        Access::Owner => 0o600,
        Access::Anyone => 0o644,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    // A leftover of an interrupted write could carry another mode: start from nothing.
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    place(&beside, path)
}

/// Moves a complete and synced file from `from` to `to`, durably. Both lie on one file system.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that renames; it syncs the folder"
)]
pub fn place(from: &Path, to: &Path) -> Result<(), DiskError> {
    fs::rename(from, to)
        .and_then(|()| File::open(folder_of(to))?.sync_all())
        .map_err(|source| DiskError::Place { path: to.to_owned(), source })
}

/// The folder a file lies in; the working folder for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_readable_by_its_owner_only_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write(&path, b"first", Access::Owner).unwrap();
        write(&path, b"second", Access::Owner).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bare_name_lies_in_the_working_folder() {
        for (path, folder) in [("ready", "."), ("./ready", "."), ("a/ready", "a"), ("/ready", "/")]
        {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
    }

    #[test]
    fn a_folder_that_is_a_file_is_named_in_the_error() {
        let folder_ = tempfile::tempdir().unwrap();
        let path = folder_.path().join("state");
        write(&path, b"", Access::Anyone).unwrap();
        let error = folder(&path.join("pki")).unwrap_err();
        assert!(error.to_string().ends_with("state/pki"), "{error}");
    }
}
