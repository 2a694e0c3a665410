//! `cargo xtask hostile`: hostile model packages and hostile inputs, given to a real agent that serves a good model.

use std::path::Path;

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, shell};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// Only cases whose names contain this.
    pub(crate) only: Option<&'a str>,
    /// Every case, or those of CI.
    pub(crate) extent: Extent,
    /// Random inputs to each reader of model packages as well; 0 for none.
    pub(crate) fuzz: u64,
    /// Repeats the random inputs.
    pub(crate) seed: Option<u64>,
}

/// Which cases are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every one.
    Full,
    /// One of each kind.
    Quick,
}

/// The readers of model packages among the targets of random inputs.
const TARGETS: [&str; 3] = ["onnx", "tokenizer", "model.toml"];

/// Tries the cases, and feeds random inputs where that is asked for.
pub(crate) fn run(machine: &Machine, plan: Plan<'_>, model: Option<&Path>) -> Result<(), Failure> {
    let model = demo::prepare(machine, model)?;
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("hostile"));
    command.stdout(std::process::Stdio::inherit());
    command.arg("--model").arg(model).arg("--bin-dir").arg(&bin_dir);
    if let Some(only) = plan.only {
        command.args(["--only", only]);
    }
    match plan.extent {
        Extent::Full => {}
        Extent::Quick => {
            command.arg("--quick");
        }
    }
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    shell::run(&mut command)?;
    if plan.fuzz > 0 { fuzz(machine, plan) } else { Ok(()) }
}

/// The quick form as a stage of `cargo xtask test`.
pub(crate) fn stage(machine: &Machine) -> Result<String, Failure> {
    let plan = Plan { only: None, extent: Extent::Quick, fuzz: 0, seed: None };
    run(machine, plan, None).map(|()| "the good model answered all the while".to_owned())
}

fn fuzz(machine: &Machine, plan: Plan<'_>) -> Result<(), Failure> {
    for target in TARGETS {
        let mut command = machine.command(&machine.bin_dir().join("attacks"));
        // With --json, the one object on standard output is that of the cases.
        command.stdout(std::io::stderr());
        command.args(["fuzz", "--target", target, "--inputs"]).arg(plan.fuzz.to_string());
        if let Some(seed) = plan.seed {
            command.arg("--seed").arg(seed.to_string());
        }
        shell::run(&mut command)?;
    }
    Ok(())
}
