//! `socle-launch`: small, part of the package, never updated by itself. It spends tries and starts what verifies.

mod arguments;

use std::{
    env,
    error::Error,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

use protocol::{id::Slot, time::UnixMs};
use serde::Serialize;
use slots::{
    arm::{self, Armed},
    boot::BootRecord,
    disk::{Disk as _, RealDisk},
    launch::{self, Asked, Launch, LaunchError, Place},
    layout::StateDir,
    lock::Lock,
    record::{self, Source},
    state::{Event, StartId, State},
};

use crate::arguments::{Exec, Folders, Form, HELP, Listeners, RoleName, Verb};

/// How long another change of the boot record is waited for.
const LOCK_WAIT_MS: u64 = 5_000;
/// Who names a start for `arm` and `exec` alike: our supervisor, or systemd.
const START_VARIABLES: [&str; 2] = ["SOCLE_START", "INVOCATION_ID"];

fn main() -> ExitCode {
    let now = clock();
    match arguments::parse(env::args_os().skip(1)) {
        Ok(Verb::Arm(folders)) => arm(&folders, now),
        Ok(Verb::Exec(request)) => exec(&request, now),
        Ok(Verb::Refund(state)) => refund(&state, now),
        Ok(Verb::Status(state, form)) => show(&state, form, now),
        Ok(Verb::Help) => {
            say(HELP);
            ExitCode::SUCCESS
        }
        Ok(Verb::Version) => {
            say(concat!("socle-launch ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        Err(misused) => {
            complain(&format!("{misused}\n\n{HELP}"));
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "main.rs reads the clock")]
fn clock() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Which start this is, as far as anyone says.
fn start_id() -> StartId {
    let name = START_VARIABLES.into_iter().find_map(env::var_os).unwrap_or_default();
    StartId::named(&name.to_string_lossy())
}

/// Spends a try. Whatever goes wrong is said, and the start goes on: `exec` then uses what the record allows.
fn arm(folders: &Folders, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(&folders.state);
    match spend(&dir, now) {
        Ok(Armed { record, alarms }) => {
            for alarm in &alarms {
                complain(alarm);
            }
            say(&decision(&record));
        }
        Err(error) => complain(&format!(
            "no try was spent, the committed release starts: {}",
            launch::chain_text(error.as_ref())
        )),
    }
    ExitCode::SUCCESS
}

fn spend(dir: &StateDir, now: UnixMs) -> Result<Armed, Box<dyn Error>> {
    dir.prepare(&RealDisk)?;
    let _lock = Lock::take(&dir.record_lock(), LOCK_WAIT_MS)?;
    Ok(arm::arm(&RealDisk, dir, start_id(), now)?)
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

fn exec(request: &Exec, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(&request.folders.state);
    let role = match request.role {
        RoleName::Gateway => launch::Role::Gateway,
        RoleName::Updater => launch::Role::Updater,
        RoleName::Worker(slot) => launch::Role::Worker(slot),
    };
    let record = record::load(&RealDisk, &dir, now).record;
    let asked = Asked { role, state: &record.state, start: start_id(), now };
    let launch = match launch::open(&RealDisk, &dir, &request.folders.factory, &asked) {
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
    let refusal = command(request, &launch).exec();
    complain(&format!(
        "the kernel refuses to run {}: {refusal}; check that its file system allows executables",
        launch.folder.join("bin/socle-agent").display()
    ));
    ExitCode::from(5)
}

fn command(request: &Exec, launch: &Launch<std::fs::File>) -> Command {
    // The very file that was verified: its name may mean another one by now.
    let mut command = Command::new(format!("/proc/self/fd/{}", launch.agent.as_raw_fd()));
    command.arg0("socle-agent");
    let Folders { state, factory } = &request.folders;
    match request.role {
        RoleName::Gateway => {
            command.arg("gateway").arg("--state").arg(state).arg("--slot-dir").arg(&launch.folder)
        }
        RoleName::Worker(_) => command.arg("worker").arg("--slot-dir").arg(&launch.folder),
        RoleName::Updater => {
            command.arg("updater").arg("--state").arg(state).arg("--factory").arg(factory)
        }
    };
    command.args(&request.arguments);
    let slot = match &launch.place {
        Place::Slot(slot, _) => Slot::as_str(*slot),
        Place::Factory => "factory",
    };
    command.env("SOCLE_SLOT", slot);
    command.env("SOCLE_RELEASE", launch.release.map_or_else(String::new, |r| r.to_string()));
    match request.listeners {
        Listeners::Adopted => {
            command.env("LISTEN_PID", std::process::id().to_string());
        }
        Listeners::AsTold => {}
    }
    command
}

fn refund(state: &Path, now: UnixMs) -> ExitCode {
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

fn show(state: &Path, form: Form, now: UnixMs) -> ExitCode {
    let dir = StateDir::new(state);
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
    if let Err(error) = loaded.may_be_replaced(&dir) {
        complain(&launch::chain_text(&error));
    }
    let record = &loaded.record;
    match form {
        Form::Text => {
            print(record, loaded.generation);
            ExitCode::SUCCESS
        }
        Form::Json => {
            let whole = match loaded.source {
                Source::Whole | Source::OneCopy | Source::Fresh => true,
                Source::Recovered | Source::Unreadable | Source::Newer(_) => false,
            };
            let generation = loaded.generation;
            let shown = Shown { phase: record.state.phase(), generation, whole, record };
            match serde_json::to_string(&shown) {
                Ok(text) => {
                    say(&text);
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    complain(&error.to_string());
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn print(record: &BootRecord, generation: u64) {
    say(&format!("phase       {} (generation {generation})", record.state.phase()));
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
}

/// A closed stdout is no reason not to start an agent.
fn say(line: &str) {
    drop(writeln!(io::stdout().lock(), "{line}"));
}

fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "socle-launch: {line}"));
}
