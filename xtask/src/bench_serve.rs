//! `cargo xtask bench serve`: hands over to the servers' benchmark of fleet-tests, with peers and models at hand.

use std::ffi::OsString;
use std::process::Stdio;

use crate::bench_models::{self, WORDS};
use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::venv::{self, Environment};
use crate::{demo, shell};

/// What peers are made from.
pub(crate) const SCRIPTS: &str = "fleet-tests/peers/serve";
/// Triton, and its clients.
pub(crate) const TRITON: Environment =
    Environment { name: "triton", requirements: "fleet-tests/peers/serve/requirements-triton.txt" };
const MLSERVER: Environment = Environment {
    name: "mlserver",
    requirements: "fleet-tests/peers/serve/requirements-mlserver.txt",
};

/// Compares the agent with Triton and MLServer and prints the tables.
pub(crate) fn run(machine: &Machine, more: &[OsString]) -> Result<(), Failure> {
    let models = bench_models::ensure(machine)?;
    let triton = venv::python(machine, TRITON)?;
    let mlserver = venv::python(machine, MLSERVER)?;
    demo::build(machine)?;
    let bin_dir = machine.bin_dir();
    let mut command = machine.command(&bin_dir.join("bench-serve"));
    command.stdout(Stdio::inherit()).arg("--bin-dir").arg(&bin_dir);
    command.arg("--models").arg(&models.folder).arg("--triton").arg(&triton);
    command.arg("--mlserver").arg(&mlserver).arg("--scripts").arg(machine.root.join(SCRIPTS));
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
