//! Keeps the worker of this gateway's slot loaded: starts it by connecting, loads its models, starts it again when it died.

use std::{sync::Arc, time::Duration};

use engine::worker::message::{ModelState, WorkerInfo};
use protocol::{digest::Digest, report::EventKind};
use tokio::{sync::watch, time};

use crate::{
    observe::{
        events::Events,
        heartbeat::Beat,
        logging,
        metrics::Metrics,
        status::{Status, WorkerHealth},
        stopping::stopped,
    },
    worker::{call_error::CallError, client::WorkerClient},
};

/// Pause between looks at a worker that is well.
const WELL: Duration = Duration::from_secs(1);
/// Pause before a worker that is not well is tried again.
const UNWELL: Duration = Duration::from_millis(500);
/// Longest wait for a greeting, which a worker gives whatever else it does.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// Longest time one model may take to load.
const LOAD_MAX: Duration = Duration::from_secs(120);
/// How long the loop may be silent: greeting, one load, greeting.
pub const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Why the worker is not well.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error("asking the worker")]
    Call(#[from] CallError),
    #[error("model package `{dir}` of this slot is broken: {message}")]
    Broken { dir: String, message: String },
    #[error("this slot has no model")]
    NoModel,
}

/// One start of a worker. Its process id alone may have been another's before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    pid: u32,
    random: u64,
}

impl Start {
    const fn of(info: &WorkerInfo) -> Self {
        Self { pid: info.pid, random: info.start }
    }
}

/// What is kept.
#[derive(Debug)]
pub struct Keeper {
    /// The worker.
    pub worker: Arc<WorkerClient>,
    /// Its release.
    pub release: Option<Digest>,
    /// Where its health is shown.
    pub status: Arc<Status>,
    /// Where restarts are counted.
    pub metrics: Arc<Metrics>,
    /// Where restarts are told.
    pub events: Events,
    /// The loop's heartbeat.
    pub beat: Beat,
}

/// Keeps the worker until `stop`.
pub async fn run(keeper: Keeper, mut stop: watch::Receiver<bool>) {
    let mut last = None;
    loop {
        keeper.beat.tick();
        let tended = tokio::select! {
            tended = tend(&keeper, last) => tended,
            () = stopped(&mut stop) => break,
        };
        let pause = match tended {
            Ok(info) => {
                let now = Start::of(&info);
                if let Some(before) = last.replace(now).filter(|before| *before != now) {
                    restarted(&keeper, before.pid, now.pid).await;
                }
                let WorkerInfo { pid, device, models, .. } = info;
                show(&keeper.status, WorkerHealth::Ready { pid, device, models });
                WELL
            }
            Err(reason) => {
                show(&keeper.status, WorkerHealth::Down { reason: logging::chain(&reason) });
                UNWELL
            }
        };
        tokio::select! {
            () = time::sleep(pause) => {}
            // The next one is started at once, and loaded before anybody asks for it.
            () = keeper.worker.gone(), if pause == WELL => {}
            () = stopped(&mut stop) => break,
        }
    }
    keeper.beat.end();
}

/// One look: who is there, with every model loaded that fits. `known` is the worker that was so already: which models
/// it holds since then is its own affair.
async fn tend(keeper: &Keeper, known: Option<Start>) -> Result<WorkerInfo, Unwell> {
    let worker = &keeper.worker;
    let info = worker.hello(GREETING_MAX).await?;
    if let Some(broken) = info.broken.first() {
        return Err(Unwell::Broken { dir: broken.dir.clone(), message: broken.message.clone() });
    }
    if info.models.is_empty() {
        return Err(Unwell::NoModel);
    }
    let waiting =
        info.models.iter().filter(|model| model.preload && model.state != ModelState::Loaded);
    let waiting: Vec<String> =
        waiting.map(|model| format!("{}@{}", model.name, model.version)).collect();
    if waiting.is_empty() || known == Some(Start::of(&info)) {
        return Ok(info);
    }
    let mut refused = None;
    for model in &waiting {
        match worker.load(model, LOAD_MAX).await {
            Ok(loaded) => tracing::info!(model, load_ms = loaded.load_us / 1000, "model loaded"),
            // One that cannot be loaded holds up no other.
            Err(reason @ CallError::Failed(_)) => refused = refused.or(Some(reason)),
            Err(reason) => return Err(reason.into()),
        }
        keeper.beat.tick();
    }
    match refused {
        Some(reason) => Err(reason.into()),
        None => Ok(worker.hello(GREETING_MAX).await?),
    }
}

async fn restarted(keeper: &Keeper, old: u32, new: u32) {
    keeper.metrics.worker_restarts.inc();
    let detail = format!("worker {old} ended; worker {new} took its place");
    keeper.events.tell(EventKind::WorkerRestarted, keeper.release, detail).await;
}

fn show(status: &Status, health: WorkerHealth) {
    let before = status.look(|snapshot| snapshot.worker.clone());
    match (&before, &health) {
        (_, WorkerHealth::Down { reason }) if before != health => {
            tracing::warn!(reason, "worker is down");
        }
        (WorkerHealth::Ready { pid: old, .. }, WorkerHealth::Ready { pid, .. }) if old == pid => {}
        (_, WorkerHealth::Ready { pid, device, models }) => {
            tracing::info!(pid, device, models = models.len(), "worker is ready");
        }
        (_, WorkerHealth::Down { .. } | WorkerHealth::Absent { .. } | WorkerHealth::Starting) => {}
    }
    status.update(|snapshot| snapshot.worker = health);
}
