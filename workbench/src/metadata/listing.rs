//! The next version of targets metadata: what a role lists, and whom it trusts. Nobody has signed it yet.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use protocol::{
    id::Environment,
    manifest::Manifest,
    time::UnixMs,
    tuf::metadata::{SPEC_VERSION, Target, Targets},
};
use serde_json::json;

use crate::metadata::document::{self, LoadError};

/// The last version there can be.
#[derive(Debug, thiserror::Error)]
#[error("`{}` has version {version}, the last there can be", .path.display())]
pub struct LastVersion {
    path: PathBuf,
    version: u64,
}

/// Why there is no next version.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The document before.
    #[error("reading the metadata before")]
    Load(#[from] LoadError),
    /// Its version.
    #[error("counting on from the metadata before")]
    Version(#[from] LastVersion),
}

/// The next version of the metadata in `before`, or the first one.
pub fn next(before: Option<&Path>, now: UnixMs, days: u32) -> Result<Targets, ListingError> {
    let expires = document::expiry(now, days);
    let Some(path) = before else { return Ok(first(expires)) };
    let (_, targets) = document::read_targets(path)?;
    let version = targets.version;
    let next =
        version.checked_add(1).ok_or_else(|| LastVersion { path: path.to_owned(), version })?;
    Ok(Targets { version: next, expires, ..targets })
}

/// The metadata in `path` to be changed: a draft that nobody signed as it is, a signed one as its next version, or the
/// first one if there is none.
pub fn draft(path: &Path, now: UnixMs, days: u32) -> Result<Targets, ListingError> {
    if !path.exists() {
        return next(None, now, days);
    }
    let (document, targets) = document::read_targets(path)?;
    if document.signatures.is_empty() {
        return Ok(Targets { expires: document::expiry(now, days), ..targets });
    }
    next(Some(path), now, days)
}

/// Metadata that lists nothing.
pub fn first(expires: String) -> Targets {
    Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version: 1,
        expires,
        targets: BTreeMap::new(),
        delegations: None,
        other: BTreeMap::new(),
    }
}

/// Lists a release for `environment`. Its counter is noted, so that the next one can be held against it.
pub fn list_release(
    targets: &mut Targets,
    environment: &Environment,
    manifest: &Manifest,
    bytes: &[u8],
) {
    let target =
        Target { custom: Some(json!({ "counter": manifest.counter })), ..Target::of(bytes) };
    targets.targets.insert(manifest.target_path(environment), target);
}

/// The highest counter of a release that `targets` lists.
pub fn newest_counter(targets: &Targets) -> Option<u64> {
    let releases = targets.targets.iter().filter(|(path, _)| path.starts_with("env/"));
    releases.filter_map(|(_, target)| target.custom.as_ref()?.get("counter")?.as_u64()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, Access};

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    #[test]
    fn a_draft_keeps_its_version_until_somebody_signed_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        let made = draft(&path, NOW, 1).unwrap();
        assert_eq!(made.version, 1);
        document::write_unsigned(&path, &made).unwrap();
        assert_eq!(draft(&path, NOW, 1).unwrap().version, 1);
        let mut signed = document::read(&path).unwrap();
        signed
            .signatures
            .push(protocol::tuf::document::Signature { keyid: "00".into(), sig: "00".into() });
        document::write(&path, &signed).unwrap();
        assert_eq!(draft(&path, NOW, 1).unwrap().version, 2);
        let last = Targets { version: u64::MAX, ..made };
        document::write_unsigned(&path, &last).unwrap();
        assert!(matches!(next(Some(&path), NOW, 1), Err(ListingError::Version(_))));
        files::write(&path, b"{}", Access::All).unwrap();
        assert!(matches!(draft(&path, NOW, 1), Err(ListingError::Load(_))));
    }
}
