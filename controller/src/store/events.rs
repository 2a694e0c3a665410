//! Events and telemetry as people read them.

use protocol::{
    digest::Digest,
    id::DeviceId,
    report::{EventKind, Vitals},
    time::UnixMs,
};
use serde::Serialize;
use sqlx::FromRow;

use super::database::{Store, StoreError, doing, int, number, read};

/// Most events or telemetry records one question may ask for.
pub const PAGE_MAX: u32 = 1000;

/// An event as stored.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its place in the order of arrival.
    pub id: u64,
    /// When it happened, by the device's clock.
    pub at: UnixMs,
    /// When it was stored.
    pub received_at: UnixMs,
    /// Whose.
    pub device: DeviceId,
    /// What: [`EventKind::as_str`].
    pub kind: String,
    /// Release concerned.
    pub release: Option<Digest>,
    /// Rollout concerned; 0 for none.
    pub rollout: u64,
    /// In words, from the device: untrusted text.
    pub detail: String,
}

/// One telemetry record.
#[derive(Clone, Debug, Serialize)]
pub struct Telemetry {
    /// The report's sequence.
    pub sequence: u64,
    /// When it was made.
    pub at: UnixMs,
    /// When it was stored.
    pub received_at: UnixMs,
    /// What it said.
    pub vitals: Vitals,
}

#[derive(FromRow)]
struct EventRow {
    id: i64,
    at: i64,
    received_at: i64,
    device: String,
    kind: String,
    release: Option<String>,
    rollout: i64,
    detail: String,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(row.id),
            at: UnixMs(number(row.at)),
            received_at: UnixMs(number(row.received_at)),
            device: read("event's device", &row.device)?,
            kind: row.kind,
            release: row.release.map(|text| read("event's release", &text)).transpose()?,
            rollout: number(row.rollout),
            detail: row.detail,
        })
    }
}

fn events(rows: Vec<EventRow>) -> Result<Vec<Event>, StoreError> {
    rows.into_iter().map(Event::try_from).collect()
}

impl Store {
    /// Events with an id above `after`, oldest first.
    pub async fn events_after(&self, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query_as("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?")
            .bind(int(after))
            .bind(limit.min(PAGE_MAX))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading events"))?;
        events(rows)
    }

    /// The newest events, newest first.
    pub async fn newest_events(&self, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query_as("SELECT * FROM events ORDER BY id DESC LIMIT ?")
            .bind(limit.min(PAGE_MAX))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading the newest events"))?;
        events(rows)
    }

    /// A device's newest events, newest first.
    pub async fn device_events(
        &self,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query_as("SELECT * FROM events WHERE device = ? ORDER BY id DESC LIMIT ?")
            .bind(device.to_string())
            .bind(limit.min(PAGE_MAX))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading a device's events"))?;
        events(rows)
    }

    /// The newest event of each device.
    pub async fn last_events(&self) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query_as(
            "SELECT * FROM events WHERE id IN (SELECT max(id) FROM events GROUP BY device)",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading each device's last event"))?;
        events(rows)
    }

    /// Events of `release` since `since` that decide a trial, oldest first.
    pub async fn deciding_events(
        &self,
        release: Digest,
        since: UnixMs,
    ) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query_as(
            "SELECT * FROM events WHERE release = ? AND received_at >= ? AND kind IN (?, ?, ?)
             ORDER BY id",
        )
        .bind(release.to_string())
        .bind(int(since.0))
        .bind(EventKind::Committed.as_str())
        .bind(EventKind::RolledBack.as_str())
        .bind(EventKind::Refused.as_str())
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading the events that decide a rollout"))?;
        events(rows)
    }

    /// A device's newest telemetry, newest first.
    pub async fn telemetry(
        &self,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<Telemetry>, StoreError> {
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(
            "SELECT sequence, at, received_at, vitals FROM telemetry WHERE device = ?
             ORDER BY sequence DESC LIMIT ?",
        )
        .bind(device.to_string())
        .bind(limit.min(PAGE_MAX))
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading telemetry"))?;
        rows.into_iter()
            .map(|(sequence, at, received_at, vitals)| {
                Ok(Telemetry {
                    sequence: number(sequence),
                    at: UnixMs(number(at)),
                    received_at: UnixMs(number(received_at)),
                    vitals: serde_json::from_str(&vitals)
                        .map_err(|_| StoreError::Damaged { what: "telemetry record" })?,
                })
            })
            .collect()
    }
}
