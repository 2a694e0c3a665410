//! Messages that were refused, counted by reason and shown with the newest ones.

use protocol::{id::DeviceId, time::UnixMs};
use serde::Serialize;
use sqlx::FromRow;

use super::database::{Store, StoreError, Writing, doing, int, number};

/// Newest refusals kept in full; older ones live on in the counts.
const KEPT_MAX: u32 = 1000;
/// Longest text kept of one.
const TEXT_MAX: usize = 300;

/// A message that was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Short name of the reason.
    pub reason: &'static str,
    /// Whom the topic names, if it names anyone.
    pub device: Option<DeviceId>,
    /// Where it arrived: untrusted text.
    pub topic: String,
    /// Why, in words.
    pub detail: String,
}

/// How often a reason occurred.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct RefusalCount {
    /// Short name of the reason.
    pub reason: String,
    /// How often.
    pub count: i64,
    /// When last.
    pub last_at: i64,
    /// By whom last.
    pub last_device: Option<String>,
    /// Why last, in words.
    pub last_detail: String,
}

/// One of the newest refusals.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct RecentRefusal {
    /// When.
    pub at: i64,
    /// Short name of the reason.
    pub reason: String,
    /// By whom.
    pub device: Option<String>,
    /// Where it arrived.
    pub topic: String,
    /// Why, in words.
    pub detail: String,
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

impl Store {
    /// Records a refusal.
    pub async fn refuse(
        &self,
        writing: &mut Writing,
        refused: &Refused,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let device = refused.device.map(|device| device.to_string());
        let done = sqlx::query(
            "INSERT INTO refusals (at, reason, device, topic, detail) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(int(now.0))
        .bind(refused.reason)
        .bind(&device)
        .bind(cut(&refused.topic))
        .bind(cut(&refused.detail))
        .execute(&mut **writing)
        .await
        .map_err(doing("recording a refusal"))?;
        sqlx::query("DELETE FROM refusals WHERE id <= ?")
            .bind(done.last_insert_rowid().saturating_sub(i64::from(KEPT_MAX)))
            .execute(&mut **writing)
            .await
            .map_err(doing("dropping old refusals"))?;
        sqlx::query(
            "INSERT INTO refusal_counts (reason, count, last_at, last_device, last_detail)
             VALUES (?, 1, ?, ?, ?)
             ON CONFLICT (reason) DO UPDATE SET count = count + 1, last_at = excluded.last_at,
                 last_device = excluded.last_device, last_detail = excluded.last_detail",
        )
        .bind(refused.reason)
        .bind(int(now.0))
        .bind(device)
        .bind(cut(&refused.detail))
        .execute(&mut **writing)
        .await
        .map_err(doing("counting a refusal"))?;
        Ok(())
    }

    /// Counts by reason.
    pub async fn refusal_counts(&self) -> Result<Vec<RefusalCount>, StoreError> {
        sqlx::query_as("SELECT * FROM refusal_counts ORDER BY reason")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading the counts of refusals"))
    }

    /// The newest refusals, newest first.
    pub async fn recent_refusals(&self, limit: u32) -> Result<Vec<RecentRefusal>, StoreError> {
        sqlx::query_as(
            "SELECT at, reason, device, topic, detail FROM refusals ORDER BY id DESC LIMIT ?",
        )
        .bind(limit.min(KEPT_MAX))
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading the newest refusals"))
    }

    /// How many messages were refused so far.
    pub async fn refusals_total(&self) -> Result<u64, StoreError> {
        let (count,): (i64,) = sqlx::query_as("SELECT coalesce(sum(count), 0) FROM refusal_counts")
            .fetch_one(&self.reader)
            .await
            .map_err(doing("counting refusals"))?;
        Ok(number(count))
    }
}
