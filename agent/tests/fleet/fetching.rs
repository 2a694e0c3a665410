//! Bringing a release in: what moves, what is resumed, and what is refused.

use std::{sync::atomic::AtomicBool, time::Duration};

use agent::fleet::{
    artifact_server::ArtifactServer,
    fetch::{FetchError, Fetched, Job, Offer, fetch},
    identity::Credentials,
    mirrors::Transport,
};
use protocol::{
    cbor,
    command::{Desired, Reader, Signable},
    digest::Digest,
    handover::Request,
    id::{DeviceId, Environment},
    key::SigningKey,
    time::UnixMs,
    tuf::{chain::Seen, verify::Trusted},
};
use ring::rand::SystemRandom;
use rustls_pki_types::PrivatePkcs8KeyDer;
use slots::{disk::RealDisk, layout::StateDir, trust};
use tempfile::TempDir;

use crate::{
    artifacts::{Fault, Server},
    enrolment::words,
    pki::{Clients, Pki},
    release::{Keys, Release, noise, platform},
};

const NOW: UnixMs = UnixMs(1_795_000_000_000);
const GENEROUS: u64 = 1 << 40;

struct Rig {
    server: Server,
    credentials: Credentials,
    keys: Keys,
    folder: TempDir,
}

impl Rig {
    /// A server that takes only devices of the fleet, and a device that trusts the first root.
    fn new() -> Self {
        let pki = Pki::new();
        let server = Server::start(pki.server_config("localhost", Clients::OursOnly));
        let (certificate, key) = pki.client("device");
        let credentials = Credentials {
            certificate,
            authority: pki.ca_der(),
            key: PrivatePkcs8KeyDer::from(key),
        };
        let rig =
            Self { server, credentials, keys: Keys::new(), folder: tempfile::tempdir().unwrap() };
        rig.state().prepare(&RealDisk).unwrap();
        copy(&rig.state().trusted_root(), &rig.keys.root(1));
        rig
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.folder.path())
    }

    /// Publishes releases; the last targets version is their number.
    fn publish(&self, releases: &[&Release]) {
        for release in releases {
            self.server.put(&object(&release.digest), &release.manifest);
            for (digest, content) in &release.objects {
                self.server.put(&object(digest), content);
            }
        }
        self.sign(releases.len() as u64, releases, 2);
    }

    /// Puts the metadata of `version` on the server, signed by `signers` of the targets keys.
    fn sign(&self, version: u64, releases: &[&Release], signers: usize) {
        for (name, bytes) in self.keys.metadata(version, releases, signers) {
            self.server.put(&name, &bytes);
        }
    }

    fn job(&self, release: &Release, counter_floor: u64) -> Job {
        let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
        let desired = Desired {
            fleet: "demo".parse().unwrap(),
            device: DeviceId::of(&key.public()),
            sequence: 1,
            issued_at: NOW,
            expires_at: UnixMs(NOW.0 + 1000),
            release: release.digest,
            manifest_bytes: release.manifest.len() as u64,
            targets_version: 1,
            rollout: 0,
            retry_quarantined: false,
            permit: None,
        };
        let desired_bytes = desired.signed_by(&key).unwrap();
        let controller_keys = [key.public()];
        let reader = Reader {
            fleet: &desired.fleet,
            device: desired.device,
            controller_keys: &controller_keys,
        };
        let patience = Duration::from_secs(10);
        let url = self.server.artifacts();
        Job {
            state: self.state(),
            server: ArtifactServer::new(&url, &self.credentials, patience).unwrap(),
            transport: Transport::new(vec![], None),
            desired: reader.desired(&desired_bytes, 0, NOW).unwrap(),
            desired_bytes,
            environment: Environment::production(),
            counter_floor,
            offer: Offer {
                platform: platform(),
                memory_bytes: GENEROUS,
                disk_free_bytes: GENEROUS,
            },
            now: NOW,
        }
    }

    fn fetch(&self, release: &Release) -> Result<Fetched, FetchError> {
        fetch(&self.job(release, 0), &AtomicBool::new(false))
    }

    fn request(&self) -> Option<Request> {
        let bytes = std::fs::read(self.state().request()).ok()?;
        Some(cbor::decode(&bytes, bytes.len()).unwrap())
    }

    fn staged(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state().staged_objects()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn object(digest: &Digest) -> String {
    format!("sha256/{digest}")
}

#[expect(clippy::disallowed_methods, reason = "a test's own files")]
fn copy(path: &std::path::Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn model() -> (Vec<u8>, Vec<u8>) {
    (noise(1, 900_000), noise(2, 30_000))
}

#[test]
fn a_release_arrives_whole_and_moves_only_once() {
    let (rig, (weights, index)) = (Rig::new(), model());
    let release = Release::new("r1", 1, &[("index.bin", &index), ("model.onnx", &weights)]);
    rig.publish(&[&release]);
    let fetched = rig.fetch(&release).unwrap();
    assert_eq!((fetched.files, fetched.files_fetched), (3, 3));
    assert_eq!((fetched.bytes, fetched.bytes_moved), (930_020, 930_020));
    for (digest, content) in &release.objects {
        assert_eq!(&std::fs::read(rig.state().staged_object(digest)).unwrap(), content);
    }
    let request = rig.request().unwrap();
    assert_eq!(request.manifest.as_slice(), release.manifest);
    assert!(request.roots.is_empty());

    let again = rig.fetch(&release).unwrap();
    assert_eq!((again.files_fetched, again.bytes_moved), (0, 0));
    assert_eq!(again.in_words(), "fetched 0 of 3 files, 0 B of 930.0 kB");
}

#[test]
fn what_the_store_holds_is_not_fetched_and_leftovers_go() {
    let (rig, (weights, index)) = (Rig::new(), model());
    let old = Release::new("r1", 1, &[("index.bin", &noise(9, 500)), ("model.onnx", &weights)]);
    let new = Release::new("r2", 2, &[("index.bin", &index), ("model.onnx", &weights)]);
    rig.publish(&[&old, &new]);
    for installed in [weights.as_slice(), b"agent"] {
        let name = Digest::of(installed).to_string();
        copy(&rig.state().store().join("sha256").join(&name[..2]).join(&name), installed);
    }
    copy(&rig.state().staged_objects().join("leftover.part"), b"x");
    let fetched = rig.fetch(&new).unwrap();
    assert_eq!((fetched.files, fetched.files_fetched, fetched.bytes_moved), (3, 1, 30_000));
    let asked: Vec<String> = rig.server.asked().into_iter().map(|(path, _)| path).collect();
    assert_eq!(asked, [object(&new.digest), object(&Digest::of(&index))]);
    assert_eq!(rig.staged(), [Digest::of(&index).to_string()]);
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let release = Release::new("r1", 1, &[("model.onnx", &weights)]);
    rig.publish(&[&release]);
    let path = object(&Digest::of(&weights));
    rig.server.fault(&path, Fault::CutAfter(600_000));
    let broken = rig.fetch(&release).unwrap_err();
    assert!(broken.passes(), "{}", words(&broken));
    assert!(rig.request().is_none());
    let part = rig.state().staged_part(&Digest::of(&weights));
    let have = std::fs::metadata(&part).unwrap().len();
    assert!(have > 0 && have <= 600_000, "{have}");
    rig.server.asked();

    let fetched = rig.fetch(&release).unwrap();
    assert_eq!(fetched.bytes_moved, 900_000 - have);
    assert!(rig.server.asked().contains(&(path, Some(format!("bytes={have}-")))));
    assert!(!part.exists());
}

#[test]
fn a_busy_server_is_asked_again_and_one_without_ranges_sends_all() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let release = Release::new("r1", 1, &[("model.onnx", &weights)]);
    rig.publish(&[&release]);
    let path = object(&Digest::of(&weights));
    rig.server.fault(&path, Fault::Status(503));
    let busy = rig.fetch(&release).unwrap_err();
    assert!(busy.passes() && words(&busy).contains("busy"), "{}", words(&busy));
    copy(&rig.state().staged_part(&Digest::of(&weights)), &weights[..1000]);
    rig.server.fault(&path, Fault::NoRanges);
    assert_eq!(rig.fetch(&release).unwrap().bytes_moved, 900_000);
}

#[test]
fn a_part_damaged_on_our_own_disk_is_fetched_anew() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let release = Release::new("r1", 1, &[("model.onnx", &weights)]);
    rig.publish(&[&release]);
    for damaged in [noise(5, 1000), noise(5, 900_000), noise(5, 900_001)] {
        copy(&rig.state().staged_part(&Digest::of(&weights)), &damaged);
        rig.fetch(&release).unwrap();
        let object = rig.state().staged_object(&Digest::of(&weights));
        assert_eq!(std::fs::read(&object).unwrap(), weights);
        std::fs::remove_file(object).unwrap();
    }
}

