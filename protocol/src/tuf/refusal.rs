//! Why metadata or a release is not believed.

use crate::{
    digest::Digest,
    manifest::ManifestError,
    time::NotATime,
    tuf::{document::DocumentError, shape::ShapeError},
};

/// Most roots one update may walk through.
pub const ROOTS_MAX: usize = 64;
/// Most delegated roles one walk may look into.
pub const ROLES_MAX: usize = 32;

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
    /// Signed, but its parts contradict each other or the specification.
    #[error("{role} metadata is signed but must not be used")]
    Shape {
        /// Role being read.
        role: String,
        /// Why.
        source: ShapeError,
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
    /// Larger than its role ever is.
    #[error("{role} metadata of {bytes} bytes is larger than the {bytes_max} allowed")]
    TooLarge {
        /// Role being read.
        role: String,
        /// Size seen.
        bytes: usize,
        /// Largest allowed.
        bytes_max: usize,
    },
    /// Not the bytes that the listing document names.
    #[error("{role} metadata is not the file that {by} metadata lists: its {what} differs")]
    Listed {
        /// Role being read.
        role: String,
        /// Role that lists it.
        by: &'static str,
        /// Length, or the digest's algorithm.
        what: String,
    },
    /// Another version than listed.
    #[error("{role} metadata has version {got} where {by} metadata lists version {listed}")]
    Version {
        /// Role being read.
        role: String,
        /// Role that lists it.
        by: &'static str,
        /// Version listed.
        listed: u64,
        /// Version offered.
        got: u64,
    },
    /// Not listed at all.
    #[error("{by} metadata does not list {role}")]
    Unlisted {
        /// Role or file that is missing.
        role: String,
        /// Role that should list it.
        by: &'static str,
    },
    /// The same version again, with another content.
    #[error(
        "{role} metadata version {version} was seen before with another content: two documents were signed as one version"
    )]
    TwoContents {
        /// Role being read.
        role: &'static str,
        /// Version of both.
        version: u64,
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
    /// A role is needed that was not offered. Not a verdict: fetch it, add it and ask again.
    #[error("version {version} of {role} metadata is needed and was not offered")]
    Wanted {
        /// Role.
        role: String,
        /// Its version by the snapshot.
        version: u64,
        /// Its largest size in bytes.
        bytes_max: usize,
    },
    /// More roles than one walk, or one release, may look into.
    #[error("too many delegated roles would have to be asked about `{0}`; at most {ROLES_MAX} are")]
    TooManyRoles(String),
    /// A manifest the metadata does not list.
    #[error(
        "release {} is not listed at `{path}` in the signed metadata: it is not signed for this environment, or not at all", .digest.short()
    )]
    NotListed {
        /// Release.
        digest: Digest,
        /// Where it should be listed.
        path: String,
    },
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
    /// A file that its maker must sign, and did not.
    #[error(
        "release {}: `{file}` is not endorsed: no role that may speak for {kind} lists exactly this file", .digest.short()
    )]
    NotEndorsed {
        /// Release.
        digest: Digest,
        /// Path of the file in the release.
        file: String,
        /// `agent/` or `models/`.
        kind: &'static str,
    },
    /// A release not newer than the one committed.
    #[error(
        "release {} has counter {got}, not above {floor}, which this device committed already: refused as a rollback", .digest.short()
    )]
    OldRelease {
        /// Release.
        digest: Digest,
        /// Highest counter committed.
        floor: u64,
        /// Counter offered.
        got: u64,
    },
}
