//! Programs that are run to their end, and for no longer than they may.

use std::{
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Longest any program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

/// Runs `command`, called `what` where it fails to end.
pub fn run(command: &mut Command, what: &str) -> anyhow::Result<Ended> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let pid = Pid::from_child(&child);
    let (send, ended) = mpsc::sync_channel(1);
    thread::spawn(move || drop(send.send(child.wait_with_output())));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        kill_process(pid, Signal::KILL).with_context(|| format!("ending {what}"))?;
        bail!("{what} did not end within {} s", PATIENCE.as_secs());
    };
    let output = output.with_context(|| format!("waiting for {what}"))?;
    Ok(Ended {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As [`run`], and success is expected.
pub fn well(command: &mut Command, what: &str) -> anyhow::Result<Ended> {
    let ended = run(command, what)?;
    ensure!(ended.status.success(), "{what} ended with {}: {}", ended.status, ended.err.trim());
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{run, well};

    #[test]
    fn what_a_program_says_and_how_it_ends_is_known() {
        let ended = run(Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"]), "it");
        let ended = ended.unwrap();
        assert_eq!((ended.out.as_str(), ended.err.as_str()), ("a\n", "b\n"));
        assert_eq!(ended.status.code(), Some(3));
        let failed = well(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), "it");
        assert_eq!(failed.unwrap_err().to_string(), "it ended with exit status: 3: why");
    }
}
