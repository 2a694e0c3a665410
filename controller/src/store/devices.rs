//! Devices: who is enrolled, what they last said of themselves, what they are to run.

use std::collections::BTreeMap;

use protocol::{
    digest::Digest,
    id::{DeviceId, Environment},
    key::PublicKey,
    report::DeviceState,
    time::UnixMs,
};
use sqlx::FromRow;

use super::database::{Store, StoreError, Writing, doing, int, number, read};

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Who it is.
    pub id: DeviceId,
    /// Its key.
    pub public: PublicKey,
    /// Its host's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The environment it belongs to.
    pub environment: Environment,
    /// When it joined.
    pub enrolled_at: UnixMs,
    /// Until when its certificate holds.
    pub certificate_until: UnixMs,
    /// When anything of it was last accepted.
    pub last_seen: Option<UnixMs>,
    /// Whether the broker says it is connected.
    pub online: bool,
    /// What it last said it runs.
    pub state: Option<DeviceState>,
    /// Telemetry it dropped for lack of room.
    pub dropped: u64,
    /// Sequence of its newest assignment; 0 for none.
    pub desired_sequence: u64,
    /// Release of its newest assignment.
    pub desired_release: Option<Digest>,
}

/// A device that joins.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Who it is.
    pub id: DeviceId,
    /// Its key.
    pub public: PublicKey,
    /// Its host's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The environment it belongs to.
    pub environment: Environment,
    /// Until when its certificate holds.
    pub certificate_until: UnixMs,
}

/// A signed assignment as it is stored and published.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// To whom.
    pub device: DeviceId,
    /// Its sequence.
    pub sequence: u64,
    /// The release.
    pub release: Digest,
    /// Until when it holds.
    pub until: UnixMs,
    /// The signed bytes.
    pub signed: Vec<u8>,
}

#[derive(FromRow)]
struct Row {
    id: String,
    public: Vec<u8>,
    name: String,
    labels: String,
    environment: String,
    enrolled_at: i64,
    certificate_until: i64,
    last_seen: Option<i64>,
    online: bool,
    state: Option<String>,
    dropped: i64,
    desired_sequence: i64,
    desired_release: Option<String>,
}

impl TryFrom<Row> for Device {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let damaged = |what| StoreError::Damaged { what };
        Ok(Self {
            id: read("device id", &row.id)?,
            public: PublicKey::try_from(row.public.as_slice())
                .map_err(|_| damaged("device key"))?,
            name: row.name,
            labels: serde_json::from_str(&row.labels).map_err(|_| damaged("device labels"))?,
            environment: read("device environment", &row.environment)?,
            enrolled_at: UnixMs(number(row.enrolled_at)),
            certificate_until: UnixMs(number(row.certificate_until)),
            last_seen: row.last_seen.map(|at| UnixMs(number(at))),
            online: row.online,
            state: row
                .state
                .map(|state| serde_json::from_str(&state).map_err(|_| damaged("device state")))
                .transpose()?,
            dropped: number(row.dropped),
            desired_sequence: number(row.desired_sequence),
            desired_release: row
                .desired_release
                .map(|release| read("assigned release", &release))
                .transpose()?,
        })
    }
}

