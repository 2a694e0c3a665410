//! A client of the good model that asks the same all the while, and wants the same answer every time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::{
    crash::bench::instant,
    swap::http::{Address, Afterwards, Connection},
};

/// The name of the good model.
pub const MODEL: &str = "minilm";
/// What is asked.
const TEXT: &str = "How do I reset my password?";
/// Pause between two requests: the machine is not what is tried here.
const PAUSE: Duration = Duration::from_millis(50);
/// Two embeddings of one text differ by less than this in every number.
const APART: f64 = 1e-4;

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Requests that were answered as always.
    pub answered: u64,
    /// The longest time from one answer to the next.
    pub longest_gap: Duration,
}

/// The client, on a thread of its own.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    tally: Tally,
    failed: Option<String>,
}

impl Probe {
    /// Starts asking; the first answer is what every other one must be.
    pub fn start(address: Address) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&address)?;
        let expected = ask(&mut connection)?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop_there, shared_there) = (Arc::clone(&stop), Arc::clone(&shared));
        let work = move || {
            let outcome = keep_asking(&address, connection, &expected, &stop_there, &shared_there);
            if let Err(error) = outcome {
                lock(&shared_there).failed = Some(format!("{error:#}"));
            }
        };
        let thread = thread::Builder::new().name("probe".into()).spawn(work)?;
        Ok(Self { stop, shared, thread: Some(thread) })
    }

    /// What was seen since this was asked last; an error if an answer was none, or another one.
    pub fn take(&self) -> anyhow::Result<Tally> {
        let mut shared = lock(&self.shared);
        if let Some(failed) = &shared.failed {
            bail!("the good model's client: {failed}");
        }
        Ok(std::mem::take(&mut shared.tally))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_asking(
    address: &Address,
    mut connection: Connection,
    expected: &[f64],
    stop: &AtomicBool,
    shared: &Mutex<Shared>,
) -> anyhow::Result<()> {
    let mut last: Instant = instant();
    while !stop.load(Ordering::Relaxed) {
        if connection.closes() {
            connection = Connection::open(address)?;
        }
        let found = ask(&mut connection)?;
        ensure!(same(&found, expected), "another embedding than before");
        let mut shared = lock(shared);
        shared.tally.answered += 1;
        shared.tally.longest_gap = shared.tally.longest_gap.max(last.elapsed());
        drop(shared);
        last = instant();
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn ask(connection: &mut Connection) -> anyhow::Result<Vec<f64>> {
    let body = json!({"model": MODEL, "input": TEXT});
    let response = connection.ask("/v1/embeddings", &body, Afterwards::Keep)?;
    ensure!(response.status == 200, "status {}: {}", response.status, response.body);
    let vector = response.body.pointer("/data/0/embedding").and_then(Value::as_array);
    let vector = vector.context("an answer without an embedding")?;
    Ok(vector.iter().filter_map(Value::as_f64).collect())
}

fn same(found: &[f64], expected: &[f64]) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < APART)
}
