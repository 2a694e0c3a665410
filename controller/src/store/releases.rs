//! Releases and the signed metadata that proves them.

use std::collections::BTreeSet;

use protocol::{digest::Digest, id::Environment, time::UnixMs};
use sqlx::FromRow;

use super::database::{Store, StoreError, Writing, doing, int, number, read};

/// A published release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its name.
    pub name: String,
    /// Its counter.
    pub counter: u64,
    /// Newest targets metadata that lists it.
    pub targets_version: u64,
    /// Size of its manifest.
    pub manifest_bytes: u64,
    /// Version of the agent inside.
    pub agent_version: String,
    /// When it was published.
    pub published_at: UnixMs,
    /// For which environments the newest metadata lists it.
    pub environments: BTreeSet<Environment>,
}

/// One signed document.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// `root`, `snapshot`, `timestamp`, `targets` or a delegated role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// Its bytes, as signed and served.
    pub bytes: Vec<u8>,
}

#[derive(FromRow)]
struct Row {
    digest: String,
    name: String,
    counter: i64,
    targets_version: i64,
    manifest_bytes: i64,
    agent_version: String,
    published_at: i64,
    environments: Option<String>,
}

impl TryFrom<Row> for Release {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            digest: read("release digest", &row.digest)?,
            name: row.name,
            counter: number(row.counter),
            targets_version: number(row.targets_version),
            manifest_bytes: number(row.manifest_bytes),
            agent_version: row.agent_version,
            published_at: UnixMs(number(row.published_at)),
            environments: row
                .environments
                .iter()
                .flat_map(|names| names.split(','))
                .map(|name| read("release environment", name))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Store {
    /// All releases, newest first.
    pub async fn releases(&self) -> Result<Vec<Release>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as("SELECT * FROM listed_releases ORDER BY counter DESC")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading the releases"))?;
        rows.into_iter().map(Release::try_from).collect()
    }

    /// The release with this digest or name.
    pub async fn release(&self, digest_or_name: &str) -> Result<Option<Release>, StoreError> {
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM listed_releases WHERE digest = ?1 OR name = ?1 LIMIT 1")
                .bind(digest_or_name)
                .fetch_optional(&self.reader)
                .await
                .map_err(doing("reading a release"))?;
        row.map(Release::try_from).transpose()
    }

    /// Adds a release.
    pub async fn add_release(
        &self,
        writing: &mut Writing,
        release: &Release,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO releases (digest, name, counter, targets_version, manifest_bytes,
                 agent_version, published_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(release.digest.to_string())
        .bind(&release.name)
        .bind(int(release.counter))
        .bind(int(release.targets_version))
        .bind(int(release.manifest_bytes))
        .bind(&release.agent_version)
        .bind(int(release.published_at.0))
        .execute(&mut **writing)
        .await
        .map_err(doing("adding a release"))?;
        Ok(())
    }

    /// Notes for which environments a release is listed now, and since which targets version.
    pub async fn relist_release(
        &self,
        writing: &mut Writing,
        digest: Digest,
        (version, environments): (u64, &BTreeSet<Environment>),
    ) -> Result<(), StoreError> {
        let failed = "listing a release again";
        sqlx::query("DELETE FROM release_environments WHERE release = ?")
            .bind(digest.to_string())
            .execute(&mut **writing)
            .await
            .map_err(doing(failed))?;
        for environment in environments {
            sqlx::query("INSERT INTO release_environments (release, environment) VALUES (?, ?)")
                .bind(digest.to_string())
                .bind(environment.as_str())
                .execute(&mut **writing)
                .await
                .map_err(doing(failed))?;
        }
        if !environments.is_empty() {
            sqlx::query("UPDATE releases SET targets_version = ? WHERE digest = ?")
                .bind(int(version))
                .bind(digest.to_string())
                .execute(&mut **writing)
                .await
                .map_err(doing(failed))?;
        }
        Ok(())
    }

    /// Adds a signed document.
    pub async fn add_metadata(
        &self,
        writing: &mut Writing,
        metadata: &Metadata,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO metadata (role, version, digest, bytes, published_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&metadata.role)
        .bind(int(metadata.version))
        .bind(Digest::of(&metadata.bytes).to_string())
        .bind(&metadata.bytes)
        .bind(int(now.0))
        .execute(&mut **writing)
        .await
        .map_err(doing("adding metadata"))?;
        Ok(())
    }

    /// One version of a role's metadata.
    pub async fn metadata(&self, role: &str, version: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT bytes FROM metadata WHERE role = ? AND version = ?")
                .bind(role)
                .bind(int(version))
                .fetch_optional(&self.reader)
                .await
                .map_err(doing("reading metadata"))?;
        Ok(row.map(|(bytes,)| bytes))
    }

    /// The newest version of a role's metadata.
    pub async fn newest_metadata(&self, role: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sqlx::query_as(
            "SELECT bytes FROM metadata WHERE role = ? ORDER BY version DESC LIMIT 1",
        )
        .bind(role)
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("reading the newest metadata"))?;
        Ok(row.map(|(bytes,)| bytes))
    }

    /// The newest document of every targets role.
    pub async fn newest_roles(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        sqlx::query_as(
            "SELECT role, bytes FROM metadata m
             WHERE role NOT IN ('root', 'snapshot', 'timestamp')
               AND version = (SELECT max(version) FROM metadata WHERE role = m.role)",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(doing("reading the targets metadata"))
    }

    /// Forgets snapshots and timestamps that newer ones have replaced, but for the last `keep` of each: a device may
    /// be in the middle of fetching them.
    pub async fn forget_online(&self, writing: &mut Writing, keep: u32) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM metadata AS m WHERE role IN ('snapshot', 'timestamp')
               AND version <= (SELECT max(version) FROM metadata WHERE role = m.role) - ?",
        )
        .bind(keep)
        .execute(&mut **writing)
        .await
        .map_err(doing("forgetting old snapshots"))?;
        Ok(())
    }

    /// The root with this digest.
    pub async fn root(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT bytes FROM metadata WHERE role = 'root' AND digest = ?")
                .bind(digest.to_string())
                .fetch_optional(&self.reader)
                .await
                .map_err(doing("reading a root"))?;
        Ok(row.map(|(bytes,)| bytes))
    }
}
