//! The signed documents of a release: fetched from the artifact server, verified from what this device trusts.
//!
//! In the order of the TUF client's workflow: newer roots, timestamp, snapshot, targets, and the delegated roles that
//! the walks ask for. Every file is bounded before it is fetched, and all of them together.

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    command::Desired,
    digest::Digest,
    handover::REQUEST_BYTES_MAX,
    id::Environment,
    time::UnixMs,
    tuf::{
        chain::{TIMESTAMP_BYTES_MAX, fresh_snapshot, fresh_timestamp},
        metadata::Meta,
        permit::{Holder, PERMIT_BYTES_MAX, PermitError, may_install},
        refusal::{ROOTS_MAX, VerifyError},
        verify::{Offered, Release, Trusted, verify},
        walk::ROLES_READ_MAX,
    },
    verified::Verified,
};

use crate::fleet::artifact_server::{ArtifactServer, HttpError};

/// Room for all documents of one release; the assignment and the lengths between them take the rest of a request.
const DOCUMENTS_BYTES_MAX: usize = REQUEST_BYTES_MAX - 256 * 1024;

/// The documents as received, and what they prove.
#[derive(Clone, Debug)]
pub struct ReleaseDocuments {
    /// All metadata and the manifest.
    pub offered: Offered,
    /// The permit to go back, if the assignment names one.
    pub permit: Option<Vec<u8>>,
    /// What was verified.
    pub release: Verified<Release>,
}

/// What a release is held against.
#[derive(Clone, Copy, Debug)]
pub struct Yardstick<'a> {
    /// What this device trusts.
    pub trusted: &'a Trusted,
    /// Where it belongs.
    pub environment: &'a Environment,
    /// Who it is.
    pub holder: Holder<'a>,
    /// The highest release counter it committed.
    pub counter_floor: u64,
    /// The present.
    pub now: UnixMs,
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
    /// Not genuine, not fresh, or older than what this device knows.
    #[error("verifying {name}")]
    Verify {
        /// Which document.
        name: String,
        /// Why.
        source: VerifyError,
    },
    /// An older release than the one committed.
    #[error("the release is older than one that this device committed")]
    Old(#[source] PermitError),
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
    #[error("the {what} of release {} arrived altered: its digest is {got}, assigned is {wanted}", .release.short())]
    Altered {
        /// Manifest or permit.
        what: &'static str,
        /// The release.
        release: Digest,
        /// Digest assigned.
        wanted: Digest,
        /// Digest of what came.
        got: Digest,
    },
    /// More than a request may hold.
    #[error(
        "the release's documents have more than {DOCUMENTS_BYTES_MAX} bytes together; shorten what its roles list"
    )]
    TooMuch,
}

impl DocumentsError {
    /// Whether asking again may help.
    pub fn passes(&self) -> bool {
        match self {
            Self::Http { .. } | Self::Behind { .. } => true,
            // The controller signs timestamps anew all the time: this one is a mirror's, or its own after a long stop.
            Self::Verify { source: VerifyError::Expired { role, .. }, .. } => role == "timestamp",
            Self::Missing(_)
            | Self::Verify { .. }
            | Self::Old(_)
            | Self::Altered { .. }
            | Self::TooMuch => false,
        }
    }
}

