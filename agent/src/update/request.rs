//! What a request must pass before anything is written: the controller's signature, the device's own trust, the
//! floors, the clock, the quarantine.

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    command::{Desired, Reader, Refusal},
    digest::Digest,
    enrol::Authority,
    handover::Request,
    time::UnixMs,
    tuf::{
        chain::stated_version,
        permit::{Holder, PermitError, may_install},
        refusal::VerifyError,
        verify::{Offered, Release, Trusted, installed_release, verify},
        walk::RoleBytes,
    },
    verified::Verified,
};
use slots::{
    boot::BootRecord,
    disk::Disk,
    layout::StateDir,
    state::{Candidate, State},
    transition::Refused,
    trust::{self, TrustError},
};

use crate::observe::built;

/// A request that passed.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The controller's assignment.
    pub desired: Desired,
    /// The release it names, proven.
    pub release: Verified<Release>,
    /// What proves it: targets metadata by role, `targets` first.
    pub roles: Vec<RoleBytes>,
    /// What this device trusts from now on.
    pub trusted: Trusted,
    /// Roots that led there.
    pub roots: Vec<Vec<u8>>,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// What this device trusts is missing or damaged.
    #[error("reading what this device trusts")]
    Trust(#[from] TrustError),
    /// The assignment.
    #[error("the assignment is refused")]
    Assignment(#[source] Refusal),
    /// Metadata or manifest.
    #[error("the release is refused")]
    Release(#[source] VerifyError),
    /// An older release, and no permit to go back to it.
    #[error("the release is older than one that this device committed")]
    Old(#[source] PermitError),
    /// The manifest is not the one assigned.
    #[error("release {} came where {} is assigned", .got.short(), .assigned.short())]
    OtherRelease {
        /// Assigned.
        assigned: Digest,
        /// Got.
        got: Digest,
    },
    /// The permit is not the one that the assignment names.
    #[error("the permit to go back is not the one that the assignment names")]
    OtherPermit,
    /// It was given up before.
    #[error("this device gave it up before")]
    Quarantined(#[source] Refused),
}

/// The present as far as signatures are concerned: never before this agent was built, nor before anything signed.
pub fn present(record: &BootRecord, clock: UnixMs) -> UnixMs {
    record.time(clock.max(built::AT))
}

/// The controller's assignment, if its signature, addressee, order and expiry hold.
pub fn assignment(
    authority: &Authority,
    request: &Request,
    record: &BootRecord,
    clock: UnixMs,
) -> Result<Desired, RequestError> {
    reader(authority)
        .desired(request.desired.as_slice(), record.desired_sequence, present(record, clock))
        .map(Verified::into_inner)
        .map_err(RequestError::Assignment)
}

/// Who this device listens to.
pub fn reader(authority: &Authority) -> Reader<'_> {
    Reader {
        fleet: &authority.fleet,
        device: authority.device,
        controller_keys: &authority.controller_keys,
    }
}

/// Checks the release that `desired` names from this device's own trust, as if nobody had looked at it before.
pub fn release(
    disk: &dyn Disk,
    dir: &StateDir,
    (authority, request): (&Authority, &Request),
    desired: Desired,
    record: &BootRecord,
    clock: UnixMs,
) -> Result<Accepted, RequestError> {
    let got = Digest::of(request.manifest.as_slice());
    if got != desired.release {
        return Err(RequestError::OtherRelease { assigned: desired.release, got });
    }
    let known = trust::load(disk, dir)?;
    let now = present(record, clock);
    let roots = newer_roots(request, &known);
    let offered = Offered {
        roots: roots.clone(),
        timestamp: request.timestamp.as_slice().to_vec(),
        snapshot: request.snapshot.as_slice().to_vec(),
        roles: request
            .targets
            .iter()
            .map(|role| (role.role.clone(), role.document.as_slice().to_vec()))
            .collect(),
        manifest: request.manifest.as_slice().to_vec(),
    };
    let (trusted, release) = if is_under_way(record, &desired.release) {
        // It was verified when it was fresh; a night without power does not make it another release.
        let trusted = known.after_roots(&roots).map_err(RequestError::Release)?;
        let release = installed_release(trusted.root(), &offered.roles, &offered.manifest)
            .map_err(RequestError::Release)?;
        (trusted, release)
    } else {
        verify(&known, &offered, &authority.environment, now).map_err(RequestError::Release)?
    };

    // The release under way, or committed, is not judged as new: the state machine says what it is.
    let held = [record.state.active(), record.state.trial().map(|trial| &trial.held)];
    if held.into_iter().flatten().all(|held| held.release != got) {
        let permit = request.permit.as_ref().map(|permit| permit.as_slice());
        if permit.map(Digest::of) != desired.permit {
            return Err(RequestError::OtherPermit);
        }
        let holder = Holder { fleet: &authority.fleet, device: authority.device };
        may_install(&release, record.counter_floor, permit, holder, now)
            .map_err(RequestError::Old)?;
    }
    // An assignment pardons once: repeated after the release failed again, it is the retained message and no new word.
    let pardoned = desired.retry_quarantined && desired.sequence > record.desired_sequence;
    if let Some(entry) = record.quarantined(&got).filter(|_| !pardoned) {
        let reason = entry.reason.clone();
        return Err(RequestError::Quarantined(Refused::Quarantined { release: got, reason }));
    }
    let mut roles = offered.roles;
    roles.retain(|(role, _)| release.get().roles.contains(role));
    Ok(Accepted { desired, release, roles, trusted, roots })
}

/// Whether `release` is being staged already.
pub fn is_under_way(record: &BootRecord, release: &Digest) -> bool {
    match &record.state {
        State::Staging { trial, .. } => trial.held.release == *release,
        State::Steady { .. }
        | State::Staged { .. }
        | State::Loaded { .. }
        | State::Golden { .. }
        | State::Armed { .. }
        | State::Probation { .. } => false,
    }
}

/// The request's roots that this device did not adopt since the gateway asked for them.
fn newer_roots(request: &Request, known: &Trusted) -> Vec<Vec<u8>> {
    let adopted = known.root().get().version;
    request
        .roots
        .iter()
        .map(|root| root.as_slice())
        .filter(|root| root.len() <= DOCUMENT_BYTES_MAX)
        .filter(|root| stated_version(root).is_none_or(|version| version > adopted))
        .map(<[u8]>::to_vec)
        .collect()
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
