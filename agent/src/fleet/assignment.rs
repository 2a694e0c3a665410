//! The life of an assignment on this device: received, accepted, fetched, handed to the updater; or refused.
//!
//! The decisions are [`crate::fleet::desired`]'s; this is the loop that carries them out, one download at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use protocol::{
    blob::Blob,
    cbor::MESSAGE_BYTES_MAX,
    command::{Desired, Halt, Reader, Refusal},
    digest::Digest,
    report::{Event, EventKind},
    verified::Verified,
};
use slots::{
    boot::BootRecord,
    disk::{self, Disk, RealDisk},
    layout::StateDir,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::{
    fleet::{
        allowance::Allowance,
        artifact_server::ArtifactServer,
        backoff::Backoff,
        desired::{Decision, Progress, decide},
        fetch::{self, FetchError, Fetched, Job, Offer},
        fleet_status::FleetStatus,
        host::Host,
        identity::Identity,
        journal::Journal,
        mirrors::Transport,
        obeyed::{Obeyed, ObeyedError, ObeyedFile},
        record_watch::Records,
        reservation, state_file,
    },
    observe::{built, clock, logging::chain},
};

/// Refused messages that are told to the controller at once, and the pause before one more is. Anybody who can publish
/// on the broker can have messages refused.
const REFUSED_AT_ONCE: u32 = 8;
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// With so many reports waiting, none of them is told: what happens to releases needs the room.
const REFUSED_WAITING_MAX: usize = 1_000;

/// What the link hands over.
#[derive(Clone, Debug)]
pub enum Message {
    /// From the device's `desired` topic.
    Desired(Vec<u8>),
    /// From the fleet's `halt` topic.
    Halt(Vec<u8>),
}

/// What the loop is given.
pub struct Parts {
    /// Who this device is.
    pub identity: Arc<Identity>,
    /// Where everything lies.
    pub state: StateDir,
    /// Where releases come from.
    pub server: ArtifactServer,
    /// How their objects travel.
    pub transport: Transport,
    /// The gateway.
    pub host: Arc<dyn Host>,
    /// Where events are kept.
    pub journal: Journal,
    /// The boot record.
    pub records: Records,
    /// From the link.
    pub inbox: mpsc::Receiver<Message>,
    /// The newest halt, for the trial.
    pub halt: watch::Sender<Option<Halt>>,
    /// What the local status shows.
    pub status: watch::Sender<FleetStatus>,
    /// Attempts at one release before it is refused.
    pub attempts_max: u32,
    /// Waits between them.
    pub backoff: Backoff,
    /// Becomes true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

struct Download {
    task: JoinHandle<Result<Fetched, FetchError>>,
    cancel: Arc<AtomicBool>,
    release: Digest,
}

struct Assignment {
    parts: Parts,
    file: ObeyedFile,
    obeyed: Obeyed,
    desired: Option<Verified<Desired>>,
    download: Option<Download>,
    retry_at: Option<Instant>,
    refusals: Allowance,
    began: Instant,
}

/// Deals with assignments until the gateway stops.
pub async fn run(parts: Parts) {
    let file = ObeyedFile::new(&parts.state.identity());
    let obeyed = match file.load().await {
        Ok(obeyed) => obeyed,
        Err(error) => {
            // What is installed is guarded by the boot record's floors; only the order of assignments is forgotten.
            let detail = format!("{}; starting without it", chain(&error));
            parts.journal.keep_surely(event(EventKind::Alarm, None, detail), None).await;
            Obeyed::default()
        }
    };
    let mut assignment = Assignment {
        parts,
        file,
        obeyed,
        desired: None,
        download: None,
        retry_at: None,
        refusals: Allowance::new(REFUSED_AT_ONCE, REFUSED_EVERY),
        began: Instant::now(),
    };
    assignment.restore().await;
    assignment.live().await;
    if let Some(download) = assignment.download.take() {
        download.cancel.store(true, Ordering::Relaxed);
        if let Err(error) = download.task.await {
            tracing::debug!(%error, "the download ended with the runtime");
        }
    }
}

impl Assignment {
    async fn restore(&mut self) {
        self.desired = self.obeyed.desired(self.reader(), clock::now());
        let path = self.parts.state.halt();
        let read = spawn_blocking(move || state_file::bytes(&RealDisk, &path, MESSAGE_BYTES_MAX));
        if let Ok(Ok(Some(bytes))) = read.await {
            match self.reader().halt(&bytes, self.obeyed.halt_sequence) {
                Ok(halt) => drop(self.parts.halt.send_replace(Some(halt.into_inner()))),
                Err(error) => tracing::warn!("the kept halt is ignored: {}", chain(&error)),
            }
        }
        self.show();
    }

    async fn live(&mut self) {
        loop {
            if *self.parts.stop.borrow() {
                return;
            }
            if let Err(error) = self.consider().await {
                tracing::error!("{}", chain(&error));
                self.retry_later();
            }
            let retry_at = self.retry_at;
            tokio::select! {
                message = self.parts.inbox.recv() => match message {
                    Some(message) => {
                        if let Err(error) = self.receive(message).await {
                            tracing::error!("{}", chain(&error));
                        }
                    }
                    None => return,
                },
                changed = self.parts.records.changed() => if changed.is_err() { return },
                changed = self.parts.stop.changed() => if changed.is_err() { return },
                done = finished(&mut self.download) => {
                    if let Err(error) = self.fetched(done).await {
                        tracing::error!("{}", chain(&error));
                    }
                }
                () = due(retry_at) => self.retry_at = None,
            }
        }
    }

    fn reader(&self) -> Reader<'_> {
        reader(&self.parts.identity)
    }

    async fn receive(&mut self, message: Message) -> Result<(), ObeyedError> {
        match message {
            Message::Desired(bytes) => {
                let read =
                    reader(&self.parts.identity).desired(&bytes, self.obeyed.sequence, self.now());
                match read {
                    Ok(desired) => self.assigned(desired, bytes).await,
                    Err(refusal) => self.refused("assignment", &bytes, &refusal).await,
                }
            }
            Message::Halt(bytes) => {
                let read = reader(&self.parts.identity).halt(&bytes, self.obeyed.halt_sequence);
                match read {
                    Ok(halt) => self.halted(halt, bytes).await,
                    Err(refusal) => self.refused("halt", &bytes, &refusal).await,
                }
            }
        }
    }

    fn now(&self) -> protocol::time::UnixMs {
        let record = self.parts.records.borrow().clone();
        let clock = clock::now().max(built::AT);
        record.map_or(clock, |record| record.time(clock))
    }

    async fn assigned(
        &mut self,
        desired: Verified<Desired>,
        bytes: Vec<u8>,
    ) -> Result<(), ObeyedError> {
        let (sequence, release) = (desired.get().sequence, desired.get().release);
        let again = self.obeyed.desired.is_some() && sequence == self.obeyed.sequence;
        // A new signature on the same assignment only makes it hold longer.
        if !again {
            self.obeyed.progress = Progress::Received;
            self.retry_at = None;
            self.parts.backoff.succeeded();
            if let Some(download) = self.download.as_ref().filter(|d| d.release != release) {
                download.cancel.store(true, Ordering::Relaxed);
            }
        } else if self.desired.as_ref().is_some_and(|known| known.get().release != release) {
            tracing::warn!(sequence, "another release under a known sequence is ignored");
            return Ok(());
        }
        let bytes = Blob::from(bytes);
        let changed = self.obeyed.desired.as_ref() != Some(&bytes);
        self.obeyed.sequence = sequence;
        self.obeyed.desired = Some(bytes);
        self.desired = Some(desired);
        self.show();
        if changed { self.file.save(&self.obeyed).await } else { Ok(()) }
    }

    async fn halted(&mut self, halt: Verified<Halt>, bytes: Vec<u8>) -> Result<(), ObeyedError> {
        let halt = halt.into_inner();
        if self.parts.halt.borrow().as_ref() == Some(&halt) {
            return Ok(());
        }
        tracing::info!(
            sequence = halt.sequence,
            halted = halt.halted,
            reason = halt.reason,
            "halt"
        );
        // The updater checks it again before it arms anything.
        let path = self.parts.state.halt();
        let kept = spawn_blocking(move || disk::replace(&RealDisk, &path, &bytes)).await?;
        if let Err(error) = kept {
            tracing::error!(%error, "the halt cannot be left for the updater");
        }
        self.obeyed.halt_sequence = halt.sequence;
        self.parts.halt.send_replace(Some(halt));
        self.file.save(&self.obeyed).await
    }

    /// Says once that a message is refused. Nothing waits for this, and nothing is kept for it that others need: who sends
    /// what is refused need not be the controller.
    async fn refused(
        &mut self,
        what: &str,
        bytes: &[u8],
        refusal: &Refusal,
    ) -> Result<(), ObeyedError> {
        let digest = Digest::of(bytes);
        let detail = format!("{what} refused: {}", chain(refusal));
        self.parts.status.send_modify(|status| status.last_error = Some(detail.clone()));
        if self.obeyed.refused == Some(digest) {
            return Ok(());
        }
        if self.parts.journal.watch().borrow().waiting > REFUSED_WAITING_MAX {
            return Ok(());
        }
        let Some(untold) = self.refusals.take(self.began.elapsed()) else { return Ok(()) };
        let detail = match untold {
            0 => detail,
            count => format!("{detail}; {count} more since the last report of this kind"),
        };
        tracing::warn!("{detail}");
        let told = self.parts.journal.keep(event(EventKind::Refused, None, detail), None).await;
        if let Err(error) = told {
            tracing::warn!("the controller is not told of it: {}", chain(&error));
            return Ok(());
        }
        self.obeyed.refused = Some(digest);
        self.file.save(&self.obeyed).await
    }

    /// Does what is due about the newest assignment.
    async fn consider(&mut self) -> Result<(), ObeyedError> {
        let (Some(desired), Some(record)) =
            (self.desired.clone(), self.parts.records.borrow_and_update().clone())
        else {
            return Ok(());
        };
        if self.download.is_some() || self.retry_at.is_some() {
            return Ok(());
        }
        let halted = self.parts.halt.borrow().clone();
        let halted = halted.filter(|halt| halt.forbids(&desired.get().release));
        let halted = halted.as_ref().map(|halt| halt.reason.as_str());
        match decide(&desired, self.obeyed.progress, &record, halted) {
            Decision::Ignore => self.clean(&desired, &record).await,
            Decision::Wait(words) => {
                self.say(words);
                Ok(())
            }
            Decision::AlreadyThere => {
                let detail = "already committed and running; nothing to do".to_owned();
                self.close(EventKind::Committed, &desired, detail).await
            }
            Decision::Refuse(reason) => self.close(EventKind::Refused, &desired, reason).await,
            Decision::Fetch => {
                if self.obeyed.progress == Progress::Received {
                    let detail = format!("assignment {} accepted", desired.get().sequence);
                    self.tell(EventKind::Accepted, &desired, detail).await;
                    self.obeyed.progress = Progress::Accepted;
                    self.file.save(&self.obeyed).await?;
                }
                self.start(desired, &record);
                Ok(())
            }
        }
    }

    fn start(&mut self, desired: Verified<Desired>, record: &BootRecord) {
        self.say(format!("fetching release {}", desired.get().release.short()));
        let cancel = Arc::new(AtomicBool::new(false));
        let release = desired.get().release;
        let desired_bytes = self.obeyed.desired.clone().unwrap_or_default().into_vec();
        let (state, server) = (self.parts.state.clone(), self.parts.server.clone());
        let transport = self.parts.transport.clone();
        let environment = self.parts.identity.enrolled.environment.clone();
        let (counter_floor, now) = (record.counter_floor, self.now());
        let host = Arc::clone(&self.parts.host);
        let stop = Arc::clone(&cancel);
        let task = spawn_blocking(move || {
            let vitals = host.vitals();
            let offer = Offer {
                platform: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
                memory_bytes: vitals.memory_total_bytes,
                disk_free_bytes: vitals.disk_free_bytes,
            };
            let job = Job {
                state,
                server,
                transport,
                desired,
                desired_bytes,
                environment,
                counter_floor,
                offer,
                now,
            };
            fetch::fetch(&job, &stop)
        });
        self.download = Some(Download { task, cancel, release });
    }

    async fn fetched(&mut self, done: Done) -> Result<(), ObeyedError> {
        let Some(desired) = self.desired.clone() else { return Ok(()) };
        if done.release != desired.get().release {
            // It was cancelled for another one.
            return Ok(());
        }
        match done.result {
            Ok(fetched) => {
                let detail = format!("{}: {}", fetched.name, fetched.in_words());
                self.tell(EventKind::Fetched, &desired, detail).await;
                self.say(format!("{} is fetched; the updater takes over", fetched.name));
                self.parts.backoff.succeeded();
                self.obeyed.progress = Progress::Requested;
                self.file.save(&self.obeyed).await
            }
            Err(error) if error.stopped() => Ok(()),
            Err(error) => {
                let passes = error.passes();
                let words = chain(&error);
                let attempts = self.parts.backoff.failures() + 1;
                if passes && attempts < self.parts.attempts_max {
                    tracing::warn!(attempts, "{words}; trying again");
                    self.say(format!("attempt {attempts} failed: {words}"));
                    self.retry_later();
                    return Ok(());
                }
                let detail = if passes {
                    format!("given up after {attempts} attempts: {words}")
                } else {
                    words
                };
                self.parts.backoff.succeeded();
                self.close(EventKind::Refused, &desired, detail).await
            }
        }
    }

    /// Once the updater has taken everything, the staging area need not hold it twice.
    async fn clean(
        &mut self,
        desired: &Verified<Desired>,
        record: &BootRecord,
    ) -> Result<(), ObeyedError> {
        let release = desired.get().release;
        let taken = match record.state.phase() {
            "staging" => false,
            _ => [record.state.trial().map(|trial| &trial.held), record.state.active()]
                .into_iter()
                .flatten()
                .any(|held| held.release == release),
        };
        if self.obeyed.progress != Progress::Requested || !taken {
            return Ok(());
        }
        let folder = self.parts.state.staged_objects();
        let emptied = spawn_blocking(move || {
            for name in RealDisk.list(&folder)? {
                RealDisk.remove_file(&folder.join(name))?;
            }
            Ok::<(), std::io::Error>(())
        });
        if let Err(error) = emptied.await? {
            tracing::warn!(%error, "the staging area cannot be emptied");
        }
        self.say(String::new());
        self.obeyed.progress = Progress::Closed;
        self.file.save(&self.obeyed).await
    }

    async fn close(
        &mut self,
        kind: EventKind,
        desired: &Verified<Desired>,
        detail: String,
    ) -> Result<(), ObeyedError> {
        if kind == EventKind::Refused {
            tracing::warn!(release = desired.get().release.short(), "refused: {detail}");
            let state = self.parts.state.clone();
            let released = spawn_blocking(move || reservation::release(&state)).await?;
            if let Err(error) = released {
                tracing::warn!(%error, "the room held for the release is not given back");
            }
        }
        self.say(detail.clone());
        self.tell(kind, desired, detail).await;
        self.obeyed.progress = Progress::Closed;
        self.file.save(&self.obeyed).await
    }

    async fn tell(&self, kind: EventKind, desired: &Verified<Desired>, detail: String) {
        let Desired { release, rollout, .. } = desired.get();
        let event = Event { kind, release: Some(*release), rollout: *rollout, detail };
        self.parts.journal.keep_surely(event, None).await;
    }

    fn retry_later(&mut self) {
        let wait = self.parts.backoff.after_failure(fastrand::f64());
        self.retry_at = Some(now_plus(wait));
    }

    fn say(&self, words: String) {
        self.parts.status.send_modify(|status| status.assignment = words);
    }

    fn show(&self) {
        let sequence = self.obeyed.sequence;
        self.parts.status.send_modify(|status| status.desired_sequence = sequence);
    }
}

struct Done {
    release: Digest,
    result: Result<Fetched, FetchError>,
}

/// The end of the download, if there is one; else never.
async fn finished(download: &mut Option<Download>) -> Done {
    match download {
        None => std::future::pending().await,
        Some(running) => {
            let joined = (&mut running.task).await;
            let release = running.release;
            *download = None;
            match joined {
                Ok(result) => Done { release, result },
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => std::future::pending().await,
            }
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now_plus(wait: Duration) -> Instant {
    Instant::now() + wait
}

fn reader(identity: &Identity) -> Reader<'_> {
    Reader {
        fleet: identity.fleet(),
        device: identity.device(),
        controller_keys: &identity.enrolled.controller_keys,
    }
}

fn event(kind: EventKind, release: Option<Digest>, detail: String) -> Event {
    Event { kind, release, rollout: 0, detail }
}
