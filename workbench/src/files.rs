//! The operator's files: read with a bound, written whole or not at all, secrets for their owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading.
    #[error("reading `{}`; check that the path is right and readable", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than what it should hold.
    #[error("`{}` is larger than the {max} bytes such a file may have", .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Largest allowed.
        max: u64,
    },
    /// Writing.
    #[error("writing `{}`; check that the folder exists, is writable and has space", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not UTF-8.
    #[error("`{}` is not text in UTF-8", .path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// Present although it must not be replaced.
    #[error("`{}` exists already; choose another folder, or move it away first", .path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner alone: keys and tokens.
    Owner,
    /// All.
    All,
}

/// Largest model or agent that is read into memory.
pub const OBJECT_BYTES_MAX: u64 = 8 << 30;
/// Largest file of metadata, keys, data.
pub const TEXT_BYTES_MAX: u64 = 64 << 20;

/// The content of `path`, at most `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        Err(FileError::TooLarge { path: path.to_owned(), max })
    } else {
        Ok(bytes)
    }
}

/// The text in `path`.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    String::from_utf8(read(path, TEXT_BYTES_MAX)?)
        .map_err(|_| FileError::NotText { path: path.to_owned() })
}

/// Makes `path` a folder, with all above it.
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Makes `path` a new folder: one that is there already must be empty.
pub fn make_new_folder(path: &Path) -> Result<(), FileError> {
    make_folder(path)?;
    let mut inside =
        fs::read_dir(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    if inside.next().is_some() { Err(FileError::Exists { path: path.to_owned() }) } else { Ok(()) }
}

/// Writes `content` to `path`: the old content or the new one is there, never a part.
pub fn write(path: &Path, content: &[u8], access: Access) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let mode = match access {
        Access::Owner => 0o600,
        Access::All => 0o644,
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "synced above; an operator's file, made again if power fails"
        )]
        fs::rename(&part, path)
    };
    write().map_err(failed)
}

/// Like [`write`], but refuses to replace anything.
pub fn write_new(path: &Path, content: &[u8], access: Access) -> Result<(), FileError> {
    if path.exists() {
        Err(FileError::Exists { path: path.to_owned() })
    } else {
        write(path, content, access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_with_something_in_it_is_not_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        make_new_folder(&path).unwrap();
        make_new_folder(&path).unwrap();
        write(&path.join("x"), b"x", Access::All).unwrap();
        assert!(matches!(make_new_folder(&path), Err(FileError::Exists { .. })));
    }

    #[test]
    fn secrets_are_for_their_owner_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, b"secret", Access::Owner).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write_new(&path, b"other", Access::Owner), Err(FileError::Exists { .. })));
        assert_eq!(read(&path, 6).unwrap(), b"secret");
        assert!(matches!(read(&path, 5), Err(FileError::TooLarge { max: 5, .. })));
    }
}
