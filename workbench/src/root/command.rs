//! `socle root …`.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, Subcommand};
use protocol::{digest::Digest, time::UnixMs};
use serde_json::{Value, json};

use crate::{
    api::{ApiError, Controller, ControllerArgs},
    files::{self, FileError},
    keys::{
        passphrase::OpenArgs,
        public::{self, PublicError},
    },
    metadata::{
        document::{self, LoadError},
        standing,
    },
    root::{
        change::{self, Change, ChangeError},
        sign::{self, RootSignError, RootStanding},
    },
    terminal::Terminal,
};

/// `socle root …`
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Show a root: its roles, keys and thresholds, and who signed it
    #[command(after_help = "Example:\n  socle root show keys/metadata/1.root.json")]
    Show(ShowArgs),
    /// Make the next root with the same keys and a later expiry; also after the old one expired
    #[command(
        after_help = "Example:\n  socle root renew --root keys/metadata/1.root.json\n  socle root sign keys/metadata/2.root.json --previous keys/metadata/1.root.json --key root-1.pem"
    )]
    Renew(RenewArgs),
    /// Make the next root with other keys or thresholds
    #[command(
        after_help = "Examples:\n  replace a lost targets key:\n    socle root change --root 1.root.json --remove targets=3f2a9c0e --add targets=dora.pub.json\n  let a second controller sign snapshot and timestamp:\n    socle root change --root 1.root.json --online second/online-keys.json\n  ask for three root signatures:\n    socle root change --root 1.root.json --threshold root=3"
    )]
    Change(ChangeArgs),
    /// Sign a root, one key holder at a time; keys of the root before sign it too
    #[command(
        after_help = "Example:\n  socle root sign 2.root.json --previous 1.root.json --key root-2.pem"
    )]
    Sign(SignArgs),
    /// Bring signatures together that were made on copies
    #[command(
        after_help = "Example:\n  socle root merge 2.root.json --previous 1.root.json --from /media/alice/2.root.json"
    )]
    Merge(MergeArgs),
    /// Send one or more roots to the controller, oldest first
    #[command(after_help = "Example:\n  socle root publish 2.root.json 3.root.json")]
    Publish(PublishArgs),
}

/// Arguments of `socle root show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The root
    pub root: PathBuf,
    /// The root before it
    #[arg(long)]
    pub previous: Option<PathBuf>,
}

/// Arguments of `socle root renew`.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// The newest root
    #[arg(long)]
    pub root: PathBuf,
    /// Where to write the next one [default: <version>.root.json beside it]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Days until it must be renewed
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Arguments of `socle root change`.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// The next root
    #[command(flatten)]
    pub next: RenewArgs,
    /// Add a public key to a role: root=alice.pub.json; repeat for more
    #[arg(long, value_name = "ROLE=PUB.JSON")]
    pub add: Vec<Setting<PathBuf>>,
    /// Remove a key from a role, by its id or the beginning of it; repeat for more
    #[arg(long, value_name = "ROLE=KEYID")]
    pub remove: Vec<Setting<String>>,
    /// How many keys of a role must sign
    #[arg(long, value_name = "ROLE=N")]
    pub threshold: Vec<Setting<u32>>,
    /// Add a controller's online keys to snapshot and timestamp
    #[arg(long, value_name = "FILE")]
    pub online: Vec<PathBuf>,
}

/// Arguments of `socle root sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The root to sign
    pub root: PathBuf,
    /// The root before it
    #[arg(long)]
    pub previous: Option<PathBuf>,
    /// A root key, of the old or the new root; repeat for several
    #[arg(long = "key", required = true)]
    pub keys: Vec<PathBuf>,
    /// How the keys are opened
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Arguments of `socle root merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The root that gets the signatures
    pub root: PathBuf,
    /// The root before it
    #[arg(long)]
    pub previous: Option<PathBuf>,
    /// A copy signed elsewhere; repeat for several
    #[arg(long = "from", required = true)]
    pub from: Vec<PathBuf>,
}

/// Arguments of `socle root publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Roots, oldest first
    #[arg(required = true)]
    pub roots: Vec<PathBuf>,
    /// How to reach the controller
    #[command(flatten)]
    pub controller: ControllerArgs,
}

/// `ROLE=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The role.
    pub role: String,
    /// What it gets.
    pub value: T,
}

