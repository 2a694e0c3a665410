//! The updater on a real file system, with real signatures and a real executable.
#![expect(clippy::unwrap_used, reason = "a test's helpers may give up")]

use std::{collections::BTreeMap, fs, path::Path};

use agent::update::{
    fit::Host,
    run::{Outcome, UpdateConfig, run_once},
};
use fleet_tests::{
    device::{Device, Wish, factory},
    release::{PackedAgent, Recipe, Release, build},
    signing::{FleetKeys, signed},
};
use protocol::{
    blob::Blob,
    command::{Halt, Signable as _},
    digest::Digest,
    handover::Gate,
    id::{DeviceId, Environment, Slot},
    manifest::{Policy, Role},
    report::EventKind,
    time::UnixMs,
    tuf::permit::{Holder, Permit},
};
use slots::{
    disk::{self, RealDisk},
    launch, record,
    state::{Event, StartId, State},
    store::Store,
    verify,
};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

struct Rig {
    folder: tempfile::TempDir,
    keys: FleetKeys,
    device: Device,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = FleetKeys::new().unwrap();
        let device = Device::enrol(&folder.path().join("state"), &keys).unwrap();
        factory(&folder.path().join("factory"), Path::new("/bin/true")).unwrap();
        Self { folder, keys, device }
    }

    fn recipe(counter: u64) -> Recipe {
        Recipe {
            counter,
            agent: PackedAgent::pack(Path::new("/bin/true")).unwrap(),
            files: vec![
                ("models/faq/model.onnx".into(), Role::Model, vec![7; 100_000]),
                ("models/faq/faq.jsonl".into(), Role::Data, counter.to_string().into_bytes()),
            ],
            policy: Policy { tries: 2, ..Policy::standard() },
            signers: 2,
        }
    }

    fn release(&self, counter: u64) -> Release {
        build(&self.keys, Self::recipe(counter)).unwrap()
    }

    fn config(&self) -> UpdateConfig {
        UpdateConfig {
            state: self.device.dir.root().to_owned(),
            host: Host {
                platform: agent::update::fit::platform(),
                memory_bytes: 1 << 30,
                disk_free_bytes: 1 << 30,
            },
            self_check_ms: 2_000,
        }
    }

    fn run(&self) -> Outcome {
        run_once(&self.config(), NOW).unwrap()
    }

    fn stage(&mut self, release: &Release, wish: Wish) {
        let request = self.device.request(&self.keys, release, NOW, wish).unwrap();
        self.device.stage(&release.objects, &request).unwrap();
    }

    fn stage_permitted(&mut self, release: &Release, permit: &[u8]) {
        let wish = Wish { permit: Some(Digest::of(permit)), ..Wish::default() };
        let mut request = self.device.request(&self.keys, release, NOW, wish).unwrap();
        request.permit = Some(Blob::from(permit.to_vec()));
        self.device.stage(&release.objects, &request).unwrap();
    }

    fn verdict(&self, release: &Release, gate: Gate) -> Outcome {
        self.device.judge(release.digest(), gate, None).unwrap();
        self.run()
    }

    /// What `socle-launch arm` does.
    fn start(&self) -> State {
        let start = Event::Start(StartId::UNKNOWN);
        record::advance(&RealDisk, &self.device.dir, start, NOW).unwrap().0.state
    }

    fn commit(&mut self, release: &Release) {
        self.stage(release, Wish::default());
        assert_eq!(self.run().phase, "staged", "{:?}", self.device.record().last());
        assert_eq!(self.verdict(release, Gate::Load).phase, "loaded");
        assert_eq!(self.verdict(release, Gate::Golden).phase, "armed");
        assert_eq!(self.start().phase(), "probation");
        assert_eq!(self.verdict(release, Gate::Probation).phase, "steady");
        assert_eq!(self.active(), Some(release.digest()));
    }

    fn active(&self) -> Option<Digest> {
        self.device.record().state.active().map(|held| held.release)
    }

    /// The refused or failed release is gone from the staging area, the reason is told, what was active still is.
    fn refused(&self, active: Option<Digest>, kind: EventKind, reason: &str) {
        let record = self.device.record();
        let last = record.last().unwrap();
        assert_eq!(last.kind, kind, "{last:?}");
        assert!(last.detail.contains(reason), "`{reason}` is not in `{}`", last.detail);
        assert!(matches!(record.state, State::Steady { .. }), "{:?}", record.state);
        assert_eq!(self.active(), active);
        assert!(!self.device.dir.request().exists());
    }
}

