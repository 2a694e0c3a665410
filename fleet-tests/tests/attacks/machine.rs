//! The disk of a machine: what starts is what was verified, whatever lies beside it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use fastrand::Rng;
use protocol::id::Slot;
use slots::{
    disk::{self, Disk as _, RealDisk},
    record::{self, COPY_BYTES},
};

use crate::device::{NOW, Rig};

/// Starts as a service would; the genuine agent and the factory's are `true`, an attacker's is `false`.
struct Launcher(PathBuf);

impl Launcher {
    fn new() -> Self {
        let own = std::env::current_exe().unwrap();
        let path = own.parent().unwrap().parent().unwrap().join("socle-launch");
        assert!(
            path.is_file(),
            "{} is not there; build it: cargo build --release --workspace --bins",
            path.display()
        );
        Self(path)
    }

    fn gateway(&self, rig: &Rig) -> Output {
        Command::new(&self.0)
            .arg("exec")
            .arg("--state")
            .arg(rig.device.dir.root())
            .arg("--factory")
            .arg(rig.folder.path().join("factory"))
            .arg("gateway")
            .output()
            .unwrap()
    }
}

/// Gives `path` another content under the same name; the store's copy is left alone.
fn put(path: &Path, content: &[u8]) {
    disk::replace(&RealDisk, path, content).unwrap();
    RealDisk.set_mode(path, 0o555).unwrap();
}

#[test]
fn verify_then_swap_race() {
    let rig = Rig::new();
    let launcher = Launcher::new();
    let agent = rig.device.dir.slot(Slot::A).agent();
    let (good, evil) = (fs::read("/bin/true").unwrap(), fs::read("/bin/false").unwrap());
    let folder = agent.parent().unwrap().to_owned();
    let (spare, bad) = (folder.join("good"), folder.join("evil"));
    put(&spare, &good);
    put(&bad, &evil);
    let stop = AtomicBool::new(false);
    let (mut genuine, mut skipped) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Both names change places as fast as the disk lets them.
            let mut turns = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let from = if turns.is_multiple_of(2) { &bad } else { &spare };
                let link = folder.join("next");
                drop(fs::remove_file(&link));
                fs::hard_link(from, &link).unwrap();
                RealDisk.rename(&link, &agent).unwrap();
                turns += 1;
            }
        });
        for _ in 0..300 {
            let output = launcher.gateway(&rig);
            // `false` ends with 1, `true` with 0, and the launcher's own refusals with 3 and more.
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            if output.stderr.is_empty() {
                genuine += 1;
            } else {
                skipped += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(genuine > 0 && skipped > 0, "{genuine} genuine, {skipped} skipped: no race happened");
}

#[test]
fn an_altered_file_of_a_committed_release() {
    let rig = Rig::new();
    let launcher = Launcher::new();
    let slot = rig.device.dir.slot(Slot::A);
    let evil = fs::read("/bin/false").unwrap();
    for path in [slot.agent(), slot.manifest(), slot.targets()] {
        let whole = fs::read(&path).unwrap();
        put(&path, if path == slot.agent() { &evil } else { b"{}" });
        let output = launcher.gateway(&rig);
        assert_eq!(output.status.code(), Some(0), "the factory's agent starts: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("is skipped"), "{said}");
        put(&path, &whole);
        assert!(launcher.gateway(&rig).stderr.is_empty());
    }
}

#[test]
fn a_symbolic_link_in_a_slot() {
    let rig = Rig::new();
    let launcher = Launcher::new();
    let agent = rig.device.dir.slot(Slot::A).agent();
    fs::remove_file(&agent).unwrap();
    symlink("/bin/false", &agent).unwrap();
    let output = launcher.gateway(&rig);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is skipped"));
}

#[test]
fn a_genuine_release_in_the_slot_of_another() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    rig.commit(&two);
    let launcher = Launcher::new();
    // Release 1, genuine but older, takes the place of the committed one.
    let (old, new) = (rig.device.dir.slot(Slot::A), rig.device.dir.slot(Slot::B));
    let away = rig.folder.path().join("away");
    RealDisk.rename(new.path(), &away).unwrap();
    RealDisk.rename(old.path(), new.path()).unwrap();
    let output = launcher.gateway(&rig);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("where the boot record names"), "{said}");
    assert_eq!(output.status.code(), Some(0), "the factory's agent starts: {output:?}");
}

#[test]
fn a_boot_record_with_flipped_bits() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    rig.commit(&two);
    let path = rig.device.dir.record();
    let whole = fs::read(&path).unwrap();
    let known = rig.device.record();
    let mut random = Rng::with_seed(4711);
    for round in 0..2_000 {
        let mut bent = whole.clone();
        let at = random.usize(0..bent.len());
        bent[at] ^= 1 << random.u8(0..8);
        disk::replace(&RealDisk, &path, &bent).unwrap();
        let loaded = record::load(&RealDisk, &rig.device.dir, NOW).record;
        // The other copy is at most one step older, and its floors are never lower than a release before.
        let active = loaded.state.running().map(|held| held.counter);
        assert_eq!(active, Some(2), "round {round}, byte {at}");
        assert!(loaded.counter_floor + 1 >= known.counter_floor, "round {round}, byte {at}");
    }
    assert!(whole.len() == 2 * COPY_BYTES);
}

#[test]
fn a_trusted_root_of_somebody_else() {
    let mut rig = Rig::new();
    let launcher = Launcher::new();
    let foreign = fleet_tests::signing::FleetKeys::new().unwrap().root(1).unwrap();
    let dir = rig.device.dir.clone();
    let paths = [dir.trusted_root(), dir.known_root(1)];
    let own = paths.each_ref().map(|path| fs::read(path).unwrap());
    for path in &paths {
        disk::replace(&RealDisk, path, &foreign).unwrap();
    }
    let output = launcher.gateway(&rig);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is skipped"), "{said}");
    assert_eq!(output.status.code(), Some(0), "the factory's agent starts: {output:?}");
    for (path, own) in paths.iter().zip(&own) {
        disk::replace(&RealDisk, path, own).unwrap();
    }
    let two = rig.release(2);
    rig.commit(&two);
}
