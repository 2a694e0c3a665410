//! `cargo xtask test`: everything that must hold before a change is taken, as CI runs it.

use crate::attacks;
use crate::conformance;
use crate::crash;
use crate::demo;
use crate::failure::Failure;
use crate::fetch;
use crate::hostile;
use crate::machine::Machine;
use crate::packages;
use crate::stage::{Stage, Work};
use crate::{say, shell, swap};

/// In this order; clippy and the tests see the whole workspace at once, so that crates share one
/// set of features and nothing is built twice.
pub(crate) const STAGES: &[Stage] = &[
    Stage { name: "machine", about: "what is to be installed", work: Work::Call(packages::ensure) },
    Stage { name: "fmt", about: "rustfmt", work: Work::Cargo(&["fmt", "--all", "--check"]) },
    Stage { name: "clippy", about: "lints, warnings are errors", work: Work::Cargo(CLIPPY) },
    Stage { name: "build", about: "every test and program", work: Work::Call(build) },
    Stage { name: "tidy", about: "the rules of the tree", work: Work::Call(tidy) },
    Stage { name: "tests", about: "unit and integration tests", work: Work::Call(tests) },
    Stage {
        name: "swap",
        about: "releases and agents replaced under load",
        work: Work::Call(swap::stage),
    },
    Stage {
        name: "conformance",
        about: "the node tests of ONNX beside the written list",
        work: Work::Call(conformance::stage),
    },
    Stage {
        name: "hostile",
        about: "hostile models and inputs at a real agent",
        work: Work::Call(hostile::stage),
    },
    Stage {
        name: "clients",
        about: "another TUF client beside ours",
        work: Work::Call(attacks::stage),
    },
    Stage {
        name: "power-cuts",
        about: "a disk that loses power under a real file system",
        work: Work::Call(crash::blocks_stage),
    },
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
    demo::build(machine)?;
    // The tests of the engine run real models.
    fetch::model(machine, None)?;
    fetch::test_models(machine)?;
    run(machine, &["--no-run"])
}

/// The rules of the tree; in its own stage so that a broken one is seen by name.
pub(crate) fn tidy(machine: &Machine) -> Result<String, Failure> {
    match runner(machine) {
        Runner::Nextest => run(machine, &["-E", "binary(tidy)"]),
        Runner::Cargo => run(machine, &["--test", "tidy"]),
    }
}

/// All of them, tidy once more: its tests cost nothing, and the runner's closing line then says
/// that none was skipped.
fn tests(machine: &Machine) -> Result<String, Failure> {
    run(machine, &[])?;
    let report = machine.root.join("target/nextest/default/junit.xml");
    Ok(match runner(machine) {
        Runner::Nextest => std::fs::read_to_string(report).ok().as_deref().and_then(count),
        Runner::Cargo => None,
    }
    .unwrap_or_default())
}

/// `<testsuites name="…" tests="28" failures="0" errors="0" …>` of a JUnit report, as a sentence.
fn count(junit: &str) -> Option<String> {
    let head = junit.split_once("<testsuites ")?.1.split_once('>')?.0;
    let figure = |name: &str| {
        let value = head.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
        value.parse::<u32>().ok()
    };
    Some(format!("{} tests, {} failed", figure("tests")?, figure("failures")? + figure("errors")?))
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn the_figures_are_read_from_the_head_of_the_report() {
        let head = "<?xml?>\n<testsuites name=\"n\" tests=\"28\" failures=\"2\" errors=\"1\">\n";
        assert_eq!(count(head).as_deref(), Some("28 tests, 3 failed"));
        assert_eq!(count("<testsuites tests=\"x\">"), None);
    }
}
