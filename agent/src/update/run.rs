//! One run of the updater: resume, let time pass, take the verdict, arm, take the request. Killed at any moment, the
//! next run goes on where the boot record says.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use protocol::{
    command::Desired,
    digest::Digest,
    handover::{Outcome as Seen, Request, Verdict},
    manifest::Manifest,
    report::EventKind,
    time::UnixMs,
};
use slots::{
    boot::{BootRecord, Subject},
    disk::{Disk, RealDisk},
    install::{self, Documents, InstallError},
    launch::chain_text,
    layout::StateDir,
    lock::{Lock, LockError},
    record::{self, RecordError},
    state::{Event, State},
    store::Store,
    transition::{Effect, Refused, resume},
    trust::{self, TrustError},
};

use crate::update::{
    build::{self, Limits},
    fit::{self, Host},
    request::{self, Accepted},
    staged::{self, Found},
};

const RECORD_WAIT_MS: u64 = 5_000;
const UPDATER_WAIT_MS: u64 = 60_000;
const SELF_CHECK_MS: u64 = 10_000;
/// How far the controller's clock is believed past ours.
const AHEAD_MS: u64 = 86_400_000;

/// What a run needs to know.
#[derive(Clone, Debug)]
pub struct UpdateConfig {
    /// The device's state folder.
    pub state: PathBuf,
    /// What this machine offers.
    pub host: Host,
    /// Longest self-check of a staged agent.
    pub self_check_ms: u64,
}

/// What a run found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The phase it left.
    pub phase: &'static str,
    /// Generation of the boot record it left.
    pub generation: u64,
    /// What it did, in words, in order.
    pub did: Vec<String>,
    /// When to run again although nothing is staged.
    pub deadline: Option<UnixMs>,
}

