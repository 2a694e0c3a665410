//! Listening sockets that the service manager or the supervisor passed to this process (`LISTEN_FDS`, by name).

use std::{
    env, io,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};

/// The local API over TCP.
pub const API_TCP: &str = "api-tcp";
/// The local API on a Unix socket.
pub const API_UNIX: &str = "api-unix";
/// A worker's socket.
pub const WORKER: &str = "worker";
/// The end into which open connections are left to the next gateway.
pub const BEQUEST_LEAVE: &str = "bequest-leave";
/// The end from which those of the last gateway are taken.
pub const BEQUEST_TAKE: &str = "bequest-take";

/// A passed socket that is not what its name says.
#[derive(Debug, thiserror::Error)]
#[error("socket `{name}` that was passed in is not a {kind} socket")]
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
        let wrong = |source| SocketError { name, kind: "listening TCP", source };
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
        let wrong = |source| SocketError { name, kind: "listening Unix", source };
        match self.at(name) {
            Some(at) => self.fds.take_unix_listener(at).map_err(wrong),
            None => Ok(None),
        }
    }

    /// The connected socket for packets called `name`, if one was passed.
    ///
    /// # Errors
    /// It is another kind of socket.
    pub fn packets(&mut self, name: &'static str) -> Result<Option<OwnedFd>, SocketError> {
        const KIND: &str = "Unix SOCK_SEQPACKET";
        let wrong = |source| SocketError { name, kind: KIND, source };
        let Some(at) = self.at(name) else { return Ok(None) };
        let family = i32::from(AddressFamily::UNIX.as_raw());
        let kind = i32::try_from(SocketType::SEQPACKET.as_raw()).unwrap_or_default();
        self.fds.take_custom(at, family, kind, KIND).map_err(wrong)
    }

    fn at(&self, name: &str) -> Option<usize> {
        self.names.iter().take(self.fds.len()).position(|candidate| candidate == name)
    }
}
