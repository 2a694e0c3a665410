//! The room that a release takes, held before anything moves, so that a disk that fills up meanwhile fills up for others.

use std::io;

use protocol::manifest::Object;
use slots::{
    disk::{Disk, RealDisk},
    layout::StateDir,
};

use crate::fleet::part;

/// What a release takes on the disk beyond what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// To fetch it.
    pub to_stage: u64,
    /// For the updater's own copy of it.
    pub to_store: u64,
}

impl Space {
    /// Both.
    pub const fn total(self) -> u64 {
        self.to_stage.saturating_add(self.to_store)
    }
}

/// Bytes that an earlier attempt at these objects holds already.
pub fn held(state: &StateDir, objects: &[Object]) -> u64 {
    let parts = objects.iter().map(|object| part::taken(&state.staged_part(&object.sha256)));
    parts.fold(part::taken(&state.reserved()), u64::saturating_add)
}

/// Takes the room: each object's own, and that of the updater's copies. On a full disk nothing new is held.
pub fn hold(state: &StateDir, objects: &[Object], space: Space) -> io::Result<()> {
    let take = || -> io::Result<()> {
        for object in objects {
            part::reserve(&state.staged_part(&object.sha256), object.length)?;
        }
        // Exactly as much as this release needs, whatever an earlier one held.
        RealDisk.remove_file(&state.reserved())?;
        part::reserve(&state.reserved(), space.to_store)
    };
    let taken = take();
    if taken.is_err() {
        release(state)?;
        for object in objects {
            let path = state.staged_part(&object.sha256);
            if RealDisk.length(&path)? == Some(0) {
                RealDisk.remove_file(&path)?;
            }
        }
    }
    taken
}

/// Gives back what was held for the updater: it is about to use it, or nothing comes of the release.
pub fn release(state: &StateDir) -> io::Result<()> {
    RealDisk.remove_file(&state.reserved())
}

/// Free space where the state lies, in bytes.
pub fn free_bytes(state: &StateDir) -> u64 {
    rustix::fs::statvfs(state.root()).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::digest::Digest;

    #[test]
    fn room_is_held_once_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        state.prepare(&RealDisk).unwrap();
        let objects = [Object { sha256: Digest::of(b"x"), length: 3 << 20 }];
        let space = Space { to_stage: 3 << 20, to_store: 5 << 20 };
        assert_eq!(held(&state, &objects), 0);
        for _ in 0..2 {
            hold(&state, &objects, space).unwrap();
            let held = held(&state, &objects);
            // A file system that cannot reserve holds nothing.
            assert!(held == 0 || (8 << 20..9 << 20).contains(&held), "{held}");
        }
        let huge = Space { to_stage: 0, to_store: i64::MAX as u64 };
        if held(&state, &objects) > 0 {
            assert!(hold(&state, &objects, huge).is_err());
            assert!(!state.reserved().exists());
            assert!(!state.staged_part(&objects[0].sha256).exists());
        }
        release(&state).unwrap();
    }
}
