//! One machine on a modelled disk, and what was promised about it so far.

use std::{collections::BTreeSet, error::Error};

use protocol::{digest::Digest, handover::Gate};
use slots::{
    arm,
    crash_disk::CrashDisk,
    install,
    layout::StateDir,
    record,
    state::{Event, StartId, State},
    store::Store,
    transition::{Effect, resume},
};

use crate::support::{self, NOW, Release, World};

/// Something that happens to a machine. Each may be begun again after it was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is enrolled.
    Enrol,
    /// This release is brought to this phase; `steady` means committed.
    Take(usize, &'static str),
    /// This release takes the place of the one on trial.
    Replace(usize),
    /// The gateway says that the release on trial fails this gate.
    Fail(Gate),
    /// The updater cannot go on with it.
    Abandon,
    /// A gateway starts.
    Start,
    /// It is stopped on purpose.
    CleanStop,
    /// Both copies of the boot record are lost, by no fault of ours.
    LoseRecord,
}

/// What was acknowledged, and so must stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Promised {
    /// Enrolment ended.
    pub(crate) enrolled: bool,
    /// The release whose commit was acknowledged last.
    pub(crate) committed: Option<Digest>,
    /// A release whose commit was begun since.
    pub(crate) committing: Option<Digest>,
    /// The release whose commit and all that follows it was acknowledged.
    pub(crate) stamped: Option<Digest>,
    /// Releases that were given up.
    pub(crate) quarantined: BTreeSet<Digest>,
    /// The boot record was destroyed and not made anew since.
    pub(crate) record_lost: bool,
}

/// A machine.
pub(crate) struct Machine<'a> {
    pub(crate) world: &'a World,
    pub(crate) dir: StateDir,
    pub(crate) disk: CrashDisk,
    pub(crate) promised: Promised,
    starts: u32,
}

type Done = Result<(), Box<dyn Error>>;

