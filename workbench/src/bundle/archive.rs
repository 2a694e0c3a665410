//! The bundle as one tar file: plain files under the names of a repository, nothing else.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use protocol::{
    cbor::{DOCUMENT_BYTES_MAX, MESSAGE_BYTES_MAX},
    digest::{Digest, Hasher},
    id::DeviceId,
};

use crate::{
    files::{self, FileError},
    repo::sink::{Sink, SinkError},
};

/// Most files one bundle may hold.
const FILES_MAX: usize = 100_000;

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Writing.
    #[error("writing the bundle `{}`", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading.
    #[error("reading the bundle `{}`; is it complete?", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry that no bundle has.
    #[error(
        "the bundle holds `{0}`, which no bundle has: only metadata/*.json, sha256/<hash> and assignments/<device>.cbor, as plain files"
    )]
    Stray(String),
    /// An entry that is too large.
    #[error("`{name}` in the bundle has {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// Which.
        name: String,
        /// Its size.
        bytes: u64,
        /// Largest allowed.
        max: u64,
    },
    /// More than a bundle has.
    #[error("the bundle holds more than {FILES_MAX} files")]
    TooMany,
    /// Files.
    #[error("unpacking the bundle")]
    File(#[from] FileError),
}

/// Largest size of an entry; none for a name that no bundle has.
pub fn size_max(name: &str) -> Option<u64> {
    let word = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text.len() <= 100
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    match name.split_once('/')? {
        ("metadata", file) if word(file.strip_suffix(".json")?) => Some(DOCUMENT_BYTES_MAX as u64),
        ("sha256", hash) => hash.parse::<Digest>().ok().map(|_| files::OBJECT_BYTES_MAX),
        ("assignments", file) => {
            let device = file.strip_suffix(".cbor")?;
            device.parse::<DeviceId>().ok().map(|_| MESSAGE_BYTES_MAX as u64)
        }
        _ => None,
    }
}

/// Writes a bundle into a tar file, which gets its name when it is complete.
pub struct TarSink {
    path: PathBuf,
    part: Part,
    builder: tar::Builder<fs::File>,
}

/// A file that is not complete yet.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Complete, it has its name by now; what broke off is of no use.
        drop(fs::remove_file(&self.0));
    }
}

impl TarSink {
    /// A new bundle at `path`.
    pub fn create(path: &Path) -> Result<Self, ArchiveError> {
        if path.exists() {
            return Err(FileError::Exists { path: path.to_owned() }.into());
        }
        let part = path.with_extension("part");
        let file = fs::File::create(&part)
            .map_err(|source| ArchiveError::Write { path: part.clone(), source })?;
        let part = Part(part);
        Ok(Self { path: path.to_owned(), part, builder: tar::Builder::new(file) })
    }

    /// Adds a small file.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.append(name, bytes)
            .map_err(|source| ArchiveError::Write { path: self.part.0.clone(), source })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.builder.append_data(&mut header(bytes.len() as u64), name, bytes)
    }

    /// Finishes the file.
    pub fn finish(self) -> Result<(), ArchiveError> {
        let Self { path, part, builder } = self;
        let written = builder.into_inner().and_then(|file| file.sync_all());
        #[expect(
            clippy::disallowed_methods,
            reason = "synced above; a bundle that power cut is made again"
        )]
        let placed = written.and_then(|()| fs::rename(&part.0, &path));
        placed.map_err(|source| ArchiveError::Write { path, source })
    }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

/// Hashes what passes.
struct Hashing<'a> {
    inner: io::Take<Box<dyn Read>>,
    hasher: Hasher,
    count: u64,
    bar: &'a ProgressBar,
}

impl Read for Hashing<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(piece)?;
        self.hasher.update(piece.get(..count).unwrap_or_default());
        self.count += count as u64;
        self.bar.inc(count as u64);
        Ok(count)
    }
}

impl Sink for TarSink {
    fn has(&self, _digest: &Digest, _length: u64) -> bool {
        false
    }

