//! Frames on a blocking stream, under time-outs.

use std::{
    io::{self, Read as _, Write as _},
    ops::Range,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::worker::frame::{self, FrameError, HEADER_BYTES};

/// Longest that a frame may take to arrive once its first byte has.
pub const FRAME_WAIT: Duration = Duration::from_secs(10);
/// How much is asked for at once: memory is taken as bytes arrive, not as the header says.
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

/// A stream from which frames are read. What came of the next frame along with one is kept for it, so that a frame that
/// came whole costs one call of the kernel.
#[derive(Debug)]
pub struct Frames {
    stream: UnixStream,
    /// What is read at once.
    piece: Box<[u8]>,
    /// What of it was not used yet.
    unread: Range<usize>,
    /// The stream's time-out as it was set last.
    wait: Option<Duration>,
}

impl Frames {
    /// Those that come on `stream`, which has no time-out for reading yet.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, piece: vec![0; PIECE_BYTES].into(), unread: 0..0, wait: None }
    }

    /// The body of the next frame; none when the other side ended between frames. Waits `idle` for its first byte (for
    /// ever when none) and [`FRAME_WAIT`] for the rest.
    ///
    /// # Errors
    /// The stream failed, ended within a frame, or what came is not a frame.
    pub fn next(&mut self, idle: Option<Duration>) -> Result<Option<Vec<u8>>, WireError> {
        if self.unread.is_empty() && self.read(idle)? == 0 {
            return Ok(None);
        }
        let deadline = Deadline::after(FRAME_WAIT);
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header, &deadline, 0)?;
        let length = frame::body_len(header)?;
        let mut body = Vec::new();
        while body.len() < length {
            let had = body.len();
            body.resize(length.min(had + PIECE_BYTES), 0);
            let rest = body.get_mut(had..).unwrap_or_default();
            self.fill(rest, &deadline, HEADER_BYTES + had)?;
        }
        Ok(Some(body))
    }

    /// Fills `wanted`, of a frame of which `had` bytes came before.
    fn fill(
        &mut self,
        wanted: &mut [u8],
        deadline: &Deadline,
        had: usize,
    ) -> Result<(), WireError> {
        let mut filled = 0;
        while filled < wanted.len() {
            if self.unread.is_empty() {
                let left =
                    deadline.left().ok_or_else(|| reading(io::ErrorKind::TimedOut.into()))?;
                if self.read(Some(left))? == 0 {
                    return Err(WireError::Cut { bytes: had + filled });
                }
            }
            let unread = self.piece.get(self.unread.clone()).unwrap_or_default();
            let rest = wanted.get_mut(filled..).unwrap_or_default();
            let count = unread.len().min(rest.len());
            if let (Some(from), Some(to)) = (unread.get(..count), rest.get_mut(..count)) {
                to.copy_from_slice(from);
            }
            filled += count;
            self.unread.start += count;
        }
        Ok(())
    }

    /// Reads what is there, waiting at most `wait` for it, and says how much it was.
    fn read(&mut self, wait: Option<Duration>) -> Result<usize, WireError> {
        if self.wait != wait {
            self.stream.set_read_timeout(wait).map_err(reading)?;
            self.wait = wait;
        }
        loop {
            match self.stream.read(&mut self.piece) {
                Err(reason) if reason.kind() == io::ErrorKind::Interrupted => {}
                Err(reason) => return Err(reading(reason)),
                Ok(count) => {
                    self.unread = 0..count;
                    return Ok(count);
                }
            }
        }
    }
}

fn reading(source: io::Error) -> WireError {
    WireError::Stream { doing: "reading", source }
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
