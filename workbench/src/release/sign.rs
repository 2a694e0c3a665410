//! `socle release sign`: one person's signature over the metadata; repeat on other machines with other keys.

use std::path::PathBuf;

use clap::Args;
use protocol::tuf::{
    document::{Document, DocumentError},
    metadata::Key,
    verify::{self, VerifyError},
};

use crate::{
    files::{self, Access, FileError},
    keys::{self, KeysError},
    release::folder::ReleaseFolder,
};

/// Arguments of `socle release sign`.
#[derive(Clone, Debug, Args)]
pub struct SignArgs {
    /// Folder made by `socle release build`
    #[arg(long)]
    pub release: PathBuf,
    /// A targets key (PKCS#8); repeat for several
    #[arg(long = "key", required = true)]
    pub keys: Vec<PathBuf>,
    /// The fleet's root metadata
    #[arg(long)]
    pub root: PathBuf,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file.
    #[error("handling the release's metadata")]
    File(#[from] FileError),
    /// A key.
    #[error("reading a signing key")]
    Key(#[from] KeysError),
    /// Metadata.
    #[error("reading the release's metadata")]
    Document(#[from] DocumentError),
    /// The root.
    #[error("reading the root metadata")]
    Root(#[source] VerifyError),
    /// A key of another role or another fleet.
    #[error("`{}` is not one of the targets keys that the root names; sign with a targets-*.pk8 of this fleet", .0.display())]
    ForeignKey(PathBuf),
    /// Metadata that cannot be written.
    #[error("writing metadata")]
    Json(#[from] serde_json::Error),
    /// A manifest the metadata does not list.
    #[error("the manifest is not the one that the metadata lists; build the release again")]
    Manifest(#[source] VerifyError),
}

/// Where signing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Enough distinct keys signed.
    Complete,
    /// More keys must sign; why, for people.
    Incomplete(String),
}

/// Adds the signatures, says whether they suffice, and if so that the manifest is listed.
pub fn sign(args: &SignArgs) -> Result<Standing, SignError> {
    let folder = ReleaseFolder::new(&args.release);
    let root = verify::pinned_root(&files::read(&args.root, files::TEXT_BYTES_MAX)?)
        .map_err(SignError::Root)?;
    let mut document =
        Document::parse("targets", &files::read(&folder.targets(), files::TEXT_BYTES_MAX)?)?;
    for path in &args.keys {
        let key = keys::read_key(path)?;
        let id = Key::ed25519(&key.public()).id()?;
        if !root.get().roles.get("targets").is_some_and(|role| role.keyids.contains(&id)) {
            return Err(SignError::ForeignKey(path.clone()));
        }
        document.sign(&key)?;
    }
    let bytes = document.to_bytes()?;
    files::write(&folder.targets(), &bytes, Access::All)?;
    match verify::signed_targets(&root, &bytes) {
        Err(VerifyError::Document { source, .. }) => Ok(Standing::Incomplete(source.to_string())),
        Err(other) => Err(SignError::Manifest(other)),
        Ok(targets) => {
            let manifest = files::read(&folder.manifest(), files::TEXT_BYTES_MAX)?;
            verify::listed_release(&targets, &manifest).map_err(SignError::Manifest)?;
            Ok(Standing::Complete)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::InitArgs;
    use protocol::time::UnixMs;

    #[test]
    fn a_key_of_another_role_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("keys");
        let root = out.join("metadata/1.root.json");
        keys::init(&InitArgs { out: out.clone(), keys: 3, threshold: 2, days: 1 }, UnixMs(0))
            .unwrap();
        let release = folder.path().to_owned();
        let targets = ReleaseFolder::new(&release).targets();
        let empty = br#"{"signed":{"_type":"targets"},"signatures":[]}"#;
        files::write(&targets, empty, Access::All).unwrap();
        let args = SignArgs { release, keys: vec![out.join("root-1.pk8")], root };
        assert!(
            matches!(sign(&args), Err(SignError::ForeignKey(path)) if path.ends_with("root-1.pk8"))
        );
        assert_eq!(files::read(&targets, 1000).unwrap(), empty);
    }
}
