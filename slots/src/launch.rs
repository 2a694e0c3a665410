//! Which slot a process starts from, and its executable, opened and verified.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{digest::Digest, id::Slot, time::UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    executable::Executables,
    layout::{SlotDir, StateDir},
    state::{Held, StartId, State},
    verify::{self, SlotError},
};

/// Largest `factory.json`.
const FACTORY_BYTES_MAX: u64 = 4096;

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

/// A start, and all that decides what it starts. Nothing is written.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What is to be started.
    pub role: Role,
    /// The boot record's state.
    pub state: &'a State,
    /// Which start this is.
    pub start: StartId,
    /// The clock.
    pub now: UnixMs,
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
pub struct Launch<T> {
    /// Where it comes from.
    pub place: Place,
    /// The opened executable.
    pub agent: T,
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
pub fn places(asked: &Asked<'_>) -> Vec<Place> {
    let held = match asked.role {
        Role::Worker(slot) => return vec![Place::Slot(slot, None)],
        Role::Updater => None,
        Role::Gateway => asked.tried(),
    };
    let chosen = held.into_iter().chain(asked.state.active());
    chosen.map(|held| Place::Slot(held.slot, Some(held.clone()))).chain([Place::Factory]).collect()
}

impl Asked<'_> {
    /// The release on probation, if this start's try was written and its time is not over. When the disk takes no more
    /// writes, no try is spent and no deadline is enforced by anyone else, so the committed release starts.
    fn tried(&self) -> Option<&Held> {
        match self.state {
            State::Probation { trial, deadline, start, .. } => {
                (start.may_be(self.start) && self.now < *deadline).then_some(&trial.held)
            }
            State::Steady { .. }
            | State::Staging { .. }
            | State::Staged { .. }
            | State::Loaded { .. }
            | State::Golden { .. }
            | State::Armed { .. } => None,
        }
    }

    /// Why the release on probation does not start.
    fn passed_over(&self) -> Option<String> {
        match (self.role, self.state) {
            (Role::Gateway, State::Probation { trial, .. }) if self.tried().is_none() => {
                Some(format!(
                    "release {} is on trial, but no try was written for this start: the committed release starts",
                    trial.held.name
                ))
            }
            (Role::Gateway | Role::Updater | Role::Worker(_), _) => None,
        }
    }
}

/// The first of [`places`] that verifies.
pub fn open<D: Executables>(
    disk: &D,
    dir: &StateDir,
    factory: &Path,
    asked: &Asked<'_>,
) -> Result<Launch<D::Opened>, LaunchError> {
    let mut alarms: Vec<String> = asked.passed_over().into_iter().collect();
    for place in places(asked) {
        match &place {
            Place::Slot(slot, held) => {
                let opened = open_slot(disk, dir, *slot, held.as_ref());
                match (opened, asked.role) {
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
    match open_factory(disk, factory) {
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
pub fn check<D: Executables>(disk: &D, dir: &StateDir, held: &Held) -> Result<(), SlotError> {
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

fn open_slot<D: Executables>(
    disk: &D,
    dir: &StateDir,
    slot: Slot,
    held: Option<&Held>,
) -> Result<(D::Opened, Digest), SlotError> {
    let release = verify::installed(disk, dir, slot, held.map(|held| &held.release))?;
    let expected = release.get().manifest.agent().ok_or(SlotError::NoAgent(slot))?.sha256;
    let agent = disk.open_executable(&dir.slot(slot).agent(), &expected)?;
    Ok((agent, release.get().digest))
}

fn open_factory<D: Executables>(disk: &D, folder: &Path) -> Result<D::Opened, FactoryError> {
    let path = folder.join("factory.json");
    let bytes = disk
        .read(&path, FACTORY_BYTES_MAX)
        .map_err(|source| FactoryError::Unreadable(path.clone(), source))?;
    let factory: Factory =
        serde_json::from_slice(&bytes).map_err(|source| FactoryError::Description(path, source))?;
    disk.open_executable(&SlotDir::new(folder).agent(), &factory.sha256)
        .map_err(FactoryError::Agent)
}
