//! `cargo xtask bench update`: hands over to the update benchmark of fleet-tests.

use crate::arguments::BenchUpdate;
use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, packages, shell};

/// Measures what updates move, how fast they are staged and how much memory that takes.
pub(crate) fn run(machine: &Machine, options: &BenchUpdate) -> Result<(), Failure> {
    packages::ensure_for_updates(machine)?;
    let model = demo::prepare(machine, options.model.model.as_deref())?;
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("bench-update"));
    command.stdout(std::process::Stdio::inherit());
    command.arg("--bin-dir").arg(&bin_dir).arg("--model").arg(model);
    command.arg("--faq").arg(machine.root.join("workbench/data/faq"));
    if let (Some(before), Some(rebuilt)) = (&options.agent_before, &options.agent_rebuilt) {
        command.arg("--agent-before").arg(before).arg("--agent-rebuilt").arg(rebuilt);
    }
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    shell::run(command.args(&options.more))
}
