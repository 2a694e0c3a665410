//! `socle repo …`.

use std::{io, path::Path};

use clap::Subcommand;
use protocol::time::UnixMs;
use serde_json::json;

use crate::{
    metadata::standing::{self, Standing},
    repo::{
        copy::{self, CopyError, MirrorArgs, VerifyArgs},
        delegate::{self, Changed, DelegateCommand, DelegateError},
        endorse::{self, EndorseArgs, EndorseError},
        kept::{self, AddArgs, KeptError, OnlineArgs},
        sign::{self, MergeArgs, RepoSignError, SignArgs, WhichArgs},
    },
    terminal::{Colour, Terminal},
};

/// `socle repo …`
#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Whom targets metadata trusts for which paths
    #[command(subcommand)]
    Delegate(DelegateCommand),
    /// List a release's agent or models in the metadata of those who make them
    #[command(
        after_help = "Examples:\n  socle repo endorse --metadata vendor.json --release ./r1 --agent\n  socle repo endorse --metadata nlp.json --release ./r1 --team nlp"
    )]
    Endorse(EndorseArgs),
    /// Sign metadata of any role but root, or a downgrade permit; one signer at a time
    #[command(
        after_help = "Examples:\n  socle repo sign nlp.json --parent targets.json --key nlp.pem\n  socle repo sign permit.json --parent 1.root.json --key targets-1.pem"
    )]
    Sign(SignArgs),
    /// Bring signatures together that were made on copies
    #[command(
        after_help = "Example:\n  socle repo merge nlp.json --parent targets.json --from /media/alice/nlp.json"
    )]
    Merge(MergeArgs),
    /// Check a whole repository as a client would, and every object's hash
    #[command(
        after_help = "Examples:\n  socle repo verify https://controller:8443/artifacts --ca ca.pem --token-file token --root 1.root.json\n  socle repo verify ./mirror --env prod"
    )]
    Verify(VerifyArgs),
    /// Copy a repository, or refresh a copy: only what changed moves, and nothing unverified is placed
    #[command(
        after_help = "Example:\n  socle repo mirror https://controller:8443/artifacts --ca ca.pem --token-file token --root 1.root.json --to ./mirror\nthen serve ./mirror with any web server; devices and `socle repo mirror` read it under the same names."
    )]
    Mirror(MirrorArgs),
    /// Add signed roots, releases and metadata to a repository kept by hand
    #[command(
        after_help = "Example:\n  socle repo add --repo ./repo --root keys/metadata/1.root.json --release ./r1\n  socle repo snapshot --repo ./repo --key keys/snapshot.pem\n  socle repo timestamp --repo ./repo --key keys/timestamp.pem"
    )]
    Add(AddArgs),
    /// Sign a snapshot of a repository kept by hand
    #[command(after_help = "Example:\n  socle repo snapshot --repo ./repo --key keys/snapshot.pem")]
    Snapshot(OnlineArgs),
    /// Sign the timestamp of a repository kept by hand; again before it expires
    #[command(
        after_help = "Example:\n  socle repo timestamp --repo ./repo --key keys/timestamp.pem --days 7"
    )]
    Timestamp(OnlineArgs),
    /// Show who signed, and who has not yet; exit code 1 while signatures are missing
    #[command(after_help = "Example:\n  socle repo standing targets.json --parent 1.root.json")]
    Standing(WhichArgs),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// Delegations.
    #[error("changing whom the metadata trusts")]
    Delegate(#[from] DelegateError),
    /// Endorsements.
    #[error("endorsing")]
    Endorse(#[from] EndorseError),
    /// Signatures.
    #[error("signing metadata")]
    Sign(#[from] RepoSignError),
    /// Checking or copying.
    #[error("the repository")]
    Copy(#[from] CopyError),
    /// A repository kept by hand.
    #[error("the repository")]
    Kept(#[from] KeptError),
    /// Signatures are missing.
    #[error("not signed by enough keys yet: {0}")]
    Incomplete(Standing),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle repo …`.
pub fn run(command: &RepoCommand, now: UnixMs, terminal: &Terminal) -> Result<(), RepoError> {
    match command {
        RepoCommand::Delegate(command) => delegate(command, now, terminal),
        RepoCommand::Endorse(args) => {
            let endorsed = endorse::endorse(args, now)?;
            let text = format!(
                "{} version {} lists\n  {}\nNext: `socle repo sign`.",
                endorsed.metadata.display(),
                endorsed.version,
                endorsed.paths.join("\n  ")
            );
            Ok(terminal.result(&text, &endorsed)?)
        }
        RepoCommand::Sign(args) => say(&sign::sign(args)?, terminal),
        RepoCommand::Merge(args) => say(&sign::merge(args)?, terminal),
        RepoCommand::Verify(args) => verify(args, now, terminal),
        RepoCommand::Mirror(args) => {
            let copied = copy::mirror(args, now, terminal)?;
            let text = format!(
                "Copied {} of {} objects, {} bytes, to {}{}",
                copied.objects,
                copied.all,
                copied.bytes,
                args.to.display(),
                if args.prune { format!("; removed {}", copied.pruned) } else { String::new() },
            );
            Ok(terminal.result(&text, &copied)?)
        }
        RepoCommand::Add(args) => {
            let added = kept::add(args, terminal)?;
            let text = format!(
                "Added {} and {} objects to {}\nNext: {}.",
                if added.metadata.is_empty() {
                    "no metadata".into()
                } else {
                    added.metadata.join(", ")
                },
                added.objects,
                args.repo.display(),
                added.next
            );
            Ok(terminal.result(&text, &added)?)
        }
        RepoCommand::Snapshot(args) => signed(&kept::snapshot(args, now)?, terminal),
        RepoCommand::Timestamp(args) => signed(&kept::timestamp(args, now)?, terminal),
        RepoCommand::Standing(args) => {
            let standing = sign::standing(args)?;
            say(&standing, terminal)?;
            if standing.complete() { Ok(()) } else { Err(RepoError::Incomplete(standing)) }
        }
    }
}

fn signed(path: &Path, terminal: &Terminal) -> Result<(), RepoError> {
    let text = format!("Signed {}", path.display());
    Ok(terminal.result(&text, &json!({ "metadata": path }))?)
}

fn verify(args: &VerifyArgs, now: UnixMs, terminal: &Terminal) -> Result<(), RepoError> {
    let found = copy::verify(args, now, terminal)?;
    let trust = match &args.root {
        Some(_) => "as you trust it".to_owned(),
        None => "taken as it is: compare it with what you were told".to_owned(),
    };
    let mut lines = vec![
        format!(
            "root      version {}, first root {}, {trust}",
            found.root_version, found.first_root
        ),
        format!("roles     {}", found.roles),
        format!("releases  {}", found.releases.join(", ")),
        format!("objects   {}, {} bytes", found.objects, found.bytes),
    ];
    lines.extend(
        found
            .problems
            .iter()
            .map(|problem| format!("{} {problem}", terminal.paint(Colour::Red, "problem  "))),
    );
    terminal.result(&lines.join("\n"), &found)?;
    if found.problems.is_empty() { Ok(()) } else { Err(CopyError::Problems(found.problems).into()) }
}

fn say(standing: &Standing, terminal: &Terminal) -> Result<(), RepoError> {
    let value = json!({ "complete": standing.complete(), "standing": standing });
    Ok(terminal.result(&standing.to_string(), &value)?)
}

fn delegate(command: &DelegateCommand, now: UnixMs, terminal: &Terminal) -> Result<(), RepoError> {
    let changed = |changed: &Changed| {
        let made = changed.made.iter().map(|path| format!("\nMade {}", path.display()));
        format!(
            "{} version {} is changed{}\nNext: `socle repo sign`.",
            changed.parent.display(),
            changed.version,
            made.collect::<String>()
        )
    };
    match command {
        DelegateCommand::Add(args) => {
            let done = delegate::add(args, now)?;
            Ok(terminal.result(&changed(&done), &done)?)
        }
        DelegateCommand::Remove(args) => {
            let done = delegate::remove(args, now)?;
            Ok(terminal.result(&changed(&done), &done)?)
        }
        DelegateCommand::List(args) => {
            let roles = delegate::list(args)?;
            let lines: Vec<String> = roles
                .iter()
                .map(|role| {
                    let keys: Vec<&str> =
                        role.keyids.iter().map(|id| standing::short(id)).collect();
                    let paths = role.paths.as_ref().or(role.path_hash_prefixes.as_ref());
                    format!(
                        "{:16} {} of {} ({})  {}{}",
                        role.name,
                        role.threshold,
                        keys.len(),
                        keys.join(", "),
                        paths.map(|paths| paths.join(" ")).unwrap_or_default(),
                        if role.terminating { "  terminating" } else { "" },
                    )
                })
                .collect();
            let text = if lines.is_empty() {
                "Nobody is trusted but the role itself.".to_owned()
            } else {
                lines.join("\n")
            };
            Ok(terminal.result(&text, &json!({ "roles": roles }))?)
        }
    }
}
