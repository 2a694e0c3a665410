//! Signed permits to install an older release: for one device, one release, until they expire.

use protocol::{digest::Digest, id::DeviceId, time::UnixMs};

use super::database::{Store, StoreError, doing, int, read};

/// A permit that was verified; the object holds it as signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The object.
    pub digest: Digest,
    /// For whom.
    pub device: DeviceId,
    /// What it may install.
    pub release: Digest,
    /// Until when.
    pub expires_at: UnixMs,
}

impl Store {
    /// Keeps a permit, and forgets those that expired.
    pub async fn add_permit(&self, permit: &Permit, now: UnixMs) -> Result<(), StoreError> {
        let mut writing = self.begin().await?;
        sqlx::query("DELETE FROM permits WHERE expires_at <= ?")
            .bind(int(now.0))
            .execute(&mut *writing)
            .await
            .map_err(doing("forgetting old permits"))?;
        sqlx::query(
            "INSERT INTO permits (digest, device, release, expires_at, published_at)
             VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
        )
        .bind(permit.digest.to_string())
        .bind(permit.device.to_string())
        .bind(permit.release.to_string())
        .bind(int(permit.expires_at.0))
        .bind(int(now.0))
        .execute(&mut *writing)
        .await
        .map_err(doing("keeping a permit"))?;
        self.commit(writing).await
    }

    /// The permit of `device` for `release` that holds longest, if one holds at `now`.
    pub async fn permit(
        &self,
        device: DeviceId,
        release: Digest,
        now: UnixMs,
    ) -> Result<Option<Digest>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT digest FROM permits WHERE device = ? AND release = ? AND expires_at > ?
             ORDER BY expires_at DESC LIMIT 1",
        )
        .bind(device.to_string())
        .bind(release.to_string())
        .bind(int(now.0))
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("looking for a permit"))?;
        row.map(|(digest,)| read("permit digest", &digest)).transpose()
    }
}
