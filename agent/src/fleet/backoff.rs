//! How long to wait before trying again: full jitter, so that a fleet that lost its broker does not come back as one.

use std::time::Duration;

/// Waits between attempts: uniform between 0 and `first · 2ⁿ`, at most `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits that start below `first` and stay below `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The next wait after one more failure; `random` is uniform in 0..1.
    pub fn after_failure(&mut self, random: f64) -> Duration {
        let ceiling =
            self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        ceiling.min(self.longest).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Failures in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_spread_from_zero() {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(60));
        let mut backoff = Backoff::new(first, longest);
        let ceilings: Vec<u128> = (0..9).map(|_| backoff.after_failure(1.0).as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        assert_eq!(backoff.after_failure(0.0), Duration::ZERO);
        for _ in 0..100 {
            assert!(backoff.after_failure(1.0) <= longest);
        }
        backoff.succeeded();
        assert_eq!(backoff.after_failure(1.0), first);
    }
}
