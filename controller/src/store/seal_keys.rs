//! The controller's sealing keys, private halves included; destroyed when they are past use.

use std::collections::BTreeMap;

use protocol::time::UnixMs;

use super::database::{Store, StoreError, doing, int, number};

/// A private X25519 key, never printed.
#[derive(Clone)]
pub struct PrivateKey(pub [u8; 32]);

/// A sealing key's public side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicSide {
    /// Its number.
    pub sequence: u64,
    /// X25519 public key.
    pub public: [u8; 32],
    /// When it was made.
    pub created_at: UnixMs,
    /// Until when devices seal to it.
    pub expires_at: UnixMs,
}

impl Store {
    /// Adds a key and returns its number.
    pub async fn add_seal_key(
        &self,
        private: &PrivateKey,
        public: &[u8; 32],
        (created_at, expires_at): (UnixMs, UnixMs),
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "INSERT INTO seal_keys (private, public, created_at, expires_at) VALUES (?, ?, ?, ?)",
        )
        .bind(private.0.as_slice())
        .bind(public.as_slice())
        .bind(int(created_at.0))
        .bind(int(expires_at.0))
        .execute(&self.writer)
        .await
        .map_err(doing("adding a sealing key"))?;
        Ok(number(done.last_insert_rowid()))
    }

    /// The newest key's public side.
    pub async fn newest_seal_key(&self) -> Result<Option<PublicSide>, StoreError> {
        let row: Option<(i64, Vec<u8>, i64, i64)> = sqlx::query_as(
            "SELECT sequence, public, created_at, expires_at FROM seal_keys
             ORDER BY sequence DESC LIMIT 1",
        )
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("reading the newest sealing key"))?;
        row.map(|(sequence, public, created_at, expires_at)| {
            Ok(PublicSide {
                sequence: number(sequence),
                public: key(&public)?,
                created_at: UnixMs(number(created_at)),
                expires_at: UnixMs(number(expires_at)),
            })
        })
        .transpose()
    }

    /// All private keys that still exist, by number.
    pub async fn private_seal_keys(&self) -> Result<BTreeMap<u64, PrivateKey>, StoreError> {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT sequence, private FROM seal_keys")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("reading the sealing keys"))?;
        rows.into_iter()
            .map(|(sequence, private)| Ok((number(sequence), PrivateKey(key(&private)?))))
            .collect()
    }

    /// Destroys keys made before `before`; returns how many.
    pub async fn destroy_seal_keys(&self, before: UnixMs) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM seal_keys WHERE created_at < ?")
            .bind(int(before.0))
            .execute(&self.writer)
            .await
            .map_err(doing("destroying old sealing keys"))?;
        Ok(done.rows_affected())
    }
}

fn key(raw: &[u8]) -> Result<[u8; 32], StoreError> {
    raw.try_into().map_err(|_| StoreError::Damaged { what: "sealing key" })
}
