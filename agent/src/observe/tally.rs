//! How many requests were answered, how many failed, and how long answers took.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Each power of two of microseconds is cut into this many parts, so a quantile is at most 1/8 too high.
const PARTS: usize = 8;
/// 2^36 µs is 19 hours; what takes longer counts there.
const OCTAVES: usize = 36;
const CELLS: usize = PARTS * OCTAVES;

/// Counts since the gateway started. Fixed size, no locks.
#[derive(Debug)]
pub struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    cells: [AtomicU64; CELLS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cells: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Tally {
    /// A good answer was given.
    pub fn answer(&self, took: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(cell) = self.cells.get(cell_of(took_us)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request failed by our fault. A request that was refused by its caller's fault is neither.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Good answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Failures so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// 99th percentile of the time of good answers, in microseconds, at most 1/8 too high; 0 before the first.
    pub fn latency_us_p99(&self) -> u64 {
        self.quantile_us(100)
    }

    /// The median, likewise.
    pub fn latency_us_p50(&self) -> u64 {
        self.quantile_us(2)
    }

    /// The time that one in `slower` answers exceeds.
    fn quantile_us(&self, slower: u64) -> u64 {
        let counts: Vec<u64> = self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = all - all / slower;
        let mut seen = 0;
        for (at, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return end_us(at);
            }
        }
        0
    }
}

/// The cell that counts `us`: below [`PARTS`] each its own, above by power of two and part.
fn cell_of(us: u64) -> usize {
    let octave = us.max(1).ilog2() as usize;
    let parts_bits = PARTS.ilog2() as usize;
    let cell = if octave < parts_bits {
        usize::try_from(us).unwrap_or(0)
    } else {
        let part = usize::try_from(us >> (octave - parts_bits)).unwrap_or(0) - PARTS;
        (octave - parts_bits + 1) * PARTS + part
    };
    cell.min(CELLS - 1)
}

/// The largest number of microseconds that cell `at` counts.
fn end_us(at: usize) -> u64 {
    if at < PARTS {
        return at as u64;
    }
    let (octave, part) = (at / PARTS - 1, at % PARTS);
    (((PARTS + part + 1) as u64) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_cell() {
        for us in (0..5000).chain([65_535, 65_536, 1_000_000, 30_000_000]) {
            let end = end_us(cell_of(us));
            assert!(end >= us && end <= us + us / 8, "{us} is counted as {end}");
        }
        assert_eq!(cell_of(u64::MAX), CELLS - 1);
    }

    #[test]
    fn the_slowest_hundredth_is_left_out() {
        let tally = Tally::default();
        assert_eq!(tally.latency_us_p99(), 0);
        for _ in 0..99 {
            tally.answer(Duration::from_micros(1000));
        }
        tally.answer(Duration::from_secs(1));
        assert!((1000..=1125).contains(&tally.latency_us_p99()));
        for _ in 0..9 {
            tally.answer(Duration::from_secs(1));
        }
        assert!(tally.latency_us_p99() >= 1_000_000);
        assert_eq!((tally.answered(), tally.failed()), (109, 0));
    }
}
