//! A TUF repository as loose JSON, so that it can be made wrong in every way before and after it is signed.
//!
//! Nothing here uses the product's types of metadata: what they cannot write must be written too.

use std::{collections::BTreeMap, rc::Rc};

use data_encoding::HEXLOWER;
use protocol::{
    digest::Digest,
    key::{KeyError, SigningKey},
    tuf::document::canonical,
};
use serde_json::{Map, Value, json};

/// Changes a signed content before it is signed.
pub type Amend = Rc<dyn Fn(&mut Value)>;
/// Files of a repository by name.
pub type Files = BTreeMap<String, Vec<u8>>;
/// Changes a document's bytes after it is signed.
pub type Edit = Rc<dyn Fn(Vec<u8>) -> Vec<u8>>;

/// One document on its way.
#[derive(Clone)]
pub struct Doc {
    /// What is signed, before `amend`.
    pub signed: Value,
    /// Numbers of the keys that sign it.
    pub signers: Vec<u64>,
    /// Changes before signing, in order; the listings are filled in by then.
    pub amend: Vec<Amend>,
    /// Changes after signing that the listing document knows of.
    pub early: Vec<Edit>,
    /// Changes after signing that it does not.
    pub late: Vec<Edit>,
    /// Version under which it is listed, when that is not its own.
    pub listed: Option<u64>,
    /// Not in the listing.
    pub unlisted: bool,
    /// Listed, but not there.
    pub missing: bool,
}

/// A repository on its way.
#[derive(Clone)]
pub struct Draft {
    /// Roots in order; the first is the one that clients are given.
    pub roots: Vec<Doc>,
    /// The timestamp.
    pub timestamp: Doc,
    /// The snapshot.
    pub snapshot: Doc,
    /// `targets` and every delegated role.
    pub roles: BTreeMap<String, Doc>,
    /// Whether listings carry lengths and digests.
    pub hashes: bool,
    /// Files beside, or instead of, those that are rendered.
    pub extra: BTreeMap<String, Vec<u8>>,
}

impl Doc {
    /// A document with this content, signed by these keys.
    pub fn new(signed: Value, signers: &[u64]) -> Self {
        Self {
            signed,
            signers: signers.to_vec(),
            amend: Vec::new(),
            early: Vec::new(),
            late: Vec::new(),
            listed: None,
            unlisted: false,
            missing: false,
        }
    }

    /// Its version, as far as it has one.
    pub fn version(&self) -> u64 {
        self.signed.get("version").and_then(Value::as_u64).unwrap_or(1)
    }

    /// Changes its content before it is signed.
    pub fn amend(&mut self, change: impl Fn(&mut Value) + 'static) {
        self.amend.push(Rc::new(change));
    }

    /// Sets one field before it is signed.
    pub fn set(&mut self, pointer: &'static str, value: Value) {
        self.amend(move |signed| put(signed, pointer, value.clone()));
    }

    /// Takes one field away before it is signed.
    pub fn unset(&mut self, name: &'static str) {
        self.amend(move |signed| {
            signed.as_object_mut().and_then(|fields| fields.remove(name));
        });
    }

    /// The document's bytes as its listing knows them.
    fn bytes(&self, fill: impl FnOnce(&mut Value)) -> Result<Vec<u8>, DraftError> {
        let mut signed = self.signed.clone();
        fill(&mut signed);
        for change in &self.amend {
            change(&mut signed);
        }
        // A float has no canonical form: what is signed then is the whole number that it might be taken for.
        let message =
            canonical(&signed).or_else(|_| canonical(&whole(&signed))).map_err(DraftError::Json)?;
        let mut signatures = Vec::new();
        for number in &self.signers {
            let key = key(*number)?;
            let sig = HEXLOWER.encode(key.sign_raw(&message).as_slice());
            signatures.push(json!({ "keyid": key_id(*number)?, "sig": sig }));
        }
        let document = json!({ "signatures": signatures, "signed": signed });
        let bytes = serde_json::to_vec_pretty(&document).map_err(DraftError::Json)?;
        Ok(self.early.iter().fold(bytes, |bytes, edit| edit(bytes)))
    }

    /// What is served for `bytes`; nothing when the file is missing.
    fn served(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        (!self.missing).then(|| self.late.iter().fold(bytes, |bytes, edit| edit(bytes)))
    }
}

impl Draft {
    /// The role's document; every draft has `targets`.
    pub fn role(&mut self, name: &str) -> Option<&mut Doc> {
        self.roles.get_mut(name)
    }

    /// The newest root.
    pub fn root(&mut self) -> Option<&mut Doc> {
        self.roots.last_mut()
    }

