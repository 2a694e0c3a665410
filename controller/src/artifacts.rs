//! Content-addressed files: what releases are made of. A file is named by its SHA-256 and gets that name only after its
//! bytes were hashed.

use std::{fs, io, path::PathBuf, time::Duration};

use axum::body::{Body, Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use protocol::{
    digest::{Digest, Hasher},
    manifest::OBJECT_BYTES_MAX,
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, SeekFrom},
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use crate::{
    disk::{self, Access, DiskError},
    layout::Layout,
    secret::{self, NoRandom},
};

/// Largest object that is read into memory: more than any manifest has.
const SMALL_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Longest wait for the next piece of an upload.
const PIECE: Duration = Duration::from_secs(30);
const READ_BYTES: u64 = 128 * 1024;

/// The folder of objects.
#[derive(Clone, Debug)]
pub struct Artifacts {
    layout: Layout,
}

/// Why an object could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The bytes are not those of the name.
    #[error(
        "the content's SHA-256 is {got}, not {named}: it was altered on its way, or misnamed; send it again"
    )]
    Digest {
        /// Name given.
        named: Digest,
        /// Digest found.
        got: Digest,
    },
    /// Larger than any we take.
    #[error("object {} is larger than the {OBJECT_BYTES_MAX} bytes allowed", .0.short())]
    TooLarge(Digest),
    /// The sender stopped.
    #[error("the upload of object {} broke off; send it again", .0.short())]
    BrokeOff(Digest),
    /// A file could not be written or read.
    #[error("{doing} object {}", .digest.short())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The disk.
    #[error("storing object {}", .digest.short())]
    Disk {
        /// Which.
        digest: Digest,
        /// Why.
        source: DiskError,
    },
    /// No random name for the upload.
    #[error("naming an upload")]
    Random(#[source] NoRandom),
    /// A blocking task panicked: a mistake of ours.
    #[error("storing an object in the background")]
    Task(#[source] JoinError),
}

/// Part of an object: from `start`, `length` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

impl Artifacts {
    /// The objects of a controller. Uploads that an earlier run left unfinished are removed.
    pub fn open(layout: Layout) -> Result<Self, DiskError> {
        let incoming = layout.incoming();
        disk::folder(&incoming)?;
        let failed = |source| DiskError::Folder { path: incoming.clone(), source };
        for entry in fs::read_dir(&incoming).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        Ok(Self { layout })
    }

    /// Size of an object; none if it is not there.
    pub async fn length(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
        match tokio::fs::metadata(self.layout.object(&digest)).await {
            Ok(found) => Ok(Some(found.len())),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ArtifactError::Io { doing: "looking for", digest, source }),
        }
    }

    /// Stores what `body` brings under its name, if it is what the name says.
    pub async fn put(&self, digest: Digest, body: Body) -> Result<u64, ArtifactError> {
        let random = secret::random::<8>().map_err(ArtifactError::Random)?;
        let name = format!("{}-{}", digest.short(), u64::from_be_bytes(random));
        let part = self.layout.incoming().join(name);
        let received = self.receive(digest, body, part.clone()).await;
        if received.is_err() {
            // What broke off is of no use; a leftover would be removed at the next start.
            drop(tokio::fs::remove_file(&part).await);
        }
        received
    }

    async fn receive(
        &self,
        digest: Digest,
        body: Body,
        part: PathBuf,
    ) -> Result<u64, ArtifactError> {
        let failed = |source| ArtifactError::Io { doing: "writing", digest, source };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .await
            .map_err(failed)?;
        let mut pieces = body.into_data_stream();
        let mut hasher = Hasher::default();
        let mut length = 0_u64;
        loop {
            let piece = match timeout(PIECE, pieces.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(_))) | Err(_) => return Err(ArtifactError::BrokeOff(digest)),
            };
            length += piece.len() as u64;
            if length > OBJECT_BYTES_MAX {
                return Err(ArtifactError::TooLarge(digest));
            }
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
        }
        let got = hasher.finish();
        if got != digest {
            return Err(ArtifactError::Digest { named: digest, got });
        }
        file.sync_all().await.map_err(failed)?;
        let to = self.layout.object(&digest);
        spawn_blocking(move || {
            disk::folder(to.parent().unwrap_or(&to))?;
            disk::place(&part, &to)
        })
        .await
        .map_err(ArtifactError::Task)?
        .map_err(|source| ArtifactError::Disk { digest, source })?;
        Ok(length)
    }

    /// Stores bytes that are in memory already, such as a manifest.
    pub async fn put_bytes(&self, bytes: Vec<u8>) -> Result<Digest, ArtifactError> {
        let digest = Digest::of(&bytes);
        let to = self.layout.object(&digest);
        spawn_blocking(move || {
            disk::folder(to.parent().unwrap_or(&to))?;
            disk::write(&to, &bytes, Access::Owner)
        })
        .await
        .map_err(ArtifactError::Task)?
        .map_err(|source| ArtifactError::Disk { digest, source })?;
        Ok(digest)
    }

    /// All bytes of a small object, such as a manifest.
    pub async fn bytes(&self, digest: Digest) -> Result<Vec<u8>, ArtifactError> {
        let failed = |source| ArtifactError::Io { doing: "reading", digest, source };
        let file = File::open(self.layout.object(&digest)).await.map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes).await.map_err(failed)?;
        Ok(bytes)
    }

    /// The bytes of `span`, read as they are asked for.
    pub async fn get(
        &self,
        digest: Digest,
        span: Span,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, ArtifactError> {
        let failed = |source| ArtifactError::Io { doing: "reading", digest, source };
        let mut file = File::open(self.layout.object(&digest)).await.map_err(failed)?;
        file.seek(SeekFrom::Start(span.start)).await.map_err(failed)?;
        Ok(stream::try_unfold((file, span.length), |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let wanted = usize::try_from(left.min(READ_BYTES)).unwrap_or(usize::MAX);
            let mut piece = vec![0; wanted];
            let count = file.read(&mut piece).await?;
            if count == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the object is shorter than it was",
                ));
            }
            piece.truncate(count);
            Ok(Some((Bytes::from(piece), (file, left - count as u64))))
        }))
    }
}
