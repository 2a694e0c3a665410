//! What someone wants to publish, and why it was not.

use protocol::{
    digest::Digest,
    id::DeviceId,
    tuf::{permit::PermitError, refusal::VerifyError},
};

use crate::{artifacts::ArtifactError, catalogue::RoleBytes, store::database::StoreError};

/// What someone wants to publish.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// New top-level targets.
    pub targets: Option<Vec<u8>>,
    /// New metadata of delegated roles.
    pub roles: Vec<RoleBytes>,
    /// A release.
    pub manifest: Option<Vec<u8>>,
    /// Snapshot and timestamp, where the root names other keys for them than ours.
    pub online: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is nothing to check a release against.
    #[error("no root is published yet; publish metadata/1.root.json first")]
    NoRoot,
    /// The root, or what is signed under it.
    #[error("refused by the verifier")]
    Refused(#[source] VerifyError),
    /// A first root that is not the first.
    #[error("the first root published must have version 1, not {0}")]
    FirstRoot(u64),
    /// The same version with another content.
    #[error(
        "{role} metadata version {version} is published already with another content; raise its version and sign it again"
    )]
    SameVersion {
        /// The role.
        role: String,
        /// Its version.
        version: u64,
    },
    /// A document that cannot be metadata of that role.
    #[error(
        "what came as metadata of the role `{0}` is not targets metadata of a role that may have this name"
    )]
    Unreadable(String),
    /// A role that is trusted for something, and whose word nobody has.
    #[error(
        "role `{0}` is delegated to, but has no metadata yet: a device that comes to it would stop; publish its signed metadata along"
    )]
    MissingRole(String),
    /// The root names other keys for snapshot and timestamp.
    #[error(
        "the root names other keys for snapshot and timestamp than this controller's; name them in the next root (`socle root change --online online-keys.json`), or send snapshot and timestamp along"
    )]
    NotOurs,
    /// Nothing to publish.
    #[error("the publication is empty; send targets, roles or a manifest")]
    Empty,
    /// A counter that does not grow.
    #[error(
        "release counter {got} is not above {newest} of the newest release; build it with a higher one"
    )]
    Counter {
        /// Newest published.
        newest: u64,
        /// Offered.
        got: u64,
    },
    /// A name that is taken.
    #[error("a release named `{0}` is published already with another content; choose another name")]
    Name(String),
    /// Objects that must be uploaded first.
    #[error("{} objects of the release are not uploaded", .0.len())]
    Missing(Vec<Digest>),
    /// A permit that does not hold.
    #[error("refusing the permit to go back")]
    Permit(#[source] PermitError),
    /// A permit for what is not published.
    #[error("the permit is for release {}, which is not published here", .0.short())]
    NoRelease(Digest),
    /// A permit for nobody.
    #[error("the permit is for device {}, which is not enrolled here", .0.short())]
    NoDevice(DeviceId),
    /// The last version there can be.
    #[error(
        "{0} metadata has reached its last version; replace the keys of the role by a new root"
    )]
    LastVersion(&'static str),
    /// A mistake of ours.
    #[error("signing snapshot and timestamp")]
    Sign(#[source] serde_json::Error),
    /// The store.
    #[error("storing what is published")]
    Store(#[source] StoreError),
    /// The objects.
    #[error("storing the manifest")]
    Artifacts(#[source] ArtifactError),
}
