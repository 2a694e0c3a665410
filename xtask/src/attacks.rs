//! `cargo xtask attacks`: every attack scenario with its verdict, other TUF clients beside ours, random inputs.
//!
//! The scenarios are the tests of `fleet-tests/tests/attacks`; the peers run in the user's cache: python-tuf in a
//! virtual environment with pinned and hashed wheels, tough built from a package with a lock of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::venv::{self, Environment};
use crate::{demo, say, shell};

/// The peers' programs and the list of known differences.
const PEERS: &str = "fleet-tests/peers";
/// python-tuf.
const PYTHON_TUF: Environment =
    Environment { name: "python-tuf", requirements: "fleet-tests/peers/python/requirements.txt" };
/// Repositories that CI compares on; every kind twice.
const CASES_QUICK: u64 = 172;
const SEED_QUICK: u64 = 1;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Repositories that the clients are compared on.
    pub(crate) cases: u64,
    /// Inputs to each reader of bytes; 0 for none.
    pub(crate) fuzz: u64,
    /// Repeats a run.
    pub(crate) seed: Option<u64>,
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Scenario {
    name: String,
    refused: bool,
}

/// Writes the table of attacks into the threat model.
pub(crate) fn write(machine: &Machine) -> Result<(), Failure> {
    demo::build(machine)?;
    let mut command = machine.command(&machine.bin_dir().join("attacks"));
    shell::run(command.args(["table", "--write", "--root"]).arg(&machine.root))
}

/// All of it.
pub(crate) fn run(machine: &Machine, plan: Plan) -> Result<(), Failure> {
    demo::build(machine)?;
    let scenarios = scenarios(machine)?;
    let python = venv::python(machine, PYTHON_TUF)?;
    let tough = tough(machine)?;
    let peers = peers(machine, plan.cases, plan.seed, &python, Some(&tough));
    let fuzzed = if plan.fuzz > 0 { Some(fuzz(machine, plan)) } else { None };
    let accepted = scenarios.iter().filter(|scenario| !scenario.refused).count();
    let summary = format!(
        "{} scenarios, {accepted} not refused; peers {}; random inputs {}",
        scenarios.len(),
        if peers.is_ok() { "agree, or differ as listed" } else { "DISAGREE" },
        match &fuzzed {
            None => "not asked for (--fuzz)",
            Some(Ok(_)) => "refused or read, none by a panic",
            Some(Err(_)) => "FAILED",
        },
    );
    report(machine, &scenarios, &summary, peers.as_ref().ok(), fuzzed.as_ref())?;
    if accepted > 0 {
        return Err(Failure::new(format!("{accepted} attacks were not refused"))
            .next("their names stand above, with FAILED"));
    }
    peers?;
    fuzzed.transpose().map(|_| ())
}

/// As a stage of `cargo xtask test`: python-tuf on some repositories. The scenarios are tests and run as such.
pub(crate) fn stage(machine: &Machine) -> Result<String, Failure> {
    demo::build(machine)?;
    let python = venv::python(machine, PYTHON_TUF)?;
    // The same repositories in every run; other ones are the long form's.
    peers(machine, CASES_QUICK, Some(SEED_QUICK), &python, None)?;
    Ok(format!("{CASES_QUICK} repositories beside python-tuf, none otherwise than listed"))
}

fn report(
    machine: &Machine,
    scenarios: &[Scenario],
    summary: &str,
    peers: Option<&String>,
    fuzzed: Option<&Result<String, Failure>>,
) -> Result<(), Failure> {
    let parsed = |text: &String| serde_json::from_str::<Value>(text).unwrap_or_default();
    let text = match machine.output {
        Output::Person => summary.to_owned(),
        Output::Json => json!({
            "scenarios": scenarios,
            "peers": peers.map(parsed),
            "fuzz": fuzzed.and_then(|fuzzed| fuzzed.as_ref().ok()).map(parsed),
        })
        .to_string(),
    };
    say::result(&text).map_err(|error| Failure::new("printing the verdicts").because(error))
}

/// Runs the tests that are attacks; each is told with its verdict.
fn scenarios(machine: &Machine) -> Result<Vec<Scenario>, Failure> {
    say::heading("attack scenarios");
    let program = test_program(machine)?;
    let mut command = Command::new(&program);
    command.current_dir(machine.root.join("fleet-tests")).args(["--format", "pretty"]);
    let printed = shell::read(&mut command)?;
    let scenarios: Vec<Scenario> = printed.out.lines().filter_map(scenario).collect();
    for Scenario { name, refused } in &scenarios {
        say::line(&format!("{} {}", if *refused { "refused" } else { "FAILED " }, words(name)));
    }
    if scenarios.is_empty() || (!printed.status.success() && scenarios.iter().all(|s| s.refused)) {
        return Err(Failure::new(format!("`{}` did not run", program.display()))
            .next(printed.out + &printed.err));
    }
    if scenarios.iter().any(|scenario| !scenario.refused) {
        say::line(&printed.out);
    }
    Ok(scenarios)
}

