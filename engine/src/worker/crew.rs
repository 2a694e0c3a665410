//! Threads of one kind that say whether they get on, and are waited for in the end.

use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::sync_channel},
    thread::{self, JoinHandle},
};

use crate::{
    pulse::{self, Pulse},
    worker::hang::{Watched, kernel_id},
};

/// tract's recursion on deep graphs needs more than the usual 2 MiB.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Threads of one kind.
#[derive(Debug)]
pub struct Crew {
    threads: Mutex<Vec<JoinHandle<()>>>,
    watched: Vec<Watched>,
}

impl Crew {
    /// Starts `threads` threads that each do `work` once.
    ///
    /// # Errors
    /// One cannot be started; `work` has to be ended for those that were.
    pub fn start(
        name: &str,
        threads: NonZeroUsize,
        work: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let work = Arc::new(work);
        let mut crew = Self { threads: Mutex::new(Vec::new()), watched: Vec::new() };
        for at in 0..threads.get() {
            let pulse = Arc::new(Pulse::default());
            let (own, work) = (Arc::clone(&pulse), Arc::clone(&work));
            let (named, kernel_name) = sync_channel(1);
            let thread = thread::Builder::new()
                .name(format!("{name}-{at}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    pulse::listen(own);
                    if named.send(kernel_id()).is_ok() {
                        work();
                    }
                })?;
            crew.threads().push(thread);
            match kernel_name.recv() {
                Ok(Some(thread)) => crew.watched.push(Watched { pulse, thread }),
                Ok(None) | Err(_) => {
                    tracing::warn!(
                        name,
                        at,
                        "/proc does not say the thread's id: a hang of it is not seen"
                    );
                }
            }
        }
        Ok(crew)
    }

    /// By what it is seen whether a thread hangs.
    pub fn watched(&self) -> Vec<Watched> {
        self.watched.clone()
    }

    /// Returns when the last one has ended; somebody else tells them to.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a compute thread panicked");
            }
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
