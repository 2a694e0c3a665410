//! The threads that compute, and the queues they take from: requests whose texts are to be read, which makes orders of
//! them, and orders. Which orders they compute together is decided by [`crate::worker::plan`].
//!
//! A lane that has read a request goes on to compute it, so that a lone request meets one thread.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    num::NonZeroUsize,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    cause::chain,
    model::Input,
    pulse,
    worker::{
        crew::Crew,
        failure::{Failure, FailureKind},
        hang::Watched,
        jobs::Refused,
        order::Order,
        plan::{self, Budget, ModelKey, Plan, Policy, Ticket, Turn, Waiting},
    },
};

/// Longest that a client is told to wait.
const RETRY_MS_MAX: u64 = 30_000;
/// Shortest.
const RETRY_MS_MIN: u64 = 20;

/// Requests that a lane reads one after the other while orders wait.
const READ_IN_A_ROW: u32 = 32;

/// Reads a request; none when that answered it already.
pub type Reading = Box<dyn FnOnce() -> Option<Order> + Send>;

/// What the queue may hold, and how it is worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most orders that wait; as many requests may wait to be read.
    pub orders_max: usize,
    /// Most tokens that wait; a single order may have more while none waits.
    pub tokens_max: u64,
    /// How the next batch is chosen.
    pub plan: Policy,
}

/// Lanes and their queue.
#[derive(Debug)]
pub struct Lanes {
    shared: Arc<Shared>,
    crew: Crew,
}

struct Shared {
    policy: QueuePolicy,
    lanes: usize,
    now_us: fn() -> u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Requests that are to be read, in the order in which they came.
    unread: VecDeque<Reading>,
    /// Lanes that read one now.
    reading: usize,
    waiting: Vec<Waiting>,
    orders: BTreeMap<Ticket, Arc<Order>>,
    next: Ticket,
    turn: Turn,
    /// Tokens in `waiting` that were not taken.
    tokens: u64,
    closed: bool,
}

/// What a lane does next.
enum Next {
    Read(Reading),
    Compute(Batch),
}

/// What one lane computes at once.
#[derive(Debug, Default)]
struct Batch {
    parts: Vec<Part>,
    tokens: u64,
}

#[derive(Debug)]
struct Part {
    order: Arc<Order>,
    inputs: Range<usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        write!(f, "Lanes({} orders of {} tokens wait)", state.waiting.len(), state.tokens)
    }
}

