//! The planner: `(policy, fleet, now) → decisions`. Pure; every rule of a rollout is here.
//!
//! Devices stand in an order seeded by the rollout, so that no device is the canary every time. A wave takes the next
//! ones that are reachable, waits until all of them have a result or have timed out, and then passes or fails its
//! gate. A gate that can no longer be passed fails at once. Devices that are not heard of neither block nor count.

use protocol::{digest::Digest, id::DeviceId, time::UnixMs};

use crate::waves::{Gate, Policy, Size, Status};

/// A rollout that may have something to do.
#[derive(Clone, Copy, Debug)]
pub struct Rollout<'a> {
    /// Its number; seeds the order of devices.
    pub id: u64,
    /// What it brings.
    pub release: Digest,
    /// How.
    pub policy: &'a Policy,
    /// Whether it is under way.
    pub phase: Phase,
}

/// Whether a rollout is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waves open and close.
    Running,
    /// Complete: it only takes in who joins late, through the last gate passed.
    Standing,
}

/// A device as the planner sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub id: DeviceId,
    /// Whether the broker says it is connected.
    pub online: bool,
    /// When it was last heard of.
    pub last_seen: Option<UnixMs>,
    /// What it was assigned in this rollout.
    pub assigned: Option<Assigned>,
}

/// An assignment as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// In which wave, from 0.
    pub wave: usize,
    /// When.
    pub at: UnixMs,
    /// What became of it so far.
    pub status: Status,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Assign the release to a device.
    Assign {
        /// Who.
        device: DeviceId,
        /// In which wave.
        wave: usize,
    },
    /// Write down that a device gave no result in time.
    GiveUp {
        /// Who.
        device: DeviceId,
        /// [`Status::TimedOut`] or [`Status::Unreachable`].
        status: Status,
    },
    /// Halt the rollout, and the release for the whole fleet.
    Halt {
        /// Why, for people.
        reason: String,
    },
    /// All gates are passed.
    Complete,
}

/// Where a wave stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaveState {
    /// Not open yet.
    Pending,
    /// Under way.
    Running,
    /// Its gate is passed.
    Passed,
    /// Its gate failed.
    Failed,
}

impl WaveState {
    /// Its name, as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// Results of a wave, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    committed: u32,
    bad: u32,
    open: u32,
}

enum Verdict {
    Passed,
    Failed(String),
    Open { room: usize },
}

/// What to do next. Doing all of it and asking again with the new facts leads to the end of the rollout.
pub fn plan(rollout: &Rollout<'_>, fleet: &[Member], now: UnixMs) -> Vec<Decision> {
    let gate = &rollout.policy.gate;
    let (mut decisions, fleet) = give_up(gate, fleet, now);
    let mut waiting = waiting(rollout, &fleet, now);
    let last = rollout.policy.waves.len().saturating_sub(1);
    if rollout.phase == Phase::Standing {
        decisions.extend(waiting.map(|device| Decision::Assign { device, wave: last }));
        return decisions;
    }
    for wave in 0..=last {
        match verdict(rollout, &fleet, wave, waiting.len()) {
            Verdict::Passed => {}
            Verdict::Failed(reason) => {
                decisions.push(Decision::Halt { reason });
                return decisions;
            }
            Verdict::Open { room } => {
                let next = waiting.by_ref().take(room);
                decisions.extend(next.map(|device| Decision::Assign { device, wave }));
                return decisions;
            }
        }
    }
    decisions.push(Decision::Complete);
    decisions
}

/// Where each wave stands, and which devices without an assignment would come into it next.
pub fn forecast(
    rollout: &Rollout<'_>,
    fleet: &[Member],
    now: UnixMs,
) -> Vec<(WaveState, Vec<DeviceId>)> {
    let (_, fleet) = give_up(&rollout.policy.gate, fleet, now);
    let mut rest = ordered(rollout, &fleet).into_iter().filter(|member| member.assigned.is_none());
    let reachable = waiting(rollout, &fleet, now).len();
    let mut open = true;
    let mut planned = 0;
    (0..rollout.policy.waves.len())
        .map(|wave| {
            let state = match (open, verdict(rollout, &fleet, wave, reachable)) {
                (false, _) => WaveState::Pending,
                (true, Verdict::Passed) => WaveState::Passed,
                (true, Verdict::Failed(_)) => WaveState::Failed,
                (true, Verdict::Open { .. }) => WaveState::Running,
            };
            open = state == WaveState::Passed;
            let counted = counted_in(&fleet, |other| other == wave);
            let before = counted_in(&fleet, |other| other < wave) + planned;
            let room = target(rollout, &fleet, wave, before).saturating_sub(before + counted);
            let next: Vec<DeviceId> = if state == WaveState::Passed {
                Vec::new()
            } else {
                rest.by_ref().take(room).map(|member| member.id).collect()
            };
            planned += next.len();
            (state, next)
        })
        .collect()
}