impl<'a> Machine<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let (dir, disk) = (StateDir::new("/s"), CrashDisk::new());
        Self { world, dir, disk, promised: Promised::default(), starts: 0 }
    }

    /// The same machine with another disk.
    pub(crate) fn on(&self, disk: CrashDisk) -> Self {
        let (world, dir, promised) = (self.world, self.dir.clone(), self.promised.clone());
        Self { world, dir, disk, promised, starts: self.starts }
    }

    pub(crate) fn copy(&self) -> Self {
        self.on(self.disk.copy())
    }

    pub(crate) fn release(&self, number: usize) -> &'a Release {
        match number {
            1 => &self.world.one,
            2 => &self.world.two,
            _ => &self.world.three,
        }
    }

    pub(crate) fn all(&mut self, steps: &[Step]) -> Done {
        steps.iter().try_for_each(|step| self.step(*step))
    }

    pub(crate) fn step(&mut self, step: Step) -> Done {
        match step {
            Step::Enrol => {
                self.world.try_enrol(&self.disk, &self.dir)?;
                self.promised.enrolled = true;
                Ok(())
            }
            Step::Take(number, phase) => self.take(number, phase),
            Step::Replace(number) => {
                self.resume()?;
                let release = self.release(number);
                support::trust_roots(&self.disk, &self.dir, release)?;
                self.refusable(Event::Accept(release.candidate()))
            }
            Step::Fail(gate) => match self.trial() {
                Some(release) => {
                    self.resume()?;
                    let event = Event::Failed { release, gate, reason: "why".into() };
                    self.advance(event)?;
                    self.promised.quarantined.insert(release);
                    Ok(())
                }
                None => self.resume(),
            },
            Step::Abandon => {
                self.resume()?;
                self.refusable(Event::Abandoned { reason: "the disk is full".into() })?;
                self.resume()
            }
            Step::Start => self.start(),
            Step::CleanStop => self.refusable(Event::CleanStop),
            Step::LoseRecord => {
                self.disk.destroy(&self.dir.record());
                self.promised.record_lost = true;
                Ok(())
            }
        }
    }

    /// What a run of the updater begins with.
    pub(crate) fn resume(&mut self) -> Done {
        self.dir.prepare(&self.disk)?;
        record::settle(&self.disk, &self.dir);
        let state = record::load(&self.disk, &self.dir, NOW).record.state;
        self.perform(&resume(&state))
    }

    fn trial(&self) -> Option<Digest> {
        let state = record::load(&self.disk, &self.dir, NOW).record.state;
        state.trial().map(|trial| trial.held.release)
    }

    fn take(&mut self, number: usize, phase: &str) -> Done {
        let release = self.release(number);
        let digest = release.digest();
        for _ in 0..32 {
            self.resume()?;
            let state = record::load(&self.disk, &self.dir, NOW).record.state;
            if state.phase() == phase && phase != "steady" {
                return Ok(());
            }
            let gate = |gate| Event::Passed { release: digest, gate };
            let event = match &state {
                State::Steady { active: Some(held) } if held.release == digest => {
                    // Whoever began it may have been stopped before it was acknowledged.
                    self.promised.committed = Some(digest);
                    self.promised.stamped = Some(digest);
                    return Ok(());
                }
                State::Steady { .. } => {
                    support::trust_roots(&self.disk, &self.dir, release)?;
                    Event::Accept(release.candidate())
                }
                State::Staging { .. } => {
                    support::build(&self.disk, &self.dir, &state, release)?;
                    Event::Built
                }
                State::Staged { .. } => gate(Gate::Load),
                State::Loaded { .. } => gate(Gate::Golden),
                State::Golden { .. } => Event::Arm { halted: None },
                State::Armed { .. } => {
                    self.start()?;
                    continue;
                }
                State::Probation { .. } => gate(Gate::Probation),
            };
            self.advance(event)?;
        }
        Err("no end".into())
    }

    /// What `socle-launch arm` does.
    fn start(&mut self) -> Done {
        self.dir.prepare(&self.disk)?;
        self.starts += 1;
        let start = StartId::named(&self.starts.to_string());
        let armed = arm::arm(&self.disk, &self.dir, start, NOW)?;
        self.promised.record_lost = false;
        let given_up = armed.record.quarantine.iter().map(|entry| entry.release);
        self.promised.quarantined.extend(given_up);
        Ok(())
    }

    fn refusable(&mut self, event: Event) -> Done {
        match self.advance(event) {
            Err(error) => match error.downcast::<record::RecordError>() {
                Ok(refused) if matches!(*refused, record::RecordError::Refused(_)) => Ok(()),
                Ok(other) => Err(other),
                Err(other) => Err(other),
            },
            Ok(()) => Ok(()),
        }
    }

    fn advance(&mut self, event: Event) -> Done {
        let committing = if let Event::Passed { gate: Gate::Probation, release } = &event {
            Some(*release)
        } else {
            None
        };
        let accepted =
            if let Event::Accept(candidate) = &event { Some(candidate.release) } else { None };
        if committing.is_some() {
            self.promised.committing = committing;
        }
        if let Some(release) = accepted {
            // Accepting it pardons it, whether or not that becomes durable.
            self.promised.quarantined.remove(&release);
        }
        let (record, effects) = record::advance(&self.disk, &self.dir, event, NOW)?;
        self.promised.record_lost = false;
        if committing.is_some() {
            self.promised.committed = committing;
            self.promised.committing = None;
        }
        self.perform(&effects)?;
        if committing.is_some() {
            self.promised.stamped = record.state.active().map(|held| held.release);
        }
        Ok(())
    }

    fn perform(&self, effects: &[Effect]) -> Done {
        for effect in effects {
            match effect {
                Effect::Build(_) => {}
                Effect::Stamp(held) => {
                    let commit = record::load(&self.disk, &self.dir, NOW).record.commits;
                    install::stamp(&self.disk, &self.dir, held, commit)?;
                }
                Effect::Sweep(keep) => {
                    drop(install::sweep(&self.disk, &self.dir, keep.as_ref())?);
                }
                Effect::Prune => {
                    Store::new(&self.disk, &self.dir).prune(&BTreeSet::new())?;
                }
            }
        }
        Ok(())
    }
}
