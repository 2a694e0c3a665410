//! The one picture of this gateway that its parts share: the daemon writes, the local API shows.

use std::sync::Arc;

use engine::worker::message::ModelInfo;
use protocol::{digest::Digest, id::Slot, time::UnixMs};
use slots::boot::BootRecord;
use tokio::sync::watch;

/// How the processes are kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each by its own systemd unit.
    Services,
    /// All by one parent, `socle-agent run --single`.
    Single,
}

/// What this gateway knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// How the processes are kept alive.
    pub mode: Mode,
    /// When this process started.
    pub started_at: UnixMs,
    /// Slot this process runs from; none is the factory slot.
    pub slot: Option<Slot>,
    /// Release this process runs from.
    pub release: Option<Digest>,
    /// Its name.
    pub release_name: Option<String>,
    /// The boot record as last read.
    pub record: Option<Arc<BootRecord>>,
    /// The worker of this process's slot.
    pub worker: WorkerHealth,
    /// Whether this process finishes what it has and then ends.
    pub draining: bool,
}

/// How the worker is.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerHealth {
    /// There is none, since there is no model.
    Absent {
        /// Why.
        reason: String,
    },
    /// It is being started, or loads.
    Starting,
    /// All its models are loaded.
    Ready {
        /// Its process.
        pid: u32,
        /// What it computes on.
        device: String,
        /// Its models.
        models: Vec<ModelInfo>,
    },
    /// It does not answer, or a model does not load.
    Down {
        /// Why.
        reason: String,
    },
}

/// The shared picture.
#[derive(Debug)]
pub struct Status(watch::Sender<Snapshot>);

impl Snapshot {
    /// Whether requests to models can be answered.
    pub const fn ready(&self) -> bool {
        matches!(self.worker, WorkerHealth::Ready { .. }) && !self.draining
    }

    /// Why not, if so.
    pub fn not_ready(&self) -> Option<String> {
        if self.draining {
            return Some("the gateway is ending; its successor takes over".to_owned());
        }
        match &self.worker {
            WorkerHealth::Ready { .. } => None,
            WorkerHealth::Starting => Some("the models are being loaded".to_owned()),
            WorkerHealth::Absent { reason } | WorkerHealth::Down { reason } => Some(reason.clone()),
        }
    }

    /// What inference runs on.
    pub fn compute(&self) -> &str {
        match &self.worker {
            WorkerHealth::Ready { device, .. } => device,
            WorkerHealth::Absent { .. } | WorkerHealth::Starting | WorkerHealth::Down { .. } => {
                "none"
            }
        }
    }
}

impl Status {
    /// A picture that begins as `snapshot`.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(watch::Sender::new(snapshot))
    }

    /// A copy of the picture now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.borrow().clone()
    }

    /// Looks at the picture without a copy; `look` must be quick.
    pub fn look<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Tells of every change from now on.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.0.subscribe()
    }

    /// Changes the picture; who watches is told only when it is another one.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.send_if_modified(|snapshot| {
            let before = snapshot.clone();
            change(snapshot);
            *snapshot != before
        });
    }
}
