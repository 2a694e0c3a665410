//! Clients that ask all the time, each in its own way, and what they saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::{
    crash::bench::instant,
    swap::{
        http::{Address, Afterwards, Connection, Response},
        live::{Board, Live},
        variant::{MODEL, QUESTIONS, same},
    },
};

/// Failures that are kept in words; all are counted.
const WORDS_MAX: usize = 8;
/// Longest sleep before a client looks whether it should stop.
const NAP: Duration = Duration::from_millis(100);

/// How a client uses its connections, and how long it pauses between two requests, in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// One connection, until the server says that it closes.
    KeepAlive { pause_ms: u64 },
    /// A connection for each request.
    Fresh { pause_ms: u64 },
    /// A connection for each request, on which it pauses before it asks.
    Hesitant { pause_ms: u64 },
}

/// What clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests by route.
    pub by_route: BTreeMap<&'static str, u64>,
    /// Those of them with any error at all, or another answer than a right one.
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// Connections opened.
    pub connections: u64,
    /// Responses after which the server closed, as it said.
    pub closed_as_said: u64,
    /// Time from sending, connecting included, to the checked response, in microseconds; of the good ones.
    pub latencies_us: Vec<u32>,
    /// Longest time in which nobody was answered, in milliseconds.
    pub longest_gap_ms: u64,
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Tally>>,
}

#[derive(Debug)]
struct Shared {
    board: Board,
    asked: AtomicU64,
    failed: AtomicU64,
    answered: Mutex<Answered>,
}

#[derive(Debug)]
struct Answered {
    last: Instant,
    longest_gap: Duration,
}

struct Client {
    address: Address,
    habit: Habit,
    random: Rng,
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
    tally: Tally,
}

impl Load {
    /// Starts the clients of the machine that listens at `tcp` and `unix`.
    pub fn start(
        tcp: &Address,
        unix: &Address,
        board: Board,
        random: &mut Rng,
    ) -> anyhow::Result<Self> {
        let busy = |pause_ms| [Habit::KeepAlive { pause_ms }, Habit::Fresh { pause_ms }];
        let mut habits: Vec<(&Address, Habit)> = Vec::new();
        for address in [tcp, unix] {
            habits.extend(busy(10).map(|habit| (address, habit)));
            habits.extend(busy(30).map(|habit| (address, habit)));
            habits.extend(
                [400, 2_500, 7_000].map(|pause_ms| (address, Habit::KeepAlive { pause_ms })),
            );
            habits.push((address, Habit::Hesitant { pause_ms: 1_500 }));
        }
        let answered = Answered { last: instant(), longest_gap: Duration::ZERO };
        let shared = Shared {
            board,
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            answered: Mutex::new(answered),
        };
        let (stop, shared) = (Arc::new(AtomicBool::new(false)), Arc::new(shared));
        let clients = habits.into_iter().enumerate().map(|(at, (address, habit))| {
            let client = Client {
                address: address.clone(),
                habit,
                random: random.fork(),
                stop: Arc::clone(&stop),
                shared: Arc::clone(&shared),
                tally: Tally::default(),
            };
            let named = thread::Builder::new().name(format!("client-{at}"));
            named.spawn(move || client.run()).context("starting a client")
        });
        let clients = clients.collect::<anyhow::Result<_>>()?;
        Ok(Self { stop, shared, clients })
    }

    /// Requests so far.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Those of them that failed.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Stops the clients and adds up.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            match client.join() {
                Ok(one) => all.add(one),
                Err(_) => all.fail("a client panicked".into()),
            }
        }
        let answered = self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
        all.longest_gap_ms = u64::try_from(answered.longest_gap.as_millis()).unwrap_or(u64::MAX);
        all.latencies_us.sort_unstable();
        all
    }
}

impl Tally {
    /// Requests.
    pub fn requests(&self) -> u64 {
        self.by_route.values().sum()
    }

    /// The latency below which `per_mille` of a thousand requests were answered, in milliseconds; of a sorted tally.
    pub fn latency_ms(&self, per_mille: usize) -> f64 {
        let at = (self.latencies_us.len() * per_mille / 1000)
            .min(self.latencies_us.len().saturating_sub(1));
        self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1000.0)
    }

    fn fail(&mut self, words: String) {
        self.failed += 1;
        if self.failures.len() < WORDS_MAX {
            self.failures.push(words);
        }
    }

    fn add(&mut self, one: Self) {
        for (route, count) in one.by_route {
            *self.by_route.entry(route).or_default() += count;
        }
        self.failed += one.failed;
        self.connections += one.connections;
        self.closed_as_said += one.closed_as_said;
        self.latencies_us.extend(one.latencies_us);
        self.failures.extend(one.failures);
        self.failures.truncate(WORDS_MAX);
    }
}

