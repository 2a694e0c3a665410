//! `socle release sign` and `release merge`: one person's signature over the metadata at a time, on different machines,
//! brought together at the end.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    digest::Digest,
    tuf::{document::Document, metadata::Targets},
};

use crate::{
    files::{self, FileError},
    keys::{
        file::{self, KeyFileError},
        passphrase::OpenArgs,
    },
    metadata::{
        document::{self, LoadError},
        signers::Signers,
        signing::{self, SigningError},
        standing::Standing,
    },
    release::folder::ReleaseFolder,
};

/// Which metadata of which release, and who may sign it.
#[derive(Clone, Debug, Args)]
pub struct RoleArgs {
    /// Folder made by `socle release build`
    #[arg(long)]
    pub release: PathBuf,
    /// The role that lists the release: targets, or one that it delegates to
    #[arg(long, default_value = "targets")]
    pub role: String,
    /// Who names the role's keys: the fleet's root metadata, or the targets metadata that delegates to the role
    #[arg(long, alias = "parent", value_name = "FILE")]
    pub root: PathBuf,
}

/// Arguments of `socle release sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// What to sign
    #[command(flatten)]
    pub role: RoleArgs,
    /// A key of the role; repeat for several
    #[arg(long = "key", required = true)]
    pub keys: Vec<PathBuf>,
    /// How the keys are opened
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Arguments of `socle release merge`.
#[derive(Clone, Debug, Args)]
pub struct MergeArgs {
    /// The release that gets the signatures
    #[command(flatten)]
    pub role: RoleArgs,
    /// A copy of the release folder, or of its metadata file, signed elsewhere; repeat for several
    #[arg(long = "from", required = true)]
    pub from: Vec<PathBuf>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Metadata.
    #[error("handling the release's metadata")]
    Load(#[from] LoadError),
    /// A file.
    #[error("reading the release's manifest")]
    File(#[from] FileError),
    /// A key.
    #[error("reading a signing key")]
    Key(#[from] KeyFileError),
    /// A key of another role or another fleet.
    #[error("signing with `{}`", .path.display())]
    Signing {
        /// The key.
        path: PathBuf,
        /// Why not.
        source: SigningError,
    },
    /// Copies that differ.
    #[error("merging the signatures of `{}`", .path.display())]
    Merging {
        /// The copy.
        path: PathBuf,
        /// Why not.
        source: SigningError,
    },
    /// A mistake of ours.
    #[error("encoding metadata")]
    Json(#[from] serde_json::Error),
    /// A manifest the metadata does not list.
    #[error("the manifest in `{}` is not one that the metadata lists; build the release again", .0.display())]
    NotListed(PathBuf),
}

/// Adds the signatures, and says where the signing stands.
pub fn sign(args: &SignArgs) -> Result<Standing, SignError> {
    let (path, mut document, signers) = open(&args.role)?;
    for key_path in &args.keys {
        let key = file::read(key_path, &args.open)?;
        signing::sign(&mut document, &[&signers], &key)
            .map_err(|source| SignError::Signing { path: key_path.clone(), source })?;
    }
    document::write(&path, &document)?;
    Ok(Standing::of(&document, &signers)?)
}

/// Brings the signatures of copies together, and says where the signing stands.
pub fn merge(args: &MergeArgs) -> Result<Standing, SignError> {
    let (path, mut document, signers) = open(&args.role)?;
    for from in &args.from {
        let copy = if from.is_dir() {
            ReleaseFolder::new(from).document(&args.role.role)
        } else {
            from.clone()
        };
        signing::merge(&mut document, &document::read(&copy)?, &[&signers])
            .map_err(|source| SignError::Merging { path: copy, source })?;
    }
    document::write(&path, &document)?;
    Ok(Standing::of(&document, &signers)?)
}

/// The metadata to sign, after a look that it is about this manifest; and who may sign it.
fn open(args: &RoleArgs) -> Result<(PathBuf, Document, Signers), SignError> {
    let folder = ReleaseFolder::new(&args.release);
    let path = folder.document(&args.role);
    let (document, targets) = document::read_targets(&path)?;
    let manifest = files::read(&folder.manifest(), files::TEXT_BYTES_MAX)?;
    if !lists(&targets, &manifest) {
        return Err(SignError::NotListed(folder.manifest()));
    }
    let signers = document::signers(&args.root, &args.role)?;
    Ok((path, document, signers))
}

/// Whether `targets` lists these bytes.
pub fn lists(targets: &Targets, manifest: &[u8]) -> bool {
    let (digest, length) = (Digest::of(manifest), manifest.len() as u64);
    targets
        .targets
        .values()
        .any(|target| target.length == length && target.sha256() == Some(digest))
}
