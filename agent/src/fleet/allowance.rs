//! How often a thing that anybody can cause may be told: some times at once, then one in a while. Pure.

use std::time::Duration;

/// What may still be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    at_once: u32,
    every: Duration,
    left: u32,
    /// When the last one was given back, on the caller's clock.
    counted_from: Duration,
    /// Told to nobody since the last one that was.
    untold: u64,
}

impl Allowance {
    /// `at_once` times in a row, and one more after each `every`.
    pub const fn new(at_once: u32, every: Duration) -> Self {
        Self { at_once, every, left: at_once, counted_from: Duration::ZERO, untold: 0 }
    }

    /// Whether one more may be told at `now`, a clock that never goes back; if so, how many were not told since the last.
    pub fn take(&mut self, now: Duration) -> Option<u64> {
        while self.left < self.at_once && now.saturating_sub(self.counted_from) >= self.every {
            self.left += 1;
            self.counted_from += self.every;
        }
        if self.left == self.at_once {
            self.counted_from = now;
        }
        if self.left == 0 {
            self.untold += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_a_few_words_and_counted() {
        let mut allowance = Allowance::new(3, Duration::from_secs(60));
        let mut told = Vec::new();
        // Ten thousand in ten seconds.
        for at in 0..10_000_u64 {
            told.extend(allowance.take(Duration::from_millis(5_000 + at)));
        }
        assert_eq!(told, [0, 0, 0]);
        assert_eq!(allowance.take(Duration::from_secs(64)), None);
        assert_eq!(allowance.take(Duration::from_secs(65)), Some(9_998));
        assert_eq!(allowance.take(Duration::from_secs(66)), None);
        // After a long silence it is as at the start, and no more.
        let later: Vec<_> = (0..5).map(|_| allowance.take(Duration::from_secs(100_000))).collect();
        assert_eq!(later, [Some(1), Some(0), Some(0), None, None]);
    }
}
