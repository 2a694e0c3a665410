//! A TUF document: `{"signed": …, "signatures": […]}`, and the threshold check over its canonical JSON.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use olpc_cjson::CanonicalFormatter;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    cbor::DOCUMENT_BYTES_MAX,
    digest::Digest,
    key::SigningKey,
    tuf::metadata::{DelegatedRole, Delegations, Key, Root},
};

/// Most signatures one document may carry.
const SIGNATURES_MAX: usize = 64;

/// A signed JSON document whose signatures have not been checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// The content that is signed, in canonical form.
    pub signed: Value,
    /// Who signed it.
    pub signatures: Vec<Signature>,
}

/// One signature of a [`Document`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// TUF key id of the signer.
    pub keyid: String,
    /// Ed25519 signature, hexadecimal.
    pub sig: String,
}

/// Who signs for a role, and how many of them must.
#[derive(Clone, Debug, PartialEq)]
pub struct Signers {
    role: String,
    threshold: u32,
    keys: BTreeMap<String, Key>,
}

/// Why a document is refused before its content is looked at.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Larger than any metadata we accept.
    #[error("{role} metadata of {bytes} bytes is larger than the {DOCUMENT_BYTES_MAX} allowed")]
    TooLarge {
        /// Role being read.
        role: String,
        /// Size seen.
        bytes: usize,
    },
    /// Not JSON of the TUF shape.
    #[error("{role} metadata is not TUF JSON")]
    Shape {
        /// Role being read.
        role: String,
        /// Where.
        source: serde_json::Error,
    },
    /// More signatures than we check.
    #[error("{role} metadata carries {count} signatures; at most {SIGNATURES_MAX} are read")]
    TooManySignatures {
        /// Role being read.
        role: String,
        /// How many.
        count: usize,
    },
    /// One key id signs twice.
    #[error("{role} metadata carries two signatures by key {keyid}; keep one of them")]
    SignedTwice {
        /// Role being read.
        role: String,
        /// The key's id.
        keyid: String,
    },
    /// The root names no such role.
    #[error("the trusted root does not name the role {role}")]
    UnknownRole {
        /// Role being read.
        role: String,
    },
    /// Fewer distinct trusted keys signed than are asked for.
    #[error(
        "{role} metadata is signed by {valid} of the {threshold} distinct keys it needs; sign it with more of the role's keys"
    )]
    Threshold {
        /// Role being read.
        role: String,
        /// Distinct trusted keys with a valid signature.
        valid: u32,
        /// How many are asked for.
        threshold: u32,
    },
}

/// Canonical JSON (OLPC form, as TUF specifies): what is signed.
pub fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, CanonicalFormatter::new());
    value.serialize(&mut serializer)?;
    Ok(bytes)
}

impl Document {
    /// Reads a document of `role` without trusting it.
    pub fn parse(role: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLarge { role: role.to_owned(), bytes: bytes.len() });
        }
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Shape { role: role.to_owned(), source })?;
        if document.signatures.len() > SIGNATURES_MAX {
            return Err(DocumentError::TooManySignatures {
                role: role.to_owned(),
                count: document.signatures.len(),
            });
        }
        let mut signers = BTreeSet::new();
        if let Some(twice) =
            document.signatures.iter().find(|signature| !signers.insert(&signature.keyid))
        {
            let keyid = twice.keyid.chars().take(64).collect();
            return Err(DocumentError::SignedTwice { role: role.to_owned(), keyid });
        }
        Ok(document)
    }

    /// A document with `content` and no signature yet.
    pub fn unsigned<T: Serialize>(content: &T) -> Result<Self, serde_json::Error> {
        Ok(Self { signed: serde_json::to_value(content)?, signatures: Vec::new() })
    }

    /// Adds `key`'s signature; a second one by the same key replaces the first.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), serde_json::Error> {
        let keyid = Key::ed25519(&key.public()).id()?;
        let sig = HEXLOWER.encode(key.sign_raw(&canonical(&self.signed)?).as_slice());
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(Signature { keyid, sig });
        Ok(())
    }

    /// The document's bytes as they are published.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Holds if enough distinct keys of `signers` signed this document.
    pub fn meets(&self, signers: &Signers) -> Result<(), DocumentError> {
        let role = &signers.role;
        let shape = |source| DocumentError::Shape { role: role.clone(), source };
        let message = canonical(&self.signed).map_err(shape)?;
        // A set of key *material*: one key listed under two ids counts once.
        let mut valid = BTreeSet::new();
        for signature in &self.signatures {
            let Some(key) = signers.keys.get(&signature.keyid) else { continue };
            if key.id().map_err(shape)? != signature.keyid {
                continue;
            }
            let (Some(public), Ok(sig)) = (key.public(), HEXLOWER.decode(signature.sig.as_bytes()))
            else {
                continue;
            };
            if public.verifies_raw(&message, &sig) {
                valid.insert(public);
            }
        }
        let valid = u32::try_from(valid.len()).unwrap_or(u32::MAX);
        let threshold = signers.threshold;
        // A threshold of zero would accept a document that nobody signed.
        if valid >= threshold && threshold > 0 {
            Ok(())
        } else {
            let threshold = threshold.max(1);
            Err(DocumentError::Threshold { role: role.clone(), valid, threshold })
        }
    }
}

impl Signers {
    /// Whom `root` lets sign its role `role`.
    pub fn of_root(root: &Root, role: &str) -> Result<Self, DocumentError> {
        let named = root
            .roles
            .get(role)
            .ok_or_else(|| DocumentError::UnknownRole { role: role.to_owned() })?;
        Ok(Self::new(role, named.threshold, &named.keyids, &root.keys))
    }

    /// Whom `delegations` lets sign for its role `role`.
    pub fn of_delegation(delegations: &Delegations, role: &DelegatedRole) -> Self {
        Self::new(&role.name, role.threshold, &role.keyids, &delegations.keys)
    }

    fn new(role: &str, threshold: u32, keyids: &[String], keys: &BTreeMap<String, Key>) -> Self {
        let named = keyids.iter().filter_map(|id| Some((id.clone(), keys.get(id)?.clone())));
        Self { role: role.to_owned(), threshold, keys: named.collect() }
    }

    /// The role they sign for.
    pub fn role(&self) -> &str {
        &self.role
    }
}

impl Key {
    /// The key's TUF id: SHA-256 of its canonical JSON, hexadecimal.
    pub fn id(&self) -> Result<String, serde_json::Error> {
        Ok(Digest::of(&canonical(self)?).to_string())
    }
}
