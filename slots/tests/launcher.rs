//! `socle-launch` itself, on a real file system; the agents are real executables that print their arguments.
#![expect(clippy::unwrap_used, reason = "a test's helpers may give up")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use protocol::{digest::Digest, handover::Gate, id::Slot};
use slots::{
    disk::{self, Disk as _, RealDisk},
    launch::Factory,
    layout::StateDir,
    record,
    state::{Event, State},
};
use support::{NOW, World, check_done, drive, until_armed};

struct Rig {
    folder: tempfile::TempDir,
    world: World,
    dir: StateDir,
    factory: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let echo = fs::read("/bin/echo").unwrap();
        let world = World::new(&echo);
        let dir = StateDir::new(folder.path().join("state"));
        world.enrol(&RealDisk, &dir);
        let factory = folder.path().join("factory");
        let bin = factory.join("bin");
        fs::create_dir_all(&bin).unwrap();
        disk::replace(&RealDisk, &bin.join("socle-agent"), &echo).unwrap();
        RealDisk.set_mode(&bin.join("socle-agent"), 0o555).unwrap();
        let described = Factory { version: "0.1.0".into(), sha256: Digest::of(&echo) };
        let bytes = serde_json::to_vec(&described).unwrap();
        disk::replace(&RealDisk, &factory.join("factory.json"), &bytes).unwrap();
        Self { folder, world, dir, factory }
    }

    fn launch(&self, verb: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_socle-launch"));
        command.arg(verb).arg("--state").arg(self.dir.root());
        if matches!(verb, "arm" | "exec") {
            command.arg("--factory").arg(&self.factory);
        }
        command.args(more).output().unwrap()
    }

    /// `arm` or `exec` as part of the start that is named so.
    fn in_start(&self, start: &str, verb: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_socle-launch"));
        command.arg(verb).arg("--state").arg(self.dir.root());
        command.arg("--factory").arg(&self.factory).args(more);
        command.env("INVOCATION_ID", start).output().unwrap()
    }

    fn arm(&self) -> String {
        let armed = self.launch("arm", &[]);
        assert!(armed.status.success(), "arm never fails: {armed:?}");
        text(&armed.stdout)
    }

    /// What the started agent was told.
    fn gateway(&self) -> String {
        let started = self.launch("exec", &["gateway", "--", "--listen", "127.0.0.1:1"]);
        assert!(started.status.success(), "{started:?}");
        text(&started.stdout)
    }

    fn runs_from(&self, folder: &Path) {
        let expected = format!(
            "gateway --state {} --slot-dir {} --listen 127.0.0.1:1\n",
            self.dir.root().display(),
            folder.display()
        );
        assert_eq!(self.gateway(), expected);
    }

    fn slot(&self, slot: Slot) -> PathBuf {
        self.dir.slot(slot).path().to_owned()
    }

    fn state(&self) -> State {
        record::load(&RealDisk, &self.dir, NOW).record.state
    }

    /// Another file under the same name, as an attacker or a bad disk would leave it.
    fn bend(&self, path: &Path) {
        let mut content = fs::read(path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        disk::replace(&RealDisk, path, &content).unwrap();
        RealDisk.set_mode(path, 0o555).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_a_release_the_factory_starts_and_with_one_its_slot() {
    let rig = Rig::new();
    assert!(rig.arm().contains("factory"));
    rig.runs_from(&rig.factory);
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    assert!(rig.arm().contains("2026.1 in slot a"));
    rig.runs_from(&rig.slot(Slot::A));

    let worker = rig.launch("exec", &["--slot", "a", "worker"]);
    let expected = format!("worker --slot-dir {}\n", rig.slot(Slot::A).display());
    assert_eq!(text(&worker.stdout), expected);
    let updater = rig.launch("exec", &["updater"]);
    assert!(text(&updater.stdout).starts_with("updater --state "), "{updater:?}");

    let empty = rig.launch("exec", &["--slot", "b", "worker"]);
    assert_eq!(empty.status.code(), Some(3));
    assert!(text(&empty.stderr).contains("slot b holds no release"), "{empty:?}");
    drive(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    check_done(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    rig.runs_from(&rig.slot(Slot::B));
}

#[test]
fn a_trial_starts_only_after_a_try_was_spent_and_ends_when_they_are() {
    let rig = Rig::new();
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    until_armed(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    rig.runs_from(&rig.slot(Slot::A));
    for left in [2, 1, 0] {
        assert!(rig.arm().contains(&format!("on trial, {left} more tries")));
        rig.runs_from(&rig.slot(Slot::B));
    }
    // A clean stop gives one back.
    let refunded = rig.launch("refund", &[]);
    assert!(text(&refunded.stdout).contains("given back"), "{refunded:?}");
    assert!(rig.arm().contains("on trial, 0 more tries"));
    assert!(rig.arm().contains("starting release 2026.1 in slot a"));
    rig.runs_from(&rig.slot(Slot::A));

    let shown = text(&rig.launch("status", &["--json"]).stdout);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["phase"], "steady");
    assert_eq!(shown["record"]["quarantine"][0]["release"], rig.world.two.digest().to_string());
    assert!(text(&rig.launch("status", &[]).stdout).contains("did not stay up"));
}

#[test]
fn a_question_about_a_machine_without_a_record_is_not_answered_with_the_factory() {
    let rig = Rig::new();
    let asked = rig.launch("status", &[]);
    assert!(!asked.status.success());
    assert!(text(&asked.stderr).contains("check --state"), "{asked:?}");
}

#[test]
fn a_slot_that_does_not_verify_is_skipped_with_an_alarm() {
    let rig = Rig::new();
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    until_armed(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    // The trial's agent is altered: it never costs a start.
    rig.bend(&rig.dir.slot(Slot::B).agent());
    assert!(rig.arm().contains("starting release 2026.1 in slot a"));
    assert_eq!(rig.state().phase(), "steady");
    rig.runs_from(&rig.slot(Slot::A));

    // The committed one too: the factory, and the reason is kept for the controller.
    rig.bend(&rig.dir.slot(Slot::A).agent());
    rig.arm();
    rig.runs_from(&rig.factory);
    let started = rig.launch("exec", &["gateway"]);
    assert!(text(&started.stderr).contains("slot a is skipped"), "{started:?}");
    let shown = text(&rig.launch("status", &[]).stdout);
    assert!(shown.contains("alarm") && shown.contains("slot a does not verify"), "{shown}");

    // And the factory: nothing is left, and the message says what to do.
    rig.bend(&rig.factory.join("bin/socle-agent"));
    rig.arm();
    let stuck = rig.launch("exec", &["gateway"]);
    assert_eq!(stuck.status.code(), Some(4));
    let said = text(&stuck.stderr);
    assert!(said.contains("install the socle package again") && said.contains("slot a"), "{said}");
}

#[test]
fn both_copies_of_the_record_lost_means_the_stamped_slot_and_an_alarm() {
    let rig = Rig::new();
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    drive(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    RealDisk.write_at(&rig.dir.record(), 0, &[0x5a; 8192]).unwrap();
    rig.runs_from(&rig.slot(Slot::B));
    let armed = rig.launch("arm", &[]);
    assert!(text(&armed.stderr).contains("boot record were unreadable"), "{armed:?}");
    let loaded = record::load(&RealDisk, &rig.dir, NOW);
    assert_eq!(loaded.source, record::Source::OneCopy);
    assert_eq!(loaded.record.state.active().unwrap().release, rig.world.two.digest());
    assert_eq!(loaded.record.counter_floor, 2);

    // The updates go on from there.
    let event = Event::Passed { release: rig.world.two.digest(), gate: Gate::Probation };
    assert!(record::advance(&RealDisk, &rig.dir, event, NOW).is_err());
    drive(&RealDisk, &rig.dir, &rig.world.three).unwrap();
    rig.runs_from(&rig.slot(Slot::A));
}

#[test]
fn a_state_folder_that_cannot_be_written_does_not_stop_the_start() {
    let rig = Rig::new();
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    let lock = rig.dir.record_lock();
    fs::remove_file(&lock).ok();
    fs::create_dir(&lock).unwrap();
    let armed = rig.launch("arm", &[]);
    assert!(armed.status.success());
    assert!(text(&armed.stderr).contains("no try was spent"), "{armed:?}");
    rig.runs_from(&rig.slot(Slot::A));
    drop(rig.folder);
}

#[test]
fn a_start_whose_try_was_not_written_runs_the_committed_release() {
    let rig = Rig::new();
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    until_armed(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    assert!(text(&rig.in_start("first", "arm", &[]).stdout).contains("on trial"));
    let from = |started: &Output| {
        let words = text(&started.stdout);
        let slot = |slot| words.contains(&format!("--slot-dir {} ", rig.slot(slot).display()));
        if slot(Slot::B) {
            "trial"
        } else if slot(Slot::A) {
            "committed"
        } else {
            "neither"
        }
    };
    let gateway = ["gateway", "--", "-"];
    assert_eq!(from(&rig.in_start("first", "exec", &gateway)), "trial");
    // From here on the disk takes no writes, as far as `arm` is concerned.
    let lock = rig.dir.record_lock();
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let armed = rig.in_start("second", "arm", &[]);
    assert!(armed.status.success() && text(&armed.stderr).contains("no try was spent"));
    let started = rig.in_start("second", "exec", &gateway);
    assert_eq!(from(&started), "committed");
    assert!(text(&started.stderr).contains("no try was written for this start"), "{started:?}");
    // Repaired: the next start is a try again.
    fs::remove_dir(&lock).unwrap();
    assert!(text(&rig.in_start("third", "arm", &[]).stdout).contains("1 more tries"));
    assert_eq!(from(&rig.in_start("third", "exec", &gateway)), "trial");
}

#[test]
fn a_trial_whose_time_is_over_is_not_started_even_when_nobody_says_so() {
    let rig = Rig::new();
    drive(&RealDisk, &rig.dir, &rig.world.one).unwrap();
    until_armed(&RealDisk, &rig.dir, &rig.world.two).unwrap();
    // Its probation began, and ended, long ago; no start has a name.
    let long_ago = protocol::time::UnixMs(1_000_000_000_000);
    let start = Event::Start(slots::state::StartId::UNKNOWN);
    record::advance(&RealDisk, &rig.dir, start, long_ago).unwrap();
    rig.runs_from(&rig.slot(Slot::A));
}

#[test]
fn words_that_are_not_understood_start_nothing() {
    let rig = Rig::new();
    for words in [&["exec", "gatway"][..], &["arm", "--sate", "x"], &[]] {
        let refused =
            Command::new(env!("CARGO_BIN_EXE_socle-launch")).args(words).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        assert!(text(&refused.stderr).contains("Usage: socle-launch"), "{refused:?}");
    }
    drop(rig);
}
