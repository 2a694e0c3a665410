//! `online-keys.json`: the public halves of the keys that a controller signs snapshot and timestamp with. The root of
//! the fleet names them; the controller makes them and never shows their private halves.

use serde::{Deserialize, Serialize};

use crate::tuf::metadata::Key;

/// The file that `socle-controller init` writes and `socle keys init --online` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineKeys {
    /// Keys for the snapshot role.
    pub snapshot: Vec<Key>,
    /// Keys for the timestamp role.
    pub timestamp: Vec<Key>,
}
