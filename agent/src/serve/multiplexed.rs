//! One HTTP/2 connection, which gRPC needs. Its state cannot be left to another process: when this gateway ends, the client
//! is told to open another connection, and what is under way here is finished.

use std::{
    os::fd::AsFd,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use hyper::{Request, body::Incoming, server::conn::http2, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use crate::serve::{
    conversation::{Answering, Terms, Watched},
    taking::ended,
};

/// Most requests at once on one connection; more wait at the client.
const STREAMS_MAX: u32 = 64;
/// Most bytes of a request's headers.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// Most bytes of one request that are taken before its route asks for them.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Most streams that a client may open and take back before it is thought hostile.
const RESETS_MAX: usize = 64;
/// How often a silent client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to say so.
const PING_MAX: Duration = Duration::from_secs(20);
/// A connection without a request for so long is ended.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Answers what is asked on `stream`, until either side ends it.
pub async fn converse<S>(stream: S, terms: Terms)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    let Terms { router, mut taking, unread, .. } = terms;
    let streams = Arc::new(Streams::default());
    let service =
        Counting { inner: TowerToHyperService::new(router), streams: Arc::clone(&streams) };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .serve_connection(TokioIo::new(Watched::unwatched(stream, unread)), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ended(&mut taking) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = streams.idle() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(reason) = result {
        tracing::debug!(%reason, "connection ended");
    }
}

/// The requests of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    begun: AtomicU64,
}

impl Streams {
    /// Until there was no request for [`IDLE_MAX`].
    async fn idle(&self) {
        let mut before = u64::MAX;
        loop {
            time::sleep(IDLE_MAX / 2).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == before && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = begun;
        }
    }
}

/// A service that counts its requests.
struct Counting<S> {
    inner: S,
    streams: Arc<Streams>,
}

impl<S> Service<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Incoming>, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<Response, S::Error>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let open = Open::new(Arc::clone(&self.streams));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await;
            drop(open);
            response
        })
    }
}

/// Counts a request until its answer is known, or nobody waits for it any more.
struct Open(Arc<Streams>);

impl Open {
    fn new(streams: Arc<Streams>) -> Self {
        streams.begun.fetch_add(1, Ordering::Relaxed);
        streams.open.fetch_add(1, Ordering::Relaxed);
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
