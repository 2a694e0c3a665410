//! Rollouts, their assignments, and halts.

use protocol::{digest::Digest, id::DeviceId, time::UnixMs};
use sqlx::FromRow;

use super::database::{Store, StoreError, Writing, doing, int, number, read};
use crate::waves::{Policy, RolloutState, Status};

/// Most releases one halt message names; the newest win.
const HALTED_MAX: u32 = 256;

/// A rollout.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Its number, from 1.
    pub id: u64,
    /// What it brings.
    pub release: Digest,
    /// How.
    pub policy: Policy,
    /// Where it stands.
    pub state: RolloutState,
    /// Why it stands there.
    pub reason: String,
    /// When it was started.
    pub created_at: UnixMs,
    /// When its state last changed.
    pub changed_at: UnixMs,
}

/// An assignment of a rollout.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// To whom.
    pub device: DeviceId,
    /// In which wave, from 0.
    pub wave: usize,
    /// When.
    pub at: UnixMs,
    /// What became of it.
    pub status: Status,
    /// Why, in words.
    pub detail: String,
}

/// What is halted: the content of the halt message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halted {
    /// Number of the newest halt.
    pub sequence: u64,
    /// Releases halted, newest first.
    pub releases: Vec<Digest>,
    /// Why the newest one.
    pub reason: String,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    release: String,
    policy: String,
    state: String,
    reason: String,
    created_at: i64,
    changed_at: i64,
}

impl TryFrom<Row> for Rollout {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(row.id),
            release: read("rollout's release", &row.release)?,
            policy: serde_json::from_str(&row.policy)
                .map_err(|_| StoreError::Damaged { what: "rollout policy" })?,
            state: read("rollout state", &row.state)?,
            reason: row.reason,
            created_at: UnixMs(number(row.created_at)),
            changed_at: UnixMs(number(row.changed_at)),
        })
    }
}

impl Store {
    /// Starts a rollout; none if one is running.
    pub async fn start_rollout(
        &self,
        release: Digest,
        policy: &Policy,
        now: UnixMs,
    ) -> Result<Option<u64>, StoreError> {
        let policy = serde_json::to_string(policy)
            .map_err(|_| StoreError::Damaged { what: "rollout policy" })?;
        let done = sqlx::query(
            "INSERT INTO rollouts (release, policy, state, created_at, changed_at)
             SELECT ?1, ?2, 'running', ?3, ?3
             WHERE NOT EXISTS (SELECT 1 FROM rollouts WHERE state = 'running')",
        )
        .bind(release.to_string())
        .bind(policy)
        .bind(int(now.0))
        .execute(&self.writer)
        .await
        .map_err(doing("starting a rollout"))?;
        Ok((done.rows_affected() == 1).then(|| number(done.last_insert_rowid())))
    }