/// `test freshness::rollback_of_targets ... ok`
fn scenario(line: &str) -> Option<Scenario> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    // What is not in a file of attacks prepares them, or feeds random inputs.
    let (file, _) = name.split_once("::")?;
    let is_attack = !["device", "repository", "quick"].contains(&file);
    is_attack.then(|| Scenario { name: name.to_owned(), refused: verdict == "ok" })
}

fn words(name: &str) -> String {
    name.split_once("::").map_or(name, |(_, test)| test).replace('_', " ")
}

/// The test program with the scenarios, built with the features that everything shares.
fn test_program(machine: &Machine) -> Result<PathBuf, Failure> {
    let mut command = machine.cargo(&["test", "--locked", "--release", "--workspace"]);
    command.args(["--test", "attacks", "--no-run", "--message-format", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let printed = shell::read(&mut command)?;
    let mut programs = printed.out.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message.pointer("/target/name")?.as_str()? == "attacks"
            && message.pointer("/profile/test")?.as_bool()?;
        is_ours.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    });
    programs.next_back().ok_or_else(|| {
        Failure::new("the attack tests were not built").next("cargo's own words stand above")
    })
}

fn peers(
    machine: &Machine,
    cases: u64,
    seed: Option<u64>,
    python: &Path,
    tough: Option<&Path>,
) -> Result<String, Failure> {
    say::heading("other clients beside ours");
    let mut command = machine.command(&machine.bin_dir().join("attacks"));
    command.args(["peers", "--folder", PEERS, "--cases"]).arg(cases.to_string());
    command.arg("--python").arg(python);
    if let Some(tough) = tough {
        command.arg("--tough").arg(tough);
    }
    driven(machine, command, seed)
}

fn fuzz(machine: &Machine, plan: Plan) -> Result<String, Failure> {
    say::heading("random inputs");
    let mut command = machine.command(&machine.bin_dir().join("attacks"));
    command.args(["fuzz", "--inputs"]).arg(plan.fuzz.to_string());
    driven(machine, command, plan.seed)
}

/// Runs the harness; its JSON where that is wanted, else it speaks for itself.
fn driven(machine: &Machine, mut command: Command, seed: Option<u64>) -> Result<String, Failure> {
    if let Some(seed) = seed {
        command.arg("--seed").arg(seed.to_string());
    }
    match machine.output {
        Output::Person => shell::run(command.stdout(Stdio::inherit())).map(|()| String::new()),
        Output::Json => {
            command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::inherit());
            let printed = shell::read(&mut command)?;
            if printed.status.success() {
                Ok(printed.out)
            } else {
                say::line(&printed.out);
                Err(shell::ended_badly(&command, printed.status))
            }
        }
    }
}

/// The program made of tough. Cargo builds it in the cache, and again only when it changed.
fn tough(machine: &Machine) -> Result<PathBuf, Failure> {
    let target = machine.cache.join("peers").join("tough");
    say::line("building the program made of tough (minutes, the first time)");
    let mut command = machine.cargo(&["build", "--locked", "--release", "--manifest-path"]);
    command.arg(machine.root.join(PEERS).join("tough/Cargo.toml"));
    command.env("CARGO_TARGET_DIR", &target).stdout(std::io::stderr());
    shell::run(&mut command).map_err(|failure| {
        failure.next("check that cargo reaches its registry; tough also needs a C compiler")
    })?;
    Ok(target.join("release/tough-peer"))
}

#[cfg(test)]
mod tests {
    use super::{Scenario, scenario, words};

    #[test]
    fn a_verdict_is_read_from_the_test_programs_line() {
        let of = |name: &str, refused| Some(Scenario { name: name.to_owned(), refused });
        assert_eq!(
            scenario("test freshness::expired_root ... ok"),
            of("freshness::expired_root", true)
        );
        assert_eq!(scenario("test machine::x ... FAILED"), of("machine::x", false));
        assert_eq!(scenario("test quick::fuzz ... ok"), None);
        assert_eq!(scenario("running 70 tests"), None);
        assert_eq!(words("freshness::expired_root"), "expired root");
    }
}
