//! The sequencer of a trial, on the gateway's side: it watches the gate that is due and leaves its verdict for the
//! updater, which alone acts on it.

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use engine::worker::message::{Call, Reply, WorkerInfo};
use protocol::{
    cbor::{DOCUMENT_BYTES_MAX, MESSAGE_BYTES_MAX},
    command::Halt,
    digest::Digest,
    handover::{Gate, Outcome, Verdict},
    id::Slot,
    manifest::{Manifest, ManifestError},
};
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};
use tokio::{
    sync::watch,
    task::{JoinError, spawn_blocking},
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    fleet::{
        fleet_status::FleetStatus,
        gates::{self, Due, Next, Seen},
        host::Host,
        record_watch::Records,
        state_file::{self, StateFileError},
    },
    observe::{clock, heartbeat::Beat, logging::chain},
};

/// Pause between two looks at a probation, and the longest between two beats.
const LOOK: Duration = Duration::from_millis(500);
/// Calls to a worker that may be lost in a row before its release is given up.
const LOST_MAX: u32 = 5;
/// Starts of a worker in which it may load its models: it may be lost once.
const STARTS_MAX: u32 = 2;

/// What the sequencer is given.
pub struct Parts {
    /// Where slots and staging area lie.
    pub state: StateDir,
    /// The slot this gateway runs from.
    pub own: Option<Slot>,
    /// The gateway.
    pub host: Arc<dyn Host>,
    /// The boot record.
    pub records: Records,
    /// The newest halt.
    pub halt: watch::Receiver<Option<Halt>>,
    /// The verdict given last, for those who report what came of it.
    pub given: watch::Sender<Option<Verdict>>,
    /// What the local status shows.
    pub status: watch::Sender<FleetStatus>,
    /// Says that this loop turns.
    pub beat: Beat,
    /// Becomes true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

/// Why a gate could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The manifest in the slot cannot be read.
    #[error("reading the manifest of the release on trial in {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is another release.
    #[error("slot {slot} does not hold release {}", .release.short())]
    Other {
        /// Slot.
        slot: Slot,
        /// Release expected there.
        release: Digest,
    },
    /// It is not a manifest.
    #[error("reading the manifest of the release on trial")]
    Manifest(#[from] ManifestError),
    /// The verdict cannot be left.
    #[error("leaving the verdict for the updater")]
    Verdict(#[from] StateFileError),
    /// The runtime is ending.
    #[error("the agent is stopping")]
    Stopping(#[from] JoinError),
}

/// Watches trials until the gateway stops.
pub async fn run(mut parts: Parts) {
    match load_verdict(&parts.state).await {
        Ok(given) => drop(parts.given.send_replace(given)),
        Err(error) => tracing::warn!("{}; the gate is watched again", chain(&error)),
    }
    while !*parts.stop.borrow() {
        parts.beat.tick();
        let next = {
            let record = parts.records.borrow_and_update().clone();
            let (given, halt) = (parts.given.borrow().clone(), parts.halt.borrow().clone());
            record.map(|record| gates::next(&record, parts.own, given.as_ref(), halt.as_ref()))
        };
        match next {
            None => parts.wait().await,
            Some(Next::Wait(words)) => {
                parts.say(&words);
                parts.wait().await;
            }
            Some(Next::Watch(due)) => {
                parts.say(&format!("watching the {} gate", due.gate.as_str()));
                if let Err(error) = parts.watch(due).await {
                    tracing::error!(gate = due.gate.as_str(), "{}; trying again", chain(&error));
                    parts.wait().await;
                }
            }
        }
    }
    parts.beat.end();
}

impl Parts {
    fn say(&self, words: &str) {
        self.status.send_if_modified(|status| {
            let changed = status.trial != words;
            if changed {
                words.clone_into(&mut status.trial);
            }
            changed
        });
    }

    /// Until something may have changed, and no longer than one look.
    async fn wait(&mut self) {
        tokio::select! {
            changed = self.records.changed() => if changed.is_err() { sleep(LOOK).await },
            changed = self.halt.changed() => if changed.is_err() { sleep(LOOK).await },
            changed = self.stop.changed() => if changed.is_err() { sleep(LOOK).await },
            () = sleep(LOOK) => {}
        }
    }

    /// Watches one gate to its verdict, unless the trial ends before.
    async fn watch(&mut self, due: Due) -> Result<(), TrialError> {
        let manifest = Arc::new(read_manifest(&self.state, due).await?);
        let (host, beat) = (Arc::clone(&self.host), self.beat.clone());
        let gate = async move {
            match due.gate {
                Gate::Load => gates::outcome(load(host.as_ref(), due, &manifest).await),
                Gate::Golden => gates::outcome(golden(host.as_ref(), due, &manifest).await),
                Gate::Probation => probation(host.as_ref(), due, &manifest).await,
            }
        };
        tokio::select! {
            outcome = beating(gate, beat) => {
                let Due { release, gate, .. } = due;
                let record = self.records.borrow().clone();
                let at = record.map_or(clock::now(), |record| record.time(clock::now()));
                let verdict = Verdict { release, gate, outcome, at };
                self.leave(verdict).await
            }
            () = gone(self.records.clone(), self.stop.clone(), due) => Ok(()),
        }
    }

    async fn leave(&self, verdict: Verdict) -> Result<(), TrialError> {
        let (path, left) = (self.state.verdict(), verdict.clone());
        spawn_blocking(move || state_file::save(&RealDisk, &path, &left)).await??;
        match &verdict.outcome {
            Outcome::Passed { detail } => {
                tracing::info!(
                    gate = verdict.gate.as_str(),
                    release = verdict.release.short(),
                    "gate passed: {detail}"
                );
            }
            Outcome::Failed { reason } => {
                tracing::warn!(
                    gate = verdict.gate.as_str(),
                    release = verdict.release.short(),
                    "gate failed: {reason}"
                );
            }
        }
        self.given.send_replace(Some(verdict));
        Ok(())
    }
}

/// Completes when `due` is due no longer, or the gateway stops.
async fn gone(mut records: Records, mut stop: watch::Receiver<bool>, due: Due) {
    let still = |records: &Records| {
        let record = records.borrow().clone();
        record.is_none_or(|record| {
            gates::next(&record, Some(due.slot), None, None) == Next::Watch(due)
        })
    };
    while still(&records) && !*stop.borrow() {
        let open = tokio::select! {
            changed = records.changed() => changed.is_ok(),
            changed = stop.changed() => changed.is_ok(),
        };
        if !open {
            return;
        }
    }
}

/// `work`, with a beat every now and then while it runs.
async fn beating<T>(work: impl Future<Output = T>, beat: Beat) -> T {
    let mut ticks = interval(LOOK);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => beat.tick(),
        }
    }
}

/// The candidate's worker starts, has all models, and loads each within the policy's time.
async fn load(host: &dyn Host, due: Due, manifest: &Manifest) -> Result<String, String> {
    let limit = Duration::from_millis(manifest.policy.load_ms);
    let work = async {
        let started = Instant::now();
        for _ in 0..STARTS_MAX {
            let worker = introduction(host, due, limit).await?;
            gates::introduced(&worker, &due.release, manifest)?;
            let resident_bytes = load_all(host, due, manifest, limit).await?;
            // What one start of the worker loaded, the next one does not have.
            if introduction(host, due, limit).await?.start == worker.start {
                return Ok(format!(
                    "{} models loaded in {} ms on {}, {} of memory",
                    manifest.models().len(),
                    started.elapsed().as_millis(),
                    worker.device,
                    crate::fleet::fetch::size(resident_bytes)
                ));
            }
        }
        Err(format!("the candidate's worker ended while it loaded its models, {STARTS_MAX} times"))
    };
    let late =
        || Err(format!("loading took longer than the {} ms allowed", manifest.policy.load_ms));
    timeout(limit, work).await.unwrap_or_else(|_| late())
}

async fn introduction(host: &dyn Host, due: Due, limit: Duration) -> Result<WorkerInfo, String> {
    let reply = call(host, due, Call::hello(), limit).await?;
    let Reply::Hello(worker) = reply else { return Err(unexpected("a greeting", &reply)) };
    Ok(worker)
}

/// Loads every model; the most memory that the worker held.
async fn load_all(
    host: &dyn Host,
    due: Due,
    manifest: &Manifest,
    limit: Duration,
) -> Result<u64, String> {
    let mut resident_bytes = 0;
    for model in manifest.models() {
        let load = Call::Load { model: model.to_owned() };
        let reply = call(host, due, load, limit).await?;
        let Reply::Loaded(loaded) = &reply else {
            return Err(unexpected(&format!("model `{model}` to load"), &reply));
        };
        resident_bytes = resident_bytes.max(loaded.resident_bytes);
    }
    Ok(resident_bytes)
}

/// The candidate's worker gives every golden answer.
async fn golden(host: &dyn Host, due: Due, manifest: &Manifest) -> Result<String, String> {
    let limit = Duration::from_millis(manifest.policy.golden_ms);
    let work = async {
        let mut figures = Vec::new();
        for model in manifest.models() {
            figures.push(golden_of(host, due, model, limit).await?);
        }
        Ok(figures.join("; "))
    };
    let late = || {
        Err(format!("the golden set took longer than the {} ms allowed", manifest.policy.golden_ms))
    };
    timeout(limit, work).await.unwrap_or_else(|_| late())
}

/// One model's golden set: its figures.
async fn golden_of(
    host: &dyn Host,
    due: Due,
    model: &str,
    limit: Duration,
) -> Result<String, String> {
    let reply = call(host, due, Call::Golden { model: model.to_owned() }, limit).await?;
    let Reply::Golden(report) = &reply else {
        return Err(unexpected(&format!("the golden set of `{model}`"), &reply));
    };
    gates::golden(model, report)
}

/// This gateway proves itself: by the answers it gives, and, while nobody asks, by golden questions of its own. It has
/// no time limit here: the record holds the deadline.
async fn probation(host: &dyn Host, due: Due, manifest: &Manifest) -> Outcome {
    let limit = Duration::from_millis(manifest.policy.golden_ms);
    let (mut asked, mut lost, mut before) = (0, 0, None);
    loop {
        let health = host.health();
        let seen =
            Seen { ready: health.ready, answered: health.answered, failed: health.failed, asked };
        if let Some(outcome) = gates::probation(&seen, &manifest.policy) {
            return outcome;
        }
        let idle = before == Some(health.answered);
        before = Some(health.answered);
        if health.ready && idle {
            for model in manifest.models() {
                let golden = Call::Golden { model: model.to_owned() };
                match host.ask_worker(due.slot, due.release, golden, limit).await {
                    Ok(Reply::Golden(report)) => match gates::golden(model, &report) {
                        Ok(_) => (asked, lost) = (asked + u64::from(report.cases), 0),
                        Err(reason) => return gates::outcome(Err(reason)),
                    },
                    Ok(other) => return gates::outcome(Err(unexpected("golden answers", &other))),
                    Err(reason) => {
                        lost += 1;
                        if lost >= LOST_MAX {
                            let reason = format!("its worker was lost {lost} times: {reason}");
                            return gates::outcome(Err(reason));
                        }
                    }
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// One call; a worker that is lost once may come back.
async fn call(host: &dyn Host, due: Due, call: Call, limit: Duration) -> Result<Reply, String> {
    let Due { slot, release, .. } = due;
    match host.ask_worker(slot, release, call.clone(), limit).await {
        Ok(reply) => Ok(reply),
        Err(first) => host.ask_worker(slot, release, call, limit).await.map_err(|again| {
            format!("the candidate's worker was lost twice: {first}; then {again}")
        }),
    }
}

fn unexpected(wanted: &str, reply: &Reply) -> String {
    match reply {
        // The record keeps its first 160 bytes: what the worker says of the cause comes first.
        Reply::Failed(failure) => failure.message.clone(),
        Reply::Hello(_)
        | Reply::Loaded(_)
        | Reply::Golden(_)
        | Reply::Embeddings(_)
        | Reply::Answer(_)
        | Reply::Scores(_)
        | Reply::Tokens(_)
        | Reply::Texts(_)
        | Reply::Statistics(_)
        | Reply::Unloaded
        | Reply::Pong
        | Reply::Bye => format!("expected {wanted}, the worker answered something else"),
    }
}

async fn read_manifest(state: &StateDir, due: Due) -> Result<Manifest, TrialError> {
    let path = state.slot(due.slot).manifest();
    let read = {
        let path = path.clone();
        move || RealDisk.read(&path, DOCUMENT_BYTES_MAX as u64)
    };
    let bytes = spawn_blocking(read).await?.map_err(|source| TrialError::Read { path, source })?;
    if Digest::of(&bytes) != due.release {
        return Err(TrialError::Other { slot: due.slot, release: due.release });
    }
    Ok(Manifest::parse(&bytes)?)
}

async fn load_verdict(state: &StateDir) -> Result<Option<Verdict>, TrialError> {
    let path = state.verdict();
    let load = move || state_file::load(&RealDisk, &path, MESSAGE_BYTES_MAX);
    Ok(spawn_blocking(load).await??)
}
