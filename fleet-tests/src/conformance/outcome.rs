//! What can come of one test.

use std::{fmt, str::FromStr};

use anyhow::bail;

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Every output is the expected one.
    Pass,
    /// The same when its inputs of whole numbers and truth values, or all behind the first, are known beforehand, as a
    /// model has them that fixes axes, shapes, sizes and scales.
    Known,
    /// The engine's reader refuses the graph, or knows no such operator.
    Refused,
    /// The graph is read, and cannot be prepared: an operator is not known, or not in this form.
    Prepare,
    /// It is prepared, and fails when it runs.
    Run,
    /// It panics: caught, and told as an error.
    Panic,
    /// It runs, and gives another result than expected.
    Differs,
    /// The test has values that are no tensors, or of a type that the engine has not.
    Type,
    /// The process ended: out of memory or stack, or computing for too long.
    Ended,
}

impl Outcome {
    /// Whether the test passed.
    pub const fn passed(self) -> bool {
        match self {
            Self::Pass | Self::Known => true,
            Self::Refused
            | Self::Prepare
            | Self::Run
            | Self::Panic
            | Self::Differs
            | Self::Type
            | Self::Ended => false,
        }
    }
}

/// All of them, as they are written.
pub const ALL: [(Outcome, &str); 9] = [
    (Outcome::Pass, "pass"),
    (Outcome::Known, "known"),
    (Outcome::Refused, "refused"),
    (Outcome::Prepare, "prepare"),
    (Outcome::Run, "run"),
    (Outcome::Panic, "panic"),
    (Outcome::Differs, "differs"),
    (Outcome::Type, "type"),
    (Outcome::Ended, "ended"),
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = ALL.iter().find(|(outcome, _)| outcome == self);
        f.pad(found.map_or("", |(_, word)| word))
    }
}

impl FromStr for Outcome {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        match ALL.iter().find(|(_, known)| *known == word) {
            Some((outcome, _)) => Ok(*outcome),
            None => bail!("`{word}` is no outcome; there are {}", ALL.map(|(_, w)| w).join(", ")),
        }
    }
}
