//! From an assignment to a complete staging area. Blocking: it runs on a thread of its own.
//!
//! Documents first, verified; then what the signed manifest asks of the machine; then only the objects that neither
//! the store nor the staging area holds; and last, durably, the request that calls the updater.

use std::{collections::BTreeSet, io, path::PathBuf, sync::atomic::AtomicBool};

use protocol::{
    blob::Blob,
    cbor::DOCUMENT_BYTES_MAX,
    command::Desired,
    digest::Digest,
    handover::Request,
    manifest::{File, Manifest},
    time::UnixMs,
    tuf::early::{Floor, Release},
    verified::Verified,
};
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

use crate::fleet::{
    artifact_server::ArtifactServer,
    download::{self, DownloadError, Wanted},
    release_documents::{DocumentsError, ReleaseDocuments, fetch_documents},
    state_file::{self, StateFileError},
};

/// What this machine offers to a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Such as `x86_64-linux`.
    pub platform: String,
    /// Memory there is, in bytes.
    pub memory_bytes: u64,
    /// Free space where the state lies, in bytes.
    pub disk_free_bytes: u64,
}

/// A release to fetch.
#[derive(Debug)]
pub struct Job {
    /// Where everything lies.
    pub state: StateDir,
    /// Where it comes from.
    pub server: ArtifactServer,
    /// What is wanted.
    pub desired: Verified<Desired>,
    /// The same as the controller signed it.
    pub desired_bytes: Vec<u8>,
    /// What this device never goes below.
    pub floor: Floor,
    /// What this machine offers.
    pub offer: Offer,
    /// The present.
    pub now: UnixMs,
}

/// What was brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The release's name for people.
    pub name: String,
    /// Files of the release.
    pub files: usize,
    /// Files that had to be fetched.
    pub files_fetched: usize,
    /// Size of all that travels for the release.
    pub bytes: u64,
    /// Bytes that moved.
    pub bytes_moved: u64,
}

