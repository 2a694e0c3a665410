//! A repository kept by hand, without a controller: signed releases are added, then snapshot and timestamp are signed
//! with keys of one's own, and any web server serves the folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use protocol::{
    manifest::{Manifest, ManifestError},
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{Meta, SPEC_VERSION, Snapshot, Timestamp},
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    files::{self, Access, FileError},
    keys::{
        file::{self, KeyFileError},
        passphrase::OpenArgs,
    },
    metadata::document::{self, LoadError},
    release::folder::ReleaseFolder,
    repo::{
        layout::{RepoFolder, versioned},
        sink::{FolderSink, Sink as _, SinkError},
    },
    terminal::{Terminal, Unit},
};

/// Arguments of `socle repo add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The repository's folder; it is made if it is not there
    #[arg(long)]
    pub repo: PathBuf,
    /// A signed root, VERSION.root.json; repeat for several
    #[arg(long = "root")]
    pub roots: Vec<PathBuf>,
    /// A signed release folder: its metadata and objects; repeat for several
    #[arg(long = "release")]
    pub releases: Vec<PathBuf>,
    /// Signed metadata of another role, ROLE.json; repeat for several
    #[arg(long = "metadata")]
    pub metadata: Vec<PathBuf>,
}

/// Arguments of `socle repo snapshot` and `repo timestamp`.
#[derive(Debug, Args)]
pub struct OnlineArgs {
    /// The repository's folder
    #[arg(long)]
    pub repo: PathBuf,
    /// The role's key; repeat for several
    #[arg(long = "key", required = true)]
    pub keys: Vec<PathBuf>,
    /// Days it holds [default: 30 for a snapshot, 7 for a timestamp]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub days: Option<u32>,
    /// How the keys are opened
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Files.
    #[error("handling the repository's files")]
    File(#[from] FileError),
    /// Metadata.
    #[error("handling metadata")]
    Load(#[from] LoadError),
    /// A manifest.
    #[error("reading a release's manifest")]
    Manifest(#[from] ManifestError),
    /// A key.
    #[error("reading a key")]
    Key(#[from] KeyFileError),
    /// An object.
    #[error("adding an object")]
    Sink(#[from] SinkError),
    /// An object that is not where it should be.
    #[error("opening the object `{}`; build the release again", .path.display())]
    Object {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another content under the same version.
    #[error("`{}` is there already with another content; raise the version and sign it again", .0.display())]
    SameVersion(PathBuf),
    /// No version or role.
    #[error("`{}` says no version, or its name is not that of a role", .0.display())]
    NoVersion(PathBuf),
    /// The repository has nothing to sign for.
    #[error("the repository has no {0} yet; add it with `socle repo add`, or sign it first")]
    Absent(&'static str),
    /// A mistake of ours.
    #[error("encoding metadata")]
    Json(#[from] serde_json::Error),
}

/// What was placed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Added {
    /// Metadata files placed.
    pub metadata: Vec<String>,
    /// Objects placed.
    pub objects: u64,
    /// Next, for people.
    pub next: String,
}

/// Places signed metadata and objects.
pub fn add(args: &AddArgs, terminal: &Terminal) -> Result<Added, KeptError> {
    let folder = RepoFolder::new(&args.repo);
    let mut sink = FolderSink::open(folder.clone())?;
    let mut added = Added::default();
    for path in &args.roots {
        added.metadata.extend(place(&folder, path, "root")?);
    }
    for path in &args.metadata {
        let role = role_of(path)?;
        added.metadata.extend(place(&folder, path, &role)?);
    }
    for path in &args.releases {
        let release = ReleaseFolder::new(path);
        for document in release.documents()? {
            let role = role_of(&document)?;
            added.metadata.extend(place(&folder, &document, &role)?);
        }
        added.objects += add_objects(&release, &mut sink, terminal)?;
    }
    added.next = "socle repo snapshot, then socle repo timestamp".into();
    Ok(added)
}

fn add_objects(
    release: &ReleaseFolder,
    sink: &mut FolderSink,
    terminal: &Terminal,
) -> Result<u64, KeptError> {
    let bytes = files::read(&release.manifest(), files::TEXT_BYTES_MAX)?;
    let manifest = Manifest::parse(&bytes)?;
    let mut objects: Vec<(protocol::digest::Digest, u64, PathBuf)> = manifest
        .published()
        .into_iter()
        .map(|object| (object.sha256, object.length, release.object(&object.sha256)))
        .collect();
    let digest = protocol::digest::Digest::of(&bytes);
    objects.push((digest, bytes.len() as u64, release.manifest()));
    objects.retain(|(digest, length, _)| !sink.has(digest, *length));
    let total = objects.iter().map(|(_, length, _)| length).sum();
    let bar = terminal.progress(total, Unit::Bytes, "adding");
    for (digest, length, path) in &objects {
        let file = fs::File::open(path)
            .map_err(|source| KeptError::Object { path: path.clone(), source })?;
        sink.object((digest, *length), Box::new(file), &bar)?;
    }
    bar.finish_and_clear();
    Ok(objects.len() as u64)
}

/// `7.nlp.json` and `nlp.json` → `nlp`.
fn role_of(path: &Path) -> Result<String, KeptError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let role = versioned(name).map(|(_, role)| role).or_else(|| name.strip_suffix(".json"));
    role.map(str::to_owned).ok_or_else(|| KeptError::NoVersion(path.to_owned()))
}

fn place(folder: &RepoFolder, path: &Path, role: &str) -> Result<Option<String>, KeptError> {
    let bytes = files::read(path, files::TEXT_BYTES_MAX)?;
    let version = document::read(path)?.signed.get("version").and_then(|v| v.as_u64());
    let version = version.ok_or_else(|| KeptError::NoVersion(path.to_owned()))?;
    let name = format!("{version}.{role}.json");
    let to = folder.metadata(&name);
    if !to.exists() {
        files::write(&to, &bytes, Access::All)?;
        return Ok(Some(name));
    }
    if files::read(&to, files::TEXT_BYTES_MAX)? == bytes {
        Ok(None)
    } else {
        Err(KeptError::SameVersion(to))
    }
}

/// Signs a snapshot of the newest metadata of all roles; its file comes back.
pub fn snapshot(args: &OnlineArgs, now: UnixMs) -> Result<PathBuf, KeptError> {
    let folder = RepoFolder::new(&args.repo);
    let newest = folder.newest()?;
    let mut meta = BTreeMap::new();
    for (role, version, path) in &newest {
        if !["root", "snapshot", "timestamp"].contains(&role.as_str()) {
            let bytes = files::read(path, files::TEXT_BYTES_MAX)?;
            meta.insert(format!("{role}.json"), Meta::of(*version, &bytes));
        }
    }
    if !meta.contains_key("targets.json") {
        return Err(KeptError::Absent("targets metadata"));
    }
    let known = newest.iter().find(|(role, ..)| role == "snapshot");
    let version = known.map_or(0, |(_, version, _)| *version) + 1;
    let snapshot = Snapshot {
        kind: "snapshot".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: document::expiry(now, args.days.unwrap_or(30)),
        meta,
        other: BTreeMap::new(),
    };
    let path = folder.metadata(&format!("{version}.snapshot.json"));
    signed(args, &snapshot, &path)?;
    Ok(path)
}

/// Signs a timestamp for the newest snapshot; its file comes back.
pub fn timestamp(args: &OnlineArgs, now: UnixMs) -> Result<PathBuf, KeptError> {
    let folder = RepoFolder::new(&args.repo);
    let newest = folder.newest()?;
    let snapshot = newest.iter().find(|(role, ..)| role == "snapshot");
    let (_, version, snapshot) = snapshot.ok_or(KeptError::Absent("snapshot"))?;
    let bytes = files::read(snapshot, files::TEXT_BYTES_MAX)?;
    let path = folder.metadata("timestamp.json");
    let before: Option<Timestamp> = if path.exists() { Some(content(&path)?) } else { None };
    let timestamp = Timestamp {
        kind: "timestamp".into(),
        spec_version: SPEC_VERSION.into(),
        version: before.map_or(0, |timestamp| timestamp.version) + 1,
        expires: document::expiry(now, args.days.unwrap_or(7)),
        meta: BTreeMap::from([("snapshot.json".to_owned(), Meta::of(*version, &bytes))]),
        other: BTreeMap::new(),
    };
    signed(args, &timestamp, &path)?;
    Ok(path)
}

fn content<T: DeserializeOwned>(path: &Path) -> Result<T, KeptError> {
    Ok(serde_json::from_value(document::read(path)?.signed)?)
}

fn signed<T: Serialize>(args: &OnlineArgs, content: &T, path: &Path) -> Result<(), KeptError> {
    let mut document = Document::unsigned(content)?;
    for key in &args.keys {
        document.sign(&file::read(key, &args.open)?)?;
    }
    Ok(document::write(path, &document)?)
}
