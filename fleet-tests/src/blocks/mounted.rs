//! An ext4 file system on a served disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::blocks::{
    ended::{run, well},
    needs::command,
};

/// A small journal is written round and round, so that its end is met too.
const MAKE: [&str; 7] =
    ["-q", "-F", "-b4096", "-Jsize=4", "-m0", "-E", "nodiscard,lazy_itable_init=0"];
/// So often is a file system asked to go.
const UMOUNTS: u32 = 3;

/// How a file system is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// ext4's default: data is written before the metadata that names it.
    Ordered,
    /// Data may come at any time: a file that was not synced can hold anything.
    Writeback,
}

/// A mounted file system; it goes with this value.
#[derive(Debug)]
pub struct Mounted {
    at: Option<PathBuf>,
}

/// Makes a file system on `disk`.
pub fn make(disk: &Path) -> anyhow::Result<()> {
    well(command("mkfs.ext4").args(MAKE).arg(disk), "mkfs.ext4").map(|_| ())
}

/// What a machine does before it mounts a file system that was in trouble.
pub fn check(disk: &Path) -> anyhow::Result<()> {
    let ended = run(command("e2fsck").arg("-p").arg(disk), "e2fsck")?;
    // 1 and 2: it found faults and corrected them.
    match ended.status.code() {
        Some(0..=2) => Ok(()),
        Some(_) | None => bail!("e2fsck ended with {}: {}", ended.status, ended.out.trim()),
    }
}

impl Mounted {
    /// Mounts `disk` at `folder` through a loop device that goes with the mount.
    pub fn new(disk: &Path, folder: &Path, journal: Journal) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        // What ext4 does of its own accord for programs that forget to sync is turned off.
        let options = match journal {
            Journal::Ordered => "loop,noauto_da_alloc,errors=remount-ro,data=ordered",
            Journal::Writeback => "loop,noauto_da_alloc,errors=remount-ro,data=writeback",
        };
        let mut mount = command("mount");
        mount.args(["-t", "ext4", "-o", options]).arg(disk).arg(folder);
        well(&mut mount, "mount")?;
        Ok(Self { at: Some(folder.to_owned()) })
    }

    /// Unmounts it, in good order.
    pub fn end(mut self) -> anyhow::Result<()> {
        let Some(at) = self.at.take() else { return Ok(()) };
        let mut outcome = well(command("umount").arg(&at), "umount");
        // A process that another thread starts holds every open file until it executes its program.
        for _ in 1..UMOUNTS {
            if outcome.is_ok() {
                break;
            }
            outcome = well(command("umount").arg(&at), "umount");
        }
        if outcome.is_err() {
            self.at = Some(at);
        }
        outcome.map(|_| ())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(at) = &self.at {
            // Nobody is left to tell; the mount namespace ends with the harness and takes it along.
            drop(run(command("umount").arg("--lazy").arg(at), "umount"));
        }
    }
}
