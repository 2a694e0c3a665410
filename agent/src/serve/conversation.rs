//! One HTTP/1.1 connection from its first request to its end, or to the moment at which it is left to the next gateway.

use std::{
    future::{self, Future as _},
    io,
    os::fd::AsFd,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::Service,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time,
};

use crate::serve::{
    bequest::{Bequest, Kind},
    taking::{Taking, ended},
};

/// Longest wait for the head of a request, and so for the next request on an open connection.
pub const HEAD_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the first request on a connection that was taken just before none was any more.
const FIRST_MAX: Duration = Duration::from_secs(1);

/// What a conversation is given.
pub struct Terms {
    /// By which listener the connection came.
    pub kind: Kind,
    /// The routes.
    pub router: Router,
    /// Whether connections are taken.
    pub taking: watch::Receiver<Taking>,
    /// Where the connection is left, if there is a next gateway to take it.
    pub bequest: Option<Arc<Bequest>>,
    /// What an earlier gateway read from the connection and did not use.
    pub unread: Vec<u8>,
}

/// Answers what is asked on `stream`, until either side ends it or it is left to the next gateway.
pub async fn converse<S>(stream: S, terms: Terms)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    let Terms { kind, router, mut taking, bequest, unread } = terms;
    let progress = Arc::new(Progress::default());
    let stream = Watched { stream, unread: unread.into(), progress: Arc::clone(&progress) };
    let service =
        Marking { inner: TowerToHyperService::new(router), progress: Arc::clone(&progress) };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = &mut connection => return done(result),
        () = ended(&mut taking) => {}
    }
    let now = *taking.borrow();
    if let (Taking::Leave, Some(bequest)) = (now, bequest) {
        let between = future::poll_fn(|context| {
            if progress.is_between_requests() {
                return Poll::Ready(None);
            }
            match Pin::new(&mut connection).poll(context) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if progress.is_between_requests() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        if let Some(result) = between.await {
            return done(result);
        }
        if progress.leavable.load(Ordering::Relaxed) {
            let parts = connection.into_parts();
            let Watched { stream, unread, .. } = parts.io.into_inner();
            let unread = [parts.read_buf, unread].concat();
            if let Err(reason) = bequest.leave(kind, stream.as_fd(), &unread) {
                tracing::warn!(%reason, "a connection is closed instead of being left to the next gateway");
            }
            return;
        }
    }
    // A client that has just connected is about to ask; closing now would fail its request.
    let mut connection = pin!(connection);
    let first = async {
        if !progress.asked.load(Ordering::Relaxed) {
            time::sleep(FIRST_MAX).await;
        }
    };
    tokio::select! {
        result = connection.as_mut() => return done(result),
        () = first => connection.as_mut().graceful_shutdown(),
    }
    done(connection.await);
}

fn done(result: hyper::Result<()>) {
    if let Err(reason) = result {
        tracing::debug!(%reason, "connection ended");
    }
}

/// How far the requests on a connection are. All of it changes on the connection's own task alone.
#[derive(Debug)]
struct Progress {
    /// There was a request.
    asked: AtomicBool,
    /// One is being answered: its handler runs, or its response is not yet with hyper.
    answering: AtomicBool,
    /// What hyper had to say is with the kernel.
    flushed: AtomicBool,
    /// Every request so far was read to its end, so that what follows is the next one.
    leavable: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            asked: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            leavable: AtomicBool::new(true),
        }
    }
}

impl Progress {
    fn is_between_requests(&self) -> bool {
        !self.answering.load(Ordering::Relaxed) && self.flushed.load(Ordering::Relaxed)
    }
}

/// The stream as hyper sees it: first what was read already, and with a note of what is flushed.
pub struct Watched<S> {
    stream: S,
    unread: Bytes,
    progress: Arc<Progress>,
}

impl<S> Watched<S> {
    /// One whose notes nobody reads.
    pub fn unwatched(stream: S, unread: Vec<u8>) -> Self {
        Self { stream, unread: unread.into(), progress: Arc::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes its stream only after it has written all that it holds.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(())))
            && !self.progress.answering.load(Ordering::Relaxed)
        {
            self.progress.flushed.store(true, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A service that notes where each request is.
struct Marking<S> {
    inner: S,
    progress: Arc<Progress>,
}

/// A response on its way.
pub type Answering<R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

impl<S> Service<Request<Incoming>> for Marking<S>
where
    S: Service<Request<Incoming>, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response<Marked>;
    type Error = S::Error;
    type Future = Answering<Response<Marked>, S::Error>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let progress = Arc::clone(&self.progress);
        progress.asked.store(true, Ordering::Relaxed);
        progress.flushed.store(false, Ordering::Relaxed);
        let has_body = !request.body().is_end_stream();
        let mark = Mark::new(progress);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // One that is refused may be answered before its body was read.
            if has_body && !response.status().is_success() {
                mark.0.leavable.store(false, Ordering::Relaxed);
            }
            Ok(response.map(|body| Marked { body, _mark: mark }))
        })
    }
}

/// Says that a request is being answered for as long as it lives.
struct Mark(Arc<Progress>);

impl Mark {
    fn new(progress: Arc<Progress>) -> Self {
        progress.answering.store(true, Ordering::Relaxed);
        Self(progress)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.answering.store(false, Ordering::Relaxed);
    }
}

/// A response's body; hyper drops it when it has taken all of it.
struct Marked {
    body: Body,
    _mark: Mark,
}

impl HttpBody for Marked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
