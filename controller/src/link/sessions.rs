//! Session keys of devices, opened once by HPKE and kept for the reports that follow; bounded.

use std::collections::HashMap;

use hpke::{
    Deserializable as _, HpkeError, Kem, OpModeR, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256, setup_receiver,
};
use protocol::{
    id::DeviceId,
    seal::{EXPORT_CONTEXT, Header, INFO},
};

use crate::store::seal_keys::PrivateKey;

/// Most sessions kept; a forgotten one is simply opened again.
const SESSIONS_MAX: usize = 4096;

type Name = (DeviceId, u64, [u8; 32]);

/// The kept session keys.
#[derive(Default)]
pub struct Sessions {
    kept: HashMap<Name, Kept>,
    clock: u64,
}

struct Kept {
    key: [u8; 32],
    used: u64,
}

impl Sessions {
    /// The session key of `header`, whose signature the caller has checked.
    pub fn key(&mut self, header: &Header, private: &PrivateKey) -> Result<[u8; 32], HpkeError> {
        let session: [u8; 32] =
            header.session.as_slice().try_into().map_err(|_| HpkeError::DecapError)?;
        let name = (header.device, header.seal_key, session);
        self.clock += 1;
        if let Some(kept) = self.kept.get_mut(&name) {
            kept.used = self.clock;
            return Ok(kept.key);
        }
        let key = open(&session, private)?;
        if self.kept.len() >= SESSIONS_MAX {
            self.forget_half();
        }
        self.kept.insert(name, Kept { key, used: self.clock });
        Ok(key)
    }

    /// Forgets the half that was not used for longest, so that a flood of sessions costs little each.
    fn forget_half(&mut self) {
        let mut uses: Vec<u64> = self.kept.values().map(|kept| kept.used).collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let median = *median;
        self.kept.retain(|_, kept| kept.used >= median);
    }
}

fn open(session: &[u8; 32], private: &PrivateKey) -> Result<[u8; 32], HpkeError> {
    type X = X25519HkdfSha256;
    let private = <X as Kem>::PrivateKey::from_bytes(&private.0)?;
    let encapped = <X as Kem>::EncappedKey::from_bytes(session)?;
    let context = setup_receiver::<ChaCha20Poly1305, HkdfSha256, X>(
        &OpModeR::Base,
        &private,
        &encapped,
        INFO,
    )?;
    let mut key = [0; 32];
    context.export(EXPORT_CONTEXT, &mut key)?;
    Ok(key)
}
