//! `cargo xtask bench engine`: hands over to the engine's benchmark of fleet-tests, with peers and models at hand.

use std::ffi::OsString;
use std::process::Stdio;

use crate::bench_models::{self, SENTENCES, WORDS};
use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, shell};

const SCRIPT: &str = "fleet-tests/peers/bench/resident.py";

/// Compares the engine with onnxruntime, OpenVINO and fastembed and prints the tables.
pub(crate) fn run(machine: &Machine, more: &[OsString]) -> Result<(), Failure> {
    let models = bench_models::ensure(machine)?;
    demo::build(machine)?;
    let mut command = machine.command(&machine.bin_dir().join("bench-engine"));
    command.stdout(Stdio::inherit()).arg("compare");
    command.arg("--python").arg(&models.python).arg("--script").arg(machine.root.join(SCRIPT));
    command.arg("--models").arg(&models.folder);
    command.arg("--sentences").arg(machine.root.join(SENTENCES));
    for words in WORDS {
        command.arg("--words").arg(machine.root.join(words));
    }
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    shell::run(command.args(more))
}
