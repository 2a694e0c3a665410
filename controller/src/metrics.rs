//! What Prometheus reads. Every series exists from the start, at zero.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use protocol::{report::EventKind, time::UnixMs};

use crate::{
    link::judge::REASONS,
    store::database::{Store, StoreError},
    waves::RolloutState,
};

type Label = [(&'static str, &'static str); 1];

/// The controller's counters. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    accepted: Counter,
    refused: Family<Label, Counter>,
    events: Family<Label, Counter>,
    dropped: Counter,
    connected: Gauge,
    enrolments: Family<Label, Counter>,
    requests: Family<Label, Counter>,
    devices: Family<Label, Gauge>,
    rollouts: Family<Label, Gauge>,
    served_bytes: Counter,
    timestamp_version: Gauge,
    timestamp_expires: Gauge,
    refresh_failures: Counter,
}

/// Why the figures cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The store.
    #[error("counting devices and rollouts")]
    Store(#[source] StoreError),
    /// The text.
    #[error("writing the figures")]
    Text(#[source] fmt::Error),
}

const EVENTS: [EventKind; 13] = [
    EventKind::Started,
    EventKind::Accepted,
    EventKind::Refused,
    EventKind::Fetched,
    EventKind::Staged,
    EventKind::Loaded,
    EventKind::Golden,
    EventKind::Armed,
    EventKind::Probation,
    EventKind::Committed,
    EventKind::RolledBack,
    EventKind::WorkerRestarted,
    EventKind::Alarm,
];
const STATES: [RolloutState; 3] =
    [RolloutState::Running, RolloutState::Complete, RolloutState::Halted];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            accepted: Counter::default(),
            refused: Family::default(),
            events: Family::default(),
            dropped: Counter::default(),
            connected: Gauge::default(),
            enrolments: Family::default(),
            requests: Family::default(),
            devices: Family::default(),
            rollouts: Family::default(),
            served_bytes: Counter::default(),
            timestamp_version: Gauge::default(),
            timestamp_expires: Gauge::default(),
            refresh_failures: Counter::default(),
        };
        metrics.zero();
        metrics.registry = Arc::new(metrics.registered());
        metrics
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    fn zero(&self) {
        for reason in REASONS {
            drop(self.refused.get_or_create(&[("reason", reason)]));
        }
        for kind in EVENTS {
            drop(self.events.get_or_create(&[("kind", kind.as_str())]));
        }
        for result in ["enrolled", "refused"] {
            drop(self.enrolments.get_or_create(&[("result", result)]));
        }
        for class in CLASSES {
            drop(self.requests.get_or_create(&[("class", class)]));
        }
        for state in ["online", "offline"] {
            drop(self.devices.get_or_create(&[("state", state)]));
        }
        for state in STATES {
            drop(self.rollouts.get_or_create(&[("state", state.as_str())]));
        }
    }

    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("socle_controller");
        let r = &mut registry;
        r.register("reports", "Reports and presence stored", self.accepted.clone());
        r.register("refused_messages", "Messages refused, by reason", self.refused.clone());
        r.register("events", "Events of devices stored, by kind", self.events.clone());
        r.register("dropped_messages", "Messages dropped, queue full", self.dropped.clone());
        r.register("broker_connected", "1 while connected to the broker", self.connected.clone());
        r.register("enrolments", "Enrolment requests, by result", self.enrolments.clone());
        r.register("http_requests", "Answers, by class of status", self.requests.clone());
        r.register("devices", "Enrolled devices", self.devices.clone());
        r.register("rollouts", "Rollouts, by state", self.rollouts.clone());
        r.register("served_bytes", "Bytes of artifacts served", self.served_bytes.clone());
        let version = "Version of the newest timestamp metadata, 0 for none";
        r.register("timestamp_version", version, self.timestamp_version.clone());
        let expires = "When the timestamp metadata expires, seconds since 1970, 0 for none";
        r.register("timestamp_expires_seconds", expires, self.timestamp_expires.clone());
        let failures = "Times that snapshot and timestamp could not be signed again";
        r.register("refresh_failures", failures, self.refresh_failures.clone());
        registry
    }

    /// Reports were stored.
    pub fn accepted(&self, count: u64) {
        self.accepted.inc_by(count);
    }

    /// A message was refused, for one of [`REASONS`].
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// An event was stored.
    pub fn event(&self, kind: &'static str) {
        self.events.get_or_create(&[("kind", kind)]).inc();
    }

    /// A message was dropped for lack of room.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// Whether we are connected to the broker.
    pub fn connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    /// A device enrolled, or was refused.
    pub fn enrolment(&self, enrolled: bool) {
        let result = if enrolled { "enrolled" } else { "refused" };
        self.enrolments.get_or_create(&[("result", result)]).inc();
    }

    /// A request was answered with `status`.
    pub fn answered(&self, status: u16) {
        let class = match status {
            ..300 => CLASSES[0],
            300..400 => CLASSES[1],
            400..500 => CLASSES[2],
            500.. => CLASSES[3],
        };
        self.requests.get_or_create(&[("class", class)]).inc();
    }

    /// Bytes of an artifact were served.
    pub fn served(&self, bytes: u64) {
        self.served_bytes.inc_by(bytes);
    }

    /// Timestamp metadata of `version` holds until `expires`.
    pub fn timestamp(&self, version: u64, expires: UnixMs) {
        self.timestamp_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        self.timestamp_expires.set(i64::try_from(expires.0 / 1000).unwrap_or(i64::MAX));
    }

    /// Snapshot and timestamp could not be signed again.
    pub fn refresh_failed(&self) {
        self.refresh_failures.inc();
    }

    /// The text that Prometheus reads.
    pub async fn text(&self, store: &Store) -> Result<String, MetricsError> {
        let devices = store.devices().await.map_err(MetricsError::Store)?;
        let online = devices.iter().filter(|device| device.online).count();
        for (state, count) in [("online", online), ("offline", devices.len() - online)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.devices.get_or_create(&[("state", state)]).set(count);
        }
        let counts = store.rollout_counts().await.map_err(MetricsError::Store)?;
        for (state, count) in STATES.into_iter().zip(counts) {
            self.rollouts.get_or_create(&[("state", state.as_str())]).set(count);
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry).map_err(MetricsError::Text)?;
        Ok(text)
    }
}