impl Lanes {
    /// Starts `lanes` threads. `now_us` is a clock that never goes back.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        lanes: NonZeroUsize,
        policy: QueuePolicy,
        now_us: fn() -> u64,
    ) -> io::Result<Self> {
        let state = State {
            unread: VecDeque::new(),
            reading: 0,
            waiting: Vec::new(),
            orders: BTreeMap::new(),
            next: 1,
            turn: Turn::default(),
            tokens: 0,
            closed: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { policy, lanes: lanes.get(), now_us, state, changed });
        let there = Arc::clone(&shared);
        let crew = Crew::start("lane", lanes, move || there.work());
        match crew {
            Ok(crew) => Ok(Self { shared, crew }),
            Err(reason) => {
                shared.close();
                Err(reason)
            }
        }
    }

    /// By what it is seen whether a lane hangs.
    pub fn watched(&self) -> Vec<Watched> {
        self.crew.watched()
    }

    /// Has a lane read a request and compute the order that comes of it.
    ///
    /// # Errors
    /// The queue is full, or closed.
    pub fn read(&self, reading: Reading) -> Result<(), Refused> {
        let mut state = self.shared.lock();
        let most = self.shared.policy.orders_max;
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.unread.len() >= most || state.waiting.len() >= most {
            return Err(Refused::Full);
        }
        state.unread.push_back(reading);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Queues an order that was read elsewhere, or fails it at once: the queue is full, or the worker is ending.
    pub fn submit(&self, order: Order) {
        if self.shared.admit_or_fail(order) {
            self.shared.changed.notify_one();
        }
    }

    /// How many orders wait, and how many tokens.
    pub fn backlog(&self) -> (usize, u64) {
        let state = self.shared.lock();
        (state.waiting.len(), state.tokens)
    }

    /// In how many milliseconds what waits now is likely to be done, at `tokens_per_ms` of one lane.
    pub fn retry_after_ms(&self, tokens_per_ms: f64) -> u32 {
        self.shared.retry_after_ms(self.backlog().1, tokens_per_ms)
    }

    /// Takes no more orders, computes those that wait, and returns when the last one is done.
    pub fn close(&self) {
        self.shared.close();
        self.crew.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether it was admitted.
    fn admit_or_fail(&self, order: Order) -> bool {
        let order = Arc::new(order);
        match self.admit(&order) {
            Ok(()) => true,
            Err(failure) => {
                order.fail(failure);
                false
            }
        }
    }

    fn admit(&self, order: &Arc<Order>) -> Result<(), Failure> {
        let lengths: Vec<u32> = order.inputs.iter().map(Input::tokens).collect();
        let tokens: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let mut state = self.lock();
        // What was accepted before is still read and computed.
        if state.closed && state.reading == 0 {
            return Err(Failure::new(FailureKind::Stopping, "worker is ending"));
        }
        let full = state.waiting.len() >= self.policy.orders_max
            || !state.waiting.is_empty()
                && state.tokens.saturating_add(tokens) > self.policy.tokens_max;
        if full {
            let (orders, waiting) = (state.waiting.len(), state.tokens);
            drop(state);
            let retry_after_ms = self.retry_after_ms(waiting, order.seat.tokens_per_ms());
            let message = format!(
                "{orders} requests of {waiting} tokens wait already: try again in {retry_after_ms} ms"
            );
            let failure = Failure::new(FailureKind::Overloaded, message);
            return Err(Failure { retry_after_ms: Some(retry_after_ms), ..failure });
        }
        let ticket = state.next;
        state.next += 1;
        state.tokens += tokens;
        state.waiting.push(Waiting {
            ticket,
            model: order.seat.key,
            priority: order.terms.priority,
            deadline_us: order.deadline_us(),
            arrived_us: order.arrived_us,
            lengths,
            taken: 0,
        });
        state.orders.insert(ticket, Arc::clone(order));
        Ok(())
    }

    fn retry_after_ms(&self, tokens: u64, tokens_per_ms: f64) -> u32 {
        // A model that never ran says nothing of its speed: a slow one is assumed.
        let rate = if tokens_per_ms > 0.0 { tokens_per_ms } else { 1.0 } * self.lanes as f64;
        let ms = (tokens as f64 / rate).ceil() as u64;
        u32::try_from(ms.clamp(RETRY_MS_MIN, RETRY_MS_MAX)).unwrap_or(u32::MAX)
    }

    fn work(&self) {
        let mut in_a_row = 0;
        while let Some(next) = self.next(in_a_row) {
            match next {
                Next::Read(reading) => {
                    in_a_row += 1;
                    self.read(reading);
                }
                Next::Compute(batch) => {
                    in_a_row = 0;
                    self.compute_guarded(&batch);
                }
            }
        }
    }

    fn read(&self, reading: Reading) {
        pulse::begin();
        let order = catch_unwind(AssertUnwindSafe(reading));
        pulse::end();
        match order {
            // This lane looks for work next, so nobody is woken for it.
            Ok(Some(order)) => drop(self.admit_or_fail(order)),
            Ok(None) => {}
            Err(_) => tracing::error!("reading a request panicked; its caller gets no response"),
        }
        let mut state = self.lock();
        state.reading -= 1;
        let closed = state.closed;
        drop(state);
        if closed {
            self.changed.notify_all();
        }
    }

    fn compute_guarded(&self, batch: &Batch) {
        if batch.parts.is_empty() {
            return;
        }
        pulse::begin();
        let done = catch_unwind(AssertUnwindSafe(|| self.compute(batch)));
        pulse::end();
        if done.is_err() {
            tracing::error!("computing a batch panicked");
            for part in &batch.parts {
                part.order.fail(panicked());
            }
        }
        self.forget_what_is_over(batch);
    }

    /// What is to be done, waited for; none when there is nothing left to do. An empty batch means: ask again.
    fn next(&self, read_in_a_row: u32) -> Option<Next> {
        let mut state = self.lock();
        loop {
            // However many ask, what waits is computed.
            let may_read = read_in_a_row < READ_IN_A_ROW || state.waiting.is_empty();
            if may_read && let Some(reading) = state.unread.pop_front() {
                state.reading += 1;
                return Some(Next::Read(reading));
            }
            let (batch, expired) = state.take((self.now_us)(), &self.policy.plan);
            let more = !state.waiting.is_empty() || !state.unread.is_empty();
            if !batch.parts.is_empty() || !expired.is_empty() {
                drop(state);
                if more {
                    self.changed.notify_one();
                }
                for order in expired {
                    order.fail(Failure::new(
                        FailureKind::Expired,
                        "the deadline of the request passed before it was computed",
                    ));
                }
                return Some(Next::Compute(batch));
            }
            if state.closed && state.reading == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn compute(&self, batch: &Batch) {
        let Some(first) = batch.parts.first() else { return };
        let before_us = (self.now_us)();
        batch.parts.iter().for_each(|part| part.order.begin(before_us));
        let inputs: Vec<&Input> = batch.parts.iter().flat_map(Part::inputs).collect();
        // Of several it is not known whose request hangs: they lose the worker, and are asked once more.
        let _waited = (batch.parts.len() == 1).then(|| {
            let order = Arc::clone(&first.order);
            pulse::waited_for(move |why| order.fail(order.seat.given_up(why)))
        });
        pulse::step(usize::try_from(batch.tokens).unwrap_or(usize::MAX));
        match first.order.model.compute(&inputs) {
            Ok(outputs) => {
                let took_us = (self.now_us)().saturating_sub(before_us);
                first.order.seat.computed(inputs.len(), batch.tokens, took_us);
                let mut outputs = outputs.into_iter();
                for part in &batch.parts {
                    let own = outputs.by_ref().take(part.inputs.len()).collect();
                    part.order.give(part.inputs.clone(), own, took_us);
                }
            }
            // Nobody answers for what another one sent: each is tried by itself.
            Err(_) if batch.parts.len() > 1 => {
                for part in &batch.parts {
                    let (order, inputs) = (Arc::clone(&part.order), part.inputs.clone());
                    let tokens = part.inputs().map(|input| u64::from(input.tokens())).sum();
                    self.compute(&Batch { parts: vec![Part { order, inputs }], tokens });
                }
            }
            Err(reason) => {
                first.order.fail(Failure::new(FailureKind::ModelFailed, chain(&reason)));
            }
        }
    }

    /// An order that failed in one part is not computed any further.
    fn forget_what_is_over(&self, batch: &Batch) {
        let over = |order: &Arc<Order>| order.is_over();
        if !batch.parts.iter().any(|part| over(&part.order)) {
            return;
        }
        let mut state = self.lock();
        let gone: Vec<Ticket> = state
            .orders
            .iter()
            .filter(|(_, order)| over(order))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in gone {
            state.remove(ticket);
        }
    }
}

impl State {
    fn take(&mut self, now_us: u64, policy: &Policy) -> (Batch, Vec<Arc<Order>>) {
        if self.waiting.is_empty() {
            return (Batch::default(), Vec::new());
        }
        let budgets: BTreeMap<ModelKey, Budget> =
            self.orders.values().map(|order| (order.seat.key, order.seat.budget())).collect();
        let budget = |model| budgets.get(&model).copied().unwrap_or(Budget::ONE);
        let Plan { expired, takes, tokens, turn } =
            plan::plan(&self.waiting, now_us, policy, self.turn, budget);
        self.turn = turn;
        let expired = expired.into_iter().filter_map(|ticket| self.remove(ticket)).collect();
        let mut parts = Vec::with_capacity(takes.len());
        for take in takes {
            let Some(order) = self.orders.get(&take.ticket).map(Arc::clone) else { continue };
            let waiting = self.waiting.iter_mut().find(|one| one.ticket == take.ticket);
            if let Some(waiting) = waiting {
                waiting.taken = take.sequences.end;
                if waiting.taken >= waiting.lengths.len() {
                    self.orders.remove(&take.ticket);
                }
            }
            parts.push(Part { order, inputs: take.sequences });
        }
        self.waiting.retain(|one| one.taken < one.lengths.len());
        self.tokens = self.waiting.iter().map(Waiting::tokens).sum();
        (Batch { parts, tokens }, expired)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Arc<Order>> {
        self.waiting.retain(|one| one.ticket != ticket);
        self.tokens = self.waiting.iter().map(Waiting::tokens).sum();
        self.orders.remove(&ticket)
    }
}

impl Part {
    fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.order.inputs.get(self.inputs.clone()).unwrap_or_default().iter()
    }
}

/// What is said of a request on which our own code panicked.
pub fn panicked() -> Failure {
    Failure::new(
        FailureKind::ModelFailed,
        "the worker panicked on this request: report it with the log",
    )
}
