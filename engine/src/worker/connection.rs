//! One connection: a thread that reads requests. Responses go out by [`crate::worker::outbox`].

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crate::{
    cause::chain,
    worker::{
        frame::{self, FrameError},
        message::{Call, Failure, FailureKind, Reply, Request, Response},
        outbox::Outbox,
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
    /// Gives `reply` to the request `id`. Never waits.
    pub fn send(&self, id: u64, reply: Reply) {
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
        let responder = Responder { open: Arc::new(Open { outbox: Arc::clone(&outbox) }) };
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
            Ok(Some(incoming)) => take(incoming, &responder),
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

fn read(requests: &mut Frames) -> Result<Option<Incoming>, WireError> {
    let Some(body) = requests.next(None)? else { return Ok(None) };
    let Request { id, call } = frame::decode(&body)?;
    Ok(Some(Incoming { id, call, bytes: body.len() }))
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
