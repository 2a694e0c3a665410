//! The driver: reads the facts, asks the planner, does what it says. It decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use protocol::{id::DeviceId, time::UnixMs};
use tokio::{sync::Notify, time::sleep};

use super::{
    outcome::{Happened, Open, outcome},
    plan::{self, Decision, Member, Phase},
};
use crate::{
    assign::{AssignError, Assigner, Cause},
    causes::chain,
    link::said::{Outgoing, Say},
    stop::Stop,
    store::{
        database::{Store, StoreError},
        devices::Device,
        rollouts::{Assignment, Rollout},
    },
    waves::{RolloutState, Status},
};

const TICK: Duration = Duration::from_millis(500);

/// Drives rollouts.
pub struct Driver {
    /// The facts.
    pub store: Store,
    /// Assigns releases.
    pub assigner: Assigner,
    /// Says halts.
    pub outgoing: Outgoing,
    /// Woken when something happened.
    pub news: Arc<Notify>,
}

/// What a turn follows.
#[derive(Clone, Copy)]
enum Woken {
    ByNews,
    ByTime,
}

/// Why a rollout did not move.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The store.
    #[error("reading or writing a rollout")]
    Store(#[source] StoreError),
    /// An assignment.
    #[error("assigning a release")]
    Assign(#[source] AssignError),
    /// The release of a rollout is gone.
    #[error("the release of rollout {0} is not in the store")]
    NoRelease(u64),
}

/// What the planner sees of a rollout, read together.
pub struct View {
    /// Its assignments, outcomes included.
    pub assignments: Vec<Assignment>,
    /// The fleet.
    pub members: Vec<Member>,
}

/// Reads what the planner is to see.
pub async fn view(store: &Store, rollout: &Rollout) -> Result<View, StoreError> {
    let assignments = store.assignments(rollout.id).await?;
    let release = store.release(&rollout.release.to_string()).await?;
    let environments = release.map(|release| release.environments).unwrap_or_default();
    // A device of another environment would refuse the release: it is not part of this rollout.
    let mut devices = store.devices().await?;
    devices.retain(|device| environments.contains(&device.environment));
    let members = members(&devices, &assignments);
    Ok(View { assignments, members })
}

/// A stored rollout as the planner takes it.
pub fn planned(rollout: &Rollout) -> plan::Rollout<'_> {
    let phase = match rollout.state {
        RolloutState::Running | RolloutState::Halted => Phase::Running,
        RolloutState::Complete => Phase::Standing,
    };
    plan::Rollout { id: rollout.id, release: rollout.release, policy: &rollout.policy, phase }
}

fn members(devices: &[Device], assignments: &[Assignment]) -> Vec<Member> {
    let by_device: BTreeMap<DeviceId, &Assignment> =
        assignments.iter().map(|assignment| (assignment.device, assignment)).collect();
    devices
        .iter()
        .map(|device| Member {
            id: device.id,
            online: device.online,
            last_seen: device.last_seen,
            assigned: by_device.get(&device.id).map(|assignment| plan::Assigned {
                wave: assignment.wave,
                at: assignment.at,
                status: assignment.status,
            }),
        })
        .collect()
}

impl Driver {
    /// Drives until the word to stop.
    pub async fn run(self, mut stop: Stop) {
        let mut woken = Woken::ByNews;
        loop {
            let done = tokio::select! {
                () = stop.wait() => return,
                done = self.turn(woken) => done,
            };
            if let Err(error) = done {
                tracing::error!("a rollout did not move, trying again: {}", chain(&error));
            }
            woken = tokio::select! {
                () = stop.wait() => return,
                () = self.news.notified() => Woken::ByNews,
                () = sleep(TICK) => Woken::ByTime,
            };
        }
    }

    /// One turn: the running rollout, or else the one that stands, to which time alone does nothing.
    async fn turn(&self, woken: Woken) -> Result<(), DriveError> {
        let states: &[RolloutState] = match woken {
            Woken::ByNews => &[RolloutState::Running, RolloutState::Complete],
            Woken::ByTime => &[RolloutState::Running],
        };
        for state in states {
            let rollout = self.store.newest_rollout(*state).await.map_err(DriveError::Store)?;
            if let Some(rollout) = rollout {
                return self.advance(&rollout).await;
            }
        }
        Ok(())
    }

    async fn advance(&self, rollout: &Rollout) -> Result<(), DriveError> {
        let now = self.assigner.clock.now();
        self.write_outcomes(rollout, now).await.map_err(DriveError::Store)?;
        let View { members, .. } = view(&self.store, rollout).await.map_err(DriveError::Store)?;
        for decision in plan::plan(&planned(rollout), &members, now) {
            self.perform(rollout, decision, now).await?;
        }
        Ok(())
    }

