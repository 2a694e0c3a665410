//! `cargo xtask launcher`: how large the launcher of the package is, whether it needs anything of the machine, and how
//! long a gateway that it starts takes to its first answer.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;
use crate::http::Agent;
use crate::kept::Kept;
use crate::machine::{Machine, Output};
use crate::{demo, package, say, shell};

/// How often it is looked whether a process is there, and how many times: 30 s in all.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOKS: u32 = 15_000;
/// In which `/proc` counts, whatever the kernel does.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Serialize)]
struct Figures {
    bytes: u64,
    linked: &'static str,
    says: String,
    runs: u32,
    worker_loaded_ms: Spread,
    worker_too_ms: Spread,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

/// Which processes are ended before a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The gateway; the worker keeps its encoder.
    Gateway,
    /// The worker too: it is started and loads its encoder before it answers.
    Worker,
}

/// Builds the package's launcher, looks at it, and measures `runs` starts of each kind.
pub(crate) fn run(machine: &Machine, model: Option<&Path>, runs: u32) -> Result<(), Failure> {
    let built = package::launcher(machine)?;
    let bytes = fs::read(&built)
        .map_err(|error| Failure::new(format!("reading `{}`", built.display())).because(error))?;
    let linked = match interpreter(&bytes) {
        Some(false) => "static",
        Some(true) => {
            return Err(Failure::new(format!("`{}` is linked dynamically", built.display())));
        }
        None => return Err(Failure::new(format!("`{}` is no program", built.display()))),
    };
    let says = shell::read(machine.command(&built).arg("--version"))?.out.trim().to_owned();
    let model = demo::prepare(machine, model)?;
    let kept = Kept::start(machine, &model)?;
    let measured = spread(&kept, Ended::Gateway, runs)
        .and_then(|loaded| Ok((loaded, spread(&kept, Ended::Worker, runs)?)));
    kept.stop();
    let (worker_loaded_ms, worker_too_ms) = measured?;
    let size = bytes.len() as u64;
    print(machine, &Figures { bytes: size, linked, says, runs, worker_loaded_ms, worker_too_ms })
        .map_err(|error| Failure::new("printing the figures").because(error))
}

fn print(machine: &Machine, figures: &Figures) -> std::io::Result<()> {
    let Figures { bytes, linked, says, runs, .. } = figures;
    let line = |what: &str, spread: &Spread| {
        let Spread { min, median, max } = spread;
        format!("{what}: median {median:.0} ms of {runs} runs ({min:.0} to {max:.0})")
    };
    match machine.output {
        Output::Json => say::result(&json!(figures).to_string()),
        Output::Person => {
            say::result(&format!("{says}: {bytes} bytes, {linked}"))?;
            let loaded = "exec to first answer, encoder loaded in its worker";
            say::result(&line(loaded, &figures.worker_loaded_ms))?;
            say::result(&line("exec to first answer, worker started too", &figures.worker_too_ms))
        }
    }
}

/// Whether a 64-bit little-endian ELF program names a dynamic linker; none when it is not such a program.
fn interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let mut named = false;
    for number in 0..count {
        let at = usize::try_from(table).ok()?.checked_add(number * size)?;
        named |= u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) == PT_INTERP;
    }
    Some(named)
}

fn spread(kept: &Kept, ended: Ended, runs: u32) -> Result<Spread, Failure> {
    let mut all = Vec::new();
    for _ in 0..runs {
        all.push(start(kept, ended)?.as_secs_f64() * 1e3);
    }
    all.sort_by(f64::total_cmp);
    let at = |place: usize| all.get(place).copied().unwrap_or_default();
    Ok(Spread { min: at(0), median: at(all.len() / 2), max: at(all.len().saturating_sub(1)) })
}

/// Ends the gateway and asks the one that the supervisor starts in its place. The socket stays with the supervisor, so the
/// question waits there; what counts is the time from the start of the process to the answer.
fn start(kept: &Kept, ended: Ended) -> Result<Duration, Failure> {
    let supervisor = supervisor(kept.state())
        .ok_or_else(|| Failure::new("the process of the kept agent is not found"))?;
    let agent: &Agent = kept.agent();
    let model = agent.connect()?.first_model()?;
    let ask = || {
        let question = json!({ "model": model, "input": "How do I reset my password?" });
        agent.connect()?.post("/v1/embeddings", &question)
    };
    // The worker in use has its encoder loaded.
    ask()?;
    let gateway = child(supervisor, "gateway")
        .ok_or_else(|| Failure::new("the kept agent has no gateway"))?;
    if ended == Ended::Worker {
        while let Some(worker) = child(supervisor, "worker") {
            end(worker)?;
        }
    }
    end(gateway)?;
    ask()?;
    let answered = now();
    let successor = (0..LOOKS).find_map(|_| {
        let found = child(supervisor, "gateway").filter(|pid| *pid != gateway);
        if found.is_none() {
            std::thread::sleep(LOOK_EVERY);
        }
        found
    });
    let successor = successor.ok_or_else(|| Failure::new("no gateway was started again"))?;
    let age = age(successor)
        .ok_or_else(|| Failure::new(format!("the gateway {successor} is gone again")))?;
    Ok(age.saturating_sub(answered.elapsed()))
}

/// Kills a process of the kept fleet, and waits until it is gone.
fn end(process: u32) -> Result<(), Failure> {
    let failed = |why: &str| Failure::new(format!("ending process {process}: {why}"));
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(pid.ok_or_else(|| failed("no such number"))?, Signal::KILL)
        .map_err(|errno| failed(&errno.to_string()))?;
    let gone = (0..LOOKS).any(|_| {
        let there = words(process).is_some_and(|words| !words.is_empty());
        if there {
            std::thread::sleep(LOOK_EVERY);
        }
        !there
    });
    if gone { Ok(()) } else { Err(failed("it does not end")) }
}

/// The process under which the agent of this state folder runs.
fn supervisor(state: &Path) -> Option<u32> {
    let state = state.display().to_string();
    let names = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_string_lossy().parse().ok()).find(|pid| {
        words(*pid).is_some_and(|words| {
            words.iter().any(|word| word == "--single") && words.contains(&state)
        })
    })
}

/// The child of `parent` that runs as `role`.
fn child(parent: u32, role: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let pids = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    pids.into_iter()
        .find(|pid| words(*pid).is_some_and(|words| words.get(1).is_some_and(|word| word == role)))
}

/// The command line of a process; empty once it has ended.
fn words(process: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
    Some(line.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

/// How long ago a process was started, to a clock tick, which is 10 ms.
fn age(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the 20th field after it is the start.
    let started: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    let started = started as f64 / TICKS_PER_SECOND;
    Duration::try_from_secs_f64(uptime - started).ok()
}

#[expect(clippy::disallowed_methods, reason = "durations are what is measured here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{age, interpreter};

    #[test]
    fn what_needs_a_dynamic_linker_is_told_from_what_does_not() {
        let mut elf = vec![0; 64 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        (elf[54], elf[56]) = (56, 2);
        assert_eq!(interpreter(&elf), Some(false));
        elf[64 + 56] = 3;
        assert_eq!(interpreter(&elf), Some(true));
        assert_eq!(interpreter(&elf[..100]), None);
        assert_eq!(interpreter(b"#!/bin/sh"), None);
    }

    #[test]
    fn our_own_age_is_known() {
        assert!(age(std::process::id()).is_some());
        assert!(age(u32::MAX).is_none());
    }
}
