//! `socle repo verify` and `repo mirror`: a repository held against all its signatures and hashes, and copied so that
//! the copy can stand in for it.

use std::{collections::BTreeSet, fs, path::PathBuf};

use clap::Args;
use protocol::{
    digest::Digest,
    time::UnixMs,
    tuf::{chain::Seen, verify::Trusted},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    files::{self, FileError},
    repo::{
        collected::{Anchor, CollectError, Collected, Selection},
        layout::RepoFolder,
        sink::{FolderSink, Sink, SinkError, hashed_copy},
        source::{Source, SourceArgs, SourceError},
    },
    terminal::{Terminal, Unit},
};

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Which repository
    #[command(flatten)]
    pub source: SourceArgs,
    /// A root of the fleet that you trust; without it the repository's first root is taken as it is, and shown
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Which releases
    #[command(flatten)]
    pub selection: Selection,
}

/// What to copy.
#[derive(Debug, Args)]
pub struct MirrorArgs {
    /// What to copy, and what to trust in it
    #[command(flatten)]
    pub verify: VerifyArgs,
    /// Folder of the copy; when it holds one already, only what changed moves, and nothing older is taken
    #[arg(long)]
    pub to: PathBuf,
    /// Remove objects that no selected release needs any more
    #[arg(long)]
    pub prune: bool,
}

