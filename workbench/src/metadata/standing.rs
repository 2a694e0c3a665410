//! Where the signing of a document stands: which keys of its role signed what it says now, and which have not yet.

use std::{collections::BTreeSet, fmt};

use data_encoding::HEXLOWER;
use protocol::tuf::document::{Document, canonical};
use serde::Serialize;

use crate::metadata::signers::Signers;

/// Who signed, and who has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The role.
    pub role: String,
    /// How many distinct keys must sign.
    pub threshold: u32,
    /// Ids of keys whose signature holds.
    pub signed: Vec<String>,
    /// Ids of the role's other keys.
    pub missing: Vec<String>,
}

impl Standing {
    /// Where `document` stands with `signers`.
    pub fn of(document: &Document, signers: &Signers) -> Result<Self, serde_json::Error> {
        let message = canonical(&document.signed)?;
        let mut signed = BTreeSet::new();
        // One key under two ids counts once, as it does for devices.
        let mut material = BTreeSet::new();
        for signature in &document.signatures {
            let Some(key) = signers.keys.get(&signature.keyid) else { continue };
            let (Some(public), Ok(raw)) = (key.public(), HEXLOWER.decode(signature.sig.as_bytes()))
            else {
                continue;
            };
            if key.id()? == signature.keyid
                && public.verifies_raw(&message, &raw)
                && material.insert(public)
            {
                signed.insert(signature.keyid.clone());
            }
        }
        let missing = signers.keys.keys().filter(|id| !signed.contains(*id)).cloned().collect();
        Ok(Self {
            role: signers.role.clone(),
            threshold: signers.threshold,
            signed: signed.into_iter().collect(),
            missing,
        })
    }

    /// Whether enough keys signed.
    pub fn complete(&self) -> bool {
        self.threshold > 0 && self.signed.len() >= self.threshold as usize
    }
}

/// An id as people compare it.
pub fn short(keyid: &str) -> &str {
    keyid.get(..12).unwrap_or(keyid)
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ids: &[String]| {
            ids.iter().map(|id| short(id).to_owned()).collect::<Vec<_>>().join(", ")
        };
        write!(f, "{}: {} of {} signatures", self.role, self.signed.len(), self.threshold)?;
        if !self.signed.is_empty() {
            write!(f, " (by {})", names(&self.signed))?;
        }
        if self.complete() {
            f.write_str(", enough")
        } else {
            let more = (self.threshold as usize).saturating_sub(self.signed.len());
            write!(f, "; {more} more of {}", names(&self.missing))
        }
    }
}
