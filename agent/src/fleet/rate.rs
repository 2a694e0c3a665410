//! How fast a download may be, and how slow. Pure: bytes and milliseconds of any one clock come in.

use std::{num::NonZeroU64, time::Duration};

/// Bytes that may come at once after a pause: so many milliseconds' worth.
const BURST_MS: u64 = 250;

/// A limit in bytes per second, kept on average: what was taken too early is waited for afterwards.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    bytes_per_second: NonZeroU64,
    /// What may be taken now, in bytes · 1000; negative is what has to be waited for.
    level: i128,
    at_ms: u64,
}

impl TokenBucket {
    /// A bucket that is empty at `now_ms`.
    pub const fn new(bytes_per_second: NonZeroU64, now_ms: u64) -> Self {
        Self { bytes_per_second, level: 0, at_ms: now_ms }
    }

    /// Takes `bytes` that came by `now_ms`; returns how long to wait before the next are asked for, in milliseconds.
    pub fn take(&mut self, bytes: u64, now_ms: u64) -> u64 {
        let rate = i128::from(self.bytes_per_second.get());
        let passed = i128::from(now_ms.saturating_sub(self.at_ms));
        self.at_ms = self.at_ms.max(now_ms);
        let full = rate * i128::from(BURST_MS);
        self.level = (self.level + passed * rate).min(full) - i128::from(bytes) * 1000;
        // A remainder is waited for too, so that no rounding adds up.
        u64::try_from((-self.level).max(0).div_euclid(rate)).unwrap_or(u64::MAX)
    }
}

/// The slowest server that is still waited for: so many bytes in every window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowest {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Over this time.
    pub window: Duration,
}

/// Watches one transfer.
#[derive(Clone, Debug)]
pub struct PaceWatch {
    slowest: Slowest,
    since_ms: u64,
    bytes: u64,
}

impl Slowest {
    /// What is asked of a server by default.
    pub const USUAL: Self = Self { bytes_per_second: 16 * 1024, window: Duration::from_secs(60) };

    /// The same, but no more than half of what a limit of our own lets through.
    pub fn below(self, limit: Option<NonZeroU64>) -> Self {
        let bytes_per_second =
            limit.map_or(self.bytes_per_second, |limit| self.bytes_per_second.min(limit.get() / 2));
        Self { bytes_per_second, ..self }
    }
}

impl PaceWatch {
    /// A transfer that begins at `now_ms`.
    pub const fn new(slowest: Slowest, now_ms: u64) -> Self {
        Self { slowest, since_ms: now_ms, bytes: 0 }
    }

    /// More bytes came. False once a window has passed with too few of them.
    pub fn goes_on(&mut self, bytes: u64, now_ms: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let passed_ms = u128::from(now_ms.saturating_sub(self.since_ms));
        if passed_ms < self.slowest.window.as_millis() {
            return true;
        }
        let enough =
            u128::from(self.bytes) * 1000 >= u128::from(self.slowest.bytes_per_second) * passed_ms;
        (self.since_ms, self.bytes) = (now_ms, 0);
        enough
    }

    /// We ourselves made it wait for so long: that is not the server's fault.
    pub const fn paused(&mut self, ms: u64) {
        self.since_ms = self.since_ms.saturating_add(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slow_server_is_noticed_within_a_window_and_a_pause_of_ours_is_not_its_fault() {
        let slowest = Slowest { bytes_per_second: 1000, window: Duration::from_secs(10) };
        let mut watch = PaceWatch::new(slowest, 0);
        assert!(watch.goes_on(1, 9_999));
        assert!(!watch.goes_on(9_000, 10_000));
        let mut watch = PaceWatch::new(slowest, 0);
        assert!(watch.goes_on(10_000, 10_000));
        assert!(watch.goes_on(10, 19_999));
        watch.paused(5_000);
        assert!(watch.goes_on(9_990, 25_000));
        assert!(!watch.goes_on(0, 35_000));
    }

    #[test]
    fn a_limit_lowers_what_is_asked_of_a_server() {
        let limit = |bytes| Slowest::USUAL.below(NonZeroU64::new(bytes)).bytes_per_second;
        assert_eq!((limit(1000), limit(1_000_000), limit(0)), (500, 16 * 1024, 16 * 1024));
    }

    proptest! {
        #[test]
        fn the_limit_holds_on_average_and_is_used(
            rate in 1_u64..10_000_000,
            pieces in proptest::collection::vec((1_u64..300_000, 0_u64..50), 1..100),
        ) {
            let mut bucket = TokenBucket::new(NonZeroU64::new(rate).unwrap(), 0);
            let (mut now, mut total) = (0, 0_u64);
            for (bytes, late) in &pieces {
                now += late;
                total += bytes;
                now += bucket.take(*bytes, now);
            }
            // Everything but one burst and one rounding had its time.
            let allowed = u128::from(rate) * u128::from(now + BURST_MS + 1);
            prop_assert!(u128::from(total) * 1000 <= allowed, "{total} bytes in {now} ms");
            let idle: u64 = pieces.iter().map(|(_, late)| late).sum();
            prop_assert!(u128::from(now - idle) * u128::from(rate) <= u128::from(total) * 1000);
        }

        #[test]
        fn extremes_never_panic(bytes: u64, now: u64, rate: u64) {
            if let Some(rate) = NonZeroU64::new(rate) {
                let mut bucket = TokenBucket::new(rate, now);
                bucket.take(bytes, 0);
                bucket.take(bytes, u64::MAX);
            }
        }
    }
}
