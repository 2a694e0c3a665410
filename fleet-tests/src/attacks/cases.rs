//! Repository states as the clients are given them, one JSON object a line, and what each client makes of them.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use protocol::time::UnixMs;
use serde::{Deserialize, Serialize};

/// A device's history of one repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Its number in the run.
    pub id: u64,
    /// What was made wrong: a name of `kinds::KINDS`.
    pub kind: String,
    /// The last delegated role whose own document was changed; empty when none was.
    pub delegated: String,
    /// What the random choices grew from.
    pub seed: u64,
    /// The time for every client, RFC 3339.
    pub now: String,
    /// The root that clients are given, base64.
    pub root: String,
    /// The repository each time it is looked at: file name to base64.
    pub steps: Vec<BTreeMap<String, String>>,
    /// Targets that are asked for each time.
    pub paths: Vec<String>,
}

/// What a client made of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The case.
    pub id: u64,
    /// What it made of each step.
    pub steps: Vec<Look>,
}

/// What a client made of a repository at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Why it refused all of it, if it did.
    #[serde(default)]
    pub refused: Option<String>,
    /// What it found for each path.
    #[serde(default)]
    pub paths: BTreeMap<String, Answered>,
}

/// What a client found for one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// No role lists it.
    Absent,
    /// It could not be said.
    Refused(String),
    /// This file.
    Found {
        /// SHA-256, hexadecimal.
        sha256: String,
        /// Bytes.
        length: u64,
    },
}

impl Case {
    /// The repository at `step`.
    pub fn files(&self, step: usize) -> BTreeMap<String, Vec<u8>> {
        let files = self.steps.get(step).into_iter().flatten();
        files.map(|(name, text)| (name.clone(), decode(text))).collect()
    }

    /// The root that clients are given.
    pub fn pinned(&self) -> Vec<u8> {
        decode(&self.root)
    }

    /// The time for every client.
    pub fn now(&self) -> UnixMs {
        UnixMs::from_rfc3339(&self.now).unwrap_or_default()
    }
}

impl Look {
    /// What it said of `path`.
    pub fn of(&self, path: &str) -> Answered {
        match (&self.refused, self.paths.get(path)) {
            (Some(why), _) => Answered::Refused(why.clone()),
            (None, Some(answered)) => answered.clone(),
            (None, None) => Answered::Refused("no answer".to_owned()),
        }
    }
}

impl Answered {
    /// Its kind, as the list of differences writes it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Refused(_) => "refused",
            Self::Found { .. } => "found",
        }
    }

    /// Whether two clients say the same; why they refuse may differ.
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(_), Self::Refused(_)) | (Self::Absent, Self::Absent) => true,
            (
                Self::Found { sha256, length },
                Self::Found { sha256: other_sha256, length: other_length },
            ) => sha256.eq_ignore_ascii_case(other_sha256) && length == other_length,
            (Self::Absent | Self::Refused(_) | Self::Found { .. }, _) => false,
        }
    }
}

/// Base64 of file contents.
pub fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

fn decode(text: &str) -> Vec<u8> {
    BASE64.decode(text.as_bytes()).unwrap_or_default()
}
