//! `socle release promote`: the same release, byte for byte, listed for another environment. Nothing is built again:
//! what was tried is what is signed for.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    digest::Digest,
    id::Environment,
    manifest::{Manifest, ManifestError},
    time::UnixMs,
    tuf::{metadata::Targets, shape::is_role_name},
};

use crate::{
    files::{self, FileError},
    metadata::{
        document::{self, LoadError},
        listing::{self, ListingError},
    },
    release::folder::ReleaseFolder,
};

/// Arguments of `socle release promote`.
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// Folder of the release
    #[arg(long)]
    pub release: PathBuf,
    /// Environment it is for from now on, beside those it is signed for already
    #[arg(long = "env")]
    pub environment: Environment,
    /// The role that lists it there: targets, or one that is trusted for env/ENV/*
    #[arg(long, default_value = "targets")]
    pub role: String,
    /// Newest metadata of that role; without it, that in the release folder, or else its first version
    #[arg(long)]
    pub previous: Option<PathBuf>,
    /// Days until the metadata must be signed again
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Why nothing was promoted.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The manifest.
    #[error("reading the release's manifest")]
    File(#[from] FileError),
    /// The manifest is none.
    #[error("checking the release's manifest")]
    Manifest(#[from] ManifestError),
    /// The metadata before.
    #[error("listing the release")]
    Listing(#[from] ListingError),
    /// The metadata.
    #[error("writing the release's metadata")]
    Load(#[from] LoadError),
    /// A role that cannot have this name.
    #[error(
        "`{0}` is not the name of a role: 1 to 64 of a-z 0-9 . _ -, and not root, snapshot or timestamp"
    )]
    Role(String),
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The release.
    pub digest: Digest,
    /// Its name.
    pub name: String,
    /// The metadata to be signed.
    pub path: PathBuf,
    /// Its version.
    pub version: u64,
}

/// Lists the release for one environment more.
pub fn promote(args: &PromoteArgs, now: UnixMs) -> Result<Promoted, PromoteError> {
    if args.role != "targets" && !is_role_name(&args.role) {
        return Err(PromoteError::Role(args.role.clone()));
    }
    let folder = ReleaseFolder::new(&args.release);
    let bytes = files::read(&folder.manifest(), files::TEXT_BYTES_MAX)?;
    let manifest = Manifest::parse(&bytes)?;
    let path = folder.document(&args.role);
    let mut targets: Targets = match &args.previous {
        Some(previous) => listing::next(Some(previous), now, args.days)?,
        None => listing::draft(&path, now, args.days)?,
    };
    listing::list_release(&mut targets, &args.environment, &manifest, &bytes);
    document::write_unsigned(&path, &targets)?;
    let (digest, version) = (Digest::of(&bytes), targets.version);
    Ok(Promoted { digest, name: manifest.name, path, version })
}
