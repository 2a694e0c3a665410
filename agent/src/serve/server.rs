//! Accepts connections to the local API, and ends without dropping a request.
//!
//! Ending has two steps, since a client may be about to send its next request on an open connection. First every response
//! says `Connection: close`, while new connections are still taken; then none is taken any more (they wait at the
//! listening socket, which somebody else holds too, for the next gateway), idle ones are closed, busy ones finish, and
//! one that was just opened may still ask its first question.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};

/// Most connections at once over one listener; more wait at the listening socket.
pub const CONNECTIONS_MAX: u32 = 512;
/// Longest wait for the head of a request, and so for the next request on an open connection.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the first request on a connection that was taken just before none was any more.
const FIRST_MAX: Duration = Duration::from_secs(1);
/// Pause after a failed accept, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Yes.
    All,
    /// No more; those that are open finish.
    None,
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Serves `router` on `listener` until `taking` says [`Taking::None`] and every connection has ended.
pub async fn serve(
    listener: Listener,
    router: Router,
    connections: Gauge,
    taking: watch::Receiver<Taking>,
) {
    let mut until = taking.clone();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = ended(&mut until) => break,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = accept(&listener, &router, &connections, &taking, permit) => accepted,
            () = ended(&mut until) => break,
        };
        if let Err(reason) = accepted {
            tracing::warn!(%reason, "no connection accepted");
            time::sleep(ACCEPT_PAUSE).await;
        }
    }
    drop(listener);
    if permits.acquire_many(CONNECTIONS_MAX).await.is_err() {
        tracing::error!("connections cannot be waited for");
    }
}

async fn ended(taking: &mut watch::Receiver<Taking>) {
    if taking.wait_for(|taking| *taking == Taking::None).await.is_err() {
        tracing::debug!("nobody says any more whether connections are taken");
    }
}

async fn accept(
    listener: &Listener,
    router: &Router,
    connections: &Gauge,
    taking: &watch::Receiver<Taking>,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let open = Open::new(permit, connections.clone());
            tokio::spawn(converse(stream, router.clone(), taking.clone(), open));
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let open = Open::new(permit, connections.clone());
            tokio::spawn(converse(stream, router.clone(), taking.clone(), open));
        }
    }
    Ok(())
}

/// One connection, until either side ends it.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    mut taking: watch::Receiver<Taking>,
    open: Open,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let service = Marking { inner: TowerToHyperService::new(router), asked: Arc::clone(&asked) };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ended(&mut taking) => {
            // A client that has just connected is about to ask; closing now would fail its request.
            let first = async {
                if !asked.load(Ordering::Relaxed) {
                    time::sleep(FIRST_MAX).await;
                }
            };
            tokio::select! {
                result = connection.as_mut() => result,
                () = first => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(reason) = result {
        tracing::debug!(%reason, "connection ended");
    }
    drop(open);
}

/// A service that notes that it was asked.
struct Marking<S> {
    inner: S,
    asked: Arc<AtomicBool>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Marking<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> S::Future {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.call(request)
    }
}

/// An open connection, counted until it is dropped.
struct Open {
    _permit: OwnedSemaphorePermit,
    connections: Gauge,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit, connections: Gauge) -> Self {
        connections.inc();
        Self { _permit: permit, connections }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.dec();
    }
}
