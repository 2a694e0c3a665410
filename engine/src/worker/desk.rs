//! Where requests arrive: what costs nothing is answered at once, the rest goes to the threads that do it.
//!
//! A request for a model that is loaded: a lane or, when it is large, `read-slow` makes tokens of its texts, then a lane
//! computes them together with those of others. For one that is not: `load` loads it first. So loading one model holds up
//! nobody who asks for another, and a large request nobody who has a short one.

use std::{
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    model::Model,
    pulse,
    worker::{
        connection::{Incoming, Responder},
        failure::{Failure, FailureKind},
        hang::Watched,
        jobs::{Job, Jobs, Refused},
        lanes::{Lanes, Reading, panicked},
        limits::resident_bytes,
        message::{Call, Reply, WorkerStatistics},
        order::{NewOrder, Order},
        policy::Policy,
        prepare::{self, Prepared},
        roster::Roster,
        seat::Seat,
    },
};

/// A request larger than this, in bytes, is read beside the others.
const QUICK_BYTES_MAX: usize = 16 * 1024;

/// Where requests arrive.
#[derive(Debug)]
pub struct Desk {
    roster: Roster,
    slow: Jobs,
    loader: Jobs,
    lanes: Lanes,
    held: Arc<Held>,
    bytes_max: u64,
    now_us: fn() -> u64,
}

/// What was accepted and is not answered.
#[derive(Debug, Default)]
struct Held {
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// One request of it, until it is dropped.
#[derive(Debug)]
struct Holding {
    held: Arc<Held>,
    bytes: u64,
}

/// Who does an errand first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Any lane: texts that are read at once.
    Lane,
    /// The thread for large requests.
    Slow,
    /// The thread that loads models.
    Loader,
}

/// A request for a model, on its way.
struct Errand {
    id: u64,
    call: Call,
    seat: Arc<Seat>,
    arrived_us: u64,
    responder: Responder,
    holding: Holding,
}

