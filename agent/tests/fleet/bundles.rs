//! A release from a stick: both keys hold without a network.

use std::path::{Path, PathBuf};

use agent::fleet::bundle::{self, BundleError, Placed};
use protocol::{
    cbor,
    command::{Desired, Signable as _},
    digest::Digest,
    enrol::Authority,
    handover::Request,
    id::DeviceId,
    key::SigningKey,
    time::UnixMs,
};
use ring::rand::SystemRandom;
use slots::{disk::RealDisk, layout::StateDir, trust};
use tempfile::TempDir;

use crate::release::{Keys, Release, noise};

const NOW: UnixMs = UnixMs(1_795_000_000_000);
const FAR: UnixMs = UnixMs(4_000_000_000_000);

struct Rig {
    folder: TempDir,
    keys: Keys,
    controller: SigningKey,
    device: DeviceId,
}

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test's own files")]
fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Rig {
    /// A device of `environment`, and nothing on the stick yet.
    fn new(environment: &str) -> Self {
        let rig = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: Keys::new(),
            controller: key(),
            device: DeviceId::from(Digest::of(b"this device")),
        };
        rig.state().prepare(&RealDisk).unwrap();
        let authority = Authority {
            fleet: "demo".parse().unwrap(),
            device: rig.device,
            environment: environment.parse().unwrap(),
            controller_keys: vec![rig.controller.public()],
        };
        trust::enrol(&RealDisk, &rig.state(), &rig.keys.root(1), &authority).unwrap();
        rig
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.folder.path().join("state"))
    }

    fn stick(&self) -> PathBuf {
        self.folder.path().join("stick")
    }

    fn bundle(&self, release: &Release) {
        let stick = self.stick();
        write(&stick.join("metadata/1.root.json"), &self.keys.root(1));
        for (name, bytes) in self.keys.metadata(1, &[release], 2) {
            write(&stick.join(name), &bytes);
        }
        write(&stick.join(format!("sha256/{}", release.digest)), &release.manifest);
        for (digest, content) in &release.objects {
            write(&stick.join(format!("sha256/{digest}")), content);
        }
    }

    /// Puts an assignment under this device's name: for `device`, signed by `signer`.
    fn assign(&self, release: &Release, device: DeviceId, signer: &SigningKey, until: UnixMs) {
        let desired = Desired {
            fleet: "demo".parse().unwrap(),
            device,
            sequence: 1,
            issued_at: NOW,
            expires_at: until,
            release: release.digest,
            manifest_bytes: release.manifest.len() as u64,
            targets_version: 1,
            rollout: 0,
            retry_quarantined: false,
            permit: None,
        };
        let word = desired.signed_by(signer).unwrap();
        write(&self.stick().join(format!("assignments/{}.cbor", self.device)), &word);
    }

    fn place(&self) -> Result<Placed, BundleError> {
        bundle::place(&self.state(), &self.stick(), NOW)
    }
}

fn release() -> Release {
    Release::new("r1", 1, &[("model.onnx", &noise(3, 400_000))])
}

#[test]
fn a_genuine_and_assigned_release_is_left_for_the_updater() {
    let (rig, release) = (Rig::new("prod"), release());
    rig.bundle(&release);
    rig.assign(&release, rig.device, &rig.controller, FAR);
    let placed = rig.place().unwrap();
    assert_eq!((placed.name.as_str(), placed.objects), ("r1", 2));
    let bytes = std::fs::read(rig.state().request()).unwrap();
    let request: Request = cbor::decode(&bytes, bytes.len()).unwrap();
    assert_eq!(request.manifest.as_slice(), release.manifest);
    for (digest, content) in &release.objects {
        assert_eq!(&std::fs::read(rig.state().staged_object(digest)).unwrap(), content);
    }
    // Again, it changes nothing.
    assert_eq!(rig.place().unwrap().release, release.digest);
}

#[test]
fn both_keys_are_needed() {
    let release = release();
    let refused = |prepare: &dyn Fn(&Rig)| {
        let rig = Rig::new("prod");
        rig.bundle(&release);
        prepare(&rig);
        let error = rig.place().unwrap_err();
        assert!(!rig.state().request().exists(), "{error}");
        error
    };
    let none = refused(&|_| ());
    assert!(matches!(none, BundleError::Read { .. }), "{none:?}");
    let stranger = refused(&|rig| rig.assign(&release, rig.device, &key(), FAR));
    assert!(matches!(stranger, BundleError::Assignment(_)), "{stranger:?}");
    let other = DeviceId::from(Digest::of(b"another device"));
    let foreign = refused(&|rig| rig.assign(&release, other, &rig.controller, FAR));
    assert!(matches!(foreign, BundleError::Assignment(_)), "{foreign:?}");
    let late = refused(&|rig| rig.assign(&release, rig.device, &rig.controller, NOW));
    assert!(matches!(late, BundleError::Assignment(_)), "{late:?}");
    let unsigned = refused(&|rig| {
        rig.assign(&release, rig.device, &rig.controller, FAR);
        for (name, bytes) in rig.keys.metadata(1, &[&release], 1) {
            write(&rig.stick().join(name), &bytes);
        }
    });
    assert!(matches!(unsigned, BundleError::Release(_)), "{unsigned:?}");
    let altered = refused(&|rig| {
        rig.assign(&release, rig.device, &rig.controller, FAR);
        let digest = release.objects.keys().next().unwrap();
        write(&rig.stick().join(format!("sha256/{digest}")), b"something else");
    });
    assert!(matches!(altered, BundleError::Altered { .. }), "{altered:?}");
}

#[test]
fn a_release_of_another_environment_stays_outside() {
    let (rig, release) = (Rig::new("test"), release());
    rig.bundle(&release);
    rig.assign(&release, rig.device, &rig.controller, FAR);
    let refused = rig.place().unwrap_err();
    assert!(matches!(refused, BundleError::Release(_)), "{refused:?}");
}
