//! Connections: accepted up to a bound, TLS within a time-out, HTTP/1.1, ended gracefully.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::ServiceExt as _;

use super::guard::Peer;
use crate::{pki, stop::Stop};

const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `router` on `listener` until the word to stop, then lets requests under way finish.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, mut stop: Stop) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.wait() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, say: accepting again at once would spin.
                tracing::warn!("accepting a connection: {error}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Beyond the bound the newest connection is closed; those inside keep their room.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!("closed a connection: {CONNECTIONS_MAX} are open already");
            continue;
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        connections.spawn(async move {
            if let Some(stream) = handshake(&acceptor, stream, address).await {
                converse(stream, address, router, watcher).await;
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish within {} s", DRAIN.as_secs());
    }
    connections.shutdown().await;
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, "setting a connection up: {error}");
    }
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%address, "TLS handshake: {error}");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake took too long");
            None
        }
    }
}

async fn converse(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    let device =
        stream.get_ref().1.peer_certificates().and_then(|chain| pki::device_of(chain.first()?));
    let peer = Peer { address, device };
    let service = service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), peer, request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%address, "connection: {error}");
    }
}

async fn answer(router: Router, peer: Peer, mut request: Request) -> Result<Response, Infallible> {
    request.extensions_mut().insert(peer);
    router.oneshot(request).await
}