    /// The files of the repository by name, and apart the root that clients are given.
    pub fn render(&self) -> Result<(Vec<u8>, Files), DraftError> {
        let mut files = BTreeMap::new();
        let mut pinned = None;
        for root in &self.roots {
            let bytes = root.bytes(|_| {})?;
            let served = root.served(bytes.clone());
            pinned.get_or_insert(bytes);
            if let Some(served) = served {
                files.insert(format!("{}.root.json", root.version()), served);
            }
        }
        let mut meta = Map::new();
        for (name, doc) in &self.roles {
            let bytes = doc.bytes(|_| {})?;
            let version = doc.listed.unwrap_or_else(|| doc.version());
            if !doc.unlisted {
                meta.insert(format!("{name}.json"), self.entry(version, &bytes));
            }
            if let Some(served) = doc.served(bytes) {
                put_both(&mut files, version, name, served);
            }
        }
        let snapshot = self.snapshot.bytes(|signed| put(signed, "/meta", Value::Object(meta)))?;
        let version = self.snapshot.listed.unwrap_or_else(|| self.snapshot.version());
        let entry = self.entry(version, &snapshot);
        if let Some(served) = self.snapshot.served(snapshot) {
            put_both(&mut files, version, "snapshot", served);
        }
        let timestamp = self
            .timestamp
            .bytes(|signed| put(signed, "/meta", json!({ "snapshot.json": entry })))?;
        if let Some(served) = self.timestamp.served(timestamp) {
            files.insert("timestamp.json".to_owned(), served);
        }
        files.extend(self.extra.clone());
        Ok((pinned.unwrap_or_default(), files))
    }

    fn entry(&self, version: u64, bytes: &[u8]) -> Value {
        if self.hashes {
            let sha256 = Digest::of(bytes).to_string();
            json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": sha256 } })
        } else {
            json!({ "version": version })
        }
    }
}

/// Why a repository is not rendered: a mistake of ours.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// A value has no canonical form.
    #[error("writing metadata")]
    Json(#[source] serde_json::Error),
    /// A key cannot be made.
    #[error("making key {0}")]
    Key(u64, #[source] KeyError),
}

/// A document as it was when it was new: signed, with no later change.
pub fn signed_bytes(doc: &Doc) -> Result<Vec<u8>, DraftError> {
    doc.bytes(|_| {})
}

/// Key number `number` as a PKCS#8 document.
pub fn pkcs8(number: u64) -> Vec<u8> {
    // PKCS#8 version 1 of an Ed25519 key, without its 32 secret bytes (RFC 8410).
    let mut pkcs8 = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    pkcs8.extend_from_slice(Digest::of(&number.to_le_bytes()).as_bytes());
    pkcs8
}

/// Key number `number`: the same one in every run.
pub fn key(number: u64) -> Result<SigningKey, DraftError> {
    SigningKey::from_pkcs8(&pkcs8(number)).map_err(|source| DraftError::Key(number, source))
}

/// Key number `number` as metadata writes it.
pub fn public(number: u64) -> Result<Value, DraftError> {
    let public = HEXLOWER.encode(key(number)?.public().as_bytes());
    Ok(json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public } }))
}

/// The id of key number `number`.
pub fn key_id(number: u64) -> Result<String, DraftError> {
    id_of(&public(number)?)
}

/// The id of a key as metadata writes it.
pub fn id_of(key: &Value) -> Result<String, DraftError> {
    Ok(Digest::of(&canonical(key).map_err(DraftError::Json)?).to_string())
}

/// `{"keyids": …, "threshold": …}` of these keys.
pub fn role(numbers: &[u64], threshold: u64) -> Result<Value, DraftError> {
    let keyids = numbers.iter().map(|n| key_id(*n)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "keyids": keyids, "threshold": threshold }))
}

/// The map of these keys by id.
pub fn keys(numbers: impl IntoIterator<Item = u64>) -> Result<Value, DraftError> {
    let mut keys = Map::new();
    for number in numbers {
        keys.insert(key_id(number)?, public(number)?);
    }
    Ok(Value::Object(keys))
}

/// Sets what `pointer` names; its parent must be an object that is there.
pub fn put(value: &mut Value, pointer: &str, new: Value) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    let parent = if parent.is_empty() { Some(value) } else { value.pointer_mut(parent) };
    if let Some(fields) = parent.and_then(Value::as_object_mut) {
        fields.insert(name.replace("~1", "/").replace("~0", "~"), new);
    }
}

/// The value with every float cut to a whole number.
fn whole(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => json!(float as i64),
            Some(_) | None => value.clone(),
        },
        Value::Array(items) => items.iter().map(whole).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), whole(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

/// The file under its versioned and its plain name.
fn put_both(files: &mut Files, version: u64, name: &str, bytes: Vec<u8>) {
    files.insert(format!("{version}.{name}.json"), bytes.clone());
    files.insert(format!("{name}.json"), bytes);
}
