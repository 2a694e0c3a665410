//! Things nobody may miss, on their way from the part that saw them to the durable outbox of the link.

use protocol::{
    digest::Digest,
    report::{Event, EventKind},
};
use tokio::sync::mpsc;

/// Most events that wait for the outbox. A sender waits when it is full, since an event is never dropped.
const WAITING_MAX: usize = 256;
/// Longest detail, as the report format says.
const DETAIL_CHARS_MAX: usize = 2000;

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Event>);

/// Where the link takes them from.
pub type EventQueue = mpsc::Receiver<Event>;

/// Both ends.
pub fn channel() -> (Events, EventQueue) {
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    (Events(sender), queue)
}

impl Events {
    /// Hands in an event, cut to the longest detail. It is logged here too, so that it is seen on a machine without a link.
    pub async fn send(&self, mut event: Event) {
        if event.detail.chars().count() > DETAIL_CHARS_MAX {
            event.detail = event.detail.chars().take(DETAIL_CHARS_MAX).collect();
        }
        let release = event.release.map(|release| release.short());
        match event.kind {
            EventKind::Alarm | EventKind::RolledBack | EventKind::Refused => {
                tracing::warn!(kind = event.kind.as_str(), release, "{}", event.detail);
            }
            EventKind::Started
            | EventKind::Accepted
            | EventKind::Fetched
            | EventKind::Staged
            | EventKind::Loaded
            | EventKind::Golden
            | EventKind::Armed
            | EventKind::Probation
            | EventKind::Committed
            | EventKind::WorkerRestarted => {
                tracing::info!(kind = event.kind.as_str(), release, "{}", event.detail);
            }
        }
        if self.0.send(event).await.is_err() {
            tracing::warn!("event above was not queued: the link has ended");
        }
    }

    /// Hands in what happened to `release`, outside any rollout.
    pub async fn tell(&self, kind: EventKind, release: Option<Digest>, detail: impl Into<String>) {
        self.send(Event { kind, release, rollout: 0, detail: detail.into() }).await;
    }
}