impl Store {
    /// All devices that are not revoked, by name.
    pub async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT * FROM devices WHERE revoked_at IS NULL ORDER BY name, id")
                .fetch_all(&self.reader)
                .await
                .map_err(doing("reading the devices"))?;
        rows.into_iter().map(Device::try_from).collect()
    }

    /// One device that is not revoked.
    pub async fn device(&self, id: DeviceId) -> Result<Option<Device>, StoreError> {
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM devices WHERE id = ? AND revoked_at IS NULL")
                .bind(id.to_string())
                .fetch_optional(&self.reader)
                .await
                .map_err(doing("reading a device"))?;
        row.map(Device::try_from).transpose()
    }

    /// Devices whose id starts with `prefix` (hexadecimal); at most two, which is enough to see that it is ambiguous.
    pub async fn devices_like(&self, prefix: &str) -> Result<Vec<Device>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM devices WHERE substr(id, 1, ?) = ? AND revoked_at IS NULL LIMIT 2",
        )
        .bind(int(prefix.len() as u64))
        .bind(prefix)
        .fetch_all(&self.reader)
        .await
        .map_err(doing("finding a device"))?;
        rows.into_iter().map(Device::try_from).collect()
    }

    /// The key of a device that is not revoked.
    pub async fn device_key(&self, id: DeviceId) -> Result<Option<PublicKey>, StoreError> {
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT public FROM devices WHERE id = ? AND revoked_at IS NULL")
                .bind(id.to_string())
                .fetch_optional(&self.reader)
                .await
                .map_err(doing("reading a device's key"))?;
        row.map(|(raw,)| {
            PublicKey::try_from(raw.as_slice())
                .map_err(|_| StoreError::Damaged { what: "device key" })
        })
        .transpose()
    }

    /// Records a device that joins, or joins again with the same key.
    pub async fn join(
        &self,
        writing: &mut Writing,
        device: &Joining,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let labels = serde_json::to_string(&device.labels)
            .map_err(|_| StoreError::Damaged { what: "device labels" })?;
        sqlx::query(
            "INSERT INTO devices (id, public, name, labels, environment, enrolled_at,
                 certificate_until)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, labels = excluded.labels,
                 environment = excluded.environment, certificate_until = excluded.certificate_until, revoked_at = NULL",
        )
        .bind(device.id.to_string())
        .bind(device.public.as_bytes().as_slice())
        .bind(&device.name)
        .bind(labels)
        .bind(device.environment.as_str())
        .bind(int(now.0))
        .bind(int(device.certificate_until.0))
        .execute(&mut **writing)
        .await
        .map_err(doing("recording a device"))?;
        Ok(())
    }

    /// The next sequence for an assignment to `device`; none if there is no such device. It is not below the time in
    /// milliseconds, so that a device enrolled again, or a database put back from a copy, goes on above what the
    /// device obeyed before.
    pub async fn next_desired(
        &self,
        writing: &mut Writing,
        device: DeviceId,
        now: UnixMs,
    ) -> Result<Option<u64>, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "UPDATE devices SET desired_sequence = max(desired_sequence + 1, ?)
             WHERE id = ? AND revoked_at IS NULL RETURNING desired_sequence",
        )
        .bind(int(now.0))
        .bind(device.to_string())
        .fetch_optional(&mut **writing)
        .await
        .map_err(doing("numbering an assignment"))?;
        Ok(row.map(|(sequence,)| number(sequence)))
    }

    /// Keeps a signed assignment.
    pub async fn keep_desired(
        &self,
        writing: &mut Writing,
        assigned: &Assigned,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE devices SET desired = ?, desired_release = ?, desired_until = ? WHERE id = ?",
        )
        .bind(&assigned.signed)
        .bind(assigned.release.to_string())
        .bind(int(assigned.until.0))
        .bind(assigned.device.to_string())
        .execute(&mut **writing)
        .await
        .map_err(doing("keeping an assignment"))?;
        Ok(())
    }

    /// The newest signed assignment of a device, unless it expired.
    pub async fn desired(
        &self,
        device: DeviceId,
        now: UnixMs,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sqlx::query_as(
            "SELECT desired FROM devices
             WHERE id = ? AND desired IS NOT NULL AND desired_until > ? AND revoked_at IS NULL",
        )
        .bind(device.to_string())
        .bind(int(now.0))
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("reading an assignment"))?;
        Ok(row.map(|(signed,)| signed))
    }

    /// Devices with an assignment that has not expired.
    pub async fn assigned_devices(&self, now: UnixMs) -> Result<Vec<DeviceId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT id FROM devices
             WHERE desired IS NOT NULL AND desired_until > ? AND revoked_at IS NULL ORDER BY id",
        )
        .bind(int(now.0))
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading the assigned devices"))?;
        rows.iter().map(|(id,)| read("device id", id)).collect()
    }
}
