//! When a worker ends, and how long it takes until one is back: by a connection of its own to the worker's socket, on
//! which it sees the end at once.

use std::{
    io::{ErrorKind, Read as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use engine::worker::{
    frame,
    message::{Call, Reply, Request, Response, WorkerInfo},
    wire::{self, Frames},
};
use protocol::digest::Digest;

use crate::crash::bench::instant;

/// Longest wait for a greeting.
const GREETING_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(10);

/// Says whether the worker is still meant to run: one that is told to end has not ended by itself.
pub type Wanted = Box<dyn Fn() -> bool + Send>;

/// What was seen of one slot's worker.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often it ended.
    pub ends: u64,
    /// How long each time until one greeted again.
    pub back: Vec<Duration>,
}

/// The watcher, on a thread of its own.
#[derive(Debug)]
pub struct WorkerWatch {
    stop: Arc<AtomicBool>,
    greeted: Receiver<()>,
    thread: Option<JoinHandle<anyhow::Result<Seen>>>,
}

impl WorkerWatch {
    /// Watches the worker at `socket` that serves `release`, for as long as it is `wanted`. Connecting starts one where
    /// none runs.
    pub fn start(socket: &Path, release: Digest, wanted: Wanted) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_there, socket) = (Arc::clone(&stop), socket.to_owned());
        let (first, greeted) = sync_channel(1);
        let work = move || watch(&socket, release, &wanted, &stop_there, &first);
        let thread = thread::Builder::new().name("worker-watch".into()).spawn(work)?;
        Ok(Self { stop, greeted, thread: Some(thread) })
    }

    /// Waits until a worker has greeted: from then on its end is seen.
    pub fn watches(&self) -> anyhow::Result<()> {
        self.greeted.recv_timeout(GREETING_MAX).context("no worker greets")
    }

    /// What was seen. Where the worker is gone just now, waits until one is back.
    pub fn stop(mut self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().context("no thread")?.join() {
            Ok(seen) => seen,
            Err(_) => bail!("the worker's watcher panicked"),
        }
    }
}

impl Drop for WorkerWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(
    socket: &Path,
    release: Digest,
    wanted: &Wanted,
    stop: &AtomicBool,
    first: &SyncSender<()>,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut ended: Option<Instant> = None;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        match ended {
            None if stopping => return Ok(seen),
            None | Some(_) if !wanted() => return Ok(seen),
            Some(at) if at.elapsed() > GREETING_MAX => {
                bail!("no worker was back at {} within {GREETING_MAX:?}", socket.display())
            }
            None | Some(_) => {}
        }
        let greeted = greet(socket);
        let Some((stream, info)) = greeted else {
            thread::sleep(LOOK);
            continue;
        };
        if info.release != Some(release) {
            // The last one's, which its gateway tells to end.
            drop(stream);
            thread::sleep(LOOK);
            continue;
        }
        // An error means that it was said before.
        let _said_before = first.try_send(()).is_err();
        if let Some(at) = ended.take() {
            seen.back.push(at.elapsed());
        }
        if !wait_for_end(stream, stop) {
            return Ok(seen);
        }
        if !wanted() {
            return Ok(seen);
        }
        seen.ends += 1;
        ended = Some(instant());
    }
}

fn greet(socket: &Path) -> Option<(UnixStream, WorkerInfo)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let hello = Request { id: 1, call: Call::hello() };
    wire::write(&mut stream, &hello).ok()?;
    let body = Frames::new(stream.try_clone().ok()?).next(Some(GREETING_MAX)).ok()??;
    let response: Response = frame::decode(&body).ok()?;
    let Reply::Hello(info) = response.reply else { return None };
    Some((stream, info))
}

/// Whether the other end closed, rather than that it is enough.
fn wait_for_end(mut stream: UnixStream, stop: &AtomicBool) -> bool {
    if stream.set_read_timeout(Some(LOOK)).is_err() {
        return true;
    }
    let mut nothing = [0; 1];
    loop {
        match stream.read(&mut nothing) {
            Err(reason) if matches!(reason.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return false;
                }
            }
            Ok(_) | Err(_) => return true,
        }
    }
}
