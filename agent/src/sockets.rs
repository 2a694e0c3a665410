//! Listening sockets that the service manager or the supervisor passed to this process (`LISTEN_FDS`, by name).

use std::{env, io, net::TcpListener, os::unix::net::UnixListener};

use listenfd::ListenFd;

/// The local API over TCP.
pub const API_TCP: &str = "api-tcp";
/// The local API on a Unix socket.
pub const API_UNIX: &str = "api-unix";
/// A worker's socket.
pub const WORKER: &str = "worker";

/// A passed socket that is not what its name says.
#[derive(Debug, thiserror::Error)]
#[error("socket `{name}` that was passed in is not a listening {kind} socket")]
pub struct SocketError {
    name: &'static str,
    kind: &'static str,
    source: io::Error,
}

/// The sockets passed to this process, each to be taken once.
pub struct PassedSockets {
    fds: ListenFd,
    names: Vec<String>,
}

impl PassedSockets {
    /// Those of the environment. Call once, before anything else is opened.
    pub fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).collect();
        Self { fds: ListenFd::from_env(), names }
    }

    /// None at all.
    pub fn none() -> Self {
        Self { fds: ListenFd::empty(), names: Vec::new() }
    }

    /// The TCP socket called `name`, if one was passed.
    ///
    /// # Errors
    /// It is another kind of socket.
    pub fn tcp(&mut self, name: &'static str) -> Result<Option<TcpListener>, SocketError> {
        let wrong = |source| SocketError { name, kind: "TCP", source };
        match self.at(name) {
            Some(at) => self.fds.take_tcp_listener(at).map_err(wrong),
            None => Ok(None),
        }
    }

    /// The Unix socket called `name`, if one was passed.
    ///
    /// # Errors
    /// It is another kind of socket.
    pub fn unix(&mut self, name: &'static str) -> Result<Option<UnixListener>, SocketError> {
        let wrong = |source| SocketError { name, kind: "Unix", source };
        match self.at(name) {
            Some(at) => self.fds.take_unix_listener(at).map_err(wrong),
            None => Ok(None),
        }
    }

    fn at(&self, name: &str) -> Option<usize> {
        self.names.iter().take(self.fds.len()).position(|candidate| candidate == name)
    }
}
