//! Small real disks that fill up and turn read-only while the real updater and the real launcher run as processes. It
//! needs root, for mounting; without it, nothing is tried and that is said.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may give up")]

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{SystemTime, UNIX_EPOCH},
};

use fleet_tests::{
    device::{Device, Wish, factory},
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
};
use protocol::{
    digest::Digest,
    handover::Gate,
    manifest::{Policy, Role},
    time::UnixMs,
};
use slots::state::State;

/// The disk under test.
const DISK_BYTES: u64 = 12 << 20;
const MODEL_BYTES: usize = 1 << 20;
/// Most steps from one phase to the end of an update.
const STEPS_MAX: usize = 20;

/// A file system of its own, in memory, unmounted at the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Nothing, with a reason, where this process may not mount.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        if !rustix::process::geteuid().is_root() {
            say("not tried: mounting a small disk needs root");
            return None;
        }
        let options = format!("size={DISK_BYTES},mode=0755");
        let words = ["-t", "tmpfs", "-o", &options, "socle-small-disk"];
        let mounted = Command::new("mount").args(words).arg(folder.path()).output().unwrap();
        if !mounted.status.success() {
            say(&format!("not tried: {}", text(&mounted.stderr)));
            return None;
        }
        Some(Self(folder))
    }

    fn remount(&self, how: &str) {
        let option = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &option]).arg(self.0.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.0.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that failed half-way leaves no mount behind either.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// A device on the small disk; its releases' gateways say how they were started.
struct Machine {
    disk: Mounted,
    factory: tempfile::TempDir,
    keys: FleetKeys,
    device: Device,
    counter: u64,
    starts: u32,
}

impl Machine {
    fn new() -> Option<Self> {
        let disk = Mounted::new()?;
        let keys = FleetKeys::new().unwrap();
        let device = Device::enrol(&disk.0.path().join("state"), &keys).unwrap();
        let outside = tempfile::tempdir().unwrap();
        factory(&outside.path().join("factory"), Path::new("/bin/echo")).unwrap();
        Some(Self { disk, factory: outside, keys, device, counter: 0, starts: 0 })
    }

    /// A release whose model no other one shares.
    fn next(&mut self) -> Release {
        self.counter += 1;
        let model = (0..MODEL_BYTES).map(|i| (i as u64 * 31 + self.counter) as u8).collect();
        let recipe = Recipe {
            counter: self.counter,
            agent: PackedAgent::pack(Path::new("/bin/echo")).unwrap(),
            files: vec![("models/faq/model.onnx".into(), Role::Model, model)],
            policy: Policy { tries: 5, ..Policy::standard() },
            signers: 2,
        };
        build(&self.keys, recipe).unwrap()
    }

    fn stage(&mut self, release: &Release) -> anyhow::Result<()> {
        let request = self.device.request(&self.keys, release, now(), Wish::default())?;
        self.device.stage(&release.objects, &request)
    }

    fn updater(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_socle-crash-agent"));
        command.arg("updater").arg("--state").arg(self.device.dir.root());
        command.arg("--factory").arg(self.factory.path().join("factory")).output().unwrap()
    }

    fn launch(&self, words: &[&str]) -> Output {
        let mut command = Command::new(launcher());
        command.arg(words[0]).arg("--state").arg(self.device.dir.root());
        command.arg("--factory").arg(self.factory.path().join("factory"));
        command.args(&words[1..]).env("INVOCATION_ID", self.starts.to_string()).output().unwrap()
    }

    /// A gateway starts: a try is spent where that can be written, and something genuine runs. Says from where.
    fn start(&mut self) -> String {
        self.starts += 1;
        assert!(self.launch(&["arm"]).status.success(), "arming never fails a start");
        let started = self.launch(&["exec", "gateway"]);
        assert!(started.status.success(), "{started:?}");
        let said = text(&started.stdout);
        let slots = self.device.dir.slots();
        let slot = said.split_whitespace().find(|word| Path::new(word).starts_with(&slots));
        slot.unwrap_or_else(|| panic!("the factory agent runs: {started:?}")).to_owned()
    }

    fn phase(&self) -> &'static str {
        self.device.record().state.phase()
    }

    fn active(&self) -> Option<Digest> {
        self.device.record().state.active().map(|held| held.release)
    }

    fn slot_of(&self, running: Running) -> String {
        let state = self.device.record().state;
        let held = match running {
            Running::Committed => state.active().cloned(),
            Running::Trial => state.trial().map(|trial| trial.held.clone()),
        };
        self.device.dir.slot(held.unwrap().slot).path().display().to_string()
    }

    /// What is due for the release on trial, as far as the disk allows.
    fn step(&mut self) {
        let state = self.device.record().state;
        let judged = state.trial().map(|trial| trial.held.release);
        let gate = match &state {
            State::Staged { .. } => Some(Gate::Load),
            State::Loaded { .. } => Some(Gate::Golden),
            State::Probation { .. } => Some(Gate::Probation),
            State::Armed { .. } => {
                self.start();
                None
            }
            State::Steady { .. } | State::Staging { .. } | State::Golden { .. } => None,
        };
        if let (Some(release), Some(gate)) = (judged, gate) {
            // A full disk may not take the verdict; then there is none this time.
            drop(self.device.judge(release, gate, None));
        }
        self.updater();
    }

    fn until(&mut self, phase: &str) {
        for _ in 0..STEPS_MAX {
            if self.phase() == phase {
                return;
            }
            self.step();
        }
        panic!("{} instead of {phase}: {:?}", self.phase(), self.device.record().last());
    }

    fn commit(&mut self, release: &Release) {
        self.stage(release).unwrap();
        for _ in 0..STEPS_MAX {
            self.step();
            if self.active() == Some(release.digest()) && self.phase() == "steady" {
                return;
            }
        }
        panic!("not committed: {} {:?}", self.phase(), self.device.record().last());
    }

    /// Takes what is left of the disk, but for `left` bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.disk.0.path().join("filler");
        let mut file = File::create(&path).unwrap();
        let bytes = self.disk.free_bytes().saturating_sub(left);
        // The last piece may not fit any more: that is the point.
        drop(file.write_all(&vec![0; bytes as usize]));
        path
    }
}

