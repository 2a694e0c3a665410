//! The power is cut at every operation of an update, and every combination of what was not durable is looked at.
#![expect(clippy::unwrap_used, reason = "a test's helpers may give up")]

mod support;

use slots::{crash_disk::CrashDisk, layout::StateDir};
use support::{Release, World, check, check_done, drive};

struct Rig {
    world: World,
    dir: StateDir,
    base: CrashDisk,
}

impl Rig {
    /// A machine that committed release 1, or 1 and then 2.
    fn committed(releases: u8) -> Self {
        let rig = Self::enrolled();
        for release in [&rig.world.one, &rig.world.two].into_iter().take(releases.into()) {
            drive(&rig.base, &rig.dir, release).unwrap();
        }
        rig
    }

    /// A machine that never had a release.
    fn enrolled() -> Self {
        let (world, dir, base) = (World::new(b"agent "), StateDir::new("/s"), CrashDisk::new());
        world.enrol(&base, &dir);
        Self { world, dir, base }
    }

    fn operations(&self, release: &Release) -> usize {
        let disk = self.base.copy();
        drive(&disk, &self.dir, release).unwrap();
        disk.operations() - self.base.operations()
    }

    /// Cuts the power at every operation, and once more when all is done; the first violation, or how many states
    /// were seen. `lie` leaves one sync out.
    fn cut_everywhere(
        &self,
        lie: Option<usize>,
        old: Option<&Release>,
        new: &Release,
    ) -> Result<usize, String> {
        let old = old.map(Release::digest);
        let mut states = 0;
        let operations = self.operations(new);
        // From the end: what a missing sync leaves undone shows there first.
        for cut in (0..=operations).rev() {
            let disk = self.base.copy();
            if let Some(sync) = lie {
                disk.skip_sync(self.base.syncs() + sync);
            }
            disk.cut_after(cut);
            let driven = drive(&disk, &self.dir, new);
            assert_eq!(driven.is_ok(), cut == operations, "{driven:?}");
            for found in disk.after_power_cut(cut as u64 + 1) {
                states += 1;
                let at = |why: String| format!("cut at operation {cut}: {why}");
                if cut == operations {
                    check_done(&found, &self.dir, new).map_err(at)?;
                    continue;
                }
                check(&found, &self.dir, old, new.digest()).map_err(at)?;
                if states % 5 == 0 {
                    drive(&found, &self.dir, new).map_err(|why| at(format!("going on: {why}")))?;
                    check_done(&found, &self.dir, new).map_err(at)?;
                }
            }
        }
        Ok(states)
    }
}

#[test]
fn old_or_new_never_neither() {
    let rig = Rig::committed(1);
    let (one, two) = (&rig.world.one, &rig.world.two);
    let states = rig.cut_everywhere(None, Some(one), two).unwrap();
    println!("{states} states after {} cuts: old or new in each", rig.operations(two));
    assert!(states > 1000, "{states}");
}

#[test]
fn a_used_slot_is_filled_again_and_the_other_one_stays() {
    let rig = Rig::committed(2);
    let states = rig.cut_everywhere(None, Some(&rig.world.two), &rig.world.three).unwrap();
    assert!(states > 1000, "{states}");
}

#[test]
fn the_first_release_is_all_there_or_the_factory_runs() {
    let rig = Rig::enrolled();
    let states = rig.cut_everywhere(None, None, &rig.world.one).unwrap();
    assert!(states > 1000, "{states}");
}

/// Each sync of an update is left out in turn. The test above must notice, else it proves nothing or the sync is idle.
#[test]
fn a_missing_sync_is_noticed() {
    let rig = Rig::committed(1);
    let (one, two) = (&rig.world.one, &rig.world.two);
    let disk = rig.base.copy();
    drive(&disk, &rig.dir, two).unwrap();
    let syncs = disk.syncs() - rig.base.syncs();
    let idle: Vec<usize> =
        (0..syncs).filter(|&sync| rig.cut_everywhere(Some(sync), Some(one), two).is_ok()).collect();
    println!("{syncs} syncs, not noticed when missing: {idle:?}");
    assert!(idle.is_empty(), "{idle:?} of {syncs}");
}
