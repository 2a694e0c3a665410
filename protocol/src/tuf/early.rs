//! The first client's verifier, until all callers use [`crate::tuf::verify`]: `(what we trust, what we got, now) → what we may use`. Pure.
//!
//! This release of the format uses the root and targets roles; snapshot and timestamp are named in the root and
//! join later. Order of checks per document: size, shape, signatures, type, version, freshness.

use serde::de::DeserializeOwned;

use crate::{
    digest::Digest,
    manifest::{Manifest, ManifestError},
    time::{NotATime, UnixMs},
    tuf::{
        document::{Document, DocumentError, Signers},
        metadata::{Root, Targets},
    },
    verified::Verified,
};

/// Most roots one update may walk through.
const ROOTS_MAX: usize = 64;

/// What a device remembers between updates, apart from the root itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Highest targets version ever accepted.
    pub targets_version: u64,
    /// Highest release counter ever committed.
    pub counter: u64,
}

/// A release that is genuine: its manifest, and the documents that prove it.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// SHA-256 of the manifest's bytes: the release's name everywhere.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: Manifest,
    /// Version of the targets metadata that lists it.
    pub targets_version: u64,
}

/// Why metadata or a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Size, shape or signatures.
    #[error("checking {role} metadata")]
    Document {
        /// Role being read.
        role: String,
        /// Why.
        source: DocumentError,
    },
    /// Signed, but not what the role must hold.
    #[error("{role} metadata is signed but not of the TUF shape")]
    Content {
        /// Role being read.
        role: String,
        /// Where.
        source: serde_json::Error,
    },
    /// Says it is something else.
    #[error("expected {role} metadata of specification 1.x, got `{kind}` of `{spec_version}`")]
    Kind {
        /// Role being read.
        role: String,
        /// Type it claims.
        kind: String,
        /// Specification it claims.
        spec_version: String,
    },
    /// A root that does not follow the one before.
    #[error("root version {got} does not follow version {trusted}")]
    RootSequence {
        /// Version trusted now.
        trusted: u64,
        /// Version offered.
        got: u64,
    },
    /// More roots than one update may walk through.
    #[error("{0} root documents in one update; at most {ROOTS_MAX} are walked")]
    TooManyRoots(usize),
    /// An older document than one already accepted.
    #[error(
        "{role} metadata version {got} is older than version {floor}, which was accepted before: refused as a rollback"
    )]
    Rollback {
        /// Role being read.
        role: String,
        /// Oldest version still acceptable.
        floor: u64,
        /// Version offered.
        got: u64,
    },
    /// Not fresh any more.
    #[error("{role} metadata expired at {expires}; refresh and sign it again")]
    Expired {
        /// Role being read.
        role: String,
        /// When.
        expires: String,
    },
    /// Its expiry is not a time.
    #[error("{role} metadata has no readable expiry")]
    Expiry {
        /// Role being read.
        role: String,
        /// Why.
        source: NotATime,
    },
    /// A manifest the metadata does not list.
    #[error("release {} is not listed in the signed targets metadata", .0.short())]
    NotListed(Digest),
    /// A manifest of another length than signed.
    #[error("release {} has {got} bytes where {signed} are signed", .digest.short())]
    Length {
        /// Release.
        digest: Digest,
        /// Length signed.
        signed: u64,
        /// Length seen.
        got: u64,
    },
    /// A manifest that is listed but wrong in itself.
    #[error("reading the manifest of release {}", .digest.short())]
    Manifest {
        /// Release.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// A release not newer than the one committed.
    #[error("release {} has counter {got}, not above {floor}, which this device committed already: refused as a rollback", .digest.short())]
    OldRelease {
        /// Release.
        digest: Digest,
        /// Highest counter committed.
        floor: u64,
        /// Counter offered.
        got: u64,
    },
}

/// Reads the root a device was given when it was enrolled or installed. Its own threshold must hold; its expiry is
/// not looked at, since a newer root may follow.
pub fn pinned_root(bytes: &[u8]) -> Result<Verified<Root>, VerifyError> {
    let document = parse("root", bytes)?;
    let root: Root = content("root", &document)?;
    meets(&document, &root, "root")?;
    Ok(Verified::new(root))
}

