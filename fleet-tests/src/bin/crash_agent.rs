//! `socle-crash-agent`: an agent whose gateway crashes at every start, or does what the last line of its own file says.
//! Its worker and its updater are the real ones, so a release with it passes every gate before the gateway's own start.

use std::{
    env,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
};

use agent::{
    daemon::{
        gateway::{self, Options},
        watchdog,
    },
    installed::{Installed, release_from_env},
    observe::{clock, logging, status::Mode},
    sockets::PassedSockets,
    update::run::{self as updater, UpdateConfig},
    worker::process,
};
use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use engine::worker::spoken::Spoken;
use rustix::process::{Signal, set_parent_process_death_signal};
use sd_notify::NotifyState;

/// What the last line begins with, if there is one.
const SAYS: &str = "socle-crash-agent: ";
const LAST_LINE_BYTES_MAX: i64 = 64;

#[derive(Parser)]
#[command(name = "socle-agent", version)]
struct Cli {
    /// What the real agent prints.
    #[arg(long)]
    self_check: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Serves the slot's models, as the real agent does.
    Worker {
        /// Folder of the release.
        #[arg(long)]
        slot_dir: PathBuf,
    },
    /// Does what is due on the slots, as the real agent does.
    Updater {
        /// The device's state folder.
        #[arg(long)]
        state: PathBuf,
        /// The package's own agent.
        #[arg(long)]
        factory: PathBuf,
    },
    /// Crashes, or does what this file says.
    Gateway(Gateway),
}

#[derive(Args)]
struct Gateway {
    #[arg(long)]
    state: PathBuf,
    #[arg(long)]
    runtime: PathBuf,
    #[arg(long)]
    slot_dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1:7411")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let passed = PassedSockets::from_env();
    match run(Cli::parse(), passed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "socle-crash-agent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, passed: PassedSockets) -> anyhow::Result<()> {
    let says = last_line()?;
    if cli.self_check {
        if says == "self-check" {
            bail!("this agent does not pass its self-check, as it was built to");
        }
        let (version, protocol) = (env!("CARGO_PKG_VERSION"), Spoken::OURS.newest);
        writeln!(io::stdout().lock(), "{{\"version\":\"{version}\",\"protocol\":{protocol}}}")?;
        return Ok(());
    }
    match cli.role {
        Some(Role::Worker { slot_dir }) => {
            end_with_supervisor()?;
            logging::start("worker")?;
            let policy = process::policy_from(|name| env::var(name).ok())?;
            process::run(slot_dir, release_from_env()?, policy, passed)?;
            Ok(())
        }
        Some(Role::Updater { state, factory }) => {
            end_with_supervisor()?;
            logging::start("updater")?;
            // It is told to every updater, and none has a use for it yet.
            drop(factory);
            updater::run_once(&UpdateConfig::of_this_machine(state), clock::now())?;
            Ok(())
        }
        Some(Role::Gateway(gateway)) => match says.as_str() {
            "serve" => serve(&gateway, passed),
            "hang" => hang(),
            "mute" => {
                watchdog::tell(&[NotifyState::Ready]);
                hang()
            }
            _ => bail!("this gateway crashes at every start, as it was built to"),
        },
        None => bail!("nothing to do; see --help"),
    }
}

/// As the real agent does.
fn serve(args: &Gateway, passed: PassedSockets) -> anyhow::Result<()> {
    let mode = end_with_supervisor()?;
    logging::start("gateway")?;
    let installed = Installed::from_env(&args.state, &args.runtime, &args.slot_dir)?;
    let options = Options { installed, mode, listen: args.listen, traces: None };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(gateway::run(options, passed));
    runtime.shutdown_background();
    Ok(ended?)
}

/// Neither answers nor ends.
fn hang() -> anyhow::Result<()> {
    end_with_supervisor()?;
    loop {
        thread::park();
    }
}

/// A process of the real agent ends with its supervisor; so does this one.
fn end_with_supervisor() -> anyhow::Result<Mode> {
    if env::var_os(agent::single::plan::SUPERVISOR_VARIABLE).is_none() {
        return Ok(Mode::Services);
    }
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("tying this process to its supervisor")?;
    Ok(Mode::Single)
}

/// What the last line of this program's file says after [`SAYS`]; nothing when it has no such line.
fn last_line() -> anyhow::Result<String> {
    let mut file = File::open("/proc/self/exe").context("reading this program")?;
    file.seek(SeekFrom::End(-LAST_LINE_BYTES_MAX)).context("reading this program")?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).context("reading this program")?;
    let end = String::from_utf8_lossy(&end);
    let last = end.trim_end().lines().next_back().unwrap_or_default();
    Ok(last.strip_prefix(SAYS).unwrap_or_default().to_owned())
}
