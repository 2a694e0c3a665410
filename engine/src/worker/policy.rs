//! How a worker shares the machine among its models and those who ask.

use crate::worker::{lanes::QueuePolicy, plan};

/// What is decided for one worker; what is decided for one model stands in its `model.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What loaded models together may take of memory, by what their packages say; none for all of them.
    pub memory_bytes: Option<u64>,
    /// Longest that loading one model may take, in milliseconds of processor time, whatever its package says.
    pub load_ms_max: u64,
    /// Models that are never unloaded to make room, as `name` or `name@version`.
    pub pinned: Vec<String>,
    /// How long a batch should take, in microseconds, when more waits than that.
    pub batch_us: u64,
    /// Most requests that wait to be read.
    pub requests_max: usize,
    /// Most bytes of requests that were accepted and are not answered.
    pub requests_bytes_max: u64,
    /// The queue of those that were read.
    pub queue: QueuePolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            load_ms_max: 120_000,
            pinned: Vec::new(),
            batch_us: 10_000,
            requests_max: 1_024,
            requests_bytes_max: 64 << 20,
            queue: QueuePolicy {
                orders_max: 1_024,
                tokens_max: 256 * 1_024,
                plan: plan::Policy { patience_us: 10_000_000, bulk_every: 4 },
            },
        }
    }
}
