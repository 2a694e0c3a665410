//! How long to wait before a child that ended is started again. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
/// A child that ran this long is thought well, and waits shortly again.
const WELL: Duration = Duration::from_secs(10);

/// The pauses of one kind of child: 100 ms, doubled with every short life, at most 1 s: a worker is to be back within 2.
#[derive(Clone, Debug)]
pub struct BackOff {
    next: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl BackOff {
    /// The pause after a child that lived for `lived`.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= WELL {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_make_longer_pauses_until_one_lives_well() {
        let mut back_off = BackOff::default();
        let pauses =
            [0, 1, 0, 9, 0, 0, 11, 0].map(|s| back_off.after(Duration::from_secs(s)).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 100, 200]);
    }
}
