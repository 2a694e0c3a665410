//! `cargo xtask crash`: hands over to the crash harness of fleet-tests.

use std::ffi::OsString;
use std::path::Path;

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, shell};

/// How often, and by which random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many processes are killed.
    pub(crate) kills: u32,
    /// Repeats a run; the harness draws one and prints it otherwise.
    pub(crate) seed: Option<u64>,
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
