//! Frames on a blocking stream, under time-outs.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::worker::frame::{self, FrameError, HEADER_BYTES};

/// Longest that a frame may take to arrive once its first byte has.
pub const FRAME_WAIT: Duration = Duration::from_secs(10);
/// How much of a body is asked for at once: memory is taken as bytes arrive, not as the header says.
const PIECE_BYTES: usize = 64 * 1024;

/// Why no frame was read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream failed, or the frame took too long.
    #[error("{doing} a frame")]
    Stream {
        /// Reading or writing.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The other side ended in the middle of a frame.
    #[error("stream ended after {bytes} bytes of a frame")]
    Cut {
        /// How many had come.
        bytes: usize,
    },
    /// Not a frame.
    #[error("cutting a message into frames")]
    Frame(#[from] FrameError),
}

/// The body of the next frame; none when the other side ended between frames. Waits `idle` for its first byte (for ever
/// when none) and [`FRAME_WAIT`] for the rest.
///
/// # Errors
/// The stream failed, ended within a frame, or what came is not a frame.
pub fn read_body(
    stream: &mut UnixStream,
    idle: Option<Duration>,
) -> Result<Option<Vec<u8>>, WireError> {
    let failed = |source| WireError::Stream { doing: "reading", source };
    stream.set_read_timeout(idle).map_err(failed)?;
    let mut header = [0; HEADER_BYTES];
    let (first, rest) = header.split_at_mut(1);
    if read_some(stream, first).map_err(failed)? == 0 {
        return Ok(None);
    }
    let mut deadline = Deadline::after(FRAME_WAIT);
    fill(stream, rest, &mut deadline, 1)?;
    let length = frame::body_len(header)?;
    let mut body = Vec::new();
    while body.len() < length {
        let had = body.len();
        body.resize(length.min(had + PIECE_BYTES), 0);
        let piece = body.get_mut(had..).unwrap_or_default();
        fill(stream, piece, &mut deadline, HEADER_BYTES + had)?;
    }
    Ok(Some(body))
}

/// Writes `message` as one frame.
///
/// # Errors
/// It does not fit into a frame, or the stream failed.
pub fn write<T: Serialize>(stream: &mut UnixStream, message: &T) -> Result<(), WireError> {
    let bytes = frame::encode(message)?;
    let failed = |source| WireError::Stream { doing: "writing", source };
    stream.set_write_timeout(Some(FRAME_WAIT)).map_err(failed)?;
    stream.write_all(&bytes).map_err(failed)
}

struct Deadline {
    start: Instant,
    wait: Duration,
}

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "the edge where a stream's time-out is kept")]
    fn after(wait: Duration) -> Self {
        Self { start: Instant::now(), wait }
    }

    fn left(&self) -> Option<Duration> {
        self.wait.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero())
    }
}

fn fill(
    stream: &mut UnixStream,
    mut piece: &mut [u8],
    deadline: &mut Deadline,
    had: usize,
) -> Result<(), WireError> {
    let failed = |source| WireError::Stream { doing: "reading", source };
    let wanted = piece.len();
    while !piece.is_empty() {
        let left = deadline.left().ok_or_else(|| failed(io::ErrorKind::TimedOut.into()))?;
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        match read_some(stream, piece).map_err(failed)? {
            0 => return Err(WireError::Cut { bytes: had + wanted - piece.len() }),
            got => piece = piece.get_mut(got..).unwrap_or_default(),
        }
    }
    Ok(())
}

fn read_some(stream: &mut UnixStream, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(piece) {
            Err(reason) if reason.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
