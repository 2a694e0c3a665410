//! Enrolment tokens: only the digest of the secret is kept; each is used once.

use protocol::{
    digest::Digest,
    id::{DeviceId, Environment},
    time::UnixMs,
};
use sqlx::FromRow;

use super::database::{Store, StoreError, Writing, doing, int, number, read};

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its public name, hexadecimal.
    pub id: String,
    /// Digest of its secret.
    pub secret_digest: Digest,
    /// Digest of the release root it pins.
    pub root: Digest,
    /// Environment that its device will belong to.
    pub environment: Environment,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it ceases to hold.
    pub expires_at: UnixMs,
    /// When it was used.
    pub used_at: Option<UnixMs>,
}

#[derive(FromRow)]
struct Row {
    id: String,
    secret_digest: String,
    root: String,
    environment: String,
    created_at: i64,
    expires_at: i64,
    used_at: Option<i64>,
}

impl Store {
    /// Keeps a new token and forgets those that expired a month ago.
    pub async fn add_token(&self, token: &Token) -> Result<(), StoreError> {
        const KEEP_MS: u64 = 30 * 86_400_000;
        let mut writing = self.begin().await?;
        sqlx::query("DELETE FROM tokens WHERE expires_at < ?")
            .bind(int(token.created_at.0.saturating_sub(KEEP_MS)))
            .execute(&mut *writing)
            .await
            .map_err(doing("forgetting old tokens"))?;
        sqlx::query(
            "INSERT INTO tokens (id, secret_digest, root, environment, created_at, expires_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&token.id)
        .bind(token.secret_digest.to_string())
        .bind(token.root.to_string())
        .bind(token.environment.as_str())
        .bind(int(token.created_at.0))
        .bind(int(token.expires_at.0))
        .execute(&mut *writing)
        .await
        .map_err(doing("keeping a token"))?;
        self.commit(writing).await
    }

    /// The token named `id`.
    pub async fn token(&self, id: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, secret_digest, root, environment, created_at, expires_at, used_at
             FROM tokens WHERE id = ?",
        )
        .bind(id)
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("reading a token"))?;
        row.map(|row| {
            Ok(Token {
                secret_digest: read("token digest", &row.secret_digest)?,
                root: read("token root", &row.root)?,
                environment: read("token environment", &row.environment)?,
                id: row.id,
                created_at: UnixMs(number(row.created_at)),
                expires_at: UnixMs(number(row.expires_at)),
                used_at: row.used_at.map(|at| UnixMs(number(at))),
            })
        })
        .transpose()
    }

    /// Marks a token as used by `device`; false if it was used already. Of two requests at once, one wins.
    pub async fn use_token(
        &self,
        writing: &mut Writing,
        id: &str,
        device: DeviceId,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE tokens SET used_at = ?, used_by = ?
             WHERE id = ? AND used_at IS NULL AND expires_at > ?",
        )
        .bind(int(now.0))
        .bind(device.to_string())
        .bind(id)
        .bind(int(now.0))
        .execute(&mut **writing)
        .await
        .map_err(doing("using a token"))?;
        Ok(done.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_used_once_and_not_after_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).await.unwrap();
        let device = DeviceId::from(Digest::of(b"device"));
        let token = |id: &str| Token {
            id: id.into(),
            secret_digest: Digest::of(b"secret"),
            root: Digest::of(b"root"),
            environment: "prod".parse().unwrap(),
            created_at: UnixMs(0),
            expires_at: UnixMs(100),
            used_at: None,
        };
        for id in ["a", "b"] {
            store.add_token(&token(id)).await.unwrap();
        }
        let mut writing = store.begin().await.unwrap();
        for (id, at, used) in
            [("a", 99, true), ("a", 99, false), ("b", 100, false), ("c", 1, false)]
        {
            let done = store.use_token(&mut writing, id, device, UnixMs(at)).await.unwrap();
            assert_eq!(done, used, "{id} at {at}");
        }
        store.commit(writing).await.unwrap();
        assert_eq!(store.token("a").await.unwrap().unwrap().used_at, Some(UnixMs(99)));
        assert_eq!(store.token("b").await.unwrap(), Some(token("b")));
    }
}