/// Why a run ended early. The next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The state folder.
    #[error("preparing {path}; check owner and free space")]
    Prepare {
        /// Folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another run goes on.
    #[error("waiting for another run of the updater")]
    Lock(#[source] LockError),
    /// The boot record.
    #[error("changing the boot record")]
    Record(#[source] RecordError),
    /// An effect of a durable state.
    #[error("finishing what the boot record says")]
    Effect(#[source] InstallError),
    /// What the device trusts.
    #[error("keeping what this device trusts")]
    Trust(#[source] TrustError),
    /// A staged file that is done with.
    #[error("removing {path}")]
    Consume {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl UpdateConfig {
    /// The usual limits, and what this machine offers.
    pub fn of_this_machine(state: impl Into<PathBuf>) -> Self {
        let state = state.into();
        let host = Host {
            platform: fit::platform(),
            memory_bytes: memory_bytes().unwrap_or(u64::MAX),
            disk_free_bytes: disk_free_bytes(&state).unwrap_or(u64::MAX),
        };
        Self { state, host, self_check_ms: SELF_CHECK_MS }
    }
}

/// Does all that is due now.
pub fn run_once(config: &UpdateConfig, now: UnixMs) -> Result<Outcome, UpdateError> {
    let dir = StateDir::new(&config.state);
    dir.prepare(&RealDisk)
        .map_err(|source| UpdateError::Prepare { path: dir.root().to_owned(), source })?;
    let _lock = Lock::take(&dir.updater_lock(), UPDATER_WAIT_MS).map_err(UpdateError::Lock)?;
    let mut run = Run { disk: &RealDisk, dir: &dir, config, now, did: Vec::new() };
    run.resume()?;
    run.tick()?;
    run.verdict()?;
    run.arm()?;
    run.request()?;
    let left = record::load(&RealDisk, &dir, now);
    Ok(Outcome {
        phase: left.record.state.phase(),
        generation: left.generation,
        did: run.did,
        deadline: left.record.state.deadline(),
    })
}

struct Run<'a> {
    disk: &'a dyn Disk,
    dir: &'a StateDir,
    config: &'a UpdateConfig,
    now: UnixMs,
    did: Vec<String>,
}

impl Run<'_> {
    fn load(&self) -> BootRecord {
        record::load(self.disk, self.dir, self.now).record
    }

    /// Reads, changes and writes the record under its lock. `change` says whether there is anything to write.
    fn change<T>(&self, change: impl FnOnce(&mut BootRecord) -> T) -> Result<T, UpdateError> {
        let _lock =
            Lock::take(&self.dir.record_lock(), RECORD_WAIT_MS).map_err(UpdateError::Lock)?;
        let loaded = record::load(self.disk, self.dir, self.now);
        loaded.may_be_replaced(self.dir).map_err(UpdateError::Record)?;
        let mut next = loaded.record.clone();
        let value = change(&mut next);
        if next != loaded.record || loaded.generation == 0 {
            record::save(self.disk, self.dir, &next, &loaded).map_err(UpdateError::Record)?;
        }
        Ok(value)
    }

    /// The state after `event`, stored; then its effects. A refusal changes nothing.
    fn advance(&mut self, event: Event) -> Result<Result<(), Refused>, UpdateError> {
        let now = self.now;
        let outcome = self.change(|record| {
            record.clone().advance(event, now).map(|(next, effects)| {
                *record = next;
                (record.last().cloned(), effects)
            })
        })?;
        match outcome {
            Ok((last, effects)) => {
                if let Some(last) = last {
                    self.say(format!("{}: {} {}", last.kind.as_str(), last.name, last.detail));
                }
                self.perform(&effects)?;
                Ok(Ok(()))
            }
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn perform(&mut self, effects: &[Effect]) -> Result<(), UpdateError> {
        for effect in effects {
            match effect {
                // The slot is built from the request, which `request` reads; see there.
                Effect::Build(_) => {}
                Effect::Stamp(held) => {
                    let commit = self.load().commits;
                    install::stamp(self.disk, self.dir, held, commit)
                        .map_err(UpdateError::Effect)?;
                }
                Effect::Sweep(keep) => match install::sweep(self.disk, self.dir, keep.as_ref()) {
                    Ok(slots) => {
                        for slot in slots {
                            self.say(format!("emptied slot {slot}: nothing in it was committed"));
                        }
                    }
                    Err(error) => self.say(format!("emptying a slot: {}", chain_text(&error))),
                },
                Effect::Prune => match Store::new(self.disk, self.dir).prune(&self.awaited()) {
                    Ok(0) => {}
                    Ok(count) => self.say(format!("removed {count} stored files no slot uses")),
                    Err(error) => self.say(format!("pruning the store: {}", chain_text(&error))),
                },
            }
        }
        Ok(())
    }

    /// What a request that waits counts on to be in the store: the gateway did not fetch it again. Nothing of the
    /// request is believed but this.
    fn awaited(&self) -> BTreeSet<Digest> {
        let Found::Content(request) = staged::request(self.disk, &self.dir.request()) else {
            return BTreeSet::new();
        };
        let manifest = Manifest::parse(request.manifest.as_slice());
        let files = manifest.map(|manifest| manifest.files).unwrap_or_default();
        files.iter().flat_map(|file| [file.sha256, file.object().sha256]).collect()
    }

    /// Makes the record if there is none, and does again what a crash may have left undone. A committed slot that cannot
    /// be stamped any more is an alarm and no reason to refuse the release that would repair it.
    fn resume(&mut self) -> Result<(), UpdateError> {
        record::settle(self.disk, self.dir);
        let state = self.change(|record| record.state.clone())?;
        if let Err(error) = self.perform(&resume(&state)) {
            let detail = chain_text(&error);
            let now = self.now;
            self.change(|record| record.alarm(&detail, now))?;
            self.say(detail);
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), UpdateError> {
        let halted = match &self.load().state {
            State::Staged { trial, .. } | State::Loaded { trial, .. } => {
                self.halted(&trial.held.release)
            }
            State::Steady { .. }
            | State::Staging { .. }
            | State::Golden { .. }
            | State::Armed { .. }
            | State::Probation { .. } => None,
        };
        match self.advance(Event::Tick { halted })? {
            // Almost always: nothing is due.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn verdict(&mut self) -> Result<(), UpdateError> {
        let path = self.dir.verdict();
        match staged::verdict(self.disk, &path) {
            Found::Nothing => return Ok(()),
            Found::Unusable(error) => self.say(chain_text(&error)),
            Found::Content(Verdict { release, gate, outcome, .. }) => {
                let event = match outcome {
                    Seen::Passed { .. } => Event::Passed { release, gate },
                    Seen::Failed { reason } => Event::Failed { release, gate, reason },
                };
                if let Err(refused) = self.advance(event)? {
                    self.say(format!("verdict on {} gate not taken: {refused}", gate.as_str()));
                }
            }
        }
        self.consume(path)
    }

    fn arm(&mut self) -> Result<(), UpdateError> {
        let State::Golden { trial, .. } = self.load().state else { return Ok(()) };
        let halted = self.halted(&trial.held.release);
        if let Err(refused) = self.advance(Event::Arm { halted })? {
            self.say(format!("release {} is not armed: {refused}", trial.held.name));
        }
        Ok(())
    }

    /// Why the controller forbids arming `release`. A halt that cannot be checked counts as one.
    fn halted(&self, release: &Digest) -> Option<String> {
        let bytes = match staged::halt(self.disk, &self.dir.halt()) {
            Found::Nothing => return None,
            Found::Unusable(error) => return Some(chain_text(&error)),
            Found::Content(bytes) => bytes,
        };
        let authority = match trust::authority(self.disk, self.dir) {
            Ok(authority) => authority,
            Err(error) => return Some(chain_text(&error)),
        };
        match request::reader(&authority).halt(&bytes, 0) {
            Ok(halt) => halt.get().forbids(release).then(|| halt.get().reason.clone()),
            Err(error) => {
                Some(format!("the halt left here is not genuine: {}", chain_text(&error)))
            }
        }
    }

    fn request(&mut self) -> Result<(), UpdateError> {
        let path = self.dir.request();
        let request = match staged::request(self.disk, &path) {
            Found::Content(request) => request,
            Found::Nothing => return self.abandon("its request is gone from the staging area"),
            Found::Unusable(error) => {
                self.abandon(&chain_text(&error))?;
                self.say(chain_text(&error));
                return self.consume(path);
            }
        };
        let record = self.load();
        let authority = match trust::authority(self.disk, self.dir) {
            Ok(authority) => authority,
            Err(error) => return self.refuse(path, &request, None, &chain_text(&error)),
        };
        let desired = match request::assignment(&authority, &request, &record, self.now) {
            Ok(desired) => desired,
            Err(error) => return self.refuse(path, &request, None, &chain_text(&error)),
        };
        let asked = (&authority, &request);
        let checked =
            request::release(self.disk, self.dir, asked, desired.clone(), &record, self.now);
        let accepted = match checked {
            Ok(accepted) => accepted,
            Err(error) => {
                return self.refuse(path, &request, Some(&desired), &chain_text(&error));
            }
        };
        // Every check was passed: what proved the release is trusted from now on, whatever becomes of it.
        trust::keep(self.disk, self.dir, &accepted.roots, &accepted.trusted)
            .map_err(UpdateError::Trust)?;
        if !request::is_under_way(&record, &desired.release) {
            let proven = created(&accepted);
            let now = self.now;
            self.change(|record| obey(record, &desired, now.max(proven)))?;
            match self.advance(Event::Accept(accepted.candidate()))? {
                Ok(()) => {}
                Err(refused @ Refused::Busy { .. }) => {
                    // The request waits where it is until the trial ends.
                    self.say(refused.to_string());
                    return Ok(());
                }
                Err(refused) => {
                    self.say(refused.to_string());
                    return self.consume(path);
                }
            }
        }
        self.build(path, &request, &accepted)
    }

    fn build(
        &mut self,
        path: PathBuf,
        request: &Request,
        accepted: &Accepted,
    ) -> Result<(), UpdateError> {
        let Some(trial) = self.load().state.trial().cloned() else { return Ok(()) };
        let manifest = &accepted.release.get().manifest;
        let documents = Documents {
            manifest: request.manifest.as_slice(),
            roles: &accepted.roles,
            root: (accepted.trusted.root().get().version, accepted.trusted.root_bytes()),
        };
        let limits =
            Limits { host: self.config.host.clone(), self_check_ms: self.config.self_check_ms };
        let built = build::build(self.disk, self.dir, &trial.held, manifest, &documents, &limits);
        let (event, done_with) = match built {
            Ok(()) => (Event::Built, true),
            Err(error) if error.is_the_release() => {
                (Event::Rejected { reason: chain_text(&error) }, true)
            }
            Err(error) => (Event::Abandoned { reason: chain_text(&error) }, false),
        };
        // A request that failed goes before its end is noted, so that nothing is kept for it.
        if event != Event::Built {
            self.consume(path.clone())?;
        }
        if let Err(refused) = self.advance(event)? {
            self.say(refused.to_string());
        }
        self.consume(path)?;
        if done_with {
            let objects: Vec<Digest> =
                manifest.objects().iter().map(|object| object.sha256).collect();
            build::tidy(self.disk, self.dir, &objects).map_err(|source| UpdateError::Consume {
                path: self.dir.staged_objects(),
                source,
            })?;
        }
        Ok(())
    }

    /// Says why a request is refused, where the gateway looks, and removes it.
    fn refuse(
        &mut self,
        path: PathBuf,
        request: &Request,
        desired: Option<&Desired>,
        why: &str,
    ) -> Result<(), UpdateError> {
        self.abandon(why)?;
        let release = Digest::of(request.manifest.as_slice());
        let now = self.now;
        self.change(|record| {
            let rollout = desired.map_or(0, |desired| desired.rollout);
            let subject = Subject { release: Some(release), name: "", rollout };
            record.remember(EventKind::Refused, subject, why, now);
            if let Some(desired) = desired {
                obey(record, desired, now);
            }
        })?;
        self.say(format!("request refused: {why}"));
        self.consume(path)
    }

    /// Ends a staging that cannot go on; nothing when none is under way.
    fn abandon(&mut self, why: &str) -> Result<(), UpdateError> {
        if !matches!(self.load().state, State::Staging { .. }) {
            return Ok(());
        }
        match self.advance(Event::Abandoned { reason: why.to_owned() })? {
            Ok(()) => Ok(()),
            Err(refused) => {
                self.say(refused.to_string());
                Ok(())
            }
        }
    }

    fn consume(&self, path: PathBuf) -> Result<(), UpdateError> {
        staged::consume(self.disk, &path).map_err(|source| UpdateError::Consume { path, source })
    }

    fn say(&mut self, text: String) {
        tracing::info!(target: "update", "{text}");
        self.did.push(text);
    }
}

/// What a verified assignment leaves behind, whether or not its release is taken.
///
/// The floor of time only rises, so one wrong clock at the controller must not carry it away: the controller is
/// believed up to a day past `anchor`, which is this device's clock or what the release keys signed.
fn obey(record: &mut BootRecord, desired: &Desired, anchor: UnixMs) {
    record.desired_sequence = record.desired_sequence.max(desired.sequence);
    let believed = desired.issued_at.min(record.time(anchor).plus(AHEAD_MS));
    record.time_floor = record.time_floor.max(believed);
}

/// When the release was made, by its signed manifest.
fn created(accepted: &Accepted) -> UnixMs {
    UnixMs::from_rfc3339(&accepted.release.get().manifest.created).unwrap_or_default()
}

fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn disk_free_bytes(path: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::DeviceId;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn floor_after(issued_at: UnixMs, anchor: UnixMs) -> UnixMs {
        let mut record = BootRecord::new(NOW);
        let desired = Desired {
            fleet: "demo".parse().unwrap(),
            device: DeviceId::from(Digest::of(b"device")),
            sequence: 1,
            issued_at,
            expires_at: UnixMs(u64::MAX),
            release: Digest::of(b"release"),
            manifest_bytes: 1,
            targets_version: 1,
            rollout: 0,
            retry_quarantined: false,
            permit: None,
        };
        obey(&mut record, &desired, anchor);
        record.time_floor
    }

    #[test]
    fn a_controllers_wrong_clock_moves_the_floor_of_time_by_a_day_at_most() {
        let year = 365 * 86_400_000;
        assert_eq!(floor_after(NOW, NOW), NOW);
        assert_eq!(floor_after(NOW.plus(70 * year), NOW), NOW.plus(AHEAD_MS));
        assert_eq!(floor_after(UnixMs(5), NOW), UnixMs(5));
        // A device whose own clock starts in 1970 still learns the time, from what the release keys signed.
        assert_eq!(floor_after(NOW.plus(60_000), UnixMs(0).max(NOW)), NOW.plus(60_000));
    }
}
