//! Who may change what: advisory locks that the kernel drops when their holder dies.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

const POLL: Duration = Duration::from_millis(10);

/// A held lock. Dropping it, or dying, gives it back.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock is not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The lock file cannot be opened.
    #[error("opening lock {path}")]
    Open {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("lock {path} is held by another process; it was waited for {waited_ms} ms")]
    Held {
        /// File.
        path: PathBuf,
        /// How long.
        waited_ms: u64,
    },
}

impl Lock {
    /// Takes the lock at `path`, waiting for at most `wait_ms`.
    pub fn take(path: &Path, wait_ms: u64) -> Result<Self, LockError> {
        let open = |source| LockError::Open { path: path.to_owned(), source };
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(open)?;
        let mut waited_ms = 0;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(open(errno.into())),
            }
            if waited_ms >= wait_ms {
                return Err(LockError::Held { path: path.to_owned(), waited_ms });
            }
            thread::sleep(POLL);
            waited_ms += 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_refused_and_a_dropped_one_is_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::take(&path, 0).unwrap();
        assert!(matches!(Lock::take(&path, 30), Err(LockError::Held { .. })));
        drop(held);
        Lock::take(&path, 0).unwrap();
    }
}
