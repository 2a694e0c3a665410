//! The first keys and the first root of a fleet. Keys are made here, or on the machines of those who will hold them and
//! named by their public halves.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use protocol::{
    key::SigningKey,
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{Key, Role, Root, SPEC_VERSION},
    },
};

use crate::{
    files::{self, Access, FileError},
    keys::{
        file::{self, KeyFileError},
        passphrase::{PassphraseError, ProtectArgs, Protection},
        public::{self, PublicError},
    },
    metadata::{
        document,
        signers::{NoSuchRole, Signers},
        standing::Standing,
    },
};

/// Most keys of one role.
pub const KEYS_MAX: u32 = 16;

/// Arguments of `socle keys init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Folder to make keys and metadata in
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
    /// Public root key that its keeper made with `socle keys new`; repeat for each. None is made here then
    #[arg(long = "root-key", value_name = "PUB.JSON")]
    pub root_keys: Vec<PathBuf>,
    /// Public targets key made elsewhere; repeat for each. None is made here then
    #[arg(long = "targets-key", value_name = "PUB.JSON")]
    pub targets_keys: Vec<PathBuf>,
    /// The controller's online keys (online-keys.json, written by `socle-controller init`) for snapshot and timestamp;
    /// repeat for several controllers. Without it, keys for a repository kept by hand are made
    #[arg(long, value_name = "FILE")]
    pub online: Vec<PathBuf>,
    /// How new keys are protected
    #[command(flatten)]
    pub protect: ProtectArgs,
}

