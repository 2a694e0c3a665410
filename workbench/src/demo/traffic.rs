//! Requests that keep flowing while releases change underneath.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{api, ask};

/// A client's pause between two questions.
const PAUSE: Duration = Duration::from_millis(60);

/// A machine to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its local API.
    pub url: String,
    /// Its token.
    pub token: String,
}

/// What happened to the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered or abstained.
    pub good: u64,
    /// Anything else.
    pub failed: u64,
    /// The first failure, in words.
    pub first_failure: Option<String>,
}

/// Clients at work, one for each machine.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
    asked: Arc<AtomicU64>,
}

impl Traffic {
    /// Starts a client for each of `targets`.
    pub fn start(targets: &[Target], questions: &[String]) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU64::new(0));
        let clients = targets.iter().enumerate().map(|(n, target)| {
            let (target, questions) = (target.clone(), questions.to_vec());
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            thread::Builder::new()
                .name(format!("client-{n}"))
                .spawn(move || client(&target, &questions, &stop, &asked))
        });
        let clients = clients.collect::<io::Result<_>>()?;
        Ok(Self { stop, clients, asked })
    }

    /// Questions asked so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Stops the clients and adds up.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let one = client.join().unwrap_or_else(|_| Tally {
                failed: 1,
                first_failure: Some("a client panicked".into()),
                ..Tally::default()
            });
            all.good += one.good;
            all.failed += one.failed;
            all.first_failure = all.first_failure.or(one.first_failure);
        }
        all
    }
}

fn client(target: &Target, questions: &[String], stop: &AtomicBool, asked: &AtomicU64) -> Tally {
    let agent = api::local_agent();
    let mut tally = Tally::default();
    for question in questions.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        match ask::ask(&agent, &target.url, &target.token, question, None) {
            Ok(_) => tally.good += 1,
            Err(failure) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| words(&failure));
            }
        }
        thread::sleep(PAUSE);
    }
    tally
}

fn words(failure: &dyn std::error::Error) -> String {
    let mut text = failure.to_string();
    let mut source = failure.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
