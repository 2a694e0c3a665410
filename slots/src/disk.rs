//! What every durable write goes through: the real file system, or one that loses power.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{
    fs::{Advice, OFlags, fadvise},
    io::Errno,
};

use crate::copying;

/// A file system, as far as this product needs one.
///
/// What is written is durable only after `sync_file` (content and length) and `sync_dir` (names in that folder).
pub trait Disk {
    /// The whole file; an error if it is longer than `bytes_max`.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Part of the file: at most `bytes_max` from `offset`, fewer at its end.
    fn read_at(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>>;
    /// The file's content as a stream.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>>;
    /// The file's length, or `None` when there is no such file.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;
    /// How many names the file has.
    fn links(&self, path: &Path) -> io::Result<u64>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder whose parent exists. One that exists already is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes or empties a file and fills it with `content`; returns its length.
    fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<u64>;
    /// Overwrites part of an existing file.
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's content and length durable.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Makes content that was overwritten in place durable; the length did not change. After an error, what is read is
    /// what the device holds, and not what could not be written to it.
    fn sync_data(&self, path: &Path) -> io::Result<()>;
    /// Makes the folder's names durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Moves a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name. One that exists already is replaced.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. One that is missing is fine.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all in it. One that is missing is fine.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Sets the permission bits of a file.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Makes `to` a file of its own with the content of the regular file `from`, sharing its blocks until one of them is
    /// written. False, and no file, where the file system cannot do that.
    fn reflink(&self, _from: &Path, _to: &Path) -> io::Result<bool> {
        Ok(false)
    }
    /// Makes `to` a file of its own with the content of `from`: blocks are shared where that is possible.
    fn clone_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.reflink(from, to)? {
            return Ok(());
        }
        let mut content = self.open(from)?;
        self.write(to, &mut content).map(drop)
    }
}

/// Replaces `path` by `content`: after a power cut it holds the old or the new content, never a part.
pub fn replace(disk: &dyn Disk, path: &Path, mut content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = folder.join(name);
    disk.write(&new, &mut content)?;
    disk.sync_file(&new)?;
    disk.rename(&new, path)?;
    disk.sync_dir(folder)
}

/// Removes a file so that it stays removed.
pub fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove_file(path)?;
    disk.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("longer than the {bytes_max} bytes allowed")));
        }
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let (file, mut bytes, mut filled) = (File::open(path)?, vec![0; bytes_max], 0);
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(path)?))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        present(fs::metadata(path).map(|meta| meta.len()))
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        fs::metadata(path).map(|meta| meta.nlink())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<u64> {
        copying::fill(&File::create(path)?, content)
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.write_all_at(bytes, offset)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_data(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        file.sync_data().map_err(|error| {
            // The kernel takes pages that it failed to write for clean, and a later sync for successful.
            match fadvise(&file, 0, None, Advice::DontNeed) {
                Ok(()) | Err(_) => error,
            }
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(to)?;
                fs::hard_link(from, to)
            }
            other => other,
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        present(fs::remove_file(path)).map(|_| ())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        present(fs::remove_dir_all(path)).map(|_| ())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn reflink(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let source = open_regular(from)?;
        let cloned = rustix::fs::ioctl_ficlone(File::create(to)?, &source);
        match cloned {
            Ok(()) => Ok(true),
            Err(
                Errno::OPNOTSUPP
                | Errno::XDEV
                | Errno::INVAL
                | Errno::NOTTY
                | Errno::NOSYS
                | Errno::PERM,
            ) => fs::remove_file(to).map(|()| false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Opens a file that another user may have put there: never through a link, never something that one waits for.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
