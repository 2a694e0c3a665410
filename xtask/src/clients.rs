//! `cargo xtask peer clients`: clients of other people, as their packages come, against an agent.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::failure::Failure;
use crate::http::Agent;
use crate::machine::{Machine, Output};
use crate::{cache, pip, say, shell};

const SCRIPT: &str = "xtask/peers/clients.py";

/// Every package with its version, as one installation that works.
const PACKAGES: &str = "xtask/peers/clients.txt";

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

/// Runs every client and prints the table; fails when a check does.
pub(crate) fn run(machine: &Machine, agent: &Agent) -> Result<(), Failure> {
    let python = environment(machine)?;
    let model = agent.connect()?.first_model()?;
    let mut checks = Vec::new();
    for library in LIBRARIES {
        say::line(&format!("asking with {library}"));
        checks.extend(ask(machine, &python, agent, library, &model)?);
    }
    print(machine, &checks)?;
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| format!("{}: {}", check.client, check.check))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} of {} checks failed: {}",
        failed.len(),
        checks.len(),
        failed.join("; ")
    )))
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

fn print(machine: &Machine, checks: &[Check]) -> Result<(), Failure> {
    let text = match machine.output {
        Output::Json => {
            json!({ "ok": checks.iter().all(|check| check.ok), "checks": checks }).to_string()
        }
        Output::Person => {
            let line = |check: &Check| {
                let client = format!("{} {}", check.client, check.version);
                let ok = if check.ok { "ok" } else { "FAILED" };
                format!("{client:<28} {ok:<7} {:<42} {}", check.check, check.detail)
            };
            checks.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    say::result(&text).map_err(|error| Failure::new("printing the result").because(error))
}

/// The virtual environment in the cache, made aside and renamed when whole.
fn environment(machine: &Machine) -> Result<PathBuf, Failure> {
    let listed = machine.root.join(PACKAGES);
    let wanted = fs::read_to_string(&listed)
        .map_err(|error| Failure::new(format!("reading `{PACKAGES}`")).because(error))?;
    let folder = machine.cache.join("peers").join("clients");
    let python = folder.join("bin/python");
    let stamp = folder.join("requirements");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    say::line("installing the clients, about 500 MB");
    let system = pip::installed(machine)?;
    let preparing = |error| {
        Failure::new(format!("preparing the virtual environment `{}`", folder.display()))
            .because(error)
    };
    let parent = folder.parent().unwrap_or(&folder);
    fs::create_dir_all(parent).map_err(preparing)?;
    let work =
        tempfile::Builder::new().prefix(".clients-").tempdir_in(parent).map_err(preparing)?;
    let whole = work.path().join("whole");
    let mut venv = machine.command(&system);
    shell::run(venv.args(["-m", "venv", "--clear"]).arg(&whole).stdout(std::io::stderr()))?;
    let mut install = machine.command(&whole.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]);
    install.args(["--disable-pip-version-check", "--no-input", "--requirement"]).arg(&listed);
    shell::run(install.stdin(Stdio::null()).stdout(std::io::stderr())).map_err(|failure| {
        failure.next("check that pip reaches a package index (`pip config list`), then repeat")
    })?;
    fs::copy(&listed, whole.join("requirements")).map_err(preparing)?;
    cache::put_in_place(&whole, &folder, &work.path().join("replaced")).map_err(preparing)?;
    Ok(python)
}
