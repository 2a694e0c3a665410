//! What a request must pass before anything is written: the controller's signature, the device's own trusted root, the
//! floors, the clock, the quarantine.

use std::{io, path::PathBuf};

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    command::{Desired, Reader, Refusal},
    digest::Digest,
    enrol::Enrolled,
    handover::Request,
    time::UnixMs,
    tuf::early::{
        Release, VerifyError, fresh_targets, listed_release, newer_than, newest_root, pinned_root,
    },
    verified::Verified,
};
use slots::{
    boot::BootRecord, disk::Disk, layout::StateDir, state::Candidate, transition::Refused,
};

/// A request that passed.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The controller's assignment.
    pub desired: Desired,
    /// The release it names, proven.
    pub release: Verified<Release>,
    /// Roots newer than the trusted one, with their versions, in order.
    pub roots: Vec<(u64, Vec<u8>)>,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file of this device is missing or damaged.
    #[error("reading {path}; enrol the device with `socle-agent enrol`")]
    Device {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The assignment.
    #[error("the assignment is refused")]
    Assignment(#[source] Refusal),
    /// Root, targets or manifest.
    #[error("the release is refused")]
    Release(#[source] VerifyError),
    /// The manifest is genuine but not the one assigned.
    #[error("release {} came where {} is assigned", .got.short(), .assigned.short())]
    OtherRelease {
        /// Assigned.
        assigned: Digest,
        /// Got.
        got: Digest,
    },
    /// It was given up before.
    #[error("this device gave it up before")]
    Quarantined(#[source] Refused),
}

/// Who this device listens to.
pub fn fleet(disk: &dyn Disk, dir: &StateDir) -> Result<Enrolled, RequestError> {
    let path = dir.fleet();
    disk.read(&path, DOCUMENT_BYTES_MAX as u64)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
        .map_err(|source| RequestError::Device { path, source })
}

/// The controller's assignment, if its signature, addressee, order and expiry hold.
pub fn assignment(
    disk: &dyn Disk,
    dir: &StateDir,
    request: &Request,
    record: &BootRecord,
    clock: UnixMs,
) -> Result<Desired, RequestError> {
    let enrolled = fleet(disk, dir)?;
    let reader = Reader {
        fleet: &enrolled.fleet,
        device: enrolled.device,
        controller_keys: &enrolled.controller_keys,
    };
    reader
        .desired(request.desired.as_slice(), record.desired_sequence, record.time(clock))
        .map(Verified::into_inner)
        .map_err(RequestError::Assignment)
}

/// Checks the release that `desired` names from this device's own trust, as if nobody had looked at it before.
pub fn release(
    disk: &dyn Disk,
    dir: &StateDir,
    request: &Request,
    desired: Desired,
    record: &BootRecord,
    clock: UnixMs,
) -> Result<Accepted, RequestError> {
    let path = dir.trusted_root();
    let pinned = disk
        .read(&path, DOCUMENT_BYTES_MAX as u64)
        .map_err(|source| RequestError::Device { path, source })?;
    let trusted = pinned_root(&pinned).map_err(RequestError::Release)?;
    let first = trusted.get().version.saturating_add(1);
    let newer: Vec<Vec<u8>> = request.roots.iter().map(|root| root.as_slice().to_vec()).collect();
    let root = newest_root(trusted, &newer).map_err(RequestError::Release)?;
    let now = record.time(clock);
    let targets = fresh_targets(&root, request.targets.as_slice(), record.floor(), now)
        .map_err(RequestError::Release)?;
    let release =
        listed_release(&targets, request.manifest.as_slice()).map_err(RequestError::Release)?;

    let got = release.get().digest;
    if got != desired.release {
        return Err(RequestError::OtherRelease { assigned: desired.release, got });
    }
    // The release under way, or committed, is not judged as new: the state machine says what it is.
    let known = [record.state.active(), record.state.trial().map(|trial| &trial.held)];
    if known.into_iter().flatten().all(|held| held.release != got) {
        newer_than(&release, record.floor()).map_err(RequestError::Release)?;
    }
    // An assignment pardons once: repeated after the release failed again, it is the retained message and no new word.
    let pardoned = desired.retry_quarantined && desired.sequence > record.desired_sequence;
    if let Some(entry) = record.quarantined(&got).filter(|_| !pardoned) {
        let reason = entry.reason.clone();
        return Err(RequestError::Quarantined(Refused::Quarantined { release: got, reason }));
    }
    Ok(Accepted { desired, release, roots: (first..).zip(newer).collect() })
}

impl Accepted {
    /// What the state machine needs to know.
    pub fn candidate(&self) -> Candidate {
        let Release { digest, manifest, .. } = self.release.get();
        Candidate {
            release: *digest,
            name: manifest.name.clone(),
            counter: manifest.counter,
            rollout: self.desired.rollout,
            tries: manifest.policy.tries,
            load_ms: manifest.policy.load_ms,
            golden_ms: manifest.policy.golden_ms,
            probation_ms: manifest.policy.probation_ms,
        }
    }
}
