//! Public halves: a small JSON file beside each key, in the form that metadata has, and a controller's online keys.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use protocol::tuf::{metadata::Key, online::OnlineKeys};
use serde::{Deserialize, Serialize};

use crate::files::{self, Access, FileError};

const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a public key cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PublicError {
    /// A file.
    #[error("handling a public key file")]
    File(#[from] FileError),
    /// Not of that shape.
    #[error("`{}` is not a public key as `socle keys` writes it (a .pub.json file)", .path.display())]
    Shape {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A name that is not the key's.
    #[error("`{}` says key {said}, but the key in it is {is}: the file was altered", .path.display())]
    Id {
        /// Which.
        path: PathBuf,
        /// What it says.
        said: String,
        /// What it is.
        is: String,
    },
    /// A kind of key that is never counted.
    #[error("`{}` is not an Ed25519 key; other kinds are never counted", .0.display())]
    Kind(PathBuf),
    /// A mistake of ours.
    #[error("encoding a public key")]
    Encode(#[source] serde_json::Error),
}

/// The file: a key as metadata has it, and its id.
#[derive(Serialize, Deserialize)]
struct Written {
    keyid: String,
    keytype: String,
    scheme: String,
    keyval: BTreeMap<String, String>,
}

/// A key with its TUF id.
pub fn id(key: &Key) -> Result<String, PublicError> {
    key.id().map_err(PublicError::Encode)
}

/// The content of a public key file.
pub fn shown(key: &Key) -> Result<String, PublicError> {
    let written = Written {
        keyid: id(key)?,
        keytype: key.keytype.clone(),
        scheme: key.scheme.clone(),
        keyval: BTreeMap::from([("public".to_owned(), key.keyval.public.clone())]),
    };
    serde_json::to_string_pretty(&written).map(|text| text + "\n").map_err(PublicError::Encode)
}

/// Writes the public half, replacing nothing.
pub fn write_new(path: &Path, key: &Key) -> Result<(), PublicError> {
    Ok(files::write_new(path, shown(key)?.as_bytes(), Access::All)?)
}

/// Reads a public key file and checks its id.
pub fn read(path: &Path) -> Result<Key, PublicError> {
    let bytes = files::read(path, FILE_BYTES_MAX)?;
    let shape = |source| PublicError::Shape { path: path.to_owned(), source };
    let Written { keyid, keytype, scheme, keyval } =
        serde_json::from_slice(&bytes).map_err(shape)?;
    let plain = serde_json::json!({ "keytype": keytype, "scheme": scheme, "keyval": keyval });
    let key: Key = serde_json::from_value(plain).map_err(shape)?;
    checked(path, key, Some(keyid))
}

/// Reads a controller's `online-keys.json`.
pub fn read_online(path: &Path) -> Result<OnlineKeys, PublicError> {
    let bytes = files::read(path, FILE_BYTES_MAX)?;
    let online: OnlineKeys = serde_json::from_slice(&bytes)
        .map_err(|source| PublicError::Shape { path: path.to_owned(), source })?;
    for key in online.snapshot.iter().chain(&online.timestamp) {
        checked(path, key.clone(), None)?;
    }
    Ok(online)
}

fn checked(path: &Path, key: Key, said: Option<String>) -> Result<Key, PublicError> {
    if key.public().is_none() {
        return Err(PublicError::Kind(path.to_owned()));
    }
    let is = id(&key)?;
    match said {
        Some(said) if said != is => Err(PublicError::Id { path: path.to_owned(), said, is }),
        Some(_) | None => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::key::PublicKey;

    #[test]
    fn a_public_key_file_is_believed_only_when_its_id_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pub.json");
        let key = Key::ed25519(&PublicKey::from_bytes([7; 32]));
        write_new(&path, &key).unwrap();
        assert_eq!(read(&path).unwrap(), key);
        let altered = shown(&key).unwrap().replace("0707070707", "0807070707");
        files::write(&path, altered.as_bytes(), Access::All).unwrap();
        assert!(matches!(read(&path), Err(PublicError::Id { .. })));
        let other = shown(&key).unwrap().replace("\"scheme\": \"ed25519\"", "\"scheme\": \"rsa\"");
        files::write(&path, other.as_bytes(), Access::All).unwrap();
        assert!(matches!(read(&path), Err(PublicError::Kind(_))));
    }
}
