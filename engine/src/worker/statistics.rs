//! Counting what a worker does: the figures of [`crate::worker::message`], written.

use crate::worker::{
    failure::FailureKind,
    message::{BatchSize, Histogram, ModelStatistics},
};

/// Upper bounds of the buckets of times, in microseconds.
pub const TIME_BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 35_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds of the buckets of sizes: items or tokens of a batch.
pub const SIZE_BOUNDS: [u64; 14] =
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192];
/// Most items by which batches are told apart; larger ones count as this many.
pub const BATCH_ITEMS_MAX: u32 = 1_024;

impl Histogram {
    /// Nothing seen yet.
    pub fn new(bounds: &[u64]) -> Self {
        Self { bounds: bounds.to_vec(), counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// One value was seen.
    pub fn see(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values were seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl ModelStatistics {
    /// Of a model that did nothing yet: every kind of failure stands there with 0.
    pub fn new(name: &str, version: &str) -> Self {
        let (times, sizes) = (|| Histogram::new(&TIME_BOUNDS_US), || Histogram::new(&SIZE_BOUNDS));
        Self {
            name: name.into(),
            version: version.into(),
            requests: 0,
            items: 0,
            tokens: 0,
            failures: FailureKind::ALL.map(|kind| (kind, 0)).to_vec(),
            prepare_us: times(),
            queue_us: times(),
            compute_us: times(),
            batch_items: sizes(),
            batch_tokens: sizes(),
            loads: 0,
            unloads: 0,
            last_load_us: 0,
            batches: Vec::new(),
        }
    }

    /// A batch of `items` items and `tokens` tokens was computed in `took_us`.
    pub fn computed(&mut self, items: usize, tokens: u64, took_us: u64) {
        self.tokens += tokens;
        self.compute_us.see(took_us);
        self.batch_items.see(items as u64);
        self.batch_tokens.see(tokens);
        let items = u32::try_from(items).unwrap_or(u32::MAX).min(BATCH_ITEMS_MAX);
        match self.batches.binary_search_by_key(&items, |batch| batch.items) {
            Ok(at) => {
                if let Some(batch) = self.batches.get_mut(at) {
                    batch.count += 1;
                    batch.compute_us = batch.compute_us.saturating_add(took_us);
                }
            }
            Err(at) => {
                self.batches.insert(at, BatchSize { items, count: 1, compute_us: took_us });
            }
        }
    }

    /// A request was not done.
    pub fn failed(&mut self, kind: FailureKind) {
        for (of, count) in &mut self.failures {
            if *of == kind {
                *count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.see(value);
        }
        assert_eq!((histogram.counts.as_slice(), histogram.sum), ([2, 2, 2].as_slice(), 1_062));
    }

    #[test]
    fn batches_are_counted_by_their_size() {
        let mut model = ModelStatistics::new("m", "1");
        for (items, took_us) in [(3, 10), (1, 4), (3, 20), (5_000, 7)] {
            model.computed(items, 8, took_us);
        }
        let batches: Vec<_> =
            model.batches.iter().map(|one| (one.items, one.count, one.compute_us)).collect();
        assert_eq!(batches, [(1, 1, 4), (3, 2, 30), (BATCH_ITEMS_MAX, 1, 7)]);
        assert_eq!((model.tokens, model.batch_items.count(), model.batch_tokens.sum), (32, 4, 32));
    }

    proptest! {
        #[test]
        fn no_value_is_lost(values in proptest::collection::vec(0_u64..100_000_000, 0..100)) {
            let mut histogram = Histogram::new(&TIME_BOUNDS_US);
            values.iter().for_each(|value| histogram.see(*value));
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert_eq!(histogram.sum, values.iter().sum::<u64>());
        }
    }
}
