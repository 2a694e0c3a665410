//! Signatures of a new root: the old root's threshold and its own must both be met.

use std::path::{Path, PathBuf};

use protocol::tuf::document::Document;
use serde::Serialize;

use crate::{
    keys::{
        file::{self, KeyFileError},
        passphrase::OpenArgs,
    },
    metadata::{
        document::{self, LoadError},
        signers::{NoSuchRole, Signers},
        signing::{self, SigningError},
        standing::Standing,
    },
};

/// Where the signing of a root stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootStanding {
    /// With the keys of the root before; none for the first root.
    pub old: Option<Standing>,
    /// With its own keys.
    pub new: Standing,
}

/// Why a root is not signed.
#[derive(Debug, thiserror::Error)]
pub enum RootSignError {
    /// Metadata.
    #[error("handling root metadata")]
    Load(#[from] LoadError),
    /// A key.
    #[error("reading a signing key")]
    Key(#[from] KeyFileError),
    /// Not a root key.
    #[error("signing with `{}`", .path.display())]
    Signing {
        /// The key, or the copy.
        path: PathBuf,
        /// Why not.
        source: SigningError,
    },
    /// A root without a root role.
    #[error("finding the root's keys")]
    Role(#[from] NoSuchRole),
    /// Roots that do not follow each other.
    #[error(
        "root version {new} does not follow version {old}; give the one before with --previous"
    )]
    Sequence {
        /// Version before.
        old: u64,
        /// Version to be signed.
        new: u64,
    },
    /// A later root needs the one before.
    #[error("root version {0} needs --previous, the root before it, whose keys sign it too")]
    NeedsPrevious(u64),
    /// A mistake of ours.
    #[error("encoding metadata")]
    Json(#[from] serde_json::Error),
}

impl RootStanding {
    /// Whether devices accept it.
    pub fn complete(&self) -> bool {
        self.new.complete() && self.old.as_ref().is_none_or(Standing::complete)
    }

    /// In words, one line for each set of keys.
    pub fn lines(&self) -> String {
        match &self.old {
            Some(old) => format!("by the old keys  {old}\nby its own keys  {}", self.new),
            None => format!("by its own keys  {}", self.new),
        }
    }
}

/// A root to be signed, with those who may.
struct Opened {
    document: Document,
    old: Option<Signers>,
    new: Signers,
}

impl Opened {
    fn allowed(&self) -> Vec<&Signers> {
        self.old.iter().chain([&self.new]).collect()
    }

    fn standing(&self) -> Result<RootStanding, RootSignError> {
        Ok(RootStanding {
            old: self.old.as_ref().map(|old| Standing::of(&self.document, old)).transpose()?,
            new: Standing::of(&self.document, &self.new)?,
        })
    }
}

fn open(path: &Path, previous: Option<&Path>) -> Result<Opened, RootSignError> {
    let (document, root) = document::read_root(path)?;
    let old = match previous {
        None if root.version > 1 => return Err(RootSignError::NeedsPrevious(root.version)),
        None => None,
        Some(previous) => {
            let (_, before) = document::read_root(previous)?;
            if before.version.checked_add(1) != Some(root.version) {
                let (old, new) = (before.version, root.version);
                return Err(RootSignError::Sequence { old, new });
            }
            let mut signers = Signers::of_root(&before, "root")?;
            signers.role = format!("root {}", before.version);
            Some(signers)
        }
    };
    let mut new = Signers::of_root(&root, "root")?;
    new.role = format!("root {}", root.version);
    Ok(Opened { document, old, new })
}

/// Adds the signatures of `keys` to the root at `path`.
pub fn sign(
    path: &Path,
    previous: Option<&Path>,
    keys: &[PathBuf],
    passphrases: &OpenArgs,
) -> Result<RootStanding, RootSignError> {
    let mut opened = open(path, previous)?;
    for key_path in keys {
        let key = file::read(key_path, passphrases)?;
        let mut document = opened.document.clone();
        signing::sign(&mut document, &opened.allowed(), &key)
            .map_err(|source| RootSignError::Signing { path: key_path.clone(), source })?;
        opened.document = document;
    }
    document::write(path, &opened.document)?;
    opened.standing()
}

/// Brings the signatures of copies together.
pub fn merge(
    path: &Path,
    previous: Option<&Path>,
    copies: &[PathBuf],
) -> Result<RootStanding, RootSignError> {
    let mut opened = open(path, previous)?;
    for copy in copies {
        let other = document::read(copy)?;
        let mut document = opened.document.clone();
        signing::merge(&mut document, &other, &opened.allowed())
            .map_err(|source| RootSignError::Signing { path: copy.clone(), source })?;
        opened.document = document;
    }
    document::write(path, &opened.document)?;
    opened.standing()
}

/// Where the signing of the root at `path` stands.
pub fn standing(path: &Path, previous: Option<&Path>) -> Result<RootStanding, RootSignError> {
    open(path, previous)?.standing()
}
