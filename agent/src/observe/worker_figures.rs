//! What the worker counted of its batches, for Prometheus: how much is computed at once is known there alone.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use engine::worker::message::{Histogram, ModelStatistics, WorkerStatistics};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
};

/// A family of histograms: its name, what it is for people, and where it is found.
type Sizes = (&'static str, &'static str, fn(&ModelStatistics) -> &Histogram);

const SIZES: [Sizes; 2] = [
    ("inference_batch_items", "Items that the worker computed at once", |model| &model.batch_items),
    ("inference_batch_tokens", "Tokens that the worker computed at once", |model| {
        &model.batch_tokens
    }),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    model: String,
    slot: String,
}

/// The figures that the worker gave last: one that does not answer now has counted nothing since.
#[derive(Debug)]
pub struct WorkerFigures {
    slot: String,
    last: Mutex<Vec<ModelStatistics>>,
}

impl WorkerFigures {
    /// Of a gateway in `slot` whose worker has said nothing yet.
    pub fn new(slot: &str) -> Self {
        Self { slot: slot.to_owned(), last: Mutex::default() }
    }

    /// The worker says this now.
    pub fn show(&self, statistics: WorkerStatistics) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = statistics.models;
    }
}

impl Collector for WorkerFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, help, histogram) in SIZES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (model, sizes) in by_name(&last, histogram) {
                let served = Served { model: model.to_owned(), slot: self.slot.clone() };
                let buckets: Vec<(f64, u64)> = sizes.buckets().collect();
                let count = buckets.iter().map(|(_, count)| count).sum();
                family.encode_family(&served)?.encode_histogram::<NoLabelSet>(
                    sizes.sum as f64,
                    count,
                    &buckets,
                    None,
                )?;
            }
        }
        Ok(())
    }
}

/// The sizes of all versions of each model together.
#[derive(Debug, Default, PartialEq)]
struct Together {
    bounds: Vec<u64>,
    counts: Vec<u64>,
    sum: u64,
}

impl Together {
    fn add(&mut self, histogram: &Histogram) {
        if self.counts.is_empty() {
            self.bounds.clone_from(&histogram.bounds);
            self.counts = vec![0; histogram.counts.len()];
        }
        for (count, more) in self.counts.iter_mut().zip(&histogram.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(histogram.sum);
    }

    /// Upper end and count of each bucket, without what lies below it.
    fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let ends = self.bounds.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
        ends.zip(self.counts.iter().copied())
    }
}

fn by_name(
    models: &[ModelStatistics],
    histogram: fn(&ModelStatistics) -> &Histogram,
) -> BTreeMap<&str, Together> {
    let mut all: BTreeMap<&str, Together> = BTreeMap::new();
    for model in models {
        all.entry(&model.name).or_default().add(histogram(model));
    }
    all
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn batches_of_all_versions_of_a_model_are_shown_together() {
        let model = |version: &str, items: &[usize]| {
            let mut model = ModelStatistics::new("m", version);
            items.iter().for_each(|items| model.computed(*items, 10, 5));
            model
        };
        let figures = Arc::new(WorkerFigures::new("a"));
        let mut registry = Registry::with_prefix("socle");
        registry.register_collector(Box::new(Arc::clone(&figures)));
        figures.show(WorkerStatistics {
            waiting_requests: 0,
            waiting_tokens: 0,
            resident_bytes: 0,
            loaded_bytes: 0,
            memory_bytes: 0,
            models: vec![model("1", &[1, 3]), model("2", &[3, 9_000])],
        });
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE socle_inference_batch_items histogram",
            "socle_inference_batch_items_sum{model=\"m\",slot=\"a\"} 9007.0",
            "socle_inference_batch_items_count{model=\"m\",slot=\"a\"} 4",
            "socle_inference_batch_items_bucket{le=\"1.0\",model=\"m\",slot=\"a\"} 1",
            "socle_inference_batch_items_bucket{le=\"4.0\",model=\"m\",slot=\"a\"} 3",
            "socle_inference_batch_items_bucket{le=\"+Inf\",model=\"m\",slot=\"a\"} 4",
            "socle_inference_batch_tokens_sum{model=\"m\",slot=\"a\"} 40.0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
    }
}
