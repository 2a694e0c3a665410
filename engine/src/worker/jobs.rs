//! A bounded queue of work, and the threads that do it.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    pulse,
    worker::{crew::Crew, hang::Watched},
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
    crew: Crew,
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
    /// Starts `threads` threads called `name`; at most `waiting_max` jobs wait for one of them.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(name: &str, threads: NonZeroUsize, waiting_max: usize) -> io::Result<Self> {
        let state = Mutex::new(State { waiting: VecDeque::new(), closed: false });
        let queue = Arc::new(Queue { state, changed: Condvar::new(), waiting_max });
        let there = Arc::clone(&queue);
        match Crew::start(name, threads, move || there.work()) {
            Ok(crew) => Ok(Self { queue, crew }),
            Err(reason) => {
                queue.close();
                Err(reason)
            }
        }
    }

    /// By what it is seen whether a thread hangs.
    pub fn watched(&self) -> Vec<Watched> {
        self.crew.watched()
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
        self.queue.close();
        self.crew.join();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
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
        let jobs = Jobs::start("compute", ONE, 2).unwrap();
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
        let jobs = Jobs::start("compute", ONE, 2).unwrap();
        let (done, is_done) = sync_channel(1);
        jobs.submit(Box::new(|| panic!("made by a test"))).unwrap();
        jobs.submit(Box::new(move || done.send(1).unwrap())).unwrap();
        assert_eq!(is_done.recv(), Ok(1));
        jobs.close();
    }
}
