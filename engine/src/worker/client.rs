//! A blocking client of one worker: one call at a time. The gateway has its own async one over [`crate::worker::frame`].

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use crate::worker::{
    failure::Failure,
    frame::{self, FrameError},
    message::{Call, Reply, Request, Response},
    wire::{self, Frames, WireError},
};

/// A connection to a worker.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    responses: Frames,
    wait: Duration,
    last_id: u64,
}

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("connecting to the worker")]
    Connect(#[source] io::Error),
    /// The stream failed.
    #[error("talking to the worker")]
    Wire(#[from] WireError),
    /// The worker ended.
    #[error("worker ended the connection without a response")]
    Ended,
    /// Not a response.
    #[error("reading the worker's response")]
    Response(#[from] FrameError),
    /// A response to something else.
    #[error("worker responded to call {got}, {expected} was asked")]
    Mismatch {
        /// The id that came.
        got: u64,
        /// The id that was sent.
        expected: u64,
    },
    /// The worker says why it did not do it.
    #[error("worker refused: {} ({:?})", .0.message, .0.kind)]
    Failed(Failure),
}

impl Client {
    /// Connects to the worker that listens at `path`; every call waits at most `wait` for its response to begin.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect(path: &Path, wait: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(ClientError::Connect)?;
        let responses = Frames::new(stream.try_clone().map_err(ClientError::Connect)?);
        Ok(Self { stream, responses, wait, last_id: 0 })
    }

    /// The reply to `call`; [`Reply::Failed`] becomes an error.
    ///
    /// # Errors
    /// The worker refused, ended, or did not respond in time.
    pub fn call(&mut self, call: Call) -> Result<Reply, ClientError> {
        self.last_id += 1;
        let written = wire::write(&mut self.stream, &Request { id: self.last_id, call });
        if let Err(error) = written {
            // A worker that takes no more connections says so and hangs up, perhaps before the request is out: what it
            // said is the better reason, and is still there to be read.
            return Err(self.refusal().unwrap_or_else(|| error.into()));
        }
        let body = self.responses.next(Some(self.wait))?.ok_or(ClientError::Ended)?;
        let response: Response = frame::decode(&body)?;
        if let Reply::Failed(failure) = response.reply {
            return Err(ClientError::Failed(failure));
        }
        if response.id == self.last_id {
            Ok(response.reply)
        } else {
            Err(ClientError::Mismatch { got: response.id, expected: self.last_id })
        }
    }

    /// What the worker said before it hung up, if it said anything.
    fn refusal(&mut self) -> Option<ClientError> {
        let body = self.responses.next(Some(self.wait)).ok()??;
        let Reply::Failed(failure) = frame::decode::<Response>(&body).ok()?.reply else {
            return None;
        };
        Some(ClientError::Failed(failure))
    }
}
