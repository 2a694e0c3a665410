//! `cargo xtask swap`: hands over to the swap harness of fleet-tests.

use std::ffi::OsString;
use std::path::Path;

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, shell};

/// How many releases of either kind, under how many requests, and by which random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Releases that commit.
    pub(crate) swaps: u32,
    /// Releases that have to be given up.
    pub(crate) poisoned: u32,
    /// Requests, at least.
    pub(crate) requests: u64,
    /// Repeats a run; the harness draws one and prints it otherwise.
    pub(crate) seed: Option<u64>,
}

/// What CI runs: every part of the long form once or twice.
const QUICK: Plan = Plan { swaps: 3, poisoned: 1, requests: 1_500, seed: None };

/// Replaces releases under load and sees that no request fails.
pub(crate) fn run(
    machine: &Machine,
    plan: Plan,
    output: Output,
    model: Option<&Path>,
    more: &[OsString],
) -> Result<(), Failure> {
    let model = demo::prepare(machine, model)?;
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("swap"));
    command.stdout(std::process::Stdio::inherit());
    command.arg("--swaps").arg(plan.swaps.to_string());
    command.arg("--poisoned").arg(plan.poisoned.to_string());
    command.arg("--requests").arg(plan.requests.to_string());
    if let Some(seed) = plan.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    command.arg("--model").arg(model).arg("--bin-dir").arg(&bin_dir);
    match output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    shell::run(command.args(more))
}

/// The quick form as a stage of `cargo xtask test`.
pub(crate) fn stage(machine: &Machine) -> Result<String, Failure> {
    run(machine, QUICK, Output::Person, None, &[])
        .map(|()| "releases and agents were replaced, and no request failed".to_owned())
}
