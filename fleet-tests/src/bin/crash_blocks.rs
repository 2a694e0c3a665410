//! `crash-blocks`: cuts the power of a machine's disk at many moments of its updates, or has the disk fail, and sees
//! what comes up again.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fleet_tests::{
    blocks::{
        campaign::{self, Figures, Flushes, Plan},
        machine::Programs,
        needs, served,
    },
    crash::bench::{instant, now},
};

const WORKERS_MAX: usize = 8;
/// Exit code: the machine lacks something.
const MISSING: u8 = 3;

/// Cuts the power of a machine's disk at many moments of its updates. Afterwards the old release or the new one must
/// start, with everything that was acknowledged.
#[derive(Parser)]
#[command(name = "crash-blocks", version)]
#[command(
    after_help = "Examples:\n  crash-blocks --states 200 --seed 7 --bin-dir target/release\n  \
crash-blocks --states 0 --faults 400"
)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// Disks to look at, each what a power cut left.
    #[arg(long, default_value_t = 200)]
    states: usize,
    /// Disks that fail with input/output errors during an update.
    #[arg(long, default_value_t = 0)]
    faults: usize,
    /// Seed of all choices; printed, so that a run can be repeated.
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
    /// Folder for the disks on which something did not hold, as a cut left them.
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
    let program = env::current_exe().context("finding this program")?;
    let bin_dir = match &cli.bin_dir {
        Some(folder) => std::path::absolute(folder)?,
        None => program.parent().unwrap_or(Path::new(".")).to_owned(),
    };
    let programs = Programs::in_folder(&bin_dir)?;
    let plan = Plan {
        cuts: cli.states,
        faults: cli.faults,
        flushes: if cli.without_fsync { Flushes::Ignored } else { Flushes::Done },
        workers: match cli.workers {
            Some(workers) => workers.max(1),
            None => thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
        },
        keep: cli.keep.as_ref().map(std::path::absolute).transpose()?,
        seed: cli.seed.unwrap_or_else(|| now().0),
    };
    say(cli, &format!("seed {}", plan.seed))?;
    let all = plan.cuts + plan.faults;
    let figures = campaign::run(&plan, &program, &programs, |done| show(done, all))?;
    line_end()?;
    tell(cli, &figures, started.elapsed().as_secs().max(1))?;
    Ok(if figures.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(cli: &Cli, figures: &Figures, seconds: u64) -> anyhow::Result<()> {
    for told in figures.cuts.told.iter().chain(&figures.faults.told) {
        say(cli, told)?;
    }
    let Figures { histories, steps, entries, flush_entries, cuts, faults, .. } = figures;
    say(
        cli,
        &format!(
            "{histories} histories of {steps} steps together: {entries} writes and flushes, {flush_entries} of them \
flushes; {seconds} s"
        ),
    )?;
    if cuts.states > 0 {
        say(
            cli,
            &format!(
                "{} power cuts, {} of them right after an acknowledgement, undid {} of the {} writes that they could; \
the old release started {} times, the new one {}",
                cuts.states,
                cuts.at_acknowledgements,
                cuts.undone_writes,
                cuts.volatile_writes,
                cuts.old,
                cuts.new
            ),
        )?;
        say(
            cli,
            &format!(
                "{} lost acknowledged commits, {} lost other acknowledged steps, {} unstartable states, \
{} where an update could not go on, {} file systems that could not be mounted",
                cuts.lost_commits, cuts.lost, cuts.unstartable, cuts.stuck, cuts.unmountable
            ),
        )?;
    }
    if faults.disks > 0 {
        say(
            cli,
            &format!(
                "{} failing disks: {} programs worked, {} said that they could not; meanwhile a release started {} \
times, the factory agent {}; {} unstartable, {} lost something acknowledged, {} where an update could not go on, \
{} beyond repair",
                faults.disks,
                faults.worked,
                faults.failed,
                faults.started_release,
                faults.started_factory,
                faults.unstartable,
                faults.lost,
                faults.stuck,
                faults.unmountable
            ),
        )?;
    }
    let verdict = match (figures.held(), figures.flushes) {
        (true, Flushes::Done) => "held",
        (false, Flushes::Done) => "NOT HELD",
        (true, Flushes::Ignored) => "a disk that ignores flushes loses things, and that is seen",
        (false, Flushes::Ignored) => "NOT SEEN: this disk ignored every flush and nothing was lost",
    };
    say(cli, verdict)?;
    if cli.json {
        let mut value = serde_json::to_value(figures).context("writing the figures")?;
        value["seconds"] = seconds.into();
        value["held"] = figures.held().into();
        writeln!(io::stdout().lock(), "{value}")?;
    }
    Ok(())
}

fn show(done: usize, all: usize) {
    if io::stderr().is_terminal() {
        drop(write!(io::stderr().lock(), "\r{done} of {all}"));
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