    fn object(
        &mut self,
        (digest, length): (&Digest, u64),
        reader: Box<dyn Read>,
        bar: &ProgressBar,
    ) -> Result<(), SinkError> {
        let path = self.part.0.clone();
        let mut reader =
            Hashing { inner: reader.take(length), hasher: Hasher::default(), count: 0, bar };
        self.builder
            .append_data(&mut header(length), format!("sha256/{digest}"), &mut reader)
            .map_err(|source| SinkError::Copy { digest: *digest, path, source })?;
        let (got, found) = (reader.count, reader.hasher.finish());
        if got != length {
            return Err(SinkError::Length { digest: *digest, signed: length, got });
        }
        if found == *digest {
            Ok(())
        } else {
            Err(SinkError::Digest { named: *digest, got: found })
        }
    }

    fn metadata(&mut self, file: &str, bytes: &[u8]) -> Result<(), SinkError> {
        let path = self.part.0.clone();
        let added = self.append(&format!("metadata/{file}"), bytes);
        Ok(added.map_err(|source| FileError::Write { path, source })?)
    }
}

/// Unpacks a tar file into the folder `to`: plain files with the names of a bundle, each within its bounds.
pub fn unpack(path: &Path, to: &Path) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::Read { path: path.to_owned(), source };
    let mut archive = tar::Archive::new(fs::File::open(path).map_err(failed)?);
    for (count, entry) in archive.entries().map_err(failed)?.enumerate() {
        if count >= FILES_MAX {
            return Err(ArchiveError::TooMany);
        }
        let mut entry = entry.map_err(failed)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let max = size_max(&name).filter(|_| entry.header().entry_type().is_file());
        let max = max.ok_or_else(|| ArchiveError::Stray(name.chars().take(120).collect()))?;
        let bytes = entry.size();
        if bytes > max {
            return Err(ArchiveError::TooLarge { name, bytes, max });
        }
        let place = to.join(&name);
        files::make_folder(place.parent().unwrap_or(to))?;
        let written = fs::File::create(&place)
            .and_then(|mut file| io::copy(&mut entry, &mut file))
            .map_err(|source| FileError::Write { path: place.clone(), source })?;
        if written != bytes {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_bundle_are_taken() {
        let hash = Digest::of(b"x").to_string();
        for name in [
            "metadata/1.root.json".to_owned(),
            "metadata/timestamp.json".to_owned(),
            "metadata/7.team-nlp.json".to_owned(),
            format!("sha256/{hash}"),
            format!("assignments/{hash}.cbor"),
        ] {
            assert!(size_max(&name).is_some(), "{name}");
        }
        for name in [
            "metadata/../x.json".to_owned(),
            "metadata/.x.json".to_owned(),
            "metadata/a/b.json".to_owned(),
            "/metadata/1.root.json".to_owned(),
            "metadata/1.root.txt".to_owned(),
            "sha256/x".to_owned(),
            format!("sha256/{hash}.part"),
            format!("sha256/../{hash}"),
            "assignments/x.cbor".to_owned(),
            "bin/socle".to_owned(),
            "metadata".to_owned(),
            String::new(),
        ] {
            assert!(size_max(&name).is_none(), "{name}");
        }
    }

    #[test]
    fn links_and_strangers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar");
        let write = |kind: tar::EntryType, name: &str| {
            let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
            let mut header = header(0);
            header.set_entry_type(kind);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            builder.append_data(&mut header, name, io::empty()).unwrap();
            builder.into_inner().unwrap();
            unpack(&path, &folder.path().join("out"))
        };
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
            let refused = write(kind, "metadata/1.root.json");
            assert!(matches!(refused, Err(ArchiveError::Stray(_))), "{kind:?}");
        }
        assert!(matches!(write(tar::EntryType::Regular, "x"), Err(ArchiveError::Stray(_))));
        write(tar::EntryType::Regular, "metadata/1.root.json").unwrap();
    }
}
