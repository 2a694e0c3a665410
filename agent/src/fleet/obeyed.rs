//! What this device remembers of the controller's word across restarts. It lies beside the identity, so a device that
//! joins another fleet starts anew.

use std::path::PathBuf;

use protocol::{
    blob::Blob,
    cbor::MESSAGE_BYTES_MAX,
    command::{Desired, Reader},
    digest::Digest,
    time::UnixMs,
    verified::Verified,
};
use serde::{Deserialize, Serialize};
use slots::disk::RealDisk;
use tokio::task::{JoinError, spawn_blocking};

use crate::fleet::{
    desired::Progress,
    state_file::{self, StateFileError},
};

/// The file's name in the folder `identity`.
const FILE: &str = "obeyed.cbor";
/// Two messages, and some.
const BYTES_MAX: usize = 3 * MESSAGE_BYTES_MAX;

/// The controller's word, as far as it was obeyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obeyed {
    /// Highest sequence of an assignment.
    pub sequence: u64,
    /// That assignment as the controller signed it.
    pub desired: Option<Blob>,
    /// How far this device went with it.
    pub progress: Progress,
    /// Highest sequence of a halt.
    pub halt_sequence: u64,
    /// The last message that was refused, so that it is reported once however often the broker repeats it.
    pub refused: Option<Digest>,
}

/// Why it cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ObeyedError {
    /// The disk refused, or the file is damaged.
    #[error("remembering what the controller said")]
    File(#[from] StateFileError),
    /// The runtime is ending.
    #[error("the agent is stopping")]
    Stopping(#[from] JoinError),
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct ObeyedFile(PathBuf);

impl ObeyedFile {
    /// In the folder `identity`.
    pub fn new(identity: &std::path::Path) -> Self {
        Self(identity.join(FILE))
    }

    /// Reads it; a device that never heard anything has the default.
    pub async fn load(&self) -> Result<Obeyed, ObeyedError> {
        let path = self.0.clone();
        let load = move || state_file::load(&RealDisk, &path, BYTES_MAX);
        Ok(spawn_blocking(load).await??.unwrap_or_default())
    }

    /// Keeps it durably.
    pub async fn save(&self, obeyed: &Obeyed) -> Result<(), ObeyedError> {
        let (path, obeyed) = (self.0.clone(), obeyed.clone());
        Ok(spawn_blocking(move || state_file::save(&RealDisk, &path, &obeyed)).await??)
    }
}

impl Obeyed {
    /// The newest assignment, if it still holds.
    pub fn desired(&self, reader: Reader<'_>, now: UnixMs) -> Option<Verified<Desired>> {
        let bytes = self.desired.as_ref()?;
        reader.desired(bytes.as_slice(), self.sequence, now).ok()
    }
}
