//! The objects of a release folder, made in constant memory whatever their size: written while they are hashed, then cut
//! into chunks, packed and listed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::DeflateEncoder};
use protocol::{
    chunks::{self, CHUNKED_BYTES_MIN, ChunkName, Cut, IndexWriter},
    digest::Hasher,
    manifest::{Chunked, OBJECT_BYTES_MAX, Object},
};

use crate::{files::FileError, release::folder::ReleaseFolder};

const BUFFER_BYTES: usize = 1 << 20;
/// A pack that saves less than one part in so many is not worth its place on the server.
const SAVED_PART_MIN: u64 = 32;
/// After so many bytes that do not compress, no more are tried.
const TRIED_BYTES: u64 = 64 << 20;

/// An object that lies in the release folder.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// What a device stages.
    pub object: Object,
    /// How it is cut, if it is large enough.
    pub chunks: Option<Chunked>,
}

/// Adds what `content` gives.
pub fn add(folder: &ReleaseFolder, content: &mut dyn Read) -> Result<Added, FileError> {
    let mut part = PartFile::new(folder, "object")?;
    let mut content = content.take(OBJECT_BYTES_MAX + 1);
    let copied = io::copy(&mut content, &mut part).map_err(part.failed())?;
    if copied > OBJECT_BYTES_MAX {
        return Err(FileError::TooLarge { path: part.path.clone(), max: OBJECT_BYTES_MAX });
    }
    finish(folder, part)
}

/// Adds the tar in which an executable travels; also says what the executable is. The same executable always gives the
/// same tar: no time, no owner, no name of the machine.
pub fn add_agent(folder: &ReleaseFolder, agent: &Path) -> Result<(Object, Added), FileError> {
    let reading = |source| FileError::Read { path: agent.to_owned(), source };
    let file = File::open(agent).map_err(reading)?;
    let length = file.metadata().map_err(reading)?.len();
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o755);
    header.set_mtime(0);
    let part = PartFile::new(folder, "object")?;
    let failed = part.failed();
    let mut content = Hashing { content: file.take(length), hasher: Hasher::default(), length: 0 };
    let mut tar = tar::Builder::new(part);
    tar.append_data(&mut header, "socle-agent", &mut content).map_err(&failed)?;
    let part = tar.into_inner().map_err(&failed)?;
    if content.length != length {
        return Err(reading(io::Error::other("it changed while it was read")));
    }
    let executable = Object { sha256: content.hasher.finish(), length };
    Ok((executable, finish(folder, part)?))
}

fn finish(folder: &ReleaseFolder, part: PartFile) -> Result<Added, FileError> {
    let object = part.keep(folder)?;
    let chunks = if object.length >= CHUNKED_BYTES_MIN { cut(folder, object)? } else { None };
    Ok(Added { object, chunks })
}

/// Cuts an object of the folder; none if the index would not be a smaller thing to fetch.
fn cut(folder: &ReleaseFolder, object: Object) -> Result<Option<Chunked>, FileError> {
    let path = folder.object(&object.sha256);
    let reading = |source| FileError::Read { path: path.clone(), source };
    let file = File::open(&path).map_err(reading)?;
    let sizes = Cut::for_length(object.length);
    let mut index = IndexWriter::new(sizes);
    let mut pack = Some(PartFile::new(folder, "pack")?);
    let mut done = 0;
    for chunk in chunks::cut(file, sizes) {
        let chunk = chunk.map_err(reading)?;
        let length = u32::try_from(chunk.len())
            .map_err(|_| FileError::TooLarge { path: path.clone(), max: u64::from(sizes.max()) })?;
        let name = ChunkName::of(&chunk);
        done += u64::from(length);
        let packed = match &mut pack {
            Some(pack) if !index.knows(name, length) => {
                let packed = deflate(&chunk).map_err(pack.failed())?;
                // What does not get smaller travels as it is.
                let packed = if packed.len() < chunk.len() { &packed } else { &chunk };
                pack.write_all(packed).map_err(pack.failed())?;
                packed.len() as u32
            }
            Some(_) | None => 0,
        };
        index.push(name, length, packed);
        if done >= TRIED_BYTES && pack.as_ref().is_some_and(|pack| !saves(pack.length, done)) {
            pack = None;
        }
    }
    let failed = |source| FileError::Write { path: folder.objects(), source };
    let pack = pack.filter(|pack| saves(pack.length, object.length));
    let (pack, bytes) = match pack {
        Some(pack) => (Some(pack.keep(folder)?), index.with_pack()),
        None => (None, index.without_pack()),
    };
    let bytes = bytes.map_err(io::Error::other).map_err(failed)?;
    let mut written = PartFile::new(folder, "index")?;
    written.write_all(&bytes).map_err(written.failed())?;
    Ok(Some(Chunked { index: written.keep(folder)?, pack }))
}

fn deflate(chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(chunk)?;
    encoder.finish()
}

