//! Updater and launcher, started one by one, each killed somewhere between its first and its last instruction. The
//! gateway's part, the verdicts, is played.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use protocol::handover::Gate;
use slots::state::State;

use crate::crash::bench::{Bench, instant};

/// Of a hundred processes, so many are killed.
const KILL_PERCENT: u8 = 75;
/// How long a process that was never seen to end is taken to live, in milliseconds.
const UNKNOWN_MS: u64 = 400;
/// Longest a process may take when it is not killed.
const PATIENCE: Duration = Duration::from_secs(120);
const SIGKILL: i32 = 9;

/// How long each kind of process was seen to live.
pub type Lives = BTreeMap<&'static str, u64>;

/// Runs updates until `kills` processes were killed, checking after each process.
pub fn run(
    bench: &mut Bench,
    random: &mut Rng,
    kills: u64,
    mut progress: impl FnMut(&Bench),
) -> anyhow::Result<()> {
    let mut lives = Lives::new();
    let until = bench.tally.kills + kills;
    while bench.tally.kills < until {
        let state = bench.device.record().state;
        let verdict_waits = bench.device.dir.verdict().exists();
        let gate = match &state {
            State::Staged { .. } => Some(Gate::Load),
            State::Loaded { .. } => Some(Gate::Golden),
            State::Probation { .. } => Some(Gate::Probation),
            State::Steady { .. }
            | State::Staging { .. }
            | State::Golden { .. }
            | State::Armed { .. } => None,
        };
        if let (Some(gate), false, Some(trial)) = (gate, verdict_waits, state.trial()) {
            bench.device.judge(trial.held.release, gate, None)?;
        }
        if matches!(state, State::Steady { .. }) {
            bench.offer()?;
        }
        let (kind, command) = match state {
            State::Armed { .. } => ("arm", arm(bench)),
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Probation { .. } => (phase_kind(state.phase()), updater(bench)),
        };
        one(bench, random, &mut lives, kind, command)?;
        bench.check().with_context(|| format!("after {kind}"))?;
        progress(bench);
    }
    Ok(())
}

fn phase_kind(phase: &'static str) -> &'static str {
    match phase {
        "steady" | "staging" => "updater, staging",
        "probation" => "updater, committing",
        _ => "updater, verdict",
    }
}

fn one(
    bench: &mut Bench,
    random: &mut Rng,
    lives: &mut Lives,
    kind: &'static str,
    mut command: Command,
) -> anyhow::Result<()> {
    let started = instant();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {kind}"))?;
    if random.u8(0..100) < KILL_PERCENT {
        let life_us = lives.get(kind).copied().unwrap_or(UNKNOWN_MS * 1000);
        thread::sleep(Duration::from_micros(random.u64(0..life_us + life_us / 10 + 1)));
        child.kill().with_context(|| format!("killing {kind}"))?;
    } else {
        while child.try_wait().with_context(|| format!("waiting for {kind}"))?.is_none() {
            ensure!(started.elapsed() < PATIENCE, "{kind} did not end within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(1));
        }
        let life_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        lives.insert(kind, life_us);
    }
    let ended = child.wait_with_output().with_context(|| format!("waiting for {kind}"))?;
    if ended.status.signal() == Some(SIGKILL) {
        bench.killed(kind);
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{kind} ended with {}: {said}", ended.status);
    ensure!(!said.contains("socle-launch:"), "{kind} complained: {said}");
    Ok(())
}

fn arm(bench: &Bench) -> Command {
    let mut command = Command::new(&bench.programs.launch);
    command.arg("arm").arg("--state").arg(bench.device.dir.root());
    command.arg("--factory").arg(&bench.factory);
    command
}

fn updater(bench: &Bench) -> Command {
    let mut command = Command::new(&bench.programs.launch);
    command.arg("exec").arg("--state").arg(bench.device.dir.root());
    command.arg("--factory").arg(&bench.factory).arg("updater");
    command
}
