//! Release keys: made once, offline, and kept apart; and the root metadata that names them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use protocol::{
    digest::Digest,
    key::{KeyError, SigningKey},
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{Key, Role, Root, SPEC_VERSION},
    },
};
use ring::rand::SystemRandom;
use serde_json::json;

use crate::{
    files::{self, Access, FileError},
    terminal::Terminal,
};

/// Most keys of one role.
const KEYS_MAX: u32 = 16;
const DAY_MS: u64 = 86_400_000;

/// `socle keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make the keys of a new fleet and sign its first root
    #[command(
        after_help = "Example:\n  socle keys init --out ./keys --keys 3 --threshold 2\n\nMove each root-*.pk8 and targets-*.pk8 to a machine or stick of its own: whoever holds a threshold of them can\nsign releases."
    )]
    Init(InitArgs),
}

/// Arguments of `socle keys init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to make the keys in
    #[arg(long)]
    pub out: PathBuf,
    /// Keys for the root role and for the targets role
    #[arg(long, default_value_t = 3)]
    pub keys: u32,
    /// How many of them must sign
    #[arg(long, default_value_t = 2)]
    pub threshold: u32,
    /// Days until the root must be renewed
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Why no keys were made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A count that protects nothing.
    #[error(
        "{keys} keys with a threshold of {threshold}: take 1 to {KEYS_MAX} keys, and a threshold from 1 to their number (2 of 3 is usual)"
    )]
    Count {
        /// Keys asked for.
        keys: u32,
        /// Threshold asked for.
        threshold: u32,
    },
    /// A file.
    #[error("handling key files")]
    File(#[from] FileError),
    /// A key file that holds none.
    #[error("reading the key `{}`", .path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// No key could be made.
    #[error("making a key")]
    Make(#[source] KeyError),
    /// Metadata that cannot be written.
    #[error("writing root metadata")]
    Metadata(#[source] serde_json::Error),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle keys …`.
pub fn run(command: &KeysCommand, now: UnixMs, terminal: &Terminal) -> Result<(), KeysError> {
    match command {
        KeysCommand::Init(args) => {
            let root = init(args, now)?;
            let pin = Digest::of(&root);
            let value = json!({ "root": args.out.join("metadata/1.root.json"), "root_sha256": pin, "keys": args.keys, "threshold": args.threshold });
            let text = format!(
                "Made {n} root keys and {n} targets keys (any {t} of {n} sign) in {dir}\nRoot: {dir}/metadata/1.root.json\n  SHA-256 {pin}\nNext: keep the *.pk8 files apart and offline; then `socle release build --help`.",
                n = args.keys,
                t = args.threshold,
                dir = args.out.display(),
            );
            Ok(terminal.result(&text, &value)?)
        }
    }
}

/// Makes keys and root below `args.out`; the root's bytes come back.
pub fn init(args: &InitArgs, now: UnixMs) -> Result<Vec<u8>, KeysError> {
    let &InitArgs { keys, threshold, days, .. } = args;
    if !(1..=KEYS_MAX).contains(&keys) || !(1..=keys).contains(&threshold) {
        return Err(KeysError::Count { keys, threshold });
    }
    let metadata = args.out.join("metadata");
    files::make_folder(&metadata)?;
    let make = |name: String| make_key(&args.out.join(format!("{name}.pk8")));
    let root_keys = (1..=keys).map(|n| make(format!("root-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let targets_keys =
        (1..=keys).map(|n| make(format!("targets-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let (snapshot, timestamp) = ([make("snapshot".into())?], [make("timestamp".into())?]);

    let roles = [
        ("root", root_keys.as_slice(), threshold),
        ("targets", &targets_keys, threshold),
        ("snapshot", &snapshot, 1),
        ("timestamp", &timestamp, 1),
    ];
    let expires = now.plus(u64::from(days) * DAY_MS).to_rfc3339();
    let root = first_root(&roles, expires).map_err(KeysError::Metadata)?;
    let mut document = Document::unsigned(&root).map_err(KeysError::Metadata)?;
    for key in root_keys.iter().take(threshold as usize) {
        document.sign(key).map_err(KeysError::Metadata)?;
    }
    let bytes = document.to_bytes().map_err(KeysError::Metadata)?;
    files::write_new(&metadata.join("1.root.json"), &bytes, Access::All)?;
    Ok(bytes)
}

/// Reads a private key in PKCS#8.
pub fn read_key(path: &Path) -> Result<SigningKey, KeysError> {
    let document = files::read(path, 4096)?;
    SigningKey::from_pkcs8(&document)
        .map_err(|source| KeysError::Key { path: path.to_owned(), source })
}

fn make_key(path: &Path) -> Result<SigningKey, KeysError> {
    let document = SigningKey::generate_pkcs8(&SystemRandom::new()).map_err(KeysError::Make)?;
    files::write_new(path, &document, Access::Owner)?;
    SigningKey::from_pkcs8(&document).map_err(KeysError::Make)
}

fn first_root(
    roles: &[(&str, &[SigningKey], u32)],
    expires: String,
) -> Result<Root, serde_json::Error> {
    let mut root = Root {
        kind: "root".into(),
        spec_version: SPEC_VERSION.into(),
        version: 1,
        expires,
        consistent_snapshot: true,
        keys: BTreeMap::new(),
        roles: BTreeMap::new(),
        other: BTreeMap::new(),
    };
    for &(role, keys, threshold) in roles {
        let mut keyids = Vec::new();
        for key in keys {
            let key = Key::ed25519(&key.public());
            let id = key.id()?;
            keyids.push(id.clone());
            root.keys.insert(id, key);
        }
        root.roles.insert(role.to_owned(), Role { keyids, threshold });
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tuf::verify::pinned_root;

    fn args(out: &Path, keys: u32, threshold: u32) -> InitArgs {
        InitArgs { out: out.to_owned(), keys, threshold, days: 1 }
    }

    #[test]
    fn the_first_root_is_one_that_devices_accept() {
        let folder = tempfile::tempdir().unwrap();
        let root = init(&args(folder.path(), 3, 2), UnixMs(0)).unwrap();
        let root = pinned_root(&root).unwrap();
        assert_eq!(root.get().roles.len(), 4);
        assert_eq!(root.get().keys.len(), 8);
        let again = init(&args(folder.path(), 3, 2), UnixMs(0));
        assert!(matches!(again, Err(KeysError::File(FileError::Exists { .. }))));
    }

    #[test]
    fn counts_that_protect_nothing_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (keys, threshold) in [(0, 0), (3, 0), (2, 3), (17, 2)] {
            let refused = init(&args(folder.path(), keys, threshold), UnixMs(0));
            assert!(matches!(refused, Err(KeysError::Count { .. })), "{threshold} of {keys}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pk8");
        files::write(&path, b"not a key", Access::Owner).unwrap();
        let message = read_key(&path).unwrap_err().to_string();
        assert!(message.contains("x.pk8"), "{message}");
    }
}