/// Why a release is not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Its documents.
    #[error("fetching the signed documents")]
    Documents(#[from] DocumentsError),
    /// It is not for this machine.
    #[error("the release does not fit this machine: {0}")]
    Fit(String),
    /// One of its objects.
    #[error("fetching the files of release {name}")]
    Download {
        /// The release.
        name: String,
        /// Why.
        source: DownloadError,
    },
    /// The state folder.
    #[error("using {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The request to the updater.
    #[error("asking the updater")]
    Request(#[from] StateFileError),
}

impl FetchError {
    /// Whether trying again may help; if not, the release is refused.
    pub const fn passes(&self) -> bool {
        match self {
            Self::Documents(source) => source.passes(),
            Self::Download { source, .. } => source.passes(),
            Self::Fit(_) => false,
            Self::Disk { .. } | Self::Request(_) => true,
        }
    }

    /// Whether it ended because the agent is stopping.
    pub const fn stopped(&self) -> bool {
        matches!(self, Self::Download { source: DownloadError::Stopped, .. })
    }
}

impl Fetched {
    /// In words: `fetched 2 of 9 files, 41.0 kB of 24.1 MB`.
    pub fn in_words(&self) -> String {
        format!(
            "fetched {} of {} files, {} of {}",
            self.files_fetched,
            self.files,
            size(self.bytes_moved),
            size(self.bytes)
        )
    }
}

/// Fetches the release and leaves the request for the updater.
pub fn fetch(job: &Job, stop: &AtomicBool) -> Result<Fetched, FetchError> {
    let root = job.state.trusted_root();
    let trusted = RealDisk
        .read(&root, DOCUMENT_BYTES_MAX as u64)
        .map_err(|source| FetchError::Disk { path: root, source })?;
    let documents = fetch_documents(&job.server, &trusted, job.desired.get(), job.floor, job.now)?;
    let manifest = &documents.release.get().manifest;
    let missing = missing(&job.state, manifest)?;
    let to_store = missing.iter().map(|file| file.length).sum();
    let to_stage = missing.iter().map(|file| file.object().length).sum();
    fits(&documents.release, &job.offer, Space { to_stage, to_store }).map_err(FetchError::Fit)?;
    tidy(&job.state, manifest)?;
    let mut seen = BTreeSet::new();
    let (mut files_fetched, mut bytes_moved) = (0, 0);
    for file in missing {
        let object = file.object();
        if !seen.insert(object.sha256) || staged(&job.state, file)? {
            continue;
        }
        let wanted = Wanted { object, path: &file.path };
        bytes_moved += download::download(&job.server, &job.state, wanted, stop)
            .map_err(|source| FetchError::Download { name: manifest.name.clone(), source })?;
        files_fetched += 1;
    }
    let fetched = Fetched {
        name: manifest.name.clone(),
        files: manifest.files.len(),
        files_fetched,
        bytes: manifest.objects().iter().map(|object| object.length).sum(),
        bytes_moved,
    };
    request(job, documents)?;
    Ok(fetched)
}

/// What a release takes on the disk beyond what is there.
#[derive(Clone, Copy, Debug)]
struct Space {
    to_stage: u64,
    to_store: u64,
}

/// Holds the signed requirements against the machine, before anything big moves.
fn fits(release: &Verified<Release>, offer: &Offer, space: Space) -> Result<(), String> {
    let requires = &release.get().manifest.requires;
    if requires.platform != offer.platform {
        return Err(format!(
            "it is built for {}, this machine is {}",
            requires.platform, offer.platform
        ));
    }
    if requires.memory_bytes > offer.memory_bytes {
        let (needs, has) = (size(requires.memory_bytes), size(offer.memory_bytes));
        return Err(format!("its models need {needs} of memory, this machine has {has}"));
    }
    let needs = space.to_stage.saturating_add(space.to_store);
    if needs > offer.disk_free_bytes {
        let (needs, has) = (size(needs), size(offer.disk_free_bytes));
        return Err(format!(
            "it needs {needs} of disk space, {has} are free; make room and assign it again"
        ));
    }
    Ok(())
}

/// The files that the store does not hold as installed.
fn missing<'a>(state: &StateDir, manifest: &'a Manifest) -> Result<Vec<&'a File>, FetchError> {
    let mut missing = Vec::new();
    for file in &manifest.files {
        let path = stored(state, &file.sha256);
        match RealDisk.length(&path) {
            Ok(length) if length == Some(file.length) => {}
            Ok(_) => missing.push(file),
            Err(source) => return Err(FetchError::Disk { path, source }),
        }
    }
    Ok(missing)
}

fn stored(state: &StateDir, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    state.store().join("sha256").join(&name[..2]).join(name)
}

/// Whether the object of `file` lies complete in the staging area. It got its name after its check.
fn staged(state: &StateDir, file: &File) -> Result<bool, FetchError> {
    let path = state.staged_object(&file.object().sha256);
    match RealDisk.length(&path) {
        Ok(length) => Ok(length == Some(file.object().length)),
        Err(source) => Err(FetchError::Disk { path, source }),
    }
}

/// Removes what earlier releases left in the staging area.
fn tidy(state: &StateDir, manifest: &Manifest) -> Result<(), FetchError> {
    let folder = state.staged_objects();
    let disk = |source| FetchError::Disk { path: folder.clone(), source };
    let wanted: BTreeSet<String> = manifest
        .objects()
        .iter()
        .flat_map(|object| [object.sha256.to_string(), format!("{}.part", object.sha256)])
        .collect();
    for name in RealDisk.list(&folder).map_err(disk)? {
        if !wanted.contains(&name) {
            RealDisk.remove_file(&folder.join(name)).map_err(disk)?;
        }
    }
    Ok(())
}

/// Leaves the request, durably; the objects were durable before.
fn request(job: &Job, documents: ReleaseDocuments) -> Result<(), FetchError> {
    let request = Request {
        desired: Blob::from(job.desired_bytes.clone()),
        roots: documents.roots.into_iter().map(Blob::from).collect(),
        targets: Blob::from(documents.targets),
        manifest: Blob::from(documents.manifest),
    };
    Ok(state_file::save(&RealDisk, &job.state.request(), &request)?)
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (41_049, "41.0 kB"), (24_100_000, "24.1 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446744073.7 GB");
    }
}
