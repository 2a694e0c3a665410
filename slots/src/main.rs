//! `socle-launch`: small, part of the package, never updated by itself. It spends tries and starts what verifies.

use std::{
    error::Error,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::{id::Slot, time::UnixMs};
use serde::Serialize;
use slots::{
    boot::BootRecord,
    disk::{Disk as _, RealDisk},
    launch::{self, Launch, LaunchError, Place},
    layout::StateDir,
    lock::Lock,
    record::{self, Source},
    state::{Event, State},
};

/// How long another change of the boot record is waited for.
const LOCK_WAIT_MS: u64 = 5_000;

/// Starts the Socle agent from the slot that the boot record names, if it verifies.
#[derive(Parser)]
#[command(name = "socle-launch", version)]
#[command(after_help = "Examples:\n  socle-launch status --state /var/lib/socle\n  \
socle-launch arm --state /var/lib/socle --factory /usr/lib/socle/factory\n  \
socle-launch exec --state /var/lib/socle --factory /usr/lib/socle/factory gateway -- --listen 127.0.0.1:7411")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Before each gateway start: spend a try if a release is on trial. Never fails the start.
    Arm(Folders),
    /// Replace this process by the agent of the right slot.
    Exec(Exec),
    /// After a clean stop of the gateway: give its try back.
    Refund(StateOnly),
    /// Print the boot record.
    Status(Status),
}

#[derive(Args)]
struct StateOnly {
    /// The device's state folder.
    #[arg(long, default_value = "/var/lib/socle")]
    state: PathBuf,
}

#[derive(Args)]
struct Folders {
    #[command(flatten)]
    state: StateOnly,
    /// The package's own agent.
    #[arg(long, default_value = "/usr/lib/socle/factory")]
    factory: PathBuf,
}

#[derive(Args)]
struct Exec {
    #[command(flatten)]
    folders: Folders,
    /// Say that the inherited listening sockets are for this process (a supervisor cannot know its id beforehand).
    #[arg(long)]
    adopt_listeners: bool,
    /// The worker's slot.
    #[arg(long, required_if_eq("role", "worker"))]
    slot: Option<Slot>,
    /// What to start.
    role: RoleName,
    /// Passed on to the agent.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    state: StateOnly,
    /// For machines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    Gateway,
    Worker,
    Updater,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let now = clock();
    match cli.command {
        Verb::Arm(folders) => arm(&folders, now),
        Verb::Exec(request) => exec(request, now),
        Verb::Refund(state) => refund(&state.state, now),
        Verb::Status(status) => show(&status, now),
    }
}

#[expect(clippy::disallowed_methods, reason = "main.rs reads the clock")]
fn clock() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Spends a try. Whatever goes wrong is said, and the start goes on: `exec` then uses what the record allows.
fn arm(folders: &Folders, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(&folders.state.state);
    match spend(&dir, now) {
        Ok(decision) => say(&decision),
        Err(error) => complain(&format!(
            "no try was spent, the committed release starts: {}",
            launch::chain_text(error.as_ref())
        )),
    }
    ExitCode::SUCCESS
}

fn spend(dir: &StateDir, now: UnixMs) -> Result<String, Box<dyn Error>> {
    dir.prepare(&RealDisk)?;
    let _lock = Lock::take(&dir.record_lock(), LOCK_WAIT_MS)?;
    let loaded = record::load(&RealDisk, dir, now);
    let mut record = loaded.record.clone();
    // A trial whose slot no longer verifies is given up before it costs a start.
    let event = match record.state.trial() {
        Some(trial) if matches!(record.state, State::Armed { .. } | State::Probation { .. }) => {
            match launch::check(&RealDisk, dir, &trial.held) {
                Ok(()) => Event::Start,
                Err(error) => Event::Rejected { reason: launch::chain_text(&error) },
            }
        }
        Some(_) | None => Event::Start,
    };
    if let Ok((next, _)) = record.clone().advance(event, now) {
        record = next;
    }
    if let Some(held) = record.state.active().cloned()
        && let Err(error) = launch::check(&RealDisk, dir, &held)
    {
        let alarm = format!("slot {} does not verify: {}", held.slot, launch::chain_text(&error));
        complain(&alarm);
        record.alarm(&alarm, now);
    }
    if record != loaded.record || loaded.generation == 0 {
        record::save(&RealDisk, dir, &record, loaded.generation)?;
    }
    if loaded.source == Source::Recovered {
        complain(record.last().map_or("the boot record was lost", |last| last.detail.as_str()));
    }
    Ok(decision(&record))
}

fn decision(record: &BootRecord) -> String {
    match &record.state {
        State::Probation { trial, tries_left, .. } => format!(
            "starting release {} in slot {} on trial, {tries_left} more tries after this one",
            trial.held.name, trial.held.slot
        ),
        state @ (State::Steady { .. }
        | State::Staging { .. }
        | State::Staged { .. }
        | State::Loaded { .. }
        | State::Golden { .. }
        | State::Armed { .. }) => match state.active() {
            Some(held) => format!("starting release {} in slot {}", held.name, held.slot),
            None => "starting the factory agent: no release is committed".to_owned(),
        },
    }
}

