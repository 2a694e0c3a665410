//! A bounded queue of work, and the threads that do it.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::sync_channel},
    thread::{self, JoinHandle},
};

use crate::{
    pulse::{self, Pulse},
    worker::hang::{Watched, kernel_id},
};

/// One piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full.
    Full,
    /// The threads are ending.
    Closed,
}

/// Threads that take jobs from one queue.
#[derive(Debug)]
pub struct Jobs {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    watched: Vec<Watched>,
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    waiting_max: usize,
}

struct State {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} of {} waiting)", self.lock().waiting.len(), self.waiting_max)
    }
}

impl Jobs {
    /// Starts `threads` threads; at most `waiting_max` jobs wait for one of them.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(threads: NonZeroUsize, waiting_max: usize) -> io::Result<Self> {
        let state = Mutex::new(State { waiting: VecDeque::new(), closed: false });
        let mut jobs = Self {
            queue: Arc::new(Queue { state, changed: Condvar::new(), waiting_max }),
            threads: Mutex::new(Vec::new()),
            watched: Vec::new(),
        };
        for at in 0..threads.get() {
            let queue = Arc::clone(&jobs.queue);
            let pulse = Arc::new(Pulse::default());
            let own = Arc::clone(&pulse);
            let (named, name) = sync_channel(1);
            let started = thread::Builder::new()
                .name(format!("compute-{at}"))
                .stack_size(8 * 1024 * 1024)
                .spawn(move || {
                    pulse::listen(own);
                    if named.send(kernel_id()).is_ok() {
                        queue.work();
                    }
                });
            match started {
                Ok(thread) => {
                    jobs.threads().push(thread);
                    match name.recv() {
                        Ok(Some(thread)) => jobs.watched.push(Watched { pulse, thread }),
                        Ok(None) | Err(_) => {
                            tracing::warn!(
                                at,
                                "/proc does not say the thread's id: a hang of it is not seen"
                            );
                        }
                    }
                }
                Err(reason) => {
                    jobs.close();
                    return Err(reason);
                }
            }
        }
        Ok(jobs)
    }

    /// By what it is seen whether a thread hangs.
    pub fn watched(&self) -> Vec<Watched> {
        self.watched.clone()
    }

    /// Queues `job`, or refuses it at once.
    ///
    /// # Errors
    /// The queue is full, or closed.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.queue.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.queue.waiting_max {
            return Err(Refused::Full);
        }
        state.waiting.push_back(job);
        drop(state);
        self.queue.changed.notify_one();
        Ok(())
    }

    /// Takes no more jobs, does those that wait, and returns when the last one is done.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
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

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            pulse::begin();
            let done = catch_unwind(AssertUnwindSafe(job));
            pulse::end();
            if done.is_err() {
                tracing::error!("a job panicked; its caller gets no response");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    #[test]
    fn a_full_queue_refuses_and_a_closing_one_finishes() {
        let jobs = Jobs::start(ONE, 2).unwrap();
        let (started, is_started) = sync_channel(1);
        let (release, released) = sync_channel::<()>(1);
        let (done, is_done) = sync_channel(8);
        jobs.submit(Box::new(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        }))
        .unwrap();
        is_started.recv().unwrap();
        for at in 0..2 {
            let done = done.clone();
            jobs.submit(Box::new(move || done.send(at).unwrap())).unwrap();
        }
        assert_eq!(jobs.submit(Box::new(|| ())), Err(Refused::Full));
        release.send(()).unwrap();
        jobs.close();
        assert_eq!((is_done.recv(), is_done.recv()), (Ok(0), Ok(1)));
        assert_eq!(jobs.submit(Box::new(|| ())), Err(Refused::Closed));
    }

    #[test]
    fn a_panicking_job_leaves_its_thread_alive() {
        let jobs = Jobs::start(ONE, 2).unwrap();
        let (done, is_done) = sync_channel(1);
        jobs.submit(Box::new(|| panic!("made by a test"))).unwrap();
        jobs.submit(Box::new(move || done.send(1).unwrap())).unwrap();
        assert_eq!(is_done.recv(), Ok(1));
        jobs.close();
    }
}