impl<T: FromStr> FromStr for Setting<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form ROLE=VALUE");
        let (role, value) = text.split_once('=').ok_or_else(wrong)?;
        let value = value.parse().map_err(|_| wrong())?;
        Ok(Self { role: role.to_owned(), value })
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Metadata.
    #[error("handling root metadata")]
    Load(#[from] LoadError),
    /// Files.
    #[error("handling a root file")]
    File(#[from] FileError),
    /// Signing.
    #[error("signing the root")]
    Sign(#[from] RootSignError),
    /// The change.
    #[error("changing the root")]
    Change(#[from] ChangeError),
    /// A key.
    #[error("reading a key to add")]
    Public(#[from] PublicError),
    /// The controller.
    #[error("publishing the root")]
    Api(#[from] ApiError),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle root …`.
pub fn run(command: &RootCommand, now: UnixMs, terminal: &Terminal) -> Result<(), RootError> {
    match command {
        RootCommand::Show(args) => show(args, terminal),
        RootCommand::Renew(args) => next(args, &Change::default(), now, terminal),
        RootCommand::Change(args) => next(&args.next, &read_change(args)?, now, terminal),
        RootCommand::Sign(args) => {
            let standing =
                sign::sign(&args.root, args.previous.as_deref(), &args.keys, &args.open)?;
            say(&args.root, &standing, terminal)
        }
        RootCommand::Merge(args) => {
            let standing = sign::merge(&args.root, args.previous.as_deref(), &args.from)?;
            say(&args.root, &standing, terminal)
        }
        RootCommand::Publish(args) => {
            let controller = Controller::connect(&args.controller)?;
            let mut versions = Vec::new();
            for path in &args.roots {
                let answer = controller.post_root(&files::read(path, files::TEXT_BYTES_MAX)?)?;
                versions.push(answer["version"].clone());
            }
            let shown = versions.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
            let text = format!("Published root {shown}");
            Ok(terminal.result(&text, &json!({ "versions": versions }))?)
        }
    }
}

fn read_change(args: &ChangeArgs) -> Result<Change, RootError> {
    let mut add = Vec::new();
    for Setting { role, value } in &args.add {
        add.push((role.clone(), public::read(value)?));
    }
    for path in &args.online {
        let online = public::read_online(path)?;
        add.extend(online.snapshot.into_iter().map(|key| ("snapshot".to_owned(), key)));
        add.extend(online.timestamp.into_iter().map(|key| ("timestamp".to_owned(), key)));
    }
    let remove = args.remove.iter().map(|set| (set.role.clone(), set.value.clone())).collect();
    let thresholds = args.threshold.iter().map(|set| (set.role.clone(), set.value)).collect();
    Ok(Change { add, remove, thresholds })
}

fn next(
    args: &RenewArgs,
    change: &Change,
    now: UnixMs,
    terminal: &Terminal,
) -> Result<(), RootError> {
    let (_, old) = document::read_root(&args.root)?;
    let root = change::next_root(&old, change, document::expiry(now, args.days))?;
    let path = args
        .out
        .clone()
        .unwrap_or_else(|| args.root.with_file_name(format!("{}.root.json", root.version)));
    if path.exists() {
        return Err(FileError::Exists { path }.into());
    }
    document::write_unsigned(&path, &root)?;
    let standing = sign::standing(&path, Some(&args.root))?;
    say(&path, &standing, terminal)
}

fn say(path: &Path, standing: &RootStanding, terminal: &Terminal) -> Result<(), RootError> {
    let next = if standing.complete() { "`socle root publish`" } else { "`socle root sign`" };
    let text = format!("{}\n{}\nNext: {next}", path.display(), standing.lines());
    let value = json!({ "root": path, "complete": standing.complete(), "old": standing.old, "new": standing.new });
    Ok(terminal.result(&text, &value)?)
}

fn show(args: &ShowArgs, terminal: &Terminal) -> Result<(), RootError> {
    let bytes = files::read(&args.root, files::TEXT_BYTES_MAX)?;
    let (_, root) = document::read_root(&args.root)?;
    let standing = match &args.previous {
        None if root.version > 1 => None,
        previous => Some(sign::standing(&args.root, previous.as_deref())?),
    };
    let mut lines = vec![format!(
        "root version {}, expires {}\n  SHA-256 {}",
        root.version,
        root.expires,
        Digest::of(&bytes)
    )];
    for (role, named) in &root.roles {
        lines.push(format!("{role}: {} of {}", named.threshold, named.keyids.len()));
        lines.extend(named.keyids.iter().map(|id| format!("  {}", standing::short(id))));
    }
    lines.extend(standing.iter().map(RootStanding::lines));
    let value = json!({ "sha256": Digest::of(&bytes), "root": root, "standing": standing });
    Ok(terminal.result(&lines.join("\n"), &value)?)
}
