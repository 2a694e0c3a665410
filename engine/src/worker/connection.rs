//! One connection: a thread that reads requests, and one that writes responses, so that a client that is slow to read
//! its responses holds up nobody else.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use crate::{
    cause::chain,
    worker::{
        frame,
        message::{Call, Failure, FailureKind, Reply, Request, Response},
        wire::{self, WireError},
    },
};

/// Most responses that wait to be written; a client that lets more come is hung up on.
const RESPONSES_MAX: usize = 2_048;

/// Where the responses of a connection go.
#[derive(Debug, Clone)]
pub struct Responder {
    responses: SyncSender<Response>,
    stream: Arc<UnixStream>,
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
        match self.responses.try_send(Response { id, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("a client does not read its responses; hanging up");
                close(&self.stream, Shutdown::Both);
            }
            Err(TrySendError::Disconnected(_)) => {
                tracing::debug!("client went away before its response");
            }
        }
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
        let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
        let (responses, to_write) = sync_channel(RESPONSES_MAX);
        let responder = Responder { responses, stream: Arc::new(stream.try_clone()?) };
        let writer = thread::Builder::new().name(format!("writer-{id}")).spawn(move || {
            write_all(writer, &to_write);
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
    mut stream: UnixStream,
    responder: Responder,
    mut take: impl FnMut(Incoming, &Responder),
) {
    loop {
        match read(&mut stream) {
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

fn read(stream: &mut UnixStream) -> Result<Option<Incoming>, WireError> {
    let Some(body) = wire::read_body(stream, None)? else { return Ok(None) };
    let Request { id, call } = frame::decode(&body)?;
    Ok(Some(Incoming { id, call, bytes: body.len() }))
}

/// Until nobody can respond any more: the reader has ended, and every request is answered.
fn write_all(mut stream: UnixStream, responses: &Receiver<Response>) {
    for response in responses {
        if let Err(reason) = write(&mut stream, &response) {
            tracing::debug!(%reason, "client went away before its response");
            break;
        }
    }
    close(&stream, Shutdown::Both);
}

fn write(stream: &mut UnixStream, response: &Response) -> Result<(), WireError> {
    match wire::write(stream, response) {
        Err(WireError::Frame(reason)) => {
            let message = format!("response does not fit, ask for fewer texts: {}", chain(&reason));
            let reply = Reply::Failed(Failure::new(FailureKind::TooLarge, message));
            wire::write(stream, &Response { id: response.id, reply })
        }
        written => written,
    }
}

fn close(stream: &UnixStream, how: Shutdown) {
    if let Err(reason) = stream.shutdown(how) {
        tracing::debug!(%reason, "connection was closed already");
    }
}
