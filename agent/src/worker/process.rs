//! `socle-agent worker`: takes the socket it was started by and serves the models of its slot until it is told to end.

use std::{io, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use engine::worker::serve::{self, ServeError, WorkerConfig};
use protocol::digest::Digest;
use sd_notify::NotifyState;

use crate::sockets::{PassedSockets, SocketError, WORKER};

/// Most threads that compute, however many processors there are.
const THREADS_MAX: usize = 8;
/// Longest pause between two words to the watchdog.
const FEED_EVERY: Duration = Duration::from_secs(5);

/// Why the worker did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No socket to listen on.
    #[error("taking over the worker's socket")]
    Socket(#[from] SocketError),
    /// No socket was passed.
    #[error(
        "no socket named `{WORKER}` was passed in: a worker is started by systemd (socle-worker@.socket) or by \
         `socle-agent run --single`"
    )]
    NoSocket,
    /// The watchdog.
    #[error("starting the thread that feeds the watchdog")]
    Watchdog(#[source] io::Error),
    /// The engine.
    #[error("serving the models of `{}`", slot_dir.display())]
    Serve {
        /// The slot.
        slot_dir: PathBuf,
        /// Why.
        source: ServeError,
    },
}

/// Serves the models in `slot_dir` on the socket among `passed`.
///
/// # Errors
/// There is no socket, or the engine cannot serve.
pub fn run(
    slot_dir: PathBuf,
    release: Option<Digest>,
    mut passed: PassedSockets,
) -> Result<(), WorkerError> {
    let listener = passed.unix(WORKER)?.ok_or(WorkerError::NoSocket)?;
    let threads = thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| {
        cores.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN))
    });
    feed_watchdog().map_err(WorkerError::Watchdog)?;
    tracing::info!(slot_dir = %slot_dir.display(), threads, "worker serves");
    let config = WorkerConfig { release, threads, ..WorkerConfig::new(slot_dir.clone(), listener) };
    serve::run(config).map_err(|source| WorkerError::Serve { slot_dir, source })
}

/// Tells the service manager, where it wants to know, that this process as a whole still runs. The engine itself sees a
/// compute thread that hangs; what it cannot see is that none of its threads runs any more.
fn feed_watchdog() -> io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let feed = move || {
        loop {
            if let Err(reason) = sd_notify::notify(&[NotifyState::Watchdog]) {
                tracing::warn!(%reason, "the watchdog is not fed");
            }
            thread::sleep(Duration::min(limit / 3, FEED_EVERY));
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(feed).map(drop)
}
