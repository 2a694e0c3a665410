//! Running what may never come back.
//!
//! A graphics driver can hang inside a call that nothing can interrupt. The call is made on a
//! thread of its own, and that thread is left behind when the time is up: the caller goes on
//! without a GPU instead of hanging with it. Call this once per start and not per request, since
//! every call that hangs keeps its thread.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Why bounded work gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The time was up; the thread is left behind.
    #[error(
        "{doing} did not return within {} ms: the graphics driver hangs; restart the machine or \
         update the driver, inference goes on without it",
        wait.as_millis()
    )]
    Stuck {
        /// What was being done.
        doing: &'static str,
        /// How long was waited.
        wait: Duration,
    },
    /// The work panicked.
    #[error(
        "{doing} panicked: the graphics driver answered something unheard of; update the driver"
    )]
    Panicked {
        /// What was being done.
        doing: &'static str,
    },
    /// The system gave no thread to run it on.
    #[error("starting a thread for {doing}")]
    NoThread {
        /// What was to be done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs `work` on a thread of its own and waits at most `wait` for its answer.
///
/// # Errors
/// [`Unanswered`] when it hangs, panics or cannot be started.
pub fn within<T: Send + 'static>(
    wait: Duration,
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let (answer, answered) = sync_channel(1);
    thread::Builder::new()
        .name("socle-gpu".into())
        // Too late an answer finds nobody listening and is dropped, which is what it is for.
        .spawn(move || drop(answer.send(work())))
        .map_err(|source| Unanswered::NoThread { doing, source })?;
    answered.recv_timeout(wait).map_err(|why| match why {
        RecvTimeoutError::Timeout => Unanswered::Stuck { doing, wait },
        RecvTimeoutError::Disconnected => Unanswered::Panicked { doing },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back() {
        let answer = within(Duration::from_secs(60), "adding", || 1 + 1);
        assert_eq!(answer.unwrap(), 2);
    }

    #[test]
    fn a_hang_is_given_up_on() {
        let (keep, hold) = sync_channel::<()>(1);
        let stuck = within(Duration::from_millis(20), "hanging", move || hold.recv());
        assert!(matches!(stuck, Err(Unanswered::Stuck { doing: "hanging", .. })), "{stuck:?}");
        drop(keep);
    }

    #[test]
    fn a_panic_is_a_value() {
        let dead = within(Duration::from_secs(60), "panicking", || {
            assert!(Duration::ZERO > Duration::MAX, "on purpose");
        });
        assert!(matches!(dead, Err(Unanswered::Panicked { doing: "panicking" })), "{dead:?}");
    }
}
