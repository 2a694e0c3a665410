//! The staged agent is run once, where it lies, before anything depends on it: a file system without execution, a
//! missing library or a wrong architecture shows here and not at the next start.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

const POLL: Duration = Duration::from_millis(20);
const STDERR_BYTES_MAX: u64 = 2048;

/// Why a staged agent is not armed.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// It cannot be started.
    #[error("running {agent} --self-check")]
    Start {
        /// Executable.
        agent: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended badly.
    #[error("{agent} --self-check ended with {status}: {said}")]
    Failed {
        /// Executable.
        agent: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// It did not end.
    #[error("{agent} --self-check did not end within {limit_ms} ms")]
    TimedOut {
        /// Executable.
        agent: PathBuf,
        /// Limit.
        limit_ms: u64,
    },
}

/// Runs `agent --self-check` for at most `limit_ms`.
pub fn run(agent: &Path, limit_ms: u64) -> Result<(), SelfCheckError> {
    let start = |source| SelfCheckError::Start { agent: agent.to_owned(), source };
    let mut child = spawn(agent).map_err(start)?;
    let polls = limit_ms.div_ceil(20).max(1);
    for _ in 0..polls {
        if let Some(status) = child.try_wait().map_err(start)? {
            return judge(agent, status, &mut child);
        }
        thread::sleep(POLL);
    }
    child.kill().map_err(start)?;
    child.wait().map_err(start)?;
    Err(SelfCheckError::TimedOut { agent: agent.to_owned(), limit_ms })
}

/// A file that another thread of this process still had open for writing while a child was being made cannot be run
/// for a moment; such a refusal is waited out.
fn spawn(agent: &Path) -> io::Result<Child> {
    let mut refused = None;
    for _ in 0..50 {
        let started = Command::new(agent)
            .arg("--self-check")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                refused = Some(error);
                thread::sleep(POLL);
            }
            other => return other,
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::ExecutableFileBusy.into()))
}

fn judge(agent: &Path, status: ExitStatus, child: &mut Child) -> Result<(), SelfCheckError> {
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What it said is for people; that it failed is known already.
        drop(stderr.take(STDERR_BYTES_MAX).read_to_end(&mut said));
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(SelfCheckError::Failed { agent: agent.to_owned(), status, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_failure_absence_and_hanging_are_told_apart() {
        run(Path::new("/bin/true"), 5000).unwrap();
        let failed = run(Path::new("/bin/false"), 5000).unwrap_err();
        assert!(matches!(failed, SelfCheckError::Failed { .. }), "{failed}");
        let absent = run(Path::new("/nowhere/socle-agent"), 5000).unwrap_err();
        assert!(matches!(absent, SelfCheckError::Start { .. }), "{absent}");
        // `yes --self-check` would be refused for its option; `yes` under another name is not at hand, a script is.
        let folder = tempfile::tempdir().unwrap();
        let hanging = folder.path().join("hanging");
        std::os::unix::fs::symlink("/bin/sh", folder.path().join("sh")).unwrap();
        slots::disk::Disk::write(
            &slots::disk::RealDisk,
            &hanging,
            &mut &b"#!/bin/sh\nexec sleep 60\n"[..],
        )
        .unwrap();
        slots::disk::Disk::set_mode(&slots::disk::RealDisk, &hanging, 0o755).unwrap();
        let hung = run(&hanging, 100).unwrap_err();
        assert!(matches!(hung, SelfCheckError::TimedOut { limit_ms: 100, .. }), "{hung}");
    }
}