#[test]
fn a_release_goes_all_the_way_and_the_next_one_moves_only_what_changed() {
    let mut rig = Rig::new();
    let (one, two) = (rig.release(1), rig.release(2));
    rig.commit(&one);
    let dir = rig.device.dir.clone();
    assert!(dir.slot(Slot::A).stamp().exists());
    let store = Store::new(&RealDisk, &dir);
    assert_eq!(store.missing(&two.manifest).len(), 1, "agent and model are there already");
    assert_eq!(fs::read_dir(dir.staged_objects()).unwrap().count(), 0);

    let missing = store.missing(&two.manifest);
    let objects: BTreeMap<_, _> =
        missing.iter().map(|object| (object.sha256, two.objects[&object.sha256].clone())).collect();
    let request = rig.device.request(&rig.keys, &two, NOW, Wish::default()).unwrap();
    rig.device.stage(&objects, &request).unwrap();
    assert_eq!(rig.run().phase, "staged");
    for (gate, phase) in [(Gate::Load, "loaded"), (Gate::Golden, "armed")] {
        assert_eq!(rig.verdict(&two, gate).phase, phase);
    }
    rig.start();
    rig.verdict(&two, Gate::Probation);
    let held = rig.device.record().state.active().cloned().unwrap();
    assert_eq!((held.slot, held.release), (Slot::B, two.digest()));
    let release = verify::installed(&RealDisk, &dir, Slot::B, Some(&two.digest())).unwrap();
    verify::complete(&RealDisk, &dir.slot(Slot::B), &release.get().manifest.files).unwrap();
    let record = rig.device.record();
    assert_eq!(record.counter_floor, 2);
}

#[test]
fn what_is_not_genuine_is_refused_by_name() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    rig.commit(&one);
    let active = Some(one.digest());
    let keys = FleetKeys::new().unwrap();

    // Too few signatures; the same key twice counts once.
    let thin = build(&rig.keys, Recipe { signers: 1, ..Rig::recipe(2) }).unwrap();
    rig.stage(&thin, Wish::default());
    rig.run();
    rig.refused(active, EventKind::Refused, "signed by 1 of the 2");

    // Another fleet's keys.
    let foreign = build(&keys, Rig::recipe(2)).unwrap();
    rig.stage(&foreign, Wish::default());
    rig.run();
    rig.refused(active, EventKind::Refused, "signed by 0 of the 1");

    // Another controller.
    let two = rig.release(2);
    let request = rig.device.request(&keys, &two, NOW, Wish::default()).unwrap();
    rig.device.stage(&two.objects, &request).unwrap();
    rig.run();
    rig.refused(active, EventKind::Refused, "not trusted for this");

    // An altered manifest.
    let mut altered = two.clone();
    altered.manifest_bytes.push(b'\n');
    rig.stage(&altered, Wish::default());
    rig.run();
    rig.refused(active, EventKind::Refused, "not listed");

    // An older release, genuine and assigned.
    rig.commit(&two);
    rig.stage(&one, Wish::default());
    rig.run();
    rig.refused(Some(two.digest()), EventKind::Refused, "rollback");

    // The same one again changes nothing.
    rig.stage(&two, Wish::default());
    let did = rig.run().did;
    assert!(did.iter().any(|did| did.contains("already committed")), "{did:?}");
    assert!(!rig.device.dir.request().exists());

    // A damaged request.
    disk::replace(&RealDisk, &rig.device.dir.request(), b"\xff\xff").unwrap();
    rig.run();
    assert!(!rig.device.dir.request().exists());
}

