//! `cargo xtask bench`: what a request costs at an agent of a running fleet, as its clients see it.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::http::Agent;
use crate::machine::{Machine, Output};
use crate::say;

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests of each kind, over all connections.
    pub(crate) requests: u32,
    /// Connections that ask at the same time in the load case.
    pub(crate) connections: u32,
}

/// One kind of request.
struct Case {
    name: &'static str,
    path: &'static str,
    body: fn(&str, u32) -> Value,
}

const QUESTIONS: [&str; 4] = [
    "How do I reset my password?",
    "My VPN connection drops every few minutes.",
    "Comment changer mon mot de passe ?",
    "L'imprimante du deuxième étage ne répond plus.",
];

fn question(number: u32) -> &'static str {
    let places = QUESTIONS.len();
    QUESTIONS.get(number as usize % places).copied().unwrap_or_default()
}

const CASES: [Case; 2] = [
    Case {
        name: "embeddings",
        path: "/v1/embeddings",
        body: |model, number| json!({ "model": model, "input": question(number) }),
    },
    Case {
        name: "ask",
        path: "/v1/ask",
        body: |model, number| json!({ "model": model, "question": question(number) }),
    },
];

#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    connections: u32,
    requests: usize,
    per_second: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
}

/// Measures each case on one connection and then on many, and prints the table.
pub(crate) fn run(machine: &Machine, agent: &Agent, plan: Plan) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for case in &CASES {
        measure(agent, case, 1, plan.requests.min(10))?;
        for connections in [1, plan.connections] {
            rows.push(measure(agent, case, connections, plan.requests)?);
        }
    }
    print(machine, &rows).map_err(|error| Failure::new("printing the table").because(error))
}

fn measure(agent: &Agent, case: &Case, connections: u32, requests: u32) -> Result<Row, Failure> {
    let each = requests.div_ceil(connections.max(1));
    let start = now();
    let mut durations = std::thread::scope(|scope| {
        let askers: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| ask(agent, case, each))).collect();
        let mut all = Vec::new();
        for asker in askers {
            all.extend(asker.join().map_err(|_| Failure::new("a measuring thread panicked"))??);
        }
        Ok::<_, Failure>(all)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    durations.sort();
    Ok(Row {
        case: case.name,
        connections,
        requests: durations.len(),
        per_second: durations.len() as f64 / seconds,
        p50_ms: quantile_ms(&durations, 0.50),
        p95_ms: quantile_ms(&durations, 0.95),
        p99_ms: quantile_ms(&durations, 0.99),
    })
}

fn ask(agent: &Agent, case: &Case, requests: u32) -> Result<Vec<Duration>, Failure> {
    let mut connection = agent.connect()?;
    let model = connection.first_model()?;
    let mut durations = Vec::with_capacity(requests as usize);
    for number in 0..requests {
        let start = now();
        connection.post(case.path, &(case.body)(&model, number))?;
        durations.push(start.elapsed());
    }
    Ok(durations)
}

/// The nearest-rank quantile of sorted durations; 0 of none.
fn quantile_ms(sorted: &[Duration], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}

fn print(machine: &Machine, rows: &[Row]) -> std::io::Result<()> {
    match machine.output {
        Output::Json => say::result(&serde_json::to_string(rows).map_err(std::io::Error::other)?),
        Output::Person => {
            say::result("case        conns  requests     req/s   p50 ms   p95 ms   p99 ms")?;
            for row in rows {
                say::result(&format!(
                    "{:11} {:5} {:9} {:9.1} {:8.2} {:8.2} {:8.2}",
                    row.case,
                    row.connections,
                    row.requests,
                    row.per_second,
                    row.p50_ms,
                    row.p95_ms,
                    row.p99_ms
                ))?;
            }
            Ok(())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "durations are what is measured here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::quantile_ms;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        for (quantile, expected) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0)] {
            assert!((quantile_ms(&sorted, quantile) - expected).abs() < 1e-9);
        }
        assert!(quantile_ms(&[], 0.5).abs() < 1e-9);
    }
}