    /// The newest rollouts, newest first.
    pub async fn rollouts(&self, limit: u32) -> Result<Vec<Rollout>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as("SELECT * FROM rollouts ORDER BY id DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading the rollouts"))?;
        rows.into_iter().map(Rollout::try_from).collect()
    }

    /// One rollout.
    pub async fn rollout(&self, id: u64) -> Result<Option<Rollout>, StoreError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM rollouts WHERE id = ?")
            .bind(int(id))
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("reading a rollout"))?;
        row.map(Rollout::try_from).transpose()
    }

    /// The newest rollout in `state`.
    pub async fn newest_rollout(&self, state: RolloutState) -> Result<Option<Rollout>, StoreError> {
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM rollouts WHERE state = ? ORDER BY id DESC LIMIT 1")
                .bind(state.as_str())
                .fetch_optional(&self.reader)
                .await
                .map_err(doing("reading the newest rollout"))?;
        row.map(Rollout::try_from).transpose()
    }

    /// How many rollouts are running, complete and halted.
    pub async fn rollout_counts(&self) -> Result<[i64; 3], StoreError> {
        let row: (i64, i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state = 'running'),
                    count(*) FILTER (WHERE state = 'complete'),
                    count(*) FILTER (WHERE state = 'halted') FROM rollouts",
        )
        .fetch_one(&self.reader)
        .await
        .map_err(doing("counting the rollouts"))?;
        Ok([row.0, row.1, row.2])
    }

    /// Ends a running rollout; false if it does not run.
    pub async fn end_rollout(
        &self,
        writing: &mut Writing,
        id: u64,
        (state, reason): (RolloutState, &str),
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE rollouts SET state = ?, reason = ?, changed_at = ?
             WHERE id = ? AND state = 'running'",
        )
        .bind(state.as_str())
        .bind(reason)
        .bind(int(now.0))
        .bind(int(id))
        .execute(&mut **writing)
        .await
        .map_err(doing("ending a rollout"))?;
        Ok(done.rows_affected() == 1)
    }

    /// All assignments of a rollout.
    pub async fn assignments(&self, rollout: u64) -> Result<Vec<Assignment>, StoreError> {
        let rows: Vec<(String, i64, i64, String, String)> = sqlx::query_as(
            "SELECT device, wave, assigned_at, status, detail FROM assignments
             WHERE rollout = ? ORDER BY wave, assigned_at, device",
        )
        .bind(int(rollout))
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading a rollout's assignments"))?;
        rows.into_iter()
            .map(|(device, wave, at, status, detail)| {
                Ok(Assignment {
                    device: read("assignment's device", &device)?,
                    wave: usize::try_from(wave)
                        .map_err(|_| StoreError::Damaged { what: "assignment's wave" })?,
                    at: UnixMs(number(at)),
                    status: read("assignment's status", &status)?,
                    detail,
                })
            })
            .collect()
    }

    /// Adds an assignment.
    pub async fn add_assignment(
        &self,
        writing: &mut Writing,
        (rollout, sequence): (u64, u64),
        assignment: &Assignment,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO assignments (rollout, device, wave, sequence, assigned_at, status, detail)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(int(rollout))
        .bind(assignment.device.to_string())
        .bind(int(assignment.wave as u64))
        .bind(int(sequence))
        .bind(int(assignment.at.0))
        .bind(assignment.status.as_str())
        .bind(&assignment.detail)
        .execute(&mut **writing)
        .await
        .map_err(doing("adding an assignment"))?;
        Ok(())
    }

    /// Writes down what became of an assignment.
    pub async fn decide_assignment(
        &self,
        writing: &mut Writing,
        (rollout, device): (u64, DeviceId),
        (status, detail): (Status, &str),
        now: UnixMs,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE assignments SET status = ?, detail = ?, decided_at = ?
             WHERE rollout = ? AND device = ?",
        )
        .bind(status.as_str())
        .bind(detail)
        .bind(int(now.0))
        .bind(int(rollout))
        .bind(device.to_string())
        .execute(&mut **writing)
        .await
        .map_err(doing("writing down an outcome"))?;
        Ok(())
    }

    /// Halts a release for the whole fleet.
    pub async fn add_halt(
        &self,
        writing: &mut Writing,
        (release, reason): (Digest, &str),
        now: UnixMs,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO halts (release, reason, at) VALUES (?, ?, ?)")
            .bind(release.to_string())
            .bind(reason)
            .bind(int(now.0))
            .execute(&mut **writing)
            .await
            .map_err(doing("halting a release"))?;
        Ok(())
    }

    /// What is halted; none if nothing ever was.
    pub async fn halted(&self) -> Result<Option<Halted>, StoreError> {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT max(sequence), release, reason FROM halts GROUP BY release
             ORDER BY 1 DESC LIMIT ?",
        )
        .bind(HALTED_MAX)
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading the halts"))?;
        let Some((sequence, _, reason)) = rows.first() else { return Ok(None) };
        Ok(Some(Halted {
            sequence: number(*sequence),
            reason: reason.clone(),
            releases: rows
                .iter()
                .map(|(_, release, _)| read("halted release", release))
                .collect::<Result<_, _>>()?,
        }))
    }

    /// Whether a release is halted.
    pub async fn is_halted(&self, release: Digest) -> Result<bool, StoreError> {
        let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM halts WHERE release = ?")
            .bind(release.to_string())
            .fetch_one(&self.reader)
            .await
            .map_err(doing("looking whether a release is halted"))?;
        Ok(count > 0)
    }
}