impl Desk {
    /// Starts its threads: `lanes` of them compute. `now_us` is a clock that never goes back.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn open(
        roster: Roster,
        lanes: NonZeroUsize,
        policy: &Policy,
        now_us: fn() -> u64,
    ) -> io::Result<Self> {
        let one = NonZeroUsize::MIN;
        Ok(Self {
            roster,
            slow: Jobs::start("read-slow", one, policy.requests_max)?,
            loader: Jobs::start("load", one, policy.requests_max)?,
            lanes: Lanes::start(lanes, policy.queue, now_us)?,
            held: Arc::default(),
            bytes_max: policy.requests_bytes_max,
            now_us,
        })
    }

    /// The models.
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// By what it is seen whether a thread hangs.
    pub fn watched(&self) -> Vec<Watched> {
        let mut watched = self.lanes.watched();
        for jobs in [&self.slow, &self.loader] {
            watched.extend(jobs.watched());
        }
        watched
    }

    /// Does `job` on the thread that loads models.
    ///
    /// # Errors
    /// Too much waits for that already.
    pub fn aside(&self, job: Job) -> Result<(), Refused> {
        self.loader.submit(job)
    }

    /// Takes no more, does what was accepted, and returns when the last of it is done.
    pub fn close(&self) {
        self.loader.close();
        self.slow.close();
        self.lanes.close();
    }

    /// What was done so far.
    pub fn statistics(&self) -> WorkerStatistics {
        let seats = self.roster.seats().iter();
        WorkerStatistics {
            waiting_requests: self.held.requests.load(Ordering::Relaxed),
            waiting_tokens: self.lanes.backlog().1,
            resident_bytes: resident_bytes(),
            loaded_bytes: self.roster.loaded_bytes(),
            memory_bytes: self.roster.memory_bytes(),
            models: seats.map(|seat| seat.statistics().clone()).collect(),
        }
    }

    /// Takes a request for a model, or refuses it at once.
    pub fn take(self: &Arc<Self>, incoming: Incoming, model: &str, responder: &Responder) {
        let Incoming { id, call, bytes } = incoming;
        let seat = match self.roster.named(model) {
            Ok(seat) => Arc::clone(seat),
            Err(failure) => return responder.send(id, Reply::Failed(failure)),
        };
        let holding = self.held.take(bytes as u64);
        if self.held.bytes.load(Ordering::Relaxed) > self.bytes_max.max(bytes as u64) {
            let failure = self.overloaded(&seat, "requests of so many bytes wait already");
            return fail(&seat, responder, id, failure);
        }
        let arrived_us = (self.now_us)();
        let errand = Errand { id, call, seat, arrived_us, responder: responder.clone(), holding };
        let by = match errand.call {
            Call::Load { .. } | Call::Golden { .. } | Call::Unload { .. } => By::Loader,
            Call::Hello { .. }
            | Call::Embed { .. }
            | Call::Ask { .. }
            | Call::Ping
            | Call::Shutdown
            | Call::Classify { .. }
            | Call::Rerank { .. }
            | Call::Bytes { .. }
            | Call::Tokenize { .. }
            | Call::Decode { .. }
            | Call::Statistics => match errand.seat.model(arrived_us) {
                None => By::Loader,
                Some(_) if bytes > QUICK_BYTES_MAX => By::Slow,
                Some(_) => By::Lane,
            },
        };
        let (seat, responder) = (Arc::clone(&errand.seat), errand.responder.clone());
        let desk = Arc::clone(self);
        let reading = move || {
            let (seat, responder, id) =
                (Arc::clone(&errand.seat), errand.responder.clone(), errand.id);
            let (waits, to) = (Arc::clone(&seat), responder.clone());
            let _waits = pulse::waited_for(move |why| fail(&waits, &to, id, waits.given_up(why)));
            catch_unwind(AssertUnwindSafe(|| desk.run(errand))).unwrap_or_else(|_| {
                tracing::error!("a request made its thread panic");
                fail(&seat, &responder, id, panicked());
                None
            })
        };
        let aside = Arc::clone(self);
        let job = |reading: Reading| -> Job {
            Box::new(move || {
                if let Some(order) = reading() {
                    aside.lanes.submit(order);
                }
            })
        };
        let taken = match by {
            By::Lane => self.lanes.read(Box::new(reading)),
            By::Slow => self.slow.submit(job(Box::new(reading))),
            By::Loader => self.loader.submit(job(Box::new(reading))),
        };
        let failure = match taken {
            Ok(()) => return,
            Err(Refused::Full) => self.overloaded(&seat, "too many requests wait already"),
            Err(Refused::Closed) => Failure::new(FailureKind::Stopping, "worker is ending"),
        };
        fail(&seat, &responder, id, failure);
    }

    fn overloaded(&self, seat: &Seat, what: &str) -> Failure {
        let retry_after_ms = self.lanes.retry_after_ms(seat.tokens_per_ms());
        let message = format!("{what}: try again in {retry_after_ms} ms");
        Failure {
            retry_after_ms: Some(retry_after_ms),
            ..Failure::new(FailureKind::Overloaded, message)
        }
    }

    /// What is to be computed for the errand; none when it is answered.
    fn run(&self, errand: Errand) -> Option<Order> {
        let Errand { id, call, seat, arrived_us, responder, holding } = errand;
        let roster = &self.roster;
        let answer = |reply: Result<Reply, Failure>| {
            match reply {
                Ok(reply) => responder.send(id, reply),
                Err(failure) => fail(&seat, &responder, id, failure),
            }
            None
        };
        match &call {
            Call::Load { .. } => {
                return answer(roster.load(&seat).map(|(_, info)| Reply::Loaded(info)));
            }
            Call::Golden { .. } => return answer(roster.golden(&seat).map(Reply::Golden)),
            Call::Unload { .. } => {
                return answer(roster.unload(&seat).map(|()| Reply::Unloaded));
            }
            Call::Hello { .. }
            | Call::Embed { .. }
            | Call::Ask { .. }
            | Call::Ping
            | Call::Shutdown
            | Call::Classify { .. }
            | Call::Rerank { .. }
            | Call::Bytes { .. }
            | Call::Tokenize { .. }
            | Call::Decode { .. }
            | Call::Statistics => {}
        }
        let model = match self.loaded(&seat) {
            Ok(model) => model,
            Err(failure) => return answer(Err(failure)),
        };
        match &call {
            Call::Tokenize { texts, special, .. } => {
                return answer(prepare::tokenize(&model, texts, *special));
            }
            Call::Decode { ids, special, .. } => {
                return answer(prepare::decode(&model, ids, *special));
            }
            Call::Hello { .. }
            | Call::Load { .. }
            | Call::Golden { .. }
            | Call::Embed { .. }
            | Call::Ask { .. }
            | Call::Ping
            | Call::Shutdown
            | Call::Classify { .. }
            | Call::Rerank { .. }
            | Call::Bytes { .. }
            | Call::Statistics
            | Call::Unload { .. } => {}
        }
        let before_us = (self.now_us)();
        let Prepared { inputs, terms, shape } = match prepare::prepare(&model, call) {
            // What is no errand for a model does not come here.
            None => return None,
            Some(Err(failure)) => return answer(Err(failure)),
            Some(Ok(prepared)) => prepared,
        };
        let read_us = (self.now_us)().saturating_sub(before_us);
        let finish = {
            let (seat, model) = (Arc::clone(&seat), Arc::clone(&model));
            let responder = responder.clone();
            move |computed: Result<_, Failure>| {
                let reply =
                    computed.and_then(|done| prepare::reply((&seat.package, &model), &shape, done));
                // Before the response, so that whoever has it finds nothing waiting.
                drop(holding);
                match reply {
                    Ok(reply) => responder.send(id, reply),
                    Err(failure) => fail(&seat, &responder, id, failure),
                }
            }
        };
        let new = NewOrder { seat: Arc::clone(&seat), model, inputs, terms, arrived_us, read_us };
        Some(Order::new(new, Box::new(finish)))
    }

    fn loaded(&self, seat: &Arc<Seat>) -> Result<Arc<Model>, Failure> {
        match seat.model((self.now_us)()) {
            Some(model) => Ok(model),
            // It was unloaded since the request came.
            None => self.roster.load(seat).map(|(model, _)| model),
        }
    }
}

impl Held {
    fn take(self: &Arc<Self>, bytes: u64) -> Holding {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Holding { held: Arc::clone(self), bytes }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.requests.fetch_sub(1, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn fail(seat: &Seat, responder: &Responder, id: u64, failure: Failure) {
    seat.statistics().failed(failure.kind);
    responder.send(id, Reply::Failed(failure));
}