/// Decides assignments that are out of time, and shows the fleet as it is then.
fn give_up(gate: &Gate, fleet: &[Member], now: UnixMs) -> (Vec<Decision>, Vec<Member>) {
    let mut fleet = fleet.to_vec();
    let mut decisions = Vec::new();
    for member in &mut fleet {
        let Some(assigned) = &mut member.assigned else { continue };
        if assigned.status != Status::Assigned || now.since(assigned.at) < gate.timeout_ms() {
            continue;
        }
        let heard = member.online || member.last_seen.is_some_and(|seen| seen > assigned.at);
        assigned.status = if heard { Status::TimedOut } else { Status::Unreachable };
        decisions.push(Decision::GiveUp { device: member.id, status: assigned.status });
    }
    (decisions, fleet)
}

/// Whether a wave has passed its gate, `waiting` being the number of reachable devices without an assignment.
fn verdict(rollout: &Rollout<'_>, fleet: &[Member], wave: usize, waiting: usize) -> Verdict {
    let gate = &rollout.policy.gate;
    // A wave after which another one opened stays passed, however much the fleet has grown since.
    if counted_in(fleet, |other| other > wave) > 0 {
        return Verdict::Passed;
    }
    let tally = tally(fleet, wave);
    let (counted, before) =
        (counted_in(fleet, |other| other == wave), counted_in(fleet, |other| other < wave));
    let size = target(rollout, fleet, wave, before).saturating_sub(before);
    let hoped = u64::from(tally.committed) + u64::from(tally.open);
    let all = hoped + u64::from(tally.bad);
    if tally.bad > 0 && hoped * 100 < u64::from(gate.success_percent) * all {
        let name = rollout.policy.waves.get(wave).map_or("", |wave| wave.name.as_str());
        return Verdict::Failed(format!(
            "wave `{name}` failed its gate: {} of {all} devices did not take the release; at least {} % must",
            tally.bad, gate.success_percent
        ));
    }
    let room = size.saturating_sub(counted);
    let last = wave + 1 == rollout.policy.waves.len();
    let sample = match (last, before) {
        // Whoever of the rest cannot be reached does not hold up the end; but a rollout needs one result at all.
        (true, 0) => 1,
        (true, _) => 0,
        (false, _) => size.min(usize::try_from(gate.min_sample).unwrap_or(usize::MAX)),
    };
    let filled = room == 0 || waiting == 0;
    if tally.open == 0 && filled && counted >= sample {
        Verdict::Passed
    } else {
        Verdict::Open { room }
    }
}

/// How many devices waves up to and including `wave` should hold, `before` being in earlier ones.
fn target(rollout: &Rollout<'_>, fleet: &[Member], wave: usize, before: usize) -> usize {
    let at_least = usize::from(before == 0);
    match rollout.policy.waves.get(wave).map(|wave| wave.size) {
        None => before,
        Some(Size::Devices(devices)) => {
            before.saturating_add(usize::try_from(devices).unwrap_or(usize::MAX))
        }
        Some(Size::Percent(percent)) => {
            (fleet.len() * usize::from(percent)).div_ceil(100).max(at_least)
        }
    }
}

fn tally(fleet: &[Member], wave: usize) -> Tally {
    let mut tally = Tally::default();
    for assigned in fleet.iter().filter_map(|member| member.assigned) {
        if assigned.wave != wave {
            continue;
        }
        match assigned.status {
            Status::Assigned => tally.open += 1,
            Status::Committed => tally.committed += 1,
            Status::Failed | Status::RolledBack | Status::TimedOut => tally.bad += 1,
            Status::Unreachable => {}
        }
    }
    tally
}

fn counted_in(fleet: &[Member], waves: impl Fn(usize) -> bool) -> usize {
    fleet
        .iter()
        .filter_map(|member| member.assigned)
        .filter(|assigned| assigned.status != Status::Unreachable && waves(assigned.wave))
        .count()
}

/// Reachable devices without an assignment, in the rollout's order.
fn waiting(rollout: &Rollout<'_>, fleet: &[Member], now: UnixMs) -> std::vec::IntoIter<DeviceId> {
    let timeout_ms = rollout.policy.gate.timeout_ms();
    let reachable = |member: &Member| {
        member.online || member.last_seen.is_some_and(|seen| now.since(seen) <= timeout_ms)
    };
    ordered(rollout, fleet)
        .into_iter()
        .filter(|member| member.assigned.is_none() && reachable(member))
        .map(|member| member.id)
        .collect::<Vec<_>>()
        .into_iter()
}

fn ordered<'a>(rollout: &Rollout<'_>, fleet: &'a [Member]) -> Vec<&'a Member> {
    let mut ordered: Vec<&Member> = fleet.iter().collect();
    ordered.sort_by_cached_key(|member| seeded(rollout, member.id));
    ordered
}

fn seeded(rollout: &Rollout<'_>, device: DeviceId) -> Digest {
    let device = device.digest();
    let seed =
        [rollout.release.as_bytes().as_slice(), &rollout.id.to_be_bytes(), device.as_bytes()];
    Digest::of(&seed.concat())
}

#[cfg(test)]
mod tests;
