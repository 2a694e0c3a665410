//! `conformance`: the node tests of ONNX on the engine, beside the written list. `cargo xtask conformance` drives it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use fleet_tests::conformance::{
    case, child,
    children::{self, Program, Tried},
    expected::{Change, Expected},
    outcome::Outcome,
};
use serde_json::json;
use slots::disk::{self, RealDisk};

/// Most children at once: each may take as much memory as a worker.
const JOBS_MAX: usize = 4;
/// Most changes that are named.
const NAMED_MAX: usize = 40;

/// The node tests of ONNX on the engine.
#[derive(Parser)]
#[command(name = "conformance", version)]
#[command(
    after_help = "Example:\n  conformance run --data DATA --expected fleet-tests/conformance/expected.txt"
)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Try the tests and compare with the list.
    Run(Run),
    /// What the tests are tried in.
    #[command(hide = true)]
    Child,
}

#[derive(Args)]
struct Run {
    /// The folder with `node`, `pytorch-operator` and so on.
    #[arg(long)]
    data: PathBuf,
    /// The written list.
    #[arg(long)]
    expected: PathBuf,
    /// Write the list again.
    #[arg(long)]
    write: bool,
    /// Only tests whose names contain this; says why each does not pass.
    #[arg(long)]
    only: Option<String>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Verb::Run(options) => run(&options),
        Verb::Child => child::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "conformance: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Run) -> anyhow::Result<()> {
    let path = options.expected.display();
    let text = fs::read_to_string(&options.expected).with_context(|| format!("reading {path}"))?;
    let list = Expected::parse(&text).with_context(|| format!("reading {path}"))?;
    let mut cases = case::all(&options.data)?;
    let all = cases.len();
    cases.retain(|case| !list.excludes(&case.to_string()));
    let excluded = all - cases.len();
    if let Some(part) = &options.only {
        cases.retain(|case| case.to_string().contains(part));
    }
    let own = std::env::current_exe().context("finding this program")?;
    let program = Program { path: own, arguments: vec!["child".into()] };
    let jobs = thread::available_parallelism().map_or(1, |cores| cores.get().min(JOBS_MAX));
    let started = instant();
    let tried = children::try_all(&cases, &program, jobs)?;
    let seconds = started.elapsed().as_secs_f64();
    if options.only.is_some() {
        for one in &tried {
            say(options, &format!("{} {} {}", one.outcome, one.case, one.why))?;
        }
        return Ok(());
    }
    let changes = list.changes(&tried);
    for line in table(&tried, &list) {
        say(options, &line)?;
    }
    say(
        options,
        &format!("{excluded} tests are left out, with the reason in {path}; {seconds:.1} s"),
    )?;
    if options.json {
        let passed = passed(&tried);
        let changed: Vec<String> = changes.iter().map(line).collect();
        let object = json!({
            "tests": tried.len(), "passed": passed, "excluded": excluded, "changed": changed,
            "seconds": seconds,
        });
        writeln!(io::stdout().lock(), "{object}")?;
    }
    if options.write {
        let text = list.written(&tried);
        disk::replace(&RealDisk, &options.expected, text.as_bytes())
            .with_context(|| format!("writing {path}"))?;
        return say(options, &format!("{} lines were written again", changes.len()));
    }
    report(options, &tried, &changes)
}

/// Names what changed.
fn report(options: &Run, tried: &[Tried], changes: &[Change]) -> anyhow::Result<()> {
    for change in changes.iter().take(NAMED_MAX) {
        let why = tried.iter().find(|one| one.case.to_string() == change.test);
        let why = why.map(|one| one.why.as_str()).unwrap_or_default();
        say(options, &format!("CHANGED {} {why}", line(change)))?;
    }
    if changes.is_empty() {
        return Ok(());
    }
    bail!(
        "{} tests came out otherwise than written; where that is meant, write the list again: \
         cargo xtask conformance --write",
        changes.len()
    )
}

fn line(change: &Change) -> String {
    let word = |outcome: Option<Outcome>| {
        outcome.map_or_else(|| "not there".to_owned(), |outcome| outcome.to_string())
    };
    format!("{}: {}, written is {}", change.test, word(change.found), word(change.expected))
}

fn table(tried: &[Tried], list: &Expected) -> Vec<String> {
    let mut by: BTreeMap<&str, (BTreeMap<Outcome, usize>, usize)> = BTreeMap::new();
    for one in tried {
        for name in [one.case.category, "total"] {
            let (outcomes, wanted) = by.entry(name).or_default();
            *outcomes.entry(one.outcome).or_default() += 1;
            let expected = list.outcomes.get(&one.case.to_string());
            *wanted += usize::from(expected.is_some_and(|expected| expected.passed()));
        }
    }
    by.iter()
        .map(|(name, (outcomes, wanted))| {
            let tests: usize = outcomes.values().sum();
            let passed = outcomes.iter().filter(|(outcome, _)| outcome.passed());
            let passed: usize = passed.map(|(_, count)| count).sum();
            let others: Vec<String> = outcomes
                .iter()
                .filter(|(outcome, _)| **outcome != Outcome::Pass)
                .map(|(outcome, count)| format!("{outcome} {count}"))
                .collect();
            let others = others.join(", ");
            format!("{name:18} {passed:5} passed, {wanted:5} expected, of {tests:5} ({others})")
        })
        .collect()
}

fn passed(tried: &[Tried]) -> usize {
    tried.iter().filter(|one| one.outcome.passed()).count()
}

/// With --json, stdout is for the one object.
fn say(options: &Run, text: &str) -> anyhow::Result<()> {
    if options.json {
        Ok(writeln!(io::stderr().lock(), "{text}")?)
    } else {
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }
}

#[expect(clippy::disallowed_methods, reason = "durations are what is shown here")]
fn instant() -> Instant {
    Instant::now()
}
