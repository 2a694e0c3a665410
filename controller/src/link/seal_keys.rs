//! The controller's sealing key: a new one each day, destroyed after a week.

use hpke::{Kem as _, Serializable as _, kem::X25519HkdfSha256};
use protocol::{
    cbor::EncodeError,
    command::{SealKey, Signable as _},
    id::FleetId,
    key::{PublicKey, SigningKey},
    time::UnixMs,
};

use crate::store::{
    database::{Store, StoreError},
    seal_keys::{PrivateKey, PublicSide},
};

const DAY_MS: u64 = 86_400_000;
/// Age at which a key is replaced.
const REPLACE_MS: u64 = DAY_MS;
/// Until when a device that hears of no newer key seals to one.
const SEAL_MS: u64 = 6 * DAY_MS;
/// Age at which a key is destroyed.
const DESTROY_MS: u64 = 7 * DAY_MS;

/// Why there is no sealing key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The store.
    #[error("keeping the sealing keys")]
    Store(#[source] StoreError),
    /// A key that cannot be announced.
    #[error("signing the sealing key")]
    Sign(#[source] EncodeError),
    /// Nobody has made one.
    #[error("the controller has no sealing key yet; start `serve` once")]
    Absent,
}

/// Makes a new key if the newest is a day old, and destroys those past a week. Whether there is a new one.
pub async fn rotate(store: &Store, now: UnixMs) -> Result<bool, SealKeyError> {
    let destroyed = store
        .destroy_seal_keys(UnixMs(now.0.saturating_sub(DESTROY_MS)))
        .await
        .map_err(SealKeyError::Store)?;
    if destroyed > 0 {
        tracing::info!(destroyed, "destroyed sealing keys older than a week");
    }
    let newest = store.newest_seal_key().await.map_err(SealKeyError::Store)?;
    if newest.is_some_and(|key| now.since(key.created_at) < REPLACE_MS) {
        return Ok(false);
    }
    let (private, public) = X25519HkdfSha256::gen_keypair();
    let (private, public) = (PrivateKey(private.to_bytes().into()), public.to_bytes().into());
    let sequence = store
        .add_seal_key(&private, &public, (now, now.plus(SEAL_MS)))
        .await
        .map_err(SealKeyError::Store)?;
    tracing::info!(sequence, "made a new sealing key");
    Ok(true)
}

/// The newest key, signed, as devices read it.
pub async fn announced(
    store: &Store,
    fleet: &FleetId,
    signer: &SigningKey,
) -> Result<Vec<u8>, SealKeyError> {
    let newest = store.newest_seal_key().await.map_err(SealKeyError::Store)?;
    let PublicSide { sequence, public, expires_at, .. } = newest.ok_or(SealKeyError::Absent)?;
    SealKey { fleet: fleet.clone(), sequence, public: PublicKey::from_bytes(public), expires_at }
        .signed_by(signer)
        .map_err(SealKeyError::Sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_replaced_daily_and_destroyed_after_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).await.unwrap();
        let start = UnixMs(1_795_000_000_000);
        for (day, made, kept) in
            [(0, true, 1), (0, false, 1), (1, true, 2), (7, true, 3), (8, true, 3)]
        {
            let now = start.plus(day * DAY_MS);
            assert_eq!(rotate(&store, now).await.unwrap(), made, "day {day}");
            let keys = store.private_seal_keys().await.unwrap();
            assert_eq!(keys.len(), kept, "day {day}");
        }
        // A number is never given twice, whatever was destroyed.
        assert_eq!(store.newest_seal_key().await.unwrap().unwrap().sequence, 4);
    }
}