impl Client {
    fn run(mut self) -> Tally {
        let mut kept: Option<Connection> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let began = instant();
            let route = *self.random.choice(&ROUTES).unwrap_or(&Route::Ask);
            let asked = self.once(&mut kept, route);
            self.shared.asked.fetch_add(1, Ordering::Relaxed);
            *self.tally.by_route.entry(route.path()).or_default() += 1;
            match asked {
                Ok(waited) => {
                    let took = began.elapsed().saturating_sub(waited);
                    self.tally
                        .latencies_us
                        .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                    self.shared.answered();
                }
                Err(error) => {
                    kept = None;
                    self.shared.failed.fetch_add(1, Ordering::Relaxed);
                    let words = format!(
                        "{:?} {} after {} ms: {error:#}",
                        self.habit,
                        route.path(),
                        began.elapsed().as_millis()
                    );
                    self.tally.fail(words);
                }
            }
            let pause_ms = match self.habit {
                Habit::KeepAlive { pause_ms } | Habit::Fresh { pause_ms } => pause_ms,
                Habit::Hesitant { .. } => 1,
            };
            self.pause(pause_ms);
        }
        self.tally
    }

    /// One request: how long the client itself paused in it.
    fn once(&mut self, kept: &mut Option<Connection>, route: Route) -> anyhow::Result<Duration> {
        let at = self.random.usize(0..QUESTIONS.len());
        let mut waited = Duration::ZERO;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                self.tally.connections += 1;
                Connection::open(&self.address)?
            }
        };
        if let Habit::Hesitant { pause_ms } = self.habit {
            let began = instant();
            self.pause(pause_ms);
            waited = began.elapsed();
        }
        let afterwards = match self.habit {
            Habit::KeepAlive { .. } => Afterwards::Keep,
            Habit::Fresh { .. } | Habit::Hesitant { .. } => Afterwards::Close,
        };
        let before = self.shared.board.now();
        let response = connection.ask(&route.path_of(MODEL), &route.body(at), afterwards)?;
        let after = self.shared.board.now();
        if afterwards == Afterwards::Keep {
            if connection.closes() {
                self.tally.closed_as_said += 1;
            } else {
                *kept = Some(connection);
            }
        }
        let live: Vec<&Live> = before.iter().chain(after.iter()).collect();
        route.check(at, &response, &live)?;
        Ok(waited)
    }

    /// Up to `pause_ms`, drawn, but no longer than the load runs.
    fn pause(&mut self, pause_ms: u64) {
        let until = instant() + Duration::from_millis(self.random.u64(0..=pause_ms));
        loop {
            let left = until.saturating_duration_since(instant());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }
}

impl Shared {
    fn answered(&self) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let now = instant();
        answered.longest_gap =
            answered.longest_gap.max(now.saturating_duration_since(answered.last));
        answered.last = now;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Ask,
    Embeddings,
    Infer,
}

const ROUTES: [Route; 3] = [Route::Ask, Route::Embeddings, Route::Infer];

impl Route {
    const fn path(self) -> &'static str {
        match self {
            Self::Ask => "/v1/ask",
            Self::Embeddings => "/v1/embeddings",
            Self::Infer => "/v2/models/{model}/infer",
        }
    }

    fn path_of(self, model: &str) -> String {
        self.path().replace("{model}", model)
    }

    fn body(self, at: usize) -> Value {
        let text = QUESTIONS.get(at).copied().unwrap_or_default();
        match self {
            Self::Ask => json!({ "question": text }),
            Self::Embeddings => json!({ "model": MODEL, "input": text }),
            Self::Infer => json!({ "inputs": [
                { "name": "text", "datatype": "BYTES", "shape": [1], "data": [text] },
            ] }),
        }
    }

    /// Whether this is what one of the releases that may answer now has to say.
    fn check(self, at: usize, response: &Response, live: &[&Live]) -> anyhow::Result<()> {
        let Response { status, body } = response;
        ensure!(*status == 200, "status {status}: {body}");
        match self {
            Self::Ask => {
                let release = body["release"].as_str().context("no release")?;
                let live = live.iter().find(|live| live.release.to_string() == release);
                let live =
                    live.with_context(|| format!("release {release} must not answer now"))?;
                let version = body["model_version"].as_str();
                ensure!(version == Some(&live.version), "version {version:?} of {}", live.version);
                let right = live.expected.get(at).context("no such question")?;
                let answer = body["answer"].as_str();
                ensure!(
                    answer == right.answer.as_deref(),
                    "{answer:?} instead of {:?}",
                    right.answer
                );
            }
            Self::Embeddings => {
                let vector = numbers(&body["data"][0]["embedding"])?;
                let right = |live: &&&Live| is_right(live, at, &vector);
                ensure!(
                    live.iter().any(|live| right(&live)),
                    "an embedding of no release that may answer now"
                );
            }
            Self::Infer => {
                let version = body["model_version"].as_str().context("no version")?;
                let vector = numbers(&body["outputs"][0]["data"])?;
                let live = live.iter().find(|live| live.version == version);
                let live = live.with_context(|| format!("model {version} must not answer now"))?;
                if !is_right(live, at, &vector) {
                    bail!("an embedding that is not one of model {version}");
                }
            }
        }
        Ok(())
    }
}

fn is_right(live: &Live, at: usize, vector: &[f32]) -> bool {
    live.expected.get(at).is_some_and(|right| same(vector, &right.vector))
}

fn numbers(value: &Value) -> anyhow::Result<Vec<f32>> {
    let numbers = value.as_array().context("no embedding")?;
    #[expect(clippy::cast_possible_truncation, reason = "the numbers were f32 before")]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    numbers.iter().map(|value| number(value).context("not a number")).collect()
}
