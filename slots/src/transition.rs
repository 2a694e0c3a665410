//! `step(state, event, now) → state, notes, effects`. Pure and total.
//!
//! ```text
//! Steady → Staging → Staged → Loaded → Golden → Armed → Probation → Steady (committed)
//!             └────────┴────────┴────────┴────────┴────────┴──────→ Steady (rolled back)
//! ```
//! Up to `Golden` a newer request may take the place of the trial; from `Armed` on, the trial ends first.

use protocol::{digest::Digest, handover::Gate, id::Slot, report::EventKind, time::UnixMs};

use crate::state::{Candidate, Event, Held, StartId, State, Trial};

/// Clean stops in one probation that give their try back.
const REFUNDS: u8 = 3;
/// What a gateway may take to come back and judge a gate, beside what the gate itself may take.
const GATE_GRACE_MS: u64 = 30 * 60_000;
/// A deadline that nobody looked at for so long passed while the machine was off, or the clock jumped.
const UNSEEN_MS: u64 = 10 * 60_000;

/// What must be remembered beside the state, in the same write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Never try this release again by itself.
    Quarantine {
        /// Release.
        release: Digest,
        /// Why, in words.
        reason: String,
    },
    /// Forget that this release was quarantined.
    Pardon {
        /// Release.
        release: Digest,
    },
    /// One more release was committed: accept no release counter up to this any more.
    Commit {
        /// Its counter.
        counter: u64,
    },
    /// Tell the controller.
    Happened {
        /// What.
        kind: EventKind,
        /// Release concerned.
        trial: Trial,
        /// In words.
        detail: String,
    },
}

/// What must be done once the state is durable. Each may be done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fill the trial's slot from staging area and store.
    Build(Trial),
    /// Stamp the slot as committed.
    Stamp(Held),
    /// Empty the slots that hold neither this committed release nor one that was committed before.
    Sweep(Option<Held>),
    /// Remove from the store what no slot uses.
    Prune,
}

/// The outcome of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The next state.
    pub state: State,
    /// To be stored with it.
    pub notes: Vec<Note>,
    /// To be done after it is stored.
    pub effects: Vec<Effect>,
}

/// Why an event changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A trial is too far to be replaced.
    #[error("release {name} is {phase}; another one has to wait until that trial ends")]
    Busy {
        /// Release on trial.
        name: String,
        /// Its phase.
        phase: &'static str,
    },
    /// It is the committed release, or the one on trial.
    #[error("release {0} is already {1}")]
    Already(String, &'static str),
    /// No trial, or another one.
    #[error("release {} is not on trial", .0.short())]
    NotOnTrial(Digest),
    /// The event does not belong to this phase.
    #[error("{what} does not belong to the phase {phase}")]
    OutOfOrder {
        /// Event.
        what: &'static str,
        /// Phase.
        phase: &'static str,
    },
    /// Nothing is due, or there is nothing to spend.
    #[error("nothing to do in the phase {0}")]
    NothingDue(&'static str),
    /// The controller halted it.
    #[error("halted by the controller: {0}")]
    Halted(String),
    /// It was given up before.
    #[error(
        "release {} is quarantined ({reason}); the controller can ask for it again by name", .release.short()
    )]
    Quarantined {
        /// Release.
        release: Digest,
        /// Why it was given up.
        reason: String,
    },
}