#[test]
fn an_altered_or_missing_object_is_refused_and_fetched_again() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    let model = Digest::of(&[7; 100_000]);
    let mut bent = one.clone();
    bent.objects.get_mut(&model).unwrap()[5] ^= 1;
    rig.stage(&bent, Wish::default());
    rig.run();
    rig.refused(None, EventKind::Refused, "not what it should be");
    assert!(!rig.device.dir.staged_object(&model).exists(), "it would only be refused again");

    let request = rig.device.request(&rig.keys, &one, NOW, Wish::default()).unwrap();
    rig.device.stage(&BTreeMap::new(), &request).unwrap();
    fs::remove_file(rig.device.dir.staged_object(&one.manifest.files[0].object().sha256)).unwrap();
    rig.run();
    rig.refused(None, EventKind::Refused, "has to be fetched again");
    assert!(rig.device.record().quarantine.is_empty(), "not the release's fault");
    rig.commit(&one);
}

#[test]
fn a_damaged_store_file_is_forgotten_and_fetched_again() {
    let mut rig = Rig::new();
    let (one, two) = (rig.release(1), rig.release(2));
    rig.commit(&one);
    let dir = rig.device.dir.clone();
    let store = Store::new(&RealDisk, &dir);
    let model = Digest::of(&[7; 100_000]);
    disk::Disk::set_mode(&RealDisk, &store.path(&model), 0o644).unwrap();
    disk::Disk::write_at(&RealDisk, &store.path(&model), 10, b"x").unwrap();
    assert_eq!(store.missing(&two.manifest).len(), 1, "nobody has noticed yet");
    rig.stage(&two, Wish::default());
    rig.run();
    rig.refused(Some(one.digest()), EventKind::Refused, "is not as its release says");
    assert!(store.missing(&two.manifest).iter().any(|object| object.sha256 == model));
    rig.commit(&two);
}

#[test]
fn a_bad_archive_or_a_failing_agent_is_quarantined_before_arming() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    rig.commit(&one);
    let active = Some(one.digest());

    let other = PackedAgent::pack(Path::new("/bin/false")).unwrap();
    let wrong = PackedAgent { sha256: Digest::of(b"x"), length: 1, ..other.clone() };
    let release = build(&rig.keys, Recipe { agent: wrong, ..Rig::recipe(2) }).unwrap();
    rig.stage(&release, Wish::default());
    rig.run();
    rig.refused(active, EventKind::RolledBack, "unpacking the agent archive");

    let mut cut = other.clone();
    cut.archive.truncate(cut.archive.len() / 2);
    let release = build(&rig.keys, Recipe { agent: cut, ..Rig::recipe(3) }).unwrap();
    rig.stage(&release, Wish::default());
    rig.run();
    rig.refused(active, EventKind::RolledBack, "unpacking the agent archive");

    let failing = build(&rig.keys, Recipe { agent: other, ..Rig::recipe(4) }).unwrap();
    rig.stage(&failing, Wish::default());
    rig.run();
    rig.refused(active, EventKind::RolledBack, "self-check");
    assert_eq!(rig.device.record().quarantine.len(), 3);

    // Not again by itself; once more when the controller says so by name; and not for the same word twice.
    rig.stage(&failing, Wish::default());
    rig.run();
    rig.refused(active, EventKind::Refused, "quarantined");
    rig.stage(&failing, Wish { retry: true, ..Wish::default() });
    rig.run();
    rig.refused(active, EventKind::RolledBack, "self-check");
    rig.device.sequence -= 1;
    rig.stage(&failing, Wish { retry: true, ..Wish::default() });
    rig.run();
    rig.refused(active, EventKind::Refused, "quarantined");
}

#[test]
fn a_failed_gate_or_exhausted_tries_return_to_the_committed_release() {
    let mut rig = Rig::new();
    let (one, two, three) = (rig.release(1), rig.release(2), rig.release(3));
    rig.commit(&one);
    let active = Some(one.digest());

    rig.stage(&two, Wish::default());
    rig.run();
    rig.verdict(&two, Gate::Load);
    rig.device.judge(two.digest(), Gate::Golden, Some("12 of 50 answers differ")).unwrap();
    rig.run();
    rig.refused(active, EventKind::RolledBack, "12 of 50 answers differ");

    rig.stage(&three, Wish::default());
    rig.run();
    rig.verdict(&three, Gate::Load);
    rig.verdict(&three, Gate::Golden);
    assert_eq!(rig.start().phase(), "probation");
    assert_eq!(rig.start().phase(), "probation");
    assert_eq!(rig.start().phase(), "steady", "two tries, the third start is the committed one's");
    rig.refused(active, EventKind::RolledBack, "did not stay up in any of 2 starts");
}

