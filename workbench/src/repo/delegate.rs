//! `socle repo delegate`: whom targets metadata trusts for which paths.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::{
    time::UnixMs,
    tuf::{
        metadata::{DelegatedRole, Delegations, Targets},
        shape::{Shape as _, ShapeError, is_role_name},
    },
};
use serde::Serialize;

use crate::{
    keys::public::{self, PublicError},
    metadata::{
        document::{self, LoadError},
        listing::{self, ListingError},
    },
};

/// Most roles one walk of a device looks into.
const ROLES_MAX: usize = 32;

/// `socle repo delegate …`
#[derive(Debug, Subcommand)]
pub enum DelegateCommand {
    /// Trust a role for some paths; its own, empty metadata is made beside, to be signed by its keys
    #[command(
        after_help = "Examples:\n  the vendor signs agents:\n    socle repo delegate add --parent targets.json --role vendor --path 'agent/*' --key v1.pub.json --key v2.pub.json --threshold 2\n  an ML team signs its models:\n    socle repo delegate add --parent targets.json --role nlp --path 'models/nlp/*' --key nlp.pub.json\n  approvers sign what production runs:\n    socle repo delegate add --parent targets.json --role prod --path 'env/prod/*' --terminating --key a.pub.json --key b.pub.json --threshold 2\n\nThen sign parent and role: `socle repo sign`. Once anyone is trusted for agent/ or models/, releases need endorsed\nagents or models: `socle repo endorse`."
    )]
    Add(AddArgs),
    /// Trust a role no more
    #[command(
        after_help = "Example:\n  socle repo delegate remove --parent targets.json --role nlp"
    )]
    Remove(RemoveArgs),
    /// Show whom the metadata trusts
    #[command(after_help = "Example:\n  socle repo delegate list --parent targets.json")]
    List(ListArgs),
}

/// Arguments of `socle repo delegate add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Targets metadata that will trust the role: a draft is changed, of a signed one the next version is made
    #[arg(long)]
    pub parent: PathBuf,
    /// The role: 1 to 64 of a-z 0-9 . _ -
    #[arg(long)]
    pub role: String,
    /// Pattern of the paths it is trusted for; * and ? do not match a /; repeat for several
    #[arg(long = "path", required_unless_present = "hash_prefix")]
    pub paths: Vec<String>,
    /// Instead: beginning of the SHA-256 of those paths, hexadecimal; repeat for several
    #[arg(long, conflicts_with = "paths")]
    pub hash_prefix: Vec<String>,
    /// A public key of the role; repeat for each
    #[arg(long = "key", required = true, value_name = "PUB.JSON")]
    pub keys: Vec<PathBuf>,
    /// How many of them must sign
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub threshold: u32,
    /// Nobody later in the list is asked about these paths
    #[arg(long)]
    pub terminating: bool,
    /// Days until parent and role must be signed again
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Arguments of `socle repo delegate remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Targets metadata that trusts the role
    #[arg(long)]
    pub parent: PathBuf,
    /// The role
    #[arg(long)]
    pub role: String,
    /// Days until the parent must be signed again
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Arguments of `socle repo delegate list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Targets metadata
    #[arg(long)]
    pub parent: PathBuf,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// The parent.
    #[error("changing the parent's metadata")]
    Listing(#[from] ListingError),
    /// Metadata.
    #[error("handling metadata")]
    Load(#[from] LoadError),
    /// A key.
    #[error("reading a key of the role")]
    Public(#[from] PublicError),
    /// A role that cannot have this name.
    #[error(
        "`{0}` is not the name of a delegated role: 1 to 64 of a-z 0-9 . _ -, and none of the top-level roles"
    )]
    Name(String),
    /// It is there already.
    #[error("role `{0}` is trusted already; remove it first, then add it as it shall be")]
    There(String),
    /// It is not there.
    #[error("no role `{0}` is trusted here; `socle repo delegate list` shows those that are")]
    Absent(String),
    /// More than a device looks into.
    #[error("a device looks into {ROLES_MAX} roles at most")]
    TooMany,
    /// A threshold that the keys cannot meet.
    #[error("{keys} distinct keys cannot meet a threshold of {threshold}")]
    Threshold {
        /// Distinct keys.
        keys: usize,
        /// Threshold.
        threshold: u32,
    },
    /// A beginning of a hash that is none.
    #[error("`{0}` is not the beginning of a SHA-256: 1 to 64 of 0-9 a-f")]
    Prefix(String),
    /// A pattern that could never match or that clients read differently.
    #[error("devices would refuse this delegation")]
    Shape(#[from] ShapeError),
}

/// What was changed.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// The parent, to be signed.
    pub parent: PathBuf,
    /// Its version.
    pub version: u64,
    /// The role's own metadata, where it was made, to be signed too.
    pub made: Option<PathBuf>,
}

