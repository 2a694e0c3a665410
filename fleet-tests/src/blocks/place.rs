//! Where machines are tried: the disks, and what is mounted and started there.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::blocks::{disks::Disks, machine::Programs, mounted::Journal};

/// Where machines are tried.
#[derive(Debug)]
pub struct Place<'a> {
    /// The process that serves the disks.
    pub disks: &'a Mutex<Disks>,
    /// Below it each disk is mounted.
    pub folder: &'a Path,
    /// The factory slot.
    pub factory: &'a Path,
    /// The programs.
    pub programs: &'a Programs,
    /// How the file systems are mounted.
    pub journal: Journal,
    /// How many disks are used at a time.
    pub workers: usize,
    /// Where disks are kept that a failure was seen on; they are not kept when there is none.
    pub keep: Option<PathBuf>,
}
