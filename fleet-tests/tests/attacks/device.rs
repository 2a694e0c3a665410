//! An enrolled device with the real updater, and a release that it committed.

use std::{collections::BTreeMap, path::Path};

use agent::update::{
    fit::Host,
    run::{Outcome, UpdateConfig, run_once},
};
use fleet_tests::{
    device::{Device, Wish, factory},
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
};
use protocol::{
    blob::Blob,
    command::{Desired, Signable as _},
    digest::Digest,
    handover::{Gate, Request},
    manifest::{Policy, Role},
    report::EventKind,
    time::UnixMs,
};
use slots::{
    disk::RealDisk,
    record,
    state::{Event, StartId, State},
};

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);

pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) keys: FleetKeys,
    pub(crate) device: Device,
}

impl Rig {
    /// A device that committed release 1.
    pub(crate) fn new() -> Self {
        let mut rig = Self::fresh();
        let one = rig.release(1);
        rig.commit(&one);
        rig
    }

    /// A device that never had a release.
    pub(crate) fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = FleetKeys::new().unwrap();
        let device = Device::enrol(&folder.path().join("state"), &keys).unwrap();
        factory(&folder.path().join("factory"), Path::new("/bin/true")).unwrap();
        Self { folder, keys, device }
    }

    pub(crate) fn recipe(counter: u64) -> Recipe {
        Recipe {
            counter,
            agent: PackedAgent::pack(Path::new("/bin/true")).unwrap(),
            files: vec![
                ("models/faq/model.onnx".into(), Role::Model, vec![7; 10_000]),
                ("models/faq/faq.jsonl".into(), Role::Data, counter.to_string().into_bytes()),
            ],
            policy: Policy { tries: 2, ..Policy::standard() },
            signers: 2,
        }
    }

    pub(crate) fn release(&self, counter: u64) -> Release {
        build(&self.keys, Self::recipe(counter)).unwrap()
    }

    pub(crate) fn run_at(&self, now: UnixMs) -> Outcome {
        let config = UpdateConfig {
            state: self.device.dir.root().to_owned(),
            host: Host {
                platform: agent::update::fit::platform(),
                memory_bytes: 1 << 30,
                disk_free_bytes: 1 << 30,
            },
            self_check_ms: 5_000,
        };
        run_once(&config, now).unwrap()
    }

    /// The request for `release`, its assignment changed by `change` and signed by the controller again.
    pub(crate) fn request(
        &mut self,
        release: &Release,
        change: impl FnOnce(&mut Desired),
    ) -> Request {
        let mut request = self.device.request(&self.keys, release, NOW, Wish::default()).unwrap();
        let mut desired = Desired {
            fleet: self.device.fleet.clone(),
            device: self.device.id,
            sequence: self.device.sequence,
            issued_at: NOW,
            expires_at: fleet_tests::signing::EXPIRES,
            release: release.digest(),
            manifest_bytes: release.manifest_bytes.len() as u64,
            targets_version: release.manifest.counter,
            rollout: 7,
            retry_quarantined: false,
            permit: None,
        };
        change(&mut desired);
        request.desired = Blob::from(desired.signed_by(&self.keys.controller).unwrap());
        request
    }

    /// Stages `request` with the objects of `release`, lets the updater run, and holds that it refused for `reason`.
    pub(crate) fn refuses(&mut self, release: &Release, request: &Request, reason: &str) {
        self.refuses_at(release, request, reason, NOW);
    }

    pub(crate) fn refuses_at(
        &mut self,
        release: &Release,
        request: &Request,
        reason: &str,
        now: UnixMs,
    ) {
        let before = self.active();
        self.device.stage(&release.objects, request).unwrap();
        self.run_at(now);
        self.stayed(before, reason);
    }

    /// Nothing new runs, and the reason is told.
    pub(crate) fn stayed(&self, before: Option<Digest>, reason: &str) {
        let record = self.device.record();
        let last = record.last().unwrap();
        assert!(
            matches!(last.kind, EventKind::Refused | EventKind::RolledBack),
            "{last:?} in {:?}",
            record.state
        );
        assert!(last.detail.contains(reason), "`{reason}` is not in `{}`", last.detail);
        assert!(matches!(record.state, State::Steady { .. }), "{:?}", record.state);
        assert_eq!(self.active(), before);
        assert!(!self.device.dir.request().exists());
    }

    pub(crate) fn stage(&mut self, release: &Release) {
        let request = self.request(release, |_| {});
        self.device.stage(&release.objects, &request).unwrap();
    }

    pub(crate) fn commit(&mut self, release: &Release) {
        self.stage(release);
        self.finish(release);
    }

    /// What is staged goes all the way.
    pub(crate) fn finish(&self, release: &Release) {
        assert_eq!(self.run_at(NOW).phase, "staged", "{:?}", self.device.record().last());
        for (gate, phase) in [(Gate::Load, "loaded"), (Gate::Golden, "armed")] {
            self.device.judge(release.digest(), gate, None).unwrap();
            assert_eq!(self.run_at(NOW).phase, phase, "{:?}", self.device.record().last());
        }
        let start = Event::Start(StartId::UNKNOWN);
        record::advance(&RealDisk, &self.device.dir, start, NOW).unwrap();
        self.device.judge(release.digest(), Gate::Probation, None).unwrap();
        assert_eq!(self.run_at(NOW).phase, "steady", "{:?}", self.device.record().last());
        assert_eq!(self.active(), Some(release.digest()));
    }

    pub(crate) fn active(&self) -> Option<Digest> {
        self.device.record().state.active().map(|held| held.release)
    }

    /// Every file below the state folder with its bytes.
    pub(crate) fn tree(&self, below: &Path) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![below.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.path().symlink_metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    found.insert(entry.path().display().to_string(), meta.len());
                }
            }
        }
        found
    }
}
