//! The sockets of the local API: those passed in, else our own.

use std::{
    fs, io,
    net::{self, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net as unix},
    path::{Path, PathBuf},
};

use crate::{
    serve::server::Listener,
    sockets::{API_TCP, API_UNIX, PassedSockets, SocketError},
};

/// Connections that wait at a socket while one gateway takes over from another.
const WAITING_MAX: i32 = 1024;
/// Who may open the Unix socket: the agent's user and group.
const SOCKET_MODE: u32 = 0o660;

/// The sockets of the local API.
#[derive(Debug)]
pub struct Listeners {
    /// Over TCP.
    pub tcp: Listener,
    /// Its address.
    pub address: SocketAddr,
    /// On a Unix socket.
    pub unix: Listener,
    /// Where that lies.
    pub socket: PathBuf,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// One that was passed in.
    #[error("taking over a socket of the local API")]
    Passed(#[from] SocketError),
    /// One of our own, over TCP.
    #[error(
        "listening on {address}; if another process has it, choose another address with --listen"
    )]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// One of our own, on a path.
    #[error("listening on `{}`", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Listeners {
    /// Those among `passed`; what was not passed is opened at `address` and `path`. Must be called in a runtime.
    ///
    /// # Errors
    /// A socket cannot be opened or is of the wrong kind.
    pub fn open(
        passed: &mut PassedSockets,
        address: SocketAddr,
        path: &Path,
    ) -> Result<Self, ListenError> {
        let tcp = match passed.tcp(API_TCP)? {
            Some(listener) => listener,
            None => bind_tcp(address)?,
        };
        let unix = match passed.unix(API_UNIX)? {
            Some(listener) => listener,
            None => bind_unix(path)?,
        };
        let failed = |source| ListenError::Tcp { address, source };
        tcp.set_nonblocking(true).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(failed)?;
        let failed = |source| ListenError::Unix { path: path.to_owned(), source };
        unix.set_nonblocking(true).map_err(failed)?;
        let socket = unix.local_addr().map_err(failed)?;
        let socket = socket.as_pathname().unwrap_or(path).to_owned();
        let unix = tokio::net::UnixListener::from_std(unix).map_err(failed)?;
        Ok(Self { tcp: Listener::Tcp(tcp), address, unix: Listener::Unix(unix), socket })
    }
}

/// Listens on `address`.
///
/// # Errors
/// The kernel refuses.
pub fn bind_tcp(address: SocketAddr) -> Result<net::TcpListener, ListenError> {
    let failed = |source| ListenError::Tcp { address, source };
    let listener = net::TcpListener::bind(address).map_err(failed)?;
    rustix::net::listen(&listener, WAITING_MAX).map_err(|reason| failed(reason.into()))?;
    Ok(listener)
}

/// Listens on `path`, in place of a socket that a dead process left there.
///
/// # Errors
/// The kernel refuses.
pub fn bind_unix(path: &Path) -> Result<unix::UnixListener, ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(reason) if reason.kind() != io::ErrorKind::NotFound => return Err(failed(reason)),
        Ok(()) | Err(_) => {}
    }
    let listener = unix::UnixListener::bind(path).map_err(failed)?;
    rustix::net::listen(&listener, WAITING_MAX).map_err(|reason| failed(reason.into()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}
