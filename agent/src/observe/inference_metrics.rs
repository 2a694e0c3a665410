//! Figures of inference for Prometheus, by model and slot. Every series of a model exists as soon as the model is known.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::observe::figures::Work;

/// Kinds of errors.
pub const KINDS: [&str; 8] = [
    "bad_request",
    "not_allowed",
    "not_found",
    "too_large",
    "overloaded",
    "timeout",
    "unavailable",
    "internal",
];
/// Stands for the model where the request named none that there is.
pub const NO_MODEL: &str = "none";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    model: String,
    slot: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    model: String,
    slot: String,
    kind: &'static str,
}

type Histograms = Family<Served, Histogram, fn() -> Histogram>;

/// The figures.
#[derive(Debug)]
pub struct InferenceMetrics {
    slot: String,
    request: Histograms,
    queue: Histograms,
    compute: Histograms,
    items: Family<Served, Counter>,
    tokens: Family<Served, Counter>,
    errors: Family<Failed, Counter>,
}

/// 0.5 ms to 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl InferenceMetrics {
    /// Registers the figures of a gateway in `slot`.
    pub fn new(slot: &str, registry: &mut Registry) -> Self {
        let histograms = |make: fn() -> Histogram| Family::new_with_constructor(make);
        let metrics = Self {
            slot: slot.to_owned(),
            request: histograms(seconds),
            queue: histograms(seconds),
            compute: histograms(seconds),
            items: Family::default(),
            tokens: Family::default(),
            errors: Family::default(),
        };
        let times = [
            ("inference_request", "Time from a request's head to its answer", &metrics.request),
            ("inference_queue", "Time until the worker computes a request", &metrics.queue),
            ("inference_compute", "Time the worker computes a request", &metrics.compute),
        ];
        for (name, help, family) in times {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
        registry.register("inference_items", "Items computed for callers", metrics.items.clone());
        registry.register(
            "inference_tokens",
            "Tokens computed for callers",
            metrics.tokens.clone(),
        );
        registry.register(
            "inference_errors",
            "Requests to models that were not answered",
            metrics.errors.clone(),
        );
        metrics.know(NO_MODEL);
        metrics
    }

    /// Has every series of `model` exist.
    pub fn know(&self, model: &str) {
        let served = self.served(model);
        for kind in KINDS {
            drop(self.errors.get_or_create(&self.failed(model, kind)));
        }
        if model == NO_MODEL {
            return;
        }
        for family in [&self.request, &self.queue, &self.compute] {
            drop(family.get_or_create(&served));
        }
        drop(self.items.get_or_create(&served));
        drop(self.tokens.get_or_create(&served));
    }

    /// A request to `model` was answered after `took`.
    pub fn answer(&self, model: &str, took: Duration, work: Option<Work>) {
        let served = self.served(model);
        self.request.get_or_create(&served).observe(took.as_secs_f64());
        if let Some(work) = work {
            self.queue.get_or_create(&served).observe(work.queue.as_secs_f64());
            self.compute.get_or_create(&served).observe(work.compute.as_secs_f64());
            self.items.get_or_create(&served).inc_by(u64::from(work.items));
            self.tokens.get_or_create(&served).inc_by(work.tokens);
        }
    }

    /// A request to `model`, or [`NO_MODEL`], was not answered. An unknown kind counts as the last.
    pub fn fail(&self, model: &str, kind: &'static str) {
        let kind = KINDS.into_iter().find(|known| *known == kind).unwrap_or("internal");
        self.errors.get_or_create(&self.failed(model, kind)).inc();
    }

    fn served(&self, model: &str) -> Served {
        Served { model: model.to_owned(), slot: self.slot.clone() }
    }

    fn failed(&self, model: &str, kind: &'static str) -> Failed {
        Failed { model: model.to_owned(), slot: self.slot.clone(), kind }
    }
}