    /// Writes down what became of assignments, from what their devices said.
    async fn write_outcomes(&self, rollout: &Rollout, now: UnixMs) -> Result<(), StoreError> {
        let assignments = self.store.assignments(rollout.id).await?;
        let open: Vec<&Assignment> = assignments
            .iter()
            .filter(|assignment| match assignment.status {
                Status::Assigned | Status::Unreachable => true,
                Status::Committed | Status::Failed | Status::RolledBack | Status::TimedOut => false,
            })
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let events = self.store.deciding_events(rollout.release, rollout.created_at).await?;
        let wanted: BTreeSet<DeviceId> = open.iter().map(|assignment| assignment.device).collect();
        let devices: BTreeMap<DeviceId, Device> = self
            .store
            .devices()
            .await?
            .into_iter()
            .filter(|device| wanted.contains(&device.id))
            .map(|device| (device.id, device))
            .collect();
        for assignment in open {
            let committed = devices
                .get(&assignment.device)
                .and_then(|device| Some(device.state.as_ref()?.committed.as_ref()?.release));
            let happened: Vec<Happened<'_>> = events
                .iter()
                .filter(|event| event.device == assignment.device)
                .map(|event| Happened {
                    kind: &event.kind,
                    release: event.release,
                    rollout: event.rollout,
                    received_at: event.received_at,
                    detail: &event.detail,
                })
                .collect();
            let open = Open { rollout: rollout.id, release: rollout.release, at: assignment.at };
            if let Some((status, detail)) = outcome(open, committed, &happened) {
                self.decide(rollout.id, assignment.device, (status, &detail), now).await?;
            }
        }
        Ok(())
    }

    async fn perform(
        &self,
        rollout: &Rollout,
        decision: Decision,
        now: UnixMs,
    ) -> Result<(), DriveError> {
        match decision {
            Decision::Assign { device, wave } => self.assign(rollout, device, wave).await,
            Decision::GiveUp { device, status } => {
                let detail = match status {
                    Status::Unreachable => "not heard of since it was assigned",
                    Status::Assigned
                    | Status::Committed
                    | Status::Failed
                    | Status::RolledBack
                    | Status::TimedOut => "no result within the gate's time-out",
                };
                self.decide(rollout.id, device, (status, detail), now)
                    .await
                    .map_err(DriveError::Store)
            }
            Decision::Halt { reason } => {
                tracing::warn!(rollout = rollout.id, "halted: {reason}");
                halt(&self.store, &self.outgoing, rollout, &reason, now)
                    .await
                    .map_err(DriveError::Store)
                    .map(drop)
            }
            Decision::Complete => {
                tracing::info!(rollout = rollout.id, "complete");
                self.complete(rollout, now).await.map_err(DriveError::Store)
            }
        }
    }

    async fn assign(
        &self,
        rollout: &Rollout,
        device: DeviceId,
        wave: usize,
    ) -> Result<(), DriveError> {
        let release = self
            .store
            .release(&rollout.release.to_string())
            .await
            .map_err(DriveError::Store)?
            .ok_or(DriveError::NoRelease(rollout.id))?;
        let cause = Cause::Wave { rollout: rollout.id, wave };
        self.assigner.assign(device, &release, cause).await.map_err(DriveError::Assign)?;
        tracing::info!(rollout = rollout.id, wave, device = device.short(), "assigned");
        Ok(())
    }

    async fn decide(
        &self,
        rollout: u64,
        device: DeviceId,
        result: (Status, &str),
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut writing = self.store.begin().await?;
        self.store.decide_assignment(&mut writing, (rollout, device), result, now).await?;
        self.store.commit(writing).await?;
        tracing::info!(rollout, device = device.short(), "{}: {}", result.0.as_str(), result.1);
        Ok(())
    }

    async fn complete(&self, rollout: &Rollout, now: UnixMs) -> Result<(), StoreError> {
        let mut writing = self.store.begin().await?;
        let end = (RolloutState::Complete, "every gate was passed");
        self.store.end_rollout(&mut writing, rollout.id, end, now).await?;
        self.store.commit(writing).await
    }
}

/// Halts a running rollout, and its release for the whole fleet; false if it does not run.
pub async fn halt(
    store: &Store,
    outgoing: &Outgoing,
    rollout: &Rollout,
    reason: &str,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let mut writing = store.begin().await?;
    let end = (RolloutState::Halted, reason);
    if !store.end_rollout(&mut writing, rollout.id, end, now).await? {
        return Ok(false);
    }
    store.add_halt(&mut writing, (rollout.release, reason), now).await?;
    store.commit(writing).await?;
    outgoing.say(Say::Halt).await;
    Ok(true)
}
