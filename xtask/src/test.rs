//! `cargo xtask test`: everything that must hold before a change is taken, as CI runs it.

use crate::demo;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::packages;
use crate::stage::{Stage, Work};
use crate::{say, shell};

/// In this order; clippy and the tests see the whole workspace at once, so that crates share one
/// set of features and nothing is built twice.
pub(crate) const STAGES: [Stage; 8] = [
    Stage { name: "machine", about: "what is to be installed", work: Work::Call(packages::ensure) },
    Stage { name: "fmt", about: "rustfmt", work: Work::Cargo(&["fmt", "--all", "--check"]) },
    Stage { name: "clippy", about: "lints, warnings are errors", work: Work::Cargo(CLIPPY) },
    Stage { name: "build", about: "every test and program", work: Work::Call(build) },
    Stage { name: "tidy", about: "the rules of the tree", work: Work::Call(tidy) },
    Stage { name: "tests", about: "unit and integration tests", work: Work::Call(tests) },
    Stage {
        name: "demo",
        about: "the whole path with real processes",
        work: Work::Call(demo::stage),
    },
    Stage {
        name: "demo-mosquitto",
        about: "the same over a broker that is not ours",
        work: Work::Call(demo::stage_mosquitto),
    },
];

/// Lints of the whole workspace, in the profile that everything shares.
pub(crate) const CLIPPY: &[&str] =
    &["clippy", "--locked", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];

const WORKSPACE: [&str; 3] = ["--locked", "--release", "--workspace"];

/// The test runner: cargo-nextest where it is installed, else cargo's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Nextest,
    Cargo,
}

fn runner(machine: &Machine) -> Runner {
    match machine.program("cargo-nextest") {
        Some(_) => Runner::Nextest,
        None => Runner::Cargo,
    }
}

fn run(machine: &Machine, only: &[&str]) -> Result<String, Failure> {
    let (verb, note): (&[&str], &str) = match runner(machine) {
        Runner::Nextest => (&["nextest", "run"], ""),
        Runner::Cargo => {
            say::line(
                "cargo-nextest is not installed: its time-outs and isolation are missing; \
                 `cargo install --locked cargo-nextest` brings it",
            );
            (&["test", "--no-fail-fast"], "run by cargo test")
        }
    };
    let mut command = machine.cargo(verb);
    command.args(WORKSPACE).args(only);
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command).map(|()| note.to_owned())
}

fn build(machine: &Machine) -> Result<String, Failure> {
    let mut programs = machine.cargo(&["build", "--bins"]);
    shell::run(programs.args(WORKSPACE))?;
    run(machine, &["--no-run"])
}

/// The rules of the tree; in its own stage so that a broken one is seen by name.
pub(crate) fn tidy(machine: &Machine) -> Result<String, Failure> {
    match runner(machine) {
        Runner::Nextest => run(machine, &["-E", "binary(tidy)"]),
        Runner::Cargo => run(machine, &["--test", "tidy"]),
    }
}

fn tests(machine: &Machine) -> Result<String, Failure> {
    match runner(machine) {
        Runner::Nextest => run(machine, &["-E", "not binary(tidy)"]),
        Runner::Cargo => run(machine, &[]),
    }
}
