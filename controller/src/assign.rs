//! Assigning a release to a device: numbered, signed, stored, and only then said.

use std::sync::Arc;

use protocol::{
    cbor::EncodeError,
    command::{Desired, Signable as _},
    id::{DeviceId, FleetId},
    key::SigningKey,
};

use crate::{
    clock::Clock,
    link::said::{Outgoing, Say},
    store::{
        database::{Store, StoreError},
        devices::Assigned,
        releases::Release,
        rollouts::Assignment,
    },
    waves::Status,
};

/// How long an assignment holds.
const VALID_MS: u64 = 30 * 86_400_000;

/// Assigns.
#[derive(Clone)]
pub struct Assigner {
    /// Our fleet.
    pub fleet: FleetId,
    /// Where assignments are kept.
    pub store: Store,
    /// Signs them.
    pub signer: Arc<SigningKey>,
    /// What time it is.
    pub clock: Clock,
    /// Says them.
    pub outgoing: Outgoing,
}

/// On whose behalf a release is assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A wave of a rollout.
    Wave {
        /// The rollout.
        rollout: u64,
        /// Its wave, from 0.
        wave: usize,
    },
    /// An operator, for this device alone.
    Operator {
        /// Try it although the device quarantined it.
        retry_quarantined: bool,
    },
}

/// Why a release was not assigned.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// Not enrolled, or revoked.
    #[error("device {} is not enrolled", .0.short())]
    NoDevice(DeviceId),
    /// It cannot be written.
    #[error("signing an assignment")]
    Sign(#[source] EncodeError),
    /// The store.
    #[error("keeping an assignment")]
    Store(#[source] StoreError),
}

impl Assigner {
    /// Assigns `release` to `device` and returns the assignment's sequence.
    pub async fn assign(
        &self,
        device: DeviceId,
        release: &Release,
        cause: Cause,
    ) -> Result<u64, AssignError> {
        let now = self.clock.now();
        let mut writing = self.store.begin().await.map_err(AssignError::Store)?;
        let sequence = self
            .store
            .next_desired(&mut writing, device, now)
            .await
            .map_err(AssignError::Store)?
            .ok_or(AssignError::NoDevice(device))?;
        let until = now.plus(VALID_MS);
        let (rollout, retry_quarantined) = match cause {
            Cause::Wave { rollout, .. } => (rollout, false),
            Cause::Operator { retry_quarantined } => (0, retry_quarantined),
        };
        let permit =
            self.store.permit(device, release.digest, now).await.map_err(AssignError::Store)?;
        let signed = Desired {
            fleet: self.fleet.clone(),
            device,
            sequence,
            issued_at: now,
            expires_at: until,
            release: release.digest,
            manifest_bytes: release.manifest_bytes,
            targets_version: release.targets_version,
            rollout,
            retry_quarantined,
            permit,
        }
        .signed_by(&self.signer)
        .map_err(AssignError::Sign)?;
        let assigned = Assigned { device, sequence, release: release.digest, until, signed };
        self.store.keep_desired(&mut writing, &assigned).await.map_err(AssignError::Store)?;
        if let Cause::Wave { rollout, wave } = cause {
            let assignment = Assignment {
                device,
                wave,
                at: now,
                status: Status::Assigned,
                detail: String::new(),
            };
            self.store
                .add_assignment(&mut writing, (rollout, sequence), &assignment)
                .await
                .map_err(AssignError::Store)?;
        }
        self.store.commit(writing).await.map_err(AssignError::Store)?;
        self.outgoing.say(Say::Desired(device)).await;
        Ok(sequence)
    }
}
