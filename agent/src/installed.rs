//! Which release this process runs from, and where its state and sockets lie.

use std::{
    env,
    path::{Path, PathBuf},
};

use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    digest::{Digest, NotADigest},
    id::{NotAName, Slot},
    manifest::Manifest,
};
use slots::{
    disk::{Disk, RealDisk},
    layout::{SlotDir, StateDir},
};

/// Environment variable by which `socle-launch` says which slot it chose.
pub const SLOT_VARIABLE: &str = "SOCLE_SLOT";
/// Environment variable by which `socle-launch` says which release lies there.
pub const RELEASE_VARIABLE: &str = "SOCLE_RELEASE";
/// What [`SLOT_VARIABLE`] says of the factory slot.
pub const FACTORY: &str = "factory";

/// Where this process runs from.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The device's state.
    pub state: StateDir,
    /// Folder of the sockets.
    pub runtime: PathBuf,
    /// Folder of the release.
    pub slot_dir: SlotDir,
    /// Its slot; none is the factory slot.
    pub slot: Option<Slot>,
    /// The release; none in the factory slot.
    pub release: Option<Digest>,
    /// Its name, when the slot says one.
    pub release_name: Option<String>,
}

/// Why it is not known where this process runs from.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    /// Not a slot.
    #[error("environment variable {SLOT_VARIABLE}, which `socle-launch` sets")]
    Slot(#[source] NotAName),
    /// Not a digest.
    #[error("environment variable {RELEASE_VARIABLE}, which `socle-launch` sets")]
    Release(#[source] NotADigest),
}

impl Installed {
    /// As `socle-launch` said in the environment. Without it this is the factory slot: an agent that was started by hand
    /// has no verified release.
    ///
    /// # Errors
    /// The environment says something impossible.
    pub fn from_env(state: &Path, runtime: &Path, slot_dir: &Path) -> Result<Self, InstalledError> {
        let slot = match env::var(SLOT_VARIABLE).unwrap_or_default().as_str() {
            "" | FACTORY => None,
            text => Some(text.parse().map_err(InstalledError::Slot)?),
        };
        let slot_dir = SlotDir::new(slot_dir);
        Ok(Self {
            state: StateDir::new(state),
            runtime: runtime.to_owned(),
            slot,
            release: release_from_env()?,
            release_name: slot.and_then(|_| name_in(&slot_dir)),
            slot_dir,
        })
    }

    /// Where the worker of `slot` listens.
    pub fn worker_socket(&self, slot: Slot) -> PathBuf {
        worker_socket(&self.runtime, slot)
    }

    /// Where the local API listens.
    pub fn api_socket(&self) -> PathBuf {
        api_socket(&self.runtime)
    }

    /// Where the MQTT client meets the relay.
    pub fn mqtt_socket(&self) -> PathBuf {
        self.runtime.join("mqtt.sock")
    }

    /// The slot's name: `a`, `b` or `factory`.
    pub fn slot_name(&self) -> &'static str {
        self.slot.map_or(FACTORY, Slot::as_str)
    }
}

/// The release that `socle-launch` said this process serves.
///
/// # Errors
/// It is not a digest.
pub fn release_from_env() -> Result<Option<Digest>, InstalledError> {
    match env::var(RELEASE_VARIABLE).unwrap_or_default().as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(InstalledError::Release),
    }
}

/// Where the worker of `slot` listens.
pub fn worker_socket(runtime: &Path, slot: Slot) -> PathBuf {
    runtime.join(format!("worker-{slot}.sock"))
}

/// Where the local API listens.
pub fn api_socket(runtime: &Path) -> PathBuf {
    runtime.join("api.sock")
}

/// The release's name, only to be shown: `socle-launch` verified the slot before it started this process.
fn name_in(slot_dir: &SlotDir) -> Option<String> {
    let bytes_max = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = RealDisk.read(&slot_dir.manifest(), bytes_max).ok()?;
    Manifest::parse(&bytes).ok().map(|manifest| manifest.name)
}
