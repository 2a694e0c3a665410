//! Opening the database: one writer, several readers, write-ahead log, every commit synced.

use std::{path::Path, str::FromStr, time::Duration};

use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");
const READERS: u32 = 4;
const WAIT: Duration = Duration::from_secs(10);

/// The controller's database. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) reader: SqlitePool,
    pub(super) writer: SqlitePool,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened or brought to this version.
    #[error("bringing the database to this version")]
    Migrate(#[source] MigrateError),
    /// A query failed: disk full, file damaged, waited too long.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A row holds what this version never writes.
    #[error("the database holds a damaged {what}; restore it from a copy")]
    Damaged {
        /// Which column.
        what: &'static str,
    },
}

/// A write in progress; nothing of it holds before [`Store::commit`].
pub type Writing = Transaction<'static, Sqlite>;

/// Names what failed.
pub(super) fn doing(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { doing: what, source }
}

/// A number as SQLite holds it. Ours stay far below the limit.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was written by [`int`].
pub(super) fn number(int: i64) -> u64 {
    u64::try_from(int).unwrap_or(0)
}

/// A text that was written by `Display` and must read back.
pub(super) fn read<T: FromStr>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged { what })
}

impl Store {
    /// Opens the database at `path`, creating it if need be, and brings it to this version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A report is acknowledged after its commit, so a commit must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Sealing keys that are destroyed must leave no trace in free pages.
            .pragma("secure_delete", "ON")
            .busy_timeout(WAIT);
        let open = doing("opening the database");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(WAIT)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        MIGRATIONS.run(&writer).await.map_err(StoreError::Migrate)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(WAIT)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(doing("opening the database for reading"))?;
        Ok(Self { reader, writer })
    }

    /// Starts a write. There is one writer, so this waits for the one before.
    pub async fn begin(&self) -> Result<Writing, StoreError> {
        self.writer.begin().await.map_err(doing("starting a write"))
    }

    /// Makes a write hold.
    pub async fn commit(&self, writing: Writing) -> Result<(), StoreError> {
        writing.commit().await.map_err(doing("committing a write"))
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}
