//! One connection: a thread that reads requests. Responses go out by [`crate::worker::outbox`].

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{
    cause::chain,
    worker::{
        failure::{Failure, FailureKind},
        frame::{self, FrameError},
        message::{Call, Reply, Request, Response},
        older,
        outbox::Outbox,
        spoken::Spoken,
        wire::{Frames, WireError},
    },
};

/// Where the responses of a connection go.
#[derive(Debug, Clone)]
pub struct Responder {
    open: Arc<Open>,
}

/// While it lives, somebody may respond.
#[derive(Debug)]
struct Open {
    outbox: Arc<Outbox>,
    /// The version of the protocol that the client reads.
    version: AtomicU16,
}

/// A request as it came.
#[derive(Debug)]
pub struct Incoming {
    /// Its id.
    pub id: u64,
    /// What is asked.
    pub call: Call,
    /// Size of its frame.
    pub bytes: usize,
}

/// The threads of one connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    writer: JoinHandle<()>,
}

impl Responder {
    /// From now on `version` is spoken, which the client greeted with.
    pub fn speak(&self, version: u16) {
        self.open.version.store(version, Ordering::Release);
    }

    /// Gives `reply` to the request `id`. Never waits.
    pub fn send(&self, id: u64, reply: Reply) {
        let reply = older::reply(reply, self.open.version.load(Ordering::Acquire));
        match encoded(Response { id, reply }) {
            Ok(frame) => self.open.outbox.send(frame),
            Err(reason) => tracing::error!(reason = chain(&reason), "a response cannot be written"),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

impl Connection {
    /// Begins to serve `stream`: each request goes to `take`, on the thread that reads. `over` is called when the last
    /// response was written.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        id: u64,
        stream: UnixStream,
        take: impl FnMut(Incoming, &Responder) + Send + 'static,
        over: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let reader = Frames::new(stream.try_clone()?);
        let outbox = Arc::new(Outbox::new(stream.try_clone()?)?);
        let version = AtomicU16::new(Spoken::OURS.newest);
        let responder = Responder { open: Arc::new(Open { outbox: Arc::clone(&outbox), version }) };
        let writer = thread::Builder::new().name(format!("writer-{id}")).spawn(move || {
            outbox.write_what_waits();
            over();
        })?;
        // When this fails, its responder is dropped and the writer ends.
        thread::Builder::new()
            .name(format!("reader-{id}"))
            .spawn(move || read_all(reader, responder, take))?;
        Ok(Self { stream, writer })
    }

    /// Reads no more requests, and returns when the last response is written.
    pub fn finish(self) {
        close(&self.stream, Shutdown::Read);
        if self.writer.join().is_err() {
            tracing::error!("a thread that writes responses panicked");
        }
    }
}

fn read_all(
    mut requests: Frames,
    responder: Responder,
    mut take: impl FnMut(Incoming, &Responder),
) {
    loop {
        match read(&mut requests) {
            Ok(Some(Read::Request(incoming))) => take(incoming, &responder),
            Ok(Some(Read::Unknown { id, reason })) => {
                tracing::debug!(id, reason, "request is not of this version");
                let message = format!(
                    "this worker speaks protocol {} and cannot read the request: {reason}",
                    Spoken::OURS
                );
                let failure = Failure::new(FailureKind::Unsupported, message);
                responder.send(id, Reply::Failed(failure));
            }
            Ok(None) => return,
            Err(reason) => {
                tracing::warn!(%reason, "frame refused");
                let failure = Failure::new(FailureKind::BadFrame, chain(&reason));
                responder.send(0, Reply::Failed(failure));
                return;
            }
        }
    }
}

/// What a frame holds.
enum Read {
    Request(Incoming),
    /// A request that this version does not know, or not in this form. What comes after it may be read all the same.
    Unknown {
        id: u64,
        reason: String,
    },
}

fn read(requests: &mut Frames) -> Result<Option<Read>, WireError> {
    let Some(body) = requests.next(None)? else { return Ok(None) };
    match frame::decode(&body) {
        Ok(Request { id, call }) => {
            Ok(Some(Read::Request(Incoming { id, call, bytes: body.len() })))
        }
        Err(reason) => match frame::id(&body) {
            Some(id) => Ok(Some(Read::Unknown { id, reason: chain(&reason) })),
            None => Err(reason.into()),
        },
    }
}

/// A response as a frame; one that is too large becomes a refusal that says so.
fn encoded(response: Response) -> Result<Vec<u8>, FrameError> {
    frame::encode(&response).or_else(|reason| {
        let message = format!("response does not fit, ask for fewer texts: {}", chain(&reason));
        let reply = Reply::Failed(Failure::new(FailureKind::TooLarge, message));
        frame::encode(&Response { id: response.id, reply })
    })
}

fn close(stream: &UnixStream, how: Shutdown) {
    if let Err(reason) = stream.shutdown(how) {
        tracing::debug!(%reason, "connection was closed already");
    }
}
