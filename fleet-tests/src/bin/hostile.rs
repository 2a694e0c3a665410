//! `hostile`: hostile model packages and inputs at a real agent that serves a good model. `cargo xtask hostile` drives it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_tests::{
    crash::bench::Programs,
    hostile::{
        corpus,
        drive::{Drive, Row},
        stand::Stand,
    },
};
use serde::Serialize;

/// Longest time until a worker is back, in the full form.
const BACK_MS_MAX: u64 = 2_000;
/// The same in CI, whose machines may be busy with other things.
const BACK_MS_MAX_QUICK: u64 = 20_000;
/// Most characters of a reason in the table.
const REASON_CHARS_MAX: usize = 150;

/// Hostile model packages and inputs at a real agent.
#[derive(Parser)]
#[command(name = "hostile", version)]
#[command(
    after_help = "Example:\n  hostile --model MODEL --bin-dir target/release --only onnx/giant"
)]
struct Cli {
    /// Folder with model.onnx and tokenizer.json of the good model.
    #[arg(long)]
    model: PathBuf,
    /// Folder of socle-agent and socle-launch.
    #[arg(long)]
    bin_dir: PathBuf,
    /// One case of each kind, with more patience.
    #[arg(long)]
    quick: bool,
    /// Only cases whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    held: bool,
    cases: usize,
    failed: usize,
    gateway_restarts: usize,
    worker_ends: u64,
    slowest_back_ms: u64,
    back_over_2_s: usize,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "hostile: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let mut cases = if cli.quick { corpus::quick() } else { corpus::all() };
    if let Some(part) = &cli.only {
        cases.retain(|case| case.name.contains(part.as_str()));
    }
    ensure!(!cases.is_empty(), "there is no such case");
    let folder = tempfile::Builder::new().prefix("socle-hostile-").tempdir()?;
    let programs = Programs::in_folder(&cli.bin_dir)?;
    say(cli, &format!("committing the good model; then {} cases", cases.len()))?;
    let stand = Stand::start(folder.path(), &programs, &cli.model)
        .with_context(|| format!("starting the machine in {}", folder.path().display()))?;
    let log = stand.machine.log.clone();
    let mut drive = Drive::start(stand)?;
    let mut rows = Vec::new();
    let mut outcome = Ok(());
    for case in &cases {
        match drive.try_case(case) {
            Ok(row) => {
                say(cli, &line(&row))?;
                rows.push(row);
            }
            Err(error) => {
                outcome =
                    Err(error.context(format!("{}; the log is {}", case.name, log.display())));
                break;
            }
        }
    }
    if outcome.is_ok() {
        outcome = drive.end();
    }
    let figures = figures(cli, rows, outcome.is_ok());
    say(cli, &summary(&figures))?;
    if !figures.held {
        // What is left is worth looking at.
        say(cli, &format!("NOT HELD; left in {}", folder.keep().display()))?;
    }
    if cli.json {
        writeln!(io::stdout().lock(), "{}", serde_json::to_string(&figures)?)?;
    }
    outcome.map(|()| figures.held)
}

fn figures(cli: &Cli, rows: Vec<Row>, ended_well: bool) -> Figures {
    let back: Vec<u64> = rows.iter().flat_map(|row| row.back_ms.iter().copied()).collect();
    let most = if cli.quick { BACK_MS_MAX_QUICK } else { BACK_MS_MAX };
    let failed = rows.iter().filter(|row| row.failed.is_some()).count();
    Figures {
        held: ended_well && failed == 0 && back.iter().all(|ms| *ms <= most),
        cases: rows.len(),
        failed,
        gateway_restarts: rows.iter().filter(|row| row.gateway_ended).count(),
        worker_ends: rows.iter().map(|row| row.ends).sum(),
        slowest_back_ms: back.iter().copied().max().unwrap_or_default(),
        back_over_2_s: back.iter().filter(|ms| **ms > BACK_MS_MAX).count(),
        rows,
    }
}

fn summary(figures: &Figures) -> String {
    let Figures {
        cases,
        failed,
        gateway_restarts,
        worker_ends,
        slowest_back_ms,
        back_over_2_s,
        ..
    } = figures;
    format!(
        "{cases} cases, {failed} failed; {gateway_restarts} gateway restarts; a worker ended {worker_ends} times and was \
         back in at most {slowest_back_ms} ms, {back_over_2_s} times later than 2 s"
    )
}

fn line(row: &Row) -> String {
    let shown: String =
        row.reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    let mut text = format!("{:44} {:12} {:6} ms", row.case, row.outcome, row.took_ms);
    if row.ends > 0 {
        text.push_str(&format!("  ended {} times, back in {:?} ms", row.ends, row.back_ms));
    }
    if row.lingered_ms > 1_000 {
        text.push_str(&format!("  computed {} ms more", row.lingered_ms));
    }
    text.push_str("  ");
    text.push_str(&shown);
    if let Some(failed) = &row.failed {
        text.push_str(&format!("\n  FAILED: {failed} ({} others answered)", row.answered));
    }
    text
}

/// With --json, stdout is for the one object.
fn say(cli: &Cli, text: &str) -> io::Result<()> {
    if cli.json {
        writeln!(io::stderr().lock(), "{text}")
    } else {
        writeln!(io::stdout().lock(), "{text}")
    }
}
