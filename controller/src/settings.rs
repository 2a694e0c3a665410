//! What `init` fixes for the life of a controller: `controller.toml`.

use std::{fs, io, path::PathBuf};

use protocol::id::FleetId;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// The settings file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The fleet this controller leads.
    pub fleet: FleetId,
    /// Names and addresses in the server's certificate.
    pub names: Vec<String>,
}

/// Why settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No such file: never initialised.
    #[error(
        "{} holds no controller; run `socle-controller init --state {} --fleet NAME --name HOST` first",
        .state.display(), .state.display()
    )]
    Absent {
        /// The state folder.
        state: PathBuf,
    },
    /// The file cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not a settings file; restore it from a copy or initialise another folder", .path.display())]
    Shape {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
}

impl Settings {
    /// Reads the settings of an initialised state folder.
    pub fn load(layout: &Layout) -> Result<Self, SettingsError> {
        let path = layout.settings();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
                return Err(SettingsError::Absent { state: layout.state().to_owned() });
            }
            Err(source) => return Err(SettingsError::Read { path, source }),
        };
        toml::from_str(&text)
            .map_err(|source| SettingsError::Shape { path, source: Box::new(source) })
    }
}
