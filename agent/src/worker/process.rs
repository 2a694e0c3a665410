//! `socle-agent worker`: takes the socket it was started by and serves the models of its slot until it is told to end.

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use engine::worker::{
    roster::SignedPackages,
    serve::{self, ServeError, WorkerConfig},
};
use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    digest::Digest,
    manifest::{Manifest, ManifestError},
};
use sd_notify::NotifyState;
use slots::{
    disk::{Disk as _, RealDisk},
    layout::SlotDir,
};

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
    /// The manifest that says which models are genuine.
    #[error("reading `{}`; let the release be installed again", path.display())]
    Manifest {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest is not the one that the launcher verified.
    #[error("`{}` has the SHA-256 {found}, the launcher verified {verified}; let the release be installed again", path.display())]
    OtherManifest {
        /// File.
        path: PathBuf,
        /// What is there.
        found: Digest,
        /// What was verified.
        verified: Digest,
    },
    /// The manifest is verified and wrong in itself.
    #[error("reading the manifest of release {}", .0.short())]
    Content(Digest, #[source] ManifestError),
    /// The engine.
    #[error("serving the models of `{}`", slot_dir.display())]
    Serve {
        /// The slot.
        slot_dir: PathBuf,
        /// Why.
        source: ServeError,
    },
}

/// Serves the models in `slot_dir` on the socket among `passed`. `release` is the one that the launcher verified there:
/// then a model file counts only if its content, as read, is what that release signs.
///
/// # Errors
/// There is no socket, the manifest is not the verified one, or the engine cannot serve.
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
    let signed = release.map(|release| signed(&slot_dir, release)).transpose()?;
    let config =
        WorkerConfig { release, signed, threads, ..WorkerConfig::new(slot_dir.clone(), listener) };
    serve::run(config).map_err(|source| WorkerError::Serve { slot_dir, source })
}

/// What `release` signs of the models in its slot. The launcher verified it and gave its digest, so the manifest needs no
/// other proof than that.
fn signed(slot_dir: &Path, release: Digest) -> Result<SignedPackages, WorkerError> {
    let path = SlotDir::new(slot_dir).manifest();
    let bytes = RealDisk
        .read(&path, DOCUMENT_BYTES_MAX as u64)
        .map_err(|source| WorkerError::Manifest { path: path.clone(), source })?;
    let found = Digest::of(&bytes);
    if found != release {
        return Err(WorkerError::OtherManifest { path, found, verified: release });
    }
    let manifest =
        Manifest::parse(&bytes).map_err(|source| WorkerError::Content(release, source))?;
    let mut signed = SignedPackages::new();
    for file in &manifest.files {
        if let Some((package, name)) =
            file.path.strip_prefix("models/").and_then(|rest| rest.split_once('/'))
        {
            signed.entry(package.to_owned()).or_default().insert(name.to_owned(), file.sha256);
        }
    }
    Ok(signed)
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
