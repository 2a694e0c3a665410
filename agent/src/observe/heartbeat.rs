//! Which long-running loop still turns. The watchdog of the service manager is fed only while every one of them does.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The loops that are watched.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    start: Instant,
    pulses: Arc<Mutex<Vec<Arc<Pulse>>>>,
}

/// By which one loop says that it turns.
#[derive(Clone, Debug)]
pub struct Beat {
    start: Instant,
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct Pulse {
    name: &'static str,
    limit: Duration,
    /// Milliseconds after the start; `u64::MAX` when the loop ended in order.
    last_ms: AtomicU64,
}

const ENDED: u64 = u64::MAX;

impl Default for Heartbeats {
    fn default() -> Self {
        Self { start: Instant::now(), pulses: Arc::default() }
    }
}

impl Heartbeats {
    /// Watches one more loop, which must tick at least once in every `limit`.
    pub fn beat(&self, name: &'static str, limit: Duration) -> Beat {
        let pulse =
            Arc::new(Pulse { name, limit, last_ms: AtomicU64::new(elapsed_ms(self.start)) });
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse));
        Beat { start: self.start, pulse }
    }

    /// Names of the loops that have not ticked within their limit.
    pub fn late(&self) -> Vec<&'static str> {
        self.late_at(elapsed_ms(self.start))
    }

    fn late_at(&self, now_ms: u64) -> Vec<&'static str> {
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let late = |pulse: &&Arc<Pulse>| {
            let last_ms = pulse.last_ms.load(Ordering::Relaxed);
            last_ms != ENDED && u128::from(now_ms.saturating_sub(last_ms)) > pulse.limit.as_millis()
        };
        pulses.iter().filter(late).map(|pulse| pulse.name).collect()
    }
}

impl Beat {
    /// The loop turns.
    pub fn tick(&self) {
        self.pulse.last_ms.store(elapsed_ms(self.start), Ordering::Relaxed);
    }

    /// The loop ended in order and is watched no more.
    pub fn end(&self) {
        self.pulse.last_ms.store(ENDED, Ordering::Relaxed);
    }
}

fn elapsed_ms(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(ENDED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stops_turning_is_named() {
        let beats = Heartbeats::default();
        let link = beats.beat("link", Duration::from_secs(10));
        let trial = beats.beat("trial", Duration::from_secs(20));
        assert!(beats.late_at(5_000).is_empty());
        assert_eq!(beats.late_at(15_000), ["link"]);
        link.pulse.last_ms.store(15_000, Ordering::Relaxed);
        assert!(beats.late_at(19_000).is_empty());
        trial.end();
        assert_eq!(beats.late_at(60_000), ["link"]);
    }
}
