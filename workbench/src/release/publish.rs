//! `socle release publish`: sends what the controller lacks, then the signed metadata.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

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
    /// Folder made by `socle release build` and signed; all metadata in it is published
    #[arg(long)]
    pub release: PathBuf,
    /// Signed metadata of other roles to publish along, ROLE.json; repeat for several
    #[arg(long = "metadata", value_name = "FILE")]
    pub metadata: Vec<PathBuf>,
    /// Snapshot and timestamp signed by hand, where the root names other keys for them than the controller's
    #[arg(long, requires = "timestamp", value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// See --snapshot
    #[arg(long, requires = "snapshot", value_name = "FILE")]
    pub timestamp: Option<PathBuf>,
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
    args: &PublishArgs,
    controller: &Controller,
    terminal: &Terminal,
) -> Result<Sent, PublishError> {
    let folder = &ReleaseFolder::new(&args.release);
    let manifest = files::read(&folder.manifest(), files::TEXT_BYTES_MAX)?;
    let body = publication(args, folder, &manifest)?;
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
    let _answer: Value = controller.post("releases", &body)?;
    Ok(Sent { objects: missing.len() as u64, bytes, all: objects.len() as u64 })
}

/// What the controller is sent: all metadata of the folder by its role, what was given along, and the manifest.
fn publication(
    args: &PublishArgs,
    folder: &ReleaseFolder,
    manifest: &[u8],
) -> Result<Value, PublishError> {
    let blob =
        |path: &Path| Ok::<_, FileError>(Blob::from(files::read(path, files::TEXT_BYTES_MAX)?));
    let mut body = json!({ "manifest": Blob::from(manifest.to_vec()) });
    let mut roles = Vec::new();
    for path in folder.documents()?.iter().chain(&args.metadata) {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem == "targets" {
            body["targets"] = json!(blob(path)?);
        } else {
            roles.push(json!({ "role": stem, "document": blob(path)? }));
        }
    }
    body["roles"] = Value::Array(roles);
    for (field, path) in [("snapshot", &args.snapshot), ("timestamp", &args.timestamp)] {
        if let Some(path) = path {
            body[field] = json!(blob(path)?);
        }
    }
    Ok(body)
}