#[derive(Clone, Copy)]
enum Running {
    Committed,
    Trial,
}

/// Beside our own programs, where cargo puts all of them.
fn launcher() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_socle-crash-agent")).with_file_name("socle-launch")
}

#[expect(clippy::disallowed_methods, reason = "the processes under test read the clock too")]
fn now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::print_stderr, reason = "what is not tried is said")]
fn say(words: &str) {
    eprintln!("{words}");
}

#[test]
fn a_disk_that_fills_up_keeps_its_release_and_takes_the_next_one_when_there_is_room() {
    let Some(mut machine) = Machine::new() else { return };
    let first = machine.next();
    machine.commit(&first);
    for left in [0, 4 << 10, 64 << 10, 300 << 10, 700 << 10, 1100 << 10, 1600 << 10, 2500 << 10] {
        let release = machine.next();
        machine.stage(&release).unwrap();
        let filler = machine.fill(left);
        for _ in 0..STEPS_MAX {
            machine.step();
            machine.start();
            assert!(machine.active().is_some(), "{left} bytes were left");
        }
        fs::remove_file(filler).unwrap();
        // As the gateway does with what it fetched for a release that is given up.
        for object in fs::read_dir(machine.device.dir.staged_objects()).unwrap() {
            fs::remove_file(object.unwrap().path()).unwrap();
        }
        // Whatever became of it, the one after it is taken.
        machine.updater();
        let after = machine.next();
        machine.commit(&after);
        let committed = machine.slot_of(Running::Committed);
        assert_eq!(machine.start(), committed);
    }
    // The committed release and the one before it; what failed is gone.
    let used = DISK_BYTES - machine.disk.free_bytes();
    assert!(used < 3 * MODEL_BYTES as u64, "{used} bytes are used");
}

#[test]
fn a_disk_that_turns_read_only_runs_the_committed_release_and_goes_on_when_it_is_mended() {
    let Some(mut machine) = Machine::new() else { return };
    let first = machine.next();
    machine.commit(&first);
    for phase in ["staged", "loaded", "armed", "probation"] {
        let release = machine.next();
        machine.stage(&release).unwrap();
        machine.until(phase);
        let committed = machine.slot_of(Running::Committed);
        machine.disk.remount("ro");
        // No try can be written: the release on trial does not start, however often a gateway does.
        for _ in 0..7 {
            assert_eq!(machine.start(), committed, "read-only when {phase}");
        }
        machine.updater();
        assert_eq!(machine.phase(), phase, "nothing was written");
        machine.disk.remount("rw");
        if matches!(phase, "armed" | "probation") {
            let trial = machine.slot_of(Running::Trial);
            assert_eq!(machine.start(), trial, "mended when {phase}");
        }
        for _ in 0..STEPS_MAX {
            machine.step();
        }
        assert_eq!(machine.active(), Some(release.digest()), "mended when {phase}");
    }
}
