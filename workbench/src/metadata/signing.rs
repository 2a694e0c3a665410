//! Adding signatures to a document and bringing together those that were made on different machines.

use protocol::{
    key::SigningKey,
    tuf::{document::Document, metadata::Key},
};

use crate::metadata::{
    signers::Signers,
    standing::{self, Standing},
};

/// Why a signature is not added.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A key that the role does not have.
    #[error(
        "key {} signs nothing here: it is not one of the {} keys of {}; take a key that is, or name it first",
        standing::short(.id), .count, .role
    )]
    Foreign {
        /// The key.
        id: String,
        /// The role.
        role: String,
        /// How many keys it has.
        count: usize,
    },
    /// Signatures over something else.
    #[error(
        "the documents differ in what is signed, so their signatures cannot be brought together; sign copies of one and the same document"
    )]
    Differ,
    /// A mistake of ours.
    #[error("encoding metadata")]
    Json(#[from] serde_json::Error),
}

/// Adds `key`'s signature, if it is one of `allowed`'s.
pub fn sign(
    document: &mut Document,
    allowed: &[&Signers],
    key: &SigningKey,
) -> Result<(), SigningError> {
    let id = Key::ed25519(&key.public()).id()?;
    if !allowed.iter().any(|signers| signers.keys.contains_key(&id)) {
        let role = allowed.iter().map(|signers| signers.role.as_str()).collect::<Vec<_>>();
        let count = allowed.iter().map(|signers| signers.keys.len()).sum();
        return Err(SigningError::Foreign { id, role: role.join(" or "), count });
    }
    Ok(document.sign(key)?)
}

/// Adds `other`'s signatures to `document`. Both must say the same. What does not hold for a key of `allowed` is left
/// out, so that a damaged copy cannot push out a good signature.
pub fn merge(
    document: &mut Document,
    other: &Document,
    allowed: &[&Signers],
) -> Result<(), SigningError> {
    if document.signed != other.signed {
        return Err(SigningError::Differ);
    }
    let offered = std::mem::take(&mut document.signatures);
    for signature in offered.into_iter().chain(other.signatures.iter().cloned()) {
        let known = document.signatures.iter().any(|known| known.keyid == signature.keyid);
        let alone =
            Document { signed: document.signed.clone(), signatures: vec![signature.clone()] };
        let mut holds = false;
        for signers in allowed {
            holds |= !Standing::of(&alone, signers)?.signed.is_empty();
        }
        if holds && !known {
            document.signatures.push(signature);
        }
    }
    document.signatures.sort_by(|a, b| a.keyid.cmp(&b.keyid));
    Ok(())
}
