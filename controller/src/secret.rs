//! Random secrets, and comparing them without telling how much of a guess was right.

use data_encoding::HEXLOWER;
use protocol::digest::Digest;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// The system's random generator failed.
#[derive(Debug, thiserror::Error)]
#[error("the system's random generator gave no bytes")]
pub struct NoRandom;

/// `N` random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A new bearer token: 64 hexadecimal characters.
pub fn token() -> Result<String, NoRandom> {
    Ok(HEXLOWER.encode(&random::<32>()?))
}

/// Whether two secrets are equal, in a time that depends on neither. Both sides are hashed under a key of this call,
/// so what is compared byte by byte tells a guesser nothing.
pub fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let Ok(key) = random::<32>() else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, ours);
    hmac::verify(&key, theirs, tag.as_ref()).is_ok()
}

/// What is kept of a secret that is only ever compared.
pub fn digest(secret: &[u8]) -> Digest {
    Digest::of(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_secrets_are_the_same() {
        let token = token().unwrap();
        assert_eq!(token.len(), 64);
        assert!(same(token.as_bytes(), token.as_bytes()));
        for wrong in ["", "0", &token[1..], &format!("{token}0")] {
            assert!(!same(token.as_bytes(), wrong.as_bytes()), "{wrong:?}");
        }
    }
}