#[test]
fn an_altered_file_is_refused_by_name_and_both_digests() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let release = Release::new("r1", 1, &[("model.onnx", &weights)]);
    rig.publish(&[&release]);
    let mut altered = weights.clone();
    altered[450_000] ^= 1;
    rig.server.put(&object(&Digest::of(&weights)), &altered);
    let refused = rig.fetch(&release).unwrap_err();
    assert!(!refused.passes());
    let text = words(&refused);
    for named in [
        "models/faq/model.onnx",
        &Digest::of(&weights).to_string(),
        &Digest::of(&altered).to_string(),
    ] {
        assert!(text.contains(named), "{text}");
    }
    assert!(rig.request().is_none());
    assert_eq!(rig.staged(), [Digest::of(b"archive of the agent").to_string()]);
}

#[test]
fn endless_data_is_cut_at_the_signed_length() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let release = Release::new("r1", 1, &[("model.onnx", &weights)]);
    rig.publish(&[&release]);
    rig.server.fault(&object(&Digest::of(&weights)), Fault::Endless);
    let refused = rig.fetch(&release).unwrap_err();
    assert!(!refused.passes());
    assert!(words(&refused).contains("longer on the artifact server"), "{}", words(&refused));
    assert!(!rig.state().staged_part(&Digest::of(&weights)).exists());

    for endless in [
        "metadata/timestamp.json".to_owned(),
        "metadata/1.snapshot.json".to_owned(),
        "metadata/1.targets.json".to_owned(),
        object(&release.digest),
    ] {
        let rig = Rig::new();
        rig.publish(&[&release]);
        rig.server.fault(&endless, Fault::Endless);
        let refused = rig.fetch(&release).unwrap_err();
        assert!(words(&refused).contains("more than the"), "{}", words(&refused));
    }
}

