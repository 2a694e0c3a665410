//! Figures for Prometheus. Every series exists from the start with the value 0, so that an alert on a rate works before
//! the first event.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::observe::{
    collector, inference_metrics::InferenceMetrics, worker_figures::WorkerFigures,
};

/// Routes that are counted one by one; everything else is `other`.
pub const ROUTES: [&str; 23] = [
    "/v1/embeddings",
    "/v1/ask",
    "/v1/models",
    "/v1/rerank",
    "/v1/status",
    "/v2",
    "/v2/models/{model}",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
    "/v2/rerank",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/{method}",
    "/embed",
    "/predict",
    "/rerank",
    "/similarity",
    "/tokenize",
    "/decode",
    "/info",
    "/invocations",
    "/metrics",
    "other",
];
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

/// The figures of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram>,
    /// Of inference, by model.
    pub inference: InferenceMetrics,
    /// Of the worker's batches.
    pub worker: Arc<WorkerFigures>,
    /// Spans for the collector of traces.
    pub spans: collector::Counts,
    /// Requests being answered.
    pub in_flight: Gauge,
    /// Connections to the local API.
    pub connections: Gauge,
    /// 1 when models can be asked.
    pub ready: Gauge,
    /// Workers that died and were started again.
    pub worker_restarts: Counter,
    /// Texts computed.
    pub texts: Counter,
    /// Tokens computed.
    pub tokens: Counter,
    /// Questions that were answered.
    pub answered: Counter,
    /// Questions the assistant abstained on.
    pub abstained: Counter,
    /// 1 when the link to the controller stands.
    pub link_online: Gauge,
    /// Reports that wait for the controller's acknowledgement.
    pub outbox_entries: Gauge,
    /// Telemetry reports dropped because the outbox was full.
    pub outbox_dropped: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: String,
    slot: String,
    release: String,
}

impl Metrics {
    /// All series at 0, for a gateway of this version and release.
    pub fn new(version: &str, slot: &str, release: &str) -> Self {
        let mut registry = Registry::with_prefix("socle");
        let mut metrics = Self {
            inference: InferenceMetrics::new(slot, &mut registry),
            worker: Arc::new(WorkerFigures::new(slot)),
            registry,
            spans: collector::Counts::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 16))
            }),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            ready: Gauge::default(),
            worker_restarts: Counter::default(),
            texts: Counter::default(),
            tokens: Counter::default(),
            answered: Counter::default(),
            abstained: Counter::default(),
            link_online: Gauge::default(),
            outbox_entries: Gauge::default(),
            outbox_dropped: Gauge::default(),
        };
        for route in ROUTES {
            drop(metrics.seconds.get_or_create(&Route { route }));
            for class in CLASSES {
                drop(metrics.requests.get_or_create(&Request { route, class }));
            }
        }
        metrics.register(version, slot, release);
        metrics
    }

    fn register(&mut self, version: &str, slot: &str, release: &str) {
        let build = Build { version: version.into(), slot: slot.into(), release: release.into() };
        let registry = &mut self.registry;
        registry.register_collector(Box::new(Arc::clone(&self.worker)));
        registry.register("gateway", "Version, slot and release of this gateway", Info::new(build));
        registry.register("http_requests", "Requests to the local API", self.requests.clone());
        registry.register_with_unit(
            "http_request",
            "Time to answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("http_in_flight", "Requests being answered", self.in_flight.clone());
        registry.register(
            "http_connections",
            "Connections to the local API",
            self.connections.clone(),
        );
        registry.register("ready", "1 when models can be asked", self.ready.clone());
        registry.register("worker_restarts", "Workers that died", self.worker_restarts.clone());
        registry.register("texts", "Texts embedded for callers", self.texts.clone());
        registry.register("tokens", "Tokens computed for callers", self.tokens.clone());
        registry.register("questions_answered", "Questions answered", self.answered.clone());
        registry.register(
            "questions_abstained",
            "Questions without an answer",
            self.abstained.clone(),
        );
        registry.register(
            "link_online",
            "1 when connected to the broker",
            self.link_online.clone(),
        );
        registry.register(
            "trace_spans_sent",
            "Requests told to the collector of traces",
            self.spans.sent.clone(),
        );
        registry.register(
            "trace_spans_dropped",
            "Requests that were to be told and were not",
            self.spans.dropped.clone(),
        );
        registry.register(
            "outbox_entries",
            "Reports not acknowledged yet",
            self.outbox_entries.clone(),
        );
        registry.register(
            "outbox_dropped",
            "Telemetry dropped, outbox full",
            self.outbox_dropped.clone(),
        );
    }

    /// A request to `route` was answered with HTTP `status` after `took`.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let route = ROUTES.into_iter().find(|known| *known == route).unwrap_or("other");
        let class = match status {
            0..400 => "2xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.get_or_create(&Request { route, class }).inc();
        self.seconds.get_or_create(&Route { route }).observe(took.as_secs_f64());
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A value that cannot be written; a bug.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_the_first_request() {
        let metrics = Metrics::new("1.2.3", "a", "0011");
        let text = metrics.text().unwrap();
        for line in [
            "socle_gateway_info{version=\"1.2.3\",slot=\"a\",release=\"0011\"} 1",
            "socle_http_requests_total{route=\"/v1/ask\",class=\"5xx\"} 0",
            "socle_http_request_seconds_count{route=\"other\"} 0",
            "socle_worker_restarts_total 0",
            "socle_link_online 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn an_unknown_route_makes_no_new_series() {
        let metrics = Metrics::new("1.2.3", "a", "0011");
        let series = metrics.text().unwrap().lines().count();
        metrics.request("/v2/models/../../etc", 404, Duration::from_millis(1));
        assert_eq!(metrics.text().unwrap().lines().count(), series);
    }
}
