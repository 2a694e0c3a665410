//! The place of one model in a worker: its package, the model itself while it is loaded, and what it did so far.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    model::Model,
    package::{Package, Task},
    worker::{
        failure::{Failure, FailureKind},
        memory::Pinned,
        message::{ModelInfo, ModelState, ModelStatistics},
        plan::{Budget, ModelKey},
    },
};

/// Fewest tokens of a batch, however slow the model.
const BATCH_TOKENS_MIN: u64 = 32;
/// Tokens of a batch of a model that did not run yet.
const BATCH_TOKENS_FIRST: u64 = 256;
/// How much the newest batch counts for the speed of a model.
const NEWEST_COUNTS: f64 = 0.2;

/// The place of one model.
#[derive(Debug)]
pub struct Seat {
    /// Names it within the worker.
    pub key: ModelKey,
    /// Its package.
    pub package: Package,
    /// Whether its name alone means it.
    pub newest: bool,
    /// Whether it may be unloaded to make room.
    pub pinned: Pinned,
    /// Whether it is loaded when the worker starts.
    pub preload: bool,
    /// How long a batch of it should take, in microseconds.
    pub batch_us: u64,
    state: Mutex<State>,
    statistics: Mutex<ModelStatistics>,
    /// Tokens that one lane computes in a millisecond, as the bits of an f64; 0 before the first batch.
    tokens_per_ms: AtomicU64,
}

/// What a seat is made from.
#[derive(Debug)]
pub struct NewSeat {
    /// See [`Seat::key`].
    pub key: ModelKey,
    /// See [`Seat::package`].
    pub package: Package,
    /// See [`Seat::newest`].
    pub newest: bool,
    /// See [`Seat::pinned`].
    pub pinned: Pinned,
    /// See [`Seat::preload`].
    pub preload: bool,
}

#[derive(Debug)]
enum State {
    OnDisk,
    Loading,
    Loaded { model: Arc<Model>, used_us: u64 },
}

impl Seat {
    /// A seat of a model that is not loaded.
    pub fn new(new: NewSeat, batch_us: u64) -> Self {
        let NewSeat { key, package, newest, pinned, preload } = new;
        let statistics = ModelStatistics::new(&package.spec.name, &package.spec.version);
        Self {
            key,
            package,
            newest,
            pinned,
            preload,
            batch_us,
            state: Mutex::new(State::OnDisk),
            statistics: Mutex::new(statistics),
            tokens_per_ms: AtomicU64::new(0),
        }
    }

    /// The model, if it is loaded; it is used at `now_us`.
    pub fn model(&self, now_us: u64) -> Option<Arc<Model>> {
        match &mut *self.state() {
            State::Loaded { model, used_us } => {
                *used_us = now_us;
                Some(Arc::clone(model))
            }
            State::OnDisk | State::Loading => None,
        }
    }

    /// When the model was used last, if it is loaded.
    pub fn used_us(&self) -> Option<u64> {
        match &*self.state() {
            State::Loaded { used_us, .. } => Some(*used_us),
            State::OnDisk | State::Loading => None,
        }
    }

    /// It begins to be loaded.
    pub fn begin_loading(&self) {
        *self.state() = State::Loading;
    }

    /// It is loaded, or not after all.
    pub fn end_loading(&self, model: Option<Arc<Model>>, now_us: u64, took_us: u64) {
        let loaded = model.is_some();
        *self.state() =
            model.map_or(State::OnDisk, |model| State::Loaded { model, used_us: now_us });
        if loaded {
            let mut statistics = self.statistics();
            statistics.loads += 1;
            statistics.last_load_us = took_us;
        }
    }

    /// Forgets the model. Its memory is free when the last order of it is done.
    pub fn unload(&self) {
        let before = std::mem::replace(&mut *self.state(), State::OnDisk);
        match before {
            State::Loaded { .. } => self.statistics().unloads += 1,
            State::OnDisk | State::Loading => {}
        }
    }

    /// What it did so far.
    pub fn statistics(&self) -> MutexGuard<'_, ModelStatistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch was computed.
    pub fn computed(&self, items: usize, tokens: u64, took_us: u64) {
        let rate = tokens as f64 * 1_000.0 / took_us.max(1) as f64;
        let before = self.tokens_per_ms();
        let rate = if before > 0.0 { before + (rate - before) * NEWEST_COUNTS } else { rate };
        self.tokens_per_ms.store(rate.to_bits(), Ordering::Relaxed);
        self.statistics().computed(items, tokens, took_us);
    }

    /// Tokens that one lane computes in a millisecond; 0 before the first batch.
    pub fn tokens_per_ms(&self) -> f64 {
        f64::from_bits(self.tokens_per_ms.load(Ordering::Relaxed))
    }

    /// What a batch may hold: as much as it computes in `batch_us`, within the limits of the package.
    pub fn budget(&self) -> Budget {
        let limits = &self.package.spec.limits;
        let rate = self.tokens_per_ms();
        let tokens = if rate > 0.0 {
            (rate * self.batch_us as f64 / 1_000.0) as u64
        } else {
            BATCH_TOKENS_FIRST
        };
        let most = u64::from(limits.tokens_max).max(BATCH_TOKENS_MIN);
        Budget {
            tokens_max: tokens.clamp(BATCH_TOKENS_MIN, most),
            sequences_max: limits.batch_max as usize,
        }
    }

    /// What somebody is told who waits for the model on a thread that is given up, and `why` that is.
    pub fn given_up(&self, why: &str) -> Failure {
        let name = format!("{}@{}", self.package.spec.name, self.package.spec.version);
        let (kind, message) = match &*self.state() {
            State::Loading => (
                FailureKind::CannotLoad,
                format!(
                    "loading model `{name}` was given up: {why}; where it needs more, raise `load_ms` in the policy of the \
                     release and `limits.load_seconds_max` of the package"
                ),
            ),
            State::OnDisk | State::Loaded { .. } => (
                FailureKind::ModelFailed,
                format!("model `{name}` was given up on this request: {why}"),
            ),
        };
        Failure::new(kind, message)
    }

    /// What the gateway is told of it.
    pub fn info(&self) -> ModelInfo {
        let spec = &self.package.spec;
        let labels = match spec.task {
            Task::Classification => spec.classification.as_ref().map(|head| &head.labels),
            Task::Bytes => spec.bytes.as_ref().map(|head| &head.labels),
            Task::Embedding | Task::Assistant | Task::Rerank => None,
        };
        let (state, weights) = match &*self.state() {
            State::OnDisk => (ModelState::OnDisk, None),
            State::Loading => (ModelState::Loading, None),
            State::Loaded { model, .. } => (ModelState::Loaded, model.weight_form()),
        };
        ModelInfo {
            name: spec.name.clone(),
            version: spec.version.clone(),
            task: spec.task,
            dim: spec.encoder.dim,
            digest: self.package.digest,
            text_bytes_max: spec.limits.text_bytes_max,
            batch_max: spec.limits.batch_max,
            state,
            newest: self.newest,
            preload: self.preload,
            tokens_max: spec.tokenizer.max_tokens,
            pooling: spec.encoder.pooling,
            prefixes: !spec.encoder.prefixes.is_empty(),
            labels: labels.cloned().unwrap_or_default(),
            licence: spec.licence.clone(),
            weights,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