/// The next state, or why the event changes nothing.
pub fn step(state: State, event: Event, now: UnixMs) -> Result<Step, Refused> {
    let phase = state.phase();
    match (state, event) {
        (State::Steady { active }, Event::Accept(candidate)) => accept(active, candidate),
        (
            State::Staging { active, trial }
            | State::Staged { active, trial, .. }
            | State::Loaded { active, trial, .. }
            | State::Golden { active, trial },
            Event::Accept(candidate),
        ) => {
            if trial.held.release == candidate.release {
                return Err(Refused::Already(trial.held.name, "on trial"));
            }
            accept(active, candidate)
        }
        (State::Armed { trial, .. } | State::Probation { trial, .. }, Event::Accept(candidate)) => {
            if trial.held.release == candidate.release {
                return Err(Refused::Already(trial.held.name, "on trial"));
            }
            Err(Refused::Busy { name: trial.held.name, phase })
        }

        (State::Staging { active, trial }, Event::Built) => {
            let notes = vec![happened(EventKind::Staged, &trial, String::new())];
            let deadline = gate_deadline(now, trial.load_ms);
            Ok(Step { state: State::Staged { active, trial, deadline }, notes, effects: vec![] })
        }
        (
            State::Steady { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Armed { .. }
            | State::Probation { .. },
            Event::Built,
        ) => Err(Refused::OutOfOrder { what: "a built slot", phase }),

        (state, Event::Passed { release, gate }) => passed(state, release, gate, now),

        (State::Steady { .. }, Event::Failed { release, .. }) => Err(Refused::NotOnTrial(release)),
        (
            State::Staging { active, trial }
            | State::Staged { active, trial, .. }
            | State::Loaded { active, trial, .. }
            | State::Golden { active, trial }
            | State::Armed { active, trial, .. }
            | State::Probation { active, trial, .. },
            Event::Failed { release, gate, reason },
        ) => {
            if trial.held.release != release {
                return Err(Refused::NotOnTrial(release));
            }
            Ok(roll_back(active, trial, format!("{} gate: {reason}", gate.as_str())))
        }

        (State::Steady { .. }, Event::Rejected { .. } | Event::Abandoned { .. }) => {
            Err(Refused::NothingDue(phase))
        }
        (
            State::Staging { active, trial }
            | State::Staged { active, trial, .. }
            | State::Loaded { active, trial, .. }
            | State::Golden { active, trial }
            | State::Armed { active, trial, .. }
            | State::Probation { active, trial, .. },
            Event::Rejected { reason },
        ) => Ok(roll_back(active, trial, reason)),
        (
            State::Staging { active, trial }
            | State::Staged { active, trial, .. }
            | State::Loaded { active, trial, .. }
            | State::Golden { active, trial },
            Event::Abandoned { reason },
        ) => Ok(abandon(active, trial, reason)),
        (State::Armed { trial, .. } | State::Probation { trial, .. }, Event::Abandoned { .. }) => {
            Err(Refused::Busy { name: trial.held.name, phase })
        }

        (State::Golden { active, trial }, Event::Arm { halted: None }) => {
            let notes = vec![happened(EventKind::Armed, &trial, String::new())];
            Ok(Step { state: State::Armed { active, trial, since: now }, notes, effects: vec![] })
        }
        (State::Golden { .. }, Event::Arm { halted: Some(reason) }) => Err(Refused::Halted(reason)),
        (
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Armed { .. }
            | State::Probation { .. },
            Event::Arm { .. },
        ) => Err(Refused::OutOfOrder { what: "arming", phase }),

        (State::Armed { active, trial, .. }, Event::Start(start)) => {
            let tries = trial.tries;
            Ok(start_trial(active, trial, tries, REFUNDS, start, now))
        }
        (State::Probation { active, trial, tries_left: 0, .. }, Event::Start(_)) => {
            let reason = format!("the gateway did not stay up in any of {} starts", trial.tries);
            Ok(roll_back(active, trial, reason))
        }
        (State::Probation { active, trial, tries_left, refunds_left, .. }, Event::Start(start)) => {
            Ok(start_trial(active, trial, tries_left, refunds_left, start, now))
        }
        (
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. },
            Event::Start(_),
        ) => Err(Refused::NothingDue(phase)),

        (State::Staged { active, trial, deadline }, Event::Tick { halted }) if now >= deadline => {
            if waits(deadline, halted.as_deref(), now) {
                let deadline = gate_deadline(now, trial.load_ms);
                return Ok(silent(State::Staged { active, trial, deadline }));
            }
            Ok(abandon(active, trial, unjudged(Gate::Load)))
        }
        (State::Loaded { active, trial, deadline }, Event::Tick { halted }) if now >= deadline => {
            if waits(deadline, halted.as_deref(), now) {
                let deadline = gate_deadline(now, trial.golden_ms);
                return Ok(silent(State::Loaded { active, trial, deadline }));
            }
            Ok(abandon(active, trial, unjudged(Gate::Golden)))
        }
        (State::Probation { active, trial, deadline, .. }, Event::Tick { .. })
            if now >= deadline =>
        {
            let reason = format!("no verdict within {} ms of probation", trial.probation_ms);
            Ok(roll_back(active, trial, reason))
        }
        (
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Armed { .. }
            | State::Probation { .. },
            Event::Tick { .. },
        ) => Err(Refused::NothingDue(phase)),

        (
            State::Probation { active, trial, tries_left, refunds_left, deadline, start },
            Event::CleanStop,
        ) => {
            let Some(refunds_left) = refunds_left.checked_sub(1) else {
                return Err(Refused::NothingDue(phase));
            };
            let tries_left = tries_left.saturating_add(1).min(trial.tries);
            Ok(silent(State::Probation {
                active,
                trial,
                tries_left,
                refunds_left,
                deadline,
                start,
            }))
        }
        (
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Armed { .. },
            Event::CleanStop,
        ) => Err(Refused::NothingDue(phase)),
    }
}

/// What remains to be done after a crash in `state`.
pub fn resume(state: &State) -> Vec<Effect> {
    match state {
        State::Steady { active: Some(held) } => steady_effects(Some(held)),
        State::Staging { trial, .. } => vec![Effect::Build(trial.clone())],
        State::Steady { active: None }
        | State::Staged { .. }
        | State::Loaded { .. }
        | State::Golden { .. }
        | State::Armed { .. }
        | State::Probation { .. } => vec![],
    }
}

fn accept(active: Option<Held>, candidate: Candidate) -> Result<Step, Refused> {
    if let Some(held) = active.as_ref().filter(|held| held.release == candidate.release) {
        return Err(Refused::Already(held.name.clone(), "committed"));
    }
    let slot = active.as_ref().map_or(Slot::A, |held| held.slot.other());
    let Candidate { release, name, counter, rollout, tries, load_ms, golden_ms, probation_ms } =
        candidate;
    let held = Held { slot, release, name, counter };
    let trial = Trial { held, rollout, tries, load_ms, golden_ms, probation_ms };
    let notes = vec![Note::Pardon { release }, happened(EventKind::Fetched, &trial, String::new())];
    let effects = vec![Effect::Build(trial.clone())];
    Ok(Step { state: State::Staging { active, trial }, notes, effects })
}

