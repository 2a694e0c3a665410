//! What is asked of the process that serves the disks, and its answers: one JSON line each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::blocks::log::{Cut, Shape};

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Empty the disk.
    Blank {
        /// Disk.
        disk: usize,
    },
    /// Note what happens to the disk from now on.
    Record {
        /// Disk.
        disk: usize,
    },
    /// How much was noted so far.
    Length {
        /// Disk.
        disk: usize,
    },
    /// Note no more, and keep the log for [`Order::Load`].
    Finish {
        /// Disk.
        disk: usize,
    },
    /// Let the disk hold what a power cut left of the one whose log was finished last.
    Load {
        /// Disk.
        disk: usize,
        /// Power cut.
        cut: Cut,
    },
    /// Let requests fail.
    Fail {
        /// Disk.
        disk: usize,
        /// Which; none lets the disk work again.
        faults: Option<Faults>,
    },
    /// Write the disk's content to a file, for a person to look at.
    Save {
        /// Disk.
        disk: usize,
        /// File, made anew.
        path: PathBuf,
    },
}

/// Requests that fail with an input/output error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// What fails.
    pub failing: Failing,
    /// After so many of these went well.
    pub after: u32,
    /// So many fail; the ones after that go well again.
    pub count: u32,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failing {
    /// Reads.
    Reads,
    /// Writes and flushes.
    Writes,
    /// All.
    Both,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// So many entries.
    Length(usize),
    /// What was recorded.
    Shape(Shape),
    /// What a power cut left.
    Left {
        /// Writes that it could have undone.
        volatile: usize,
        /// Writes that it did undo.
        lost: usize,
    },
    /// It cannot be done.
    Refused(String),
}