/// Fetches and verifies the documents of the assigned release.
pub fn fetch_documents(
    server: &ArtifactServer,
    desired: &Desired,
    yardstick: Yardstick<'_>,
) -> Result<ReleaseDocuments, DocumentsError> {
    let Yardstick { trusted, environment, holder, counter_floor, now } = yardstick;
    let mut fetching = Fetching { server, bytes: 0 };
    let (roots, newest) = fetching.roots(trusted)?;
    let timestamp = fetching.needed("timestamp.json", TIMESTAMP_BYTES_MAX)?;
    let fresh = fresh_timestamp(newest.root(), &timestamp, newest.seen(), now)
        .map_err(refused("timestamp.json"))?;
    let listed = fresh.get().snapshot().map(|meta| (meta.version, bound(meta)));
    // The verifier holds that it is listed.
    let (version, bytes_max) = listed.unwrap_or((0, DOCUMENT_BYTES_MAX));
    let name = format!("{version}.snapshot.json");
    let snapshot = fetching.needed(&name, bytes_max)?;
    let known = fresh_snapshot(newest.root(), &snapshot, &fresh, newest.seen(), now)
        .map_err(refused(&name))?;
    let (wanted, got) =
        (desired.targets_version, known.get().role("targets").map_or(0, |meta| meta.version));
    if got < wanted {
        return Err(DocumentsError::Behind { wanted, got });
    }
    let manifest = fetching.object("manifest", desired, desired.release, desired.manifest_bytes)?;
    let mut offered = Offered { roots, timestamp, snapshot, roles: Vec::new(), manifest };
    let release = loop {
        match verify(trusted, &offered, environment, now) {
            Ok((_, release)) => break release,
            Err(VerifyError::Wanted { role, version, bytes_max })
                if offered.roles.len() < ROLES_READ_MAX =>
            {
                let bytes = fetching.needed(&format!("{version}.{role}.json"), bytes_max)?;
                offered.roles.push((role, bytes));
            }
            Err(source) => return Err(refused("the release")(source)),
        }
    };
    let permit = match desired.permit {
        None => None,
        Some(digest) => {
            Some(fetching.object("permit", desired, digest, PERMIT_BYTES_MAX as u64)?)
        }
    };
    may_install(&release, counter_floor, permit.as_deref(), holder, now)
        .map_err(DocumentsError::Old)?;
    Ok(ReleaseDocuments { offered, permit, release })
}

fn refused(name: &str) -> impl FnOnce(VerifyError) -> DocumentsError {
    let name = name.to_owned();
    move |source| DocumentsError::Verify { name, source }
}

/// The largest size of a listed file, in bytes.
fn bound(meta: &Meta) -> usize {
    let listed = meta.length.and_then(|length| usize::try_from(length).ok());
    listed.map_or(DOCUMENT_BYTES_MAX, |length| length.min(DOCUMENT_BYTES_MAX))
}

struct Fetching<'a> {
    server: &'a ArtifactServer,
    /// Of all documents so far.
    bytes: usize,
}

impl Fetching<'_> {
    /// Roots newer than the trusted one, each believed before the next is asked for.
    fn roots(&mut self, trusted: &Trusted) -> Result<(Vec<Vec<u8>>, Trusted), DocumentsError> {
        let (mut roots, mut newest) = (Vec::new(), trusted.clone());
        while roots.len() < ROOTS_MAX {
            let name = format!("{}.root.json", newest.root().get().version.saturating_add(1));
            let Some(root) = self.metadata(&name, DOCUMENT_BYTES_MAX)? else { break };
            newest = newest.after_roots(std::slice::from_ref(&root)).map_err(refused(&name))?;
            roots.push(root);
        }
        Ok((roots, newest))
    }

    fn needed(&mut self, name: &str, bytes_max: usize) -> Result<Vec<u8>, DocumentsError> {
        self.metadata(name, bytes_max)?.ok_or_else(|| DocumentsError::Missing(name.to_owned()))
    }

    fn metadata(
        &mut self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, DocumentsError> {
        let found = self
            .server
            .metadata(name, bytes_max)
            .map_err(|source| DocumentsError::Http { name: name.to_owned(), source })?;
        if let Some(bytes) = &found {
            self.count(bytes)?;
        }
        Ok(found)
    }

    fn object(
        &mut self,
        what: &'static str,
        desired: &Desired,
        wanted: Digest,
        bytes: u64,
    ) -> Result<Vec<u8>, DocumentsError> {
        let release = desired.release;
        let bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX).min(DOCUMENT_BYTES_MAX);
        let name = || format!("the {what} of release {}", release.short());
        let found = self
            .server
            .document(&wanted, bytes_max)
            .map_err(|source| DocumentsError::Http { name: name(), source })?;
        self.count(&found)?;
        let got = Digest::of(&found);
        if got == wanted {
            Ok(found)
        } else {
            Err(DocumentsError::Altered { what, release, wanted, got })
        }
    }

    fn count(&mut self, bytes: &[u8]) -> Result<(), DocumentsError> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > DOCUMENTS_BYTES_MAX { Err(DocumentsError::TooMuch) } else { Ok(()) }
    }
}
