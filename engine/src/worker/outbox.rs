//! Responses on their way to a client: written by whoever has one while the client reads, else by a thread that waits for
//! it, so that a client that is slow to read holds up nobody else.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

use crate::worker::wire::FRAME_WAIT;

/// Most responses that wait to be written; a client that lets more come is hung up on.
const FRAMES_MAX: usize = 2_048;

/// What goes to one client.
#[derive(Debug)]
pub struct Outbox {
    stream: UnixStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    /// Somebody may still respond.
    Open(Waiting),
    /// Nobody will; what waits is still written.
    Closing(Waiting),
    /// The client is gone, or nothing is left to write.
    Over,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Frames, the first perhaps in part.
    frames: VecDeque<Vec<u8>>,
    /// Whether the thread that waits has another one in hand.
    writing: bool,
}

impl Outbox {
    /// An empty one.
    ///
    /// # Errors
    /// The stream takes no time-out.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(FRAME_WAIT))?;
        let state = Mutex::new(State::Open(Waiting::default()));
        Ok(Self { stream, state, changed: Condvar::new() })
    }

    /// Sends `frame` after those before it. Never waits.
    pub fn send(&self, frame: Vec<u8>) {
        let mut state = self.lock();
        let waiting = match &mut *state {
            State::Open(waiting) | State::Closing(waiting) => waiting,
            State::Over => {
                tracing::debug!("client went away before its response");
                return;
            }
        };
        let rest = if waiting.is_empty() { self.send_now(frame) } else { Ok(Some(frame)) };
        match rest {
            Ok(None) => {}
            Ok(Some(rest)) if waiting.frames.len() < FRAMES_MAX => {
                waiting.frames.push_back(rest);
                drop(state);
                self.changed.notify_one();
            }
            Ok(Some(_)) => {
                tracing::warn!("a client does not read its responses; hanging up");
                self.end(state);
            }
            Err(reason) => {
                tracing::debug!(%reason, "client went away before its response");
                self.end(state);
            }
        }
    }

    /// Nobody responds any more.
    pub fn close(&self) {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Over) {
            State::Open(waiting) | State::Closing(waiting) => State::Closing(waiting),
            State::Over => State::Over,
        };
        drop(state);
        self.changed.notify_one();
    }

    /// Writes what the client did not take at once, until nobody can respond any more and everything is written, or the
    /// client is gone; then hangs up.
    pub fn write_what_waits(&self) {
        while let Some(frame) = self.next() {
            let written = (&self.stream).write_all(&frame);
            let mut state = self.lock();
            if let Err(reason) = written {
                tracing::debug!(%reason, "client went away before its response");
                self.end(state);
                return;
            }
            match &mut *state {
                State::Open(waiting) | State::Closing(waiting) => waiting.writing = false,
                State::Over => {}
            }
        }
        self.end(self.lock());
    }

    /// The next frame that waits; none when there will be none.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            let (waiting, closing) = match &mut *state {
                State::Open(waiting) => (waiting, false),
                State::Closing(waiting) => (waiting, true),
                State::Over => return None,
            };
            if let Some(frame) = waiting.frames.pop_front() {
                waiting.writing = true;
                return Some(frame);
            }
            if closing {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is left of `frame` once the client took as much as it takes without being waited for.
    fn send_now(&self, mut frame: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match send(&self.stream, &frame, flags) {
                Ok(count) if count >= frame.len() => return Ok(None),
                Ok(count) => drop(frame.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Some(frame)),
                Err(reason) => return Err(reason.into()),
            }
        }
    }

    fn end(&self, mut state: MutexGuard<'_, State>) {
        *state = State::Over;
        drop(state);
        self.changed.notify_one();
        if let Err(reason) = self.stream.shutdown(Shutdown::Both) {
            tracing::debug!(%reason, "connection was closed already");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether a frame may go out now without overtaking another one.
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && !self.writing
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, sync::Arc, thread};

    use super::*;

    /// More than a socket takes at once.
    const LARGE: usize = 4 << 20;

    fn outbox() -> (Arc<Outbox>, UnixStream, thread::JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(ours).unwrap());
        let there = Arc::clone(&outbox);
        let writer = thread::spawn(move || there.write_what_waits());
        (outbox, theirs, writer)
    }

    #[test]
    fn frames_arrive_whole_and_in_order_however_slowly_they_are_read() {
        let (outbox, mut client, writer) = outbox();
        let frames = [vec![1; 3], vec![2; LARGE], vec![3; 5], vec![4; LARGE], vec![5; 1]];
        // Nobody reads yet, and none of these waits.
        frames.iter().for_each(|frame| outbox.send(frame.clone()));
        outbox.close();
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == frames.concat(), "{} bytes", read.len());
    }

    #[test]
    fn a_client_that_went_away_ends_it() {
        let (outbox, client, writer) = outbox();
        outbox.send(vec![1; LARGE]);
        drop(client);
        writer.join().unwrap();
        outbox.send(vec![2; 3]);
        outbox.close();
    }

    #[test]
    fn a_client_that_never_reads_is_hung_up_on() {
        let (outbox, mut client, writer) = outbox();
        outbox.send(vec![0; LARGE]);
        (0..=FRAMES_MAX + 1).for_each(|_| outbox.send(vec![1]));
        writer.join().unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert!(read.len() < LARGE, "{} bytes", read.len());
    }
}
