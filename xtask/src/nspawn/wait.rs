//! Waiting for a thing to become so: looked for again and again, and not for ever.

use std::time::{Duration, Instant};

/// Looks every `pause` until `look` gives something, for at most `longest`.
pub(crate) fn until<T>(
    longest: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let start = now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > longest {
            return None;
        }
        std::thread::sleep(pause);
    }
}

/// The time, for durations that are shown and waits that end.
#[expect(clippy::disallowed_methods, reason = "an edge: durations are shown, waits are bounded")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::until;

    #[test]
    fn what_never_becomes_so_is_given_up() {
        let mut looks = 0;
        let found = until(Duration::from_millis(5), Duration::from_millis(1), || {
            looks += 1;
            (looks == 2).then_some(looks)
        });
        assert_eq!(found, Some(2));
        assert_eq!(until(Duration::ZERO, Duration::ZERO, || None::<u8>), None);
    }
}
