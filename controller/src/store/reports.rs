//! Storing what devices report, each report once.

use protocol::{
    id::DeviceId,
    report::{Body, DeviceState, Event, Report, Vitals},
    time::UnixMs,
};

use super::database::{Store, StoreError, Writing, doing, int, number};

/// Telemetry records kept per device: a day of one a minute.
pub const TELEMETRY_MAX: u32 = 1440;
/// Longest detail of an event that is kept, in characters.
const DETAIL_MAX: usize = 2000;

/// A report and whose it is.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The sender.
    pub device: DeviceId,
    /// The envelope's sequence.
    pub sequence: u64,
    /// What it says.
    pub report: Report,
}

/// Whether a report was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Stored now.
    New,
    /// Stored before: a replay, or a device that missed our acknowledgement.
    Seen,
}

impl Store {
    /// Stores a report, unless it or a newer one of its kind is stored already.
    pub async fn record(
        &self,
        writing: &mut Writing,
        reported: &Reported,
        now: UnixMs,
    ) -> Result<Novelty, StoreError> {
        let new = match &reported.report.body {
            Body::State(state) => self.record_state(writing, reported, state, now).await?,
            Body::Tele(vitals) => self.record_vitals(writing, reported, vitals, now).await?,
            Body::Event(event) => self.record_event(writing, reported, event, now).await?,
        };
        if !new {
            return Ok(Novelty::Seen);
        }
        sqlx::query("UPDATE devices SET last_seen = ?, dropped = max(dropped, ?) WHERE id = ?")
            .bind(int(now.0))
            .bind(int(reported.report.dropped))
            .bind(reported.device.to_string())
            .execute(&mut **writing)
            .await
            .map_err(doing("noting that a device was seen"))?;
        Ok(Novelty::New)
    }

    /// Notes what the broker says of a device's connection.
    pub async fn record_presence(
        &self,
        writing: &mut Writing,
        device: DeviceId,
        online: bool,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        // Going offline says nothing new was heard of the device, so it does not count as being seen.
        sqlx::query(
            "UPDATE devices SET online = ?1,
                 last_seen = CASE WHEN ?1 THEN ?2 ELSE last_seen END WHERE id = ?3",
        )
        .bind(online)
        .bind(int(now.0))
        .bind(device.to_string())
        .execute(&mut **writing)
        .await
        .map_err(doing("noting a device's presence"))?;
        Ok(())
    }

    async fn record_state(
        &self,
        writing: &mut Writing,
        reported: &Reported,
        state: &DeviceState,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let text = serde_json::to_string(state)
            .map_err(|_| StoreError::Damaged { what: "device state" })?;
        let done = sqlx::query(
            "UPDATE devices SET state = ?1, state_sequence = ?2, state_at = ?3
             WHERE id = ?4 AND (state_sequence IS NULL OR state_sequence < ?2)",
        )
        .bind(text)
        .bind(int(reported.sequence))
        .bind(int(now.0))
        .bind(reported.device.to_string())
        .execute(&mut **writing)
        .await
        .map_err(doing("storing a device's state"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn record_vitals(
        &self,
        writing: &mut Writing,
        reported: &Reported,
        vitals: &Vitals,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let device = reported.device.to_string();
        let text = serde_json::to_string(vitals)
            .map_err(|_| StoreError::Damaged { what: "telemetry record" })?;
        let done = sqlx::query(
            "INSERT INTO telemetry (device, sequence, at, received_at, vitals)
             SELECT ?1, ?2, ?3, ?4, ?5 FROM devices WHERE id = ?1 AND tele_floor < ?2
             ON CONFLICT DO NOTHING",
        )
        .bind(&device)
        .bind(int(reported.sequence))
        .bind(int(reported.report.at.0))
        .bind(int(now.0))
        .bind(text)
        .execute(&mut **writing)
        .await
        .map_err(doing("storing telemetry"))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.prune_telemetry(writing, &device).await?;
        Ok(true)
    }

    /// Drops what exceeds [`TELEMETRY_MAX`], and remembers up to where, so that a replay of it stays a replay.
    async fn prune_telemetry(&self, writing: &mut Writing, device: &str) -> Result<(), StoreError> {
        let oldest: Option<(i64,)> = sqlx::query_as(
            "SELECT sequence FROM telemetry WHERE device = ? ORDER BY sequence DESC
             LIMIT 1 OFFSET ?",
        )
        .bind(device)
        .bind(TELEMETRY_MAX)
        .fetch_optional(&mut **writing)
        .await
        .map_err(doing("counting telemetry"))?;
        let Some((floor,)) = oldest else { return Ok(()) };
        sqlx::query("DELETE FROM telemetry WHERE device = ? AND sequence <= ?")
            .bind(device)
            .bind(floor)
            .execute(&mut **writing)
            .await
            .map_err(doing("dropping old telemetry"))?;
        sqlx::query("UPDATE devices SET tele_floor = ? WHERE id = ?")
            .bind(floor)
            .bind(device)
            .execute(&mut **writing)
            .await
            .map_err(doing("noting what telemetry was dropped"))?;
        Ok(())
    }

    async fn record_event(
        &self,
        writing: &mut Writing,
        reported: &Reported,
        event: &Event,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let detail: String = event.detail.chars().take(DETAIL_MAX).collect();
        let done = sqlx::query(
            "INSERT INTO events (device, sequence, at, received_at, kind, release, rollout, detail)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(reported.device.to_string())
        .bind(int(reported.sequence))
        .bind(int(reported.report.at.0))
        .bind(int(now.0))
        .bind(event.kind.as_str())
        .bind(event.release.map(|release| release.to_string()))
        .bind(int(event.rollout))
        .bind(detail)
        .execute(&mut **writing)
        .await
        .map_err(doing("storing an event"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Id of the newest event; 0 for none.
    pub async fn newest_event_id(&self) -> Result<u64, StoreError> {
        let (id,): (i64,) = sqlx::query_as("SELECT coalesce(max(id), 0) FROM events")
            .fetch_one(&self.reader)
            .await
            .map_err(doing("reading the newest event's id"))?;
        Ok(number(id))
    }
}

#[cfg(test)]
mod tests;
