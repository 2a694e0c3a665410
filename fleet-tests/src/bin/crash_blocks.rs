//! `crash-blocks`: cuts the power of a machine's disk at many moments of its updates and sees what comes up again.

use std::{
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use fastrand::Rng;
use fleet_tests::{
    blocks::{
        cuts,
        disks::Disks,
        history::{self, RECORDED},
        log::Cache,
        machine::Programs,
        mounted::Journal,
        needs, served,
        sweep::{Place, Tally, sweep},
    },
    crash::bench::{instant, now},
    device::factory,
};
use serde::Serialize;

/// Size of each disk, in bytes.
const DISK_BYTES: u64 = 96 << 20;
/// States that one recorded history is used for.
const STATES_PER_HISTORY: usize = 200;
/// What a cache that ignores flushes holds, in writes.
const CACHED: usize = 256;
const WORKERS_MAX: usize = 8;
/// The machine lacks something.
const MISSING: u8 = 3;

/// Cuts the power of a machine's disk at many moments of its updates. Afterwards the old release or the new one must
/// start, with everything that was acknowledged.
#[derive(Parser)]
#[command(name = "crash-blocks", version)]
#[command(after_help = "Example:\n  crash-blocks --states 200 --seed 7 --bin-dir target/release")]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// Disks to look at, each what a power cut left.
    #[arg(long, default_value_t = 200)]
    states: usize,
    /// Seed of the cuts; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// The disk answers flushes and ignores them; losses are what is expected then.
    #[arg(long)]
    without_fsync: bool,
    /// Folder of the programs; by default this program's.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Disks at a time; by default one for each processor.
    #[arg(long)]
    workers: Option<usize>,
    /// Folder for the disks on which something did not hold, as the cut left them.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Serves the disks; started by this program itself.
    #[command(hide = true)]
    Disks {
        /// Where.
        #[arg(long)]
        folder: PathBuf,
        /// How many.
        #[arg(long)]
        disks: usize,
        /// Size of each, in bytes.
        #[arg(long)]
        bytes: u64,
    },
}

#[derive(Serialize)]
struct Figures {
    seed: u64,
    seconds: u64,
    held: bool,
    without_fsync: bool,
    histories: usize,
    steps: usize,
    entries: usize,
    flushes: usize,
    tally: Tally,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Role::Disks { folder, disks, bytes }) = &cli.role {
        return ended(served::serve(folder, *disks, *bytes).map(|()| ExitCode::SUCCESS));
    }
    let missing = needs::missing();
    if !missing.is_empty() {
        let list = missing.join("\n  ");
        drop(writeln!(io::stderr().lock(), "crash-blocks: this machine lacks\n  {list}"));
        return ExitCode::from(MISSING);
    }
    if !needs::is_inside() {
        return ended(needs::enter().map(|()| ExitCode::FAILURE));
    }
    ended(run(&cli))
}

