//! What the link to the fleet needs of this process, and what this process shows of the link.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use engine::worker::message::{Call, Reply};
use protocol::{digest::Digest, id::Slot, report::Vitals};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    fleet::{
        fleet_status::FleetStatus,
        host::{Health, Host},
        service::{self, FleetConfig},
    },
    installed::Installed,
    observe::{
        events::EventQueue,
        heartbeat::Heartbeats,
        logging,
        metrics::Metrics,
        status::Status,
        stopping::stopped,
        tally::Tally,
        vitals::{Sampler, VitalsError},
    },
    worker::{by_release::ByRelease, call_error::CallError, client::WorkerClient},
};

/// How long each loop of the link may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Why the link did not start.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The host's figures.
    #[error("preparing telemetry")]
    Vitals(#[from] VitalsError),
}

/// What the link is given.
pub struct Parts {
    /// Where this gateway runs from.
    pub installed: Installed,
    /// The gateway's picture of itself.
    pub status: Arc<Status>,
    /// Its counts.
    pub tally: Arc<Tally>,
    /// Its figures.
    pub metrics: Arc<Metrics>,
    /// The worker of its slot.
    pub worker: Option<Arc<WorkerClient>>,
}

/// The running link.
pub struct Link {
    task: JoinHandle<()>,
    status: watch::Receiver<FleetStatus>,
}

impl Link {
    /// Starts the link; it runs until `stop`.
    ///
    /// # Errors
    /// The host cannot be measured.
    pub fn start(
        parts: &Parts,
        queue: EventQueue,
        beats: &Heartbeats,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, LinkError> {
        let host: Arc<dyn Host> = Arc::new(Gateway::new(parts)?);
        let installed = &parts.installed;
        let config = FleetConfig::new(
            installed.state.clone(),
            installed.mqtt_socket(),
            env!("CARGO_PKG_VERSION").to_owned(),
            installed.slot,
        );
        let (sender, status) = watch::channel(FleetStatus::default());
        let figures = tokio::spawn(show(status.clone(), Arc::clone(&parts.metrics), stop.clone()));
        let parts = service::Parts {
            config,
            host,
            news: queue,
            status: sender,
            link_beat: beats.beat("link", SILENCE_MAX),
            trial_beat: beats.beat("trial", SILENCE_MAX),
            stop,
        };
        let task = tokio::spawn(async move {
            if let Err(reason) = service::run(parts).await {
                tracing::error!("the link to the fleet ended: {}", logging::chain(&reason));
            }
            figures.abort();
        });
        Ok(Self { task, status })
    }

    /// What the link says of itself, as JSON.
    pub fn described(&self) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
        let status = self.status.clone();
        Arc::new(move || serde_json::to_value(&*status.borrow()).unwrap_or_default())
    }

    /// Ends when the link has.
    pub fn into_task(self) -> JoinHandle<()> {
        self.task
    }
}

/// Keeps the link's figures for Prometheus, until `stop`.
async fn show(
    mut status: watch::Receiver<FleetStatus>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        {
            let status = status.borrow_and_update();
            let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            metrics.link_online.set(i64::from(status.connected));
            metrics.outbox_entries.set(count(status.outbox_entries as u64));
            metrics.outbox_dropped.set(count(status.outbox_dropped));
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = stopped(&mut stop) => return,
        }
    }
}

/// This gateway, as the link sees it.
struct Gateway {
    installed: Installed,
    status: Arc<Status>,
    tally: Arc<Tally>,
    worker: Option<Arc<WorkerClient>>,
    sampler: Mutex<Sampler>,
    /// Workers besides our own.
    others: ByRelease,
}

impl Gateway {
    fn new(parts: &Parts) -> Result<Self, LinkError> {
        let sampler = Sampler::new(parts.installed.state.root().to_path_buf())?;
        Ok(Self {
            installed: parts.installed.clone(),
            status: Arc::clone(&parts.status),
            tally: Arc::clone(&parts.tally),
            worker: parts.worker.clone(),
            sampler: Mutex::new(sampler),
            others: ByRelease::default(),
        })
    }

    /// The worker of `release` in `slot`. Who asks says which release it must be: the picture that this gateway shows of
    /// the boot record may be older than what they read, and name the release that lay there before.
    fn worker_of(&self, slot: Slot, release: Digest) -> Arc<WorkerClient> {
        let ours = (self.installed.slot, self.installed.release) == (Some(slot), Some(release));
        match &self.worker {
            Some(worker) if ours => Arc::clone(worker),
            Some(_) | None => self.others.client(self.installed.worker_socket(slot), release),
        }
    }
}

impl Host for Gateway {
    fn health(&self) -> Health {
        let (ready, compute) =
            self.status.look(|snapshot| (snapshot.ready(), snapshot.compute().to_owned()));
        Health { ready, compute, answered: self.tally.answered(), failed: self.tally.failed() }
    }

    fn vitals(&self) -> Vitals {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner).sample(&self.tally)
    }

    fn ask_worker(
        &self,
        slot: Slot,
        release: Digest,
        call: Call,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, String>> + Send + '_>> {
        let worker = self.worker_of(slot, release);
        Box::pin(async move {
            match worker.ask(call, limit).await {
                // What a worker says of a candidate is for the gate to judge.
                Err(CallError::Failed(failure)) => Ok(Reply::Failed(failure)),
                other => other.map_err(|reason| logging::chain(&reason)),
            }
        })
    }
}