#[test]
fn probation_ends_at_its_deadline() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    rig.stage(&one, Wish::default());
    rig.run();
    rig.verdict(&one, Gate::Load);
    rig.verdict(&one, Gate::Golden);
    rig.start();
    let deadline = rig.run().deadline.unwrap();
    assert_eq!(run_once(&rig.config(), UnixMs(deadline.0 - 1)).unwrap().phase, "probation");
    assert_eq!(run_once(&rig.config(), deadline).unwrap().phase, "steady");
    rig.refused(None, EventKind::RolledBack, "no verdict");
}

#[test]
fn a_halt_holds_before_arming_and_a_forged_one_counts_too() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    let halt = |sequence, halted| Halt {
        fleet: rig.device.fleet.clone(),
        sequence,
        halted,
        releases: vec![one.digest()],
        reason: "the canary failed".into(),
    };
    let (on, off) = (halt(1, true), halt(2, false));
    let path = rig.device.dir.halt();
    disk::replace(&RealDisk, &path, &on.signed_by(&rig.keys.controller).unwrap()).unwrap();
    rig.stage(&one, Wish::default());
    rig.run();
    rig.verdict(&one, Gate::Load);
    let held = rig.verdict(&one, Gate::Golden);
    assert_eq!(held.phase, "golden");
    assert!(held.did.iter().any(|did| did.contains("the canary failed")), "{held:?}");
    disk::replace(&RealDisk, &path, b"forged").unwrap();
    assert_eq!(rig.run().phase, "golden");
    disk::replace(&RealDisk, &path, &off.signed_by(&rig.keys.controller).unwrap()).unwrap();
    assert_eq!(rig.run().phase, "armed");
}

#[test]
fn a_newer_request_takes_the_place_of_a_trial_until_it_is_armed() {
    let mut rig = Rig::new();
    let (one, two, three) = (rig.release(1), rig.release(2), rig.release(3));
    rig.stage(&one, Wish::default());
    rig.run();
    rig.stage(&two, Wish::default());
    assert_eq!(rig.run().phase, "staged");
    assert_eq!(rig.device.record().state.trial().unwrap().held.release, two.digest());
    rig.verdict(&two, Gate::Load);
    rig.verdict(&two, Gate::Golden);
    rig.stage(&three, Wish::default());
    assert_eq!(rig.run().phase, "armed");
    assert!(rig.device.dir.request().exists(), "it waits");
    rig.start();
    assert_eq!(rig.verdict(&two, Gate::Probation).phase, "staged", "now it is its turn");
    assert_eq!(rig.active(), Some(two.digest()));
}

#[test]
fn what_lies_in_a_slot_is_used_only_while_it_verifies() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    rig.commit(&one);
    let dir = rig.device.dir.clone();
    let factory = rig.folder.path().join("factory");
    let open = |role| {
        let state = rig.device.record().state;
        let asked = launch::Asked { role, state: &state, start: StartId::UNKNOWN, now: NOW };
        launch::open(&RealDisk, &dir, &factory, &asked)
    };
    let slot = dir.slot(Slot::A);
    assert_eq!(open(launch::Role::Gateway).unwrap().release, Some(one.digest()));

    for path in [slot.agent(), slot.manifest(), slot.targets(), slot.file("models/faq/faq.jsonl")] {
        let whole = fs::read(&path).unwrap();
        // As another file under the same name: the store's copy is left alone.
        let mut bent = whole.clone();
        bent.truncate(bent.len().saturating_sub(2));
        disk::replace(&RealDisk, &path, &bent).unwrap();
        disk::Disk::set_mode(&RealDisk, &path, 0o555).unwrap();
        let fallen = open(launch::Role::Gateway).unwrap();
        assert_eq!(fallen.place, launch::Place::Factory, "{}", path.display());
        assert_eq!(fallen.alarms.len(), 1);
        assert!(fallen.alarms[0].contains(path.file_name().unwrap().to_str().unwrap()));
        assert!(open(launch::Role::Worker(Slot::A)).is_err());
        disk::replace(&RealDisk, &path, &whole).unwrap();
        disk::Disk::set_mode(&RealDisk, &path, 0o555).unwrap();
        assert_eq!(open(launch::Role::Gateway).unwrap().release, Some(one.digest()));
    }

    fs::remove_file(factory.join("factory.json")).unwrap();
    fs::remove_file(slot.manifest()).unwrap();
    let error = launch::chain_text(&open(launch::Role::Gateway).unwrap_err());
    assert!(
        error.contains("factory.json") && error.contains("install the socle package"),
        "{error}"
    );
}

