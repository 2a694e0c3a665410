//! A request that is being done: its inputs, what was computed of them so far, and who wants the result.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    model::{Input, Model},
    worker::{failure::Failure, message::Terms, seat::Seat},
};

/// Takes the result of an order. Runs on the thread that computed the last part of it, so it must not wait.
pub type Finish = Box<dyn FnOnce(Result<Computed, Failure>) + Send>;

/// What came of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    /// What the model gave for each input, in their order.
    pub outputs: Vec<Vec<f32>>,
    /// Tokens of each input.
    pub tokens: Vec<u32>,
    /// What it waited in all before its first part was computed.
    pub queue_us: u64,
    /// All its parts together.
    pub compute_us: u64,
}

/// A request whose texts are tokens already.
pub struct Order {
    /// Where its model sits.
    pub seat: Arc<Seat>,
    /// Its model, which stays in memory as long as somebody has an order.
    pub model: Arc<Model>,
    /// What to compute.
    pub inputs: Vec<Input>,
    /// How soon.
    pub terms: Terms,
    /// When the request came to the worker.
    pub arrived_us: u64,
    /// What reading its texts took.
    pub read_us: u64,
    progress: Mutex<Progress>,
}

struct Progress {
    outputs: Vec<Option<Vec<f32>>>,
    begun_us: Option<u64>,
    compute_us: u64,
    /// None once the result was given.
    finish: Option<Finish>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Order({} inputs, {:?})", self.inputs.len(), self.terms)
    }
}

/// What an order is made from.
pub struct NewOrder {
    /// See [`Order::seat`].
    pub seat: Arc<Seat>,
    /// See [`Order::model`].
    pub model: Arc<Model>,
    /// See [`Order::inputs`].
    pub inputs: Vec<Input>,
    /// See [`Order::terms`].
    pub terms: Terms,
    /// See [`Order::arrived_us`].
    pub arrived_us: u64,
    /// See [`Order::read_us`].
    pub read_us: u64,
}

impl Order {
    /// An order of which nothing is computed yet.
    pub fn new(new: NewOrder, finish: Finish) -> Self {
        let NewOrder { seat, model, inputs, terms, arrived_us, read_us } = new;
        let progress = Progress {
            outputs: vec![None; inputs.len()],
            begun_us: None,
            compute_us: 0,
            finish: Some(finish),
        };
        Self { seat, model, inputs, terms, arrived_us, read_us, progress: Mutex::new(progress) }
    }

    /// When nobody wants it any more.
    pub fn deadline_us(&self) -> Option<u64> {
        self.terms.deadline_us.map(|deadline_us| self.arrived_us.saturating_add(deadline_us))
    }

    /// A part of it begins to be computed.
    pub fn begin(&self, now_us: u64) {
        self.progress().begun_us.get_or_insert(now_us);
    }

    /// The outputs of a part, computed in `took_us`; gives the result when it was the last one.
    pub fn give(&self, part: Range<usize>, outputs: Vec<Vec<f32>>, took_us: u64) {
        let mut progress = self.progress();
        progress.compute_us = progress.compute_us.saturating_add(took_us);
        let places = progress.outputs.get_mut(part).unwrap_or_default();
        for (place, output) in places.iter_mut().zip(outputs) {
            *place = Some(output);
        }
        if progress.outputs.iter().any(Option::is_none) {
            return;
        }
        let Some(finish) = progress.finish.take() else { return };
        let outputs = std::mem::take(&mut progress.outputs).into_iter().flatten().collect();
        let read_by_us = self.arrived_us.saturating_add(self.read_us);
        let begun_us = progress.begun_us.unwrap_or(read_by_us);
        let compute_us = progress.compute_us;
        drop(progress);
        let tokens: Vec<u32> = self.inputs.iter().map(Input::tokens).collect();
        let queue_us = begun_us.saturating_sub(read_by_us);
        {
            let mut statistics = self.seat.statistics();
            statistics.requests += 1;
            statistics.items += tokens.len() as u64;
            statistics.prepare_us.see(self.read_us);
            statistics.queue_us.see(queue_us);
        }
        finish(Ok(Computed { outputs, tokens, queue_us, compute_us }));
    }

    /// It is not done, or not to the end.
    pub fn fail(&self, failure: Failure) {
        let finish = self.progress().finish.take();
        if let Some(finish) = finish {
            finish(Err(failure));
        }
    }

    /// Whether its result was given already.
    pub fn is_over(&self) -> bool {
        self.progress().finish.is_none()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
