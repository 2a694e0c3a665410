//! Open-loop load: every request has its time, and what it waits for a free connection counts.
//!
//! Each connection has a thread that takes the next arrival, sleeps until its time if that has not come, sends, and
//! reads the answer. While all are busy, arrivals wait, and their latency runs from the time at which they should have
//! been sent: a slow server is not asked less (no coordinated omission). Bounded by the number of connections, the
//! number of arrivals and [`BEHIND_MAX`].

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::{
    serving::target::{Link, Target},
    transport::program::now,
};

/// A trial ends when an arrival is sent later than this: the server does not keep up.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// What is sent.
#[derive(Debug)]
pub struct Trial<'a> {
    /// To whom.
    pub target: &'a Target,
    /// Its requests; one after the other, over and over.
    pub requests: &'a [Vec<u8>],
    /// When, from the start on.
    pub arrivals: &'a [Duration],
    /// Arrivals before this time are answered and not counted.
    pub warm_up: Duration,
    /// Connections.
    pub connections: usize,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Requests that count.
    pub requests: usize,
    /// Those with another answer than 200, or none.
    pub failed: usize,
    /// Whether the trial was ended because the server fell behind.
    pub behind: bool,
    /// Of the answered ones, from the time that they should have been sent.
    pub p50_ms: f64,
    /// Likewise.
    pub p99_ms: f64,
    /// Likewise.
    pub max_ms: f64,
}

impl Outcome {
    /// Whether every request was answered and all but one in a hundred within `limit_ms`.
    pub fn keeps(&self, limit_ms: f64) -> bool {
        !self.behind && self.failed == 0 && self.requests > 0 && self.p99_ms <= limit_ms
    }
}

#[derive(Default)]
struct Seen {
    latencies_ms: Vec<f64>,
    failed: usize,
}

/// Sends it all.
///
/// # Errors
/// The server cannot be reached at all.
pub fn run(trial: &Trial<'_>) -> anyhow::Result<Outcome> {
    ensure!(!trial.requests.is_empty(), "no requests");
    let open = |_| Link::open(trial.target).context("connecting to the server");
    let links: Vec<Link> = (0..trial.connections).map(open).collect::<anyhow::Result<_>>()?;
    let (next, behind) = (AtomicUsize::new(0), AtomicBool::new(false));
    let began = now();
    let all: Vec<Seen> = thread::scope(|scope| {
        let (next, behind) = (&next, &behind);
        let threads: Vec<_> = links
            .into_iter()
            .map(|link| scope.spawn(move || work(trial, link, began, next, behind)))
            .collect();
        // A thread that panicked is a bug of ours, and shows as requests that are missing.
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let failed = all.iter().map(|seen| seen.failed).sum();
    let mut latencies: Vec<f64> = all.into_iter().flat_map(|seen| seen.latencies_ms).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    Ok(Outcome {
        requests: latencies.len() + failed,
        failed,
        behind: behind.load(Ordering::Relaxed),
        p50_ms: quantile(&latencies, 0.50),
        p99_ms: quantile(&latencies, 0.99),
        max_ms: latencies.last().copied().unwrap_or_default(),
    })
}

fn work(
    trial: &Trial<'_>,
    mut link: Link,
    began: Instant,
    next: &AtomicUsize,
    behind: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    while !behind.load(Ordering::Relaxed) {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(due) = trial.arrivals.get(at) else { break };
        let request = trial.requests.get(at % trial.requests.len());
        let Some(request) = request else { break };
        let elapsed = began.elapsed();
        if let Some(early) = due.checked_sub(elapsed) {
            thread::sleep(early);
        } else if elapsed.saturating_sub(*due) > BEHIND_MAX {
            behind.store(true, Ordering::Relaxed);
        }
        let answered = matches!(link.ask(request), Ok((200, _)));
        let latency = began.elapsed().saturating_sub(*due);
        if *due < trial.warm_up {
            continue;
        }
        if answered {
            seen.latencies_ms.push(latency.as_secs_f64() * 1e3);
            continue;
        }
        seen.failed += 1;
        // What broke once is not tried on; a refusal (429) leaves the connection whole.
        match Link::open(trial.target) {
            Ok(fresh) => link = fresh,
            Err(_) => break,
        }
    }
    seen
}

/// One request after the other on one connection: the median of what each took, in milliseconds.
///
/// # Errors
/// A request failed.
pub fn one_by_one(target: &Target, request: &[u8], count: usize) -> anyhow::Result<f64> {
    let mut link = Link::open(target).context("connecting to the server")?;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = now();
        let (status, body) = link.ask(request).context("asking the server")?;
        ensure!(status == 200, "answered {status}: {}", String::from_utf8_lossy(body));
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_unstable_by(f64::total_cmp);
    Ok(quantile(&took, 0.5))
}

/// The nearest-rank quantile of sorted values; 0 of none.
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener},
    };

    use super::*;
    use crate::serving::{target::Form, wire::Address};

    /// A server that answers each request `pause` after it came, on any number of connections.
    fn server(pause: Duration) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).is_ok_and(|count| count > 0) {
                        thread::sleep(pause);
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                        if stream.write_all(answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        at(address)
    }

    fn at(address: SocketAddr) -> Target {
        let address = Address::Tcp(address);
        Target { address, model: "m".to_owned(), token: None, form: Form::Json }
    }

    fn outcome(pause_ms: u64, every_ms: u64, count: u64, connections: usize) -> Outcome {
        let target = server(Duration::from_millis(pause_ms));
        let arrivals: Vec<_> = (0..count).map(|at| Duration::from_millis(at * every_ms)).collect();
        let requests = [b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_vec()];
        run(&Trial {
            target: &target,
            requests: &requests,
            arrivals: &arrivals,
            warm_up: Duration::ZERO,
            connections,
        })
        .unwrap()
    }

    #[test]
    fn what_a_request_waits_for_a_connection_counts() {
        // One connection that is busy for 20 ms each, asked every 10 ms: the last of 20 waits for some 200 ms.
        let outcome = outcome(20, 10, 20, 1);
        assert_eq!((outcome.requests, outcome.failed), (20, 0));
        assert!(outcome.max_ms >= 190.0, "{outcome:?}");
        assert!(!outcome.keeps(50.0));
    }

    #[test]
    fn a_server_that_falls_behind_ends_the_trial() {
        let outcome = outcome(300, 1, 1_000, 1);
        assert!(outcome.behind && outcome.requests < 100, "{outcome:?}");
    }

    #[test]
    fn a_server_that_ends_is_seen_as_failures() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = at(listener.local_addr().unwrap());
        let closes = thread::spawn(move || drop(listener.accept()));
        let requests = [b"x".to_vec()];
        let arrivals = [Duration::ZERO; 3];
        let trial = Trial {
            target: &target,
            requests: &requests,
            arrivals: &arrivals,
            warm_up: Duration::ZERO,
            connections: 1,
        };
        let outcome = run(&trial).unwrap();
        closes.join().unwrap();
        assert!(outcome.failed >= 1 && !outcome.keeps(1e9), "{outcome:?}");
    }
}
