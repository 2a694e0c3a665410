//! `socle-crash-agent`: an agent whose gateway crashes at every start. Its worker is the real one, so a release with it
//! passes every gate before the gateway's own start.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use agent::{
    installed::release_from_env, observe::logging, sockets::PassedSockets, worker::process,
};
use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};

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
    /// Crashes.
    Gateway {
        /// Ignored.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
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
    if cli.self_check {
        let version = env!("CARGO_PKG_VERSION");
        writeln!(io::stdout().lock(), "{{\"version\":\"{version}\",\"protocol\":1}}")?;
        return Ok(());
    }
    match cli.role {
        Some(Role::Worker { slot_dir }) => {
            // A worker of the real agent ends with its supervisor; so does this one.
            if env::var_os(agent::single::plan::SUPERVISOR_VARIABLE).is_some() {
                set_parent_process_death_signal(Some(Signal::KILL))
                    .context("tying this process to its supervisor")?;
            }
            logging::start("worker")?;
            process::run(slot_dir, release_from_env()?, passed)?;
            Ok(())
        }
        Some(Role::Gateway { rest }) => {
            bail!(
                "this gateway crashes at every start, as it was built to ({} arguments)",
                rest.len()
            )
        }
        None => bail!("nothing to do; see --help"),
    }
}
