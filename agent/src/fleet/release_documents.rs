//! The signed documents of a release: fetched from the artifact server, verified from the device's trusted root.

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    command::Desired,
    digest::Digest,
    time::UnixMs,
    tuf::early::{
        Floor, Release, VerifyError, fresh_targets, listed_release, newer_than, newest_root,
        pinned_root,
    },
    verified::Verified,
};

use crate::fleet::artifact_server::{ArtifactServer, HttpError};

/// Most roots that one walk takes.
const ROOTS_MAX: u64 = 64;

/// The documents as received, and what they prove.
#[derive(Clone, Debug)]
pub struct ReleaseDocuments {
    /// Roots newer than the trusted one, oldest first.
    pub roots: Vec<Vec<u8>>,
    /// Targets metadata.
    pub targets: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// What was verified.
    pub release: Verified<Release>,
}

/// Why a release's documents cannot be had or are not believed.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// The server did not give it.
    #[error("fetching {name}")]
    Http {
        /// Which document.
        name: String,
        /// Why.
        source: HttpError,
    },
    /// The server has no such document.
    #[error("the artifact server has no {0}; publish the release again")]
    Missing(String),
    /// The trusted root on the disk is damaged.
    #[error("reading this device's trusted root")]
    Trusted(#[source] VerifyError),
    /// Not genuine, not fresh, or older than what this device knows.
    #[error("verifying {name}")]
    Verify {
        /// Which document.
        name: String,
        /// Why.
        source: VerifyError,
    },
    /// The server is behind the controller.
    #[error(
        "the artifact server offers targets version {got}, the assignment was made from version {wanted}"
    )]
    Behind {
        /// Version of the assignment.
        wanted: u64,
        /// Version offered.
        got: u64,
    },
    /// Not the bytes that the assignment names.
    #[error("the manifest of release {} arrived altered: its digest is {got}, assigned is {wanted}", .wanted.short())]
    Altered {
        /// Digest assigned.
        wanted: Digest,
        /// Digest of what came.
        got: Digest,
    },
}

impl DocumentsError {
    /// Whether asking again may help.
    pub const fn passes(&self) -> bool {
        match self {
            Self::Http { .. } | Self::Behind { .. } => true,
            Self::Missing(_) | Self::Trusted(_) | Self::Verify { .. } | Self::Altered { .. } => {
                false
            }
        }
    }
}

/// Fetches and verifies the documents of the assigned release.
pub fn fetch_documents(
    server: &ArtifactServer,
    trusted: &[u8],
    desired: &Desired,
    floor: Floor,
    now: UnixMs,
) -> Result<ReleaseDocuments, DocumentsError> {
    let trusted = pinned_root(trusted).map_err(DocumentsError::Trusted)?;
    let first = trusted.get().version.saturating_add(1);
    let mut roots = Vec::new();
    for version in first..first.saturating_add(ROOTS_MAX) {
        let name = format!("{version}.root.json");
        match server.metadata(&name, DOCUMENT_BYTES_MAX) {
            Ok(Some(root)) => roots.push(root),
            Ok(None) => break,
            Err(source) => return Err(DocumentsError::Http { name, source }),
        }
    }
    let verify = |name: &str| {
        let name = name.to_owned();
        move |source| DocumentsError::Verify { name, source }
    };
    let root = newest_root(trusted, &roots).map_err(verify("the release root"))?;
    let targets = metadata(server, "targets.json")?;
    let listed = fresh_targets(&root, &targets, floor, now).map_err(verify("targets.json"))?;
    let (wanted, got) = (desired.targets_version, listed.get().version);
    if got < wanted {
        return Err(DocumentsError::Behind { wanted, got });
    }
    let manifest = manifest(server, desired)?;
    let release = listed_release(&listed, &manifest).map_err(verify("the manifest"))?;
    newer_than(&release, floor).map_err(verify("the release"))?;
    Ok(ReleaseDocuments { roots, targets, manifest, release })
}

fn metadata(server: &ArtifactServer, name: &str) -> Result<Vec<u8>, DocumentsError> {
    server
        .metadata(name, DOCUMENT_BYTES_MAX)
        .map_err(|source| DocumentsError::Http { name: name.to_owned(), source })?
        .ok_or_else(|| DocumentsError::Missing(name.to_owned()))
}

fn manifest(server: &ArtifactServer, desired: &Desired) -> Result<Vec<u8>, DocumentsError> {
    let wanted = desired.release;
    let signed = usize::try_from(desired.manifest_bytes).unwrap_or(usize::MAX);
    let manifest = server.document(&wanted, signed.min(DOCUMENT_BYTES_MAX)).map_err(|source| {
        DocumentsError::Http { name: format!("the manifest of release {}", wanted.short()), source }
    })?;
    let got = Digest::of(&manifest);
    if got == wanted { Ok(manifest) } else { Err(DocumentsError::Altered { wanted, got }) }
}
