//! `socle-agent worker`: takes the socket it was started by and serves the models of its slot until it is told to end.

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use engine::worker::{
    policy::Policy,
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
/// What loaded models may take of memory together, in MiB; without it all models of the slot are loaded.
pub const MEMORY_VARIABLE: &str = "SOCLE_MODELS_MEMORY_MIB";
/// Models that stay loaded, with commas between them.
pub const PINNED_VARIABLE: &str = "SOCLE_PINNED_MODELS";

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
    /// Not a size.
    #[error("{MEMORY_VARIABLE} is `{value}`; give a number of MiB, or leave it out")]
    Memory {
        /// What it is.
        value: String,
    },
    /// The engine.
    #[error("serving the models of `{}`", slot_dir.display())]
    Serve {
        /// The slot.
        slot_dir: PathBuf,
        /// Why.
        source: ServeError,
    },
}

/// How the worker shares the machine: as always, but for what `variable` says under [`MEMORY_VARIABLE`] and
/// [`PINNED_VARIABLE`].
///
/// # Errors
/// A value that is none.
pub fn policy_from(variable: impl Fn(&str) -> Option<String>) -> Result<Policy, WorkerError> {
    let said = |name| variable(name).filter(|value| !value.is_empty());
    let memory_bytes = said(MEMORY_VARIABLE).map(|value| match value.parse::<u32>() {
        Ok(mib) if mib > 0 => Ok(u64::from(mib) << 20),
        Ok(_) | Err(_) => Err(WorkerError::Memory { value }),
    });
    let pinned = said(PINNED_VARIABLE).unwrap_or_default();
    let pinned = pinned.split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok(Policy {
        memory_bytes: memory_bytes.transpose()?,
        pinned: pinned.map(str::to_owned).collect(),
        ..Policy::default()
    })
}

/// Serves the models in `slot_dir` on the socket among `passed`. `release` is the one that the launcher verified there:
/// then a model file counts only if its content, as read, is what that release signs.
///
/// # Errors
/// There is no socket, the manifest is not the verified one, or the engine cannot serve.
pub fn run(
    slot_dir: PathBuf,
    release: Option<Digest>,
    policy: Policy,
    mut passed: PassedSockets,
) -> Result<(), WorkerError> {
    let listener = passed.unix(WORKER)?.ok_or(WorkerError::NoSocket)?;
    let threads = thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| {
        cores.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN))
    });
    feed_watchdog().map_err(WorkerError::Watchdog)?;
    tracing::info!(slot_dir = %slot_dir.display(), threads, "worker serves");
    let mut config =
        WorkerConfig { threads, policy, ..WorkerConfig::new(slot_dir.clone(), listener) };
    if let Some(release) = release {
        let manifest = manifest(&slot_dir, release)?;
        config.release = Some(release);
        config.policy.load_ms_max = config.policy.load_ms_max.min(manifest.policy.load_ms);
        config.signed = Some(signed(&manifest));
    }
    serve::run(config).map_err(|source| WorkerError::Serve { slot_dir, source })
}

/// The manifest of `release` in its slot. The launcher verified it and gave its digest, so it needs no other proof than
/// that.
fn manifest(slot_dir: &Path, release: Digest) -> Result<Manifest, WorkerError> {
    let path = SlotDir::new(slot_dir).manifest();
    let bytes = RealDisk
        .read(&path, DOCUMENT_BYTES_MAX as u64)
        .map_err(|source| WorkerError::Manifest { path: path.clone(), source })?;
    let found = Digest::of(&bytes);
    if found != release {
        return Err(WorkerError::OtherManifest { path, found, verified: release });
    }
    Manifest::parse(&bytes).map_err(|source| WorkerError::Content(release, source))
}

/// What a release signs of its models.
fn signed(manifest: &Manifest) -> SignedPackages {
    let mut signed = SignedPackages::new();
    for file in &manifest.files {
        if let Some((package, name)) =
            file.path.strip_prefix("models/").and_then(|rest| rest.split_once('/'))
        {
            signed.entry(package.to_owned()).or_default().insert(name.to_owned(), file.sha256);
        }
    }
    signed
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_bounds_memory_and_pins_models() {
        let policy = |memory: &str, pinned: &str| {
            policy_from(|name| match name {
                MEMORY_VARIABLE => Some(memory.to_owned()),
                PINNED_VARIABLE => Some(pinned.to_owned()),
                _ => None,
            })
        };
        let said = policy("512", "faq, files@2,").unwrap();
        assert_eq!(said.memory_bytes, Some(512 << 20));
        assert_eq!(said.pinned, ["faq", "files@2"]);
        assert_eq!(policy("", "").unwrap(), Policy::default());
        for wrong in ["0", "much", "-1"] {
            let refused = policy(wrong, "").unwrap_err().to_string();
            assert!(refused.contains("SOCLE_MODELS_MEMORY_MIB"), "{refused}");
        }
    }
}
