//! The other programs, as child processes that end with the demo. Their output goes to files.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::demo::wait::{self, Look, Overdue};

/// How long a process may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(15);

/// Why a program did not do its part.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("starting `{}`; build it, or name its folder with --bin-dir", .program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its log could not be made.
    #[error("making the log `{}`", .path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{program}` failed ({status}): {stderr}")]
    Failed {
        /// Which.
        program: String,
        /// Its exit status.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// It does not end.
    #[error("ending a process")]
    Stuck(#[from] Overdue),
    /// Its state cannot be read.
    #[error("waiting for a process")]
    Wait(#[source] io::Error),
}

/// A running program. It is ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`; its output goes to `log`.
    pub fn start(program: &Path, args: &[String], log: &Path) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Log { path: log.to_owned(), source };
        let out = File::create(log).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| ProcessError::Start { program: program.to_owned(), source })?;
        Ok(Self { child })
    }

    /// Asks it to end and waits; kills it when it does not.
    pub fn end(&mut self) -> Result<(), ProcessError> {
        if let (Ok(None), Some(pid)) = (
            self.child.try_wait(),
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw),
        ) && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_err()
        {
            return Ok(());
        }
        let ended = wait::until("a process to end", END_WITHIN, || {
            Ok::<_, ProcessError>(match self.child.try_wait().map_err(ProcessError::Wait)? {
                Some(_) => Look::Done(()),
                None => Look::NotYet("it runs on".into()),
            })
        });
        if ended.is_err() {
            self.child.kill().map_err(ProcessError::Wait)?;
            self.child.wait().map_err(ProcessError::Wait)?;
        }
        Ok(())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing more can be done about a process that cannot be ended.
        drop(self.end());
    }
}

/// Runs `program` to its end; its standard output comes back.
pub fn output(program: &Path, args: &[String]) -> Result<String, ProcessError> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ProcessError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(ProcessError::Failed {
        program: program.display().to_string(),
        status: output.status.to_string(),
        stderr: stderr.chars().take(2000).collect(),
    })
}
