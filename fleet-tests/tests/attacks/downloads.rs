//! What a mirror can do that serves any bytes under any name, slowly or without end. The gateway's real downloader asks
//! it over TLS; nothing that it gives may reach the updater.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use agent::fleet::{
    artifact_server::ArtifactServer,
    fetch::{FetchError, Fetched, Job, Offer, fetch},
    identity::Credentials,
    mirrors::Transport,
    rate::Slowest,
};
use fleet_tests::{
    attacks::server::{Fault, Server},
    device::{Device, Wish},
    release::{Recipe, Release, build},
    signing::FleetKeys,
};
use protocol::{command::Reader, digest::Digest, id::Environment, manifest::Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ED25519,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier, version};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use slots::launch::chain_text;

use crate::device::{NOW, Rig};

const PATIENCE: Duration = Duration::from_millis(700);
const MODEL_BYTES: usize = 300_000;

struct Fetching {
    server: Server,
    credentials: Credentials,
    keys: FleetKeys,
    device: Device,
    release: Release,
    folder: tempfile::TempDir,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "fleet authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server that shows a certificate by `shown` and takes clients of `believed`.
fn tls(
    shown: &CertifiedIssuer<'static, KeyPair>,
    believed: &CertifiedIssuer<'static, KeyPair>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, shown).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(believed.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

impl Fetching {
    /// A server with a genuine release, and a device that may fetch it.
    fn new() -> Self {
        let authority = authority();
        Self::from(tls(&authority, &authority), &authority)
    }

    fn from(tls: Arc<ServerConfig>, authority: &CertifiedIssuer<'static, KeyPair>) -> Self {
        let server = Server::start(tls).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec![]).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        let credentials = Credentials {
            certificate: certificate.der().clone(),
            authority: authority.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        };
        let folder = tempfile::tempdir().unwrap();
        let keys = FleetKeys::new().unwrap();
        let device = Device::enrol(&folder.path().join("state"), &keys).unwrap();
        let model: Vec<u8> = (0..MODEL_BYTES).map(|at| (at % 253) as u8).collect();
        let files = vec![("models/faq/model.onnx".to_owned(), Role::Model, model)];
        let release = build(&keys, Recipe { files, ..Rig::recipe(1) }).unwrap();
        let fetching = Self { server, credentials, keys, device, release, folder };
        fetching.publish();
        fetching
    }

    fn publish(&self) {
        let mut shelf = self.server.shelf();
        let Release { targets, listing, objects, manifest_bytes, .. } = &self.release;
        for (name, bytes) in [
            ("timestamp", &listing.timestamp),
            ("1.snapshot", &listing.snapshot),
            ("1.targets", targets),
        ] {
            shelf.files.insert(format!("metadata/{name}.json"), bytes.clone());
        }
        shelf.files.insert(object(&self.release.digest()), manifest_bytes.clone());
        for (digest, content) in objects {
            shelf.files.insert(object(digest), content.clone());
        }
    }

    /// The path of the model's object.
    fn model(&self) -> String {
        let file = self.release.manifest.files.iter().find(|file| file.role == Role::Model);
        object(&file.unwrap().sha256)
    }

    fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let request = self.device.request(&self.keys, &self.release, NOW, Wish::default()).unwrap();
        let controller_keys = [self.keys.controller.public()];
        let reader = Reader {
            fleet: &self.device.fleet,
            device: self.device.id,
            controller_keys: &controller_keys,
        };
        let desired_bytes = request.desired.into_vec();
        let mut transport = Transport::new(vec![], None);
        transport.slowest = Slowest { bytes_per_second: 16 * 1024, window: PATIENCE };
        assert_eq!(transport.limit, None::<NonZeroU64>);
        let job = Job {
            state: self.device.dir.clone(),
            server: ArtifactServer::new(&self.server.artifacts(), &self.credentials, PATIENCE)
                .unwrap(),
            transport,
            desired: reader.desired(&desired_bytes, 0, NOW).unwrap(),
            desired_bytes,
            environment: Environment::production(),
            counter_floor: 0,
            offer: Offer {
                platform: agent::update::fit::platform(),
                memory_bytes: 1 << 40,
                disk_free_bytes: 1 << 40,
            },
            now: NOW,
        };
        fetch(&job, &AtomicBool::new(false))
    }

    /// The fetch fails with `words`, and the updater is asked for nothing.
    fn refuses(&mut self, words: &str) {
        let error = self.fetch().unwrap_err();
        let reasons = chain_text(&error);
        assert!(reasons.contains(words), "`{words}` is not in `{reasons}`");
        assert!(!self.device.dir.request().exists(), "the updater was asked");
    }

    /// The release goes through once the server behaves.
    fn recovers(&mut self) {
        self.server.shelf().faults.clear();
        self.fetch().unwrap();
        assert!(self.device.dir.request().exists());
        assert!(self.folder.path().exists());
    }
}

