//! A signed document as a file.

use std::path::{Path, PathBuf};

use protocol::{
    time::UnixMs,
    tuf::{
        document::{Document, DocumentError},
        metadata::{Root, Targets},
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    files::{self, Access, FileError},
    metadata::signers::{NoSuchRole, Signers},
};

const DAY_MS: u64 = 86_400_000;

/// Why a document cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file.
    #[error("handling metadata")]
    File(#[from] FileError),
    /// Not signed JSON.
    #[error("reading `{}`", .path.display())]
    Document {
        /// Which.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// Signed JSON of another role.
    #[error("`{}` is not {role} metadata", .path.display())]
    Shape {
        /// Which.
        path: PathBuf,
        /// What it should be.
        role: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// It says it is something else.
    #[error("`{}` is {kind} metadata; {role} metadata is needed here", .path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it should be.
        role: &'static str,
        /// What it says.
        kind: String,
    },
    /// A role that the document does not name.
    #[error("looking for the keys of the role in `{}`", .path.display())]
    Role {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: NoSuchRole,
    },
    /// A mistake of ours.
    #[error("encoding metadata")]
    Json(#[from] serde_json::Error),
}

/// What a document says it is: `root`, `targets`, …
pub fn kind(document: &Document) -> &str {
    document.signed.get("_type").and_then(|kind| kind.as_str()).unwrap_or("no")
}

/// Reads a document whatever its role.
pub fn read(path: &Path) -> Result<Document, LoadError> {
    let bytes = files::read(path, files::TEXT_BYTES_MAX)?;
    Document::parse("the", &bytes)
        .map_err(|source| LoadError::Document { path: path.to_owned(), source })
}

/// Reads root metadata; nobody has checked its signatures.
pub fn read_root(path: &Path) -> Result<(Document, Root), LoadError> {
    read_as(path, "root")
}

/// Reads targets metadata; nobody has checked its signatures.
pub fn read_targets(path: &Path) -> Result<(Document, Targets), LoadError> {
    read_as(path, "targets")
}

fn read_as<T: DeserializeOwned>(
    path: &Path,
    role: &'static str,
) -> Result<(Document, T), LoadError> {
    let document = read(path)?;
    if kind(&document) != role {
        let kind = kind(&document).to_owned();
        return Err(LoadError::Kind { path: path.to_owned(), role, kind });
    }
    let content = serde_json::from_value(document.signed.clone())
        .map_err(|source| LoadError::Shape { path: path.to_owned(), role, source })?;
    Ok((document, content))
}

/// Who signs `role`, as the root or the delegating targets metadata in `path` says.
pub fn signers(path: &Path, role: &str) -> Result<Signers, LoadError> {
    let parent = read(path)?;
    let named = if kind(&parent) == "root" {
        Signers::of_root(&read_root(path)?.1, role)
    } else {
        Signers::of_delegation(&read_targets(path)?.1, role)
    };
    named.map_err(|source| LoadError::Role { path: path.to_owned(), source })
}

/// Writes a document.
pub fn write(path: &Path, document: &Document) -> Result<(), LoadError> {
    Ok(files::write(path, &document.to_bytes()?, Access::All)?)
}

/// Writes content that nobody has signed yet.
pub fn write_unsigned<T: Serialize>(path: &Path, content: &T) -> Result<Document, LoadError> {
    let document = Document::unsigned(content)?;
    write(path, &document)?;
    Ok(document)
}

/// The expiry `days` from `now`, as metadata writes it.
pub fn expiry(now: UnixMs, days: u32) -> String {
    now.plus(u64::from(days) * DAY_MS).to_rfc3339()
}
