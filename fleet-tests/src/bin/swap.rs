//! `swap`: replaces releases and the agent itself under a steady load of requests, and counts those that failed.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use fastrand::Rng;
use fleet_tests::{
    crash::bench::{Programs, now},
    swap::{
        drive::{self, Plan, Seen, Took},
        machine::Memory,
    },
};
use serde::Serialize;

/// Replaces releases and the agent itself on one machine under load. No request may fail.
#[derive(Parser)]
#[command(name = "swap", version)]
#[command(
    after_help = "Example:\n  swap --swaps 50 --poisoned 10 --requests 100000 --model MODEL --bin-dir target/release"
)]
struct Cli {
    /// Releases that commit.
    #[arg(long, default_value_t = 50)]
    swaps: usize,
    /// Releases that have to be given up, between them.
    #[arg(long, default_value_t = 10)]
    poisoned: usize,
    /// Requests, at least.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Seed of the order and of the pauses; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder with model.onnx and tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// Folder of socle-agent, socle-launch and socle-crash-agent.
    #[arg(long)]
    bin_dir: PathBuf,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    seed: u64,
    held: bool,
    why: Option<String>,
    seconds: u64,
    committed: u64,
    rolled_back: u64,
    requests: u64,
    failed: u64,
    failures: Vec<String>,
    by_route: BTreeMap<&'static str, u64>,
    connections: u64,
    closed_as_said: u64,
    p50_ms: f64,
    p99_ms: f64,
    slowest_ms: f64,
    longest_gap_ms: u64,
    by_change: BTreeMap<String, Took>,
    by_poison: BTreeMap<String, Took>,
    memory_kib: BTreeMap<&'static str, Memory>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "swap: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let seed = cli.seed.unwrap_or_else(|| now().0);
    let mut random = Rng::with_seed(seed);
    let folder = tempfile::Builder::new().prefix("socle-swap-").tempdir()?;
    let programs = Programs::in_folder(&cli.bin_dir)?;
    say(cli, &format!("seed {seed}"))?;
    let plan = Plan { swaps: cli.swaps, poisoned: cli.poisoned, requests: cli.requests };
    let (seen, outcome) =
        drive::run(folder.path(), &programs, &cli.model, plan, &mut random, progress);
    if io::stderr().is_terminal() {
        writeln!(io::stderr().lock())?;
    }
    let why = match &outcome {
        Err(error) => Some(format!("{error:#}")),
        Ok(()) if seen.load.failed > 0 => Some(format!("{} requests failed", seen.load.failed)),
        Ok(()) if seen.load.requests() < cli.requests => {
            Some(format!("only {} requests were asked", seen.load.requests()))
        }
        Ok(()) => None,
    };
    let figures = figures(seed, seen, why);
    for line in sentences(&figures) {
        say(cli, &line)?;
    }
    if let Some(why) = &figures.why {
        // What is left is worth looking at.
        let kept = folder.keep();
        say(cli, &format!("NOT HELD (seed {seed}): {why}\nleft in {}", kept.display()))?;
    }
    if cli.json {
        let text = serde_json::to_string(&figures).context("writing the figures")?;
        writeln!(io::stdout().lock(), "{text}")?;
    }
    Ok(figures.held)
}

fn figures(seed: u64, seen: Seen, why: Option<String>) -> Figures {
    let sum = |by: &BTreeMap<String, Took>| by.values().map(|took| took.count).sum();
    let load = seen.load;
    Figures {
        seed,
        held: why.is_none(),
        why,
        seconds: seen.seconds,
        committed: sum(&seen.committed),
        rolled_back: sum(&seen.rolled_back),
        requests: load.requests(),
        failed: load.failed,
        p50_ms: load.latency_ms(500),
        p99_ms: load.latency_ms(990),
        slowest_ms: load.latency_ms(1000),
        longest_gap_ms: load.longest_gap_ms,
        failures: load.failures,
        by_route: load.by_route,
        connections: load.connections,
        closed_as_said: load.closed_as_said,
        by_change: seen.committed,
        by_poison: seen.rolled_back,
        memory_kib: seen.memory,
    }
}

fn sentences(figures: &Figures) -> Vec<String> {
    let mut lines = vec![format!(
        "{} swaps committed, {} poisoned releases rolled back in {} s",
        figures.committed, figures.rolled_back, figures.seconds
    )];
    for (what, by) in [("committed", &figures.by_change), ("rolled back", &figures.by_poison)] {
        for (kind, took) in by {
            lines.push(format!(
                "  {what}: {kind} {} times, {} ms each, slowest {} ms",
                took.count,
                took.all_ms / took.count.max(1),
                took.slowest_ms
            ));
        }
    }
    let routes: Vec<String> =
        figures.by_route.iter().map(|(route, count)| format!("{route} {count}")).collect();
    lines.push(format!(
        "{} requests ({}) on {} connections, {} failed",
        figures.requests,
        routes.join(", "),
        figures.connections,
        figures.failed
    ));
    lines.push(format!(
        "answered in {:.1} ms (p50), {:.1} ms (p99), {:.0} ms (slowest); longest time without any answer {} ms",
        figures.p50_ms, figures.p99_ms, figures.slowest_ms, figures.longest_gap_ms
    ));
    for (role, memory) in &figures.memory_kib {
        lines.push(format!(
            "memory of the {role}: {} KiB first, {} KiB last, {} KiB at most",
            memory.first, memory.last, memory.most
        ));
    }
    lines.extend(figures.failures.iter().map(|failure| format!("FAILED: {failure}")));
    lines
}

fn progress(words: &str) {
    let end = if io::stderr().is_terminal() { "" } else { "\n" };
    let start = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    drop(write!(io::stderr().lock(), "{start}{words}{end}"));
}

/// With --json, stdout is for the one object.
fn say(cli: &Cli, text: &str) -> io::Result<()> {
    if cli.json {
        writeln!(io::stderr().lock(), "{text}")
    } else {
        writeln!(io::stdout().lock(), "{text}")
    }
}
