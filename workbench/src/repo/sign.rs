//! `socle repo sign` and `repo merge`: signatures on any metadata but the root, one signer at a time.

use std::path::{Path, PathBuf};

use clap::Args;
use protocol::tuf::{document::Document, permit};

use crate::{
    keys::{
        file::{self, KeyFileError},
        passphrase::OpenArgs,
    },
    metadata::{
        document::{self, LoadError},
        signers::Signers,
        signing::{self, SigningError},
        standing::Standing,
    },
};

/// Which document, and who may sign it.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// The metadata, or a downgrade permit
    pub metadata: PathBuf,
    /// Who names the role's keys: the fleet's root, or the targets metadata that delegates to the role
    #[arg(long, value_name = "FILE")]
    pub parent: PathBuf,
    /// The role [default: what the metadata is, or for targets metadata its file's name; targets for a permit]
    #[arg(long)]
    pub role: Option<String>,
}

/// Arguments of `socle repo sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// Which document
    #[command(flatten)]
    pub which: WhichArgs,
    /// A key of the role; repeat for several
    #[arg(long = "key", required = true)]
    pub keys: Vec<PathBuf>,
    /// How the keys are opened
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Arguments of `socle repo merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The document that gets the signatures
    #[command(flatten)]
    pub which: WhichArgs,
    /// A copy signed elsewhere; repeat for several
    #[arg(long = "from", required = true)]
    pub from: Vec<PathBuf>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum RepoSignError {
    /// Metadata.
    #[error("handling metadata")]
    Load(#[from] LoadError),
    /// A key.
    #[error("reading a signing key")]
    Key(#[from] KeyFileError),
    /// Not a key of the role, or another content.
    #[error("signing with `{}`", .path.display())]
    Signing {
        /// The key, or the copy.
        path: PathBuf,
        /// Why not.
        source: SigningError,
    },
    /// A root, which needs two sets of signatures.
    #[error("`{}` is a root; sign it with `socle root sign`", .0.display())]
    Root(PathBuf),
    /// A mistake of ours.
    #[error("encoding metadata")]
    Json(#[from] serde_json::Error),
}

/// Adds the signatures, and says where the signing stands.
pub fn sign(args: &SignArgs) -> Result<Standing, RepoSignError> {
    let (mut document, signers) = open(&args.which)?;
    for path in &args.keys {
        let key = file::read(path, &args.open)?;
        signing::sign(&mut document, &[&signers], &key)
            .map_err(|source| RepoSignError::Signing { path: path.clone(), source })?;
    }
    document::write(&args.which.metadata, &document)?;
    Ok(Standing::of(&document, &signers)?)
}

/// Brings signatures together, and says where the signing stands.
pub fn merge(args: &MergeArgs) -> Result<Standing, RepoSignError> {
    let (mut document, signers) = open(&args.which)?;
    for path in &args.from {
        signing::merge(&mut document, &document::read(path)?, &[&signers])
            .map_err(|source| RepoSignError::Signing { path: path.clone(), source })?;
    }
    document::write(&args.which.metadata, &document)?;
    Ok(Standing::of(&document, &signers)?)
}

/// Where the signing stands.
pub fn standing(args: &WhichArgs) -> Result<Standing, RepoSignError> {
    let (document, signers) = open(args)?;
    Ok(Standing::of(&document, &signers)?)
}

fn open(args: &WhichArgs) -> Result<(Document, Signers), RepoSignError> {
    let document = document::read(&args.metadata)?;
    let kind = document::kind(&document);
    if kind == "root" {
        return Err(RepoSignError::Root(args.metadata.clone()));
    }
    let role = match &args.role {
        Some(role) => role.clone(),
        None if kind == permit::KIND => "targets".to_owned(),
        None if kind == "targets" => role_in_name(&args.metadata),
        None => kind.to_owned(),
    };
    let signers = document::signers(&args.parent, &role)?;
    Ok((document, signers))
}

/// `targets` of `targets.json` and `7.targets.json`, `nlp` of `nlp.json`.
fn role_in_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match stem.split_once('.') {
        Some((version, role)) if version.bytes().all(|b| b.is_ascii_digit()) => role.to_owned(),
        Some(_) | None => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_off_its_files_name() {
        for (path, role) in [
            ("targets.json", "targets"),
            ("/a/7.targets.json", "targets"),
            ("nlp.json", "nlp"),
            ("3.team.nlp.json", "team.nlp"),
            ("team.nlp.json", "team.nlp"),
        ] {
            assert_eq!(role_in_name(Path::new(path)), role, "{path}");
        }
    }
}
