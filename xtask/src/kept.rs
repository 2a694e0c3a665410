//! A fleet left running by `socle demo --keep`, to measure against: real processes, real release.
//! It runs until its standard input ends, which also happens if we are killed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::demo::{self, Demo, Via};
use crate::failure::Failure;
use crate::http::Agent;
use crate::machine::{Machine, Output};
use crate::say;

/// All that the demo prints before it waits is shorter.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// How often and how many times we look whether the demo has ended: 60 s in all.
const TRY_EVERY: Duration = Duration::from_millis(100);
const TRIES: u32 = 600;

#[derive(Debug, Deserialize)]
struct Said {
    kept: Addresses,
}

#[derive(Debug, Deserialize)]
struct Addresses {
    agents: Vec<AgentAddress>,
}

#[derive(Debug, Deserialize)]
struct AgentAddress {
    url: String,
    token_file: PathBuf,
}

/// The running demo; ended by [`Kept::stop`] or when dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    child: Option<Child>,
    agent: Agent,
    state: PathBuf,
}

impl Kept {
    /// Runs the demo on `model` to the point where it only waits.
    pub(crate) fn start(machine: &Machine, model: &Path) -> Result<Self, Failure> {
        say::line("starting a fleet: `socle demo --keep`");
        let options = Demo {
            via: Via::Embedded,
            model: None,
            output: Output::Json,
            more: vec!["--keep".into()],
        };
        let mut command = demo::command(machine, model, &options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Failure::new("`socle demo` could not be started").because(error))?;
        let Some(out) = child.stdout.take() else {
            return Err(Failure::new("`socle demo` has no standard output"));
        };
        let mut lines = BufReader::new(out);
        let (agent, state) = match addresses(&mut lines) {
            Ok(found) => found,
            Err(failure) => {
                end(&mut child);
                return Err(failure);
            }
        };
        // What it says at its end must find a reader, or it would end on a closed pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(Self { child: Some(child), agent, state })
    }

    /// The agent to ask.
    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// That agent's state folder.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Asks the demo to end and waits for it.
    pub(crate) fn stop(mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

/// Ends the demo's standard input, on which it stops its children and ends; kills it if it does
/// not.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    for _ in 0..TRIES {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(TRY_EVERY),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    say::line("`socle demo` did not end within 60 s of being asked to: killed");
    drop(child.kill());
    drop(child.wait());
}

/// Reads lines until the one that holds the addresses of what was kept.
fn addresses(out: &mut impl BufRead) -> Result<(Agent, PathBuf), Failure> {
    let ended = || {
        Failure::new("`socle demo --keep` ended without keeping anything")
            .next("run `cargo xtask demo` alone and see which check did not hold")
    };
    let mut lines = out.take(LINE_BYTES_MAX);
    let mut line = String::new();
    loop {
        line.clear();
        let length = lines.read_line(&mut line).map_err(|error| ended().because(error))?;
        if length == 0 {
            return Err(ended());
        }
        if let Ok(Said { kept }) = serde_json::from_str(&line) {
            let agent = kept.agents.first().ok_or_else(ended)?;
            // The token lies in `identity` of the state folder.
            let state = agent.token_file.ancestors().nth(2).ok_or_else(ended)?.to_path_buf();
            return Agent::new(&agent.url, &agent.token_file).map(|asked| (asked, state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn the_first_agent_of_the_kept_fleet_is_taken() {
        let line = r#"{"checks":{},"kept":{"state":"x","agents":[{"name":"a","url":"http://127.0.0.1:7411","token_file":"/dev/null","pid":1}]}}"#;
        assert!(addresses(&mut format!("words\n{line}\n").as_bytes()).is_ok());
    }

    #[test]
    fn a_demo_that_kept_nothing_is_a_failure() {
        for text in ["", "{\"checks\":{}}\n", "{\"kept\":{\"agents\":[]}}\n"] {
            assert!(addresses(&mut text.as_bytes()).is_err(), "{text}");
        }
    }
}