fn passed(state: State, release: Digest, gate: Gate, now: UnixMs) -> Result<Step, Refused> {
    let phase = state.phase();
    match state.trial() {
        Some(trial) if trial.held.release == release => {}
        Some(_) | None => {
            return match state.active() {
                Some(held) if held.release == release => {
                    Err(Refused::Already(held.name.clone(), "committed"))
                }
                Some(_) | None => Err(Refused::NotOnTrial(release)),
            };
        }
    }
    match (state, gate) {
        (State::Staged { active, trial, .. }, Gate::Load) => {
            let notes = vec![happened(EventKind::Loaded, &trial, String::new())];
            let deadline = gate_deadline(now, trial.golden_ms);
            Ok(Step { state: State::Loaded { active, trial, deadline }, notes, effects: vec![] })
        }
        (State::Loaded { active, trial, .. }, Gate::Golden) => {
            let notes = vec![happened(EventKind::Golden, &trial, String::new())];
            Ok(Step { state: State::Golden { active, trial }, notes, effects: vec![] })
        }
        (State::Probation { trial, .. }, Gate::Probation) => {
            let notes = vec![
                Note::Commit { counter: trial.held.counter },
                happened(EventKind::Committed, &trial, String::new()),
            ];
            let effects = steady_effects(Some(&trial.held));
            Ok(Step { state: State::Steady { active: Some(trial.held) }, notes, effects })
        }
        (
            State::Loaded { trial, .. }
            | State::Golden { trial, .. }
            | State::Armed { trial, .. }
            | State::Probation { trial, .. },
            Gate::Load,
        )
        | (
            State::Golden { trial, .. }
            | State::Armed { trial, .. }
            | State::Probation { trial, .. },
            Gate::Golden,
        ) => Err(Refused::Already(trial.held.name, "past that gate")),
        (State::Steady { .. } | State::Staging { .. }, Gate::Load)
        | (State::Steady { .. } | State::Staging { .. } | State::Staged { .. }, Gate::Golden)
        | (
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Armed { .. },
            Gate::Probation,
        ) => Err(Refused::OutOfOrder { what: gate.as_str(), phase }),
    }
}

fn roll_back(active: Option<Held>, trial: Trial, reason: String) -> Step {
    let release = trial.held.release;
    let notes = vec![
        Note::Quarantine { release, reason: reason.clone() },
        happened(EventKind::RolledBack, &trial, reason),
    ];
    ended(active, notes)
}

fn abandon(active: Option<Held>, trial: Trial, reason: String) -> Step {
    let notes = vec![happened(EventKind::Refused, &trial, reason)];
    ended(active, notes)
}

/// The trial is over; what it took goes at once.
fn ended(active: Option<Held>, notes: Vec<Note>) -> Step {
    let effects = steady_effects(active.as_ref());
    Step { state: State::Steady { active }, notes, effects }
}

fn silent(state: State) -> Step {
    Step { state, notes: vec![], effects: vec![] }
}

fn start_trial(
    active: Option<Held>,
    trial: Trial,
    tries: u8,
    refunds_left: u8,
    start: StartId,
    now: UnixMs,
) -> Step {
    let tries_left = tries.saturating_sub(1);
    let notes = vec![happened(EventKind::Probation, &trial, spent(&trial, tries_left))];
    let deadline = now.plus(trial.probation_ms);
    let state = State::Probation { active, trial, tries_left, refunds_left, deadline, start };
    Step { state, notes, effects: vec![] }
}

/// When a gate that may take `gate_ms` is given up.
pub(crate) const fn gate_deadline(now: UnixMs, gate_ms: u64) -> UnixMs {
    now.plus(gate_ms).plus(GATE_GRACE_MS)
}

/// Whether a deadline that has passed says nothing about the gateway: it was not to judge, or nobody was there.
const fn waits(deadline: UnixMs, halted: Option<&str>, now: UnixMs) -> bool {
    halted.is_some() || now.since(deadline) > UNSEEN_MS
}

fn unjudged(gate: Gate) -> String {
    format!("the gateway gave no verdict on the {} gate in time", gate.as_str())
}

/// What a steady machine needs done, which also frees what an ended trial took.
fn steady_effects(active: Option<&Held>) -> Vec<Effect> {
    let stamp = active.map(|held| Effect::Stamp(held.clone()));
    stamp.into_iter().chain([Effect::Sweep(active.cloned()), Effect::Prune]).collect()
}

fn happened(kind: EventKind, trial: &Trial, detail: String) -> Note {
    Note::Happened { kind, trial: trial.clone(), detail }
}

fn spent(trial: &Trial, tries_left: u8) -> String {
    format!("start {} of {}", trial.tries.saturating_sub(tries_left), trial.tries)
}
