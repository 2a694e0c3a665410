//! `cargo xtask peer clients`: clients of other people, as their packages come, against an agent.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bench_serve::{SCRIPTS, TRITON};
use crate::failure::Failure;
use crate::http::Agent;
use crate::machine::{Machine, Output};
use crate::venv::{self, Environment};
use crate::{demo, say, shell};

const SCRIPT: &str = "xtask/peers/clients.py";

const CLIENTS: Environment =
    Environment { name: "clients", requirements: "xtask/peers/clients.txt" };
/// Where the written list of differences to Triton is shown.
const PAGE: &str = "docs/guides/triton.md";

/// Each in a process of its own: two of them define the same messages and cannot be loaded together.
const LIBRARIES: [&str; 7] = [
    "tritonclient-http",
    "tritonclient-grpc",
    "kserve",
    "openai",
    "huggingface_hub",
    "cohere",
    "mlflow",
];

#[derive(Debug, Deserialize, Serialize)]
struct Check {
    client: String,
    version: String,
    check: String,
    ok: bool,
    detail: String,
}

/// Runs every client, then asks the agent and a Triton with the same model the same things. Fails when a check does, or
/// when the two differ otherwise than is written down.
pub(crate) fn run(machine: &Machine, agent: &Agent, folder: &Path) -> Result<(), Failure> {
    let python = venv::python(machine, CLIENTS)?;
    let model = agent.connect()?.first_model()?;
    let mut checks = Vec::new();
    for library in LIBRARIES {
        say::line(&format!("asking with {library}"));
        checks.extend(ask(machine, &python, agent, library, &model)?);
    }
    let triton = beside_triton(machine, agent, &model, folder)?;
    print(machine, &checks, &triton)?;
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| format!("{}: {}", check.client, check.check))
        .collect();
    if !failed.is_empty() {
        return Err(Failure::new(format!(
            "{} of {} checks failed: {}",
            failed.len(),
            checks.len(),
            failed.join("; ")
        )));
    }
    if triton.ok {
        return Ok(());
    }
    Err(Failure::new("the agent differs from Triton otherwise than is written down").next(format!(
        "mend it, or say why in {SCRIPTS}/triton-differences.toml and repeat with --write"
    )))
}

/// Writes the list of differences into its page.
pub(crate) fn write(machine: &Machine) -> Result<(), Failure> {
    demo::build(machine)?;
    let mut command = machine.command(&machine.bin_dir().join("triton-differences"));
    command.arg("write").arg("--scripts").arg(machine.root.join(SCRIPTS));
    shell::run(command.arg("--page").arg(machine.root.join(PAGE)))
}

/// What the comparison with Triton printed.
struct Beside {
    ok: bool,
    printed: String,
}

fn beside_triton(
    machine: &Machine,
    agent: &Agent,
    model: &str,
    folder: &Path,
) -> Result<Beside, Failure> {
    let triton = venv::python(machine, TRITON)?;
    say::line("asking the agent and Triton the same things");
    // Those of an agent that ran already were not built by us.
    demo::build(machine)?;
    let running = |error| Failure::new("running triton-differences").because(error);
    let mut command = machine.command(&machine.bin_dir().join("triton-differences"));
    command.arg("ask").arg("--scripts").arg(machine.root.join(SCRIPTS));
    command.args(["--agent", agent.url().trim_start_matches("http://"), "--model", model]);
    command.arg("--model-dir").arg(folder).arg("--triton").arg(&triton);
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(running)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(agent.token().as_bytes()).map_err(running)?;
    }
    let output = child.wait_with_output().map_err(running)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if printed.is_empty() {
        return Err(Failure::new("triton-differences failed; its own words stand above"));
    }
    Ok(Beside { ok: output.status.success(), printed })
}

fn ask(
    machine: &Machine,
    python: &Path,
    agent: &Agent,
    library: &str,
    model: &str,
) -> Result<Vec<Check>, Failure> {
    let running = |error| Failure::new(format!("running {library}")).because(error);
    let mut command: Command = machine.command(python);
    command.arg(SCRIPT).args([library, &agent.url(), model]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(running)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Not among the arguments, which anybody on the machine can read.
        stdin.write_all(agent.token().as_bytes()).map_err(running)?;
    }
    let output = child.wait_with_output().map_err(running)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let checks =
        printed.lines().map(serde_json::from_str).collect::<Result<Vec<Check>, _>>().map_err(
            |error| Failure::new(format!("reading what {library} printed")).because(error),
        )?;
    if output.status.success() && !checks.is_empty() {
        return Ok(checks);
    }
    Err(Failure::new(format!("{library} did not run to its end; its own words stand above")))
}

fn print(machine: &Machine, checks: &[Check], triton: &Beside) -> Result<(), Failure> {
    let text = match machine.output {
        Output::Json => {
            let ok = triton.ok && checks.iter().all(|check| check.ok);
            let triton: Value = serde_json::from_str(&triton.printed).unwrap_or_default();
            json!({ "ok": ok, "checks": checks, "triton": triton }).to_string()
        }
        Output::Person => {
            let line = |check: &Check| {
                let client = format!("{} {}", check.client, check.version);
                let ok = if check.ok { "ok" } else { "FAILED" };
                format!("{client:<28} {ok:<7} {:<42} {}", check.check, check.detail)
            };
            let passed = checks.iter().filter(|check| check.ok).count();
            let mut lines: Vec<String> = checks.iter().map(line).collect();
            lines.push(format!("{passed} of {} checks passed\n", checks.len()));
            lines.push(triton.printed.trim_end().to_owned());
            lines.join("\n")
        }
    };
    say::result(&text).map_err(|error| Failure::new("printing the result").because(error))
}