/// Walks from the trusted root through `newer`, in order. Each must be signed by the one before and by itself.
pub fn newest_root(
    trusted: Verified<Root>,
    newer: &[Vec<u8>],
) -> Result<Verified<Root>, VerifyError> {
    if newer.len() > ROOTS_MAX {
        return Err(VerifyError::TooManyRoots(newer.len()));
    }
    newer.iter().try_fold(trusted, |trusted, bytes| {
        let document = parse("root", bytes)?;
        meets(&document, trusted.get(), "root")?;
        let root: Root = content("root", &document)?;
        meets(&document, &root, "root")?;
        if trusted.get().version.checked_add(1) != Some(root.version) {
            return Err(VerifyError::RootSequence {
                trusted: trusted.get().version,
                got: root.version,
            });
        }
        Ok(Verified::new(root))
    })
}

/// Targets metadata that may be acted on at `now`. Root and targets must both be fresh.
pub fn fresh_targets(
    root: &Verified<Root>,
    bytes: &[u8],
    floor: Floor,
    now: UnixMs,
) -> Result<Verified<Targets>, VerifyError> {
    fresh("root", &root.get().expires, now)?;
    let targets = signed_targets(root, bytes)?;
    let got = targets.get().version;
    if got < floor.targets_version {
        return Err(VerifyError::Rollback {
            role: "targets".into(),
            floor: floor.targets_version,
            got,
        });
    }
    fresh("targets", &targets.get().expires, now)?;
    Ok(targets)
}

/// Targets metadata of a release that is installed already: signatures count, age does not, because falling back to
/// what is on the disk must work however old it is.
pub fn signed_targets(
    root: &Verified<Root>,
    bytes: &[u8],
) -> Result<Verified<Targets>, VerifyError> {
    let document = parse("targets", bytes)?;
    meets(&document, root.get(), "targets")?;
    content("targets", &document).map(Verified::new)
}

/// The release whose manifest is `manifest`, if `targets` lists exactly these bytes.
pub fn listed_release(
    targets: &Verified<Targets>,
    manifest: &[u8],
) -> Result<Verified<Release>, VerifyError> {
    let digest = Digest::of(manifest);
    let (path, target) = targets
        .get()
        .targets
        .iter()
        .find(|(path, target)| path.starts_with("env/") && target.sha256() == Some(digest))
        .ok_or(VerifyError::NotListed(digest))?;
    if target.length != manifest.len() as u64 {
        return Err(VerifyError::Length {
            digest,
            signed: target.length,
            got: manifest.len() as u64,
        });
    }
    let parsed =
        Manifest::parse(manifest).map_err(|source| VerifyError::Manifest { digest, source })?;
    if !path.ends_with(&format!("/{}.json", parsed.name)) {
        return Err(VerifyError::NotListed(digest));
    }
    Ok(Verified::new(Release { digest, manifest: parsed, targets_version: targets.get().version }))
}

/// Holds if `release` is newer than all that this device committed.
pub fn newer_than(release: &Verified<Release>, floor: Floor) -> Result<(), VerifyError> {
    let Release { digest, manifest, .. } = release.get();
    if manifest.counter > floor.counter {
        Ok(())
    } else {
        Err(VerifyError::OldRelease {
            digest: *digest,
            floor: floor.counter,
            got: manifest.counter,
        })
    }
}

fn parse(role: &str, bytes: &[u8]) -> Result<Document, VerifyError> {
    Document::parse(role, bytes)
        .map_err(|source| VerifyError::Document { role: role.to_owned(), source })
}

fn meets(document: &Document, root: &Root, role: &str) -> Result<(), VerifyError> {
    Signers::of_root(root, role)
        .and_then(|signers| document.meets(&signers))
        .map_err(|source| VerifyError::Document { role: role.to_owned(), source })
}

fn content<T: DeserializeOwned>(role: &str, document: &Document) -> Result<T, VerifyError> {
    let field = |name: &str| {
        document.signed.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let (kind, spec_version) = (field("_type"), field("spec_version"));
    if kind != role || !spec_version.starts_with("1.") {
        return Err(VerifyError::Kind { role: role.to_owned(), kind, spec_version });
    }
    serde_json::from_value(document.signed.clone())
        .map_err(|source| VerifyError::Content { role: role.to_owned(), source })
}

fn fresh(role: &str, expires: &str, now: UnixMs) -> Result<(), VerifyError> {
    let at = UnixMs::from_rfc3339(expires)
        .map_err(|source| VerifyError::Expiry { role: role.to_owned(), source })?;
    if now < at {
        Ok(())
    } else {
        Err(VerifyError::Expired { role: role.to_owned(), expires: expires.to_owned() })
    }
}