/// Why a repository was not verified or copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read.
    #[error("opening the repository")]
    Source(#[from] SourceError),
    /// It does not hold.
    #[error("checking the repository")]
    Collect(#[from] CollectError),
    /// The copy.
    #[error("copying the repository")]
    Sink(#[from] SinkError),
    /// Files.
    #[error("handling the copy")]
    File(#[from] FileError),
    /// Something does not hold.
    #[error("{} things do not hold; the first: {}", .0.len(), .0.first().map_or("", String::as_str))]
    Problems(Vec<String>),
    /// An object that a release needs is nowhere.
    #[error("object {0} of a listed release is missing in the repository")]
    Missing(Digest),
    /// The copy so far cannot be understood.
    #[error("reading the copy that is there already; remove the folder to start anew")]
    Known(#[source] CollectError),
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// SHA-256 of the first root: compare it with what you were told.
    pub first_root: String,
    /// Version of the newest root.
    pub root_version: u64,
    /// Roles that the snapshot lists.
    pub roles: usize,
    /// Releases, once for each environment.
    pub releases: Vec<String>,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What does not hold.
    pub problems: Vec<String>,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Objects that moved.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects of the selected releases, those that were there included.
    pub all: u64,
    /// Objects removed.
    pub pruned: u64,
}

/// Reads everything and hashes every object.
pub fn verify(args: &VerifyArgs, now: UnixMs, terminal: &Terminal) -> Result<Found, CopyError> {
    let source = Source::open(&args.source)?;
    let collected = Collected::read(&source, &anchor(args)?, &args.selection, now)?;
    checked(&source, &collected, terminal)
}

/// Holds every object of `collected` against its hash.
pub fn checked(
    source: &Source,
    collected: &Collected,
    terminal: &Terminal,
) -> Result<Found, CopyError> {
    let objects = collected.objects();
    let mut problems = collected.problems.clone();
    let bytes = objects.values().sum();
    let bar = terminal.progress(bytes, Unit::Bytes, "verifying");
    for (digest, length) in &objects {
        let Some(reader) = source.object(digest, *length)? else {
            problems.push(format!("object {digest} is missing"));
            continue;
        };
        match hashed_copy((digest, *length), reader, std::io::sink(), &bar) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(error.to_string()),
            Err(error) => problems.push(format!("object {digest} cannot be read: {error}")),
        }
    }
    bar.finish_and_clear();
    let first = collected.roots.first().map_or(&[] as &[u8], Vec::as_slice);
    Ok(Found {
        first_root: Digest::of(first).to_string(),
        root_version: collected.trusted.root().get().version,
        roles: collected.roles.len(),
        releases: collected
            .releases
            .iter()
            .map(|release| format!("{} for {}", release.manifest.name, release.environment))
            .collect(),
        objects: objects.len() as u64,
        bytes,
        problems,
    })
}

/// Copies what is not there yet; the copy is as good as the original, or as it was before.
pub fn mirror(args: &MirrorArgs, now: UnixMs, terminal: &Terminal) -> Result<Copied, CopyError> {
    let source = Source::open(&args.verify.source)?;
    let anchor = known(&args.to)?.map_or_else(|| anchor(&args.verify), Ok)?;
    let collected = Collected::read(&source, &anchor, &args.verify.selection, now)?;
    place(&source, &collected, &args.to, args.prune, terminal)
}

/// Places `collected` in a folder.
pub fn place(
    source: &Source,
    collected: &Collected,
    to: &std::path::Path,
    prune: bool,
    terminal: &Terminal,
) -> Result<Copied, CopyError> {
    if !collected.problems.is_empty() {
        return Err(CopyError::Problems(collected.problems.clone()));
    }
    let folder = RepoFolder::new(to);
    let mut sink = FolderSink::open(folder.clone())?;
    let mut copied = copy(source, collected, &mut sink, terminal)?;
    link_targets(&folder, collected)?;
    if prune {
        copied.pruned = remove_others(&folder, collected)?;
    }
    Ok(copied)
}

/// Copies objects, then metadata, the timestamp last.
pub fn copy(
    source: &Source,
    collected: &Collected,
    sink: &mut impl Sink,
    terminal: &Terminal,
) -> Result<Copied, CopyError> {
    let objects = collected.objects();
    let missing: Vec<(&Digest, &u64)> =
        objects.iter().filter(|(digest, length)| !sink.has(digest, **length)).collect();
    let bytes = missing.iter().map(|(_, length)| **length).sum();
    let bar = terminal.progress(bytes, Unit::Bytes, "copying");
    for (digest, length) in &missing {
        let reader = source.object(digest, **length)?.ok_or(CopyError::Missing(**digest))?;
        sink.object((digest, **length), reader, &bar)?;
    }
    bar.finish_and_clear();
    for (file, content) in collected.metadata() {
        sink.metadata(&file, content)?;
    }
    Ok(Copied { objects: missing.len() as u64, bytes, all: objects.len() as u64, pruned: 0 })
}

/// What is trusted when nothing was copied before.
pub fn anchor(args: &VerifyArgs) -> Result<Anchor, CopyError> {
    match &args.root {
        None => Ok(Anchor::FirstUse),
        Some(path) => Ok(Anchor::Root(files::read(path, files::TEXT_BYTES_MAX)?)),
    }
}

/// What an earlier copy in `folder` had, if there is one: its newest root, and the versions under it.
pub fn known(folder: &std::path::Path) -> Result<Option<Anchor>, CopyError> {
    let folder = RepoFolder::new(folder);
    let newest = folder.newest()?;
    let of = |role: &str| newest.iter().find(|(other, ..)| other == role);
    let Some((_, _, root)) = of("root") else { return Ok(None) };
    let root = files::read(root, files::TEXT_BYTES_MAX)?;
    let read = |path: PathBuf| -> Result<Value, FileError> {
        Ok(serde_json::from_slice(&files::read(&path, files::TEXT_BYTES_MAX)?).unwrap_or_default())
    };
    let timestamp_path = folder.metadata("timestamp.json");
    let mut seen = Seen::default();
    if timestamp_path.exists() {
        let timestamp = read(timestamp_path)?;
        seen.timestamp = timestamp["signed"]["version"].as_u64().unwrap_or(0);
        let version = timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64().unwrap_or(0);
        seen.snapshot = version;
        let snapshot = read(folder.metadata(&format!("{version}.snapshot.json")))?;
        let meta = snapshot["signed"]["meta"].as_object().cloned().unwrap_or_default();
        seen.roles = meta
            .into_iter()
            .filter_map(|(name, meta)| Some((name, meta["version"].as_u64()?)))
            .collect();
    }
    let trusted = Trusted::new(root, seen)
        .map_err(|source| CopyError::Known(CollectError::Refused(source)))?;
    Ok(Some(Anchor::Known(Box::new(trusted))))
}

/// Gives stored objects the names under which other clients of TUF ask for them.
fn link_targets(folder: &RepoFolder, collected: &Collected) -> Result<(), CopyError> {
    for (path, digest) in &collected.listed {
        let (object, Some(name)) = (folder.object(digest), folder.target(path, digest)) else {
            continue;
        };
        if name.exists() || !object.exists() {
            continue;
        }
        files::make_folder(name.parent().unwrap_or_else(|| folder.path()))?;
        // Some file systems of sticks have no hard links; there the file is copied.
        if fs::hard_link(&object, &name).is_err() {
            fs::copy(&object, &name)
                .map_err(|source| FileError::Write { path: name.clone(), source })?;
        }
    }
    Ok(())
}

fn remove_others(folder: &RepoFolder, collected: &Collected) -> Result<u64, CopyError> {
    let wanted: BTreeSet<String> = collected.objects().keys().map(ToString::to_string).collect();
    let objects = folder.objects();
    let failed = |source| FileError::Read { path: objects.clone(), source };
    let mut removed = 0;
    for entry in fs::read_dir(&objects).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !wanted.contains(name) {
            fs::remove_file(&path).map_err(|source| FileError::Write { path, source })?;
            removed += 1;
        }
    }
    Ok(removed)
}