/// Why there is no new fleet.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A count that protects nothing.
    #[error(
        "{keys} keys with a threshold of {threshold}: take 1 to {KEYS_MAX} keys, and a threshold from 1 to their number (2 of 3 is usual)"
    )]
    Count {
        /// Keys.
        keys: u32,
        /// Threshold asked for.
        threshold: u32,
    },
    /// The same key twice in a role: it would count once.
    #[error("the same key is given twice for {0}; it would count once")]
    Twice(String),
    /// A file.
    #[error("handling files")]
    File(#[from] FileError),
    /// A key.
    #[error("handling a key")]
    Key(#[from] KeyFileError),
    /// A public key.
    #[error("reading a public key")]
    Public(#[from] PublicError),
    /// The passphrase.
    #[error("protecting the new keys")]
    Passphrase(#[from] PassphraseError),
    /// A mistake of ours.
    #[error("writing root metadata")]
    Metadata(#[from] serde_json::Error),
    /// A mistake of ours.
    #[error("checking the new root")]
    Role(#[from] NoSuchRole),
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The root, as written.
    pub root: Vec<u8>,
    /// Where its signing stands.
    pub standing: Standing,
    /// Private keys written.
    pub keys: Vec<PathBuf>,
}

struct Member {
    key: Key,
    signs: Option<SigningKey>,
}

/// Makes keys and root below `args.out`.
pub fn init(args: &InitArgs, now: UnixMs) -> Result<Made, CeremonyError> {
    let count = |given: &[PathBuf]| match given.len() {
        0 => args.keys,
        named => u32::try_from(named).unwrap_or(u32::MAX),
    };
    for keys in [count(&args.root_keys), count(&args.targets_keys)] {
        if !(1..=KEYS_MAX).contains(&keys) || !(1..=keys).contains(&args.threshold) {
            return Err(CeremonyError::Count { keys, threshold: args.threshold });
        }
    }
    let path = args.out.join("metadata/1.root.json");
    if path.exists() {
        return Err(FileError::Exists { path }.into());
    }
    let makes_any =
        args.root_keys.is_empty() || args.targets_keys.is_empty() || args.online.is_empty();
    let protection =
        if makes_any { args.protect.protection("the new keys")? } else { Protection::Nothing };
    files::make_folder(&args.out.join("metadata"))?;
    let mut written = Vec::new();
    let root_keys = members(args, "root", &args.root_keys, &protection, &mut written)?;
    let targets_keys = members(args, "targets", &args.targets_keys, &protection, &mut written)?;
    let (snapshot, timestamp) = online(args, &protection, &mut written)?;
    let roles = [
        ("root", &root_keys, args.threshold),
        ("targets", &targets_keys, args.threshold),
        ("snapshot", &snapshot, 1),
        ("timestamp", &timestamp, 1),
    ];
    let root = first_root(&roles, document::expiry(now, args.days))?;
    let mut document = Document::unsigned(&root)?;
    let signing = root_keys.iter().filter_map(|member| member.signs.as_ref());
    for key in signing.take(args.threshold as usize) {
        document.sign(key)?;
    }
    let bytes = document.to_bytes()?;
    files::write_new(&path, &bytes, Access::All)?;
    let standing = Standing::of(&document, &Signers::of_root(&root, "root")?)?;
    Ok(Made { root: bytes, standing, keys: written })
}

fn members(
    args: &InitArgs,
    role: &str,
    given: &[PathBuf],
    protection: &Protection,
    written: &mut Vec<PathBuf>,
) -> Result<Vec<Member>, CeremonyError> {
    if given.is_empty() {
        return (1..=args.keys)
            .map(|number| made(args, &format!("{role}-{number}"), protection, written))
            .collect();
    }
    let named = |path: &PathBuf| Ok(Member { key: public::read(path)?, signs: None });
    given.iter().map(named).collect()
}

fn made(
    args: &InitArgs,
    name: &str,
    protection: &Protection,
    written: &mut Vec<PathBuf>,
) -> Result<Member, CeremonyError> {
    let path = args.out.join(format!("{name}.pem"));
    let signs = file::make(&path, protection)?;
    written.push(path);
    Ok(Member { key: Key::ed25519(&signs.public()), signs: Some(signs) })
}

fn online(
    args: &InitArgs,
    protection: &Protection,
    written: &mut Vec<PathBuf>,
) -> Result<(Vec<Member>, Vec<Member>), CeremonyError> {
    if args.online.is_empty() {
        let snapshot = made(args, "snapshot", protection, written)?;
        return Ok((vec![snapshot], vec![made(args, "timestamp", protection, written)?]));
    }
    let (mut snapshot, mut timestamp) = (Vec::new(), Vec::new());
    let member = |key: Key| Member { key, signs: None };
    for path in &args.online {
        let keys = public::read_online(path)?;
        snapshot.extend(keys.snapshot.into_iter().map(member));
        timestamp.extend(keys.timestamp.into_iter().map(member));
    }
    Ok((snapshot, timestamp))
}

fn first_root(roles: &[(&str, &Vec<Member>, u32)], expires: String) -> Result<Root, CeremonyError> {
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
    for &(role, members, threshold) in roles {
        let mut keyids = Vec::new();
        for Member { key, .. } in members {
            let id = key.id()?;
            if keyids.contains(&id) {
                return Err(CeremonyError::Twice(role.to_owned()));
            }
            keyids.push(id.clone());
            root.keys.insert(id, key.clone());
        }
        root.roles.insert(role.to_owned(), Role { keyids, threshold });
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tuf::chain::pinned_root;

    fn args(out: &std::path::Path, keys: u32, threshold: u32) -> InitArgs {
        InitArgs {
            out: out.to_owned(),
            keys,
            threshold,
            days: 1,
            root_keys: Vec::new(),
            targets_keys: Vec::new(),
            online: Vec::new(),
            protect: ProtectArgs { passphrase_file: None, no_passphrase: true },
        }
    }

    #[test]
    fn the_first_root_is_one_that_devices_accept() {
        let folder = tempfile::tempdir().unwrap();
        let made = init(&args(folder.path(), 3, 2), UnixMs(0)).unwrap();
        assert!(made.standing.complete(), "{}", made.standing);
        let root = pinned_root(&made.root).unwrap();
        assert_eq!(root.get().roles.len(), 4);
        assert_eq!(root.get().keys.len(), 8);
        let again = init(&args(folder.path(), 3, 2), UnixMs(0));
        assert!(matches!(again, Err(CeremonyError::File(FileError::Exists { .. }))));
    }

    #[test]
    fn keys_made_elsewhere_are_named_and_sign_later() {
        let folder = tempfile::tempdir().unwrap();
        let keepers: Vec<PathBuf> = (1..=3)
            .map(|number| {
                let path = folder.path().join(format!("keeper-{number}.pem"));
                file::make(&path, &Protection::Nothing).unwrap();
                file::public_path(&path)
            })
            .collect();
        let out = folder.path().join("fleet");
        let mut named = args(&out, 3, 2);
        named.root_keys.clone_from(&keepers);
        let made = init(&named, UnixMs(0)).unwrap();
        assert_eq!((made.standing.signed.len(), made.standing.missing.len()), (0, 3));
        assert!(pinned_root(&made.root).is_err(), "nobody signed it yet");
        assert!(!out.join("root-1.pem").exists());

        let mut twice = args(&folder.path().join("other"), 3, 2);
        twice.root_keys = vec![keepers[0].clone(), keepers[0].clone()];
        assert!(matches!(init(&twice, UnixMs(0)), Err(CeremonyError::Twice(_))));
    }

    #[test]
    fn counts_that_protect_nothing_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (keys, threshold) in [(0, 0), (3, 0), (2, 3), (17, 2)] {
            let refused = init(&args(folder.path(), keys, threshold), UnixMs(0));
            assert!(matches!(refused, Err(CeremonyError::Count { .. })), "{threshold} of {keys}");
        }
    }
}
