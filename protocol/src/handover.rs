//! What the gateway leaves for the updater, as files in the staging area.
//!
//! The gateway has the network, the updater has the slots. The updater believes nothing in these files: it checks
//! the request again from its own trusted root, and a verdict only says what the gateway saw of one trial.

use serde::{Deserialize, Serialize};

use crate::{blob::Blob, digest::Digest, time::UnixMs};

/// Largest request, in bytes. A gateway whose documents are larger together refuses the release.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// `staging/request.cbor`: a release whose objects lie complete under `staging/objects/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The controller's signed assignment, as received.
    pub desired: Blob,
    /// Root metadata newer than the trusted one, oldest first, as received.
    pub roots: Vec<Blob>,
    /// Timestamp metadata, as received.
    pub timestamp: Blob,
    /// Snapshot metadata, as received.
    pub snapshot: Blob,
    /// Targets metadata of every role that the walks need, as received; `targets` first.
    pub targets: Vec<RoleDocument>,
    /// The manifest, as received.
    pub manifest: Blob,
    /// The permit to go back that the assignment names, if it names one, as received.
    pub permit: Option<Blob>,
}

/// A targets role's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleDocument {
    /// `targets`, or the name of a delegated role.
    pub role: String,
    /// Its metadata.
    pub document: Blob,
}

/// `staging/verdict.cbor`: what the gateway saw at one gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The release on trial.
    pub release: Digest,
    /// The gate.
    pub gate: Gate,
    /// What was seen.
    pub outcome: Outcome,
    /// When.
    pub at: UnixMs,
}

/// A gate whose verdict comes from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// The candidate worker loads and warms up.
    Load,
    /// The golden set is answered as signed.
    Golden,
    /// The new gateway is healthy and gives good answers.
    Probation,
}

/// What was seen at a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Outcome {
    /// It holds.
    Passed {
        /// Figures, for people; at most 2000 characters.
        detail: String,
    },
    /// It does not.
    Failed {
        /// Why, for people; at most 2000 characters.
        reason: String,
    },
}

impl Gate {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Golden => "golden",
            Self::Probation => "probation",
        }
    }
}