/// Trusts a role.
pub fn add(args: &AddArgs, now: UnixMs) -> Result<Changed, DelegateError> {
    if !is_role_name(&args.role) {
        return Err(DelegateError::Name(args.role.clone()));
    }
    let hex = |text: &&String| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if let Some(bad) = args.hash_prefix.iter().find(|prefix| !hex(prefix)) {
        return Err(DelegateError::Prefix(bad.clone()));
    }
    let mut targets = listing::draft(&args.parent, now, args.days)?;
    let delegations = targets.delegations.get_or_insert_with(Delegations::default);
    if delegations.roles.iter().any(|role| role.name == args.role) {
        return Err(DelegateError::There(args.role.clone()));
    }
    if delegations.roles.len() >= ROLES_MAX {
        return Err(DelegateError::TooMany);
    }
    let mut keyids: Vec<String> = Vec::new();
    for path in &args.keys {
        let key = public::read(path)?;
        let id = public::id(&key)?;
        if !keyids.contains(&id) {
            keyids.push(id.clone());
        }
        delegations.keys.insert(id, key);
    }
    if keyids.len() < args.threshold as usize {
        return Err(DelegateError::Threshold { keys: keyids.len(), threshold: args.threshold });
    }
    let by_hash = !args.hash_prefix.is_empty();
    delegations.roles.push(DelegatedRole {
        name: args.role.clone(),
        keyids,
        threshold: args.threshold,
        paths: (!by_hash).then(|| args.paths.clone()),
        path_hash_prefixes: by_hash.then(|| args.hash_prefix.clone()),
        terminating: args.terminating,
        other: std::collections::BTreeMap::new(),
    });
    targets.check()?;
    document::write_unsigned(&args.parent, &targets)?;
    let own = args.parent.with_file_name(format!("{}.json", args.role));
    let made = if own.exists() {
        None
    } else {
        document::write_unsigned(&own, &listing::first(document::expiry(now, args.days)))?;
        Some(own)
    };
    Ok(Changed { parent: args.parent.clone(), version: targets.version, made })
}

/// Trusts a role no more.
pub fn remove(args: &RemoveArgs, now: UnixMs) -> Result<Changed, DelegateError> {
    let mut targets = listing::draft(&args.parent, now, args.days)?;
    let absent = || DelegateError::Absent(args.role.clone());
    let delegations = targets.delegations.as_mut().ok_or_else(absent)?;
    let before = delegations.roles.len();
    delegations.roles.retain(|role| role.name != args.role);
    if delegations.roles.len() == before {
        return Err(absent());
    }
    let Delegations { keys, roles, .. } = delegations;
    keys.retain(|id, _| roles.iter().any(|role| role.keyids.contains(id)));
    if roles.is_empty() {
        targets.delegations = None;
    }
    document::write_unsigned(&args.parent, &targets)?;
    Ok(Changed { parent: args.parent.clone(), version: targets.version, made: None })
}

/// The roles that the metadata trusts.
pub fn list(args: &ListArgs) -> Result<Vec<DelegatedRole>, DelegateError> {
    let (_, Targets { delegations, .. }) = document::read_targets(&args.parent)?;
    Ok(delegations.map(|delegations| delegations.roles).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{file, passphrase::Protection};

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    fn args(folder: &std::path::Path, role: &str, path: &str) -> AddArgs {
        let key = folder.join("k.pem");
        if !key.exists() {
            file::make(&key, &Protection::Nothing).unwrap();
        }
        AddArgs {
            parent: folder.join("targets.json"),
            role: role.into(),
            paths: vec![path.into()],
            hash_prefix: Vec::new(),
            keys: vec![file::public_path(&key)],
            threshold: 1,
            terminating: false,
            days: 30,
        }
    }

    #[test]
    fn a_role_is_trusted_and_then_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let added = add(&args(folder.path(), "vendor", "agent/*"), NOW).unwrap();
        assert_eq!((added.version, added.made.is_some()), (1, true));
        let listed = list(&ListArgs { parent: added.parent.clone() }).unwrap();
        assert!(listed[0].speaks_for("agent/socle-agent-1-x86_64-linux"));
        assert!(!listed[0].speaks_for("models/a/b"));
        let again = add(&args(folder.path(), "vendor", "agent/*"), NOW);
        assert!(matches!(again, Err(DelegateError::There(_))));
        let gone = RemoveArgs { parent: added.parent.clone(), role: "vendor".into(), days: 30 };
        remove(&gone, NOW).unwrap();
        let (_, targets) = document::read_targets(&added.parent).unwrap();
        assert_eq!(targets.delegations, None, "and its keys are forgotten");
        assert!(matches!(remove(&gone, NOW), Err(DelegateError::Absent(_))));
    }

    #[test]
    fn what_devices_would_refuse_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut AddArgs)| {
            let mut args = args(folder.path(), "vendor", "agent/*");
            change(&mut args);
            let error = add(&args, NOW).unwrap_err();
            assert!(!args.parent.exists());
            error
        };
        assert!(matches!(refused(&|a| a.role = "root".into()), DelegateError::Name(_)));
        assert!(matches!(refused(&|a| a.role = "../x".into()), DelegateError::Name(_)));
        assert!(matches!(refused(&|a| a.threshold = 2), DelegateError::Threshold { .. }));
        let one_key_twice = refused(&|a| {
            a.keys = vec![a.keys[0].clone(), a.keys[0].clone()];
            a.threshold = 2;
        });
        assert!(matches!(one_key_twice, DelegateError::Threshold { keys: 1, .. }));
        assert!(matches!(
            refused(&|a| a.paths = vec!["agent/[a]".into()]),
            DelegateError::Shape(_)
        ));
        assert!(matches!(
            refused(&|a| {
                a.paths.clear();
                a.hash_prefix = vec!["XY".into()];
            }),
            DelegateError::Prefix(_)
        ));
    }
}