#[test]
fn a_release_that_does_not_fit_moves_nothing() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let files = [("model.onnx", weights.as_slice())];
    let foreign = Release::for_platform("mips-vms", "r1", 1, &files);
    let native = Release::new("r2", 2, &files);
    rig.publish(&[&foreign, &native]);
    let offers = [
        (&foreign, GENEROUS, GENEROUS, "it is built for mips-vms"),
        (&native, 999, GENEROUS, "of memory, this machine has 999 B"),
        (&native, GENEROUS, 1_000_000, "to install), 1.0 MB are free"),
    ];
    for (release, memory_bytes, disk_free_bytes, expected) in offers {
        let mut job = rig.job(release, 0);
        job.offer = Offer { memory_bytes, disk_free_bytes, ..job.offer };
        let refused = fetch(&job, &AtomicBool::new(false)).unwrap_err();
        assert!(!refused.passes() && words(&refused).contains(expected), "{}", words(&refused));
        assert_eq!(rig.server.asked(), [(object(&release.digest), None)]);
        assert!(rig.staged().is_empty() && rig.request().is_none());
    }
}

#[test]
fn old_unlisted_and_undersigned_releases_are_refused() {
    let (rig, (weights, _)) = (Rig::new(), model());
    let old = Release::new("r1", 1, &[("model.onnx", &weights)]);
    let new = Release::new("r2", 2, &[("model.onnx", &weights)]);
    rig.publish(&[&old, &new]);
    let refused = fetch(&rig.job(&old, 2), &AtomicBool::new(false)).unwrap_err();
    assert!(
        !refused.passes() && words(&refused).contains("refused as a rollback"),
        "{}",
        words(&refused)
    );
    // Older metadata than this device has seen.
    let seen = Seen { timestamp: 3, snapshot: 3, ..Seen::default() };
    let trusted = Trusted::new(rig.keys.root(1), seen).unwrap();
    trust::keep(&RealDisk, &rig.state(), &[], &trusted).unwrap();
    let refused = rig.fetch(&new).unwrap_err();
    assert!(words(&refused).contains("version 2 is older than version 3"), "{}", words(&refused));
    // A release that nobody signed for.
    rig.sign(4, &[&old, &new], 2);
    let unlisted = Release::new("r3", 3, &[]);
    rig.server.put(&object(&unlisted.digest), &unlisted.manifest);
    let refused = rig.fetch(&unlisted).unwrap_err();
    assert!(words(&refused).contains("not listed"), "{}", words(&refused));
    // One signature where two are needed.
    rig.sign(5, &[&new], 1);
    let refused = rig.fetch(&new).unwrap_err();
    assert!(words(&refused).contains("1 of the 2 distinct keys"), "{}", words(&refused));
    // An altered manifest.
    rig.sign(6, &[&old, &new], 2);
    rig.server.put(&object(&new.digest), &new.manifest[1..]);
    let refused = rig.fetch(&new).unwrap_err();
    assert!(words(&refused).contains("arrived altered"), "{}", words(&refused));
    assert!(rig.request().is_none());
}

#[test]
fn newer_roots_are_walked_and_handed_on() {
    let rig = Rig::new();
    let release = Release::new("r1", 1, &[("model.onnx", &noise(3, 100))]);
    rig.publish(&[&release]);
    for version in [2, 3] {
        rig.server.put(&format!("metadata/{version}.root.json"), &rig.keys.root(version));
    }
    rig.fetch(&release).unwrap();
    assert_eq!(rig.request().unwrap().roots.len(), 2);
    // A root that another fleet's keys signed.
    rig.server.put("metadata/4.root.json", &Keys::new().root(4));
    assert!(!rig.fetch(&release).unwrap_err().passes());
}

#[test]
fn a_server_of_another_fleet_is_not_believed_and_a_stop_is_obeyed() {
    let rig = Rig::new();
    let release = Release::new("r1", 1, &[("model.onnx", &noise(3, 100))]);
    rig.publish(&[&release]);
    let other = Pki::new();
    let mut job = rig.job(&release, 0);
    let credentials = Credentials {
        certificate: rig.credentials.certificate.clone(),
        authority: other.ca_der(),
        key: rig.credentials.key.clone_key(),
    };
    let url = rig.server.artifacts();
    job.server = ArtifactServer::new(&url, &credentials, Duration::from_secs(10)).unwrap();
    assert!(fetch(&job, &AtomicBool::new(false)).unwrap_err().passes());
    assert!(rig.server.asked().is_empty());
    let job = rig.job(&release, 0);
    assert!(fetch(&job, &AtomicBool::new(true)).unwrap_err().stopped());
}