fn ended(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        drop(writeln!(io::stderr().lock(), "crash-blocks: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let started = instant();
    let seed = cli.seed.unwrap_or_else(|| now().0);
    let mut random = Rng::with_seed(seed);
    say(cli, &format!("seed {seed}"))?;
    let program = env::current_exe().context("finding this program")?;
    let bin_dir = match &cli.bin_dir {
        Some(folder) => std::path::absolute(folder)?,
        None => program.parent().unwrap_or(Path::new(".")).to_owned(),
    };
    let keep = cli.keep.as_ref().map(std::path::absolute).transpose()?;
    let programs = Programs::in_folder(&bin_dir)?;
    let mut visible = vec![program.as_path(), bin_dir.as_path()];
    visible.extend(keep.as_deref());
    let folder = needs::folder(&visible)?;
    if let Some(keep) = &keep {
        fs::create_dir_all(keep).with_context(|| format!("making {}", keep.display()))?;
    }

    let factory_folder = folder.join("factory");
    factory(&factory_folder, &programs.slot_agent)?;
    let workers = match cli.workers {
        Some(workers) => workers.max(1),
        None => thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
    };
    let served = folder.join("disks");
    fs::create_dir(&served)?;
    let disks = Mutex::new(Disks::start(&program, &served, RECORDED + 1 + workers, DISK_BYTES)?);

    let cache = if cli.without_fsync { Cache::Lying(CACHED) } else { Cache::Honest };
    let histories = cli.states.div_ceil(STATES_PER_HISTORY).max(1);
    let mut figures = Figures {
        seed,
        seconds: 0,
        held: false,
        without_fsync: cli.without_fsync,
        histories,
        steps: 0,
        entries: 0,
        flushes: 0,
        tally: Tally::default(),
    };
    for number in 0..histories {
        let journal = if number.is_multiple_of(2) { Journal::Ordered } else { Journal::Writeback };
        let recorded = history::record(
            &disks,
            &folder.join("recorded"),
            &factory_folder,
            &programs,
            journal,
            &mut random,
        )
        .context("recording what the machine lives through")?;
        figures.steps += recorded.steps.len();
        figures.entries += recorded.shape.entries;
        figures.flushes += recorded.shape.flushes.len();
        let ends: Vec<usize> = recorded.steps.iter().map(|step| step.end).collect();
        let count = cli.states / histories + usize::from(number < cli.states % histories);
        let cuts = cuts::choose(&recorded.shape, &ends, count, cache, &mut random);
        let place = Place {
            disks: &disks,
            folder: &folder,
            factory: &factory_folder,
            programs: &programs,
            journal,
            workers,
            keep: keep.clone(),
        };
        let before = figures.tally.states;
        let seen = sweep(&place, &recorded, &cuts, |done| show(before + done, cli.states))?;
        figures.tally.add(seen);
    }
    line_end()?;
    figures.seconds = started.elapsed().as_secs().max(1);
    tell(cli, &mut figures)
}

/// An honest disk must lose nothing; one that ignores flushes must be seen to lose something.
fn tell(cli: &Cli, figures: &mut Figures) -> anyhow::Result<ExitCode> {
    let Figures { histories, steps, entries, flushes, seconds, tally, .. } = &*figures;
    ensure!(tally.states > 0, "no state was looked at");
    let failures = tally.failures();
    for told in &tally.told {
        say(cli, told)?;
    }
    say(
        cli,
        &format!(
            "recorded {steps} steps in {histories} histories: {entries} writes and flushes, {flushes} of them flushes"
        ),
    )?;
    say(
        cli,
        &format!(
            "{} states in {seconds} s, {} of them right after an acknowledgement; {} of {} volatile writes undone; \
the old release started {} times, the new one {}",
            tally.states,
            tally.at_acknowledgements,
            tally.undone_writes,
            tally.volatile_writes,
            tally.old,
            tally.new
        ),
    )?;
    let counts = format!(
        "{} lost acknowledged commits, {} lost other acknowledged steps, {} unstartable states, \
{} where an update could not go on, {} file systems that could not be mounted",
        tally.lost_commits, tally.lost, tally.unstartable, tally.stuck, tally.unmountable
    );
    let lost = tally.lost_commits + tally.lost;
    let (held, verdict) = match cli.without_fsync {
        false if failures == 0 => (true, "held"),
        false => (false, "NOT HELD"),
        true if lost > 0 => (true, "without fsync, as is to be seen"),
        true => (false, "NOT SEEN, although the disk ignored every flush"),
    };
    figures.held = held;
    let verdict = format!("{verdict}: {counts}");
    say(cli, &verdict)?;
    if cli.json {
        let text = serde_json::to_string(figures).context("writing the figures")?;
        writeln!(io::stdout().lock(), "{text}")?;
    }
    Ok(if figures.held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(done: usize, all: usize) {
    if io::stderr().is_terminal() {
        drop(write!(io::stderr().lock(), "\r{done} of {all} states"));
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
