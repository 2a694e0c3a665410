//! One object put together from chunks: those that this machine has are copied, the others are asked for in a bounded
//! number of range requests. Nothing is believed: each chunk is compared with its name and the whole with its signed
//! digest, and whatever is odd means that the whole object is fetched instead.

use std::{
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use flate2::read::DeflateDecoder;
use protocol::{
    chunks::{Chunk, ChunkIndex, ChunkName, Lengths},
    digest::Digest,
    manifest::{Chunked, Object},
};

use crate::fleet::{
    artifact_server::{self, ArtifactServer, Download, HttpError},
    meter::Meter,
    part::Part,
    plan::{self, Step},
    sources::Sources,
    transfer::{DownloadError, Incoming, Wanted},
};

/// Why an object is not put together from chunks.
#[derive(Debug)]
pub enum Trouble {
    /// It does not go this way: the whole object is to be fetched.
    Odd(String),
    /// It does not go at all now.
    Download(DownloadError),
}

/// Puts `wanted` together in the file `at`, which may hold its beginning. The part that comes back is complete, and its
/// digest is the signed one.
pub fn assemble(
    server: &ArtifactServer,
    at: &Path,
    wanted: Wanted<'_>,
    chunked: Chunked,
    candidates: &[PathBuf],
    meter: &mut Meter<'_>,
) -> Result<Part, Trouble> {
    if candidates.is_empty() && chunked.pack.is_none() {
        return Err(Trouble::Odd("nothing like it is here".into()));
    }
    let disk = |source| Trouble::Download(DownloadError::Disk { file: at.to_owned(), source });
    let index = index(server, wanted, chunked, meter)?;
    let sources = Sources::search(&index, candidates);
    if sources.is_empty() && chunked.pack.is_none() {
        return Err(Trouble::Odd("none of its chunks are here".into()));
    }
    let (part, first) = Part::open_chunks(at, index.chunks()).map_err(disk)?;
    let mut work = Work {
        server,
        wanted,
        travels: chunked.pack.unwrap_or(wanted.object),
        chunks: index.chunks(),
        sources,
        part,
        tag: None,
        packed: Vec::new(),
        content: Vec::new(),
    };
    work.run(first, meter)?;
    let Work { part, .. } = work;
    let got = part.digest();
    if got == wanted.object.sha256 {
        Ok(part)
    } else {
        let mut part = part;
        part.restart().map_err(disk)?;
        Err(Trouble::Odd(format!("its chunks together have sha256 {got}")))
    }
}

/// The index, compared with its signed digest and lengths.
fn index(
    server: &ArtifactServer,
    wanted: Wanted<'_>,
    chunked: Chunked,
    meter: &mut Meter<'_>,
) -> Result<ChunkIndex, Trouble> {
    let Object { sha256, length } = chunked.index;
    let whole = artifact_server::Part { from: 0, end: length, tag: None };
    let download = server.object(&sha256, whole, length).map_err(|source| http(wanted, source))?;
    let broken = |error| Trouble::Download(wanted.broken(0, error));
    let mut incoming = Incoming::new(download, meter).map_err(broken)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    incoming.read_exact(&mut bytes).map_err(broken)?;
    if Digest::of(&bytes) != sha256 {
        return Err(Trouble::Odd("its chunk index is altered on the server".into()));
    }
    let signed =
        Lengths { object: wanted.object.length, pack: chunked.pack.map(|pack| pack.length) };
    ChunkIndex::read(&bytes, signed).map_err(|error| Trouble::Odd(error.to_string()))
}

struct Work<'a> {
    server: &'a ArtifactServer,
    wanted: Wanted<'a>,
    /// What the ranges are of: the pack, or the object itself.
    travels: Object,
    chunks: &'a [Chunk],
    sources: Sources,
    part: Part,
    /// The tag of the first answer, which all others must have.
    tag: Option<String>,
    packed: Vec<u8>,
    content: Vec<u8>,
}