#[test]
fn an_older_release_comes_back_with_a_permit_and_the_floor_stays() {
    let mut rig = Rig::new();
    let (one, two) = (rig.release(1), rig.release(2));
    rig.commit(&one);
    rig.commit(&two);
    // The older release, listed again by newer metadata, as a publication does.
    let listed = rig.keys.targets(3, &path(&one), &one.manifest_bytes, 2).unwrap();
    let again = Release { listing: rig.keys.listing(3, &listed).unwrap(), targets: listed, ..one };
    rig.stage(&again, Wish::default());
    rig.run();
    rig.refused(Some(two.digest()), EventKind::Refused, "no permit to go back");

    let permit = |device, expires| {
        let holder = Holder { fleet: &"crash".parse().unwrap(), device };
        let permit = Permit::new(holder, again.digest(), expires);
        signed(&permit, rig.keys.targets.iter().take(2)).unwrap()
    };
    let own = permit(rig.device.id, NOW.plus(3_600_000));
    let late = permit(rig.device.id, NOW);
    let foreign = permit(DeviceId::from(Digest::of(b"other")), NOW.plus(3_600_000));
    for (permit, expected) in [(late, "permit to go back expired"), (foreign, "another device")] {
        rig.stage_permitted(&again, &permit);
        rig.run();
        rig.refused(Some(two.digest()), EventKind::Refused, expected);
    }
    rig.stage_permitted(&again, &own);
    assert_eq!(rig.run().phase, "staged");
    rig.verdict(&again, Gate::Load);
    rig.verdict(&again, Gate::Golden);
    rig.start();
    rig.verdict(&again, Gate::Probation);
    let record = rig.device.record();
    assert_eq!(record.state.active().map(|held| held.release), Some(again.digest()));
    assert_eq!(record.counter_floor, 2, "what comes next must be above it again");
}

fn path(release: &Release) -> String {
    release.manifest.target_path(&Environment::production())
}

#[test]
fn a_rotated_root_is_walked_and_then_trusted() {
    let mut rig = Rig::new();
    let one = rig.release(1);
    rig.commit(&one);
    // New targets keys under root 2, signed by the same root keys.
    rig.keys.targets = FleetKeys::new().unwrap().targets;
    let rotated = &rig.keys;
    let root = rotated.root(2).unwrap();
    let two = build(rotated, Rig::recipe(2)).unwrap();
    let mut request = rig.device.request(rotated, &two, NOW, Wish::default()).unwrap();
    request.roots = vec![Blob::from(root.clone())];
    rig.device.stage(&two.objects, &request).unwrap();
    assert_eq!(rig.run().phase, "staged");
    let dir = rig.device.dir.clone();
    assert_eq!(fs::read(dir.trusted_root()).unwrap(), root, "once everything was checked");
    verify::installed(&RealDisk, &dir, Slot::A, Some(&one.digest())).unwrap();
    rig.verdict(&two, Gate::Load);
    rig.verdict(&two, Gate::Golden);
    rig.start();
    rig.verdict(&two, Gate::Probation);
    verify::installed(&RealDisk, &dir, Slot::B, Some(&two.digest())).unwrap();
}
