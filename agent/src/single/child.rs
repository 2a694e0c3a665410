//! Starting one child with its sockets, and ending it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{self, Instant},
};

/// First descriptor of the systemd protocol.
const FIRST_FD: i32 = 3;

/// Why a child did not start, or could not be waited for.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// A socket cannot be passed.
    #[error("passing the socket `{name}` to the {what}")]
    Socket {
        /// The child.
        what: &'static str,
        /// The socket.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Two sockets under one number; a bug.
    #[error("passing sockets to the {what}")]
    Mapping {
        /// The child.
        what: &'static str,
        /// Why.
        source: FdMappingCollision,
    },
    /// The program does not start.
    #[error("starting the {what} by `{program}`")]
    Start {
        /// The child.
        what: &'static str,
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It is not known how it ended.
    #[error("waiting for the {what}")]
    Wait {
        /// The child.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A running child. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    what: &'static str,
    child: Child,
    began: Instant,
}

/// Starts `command` as `what`, with `sockets` passed by name in the systemd protocol.
///
/// # Errors
/// See [`ChildError`].
pub fn start(
    what: &'static str,
    mut command: Command,
    sockets: &[(&'static str, BorrowedFd<'_>)],
) -> Result<Running, ChildError> {
    let mut mappings = Vec::new();
    for ((name, socket), child_fd) in sockets.iter().zip(FIRST_FD..) {
        let parent_fd: OwnedFd = socket
            .try_clone_to_owned()
            .map_err(|source| ChildError::Socket { what, name, source })?;
        mappings.push(FdMapping { parent_fd, child_fd });
    }
    if !sockets.is_empty() {
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.fd_mappings(mappings).map_err(|source| ChildError::Mapping { what, source })?;
    }
    command.stdin(Stdio::null()).stdout(io::stderr()).kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command.spawn().map_err(|source| ChildError::Start { what, program, source })?;
    tracing::debug!(what, pid = child.id(), "started");
    Ok(Running { what, child, began: Instant::now() })
}

impl Running {
    /// Until it has ended: how, and how long it lived. May be dropped and called again.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn ended(&mut self) -> Result<(ExitStatus, Duration), ChildError> {
        let what = self.what;
        let status = self.child.wait().await.map_err(|source| ChildError::Wait { what, source })?;
        Ok((status, self.began.elapsed()))
    }

    /// Asks it to end; after `patience` it is killed. Says how it ended.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn end(mut self, patience: Duration) -> Result<ExitStatus, ChildError> {
        let what = self.what;
        self.signal(Signal::TERM);
        if let Ok(ended) = time::timeout(patience, self.ended()).await {
            return ended.map(|(status, _)| status);
        }
        tracing::warn!(what, "did not end in time and is killed");
        self.child.kill().await.map_err(|source| ChildError::Wait { what, source })?;
        self.ended().await.map(|(status, _)| status)
    }

    /// Kills it.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(reason) = kill_process(pid, signal)
        {
            tracing::debug!(what = self.what, %reason, "had ended already");
        }
    }
}
