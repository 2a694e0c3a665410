//! A release from a stick: what the gateway would have fetched is taken from a bundle's folder, verified the same way,
//! and left for the updater. The two-key rule holds without a network: the bundle must carry the controller's signed
//! assignment for this device, and the release must be genuine.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use protocol::{
    blob::Blob,
    cbor::{DOCUMENT_BYTES_MAX, MESSAGE_BYTES_MAX},
    command::{Desired, Reader, Refusal},
    digest::{Digest, Hasher},
    handover::{Request, RoleDocument},
    manifest::Object,
    time::UnixMs,
    tuf::{
        chain::{TIMESTAMP_BYTES_MAX, fresh_timestamp},
        permit::{Holder, PERMIT_BYTES_MAX, PermitError, may_install},
        refusal::{ROOTS_MAX, VerifyError},
        verify::{Offered, Release, Trusted, verify},
        walk::ROLES_READ_MAX,
    },
    verified::Verified,
};
use slots::{
    disk::{Disk as _, RealDisk},
    layout::StateDir,
    record,
    store::Store,
    trust::{self, TrustError},
};

use crate::{
    fleet::{
        fetch::size,
        state_file::{self, StateFileError},
    },
    observe::built,
};

const PIECE: usize = 128 * 1024;

/// What was taken from the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The release's name.
    pub name: String,
    /// The release.
    pub release: Digest,
    /// Objects copied.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Why nothing is left for the updater.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// What this device trusts.
    #[error("reading what this device trusts")]
    Trust(#[from] TrustError),
    /// A file of the bundle.
    #[error("reading {} of the bundle; it must be a folder: unpack a .tar first", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the bundle is larger than it may be.
    #[error("{} of the bundle has more than {bytes_max} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Largest allowed.
        bytes_max: usize,
    },
    /// The assignment.
    #[error("the assignment for this device is refused")]
    Assignment(#[source] Refusal),
    /// Metadata or manifest.
    #[error("the release is refused")]
    Release(#[source] VerifyError),
    /// An older release than the one committed.
    #[error("the release is older than one that this device committed")]
    Old(#[source] PermitError),
    /// Other bytes than those of the name.
    #[error("{} of the bundle is damaged or was altered: it is not the file of its name", path.display())]
    Altered {
        /// Which.
        path: PathBuf,
    },
    /// It is built for other machines.
    #[error("the release is built for {0}, this machine is another")]
    Platform(String),
    /// The staging area.
    #[error("writing {}; is there room for it?", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The request to the updater.
    #[error("asking the updater")]
    Request(#[from] StateFileError),
}

impl Placed {
    /// In words.
    pub fn in_words(&self) -> String {
        format!(
            "release {} ({}) is ready for the updater: {} objects taken, {}",
            self.name,
            self.release.short(),
            self.objects,
            size(self.bytes)
        )
    }
}

/// Takes the release that is assigned to this device from the bundle in `folder`, and leaves the request.
pub fn place(state: &StateDir, folder: &Path, clock: UnixMs) -> Result<Placed, BundleError> {
    let bundle = Bundle { folder };
    let authority = trust::authority(&RealDisk, state)?;
    let trusted = trust::load(&RealDisk, state)?;
    let record = record::load(&RealDisk, state, clock).record;
    let now = record.time(clock.max(built::AT));
    let word = bundle.read(&format!("assignments/{}.cbor", authority.device), MESSAGE_BYTES_MAX)?;
    let reader = Reader {
        fleet: &authority.fleet,
        device: authority.device,
        controller_keys: &authority.controller_keys,
    };
    let desired = reader
        .desired(&word, record.desired_sequence, now)
        .map_err(BundleError::Assignment)?
        .into_inner();
    let (offered, release) = bundle.documents(
        &trusted,
        &desired,
        |offered| {
            verify(&trusted, offered, &authority.environment, now).map(|(_, release)| release)
        },
        now,
    )?;
    let permit = match desired.permit {
        None => None,
        Some(digest) => Some(bundle.object(&digest, PERMIT_BYTES_MAX)?),
    };
    let holder = Holder { fleet: &authority.fleet, device: authority.device };
    may_install(&release, record.counter_floor, permit.as_deref(), holder, now)
        .map_err(BundleError::Old)?;
    let manifest = &release.get().manifest;
    let here = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if manifest.requires.platform != here {
        return Err(BundleError::Platform(manifest.requires.platform.clone()));
    }
    let mut placed =
        Placed { name: manifest.name.clone(), release: release.get().digest, objects: 0, bytes: 0 };
    for object in Store::new(&RealDisk, state).missing(manifest) {
        bundle.stage(state, object)?;
        placed.objects += 1;
        placed.bytes += object.length;
    }
    let request = Request {
        desired: Blob::from(word),
        roots: offered.roots.into_iter().map(Blob::from).collect(),
        timestamp: Blob::from(offered.timestamp),
        snapshot: Blob::from(offered.snapshot),
        targets: offered
            .roles
            .into_iter()
            .map(|(role, document)| RoleDocument { role, document: Blob::from(document) })
            .collect(),
        manifest: Blob::from(offered.manifest),
        permit: permit.map(Blob::from),
    };
    state_file::save(&RealDisk, &state.request(), &request)?;
    Ok(placed)
}

struct Bundle<'a> {
    folder: &'a Path,
}

impl Bundle<'_> {
    /// The signed documents of the assigned release, in the order of the TUF client's workflow.
    fn documents(
        &self,
        trusted: &Trusted,
        desired: &Desired,
        verified: impl Fn(&Offered) -> Result<Verified<Release>, VerifyError>,
        now: UnixMs,
    ) -> Result<(Offered, Verified<Release>), BundleError> {
        let (mut roots, mut newest) = (Vec::new(), trusted.clone());
        while roots.len() < ROOTS_MAX {
            let version = newest.root().get().version.saturating_add(1);
            let name = format!("metadata/{version}.root.json");
            if !self.folder.join(&name).exists() {
                break;
            }
            let root = self.read(&name, DOCUMENT_BYTES_MAX)?;
            newest =
                newest.after_roots(std::slice::from_ref(&root)).map_err(BundleError::Release)?;
            roots.push(root);
        }
        let timestamp = self.read("metadata/timestamp.json", TIMESTAMP_BYTES_MAX)?;
        let fresh = fresh_timestamp(newest.root(), &timestamp, newest.seen(), now)
            .map_err(BundleError::Release)?;
        let version = fresh.get().snapshot().map_or(0, |meta| meta.version);
        let snapshot =
            self.read(&format!("metadata/{version}.snapshot.json"), DOCUMENT_BYTES_MAX)?;
        let manifest = self.object(&desired.release, DOCUMENT_BYTES_MAX)?;
        let mut offered = Offered { roots, timestamp, snapshot, roles: Vec::new(), manifest };
        loop {
            match verified(&offered) {
                Ok(release) => return Ok((offered, release)),
                Err(VerifyError::Wanted { role, version, bytes_max })
                    if offered.roles.len() < ROLES_READ_MAX =>
                {
                    let bytes = self.read(&format!("metadata/{version}.{role}.json"), bytes_max)?;
                    offered.roles.push((role, bytes));
                }
                Err(source) => return Err(BundleError::Release(source)),
            }
        }
    }

    fn open(&self, name: &str) -> Result<(PathBuf, fs::File), BundleError> {
        let path = self.folder.join(name);
        match fs::File::open(&path) {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(BundleError::Read { path, source }),
        }
    }

    fn read(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, BundleError> {
        let (path, file) = self.open(name)?;
        let mut bytes = Vec::new();
        match file.take(bytes_max as u64 + 1).read_to_end(&mut bytes) {
            Err(source) => Err(BundleError::Read { path, source }),
            Ok(_) if bytes.len() > bytes_max => Err(BundleError::TooLarge { path, bytes_max }),
            Ok(_) => Ok(bytes),
        }
    }

    fn object(&self, digest: &Digest, bytes_max: usize) -> Result<Vec<u8>, BundleError> {
        let name = format!("sha256/{digest}");
        let bytes = self.read(&name, bytes_max)?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(BundleError::Altered { path: self.folder.join(name) })
        }
    }

    /// Copies an object into the staging area. It gets its name there only when it is whole and durable.
    fn stage(&self, state: &StateDir, object: Object) -> Result<(), BundleError> {
        let (path, file) = self.open(&format!("sha256/{}", object.sha256))?;
        let (to, part) = (state.staged_object(&object.sha256), state.staged_part(&object.sha256));
        let failed = |source| BundleError::Write { path: to.clone(), source };
        if RealDisk.length(&to).map_err(failed)? == Some(object.length) {
            return Ok(());
        }
        let mut writer = fs::File::create(&part).map_err(failed)?;
        let mut reader = file.take(object.length.saturating_add(1));
        let (mut hasher, mut length, mut piece) = (Hasher::default(), 0, vec![0; PIECE]);
        loop {
            let count = reader
                .read(&mut piece)
                .map_err(|source| BundleError::Read { path: path.clone(), source })?;
            if count == 0 {
                break;
            }
            let read = piece.get(..count).unwrap_or_default();
            hasher.update(read);
            length += count as u64;
            writer.write_all(read).map_err(failed)?;
        }
        if length != object.length || hasher.finish() != object.sha256 {
            RealDisk.remove_file(&part).map_err(failed)?;
            return Err(BundleError::Altered { path });
        }
        RealDisk
            .sync_file(&part)
            .and_then(|()| RealDisk.rename(&part, &to))
            .and_then(|()| RealDisk.sync_dir(&state.staged_objects()))
            .map_err(failed)
    }
}
