//! What the link needs of the gateway it runs in.

use std::{future::Future, pin::Pin, time::Duration};

use engine::worker::message::{Call, Reply};
use protocol::{digest::Digest, id::Slot, report::Vitals};

/// How the gateway is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it can answer.
    pub ready: bool,
    /// Where inference runs: `cpu`, or an adapter's name.
    pub compute: String,
    /// Good answers since it started.
    pub answered: u64,
    /// Failures of our own since it started.
    pub failed: u64,
}

/// A worker's reply, or in words why there is none.
pub type WorkerReply<'a> = Pin<Box<dyn Future<Output = Result<Reply, String>> + Send + 'a>>;

/// The gateway, as the link sees it.
pub trait Host: Send + Sync + 'static {
    /// How it is doing. Cheap.
    fn health(&self) -> Health;

    /// Figures of the host. May block for some milliseconds.
    fn vitals(&self) -> Vitals;

    /// One call to the worker that serves `release` from `slot`, which is started if it does not run. One that still
    /// serves what lay there before is ended first.
    fn ask_worker(
        &self,
        slot: Slot,
        release: Digest,
        call: Call,
        limit: Duration,
    ) -> WorkerReply<'_>;
}
