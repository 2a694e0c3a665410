//! Where a repository is copied to. An object gets its name only after its bytes were hashed.

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
};

use indicatif::ProgressBar;
use protocol::digest::{Digest, Hasher};

use crate::{
    files::{self, Access, FileError},
    repo::layout::RepoFolder,
};

const PIECE: usize = 128 << 10;

/// Takes a copy.
pub trait Sink {
    /// Whether the object is there already, whole.
    fn has(&self, digest: &Digest, length: u64) -> bool;

    /// Takes an object, if its bytes are what its name says.
    fn object(
        &mut self,
        named: (&Digest, u64),
        reader: Box<dyn Read>,
        bar: &ProgressBar,
    ) -> Result<(), SinkError>;

    /// Takes a metadata file.
    fn metadata(&mut self, file: &str, bytes: &[u8]) -> Result<(), SinkError>;
}

/// Why a copy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A file.
    #[error("writing the copy")]
    File(#[from] FileError),
    /// An object cannot be moved.
    #[error("copying object {digest} to `{}`", .path.display())]
    Copy {
        /// Which.
        digest: Digest,
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not those of the name.
    #[error(
        "object {named} has another content, {got}: it is damaged or was altered where it was copied from"
    )]
    Digest {
        /// Its name.
        named: Digest,
        /// What the bytes are.
        got: Digest,
    },
    /// More or fewer bytes than signed.
    #[error("object {digest} has {got} bytes where {signed} are signed")]
    Length {
        /// Which.
        digest: Digest,
        /// Signed.
        signed: u64,
        /// Read, or one more than signed.
        got: u64,
    },
}

/// Copies `reader` to `writer` while it hashes, and holds it against its name; at most one byte more than signed is
/// read.
pub fn hashed_copy(
    (digest, length): (&Digest, u64),
    reader: impl Read,
    mut writer: impl Write,
    bar: &ProgressBar,
) -> Result<Result<(), SinkError>, io::Error> {
    let mut reader = reader.take(length.saturating_add(1));
    let mut hasher = Hasher::default();
    let mut piece = vec![0; PIECE];
    let mut got = 0_u64;
    loop {
        let count = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = piece.get(..count).unwrap_or_default();
        hasher.update(part);
        writer.write_all(part)?;
        got += count as u64;
        bar.inc(count as u64);
    }
    if got != length {
        return Ok(Err(SinkError::Length { digest: *digest, signed: length, got }));
    }
    let found = hasher.finish();
    if found == *digest {
        Ok(Ok(()))
    } else {
        Ok(Err(SinkError::Digest { named: *digest, got: found }))
    }
}

/// A repository folder.
#[derive(Debug)]
pub struct FolderSink {
    folder: RepoFolder,
}

impl FolderSink {
    /// Makes the folder, if it is not there.
    pub fn open(folder: RepoFolder) -> Result<Self, FileError> {
        files::make_folder(&folder.metadata_folder())?;
        files::make_folder(&folder.objects())?;
        Ok(Self { folder })
    }
}

impl Sink for FolderSink {
    fn has(&self, digest: &Digest, length: u64) -> bool {
        fs::metadata(self.folder.object(digest)).is_ok_and(|found| found.len() == length)
    }

    fn object(
        &mut self,
        (digest, length): (&Digest, u64),
        reader: Box<dyn Read>,
        bar: &ProgressBar,
    ) -> Result<(), SinkError> {
        let path = self.folder.object(digest);
        let part = path.with_extension("part");
        let failed = |source| SinkError::Copy { digest: *digest, path: path.clone(), source };
        let mut file = fs::File::create(&part).map_err(failed)?;
        let copied = hashed_copy((digest, length), reader, &mut file, bar).map_err(failed)?;
        if copied.is_err() {
            fs::remove_file(&part).map_err(failed)?;
        }
        copied?;
        file.sync_all().map_err(failed)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "synced above; a copy that power cut is made again"
        )]
        fs::rename(&part, &path).map_err(failed)
    }

    fn metadata(&mut self, file: &str, bytes: &[u8]) -> Result<(), SinkError> {
        let path = self.folder.metadata(file);
        if fs::read(&path).is_ok_and(|known| known == bytes) {
            return Ok(());
        }
        Ok(files::write(&path, bytes, Access::All)?)
    }
}