fn exec(request: Exec, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(&request.folders.state.state);
    let role = match (request.role, request.slot) {
        (RoleName::Gateway, _) => launch::Role::Gateway,
        (RoleName::Updater, _) => launch::Role::Updater,
        (RoleName::Worker, Some(slot)) => launch::Role::Worker(slot),
        (RoleName::Worker, None) => {
            complain("a worker needs --slot a or --slot b");
            return ExitCode::from(2);
        }
    };
    let record = record::load(&RealDisk, &dir, now).record;
    let launch = match launch::open(&RealDisk, &dir, &request.folders.factory, role, &record.state)
    {
        Ok(launch) => launch,
        Err(error) => {
            complain(&launch::chain_text(&error));
            return ExitCode::from(match error {
                LaunchError::Slot { .. } => 3,
                LaunchError::Factory { .. } => 4,
            });
        }
    };
    for alarm in &launch.alarms {
        complain(alarm);
    }
    // Only returns when the kernel refuses.
    let refusal = command(&request, &launch).exec();
    complain(&format!(
        "the kernel refuses to run {}: {refusal}; check that its file system allows executables",
        launch.folder.join("bin/socle-agent").display()
    ));
    ExitCode::from(5)
}

fn command(request: &Exec, launch: &Launch) -> Command {
    // The very file that was verified: its name may mean another one by now.
    let mut command = Command::new(format!("/proc/self/fd/{}", launch.agent.as_raw_fd()));
    command.arg0("socle-agent");
    let state = &request.folders.state.state;
    match request.role {
        RoleName::Gateway => {
            command.arg("gateway").arg("--state").arg(state).arg("--slot-dir").arg(&launch.folder)
        }
        RoleName::Worker => command.arg("worker").arg("--slot-dir").arg(&launch.folder),
        RoleName::Updater => command
            .arg("updater")
            .arg("--state")
            .arg(state)
            .arg("--factory")
            .arg(&request.folders.factory),
    };
    command.args(&request.arguments);
    let slot = match &launch.place {
        Place::Slot(slot, _) => slot.as_str(),
        Place::Factory => "factory",
    };
    command.env("SOCLE_SLOT", slot);
    command.env("SOCLE_RELEASE", launch.release.map_or_else(String::new, |r| r.to_string()));
    if request.adopt_listeners {
        command.env("LISTEN_PID", std::process::id().to_string());
    }
    command
}

fn refund(state: &std::path::Path, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(state);
    let refunded = Lock::take(&dir.record_lock(), LOCK_WAIT_MS)
        .map_err(|error| launch::chain_text(&error))
        .and_then(|_lock| match record::advance(&RealDisk, &dir, Event::CleanStop, now) {
            Ok(_) => Ok("the try of a clean stop was given back".to_owned()),
            Err(record::RecordError::Refused(reason)) => Ok(reason.to_string()),
            Err(error) => Err(launch::chain_text(&error)),
        });
    match refunded {
        Ok(text) => say(&text),
        Err(text) => complain(&format!("the try was not given back: {text}")),
    }
    ExitCode::SUCCESS
}

#[derive(Serialize)]
struct Shown<'a> {
    phase: &'static str,
    generation: u64,
    whole: bool,
    record: &'a BootRecord,
}

fn show(status: &Status, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(&status.state.state);
    // `load` takes what cannot be read as lost, which is right for a start and wrong for a person who asks.
    if let Err(error) = RealDisk.read(&dir.record(), u64::MAX) {
        let path = dir.record();
        let advice = match &error {
            missing if missing.kind() == io::ErrorKind::NotFound => {
                "check --state; a machine has one after its first start"
            }
            denied if denied.kind() == io::ErrorKind::PermissionDenied => "run this as root",
            _ => "check that the disk is healthy",
        };
        complain(&format!("reading boot record {}: {error}; {advice}", path.display()));
        return ExitCode::FAILURE;
    }
    let loaded = record::load(&RealDisk, &dir, now);
    let record = &loaded.record;
    if status.json {
        let whole = loaded.source != Source::Recovered;
        let shown =
            Shown { phase: record.state.phase(), generation: loaded.generation, whole, record };
        return match serde_json::to_string(&shown) {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(&error.to_string());
                ExitCode::FAILURE
            }
        };
    }
    say(&format!("phase       {} (generation {})", record.state.phase(), loaded.generation));
    match record.state.active() {
        Some(held) => say(&format!("committed   {} in slot {}", held.name, held.slot)),
        None => say("committed   none: the factory agent runs"),
    }
    if let Some(trial) = record.state.trial() {
        say(&format!("on trial    {} in slot {}", trial.held.name, trial.held.slot));
    }
    for entry in &record.quarantine {
        say(&format!("quarantined {} ({})", entry.release.short(), entry.reason));
    }
    for happening in &record.history {
        say(&format!(
            "{} {} {} {}",
            happening.at.to_rfc3339(),
            happening.kind.as_str(),
            happening.name,
            happening.detail
        ));
    }
    ExitCode::SUCCESS
}

/// A closed stdout is no reason not to start an agent.
fn say(line: &str) {
    drop(writeln!(io::stdout().lock(), "{line}"));
}

fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "socle-launch: {line}"));
}