const fn saves(packed: u64, of: u64) -> bool {
    packed + of / SAVED_PART_MIN < of
}

/// A file in the making that gets the digest of its content for a name; removed if it never does.
struct PartFile {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    length: u64,
    kept: bool,
}

impl PartFile {
    fn new(folder: &ReleaseFolder, what: &str) -> Result<Self, FileError> {
        let path = folder.objects().join(format!(".{what}.part"));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&path)
            .map_err(|source| FileError::Write { path: path.clone(), source })?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, file, hasher: Hasher::default(), length: 0, kept: false })
    }

    fn failed(&self) -> impl Fn(io::Error) -> FileError + use<> {
        let path = self.path.clone();
        move |source| FileError::Write { path: path.clone(), source }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "synced above; an operator's file, made again if power fails"
    )]
    fn keep(mut self, folder: &ReleaseFolder) -> Result<Object, FileError> {
        let failed = self.failed();
        self.file.flush().map_err(&failed)?;
        self.file.get_ref().sync_all().map_err(&failed)?;
        let hasher = std::mem::take(&mut self.hasher);
        let object = Object { sha256: hasher.finish(), length: self.length };
        fs::rename(&self.path, folder.object(&object.sha256)).map_err(&failed)?;
        self.kept = true;
        Ok(object)
    }
}

impl Write for PartFile {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let written = self.file.write(piece)?;
        if let Some(written) = piece.get(..written) {
            self.hasher.update(written);
        }
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.kept {
            // A leftover would be overwritten by the next build.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Hashes what passes through it.
struct Hashing<R> {
    content: R,
    hasher: Hasher,
    length: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        if let Some(piece) = buffer.get(..read) {
            self.hasher.update(piece);
        }
        self.length += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use flate2::read::DeflateDecoder;
    use protocol::{
        chunks::{ChunkIndex, Lengths},
        digest::Digest,
    };

    fn folder() -> (tempfile::TempDir, ReleaseFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = ReleaseFolder::new(root.path());
        files::make_folder(&folder.objects()).unwrap();
        (root, folder)
    }

    fn object_of(content: &[u8]) -> Object {
        Object { sha256: Digest::of(content), length: content.len() as u64 }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn a_pack_unpacks_to_the_object() {
        let (_root, folder) = folder();
        let mut content = noise(150_000);
        content.extend(b"words that repeat ".repeat(40_000));
        let added = add(&folder, &mut content.as_slice()).unwrap();
        assert_eq!(added.object, object_of(&content));
        let chunked = added.chunks.unwrap();
        let pack = fs::read(folder.object(&chunked.pack.unwrap().sha256)).unwrap();
        assert!(pack.len() < content.len() / 2, "{}", pack.len());
        let bytes = fs::read(folder.object(&chunked.index.sha256)).unwrap();
        let lengths =
            Lengths { object: content.len() as u64, pack: chunked.pack.map(|pack| pack.length) };
        let index = ChunkIndex::read(&bytes, lengths).unwrap();
        let mut built = Vec::new();
        for chunk in index.chunks() {
            let from = chunk.packed_at as usize;
            let packed = &pack[from..from + chunk.packed as usize];
            if let (0, Some(at)) = (chunk.packed, chunk.same_as) {
                let at = at as usize;
                built.extend_from_within(at..at + chunk.length as usize);
            } else if chunk.packed == chunk.length {
                built.extend_from_slice(packed);
            } else {
                DeflateDecoder::new(packed).read_to_end(&mut built).unwrap();
            }
        }
        assert!(built == content);
        assert_eq!(fs::read_dir(folder.objects()).unwrap().count(), 3);
    }

    #[test]
    fn what_does_not_compress_has_an_index_alone_and_what_is_small_has_none() {
        let (_root, folder) = folder();
        let added = add(&folder, &mut noise(200_000).as_slice()).unwrap();
        assert!(added.chunks.is_some_and(|chunks| chunks.pack.is_none()));
        assert!(add(&folder, &mut &b"small"[..]).unwrap().chunks.is_none());
        assert_eq!(fs::read_dir(folder.objects()).unwrap().count(), 3);
    }

    #[test]
    fn an_executable_has_one_archive() {
        let (root, folder) = folder();
        let path = root.path().join("agent");
        let mut archives = Vec::new();
        for content in [&b"x"[..], b"x", b"y"] {
            files::write(&path, content, files::Access::All).unwrap();
            let (executable, added) = add_agent(&folder, &path).unwrap();
            assert_eq!(executable, object_of(content));
            archives.push(added.object);
        }
        assert_eq!(archives[0], archives[1]);
        assert_ne!(archives[0], archives[2]);
        let bytes = fs::read(folder.object(&archives[2].sha256)).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!((entry.path_bytes().as_ref(), content.as_str()), (&b"socle-agent"[..], "y"));
    }
}
