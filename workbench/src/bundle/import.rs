//! `socle bundle import` and `bundle publish`: a bundle into the mirror of a site, or to a controller. Everything in it
//! is verified before anything is placed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use protocol::{blob::Blob, time::UnixMs, tuf::chain::pinned_root};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    api::{ApiError, Controller, ControllerArgs},
    bundle::{
        archive::{self, ArchiveError},
        assignment::{self, AssignmentError},
    },
    files::{self, Access, FileError},
    repo::{
        collected::{Anchor, CollectError, Collected, Selection},
        copy::{self, Copied, CopyError},
        layout::RepoFolder,
        source::{Source, SourceArgs, SourceError},
    },
    terminal::Terminal,
};

/// Largest assignment.
const ASSIGNMENT_BYTES_MAX: u64 = 64 << 10;

/// Arguments of `socle bundle import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The bundle: a .tar file or a folder
    pub bundle: PathBuf,
    /// Mirror folder to import into; it is made if it is not there
    #[arg(long)]
    pub into: PathBuf,
    /// A root of the fleet that you trust; needed for a new mirror, later the mirror's own counts
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Remove objects that nothing in the bundle needs
    #[arg(long)]
    pub prune: bool,
}

/// Arguments of `socle bundle publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The bundle: a .tar file or a folder
    pub bundle: PathBuf,
    /// A root of the fleet that you trust; needed where the controller has none yet
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle cannot be unpacked.
    #[error("unpacking the bundle")]
    Archive(#[from] ArchiveError),
    /// The bundle does not hold.
    #[error("checking the bundle")]
    Collect(#[from] CollectError),
    /// It cannot be read.
    #[error("reading the bundle")]
    Source(#[from] SourceError),
    /// The copy.
    #[error("importing the bundle")]
    Copy(#[from] CopyError),
    /// Files.
    #[error("handling the bundle's files")]
    File(#[from] FileError),
    /// No folder to unpack to.
    #[error("making a folder to unpack the bundle in, beside `{}`", .beside.display())]
    Temporary {
        /// Beside which.
        beside: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing to hold the bundle against.
    #[error(
        "nothing is trusted here yet: give --root, a root of the fleet that reached you on another way than the bundle"
    )]
    NoRoot,
    /// The controller.
    #[error("publishing to the controller")]
    Api(#[from] ApiError),
    /// An assignment that is none.
    #[error("reading the assignment `{}`", .path.display())]
    Assignment {
        /// Which.
        path: PathBuf,
        /// Why.
        source: AssignmentError,
    },
    /// An assignment under the name of another device.
    #[error("the assignment `{}` is for another device than its name says", .0.display())]
    OtherDevice(PathBuf),
    /// An object that was there when it was verified.
    #[error("object {0} of the bundle went away while it was read")]
    Gone(protocol::digest::Digest),
}

/// What was imported.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Imported {
    /// Objects that moved, of how many.
    #[serde(flatten)]
    pub copied: Copied,
    /// Releases in the bundle.
    pub releases: Vec<String>,
    /// Assignments placed.
    pub assignments: usize,
}

/// A bundle that was verified, every byte of it.
struct Opened {
    source: Source,
    collected: Collected,
    assignments: Vec<(String, Vec<u8>)>,
    /// Kept until the end: dropping it removes what was unpacked.
    _unpacked: Option<TempDir>,
}

/// Imports into a mirror.
pub fn import(
    args: &ImportArgs,
    now: UnixMs,
    terminal: &Terminal,
) -> Result<Imported, ImportError> {
    let anchor = match copy::known(&args.into)? {
        Some(known) => known,
        None => given(args.root.as_deref())?,
    };
    let opened = open(&args.bundle, (&args.into, &anchor), now, terminal)?;
    let Opened { source, collected, assignments, .. } = &opened;
    let copied = copy::place(source, collected, &args.into, args.prune, terminal)?;
    let folder = args.into.join("assignments");
    for (name, bytes) in assignments {
        files::make_folder(&folder)?;
        files::write(&folder.join(name), bytes, Access::All)?;
    }
    Ok(imported(copied, &opened))
}

/// Imports into a controller: roots, objects, then metadata and releases, in the order of their counters. The
/// controller verifies all of it again.
pub fn publish(
    args: &PublishArgs,
    now: UnixMs,
    terminal: &Terminal,
) -> Result<Imported, ImportError> {
    let controller = Controller::connect(&args.controller)?;
    let server = Source::open(&SourceArgs {
        from: format!("{}/artifacts", args.controller.controller.trim_end_matches('/')),
        ca: Some(args.controller.ca.clone()),
        token_file: Some(args.controller.token_file.clone()),
    })?;
    let root = server.metadata("root.json", files::TEXT_BYTES_MAX)?;
    let known = match &root {
        Some(root) => pinned_root(root).map_err(CollectError::Refused)?.get().version,
        None => 0,
    };
    let anchor = match root {
        Some(root) if args.root.is_none() => Anchor::Root(root),
        Some(_) | None => given(args.root.as_deref())?,
    };
    let beside = std::env::temp_dir();
    let opened = open(&args.bundle, (&beside, &anchor), now, terminal)?;
    let Opened { source, collected, .. } = &opened;
    for (root, version) in collected.roots.iter().zip(1_u64..) {
        if version > known {
            controller.post_root(root)?;
        }
    }
    let mut copied = Copied::default();
    for (digest, length) in &collected.objects() {
        copied.all += 1;
        if !controller.has_object(digest)? {
            let reader = source.object(digest, *length)?.ok_or(ImportError::Gone(*digest))?;
            controller.put_object(digest, reader)?;
            copied.objects += 1;
            copied.bytes += length;
        }
    }
    let mut sent = BTreeSet::new();
    let mut releases: Vec<_> = collected.releases.iter().collect();
    releases.sort_by_key(|release| release.manifest.counter);
    let base = metadata(collected);
    for release in releases {
        if sent.insert(release.digest) {
            let mut body = base.clone();
            body["manifest"] = json!(Blob::from(release.bytes.clone()));
            let _answer: Value = controller.post("releases", &body)?;
        }
    }
    if sent.is_empty() {
        let _answer: Value = controller.post("releases", &base)?;
    }
    Ok(imported(copied, &opened))
}

fn metadata(collected: &Collected) -> Value {
    let mut body = json!({
        "snapshot": Blob::from(collected.snapshot.1.clone()),
        "timestamp": Blob::from(collected.timestamp.clone()),
    });
    let mut roles = Vec::new();
    for role in &collected.roles {
        let document = Blob::from(role.bytes.clone());
        if role.role == "targets" {
            body["targets"] = json!(document);
        } else {
            roles.push(json!({ "role": role.role, "document": document }));
        }
    }
    body["roles"] = Value::Array(roles);
    body
}

fn given(root: Option<&Path>) -> Result<Anchor, ImportError> {
    let path = root.ok_or(ImportError::NoRoot)?;
    Ok(Anchor::Root(files::read(path, files::TEXT_BYTES_MAX)?))
}

/// Unpacks if need be, and verifies all: metadata, every object's hash, and that assignments are what they say.
fn open(
    bundle: &Path,
    (beside, anchor): (&Path, &Anchor),
    now: UnixMs,
    terminal: &Terminal,
) -> Result<Opened, ImportError> {
    let (folder, unpacked) = if bundle.is_dir() {
        (bundle.to_owned(), None)
    } else {
        files::make_folder(beside)?;
        let made = tempfile::Builder::new().prefix(".bundle-").tempdir_in(beside);
        let made =
            made.map_err(|source| ImportError::Temporary { beside: beside.to_owned(), source })?;
        archive::unpack(bundle, made.path())?;
        (made.path().to_owned(), Some(made))
    };
    let source = Source::Folder(RepoFolder::new(&folder));
    let selection = held(&folder)?;
    let collected = Collected::read(&source, anchor, &selection, now)?;
    let found = copy::checked(&source, &collected, terminal)?;
    if !found.problems.is_empty() {
        return Err(CopyError::Problems(found.problems).into());
    }
    let assignments = assignments(&folder)?;
    Ok(Opened { source, collected, assignments, _unpacked: unpacked })
}

/// A bundle may hold some of the listed releases only: those whose manifests are in it are meant.
fn held(folder: &Path) -> Result<Selection, ImportError> {
    let objects = RepoFolder::new(folder).objects();
    let mut releases = Vec::new();
    if objects.exists() {
        let failed = |source| FileError::Read { path: objects.clone(), source };
        for entry in fs::read_dir(&objects).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            releases.extend(name.to_str().map(str::to_owned));
        }
    }
    // No object at all: metadata alone travels, and no release is meant.
    if releases.is_empty() {
        releases.push(String::new());
    }
    Ok(Selection { environments: Vec::new(), releases })
}

fn assignments(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, ImportError> {
    let folder = folder.join("assignments");
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    let failed = |source| FileError::Read { path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let bytes = files::read(&path, ASSIGNMENT_BYTES_MAX)?;
        let desired = assignment::read(&bytes)
            .map_err(|source| ImportError::Assignment { path: path.clone(), source })?;
        let name = format!("{}.cbor", desired.device);
        if path.file_name().and_then(|name| name.to_str()) != Some(&name) {
            return Err(ImportError::OtherDevice(path));
        }
        found.push((name, bytes));
    }
    Ok(found)
}

fn imported(copied: Copied, opened: &Opened) -> Imported {
    let releases = opened.collected.releases.iter();
    Imported {
        copied,
        releases: releases.map(|r| format!("{} for {}", r.manifest.name, r.environment)).collect(),
        assignments: opened.assignments.len(),
    }
}
