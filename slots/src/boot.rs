//! Everything a device remembers about its slots: one value, stored whole in the boot record.

use protocol::{digest::Digest, report::EventKind, time::UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    state::{Event, Held, State},
    transition::{Effect, Note, Refused, step},
};

/// Most releases remembered as quarantined; the oldest is forgotten first.
pub const QUARANTINE_MAX: usize = 16;
/// Most happenings remembered; the oldest is forgotten first.
pub const HISTORY_MAX: usize = 6;
const REASON_BYTES_MAX: usize = 48;
const DETAIL_BYTES_MAX: usize = 160;

/// The whole slot state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootRecord {
    /// Where an update stands.
    pub state: State,
    /// Releases that are not tried again by themselves.
    pub quarantine: Vec<Quarantined>,
    /// Highest release counter ever committed.
    pub counter_floor: u64,
    /// How many releases were committed; the stamp of each says which one it was.
    pub commits: u64,
    /// Newest signed time ever seen: the clock is never believed to be before it.
    pub time_floor: UnixMs,
    /// Highest assignment obeyed.
    pub desired_sequence: u64,
    /// What happened last, oldest first.
    pub history: Vec<Happening>,
    /// Sequence of the next happening.
    pub next_sequence: u64,
}

/// A release that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    /// Release.
    pub release: Digest,
    /// Why, in words.
    pub reason: String,
    /// When.
    pub at: UnixMs,
}

/// Something the controller should hear. The gateway reports each whose `sequence` it has not reported yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// Grows by one with each, and never starts again.
    pub sequence: u64,
    /// What.
    pub kind: EventKind,
    /// Release concerned.
    pub release: Option<Digest>,
    /// Its name.
    pub name: String,
    /// Rollout concerned; 0 for none.
    pub rollout: u64,
    /// In words.
    pub detail: String,
    /// When.
    pub at: UnixMs,
}

impl BootRecord {
    /// The record of a machine that never had a release. Sequences start at `now`, so they are above those of a record
    /// that was lost.
    pub const fn new(now: UnixMs) -> Self {
        Self {
            state: State::FACTORY,
            quarantine: Vec::new(),
            counter_floor: 0,
            commits: 0,
            time_floor: UnixMs(0),
            desired_sequence: 0,
            history: Vec::new(),
            next_sequence: now.0,
        }
    }

    /// The record after `event`, and what to do once it is durable.
    pub fn advance(mut self, event: Event, now: UnixMs) -> Result<(Self, Vec<Effect>), Refused> {
        let outcome = step(self.state.clone(), event, now)?;
        self.state = outcome.state;
        for note in outcome.notes {
            self.note(note, now);
        }
        Ok((self, outcome.effects))
    }

    /// Why `release` is quarantined, if it is.
    pub fn quarantined(&self, release: &Digest) -> Option<&Quarantined> {
        self.quarantine.iter().find(|entry| entry.release == *release)
    }

    /// The last thing that happened.
    pub fn last(&self) -> Option<&Happening> {
        self.history.last()
    }

    /// The time to believe: the clock, unless something newer was signed.
    pub fn time(&self, clock: UnixMs) -> UnixMs {
        clock.max(self.time_floor)
    }

    /// Remembers something that changes no state: a refused request, an alarm.
    pub fn remember(&mut self, kind: EventKind, subject: Subject<'_>, detail: &str, now: UnixMs) {
        let happening = Happening {
            sequence: self.next_sequence,
            kind,
            release: subject.release,
            name: clip(subject.name, 64),
            rollout: subject.rollout,
            detail: clip(detail, DETAIL_BYTES_MAX),
            at: now,
        };
        self.next_sequence = self.next_sequence.saturating_add(1);
        self.history.push(happening);
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// Remembers an alarm once: the same alarm twice in a row says nothing new.
    pub fn alarm(&mut self, detail: &str, now: UnixMs) {
        let known = self.history.iter().any(|happening| {
            happening.kind == EventKind::Alarm && happening.detail == clip(detail, DETAIL_BYTES_MAX)
        });
        if !known {
            self.remember(EventKind::Alarm, Subject::default(), detail, now);
        }
    }

    /// The record to go on with when both copies are lost: the stamped release, if any, and an alarm.
    pub fn recovered(stamped: Option<Stamped>, now: UnixMs) -> Self {
        let mut record = Self::new(now);
        if let Some(Stamped { held, commit }) = stamped {
            (record.counter_floor, record.commits) = (held.counter, commit);
            record.state = State::Steady { active: Some(held) };
        }
        let detail = match record.state.active() {
            Some(held) => format!(
                "both copies of the boot record were unreadable; went on with the stamped release {} in slot {}",
                held.name, held.slot
            ),
            None => {
                "both copies of the boot record were unreadable and no slot is stamped; went on with the factory slot"
                    .to_owned()
            }
        };
        record.alarm(&detail, now);
        record
    }

    fn note(&mut self, note: Note, now: UnixMs) {
        match note {
            Note::Quarantine { release, reason } => {
                self.quarantine.retain(|entry| entry.release != release);
                let reason = clip(&reason, REASON_BYTES_MAX);
                self.quarantine.push(Quarantined { release, reason, at: now });
                let surplus = self.quarantine.len().saturating_sub(QUARANTINE_MAX);
                self.quarantine.drain(..surplus);
            }
            Note::Pardon { release } => self.quarantine.retain(|entry| entry.release != release),
            Note::Commit { counter } => {
                self.counter_floor = self.counter_floor.max(counter);
                self.commits = self.commits.saturating_add(1);
            }
            Note::Happened { kind, trial, detail } => {
                let subject = Subject {
                    release: Some(trial.held.release),
                    name: &trial.held.name,
                    rollout: trial.rollout,
                };
                self.remember(kind, subject, &detail, now);
            }
        }
    }
}

/// A release that was committed, as the stamp in its slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The release and its slot.
    pub held: Held,
    /// Which commit it was, counted from 1.
    pub commit: u64,
}

/// What a happening is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Release.
    pub release: Option<Digest>,
    /// Its name.
    pub name: &'a str,
    /// Rollout; 0 for none.
    pub rollout: u64,
}

/// `text` cut to at most `bytes_max` bytes at a character's end.
fn clip(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or(0)].to_owned()
}