impl Work<'_> {
    /// Goes on from chunk `first` to the end.
    fn run(&mut self, first: usize, meter: &mut Meter<'_>) -> Result<(), Trouble> {
        let mut next = first;
        while next < self.chunks.len() {
            let sources = &self.sources;
            let here = |chunk: &Chunk| chunk.same_as.is_some() || sources.has(chunk);
            for step in plan::steps(self.chunks, next, here) {
                match step {
                    Step::Fetch(run) => {
                        next = run.end;
                        self.fetch(run, meter)?;
                    }
                    Step::Copy(run) => {
                        let end = run.end;
                        next = self.copy(run, meter)?;
                        if next < end {
                            // A source changed under us: nothing of it is believed any more, and a new plan asks.
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies chunks; returns the first that was not there after all, or the end.
    fn copy(&mut self, run: Range<usize>, meter: &mut Meter<'_>) -> Result<usize, Trouble> {
        for number in run.clone() {
            let Some(chunk) = self.chunks.get(number).copied() else { continue };
            meter.check().map_err(|_| Trouble::Download(DownloadError::Stopped))?;
            if let Some(at) = chunk.same_as {
                self.repeat(&chunk, at)?;
            } else if self.sources.read(&chunk, &mut self.content) {
                self.append()?;
            } else {
                self.sources = Sources::default();
                return Ok(number);
            }
        }
        Ok(run.end)
    }

    /// A chunk that came before.
    fn repeat(&mut self, chunk: &Chunk, at: u64) -> Result<(), Trouble> {
        self.content.resize(chunk.length as usize, 0);
        self.part.read_at(&mut self.content, at).map_err(|source| self.disk(source))?;
        if ChunkName::of(&self.content) == chunk.name {
            self.append()
        } else {
            Err(Trouble::Odd("a chunk was written and read back otherwise".into()))
        }
    }

    fn fetch(&mut self, run: Range<usize>, meter: &mut Meter<'_>) -> Result<(), Trouble> {
        let (from, end) = plan::span(self.chunks, &run);
        let part = artifact_server::Part { from, end, tag: self.tag.as_deref() };
        let Object { sha256, length } = self.travels;
        let download =
            self.server.object(&sha256, part, length).map_err(|error| http(self.wanted, error))?;
        let whole = from == 0 && end == length;
        if download.from != from || (!whole && download.is_whole()) {
            return Err(Trouble::Odd("the server gives no ranges, or has another object".into()));
        }
        if self.tag.is_none() {
            self.tag.clone_from(&download.tag);
        }
        self.take(download, run, meter)
    }

    fn take(
        &mut self,
        download: Download,
        run: Range<usize>,
        meter: &mut Meter<'_>,
    ) -> Result<(), Trouble> {
        let (wanted, chunks) = (self.wanted, self.chunks);
        let broken = |have, error| Trouble::Download(wanted.broken(have, error));
        let have = self.part.have();
        let mut incoming = Incoming::new(download, meter).map_err(|error| broken(have, error))?;
        for chunk in chunks.get(run).unwrap_or_default() {
            if let (0, Some(at)) = (chunk.packed, chunk.same_as) {
                self.repeat(chunk, at)?;
                continue;
            }
            let have = self.part.have();
            self.packed.resize(chunk.packed as usize, 0);
            incoming.read_exact(&mut self.packed).map_err(|error| broken(have, error))?;
            let unpacked = unpack(&self.packed, chunk, &mut self.content);
            if unpacked.is_err() || ChunkName::of(&self.content) != chunk.name {
                return Err(Trouble::Odd("a chunk is altered on the server".into()));
            }
            self.append()?;
        }
        // At its end a connection can be used again; and no more may come than was asked for.
        match incoming.read(&mut [0; 1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Trouble::Odd("the server sends more than was asked for".into())),
            Err(error) => Err(broken(self.part.have(), error)),
        }
    }

    fn append(&mut self) -> Result<(), Trouble> {
        self.part.append(&self.content).map_err(|source| self.disk(source))
    }

    fn disk(&self, source: io::Error) -> Trouble {
        Trouble::Download(DownloadError::Disk { file: self.part.path().to_owned(), source })
    }
}

/// The chunk that `packed` holds: as it is, or deflated. Never more than its length is unpacked.
fn unpack(packed: &[u8], chunk: &Chunk, content: &mut Vec<u8>) -> io::Result<()> {
    content.clear();
    if chunk.packed == chunk.length {
        content.extend_from_slice(packed);
        return Ok(());
    }
    let length = u64::from(chunk.length);
    DeflateDecoder::new(packed).take(length + 1).read_to_end(content)?;
    if content.len() as u64 == length { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A server that lacks the index or the pack, or gives no such ranges, may still have the whole object.
fn http(wanted: Wanted<'_>, source: HttpError) -> Trouble {
    match source {
        HttpError::Status { status: 400..=499, message } => Trouble::Odd(message),
        HttpError::Range { .. } | HttpError::Changed { .. } | HttpError::TooLarge(_) => {
            Trouble::Odd(source.to_string())
        }
        HttpError::Exchange(_)
        | HttpError::Status { .. }
        | HttpError::Read(_)
        | HttpError::Redirect { .. } => {
            Trouble::Download(DownloadError::Http { path: wanted.path.to_owned(), source })
        }
    }
}
