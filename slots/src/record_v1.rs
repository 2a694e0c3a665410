//! The boot record as version 1 of its format wrote it, and what it means today.

use protocol::{cbor, time::UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    boot::{BootRecord, Happening, Quarantined},
    state::{Held, StartId, State, Trial},
    transition::gate_deadline,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    state: Phase,
    quarantine: Vec<Quarantined>,
    targets_floor: u64,
    counter_floor: u64,
    time_floor: UnixMs,
    desired_sequence: u64,
    history: Vec<Happening>,
    next_sequence: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Phase {
    Steady {
        active: Option<Held>,
    },
    Staging {
        active: Option<Held>,
        trial: Tried,
    },
    Staged {
        active: Option<Held>,
        trial: Tried,
    },
    Loaded {
        active: Option<Held>,
        trial: Tried,
    },
    Golden {
        active: Option<Held>,
        trial: Tried,
    },
    Armed {
        active: Option<Held>,
        trial: Tried,
    },
    Probation {
        active: Option<Held>,
        trial: Tried,
        tries_left: u8,
        refunds_left: u8,
        deadline: UnixMs,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tried {
    held: Held,
    targets_version: u64,
    rollout: u64,
    tries: u8,
    probation_ms: u64,
}

/// The record that `payload` means; nothing when it is not one.
pub(crate) fn decode(payload: &[u8], bytes_max: usize, now: UnixMs) -> Option<BootRecord> {
    let record: Record = cbor::decode(payload, bytes_max).ok()?;
    let state = state(record.state, now);
    // Stamps of that time carry no number and count as 0.
    let commits = u64::from(state.active().is_some());
    Some(BootRecord {
        state,
        quarantine: record.quarantine,
        counter_floor: record.counter_floor,
        commits,
        time_floor: record.time_floor,
        desired_sequence: record.desired_sequence,
        history: record.history,
        next_sequence: record.next_sequence,
    })
}

fn state(phase: Phase, now: UnixMs) -> State {
    match phase {
        Phase::Steady { active } => State::Steady { active },
        Phase::Staging { active, trial } => State::Staging { active, trial: tried(trial) },
        Phase::Staged { active, trial } => {
            let trial = tried(trial);
            let deadline = gate_deadline(now, trial.load_ms);
            State::Staged { active, trial, deadline }
        }
        Phase::Loaded { active, trial } => {
            let trial = tried(trial);
            let deadline = gate_deadline(now, trial.golden_ms);
            State::Loaded { active, trial, deadline }
        }
        Phase::Golden { active, trial } => State::Golden { active, trial: tried(trial) },
        Phase::Armed { active, trial } => State::Armed { active, trial: tried(trial), since: now },
        Phase::Probation { active, trial, tries_left, refunds_left, deadline } => {
            let (trial, start) = (tried(trial), StartId::UNKNOWN);
            State::Probation { active, trial, tries_left, refunds_left, deadline, start }
        }
    }
}

/// The policy's limits of the gates were not kept then; a minute each, beside the grace that every gate has.
fn tried(trial: Tried) -> Trial {
    let Tried { held, rollout, tries, probation_ms, targets_version: _ } = trial;
    Trial { held, rollout, tries, load_ms: 60_000, golden_ms: 60_000, probation_ms }
}
