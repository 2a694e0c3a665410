//! Waiting for something that another process does, with an end.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// It did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {seconds} s in vain for {what}; last seen: {last}")]
pub struct Overdue {
    what: String,
    seconds: u64,
    last: String,
}

/// What a look found.
#[derive(Debug)]
pub enum Look<T> {
    /// It is there.
    Done(T),
    /// Not yet; what there is instead, for the message.
    NotYet(String),
}

/// Looks until `look` finds it, at most `limit` long.
pub fn until<T, E>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Look<T>, E>,
) -> Result<T, E>
where
    E: From<Overdue>,
{
    let start = now();
    loop {
        match look()? {
            Look::Done(found) => return Ok(found),
            Look::NotYet(last) if start.elapsed() >= limit => {
                return Err(
                    Overdue { what: what.to_owned(), seconds: limit.as_secs(), last }.into()
                );
            }
            Look::NotYet(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// The demo's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the demo measures what it shows; nothing is decided by it"
)]
pub fn now() -> Instant {
    Instant::now()
}
