//! One connection to a worker: requests go out in turn, responses come back in any order and find who waits for them.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use engine::worker::{
    frame::{self, FrameError, HEADER_BYTES},
    message::{Call, Reply, Request, Response},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, oneshot, watch},
    task::AbortHandle,
};

use crate::worker::call_error::CallError;

/// How much is read at once: several responses that came together.
const READ_BYTES: usize = 64 * 1024;

/// An open connection. Dropping it closes it; whoever still waits is told that it is lost.
#[derive(Debug)]
pub struct Connection {
    next_id: AtomicU64,
    writer: AsyncMutex<OwnedWriteHalf>,
    waiting: Arc<Waiting>,
    reader: AbortHandle,
}

/// Who waits for which response, and who for the end of the connection.
#[derive(Debug)]
struct Waiting {
    /// None once the connection is lost.
    places: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    lost: watch::Sender<bool>,
}

/// What comes of a request: a reply, or bytes that this version cannot read.
type Answer = Result<Reply, FrameError>;

/// A place in [`Waiting`], given up when the caller stops waiting.
struct Place<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Connection {
    /// Connects to the worker at `socket`; with socket activation this starts it.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(socket: &Path) -> io::Result<Self> {
        let (read, write) = UnixStream::connect(socket).await?.into_split();
        let (places, lost) = (Mutex::new(Some(HashMap::new())), watch::Sender::new(false));
        let waiting = Arc::new(Waiting { places, lost });
        let reader = tokio::spawn(read_responses(read, Arc::clone(&waiting))).abort_handle();
        Ok(Self { next_id: AtomicU64::new(1), writer: AsyncMutex::new(write), waiting, reader })
    }

    /// Whether the other end has closed it.
    pub fn is_lost(&self) -> bool {
        self.waiting.places().is_none()
    }

    /// Returns when the other end has closed it.
    pub async fn lost(&self) {
        let mut lost = self.waiting.lost.subscribe();
        // The sender lives as long as this connection does.
        drop(lost.wait_for(|lost| *lost).await);
    }

    /// Makes one call. Has no time limit of its own: the caller sets one, and may drop this future at any time before the
    /// request was begun to be written or after it was; see the body for what happens in between.
    ///
    /// # Errors
    /// The connection is or gets lost, the request does not fit into a frame, or the response is of a version that this
    /// one cannot read.
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let bytes = frame::encode(&Request { id, call })?;
        let (sender, reply) = oneshot::channel();
        let _place = self.waiting.place(id, sender).ok_or(CallError::Lost)?;
        {
            let mut writer = self.writer.lock().await;
            // A half-written frame would spoil every later one, so a write that is cut short loses the connection.
            let mut cut_short =
                LoseUnlessDone { waiting: Some(&self.waiting), reader: &self.reader };
            writer.write_all(&bytes).await.map_err(|_| CallError::Lost)?;
            cut_short.waiting = None;
        }
        reply.await.map_err(|_| CallError::Lost)?.map_err(CallError::Unreadable)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Marks the connection as lost when dropped before the write was done.
struct LoseUnlessDone<'a> {
    waiting: Option<&'a Waiting>,
    reader: &'a AbortHandle,
}

impl Drop for LoseUnlessDone<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting {
            waiting.lose();
            self.reader.abort();
        }
    }
}

impl Waiting {
    fn place(&self, id: u64, sender: oneshot::Sender<Answer>) -> Option<Place<'_>> {
        self.places().as_mut()?.insert(id, sender);
        Some(Place { waiting: self, id })
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        self.places().as_mut()?.remove(&id)
    }

    fn lose(&self) {
        self.places().take();
        self.lost.send_replace(true);
    }

    fn places(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.take(self.id);
    }
}

/// Until the worker closes the connection or says something that is no response.
async fn read_responses(read: OwnedReadHalf, waiting: Arc<Waiting>) {
    let mut read = BufReader::with_capacity(READ_BYTES, read);
    loop {
        match read_response(&mut read).await {
            Ok((id, answer)) => {
                // Nobody waits any more when the caller's time ran out.
                if let Some(sender) = waiting.take(id)
                    && sender.send(answer).is_err()
                {
                    tracing::debug!(id, "response came after its time limit");
                }
            }
            Err(reason) => {
                tracing::debug!(%reason, "connection to the worker ended");
                waiting.lose();
                return;
            }
        }
    }
}

/// The next response and whom it is for. One that cannot be read costs its own caller alone.
async fn read_response(read: &mut BufReader<OwnedReadHalf>) -> io::Result<(u64, Answer)> {
    let mut header = [0; HEADER_BYTES];
    read.read_exact(&mut header).await?;
    let length = frame::body_len(header).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    read.read_exact(&mut body).await?;
    match frame::decode(&body) {
        Ok(Response { id, reply }) => Ok((id, Ok(reply))),
        Err(reason) => match frame::id(&body) {
            Some(id) => Ok((id, Err(reason))),
            None => Err(io::Error::other(reason)),
        },
    }
}
