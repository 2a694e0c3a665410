//! Accepts connections to the local API, and ends without dropping a request.
//!
//! When another gateway takes this one's place, no connection is taken any more (they wait at the listening socket, which
//! somebody else holds too), and the open ones are left to the next gateway, each when no request is under way on it.
//!
//! Where there is nobody to leave them to, ending has two steps, since a client may be about to send its next request on
//! an open connection. First every response says `Connection: close`, while new connections are still taken; then none is
//! taken any more, idle ones are closed, busy ones finish, and one that was just opened may still ask its first question.

use std::{
    io, net::TcpStream as StdTcpStream, os::unix::net::UnixStream as StdUnixStream, sync::Arc,
    time::Duration,
};

use axum::Router;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};

use crate::serve::{
    bequest::{Bequest, Kind, Left},
    conversation::Terms,
    preface,
    taking::{Taking, ended},
};

/// Most connections at once over one listener; more wait at the listening socket.
pub const CONNECTIONS_MAX: u32 = 512;
/// Pause after a failed accept, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// What a server serves, and with what.
pub struct Server {
    /// Where connections come from.
    pub listener: Listener,
    /// The routes.
    pub router: Router,
    /// Counts open connections.
    pub connections: Gauge,
    /// Whether connections are taken.
    pub taking: watch::Receiver<Taking>,
    /// Where open connections are left to the next gateway.
    pub bequest: Option<Arc<Bequest>>,
}

impl Listener {
    const fn kind(&self) -> Kind {
        match self {
            Self::Tcp(_) => Kind::Tcp,
            Self::Unix(_) => Kind::Unix,
        }
    }
}

/// Serves what the last gateway left and who connects, until no more are taken and every connection has ended.
pub async fn serve(server: Server, left: Vec<Left>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let kind = server.listener.kind();
    for left in left.into_iter().filter(|left| left.kind == kind) {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { break };
        if let Err(reason) = server.go_on(left, permit) {
            tracing::warn!(%reason, "a connection that the last gateway left is lost");
        }
    }
    let mut until = server.taking.clone();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = ended(&mut until) => break,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = server.accept(permit) => accepted,
            () = ended(&mut until) => break,
        };
        if let Err(reason) = accepted {
            tracing::warn!(%reason, "no connection accepted");
            time::sleep(ACCEPT_PAUSE).await;
        }
    }
    drop(server);
    if permits.acquire_many(CONNECTIONS_MAX).await.is_err() {
        tracing::error!("connections cannot be waited for");
    }
}

impl Server {
    async fn accept(&self, permit: OwnedSemaphorePermit) -> io::Result<()> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                self.begin_tcp(stream, Vec::new(), permit);
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                self.begin_unix(stream, Vec::new(), permit);
            }
        }
        Ok(())
    }

    fn go_on(&self, left: Left, permit: OwnedSemaphorePermit) -> io::Result<()> {
        let Left { kind, connection, unread } = left;
        match kind {
            Kind::Tcp => {
                let stream = StdTcpStream::from(connection);
                stream.set_nonblocking(true)?;
                self.begin_tcp(TcpStream::from_std(stream)?, unread, permit);
            }
            Kind::Unix => {
                let stream = StdUnixStream::from(connection);
                stream.set_nonblocking(true)?;
                self.begin_unix(UnixStream::from_std(stream)?, unread, permit);
            }
        }
        Ok(())
    }

    fn begin_tcp(&self, stream: TcpStream, unread: Vec<u8>, permit: OwnedSemaphorePermit) {
        let (open, terms) = (self.open(permit), self.terms(unread));
        tokio::spawn(async move {
            preface::serve(stream, terms).await;
            drop(open);
        });
    }

    fn begin_unix(&self, stream: UnixStream, unread: Vec<u8>, permit: OwnedSemaphorePermit) {
        let (open, terms) = (self.open(permit), self.terms(unread));
        tokio::spawn(async move {
            preface::serve(stream, terms).await;
            drop(open);
        });
    }

    fn open(&self, permit: OwnedSemaphorePermit) -> Open {
        self.connections.inc();
        Open { _permit: permit, connections: self.connections.clone() }
    }

    fn terms(&self, unread: Vec<u8>) -> Terms {
        Terms {
            kind: self.listener.kind(),
            router: self.router.clone(),
            taking: self.taking.clone(),
            bequest: self.bequest.clone(),
            unread,
        }
    }
}

/// An open connection, counted until it is dropped.
struct Open {
    _permit: OwnedSemaphorePermit,
    connections: Gauge,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.dec();
    }
}
