//! `cargo xtask crash`: hands over to the crash harness of fleet-tests.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, say, shell};

/// How often, and by which random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many processes are killed.
    pub(crate) kills: u32,
    /// Repeats a run; the harness draws one and prints it otherwise.
    pub(crate) seed: Option<u64>,
}

/// How often power is cut, and by which random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    /// How many disks are looked at, each what a cut left.
    pub(crate) states: u32,
    /// How many more disks fail with input/output errors during an update.
    pub(crate) faults: u32,
    /// What the disk does when it is asked to flush.
    pub(crate) flushes: Flushes,
    /// Repeats a run's cuts; the harness draws one and prints it otherwise.
    pub(crate) seed: Option<u64>,
}

/// What a disk does when it is asked to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushes {
    /// What it must.
    Done,
    /// Nothing, but it says that it did: losses must show.
    Ignored,
}

/// Which operations of a modelled disk fail; cuts and kills meet each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// One in two hundred, others with another seed.
    Some,
    /// Every one in every way.
    All,
}

/// What CI runs.
const QUICK: Cuts = Cuts { states: 200, faults: 40, flushes: Flushes::Done, seed: None };
/// Without these no machine, however it is run, can serve a disk of its own.
const DEVICES: [&str; 2] = ["/dev/fuse", "/dev/loop-control"];

/// Cuts the power of a disk under a real file system and sees that nothing acknowledged is lost.
pub(crate) fn blocks(machine: &Machine, cuts: Cuts, more: &[OsString]) -> Result<(), Failure> {
    demo::build(machine)?;
    let mut command = harness(machine, cuts);
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json").stdout(std::process::Stdio::inherit());
        }
    }
    shell::run(command.args(more))
}

/// The quick form as a stage of `cargo xtask test`, on every machine that has the devices for it.
pub(crate) fn blocks_stage(machine: &Machine) -> Result<String, Failure> {
    if let Some(device) = DEVICES.iter().find(|device| !Path::new(device).exists()) {
        let note = format!("not run: this machine has no {device}, which a disk of our own needs");
        say::line(&note);
        return Ok(note);
    }
    let Cuts { states, faults, .. } = QUICK;
    shell::run(&mut harness(machine, QUICK))
        .map(|()| format!("{states} power cuts and {faults} failing disks lost nothing"))
}

/// Enumerates what is left of a modelled disk, and sees that every sync that is left out is caught.
pub(crate) fn states(machine: &Machine, faults: Faults, seed: Option<u64>) -> Result<(), Failure> {
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::new("making a folder for the figures").because(error))?;
    let mut command = machine.cargo(&["test", "--locked", "--release", "--workspace"]);
    command.args(["--test", "power_cut", "--", "--nocapture"]).stdout(std::io::stderr());
    command.env("SOCLE_CRASH_REPORT", folder.path());
    match faults {
        Faults::Some => {}
        Faults::All => {
            command.env("SOCLE_CRASH_EVERY", "1");
        }
    }
    if let Some(seed) = seed {
        command.env("SOCLE_CRASH_SEED", seed.to_string());
    }
    say::line(&format!("$ {}", shell::line(&command)));
    let ended = shell::run(&mut command);
    let lines = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let (mutations, states) = (lines("mutations"), lines("states"));
    let text = match machine.output {
        Output::Json => serde_json::json!({ "mutations": mutations, "states": states }).to_string(),
        Output::Person => [mutations, states].concat().join("\n"),
    };
    say::result(&text).map_err(|error| Failure::new("printing the figures").because(error))?;
    ended
}

fn harness(machine: &Machine, cuts: Cuts) -> Command {
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("crash-blocks"));
    command.arg("--states").arg(cuts.states.to_string());
    command.arg("--faults").arg(cuts.faults.to_string()).arg("--bin-dir").arg(&bin_dir);
    if let Some(seed) = cuts.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    match cuts.flushes {
        Flushes::Done => {}
        Flushes::Ignored => {
            command.arg("--without-fsync");
        }
    }
    command
}

/// Kills processes of a running update and sees that nothing is lost.
pub(crate) fn run(
    machine: &Machine,
    plan: Plan,
    model: Option<&Path>,
    more: &[OsString],
) -> Result<(), Failure> {
    let model = demo::prepare(machine, model)?;
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("crash"));
    command.stdout(std::process::Stdio::inherit());
    command.arg("--kills").arg(plan.kills.to_string());
    if let Some(seed) = plan.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    command.arg("--model").arg(model).arg("--bin-dir").arg(&bin_dir);
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    shell::run(command.args(more))
}
