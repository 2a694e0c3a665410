//! Where an update stands, and what can happen to it. How one leads to the other is [`crate::transition`]'s.

use protocol::{digest::Digest, handover::Gate, id::Slot, time::UnixMs};
use serde::{Deserialize, Serialize};

/// A release and the slot it lies in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Its slot.
    pub slot: Slot,
    /// SHA-256 of its manifest.
    pub release: Digest,
    /// Its name for people.
    pub name: String,
    /// Its counter.
    pub counter: u64,
}

/// A release on its way to being committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The release and its slot.
    pub held: Held,
    /// The rollout it belongs to, for reports; 0 for none.
    pub rollout: u64,
    /// Gateway starts it may spend.
    pub tries: u8,
    /// Longest loading and warming up.
    pub load_ms: u64,
    /// Longest golden set.
    pub golden_ms: u64,
    /// Longest probation after one start.
    pub probation_ms: u64,
}

/// Names one start of a gateway, the same for `socle-launch arm` and the `socle-launch exec` that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartId(u64);

/// Where an update stands. `active` is the committed release; none means the factory slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum State {
    /// No update under way.
    Steady {
        /// Committed release.
        active: Option<Held>,
    },
    /// The inactive slot is being filled.
    Staging {
        /// Committed release.
        active: Option<Held>,
        /// Release on trial.
        trial: Trial,
    },
    /// The inactive slot is complete, durable, and its agent passed its self-check.
    Staged {
        /// Committed release.
        active: Option<Held>,
        /// Release on trial.
        trial: Trial,
        /// When it is given up without a verdict on the load gate.
        deadline: UnixMs,
    },
    /// The candidate worker loaded it.
    Loaded {
        /// Committed release.
        active: Option<Held>,
        /// Release on trial.
        trial: Trial,
        /// When it is given up without a verdict on the golden set.
        deadline: UnixMs,
    },
    /// The golden set passed; arming waits only for a halt to end.
    Golden {
        /// Committed release.
        active: Option<Held>,
        /// Release on trial.
        trial: Trial,
    },
    /// The next gateway start tries it.
    Armed {
        /// Committed release.
        active: Option<Held>,
        /// Release on trial.
        trial: Trial,
        /// When it was armed.
        since: UnixMs,
    },
    /// The gateway runs from it and must prove itself.
    Probation {
        /// Committed release.
        active: Option<Held>,
        /// Release on trial.
        trial: Trial,
        /// Starts left after the current one.
        tries_left: u8,
        /// Clean stops left that give a try back.
        refunds_left: u8,
        /// When it is given up without a verdict.
        deadline: UnixMs,
        /// The start that the last try was spent on.
        start: StartId,
    },
}

/// A verified release that the updater wants to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// SHA-256 of its manifest.
    pub release: Digest,
    /// Its name for people.
    pub name: String,
    /// Its counter.
    pub counter: u64,
    /// The rollout it belongs to.
    pub rollout: u64,
    /// Gateway starts it may spend.
    pub tries: u8,
    /// Longest loading and warming up.
    pub load_ms: u64,
    /// Longest golden set.
    pub golden_ms: u64,
    /// Longest probation after one start.
    pub probation_ms: u64,
}

/// What can happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The updater verified a request.
    Accept(Candidate),
    /// The slot is complete, durable and passed its self-check.
    Built,
    /// The gateway saw a gate pass.
    Passed {
        /// Release judged.
        release: Digest,
        /// Gate.
        gate: Gate,
    },
    /// The gateway saw a gate fail.
    Failed {
        /// Release judged.
        release: Digest,
        /// Gate.
        gate: Gate,
        /// Why, in words.
        reason: String,
    },
    /// The release itself is at fault, as updater or launcher saw: a bad archive, a failed self-check, a slot that no
    /// longer verifies.
    Rejected {
        /// Why, in words.
        reason: String,
    },
    /// The trial cannot go on, through no fault of the release: a full disk, a missing object.
    Abandoned {
        /// Why, in words.
        reason: String,
    },
    /// Arm the release, unless the controller halted it.
    Arm {
        /// Why it is halted, if it is.
        halted: Option<String>,
    },
    /// A gateway is about to start.
    Start(StartId),
    /// Time has passed.
    Tick {
        /// Why the release on trial is halted, if it is: then the gates wait, and so do their deadlines.
        halted: Option<String>,
    },
    /// The gateway was stopped on purpose.
    CleanStop,
}

impl StartId {
    /// A start that nobody named: it is taken for any other.
    pub const UNKNOWN: Self = Self(0);

    /// The start that whoever starts us names so, such as systemd's invocation id. No name is [`Self::UNKNOWN`].
    pub fn named(name: &str) -> Self {
        let digest = Digest::of(name.as_bytes());
        let head = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        if name.is_empty() { Self::UNKNOWN } else { Self(u64::from_le_bytes(head).max(1)) }
    }

    /// Whether both may be the same start.
    pub const fn may_be(self, other: Self) -> bool {
        self.0 == 0 || other.0 == 0 || self.0 == other.0
    }
}

impl State {
    /// A machine that runs its factory slot.
    pub const FACTORY: Self = Self::Steady { active: None };

    /// The committed release; none means the factory slot.
    pub const fn active(&self) -> Option<&Held> {
        match self {
            Self::Steady { active }
            | Self::Staging { active, .. }
            | Self::Staged { active, .. }
            | Self::Loaded { active, .. }
            | Self::Golden { active, .. }
            | Self::Armed { active, .. }
            | Self::Probation { active, .. } => active.as_ref(),
        }
    }

    /// The release on trial.
    pub const fn trial(&self) -> Option<&Trial> {
        match self {
            Self::Steady { .. } => None,
            Self::Staging { trial, .. }
            | Self::Staged { trial, .. }
            | Self::Loaded { trial, .. }
            | Self::Golden { trial, .. }
            | Self::Armed { trial, .. }
            | Self::Probation { trial, .. } => Some(trial),
        }
    }

    /// The release whose gateway runs, or would run at the next start: the trial in probation, else the committed one.
    pub const fn running(&self) -> Option<&Held> {
        match self {
            Self::Probation { trial, .. } => Some(&trial.held),
            Self::Steady { .. }
            | Self::Staging { .. }
            | Self::Staged { .. }
            | Self::Loaded { .. }
            | Self::Golden { .. }
            | Self::Armed { .. } => self.active(),
        }
    }

    /// The phase's name, for reports and people.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Steady { .. } => "steady",
            Self::Staging { .. } => "staging",
            Self::Staged { .. } => "staged",
            Self::Loaded { .. } => "loaded",
            Self::Golden { .. } => "golden",
            Self::Armed { .. } => "armed",
            Self::Probation { .. } => "probation",
        }
    }

    /// When time alone changes the state.
    pub const fn deadline(&self) -> Option<UnixMs> {
        match self {
            Self::Staged { deadline, .. }
            | Self::Loaded { deadline, .. }
            | Self::Probation { deadline, .. } => Some(*deadline),
            Self::Steady { .. }
            | Self::Staging { .. }
            | Self::Golden { .. }
            | Self::Armed { .. } => None,
        }
    }
}
