//! Which slot a process starts from, and its executable, opened and verified.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{digest::Digest, id::Slot};
use serde::{Deserialize, Serialize};

use crate::{
    disk::Disk,
    layout::{SlotDir, StateDir},
    state::{Held, State},
    verify::{self, SlotError},
};

/// What is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The gateway: the trial's while it is on probation, else the committed one.
    Gateway,
    /// The worker of one slot.
    Worker(Slot),
    /// The updater: always the committed one, never the one on trial.
    Updater,
}

/// Where an executable comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A slot with the release that must lie in it; none for a worker, which takes any genuine one.
    Slot(Slot, Option<Held>),
    /// The package's own.
    Factory,
}

/// An executable, verified and ready to run.
#[derive(Debug)]
pub struct Launch {
    /// Where it comes from.
    pub place: Place,
    /// The opened executable.
    pub agent: fs::File,
    /// The folder it belongs to: the slot, or the factory.
    pub folder: PathBuf,
    /// Its release; none for the factory.
    pub release: Option<Digest>,
    /// Places that were skipped, and why.
    pub alarms: Vec<String>,
}

/// The description of the package's own agent, `factory.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factory {
    /// Version of the agent.
    pub version: String,
    /// SHA-256 of `bin/socle-agent`.
    pub sha256: Digest,
}

/// Why nothing can be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The slot asked for does not verify.
    #[error("slot {slot} holds no release that a worker may run")]
    Slot {
        /// Slot.
        slot: Slot,
        /// Why.
        source: Box<SlotError>,
    },
    /// The last resort is unusable too.
    #[error(
        "the factory slot {folder} cannot be used, and no other slot can; install the socle package again{skipped}"
    )]
    Factory {
        /// Its folder.
        folder: PathBuf,
        /// Other places that were skipped, each on its line.
        skipped: String,
        /// Why.
        source: Box<FactoryError>,
    },
}

/// Why the factory slot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// Its description cannot be read.
    #[error("reading {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// Its description is damaged.
    #[error("{0} is damaged")]
    Description(PathBuf, #[source] serde_json::Error),
    /// Its agent does not match.
    #[error("checking its agent")]
    Agent(#[source] SlotError),
}

/// Where to look, in order. Worker: the slot asked for and no other.
pub fn places(role: Role, state: &State) -> Vec<Place> {
    let held = match role {
        Role::Worker(slot) => return vec![Place::Slot(slot, None)],
        Role::Updater => None,
        Role::Gateway => state.running().filter(|held| state.active() != Some(*held)),
    };
    let chosen = held.into_iter().chain(state.active());
    chosen.map(|held| Place::Slot(held.slot, Some(held.clone()))).chain([Place::Factory]).collect()
}

/// The first of [`places`] that verifies.
pub fn open(
    disk: &dyn Disk,
    dir: &StateDir,
    factory: &Path,
    role: Role,
    state: &State,
) -> Result<Launch, LaunchError> {
    let mut alarms = Vec::new();
    for place in places(role, state) {
        match &place {
            Place::Slot(slot, held) => {
                let opened = open_slot(disk, dir, *slot, held.as_ref());
                match (opened, role) {
                    (Ok((agent, release)), _) => {
                        let folder = dir.slot(*slot).path().to_owned();
                        return Ok(Launch { place, agent, folder, release: Some(release), alarms });
                    }
                    (Err(source), Role::Worker(_)) => {
                        return Err(LaunchError::Slot { slot: *slot, source: Box::new(source) });
                    }
                    (Err(error), Role::Gateway | Role::Updater) => {
                        alarms.push(format!("slot {slot} is skipped: {}", chain_text(&error)));
                    }
                }
            }
            Place::Factory => break,
        }
    }
    match open_factory(factory) {
        Ok(agent) => {
            let folder = factory.to_owned();
            Ok(Launch { place: Place::Factory, agent, folder, release: None, alarms })
        }
        Err(source) => {
            let skipped = alarms.iter().map(|alarm| format!("\n{alarm}")).collect();
            Err(LaunchError::Factory {
                folder: factory.to_owned(),
                skipped,
                source: Box::new(source),
            })
        }
    }
}

/// Whether the slot of `held` could be started.
pub fn check(disk: &dyn Disk, dir: &StateDir, held: &Held) -> Result<(), SlotError> {
    open_slot(disk, dir, held.slot, Some(held)).map(|_| ())
}

/// An error with all its causes, on one line.
pub fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn open_slot(
    disk: &dyn Disk,
    dir: &StateDir,
    slot: Slot,
    held: Option<&Held>,
) -> Result<(fs::File, Digest), SlotError> {
    let release = verify::installed(disk, dir, slot, held.map(|held| &held.release))?;
    let agent = verify::open_agent(&dir.slot(slot), slot, &release.get().manifest)?;
    Ok((agent, release.get().digest))
}

fn open_factory(folder: &Path) -> Result<fs::File, FactoryError> {
    let path = folder.join("factory.json");
    let bytes = fs::read(&path).map_err(|source| FactoryError::Unreadable(path.clone(), source))?;
    let factory: Factory =
        serde_json::from_slice(&bytes).map_err(|source| FactoryError::Description(path, source))?;
    verify::open_executable(&SlotDir::new(folder).agent(), &factory.sha256)
        .map_err(FactoryError::Agent)
}
