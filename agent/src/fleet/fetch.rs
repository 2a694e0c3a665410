//! From an assignment to a complete staging area. Blocking: it runs on a thread of its own.
//!
//! Documents first, verified; then what the signed manifest asks of the machine, and the room for it; then only the
//! objects that neither the store nor the staging area holds; and last, durably, the request that calls the updater.

use std::{collections::BTreeSet, io, path::PathBuf, sync::atomic::AtomicBool};

use protocol::{
    blob::Blob,
    command::Desired,
    digest::Digest,
    handover::{Request, RoleDocument},
    id::Environment,
    manifest::{File, Manifest, Object},
    time::UnixMs,
    tuf::{permit::Holder, verify::Release},
    verified::Verified,
};
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
    trust::{self, TrustError},
};

use crate::fleet::{
    artifact_server::ArtifactServer,
    download,
    meter::Meter,
    mirrors::Transport,
    release_documents::{DocumentsError, ReleaseDocuments, Yardstick, fetch_documents},
    reservation::{self, Space},
    state_file::{self, StateFileError},
    tag_file::TagFile,
    transfer::{DownloadError, Wanted},
};

/// Most times that the store is asked what is missing.
const ROUNDS_MAX: usize = 3;

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
    /// How its objects travel.
    pub transport: Transport,
    /// What is wanted.
    pub desired: Verified<Desired>,
    /// The same as the controller signed it.
    pub desired_bytes: Vec<u8>,
    /// Where this device belongs.
    pub environment: Environment,
    /// The highest release counter that this device committed.
    pub counter_floor: u64,
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
    /// What this device trusts cannot be read.
    #[error("reading what this device trusts")]
    Trust(#[from] TrustError),
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
    pub fn passes(&self) -> bool {
        match self {
            Self::Documents(source) => source.passes(),
            Self::Download { source, .. } => source.passes(),
            Self::Fit(_) | Self::Trust(_) => false,
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
    let trusted = trust::load(&RealDisk, &job.state)?;
    let desired = job.desired.get();
    let yardstick = Yardstick {
        trusted: &trusted,
        environment: &job.environment,
        holder: Holder { fleet: &desired.fleet, device: desired.device },
        counter_floor: job.counter_floor,
        now: job.now,
    };
    let documents = fetch_documents(&job.server, desired, yardstick)?;
    let manifest = &documents.release.get().manifest;
    let mut meter = Meter::new(stop, job.transport.limit, job.transport.slowest);
    let mut files_fetched = 0;
    // The updater may remove from the store, meanwhile, what a release that it rolled back alone had used.
    for _ in 0..ROUNDS_MAX {
        let count = bring(job, &documents.release, &mut meter)?;
        files_fetched += count;
        if count == 0 {
            break;
        }
    }
    let fetched = Fetched {
        name: manifest.name.clone(),
        files: manifest.files.len(),
        files_fetched,
        bytes: manifest.objects().iter().map(|object| object.length).sum(),
        bytes_moved: meter.moved(),
    };
    request(job, documents)?;
    Ok(fetched)
}

/// Brings what is missing now into the staging area; says how many files that were.
fn bring(
    job: &Job,
    release: &Verified<Release>,
    meter: &mut Meter<'_>,
) -> Result<usize, FetchError> {
    let manifest = &release.get().manifest;
    let missing = missing(&job.state, manifest)?;
    let to_fetch = unstaged(&job.state, &missing)?;
    let space = Space {
        to_stage: to_fetch.iter().map(|wanted| wanted.object.length).sum(),
        to_store: missing.iter().map(|file| file.length).sum(),
    };
    let objects: Vec<Object> = to_fetch.iter().map(|wanted| wanted.object).collect();
    let held = reservation::held(&job.state, &objects);
    fits(release, &job.offer, space, held).map_err(FetchError::Fit)?;
    tidy(&job.state, manifest)?;
    hold(&job.state, &objects, space)?;
    for wanted in &to_fetch {
        let brought = download::download(&job.transport, &job.server, &job.state, *wanted, meter);
        if let Err(source) = brought {
            if !source.passes() {
                give_back(&job.state)?;
            }
            return Err(FetchError::Download { name: manifest.name.clone(), source });
        }
    }
    Ok(to_fetch.len())
}

/// Holds the signed requirements against the machine, before anything big moves.
fn fits(release: &Verified<Release>, offer: &Offer, space: Space, held: u64) -> Result<(), String> {
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
    let free = offer.disk_free_bytes.saturating_add(held);
    if space.total() > free { Err(no_room(space, free)) } else { Ok(()) }
}

fn no_room(space: Space, free: u64) -> String {
    format!(
        "it needs {} of disk space ({} to fetch, {} to install), {} are free; make room and assign it again",
        size(space.total()),
        size(space.to_stage),
        size(space.to_store),
        size(free)
    )
}

/// Takes the room on the disk before anything moves.
fn hold(state: &StateDir, objects: &[Object], space: Space) -> Result<(), FetchError> {
    match reservation::hold(state, objects, space) {
        Ok(()) => Ok(()),
        Err(full) if full.kind() == io::ErrorKind::StorageFull => {
            let free = reservation::free_bytes(state);
            let held = reservation::held(state, objects);
            Err(FetchError::Fit(no_room(space, free.saturating_add(held))))
        }
        Err(source) => Err(FetchError::Disk { path: state.staging(), source }),
    }
}

fn give_back(state: &StateDir) -> Result<(), FetchError> {
    reservation::release(state)
        .map_err(|source| FetchError::Disk { path: state.reserved(), source })
}

/// What has to be fetched for `missing`: each object once, those that lie complete in the staging area left out.
fn unstaged<'a>(state: &StateDir, missing: &[&'a File]) -> Result<Vec<Wanted<'a>>, FetchError> {
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for file in missing {
        let object = file.object();
        if seen.insert(object.sha256) && !staged(state, file)? {
            wanted.push(Wanted { object, chunks: file.chunks, path: &file.path });
        }
    }
    Ok(wanted)
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
        .flat_map(|Object { sha256, .. }| {
            [sha256.to_string(), format!("{sha256}.part"), TagFile::name(sha256)]
        })
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
    let offered = documents.offered;
    let request = Request {
        desired: Blob::from(job.desired_bytes.clone()),
        roots: offered.roots.into_iter().map(Blob::from).collect(),
        timestamp: Blob::from(offered.timestamp),
        snapshot: Blob::from(offered.snapshot),
        targets: offered
            .roles
            .into_iter()
            .map(|(role, document)| RoleDocument { role, document: Blob::from(document) })
            .collect(),
        manifest: Blob::from(offered.manifest),
        permit: documents.permit.map(Blob::from),
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
