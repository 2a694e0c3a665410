//! `socle release publish`: sends what the controller lacks, then the signed metadata.

use std::{fs, io, path::PathBuf};

use clap::Args;
use protocol::{
    blob::Blob,
    manifest::{Manifest, ManifestError, Object},
};
use serde_json::{Value, json};

use crate::{
    api::{ApiError, Controller},
    files::{self, FileError},
    release::folder::ReleaseFolder,
    terminal::{Terminal, Unit},
};

/// Arguments of `socle release publish`.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// Folder made by `socle release build` and signed
    #[arg(long)]
    pub release: PathBuf,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file.
    #[error("reading the release")]
    File(#[from] FileError),
    /// The manifest.
    #[error("reading the release's manifest")]
    Manifest(#[from] ManifestError),
    /// The controller refused, or cannot be reached.
    #[error("publishing to the controller")]
    Api(#[from] ApiError),
    /// An object to send.
    #[error("reading the object `{}`; build the release again", .path.display())]
    Object {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Objects sent.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects of the release, sent or there before.
    pub all: u64,
}

/// Sends the missing objects and the metadata.
pub fn publish(
    folder: &ReleaseFolder,
    controller: &Controller,
    terminal: &Terminal,
) -> Result<Sent, PublishError> {
    let manifest = files::read(&folder.manifest(), files::TEXT_BYTES_MAX)?;
    let targets = files::read(&folder.targets(), files::TEXT_BYTES_MAX)?;
    let objects = Manifest::parse(&manifest)?.published();
    let mut missing = Vec::new();
    for object in &objects {
        if !controller.has_object(&object.sha256)? {
            missing.push(*object);
        }
    }
    let bytes = missing.iter().map(|object| object.length).sum();
    let bar = terminal.progress(bytes, Unit::Bytes, "publishing");
    for Object { sha256, .. } in &missing {
        let path = folder.object(sha256);
        let file = fs::File::open(&path).map_err(|source| PublishError::Object { path, source })?;
        controller.put_object(sha256, Box::new(bar.wrap_read(file)))?;
    }
    bar.finish_and_clear();
    let body = json!({ "targets": Blob::from(targets), "manifest": Blob::from(manifest) });
    let _answer: Value = controller.post("releases", &body)?;
    Ok(Sent { objects: missing.len() as u64, bytes, all: objects.len() as u64 })
}
