//! What one fetch has moved: counted, held to the limit, stopped when the agent stops or the server is too slow.

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::fleet::rate::{PaceWatch, Slowest, TokenBucket};

/// Longest sleep before looking whether the agent stops.
const NAP_MS: u64 = 100;

/// Counts and holds back what comes from the network.
#[derive(Debug)]
pub struct Meter<'a> {
    stop: &'a AtomicBool,
    began: Instant,
    bucket: Option<TokenBucket>,
    slowest: Slowest,
    watch: PaceWatch,
    moved: u64,
}

/// Why a transfer does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// The agent is stopping.
    Stopped,
    /// The server gave less than this.
    TooSlow(Slowest),
}

impl<'a> Meter<'a> {
    /// A meter at zero.
    pub fn new(stop: &'a AtomicBool, limit: Option<NonZeroU64>, slowest: Slowest) -> Self {
        let slowest = slowest.below(limit);
        Self {
            stop,
            began: now(),
            bucket: limit.map(|limit| TokenBucket::new(limit, 0)),
            slowest,
            watch: PaceWatch::new(slowest, 0),
            moved: 0,
        }
    }

    /// Bytes that moved.
    pub const fn moved(&self) -> u64 {
        self.moved
    }

    /// Milliseconds since the meter began.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A new transfer begins: its server has not been slow yet.
    pub fn begin(&mut self) -> Result<(), Halted> {
        self.watch = PaceWatch::new(self.slowest, self.elapsed_ms());
        self.check()
    }

    /// `bytes` came. Waits if that was too fast.
    pub fn took(&mut self, bytes: u64) -> Result<(), Halted> {
        self.check()?;
        self.moved = self.moved.saturating_add(bytes);
        let now_ms = self.elapsed_ms();
        if !self.watch.goes_on(bytes, now_ms) {
            return Err(Halted::TooSlow(self.slowest));
        }
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        let mut wait_ms = bucket.take(bytes, now_ms);
        self.watch.paused(wait_ms);
        while wait_ms > 0 {
            self.check()?;
            let nap_ms = wait_ms.min(NAP_MS);
            thread::sleep(Duration::from_millis(nap_ms));
            wait_ms -= nap_ms;
        }
        Ok(())
    }

    /// Holds unless the agent is stopping.
    pub fn check(&self) -> Result<(), Halted> {
        if self.stop.load(Ordering::Relaxed) { Err(Halted::Stopped) } else { Ok(()) }
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge at which transfers are timed")]
fn now() -> Instant {
    Instant::now()
}
