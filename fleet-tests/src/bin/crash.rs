//! `crash`: kills the processes of an update at random moments and sees what starts afterwards.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use fastrand::Rng;
use fleet_tests::crash::{
    bench::{Bench, Programs, Tally, instant, now, pack_model},
    steps, tree,
};
use protocol::manifest::{Policy, Role};
use serde::Serialize;

/// Kills processes of an update at random moments. Afterwards the old release or the new one must start.
#[derive(Parser)]
#[command(name = "crash", version)]
#[command(
    after_help = "Example:\n  crash --kills 200 --seed 7 --model MODEL --bin-dir target/release"
)]
struct Cli {
    /// Processes to kill.
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Seed of the moments; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder with model.onnx and tokenizer.json. Without it, only updater and launcher are killed.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Folder of socle-agent and socle-launch.
    #[arg(long)]
    bin_dir: PathBuf,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    seed: u64,
    seconds: u64,
    held: bool,
    why: Option<String>,
    steps: Tally,
    tree: Option<Tally>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "crash: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let seed = cli.seed.unwrap_or_else(|| now().0);
    let mut random = Rng::with_seed(seed);
    let started = instant();
    let folder = tempfile::Builder::new().prefix("socle-crash-").tempdir()?;
    let programs = Programs::in_folder(&cli.bin_dir)?;
    say(cli, &format!("seed {seed}"))?;

    let in_steps = if cli.model.is_some() { cli.kills / 2 } else { cli.kills };
    // Any bytes will do where no worker runs.
    let model = vec![("models/none/model.onnx".to_owned(), Role::Model, vec![7; 4 << 20])];
    let one = folder.path().join("steps");
    std::fs::create_dir(&one)?;
    let mut bench = Bench::new(&one, programs.clone(), model, policy())?;
    let mut outcome = steps::run(&mut bench, &mut random, in_steps, |bench| show(bench, in_steps));
    line_end()?;
    let steps_tally = bench.tally.clone();
    say(cli, &sentence("updater and launcher, one by one", &steps_tally))?;

    let mut tree_tally = None;
    if let (Some(model), true) = (&cli.model, outcome.is_ok()) {
        let two = folder.path().join("tree");
        std::fs::create_dir(&two)?;
        let in_tree = cli.kills - in_steps;
        let mut bench = Bench::new(&two, programs, pack_model(model)?, policy())?;
        outcome = tree::run(&mut bench, &mut random, in_tree, |bench| show(bench, in_tree));
        line_end()?;
        say(cli, &sentence("any process under run --single", &bench.tally))?;
        tree_tally = Some(bench.tally);
    }

    let held = outcome.is_ok();
    let why = outcome.as_ref().err().map(|error| format!("{error:#}"));
    let seconds = started.elapsed().max(Duration::from_secs(1)).as_secs();
    let killed = steps_tally.kills + tree_tally.as_ref().map_or(0, |tally| tally.kills);
    match &why {
        None => say(
            cli,
            &format!(
                "{killed} kills in {seconds} s: old or new each time, never neither, no failed start"
            ),
        )?,
        Some(why) => {
            // What is left is worth looking at.
            let kept = folder.keep();
            say(
                cli,
                &format!(
                    "NOT HELD after {killed} kills (seed {seed}): {why}\nleft in {}",
                    kept.display()
                ),
            )?;
        }
    }
    if cli.json {
        let figures = Figures { seed, seconds, held, why, steps: steps_tally, tree: tree_tally };
        let text = serde_json::to_string(&figures).context("writing the figures")?;
        writeln!(io::stdout().lock(), "{text}")?;
    }
    Ok(held)
}

fn policy() -> Policy {
    Policy { tries: 5, probation_ms: 120_000, probation_answers: 2, ..Policy::standard() }
}

fn sentence(what: &str, tally: &Tally) -> String {
    let killed: Vec<String> =
        tally.killed.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    format!(
        "{what}: {} killed ({}); started from the old release {} times, from the new one {}; {} committed, {} given up",
        tally.kills,
        killed.join(", "),
        tally.old,
        tally.new,
        tally.committed,
        tally.rolled_back
    )
}

fn show(bench: &Bench, all: u64) {
    if io::stderr().is_terminal() {
        let done = bench.tally.kills;
        drop(write!(
            io::stderr().lock(),
            "\r{done} of {all} killed, {} committed",
            bench.tally.committed
        ));
    }
}

fn line_end() -> io::Result<()> {
    if io::stderr().is_terminal() { writeln!(io::stderr().lock()) } else { Ok(()) }
}

/// With --json, stdout is for the one object.
fn say(cli: &Cli, text: &str) -> io::Result<()> {
    if cli.json {
        writeln!(io::stderr().lock(), "{text}")
    } else {
        writeln!(io::stdout().lock(), "{text}")
    }
}
