//! `bench-update`: what an update moves, how fast it is staged, and how much memory that takes.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use fleet_tests::transport::{
    moved::{self, Moved},
    packages::Ground,
    program,
    staging::{self, Staged, Staging},
};
use protocol::manifest::File;
use serde::Serialize;
use slots::layout::StateDir;

/// Measures updates: bytes moved, staging rate, peak memory.
#[derive(Parser)]
#[command(name = "bench-update", version)]
struct Cli {
    /// Folder of socle and socle-agent.
    #[arg(long)]
    bin_dir: PathBuf,
    /// Folder with model.onnx and tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// Folder with the FAQs.
    #[arg(long)]
    faq: PathBuf,
    /// An agent; with --agent-rebuilt, what a rebuilt agent moves is measured too.
    #[arg(long, requires = "agent_rebuilt")]
    agent_before: Option<PathBuf>,
    /// The same agent built again after a change.
    #[arg(long, requires = "agent_before")]
    agent_rebuilt: Option<PathBuf>,
    /// Folder for everything that is made; by default a temporary one.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Bytes of the release whose staging is timed.
    #[arg(long, default_value_t = 1 << 30)]
    staging_bytes: u64,
    /// Times that it is staged.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Bytes of the release whose memory is measured.
    #[arg(long, default_value_t = 4 << 30)]
    memory_bytes: u64,
    /// Leave a part out; repeat for several.
    #[arg(long, value_enum)]
    skip: Vec<Part>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
    /// Only fetch this file, a manifest's entry in JSON, from the objects in WORK, and say how much memory that took.
    #[arg(long, hide = true)]
    fetch_one: Option<String>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes moved.
    Moved,
    /// Staging rate.
    Staging,
    /// Peak memory.
    Memory,
}

#[derive(Serialize)]
struct Figures {
    moved: Vec<Moved>,
    staging: Option<Staged>,
    ratio: Option<f64>,
    memory: Option<Memory>,
}

#[derive(Serialize)]
struct Memory {
    release_bytes: u64,
    updater_bytes: u64,
    fetch_bytes: u64,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "bench-update: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if let (Some(file), Some(work)) = (&cli.fetch_one, &cli.work) {
        return fetch_one(file, work);
    }
    let folder = match &cli.work {
        Some(work) => tempfile::tempdir_in(work),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("making a working folder")?;
    let ground = Ground {
        bin_dir: std::path::absolute(&cli.bin_dir)?,
        model: cli.model.clone(),
        faq: cli.faq.clone(),
        agents: cli.agent_before.clone().zip(cli.agent_rebuilt.clone()),
        work: folder.path().to_owned(),
    };
    let moved = if cli.skip.contains(&Part::Moved) { vec![] } else { moved(&ground)? };
    let agent = ground.bin_dir.join("socle-agent");
    let staging = if cli.skip.contains(&Part::Staging) {
        None
    } else {
        say("staging beside sha256sum")?;
        Some(Staging::new(cli.staging_bytes, &agent)?.measure(cli.rounds, folder.path())?)
    };
    let memory = if cli.skip.contains(&Part::Memory) {
        None
    } else {
        say("staging and fetching a large release")?;
        let staged = Staging::new(cli.memory_bytes, &agent)?.measure(1, folder.path())?;
        let fetch_bytes = fetch_memory(cli, folder.path())?;
        let updater_bytes = staged.memory_bytes();
        Some(Memory { release_bytes: cli.memory_bytes, updater_bytes, fetch_bytes })
    };
    let ratio = staging.as_ref().map(Staged::ratio);
    let figures = Figures { moved, ratio, staging, memory };
    if cli.json { say_out(&serde_json::to_string(&figures)?) } else { print(&figures) }
}

fn moved(ground: &Ground) -> anyhow::Result<Vec<Moved>> {
    say("building pairs of releases")?;
    let mut rows = Vec::new();
    for pair in ground.pairs()? {
        let row = moved::measure(&pair, &ground.work)?;
        say(&line(&row))?;
        rows.push(row);
    }
    Ok(rows)
}

/// The most memory that a process held which did what the gateway does to fetch one large file.
fn fetch_memory(cli: &Cli, work: &Path) -> anyhow::Result<u64> {
    let objects = work.join("objects");
    std::fs::create_dir(&objects)?;
    let file = staging::large_object(cli.memory_bytes, &objects)?;
    let text = |path: &Path| path.display().to_string();
    let own = std::env::current_exe().context("finding this program")?;
    let arguments = [
        "--bin-dir".to_owned(),
        text(&cli.bin_dir),
        "--model".into(),
        text(&cli.model),
        "--faq".into(),
        text(&cli.faq),
        "--work".into(),
        text(work),
        "--fetch-one".into(),
        serde_json::to_string(&file)?,
    ];
    program::run(&text(&own), &arguments).map(|cost| cost.memory_bytes)
}

fn fetch_one(file: &str, work: &Path) -> anyhow::Result<()> {
    let file: File = serde_json::from_str(file).context("reading which file to fetch")?;
    moved::fetch_one(&work.join("objects"), &file, &StateDir::new(work.join("fetched")))?;
    let held = program::own_high_water().context("asking the kernel for this process's memory")?;
    say(&format!("fetched {} twice in {} of memory", mib(file.length), mib(held)))
}

fn print(figures: &Figures) -> anyhow::Result<()> {
    say_out(
        "| update | files | moved | requests | packed, nothing here | whole files | zstd --patch-from | whole release |",
    )?;
    say_out("|---|---|---|---|---|---|---|---|")?;
    for row in &figures.moved {
        say_out(&line(row))?;
    }
    if let Some(staging) = &figures.staging {
        say_out(&format!(
            "staging {} in {} rounds: updater {:.0} MB/s, sha256sum {:.0} MB/s, median ratio {:.2}",
            mib(staging.bytes),
            staging.rounds.len(),
            staging.rate() / 1e6,
            staging.sha256sum_rate() / 1e6,
            staging.ratio()
        ))?;
    }
    if let Some(memory) = &figures.memory {
        say_out(&format!(
            "a release of {}: updater {} at most, fetching {} at most",
            mib(memory.release_bytes),
            mib(memory.updater_bytes),
            mib(memory.fetch_bytes)
        ))?;
    }
    Ok(())
}

fn line(row: &Moved) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        row.what,
        row.files,
        kb(row.by_chunks),
        row.requests,
        kb(row.packed),
        kb(row.whole_files),
        kb(row.patch_from),
        kb(row.whole_release)
    )
}

fn kb(bytes: u64) -> String {
    format!("{:.1} kB", bytes as f64 / 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr().lock(), "{text}")?)
}

fn say_out(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}