fn object(digest: &Digest) -> String {
    format!("sha256/{digest}")
}

fn faulty(paths: impl Fn(&Fetching) -> Vec<String>, fault: &Fault, words: &str) {
    let mut fetching = Fetching::new();
    for path in paths(&fetching) {
        fetching.server.shelf().faults.insert(path.clone(), fault.clone());
        fetching.refuses(words);
        fetching.server.shelf().faults.clear();
    }
    fetching.recovers();
}

/// Every document on the way to a release.
fn documents(fetching: &Fetching) -> Vec<String> {
    let metadata = ["timestamp", "1.snapshot", "1.targets"];
    let mut paths: Vec<String> =
        metadata.iter().map(|name| format!("metadata/{name}.json")).collect();
    paths.push(object(&fetching.release.digest()));
    paths
}

fn model(fetching: &Fetching) -> Vec<String> {
    vec![fetching.model()]
}

#[test]
fn endless_data_in_the_place_of_a_document() {
    let mut fetching = Fetching::new();
    for path in documents(&fetching) {
        fetching.server.shelf().faults.insert(path, Fault::Endless);
        let before = fetching.server.sent();
        fetching.refuses("");
        fetching.server.shelf().faults.clear();
        // What is in flight when the client hangs up is the sockets' buffers.
        assert!(fetching.server.sent() - before < 32 << 20);
    }
    fetching.recovers();
}

#[test]
fn endless_data_in_the_place_of_an_object() {
    let mut fetching = Fetching::new();
    let path = fetching.model();
    for fault in [Fault::Endless, Fault::EndlessBehindLength] {
        fetching.server.shelf().faults.insert(path.clone(), fault.clone());
        let before = fetching.server.sent();
        if fault == Fault::Endless {
            fetching.refuses("");
        } else {
            // The answer is over where it said it would be; the rest is never read.
            drop(fetching.fetch());
        }
        assert!(fetching.server.sent() - before < 32 << 20);
        let staged: u64 = Rig::fresh().tree(&fetching.device.dir.staging()).values().sum();
        assert!(staged <= 2 * MODEL_BYTES as u64 + 100_000, "{staged} bytes are staged");
    }
}

#[test]
fn an_endless_header() {
    faulty(documents, &Fault::EndlessHeader, "");
    faulty(model, &Fault::EndlessHeader, "");
}

#[test]
fn slow_data() {
    faulty(model, &Fault::Dribble, "");
}

#[test]
fn silence_in_the_middle() {
    faulty(documents, &Fault::Silent(10), "");
    faulty(model, &Fault::Silent(1000), "");
}

#[test]
fn wrong_length_too_short() {
    faulty(documents, &Fault::Short(10), "");
    faulty(model, &Fault::Short(1000), "");
}

#[test]
fn wrong_length_too_long() {
    faulty(model, &Fault::Longer, "");
}

#[test]
fn wrong_hash_of_an_object() {
    faulty(model, &Fault::Altered, "altered");
}

#[test]
fn wrong_hash_of_a_document() {
    faulty(documents, &Fault::Altered, "");
}

#[test]
fn a_compressed_answer_that_nobody_asked_for() {
    faulty(model, &Fault::Compressed, "");
}

#[test]
fn another_range_than_was_asked_for() {
    faulty(model, &Fault::OtherRange, "");
}

#[test]
fn a_redirection_off_the_authority() {
    for to in ["http://127.0.0.1:1/", "https://127.0.0.1:1/x", "file:///etc/passwd"] {
        faulty(documents, &Fault::Redirect(to.to_owned()), "");
        faulty(model, &Fault::Redirect(to.to_owned()), "");
    }
}

#[test]
fn metadata_withheld() {
    for status in [404, 403, 500] {
        faulty(documents, &Fault::Status(status), "");
    }
}

#[test]
fn an_answer_that_is_not_http() {
    faulty(documents, &Fault::Noise, "");
}

#[test]
fn a_server_of_another_authority() {
    let (ours, theirs) = (authority(), authority());
    let mut fetching = Fetching::from(tls(&theirs, &ours), &ours);
    fetching.refuses("certificate");
}

#[test]
fn a_file_left_half_by_an_attacker_on_the_disk() {
    let mut fetching = Fetching::new();
    let digest = fetching.release.manifest.files.iter().find(|file| file.role == Role::Model);
    let digest = digest.unwrap().sha256;
    let part = fetching.device.dir.staged_part(&digest);
    slots::disk::replace(&slots::disk::RealDisk, &part, &[9; 1000]).unwrap();
    // The beginning is wrong, so the whole is: it is noticed and fetched anew.
    fetching.recovers();
    let staged = std::fs::read(fetching.device.dir.staged_object(&digest)).unwrap();
    assert_eq!(Digest::of(&staged), digest);
}
