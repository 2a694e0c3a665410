//! An object while it is brought in: its beginning on the disk, hashed as it grows, so that any later attempt goes on
//! from there whichever way it fetches.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::{
    chunks::{Chunk, ChunkName},
    digest::{Digest, Hasher},
};
use rustix::{
    fs::{FallocateFlags, OFlags, fallocate},
    io::Errno,
};
use slots::disk::{Disk, RealDisk};

const PIECE_BYTES: usize = 256 * 1024;
/// How many bytes may wait for the disk before they are pushed there, so that the end is not one long wait.
const DIRTY_BYTES_MAX: u64 = 32 << 20;

/// The beginning of an object.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    file: File,
    hasher: Hashed,
    have: u64,
    dirty: u64,
}

/// A hasher that shows nothing of itself.
#[derive(Clone, Default)]
struct Hashed(Hasher);

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashed")
    }
}

impl Part {
    /// What an earlier attempt left at `path`, whatever it is; more than `length` bytes are thrown away.
    pub fn open(path: &Path, length: u64) -> io::Result<Self> {
        let mut part = Self::begin(path)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut reader = File::open(path)?.take(length.saturating_add(1));
        loop {
            match reader.read(&mut piece)? {
                0 => break,
                count => part.known(piece.get(..count).unwrap_or_default()),
            }
        }
        if part.have > length {
            part.restart()?;
        } else {
            part.file.seek(SeekFrom::Start(part.have))?;
        }
        Ok(part)
    }

    /// The same, as far as it consists of `chunks`; what comes after the last whole one is thrown away. Also says how
    /// many there are.
    pub fn open_chunks(path: &Path, chunks: &[Chunk]) -> io::Result<(Self, usize)> {
        let mut part = Self::begin(path)?;
        let mut reader = io::BufReader::with_capacity(PIECE_BYTES, File::open(path)?);
        let mut count = 0;
        let mut content = Vec::new();
        for chunk in chunks {
            content.resize(chunk.length as usize, 0);
            match reader.read_exact(&mut content) {
                Ok(()) if ChunkName::of(&content) == chunk.name => {}
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            part.known(&content);
            count += 1;
        }
        part.file.set_len(part.have)?;
        part.file.seek(SeekFrom::Start(part.have))?;
        Ok((part, count))
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        Ok(Self { path: path.to_owned(), file, hasher: Hashed::default(), have: 0, dirty: 0 })
    }

    fn known(&mut self, piece: &[u8]) {
        self.hasher.0.update(piece);
        self.have += piece.len() as u64;
    }

    /// Bytes there are.
    pub const fn have(&self) -> u64 {
        self.have
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the next bytes.
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.known(piece);
        self.dirty += piece.len() as u64;
        if self.dirty >= DIRTY_BYTES_MAX {
            self.dirty = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Bytes that are there already, from `at` on.
    pub fn read_at(&self, content: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(content, at)
    }

    /// Forgets all of it.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.hasher, self.have) = (Hashed::default(), 0);
        Ok(())
    }

    /// The digest of all there is.
    pub fn digest(&self) -> Digest {
        self.hasher.0.clone().finish()
    }

    /// Gives it its own name, durably. The caller has compared the digest.
    pub fn finish(self, object: &Path) -> io::Result<()> {
        // What was reserved beyond its end is given back.
        self.file.set_len(self.have)?;
        self.file.sync_all()?;
        RealDisk.rename(&self.path, object)?;
        RealDisk.sync_dir(object.parent().unwrap_or(object))
    }
}

/// Takes the room for a file of `length` bytes at `path` without changing what is in it. A file system that cannot
/// reserve takes nothing.
pub fn reserve(path: &Path, length: u64) -> io::Result<()> {
    let part = Part::begin(path)?;
    if length == 0 {
        return Ok(());
    }
    match fallocate(&part.file, FallocateFlags::KEEP_SIZE, 0, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Bytes that the file at `path` takes on the disk now.
pub fn taken(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |meta| meta.blocks().saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_on_where_it_was_and_keeps_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        reserve(&path, 1 << 20).unwrap();
        let mut part = Part::open(&path, 10).unwrap();
        part.append(b"abc").unwrap();
        drop(part);
        let mut part = Part::open(&path, 10).unwrap();
        assert_eq!(part.have(), 3);
        part.append(b"def").unwrap();
        assert_eq!(part.digest(), Digest::of(b"abcdef"));
        let object = folder.path().join("x");
        part.finish(&object).unwrap();
        assert_eq!(std::fs::read(&object).unwrap(), b"abcdef");
        assert!(taken(&object) < 1 << 20);
        assert_eq!(Part::open(&object, 5).unwrap().have(), 0);
    }

    #[test]
    fn only_whole_genuine_chunks_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        let chunk = |content: &[u8], at| Chunk {
            name: ChunkName::of(content),
            at,
            length: content.len() as u32,
            packed_at: at,
            packed: content.len() as u32,
            same_as: None,
        };
        let chunks = [chunk(b"one", 0), chunk(b"two", 3), chunk(b"three", 6)];
        for (left, count) in [("onetwoth", 2), ("onetwX", 1), ("", 0), ("onetwothreefour", 3)] {
            let mut file = File::create(&path).unwrap();
            file.write_all(left.as_bytes()).unwrap();
            let (part, found) = Part::open_chunks(&path, &chunks).unwrap();
            assert_eq!(found, count, "{left}");
            let end = chunks.iter().take(count).map(|c| u64::from(c.length)).sum::<u64>();
            assert_eq!((part.have(), std::fs::metadata(&path).unwrap().len()), (end, end));
        }
    }
}
