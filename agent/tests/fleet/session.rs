//! The whole link of a device against mosquitto, a controller, and an artifact server.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::{
    fleet::{
        backoff::Backoff,
        fleet_status::FleetStatus,
        host::{Health, Host, WorkerReply},
        identity,
        service::{FleetConfig, FleetError, Parts, run},
    },
    observe::{clock, heartbeat::Heartbeats},
};
use engine::worker::message::{Call, Reply};
use hpke::{
    Deserializable, Kem as _, OpModeR, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256 as Kem,
};
use protocol::{
    blob::Blob,
    cbor,
    command::{Command, Desired, Halt, SealKey, Signable},
    digest::Digest,
    enrol::Enrolled,
    id::{DeviceId, FleetId, Slot},
    key::{PublicKey, SigningKey},
    report::{Body, Event, EventKind, Presence, Report, Vitals},
    seal::{EXPORT_CONTEXT, Envelope, INFO},
    time::UnixMs,
    topic::{Channel, Topic},
};
use ring::rand::SystemRandom;
use slots::{disk::RealDisk, layout::StateDir};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    artifacts::Server,
    broker::{Broker, Controller, PATIENCE, shared_pki},
    pki::{Clients, Pki},
    release::{Keys, Release, noise},
};

mod floods;

/// A gateway without a worker: it is well, and nobody asks it anything.
struct Quiet;

impl Host for Quiet {
    fn health(&self) -> Health {
        Health { ready: true, compute: "cpu".into(), answered: 3, failed: 0 }
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            cpu_permille: 1,
            memory_used_bytes: 2,
            memory_total_bytes: 1 << 40,
            disk_free_bytes: 1 << 40,
            uptime_s: 5,
            answered: 3,
            failed: 0,
            latency_us_p99: 7,
        }
    }

    fn ask_worker(&self, _: Slot, _: Digest, _: Call, _: Duration) -> WorkerReply<'_> {
        Box::pin(async { Ok(Reply::Pong) })
    }
}

/// One fleet: its keys, its broker, its artifact server, and one device.
struct Fleet {
    pki: Arc<Pki>,
    broker: Broker,
    artifacts: Server,
    signer: SigningKey,
    unseal: <Kem as hpke::Kem>::PrivateKey,
    seal_key: SealKey,
    keys: Keys,
    device: DeviceId,
    device_key: PublicKey,
    folder: TempDir,
}

struct Running {
    task: JoinHandle<Result<(), FleetError>>,
    news: mpsc::Sender<Event>,
    status: watch::Receiver<FleetStatus>,
    stop: watch::Sender<bool>,
}

fn fleet_id() -> FleetId {
    "demo".parse().unwrap()
}

fn signing_key() -> (SigningKey, Vec<u8>) {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    (SigningKey::from_pkcs8(&pkcs8).unwrap(), pkcs8)
}

#[expect(clippy::disallowed_methods, reason = "a test's own files")]
fn put(path: &std::path::Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Fleet {
    fn new() -> Self {
        let pki = shared_pki();
        let broker = Broker::start(&pki);
        let artifacts = Server::start(pki.server_config("localhost", Clients::OursOnly));
        let (signer, _) = signing_key();
        let (unseal, public) = Kem::gen_keypair();
        let raw: [u8; 32] = public.to_bytes().as_slice().try_into().unwrap();
        let seal_key = SealKey {
            fleet: fleet_id(),
            sequence: 1,
            public: PublicKey::from_bytes(raw),
            expires_at: UnixMs(u64::MAX),
        };
        let (device_signer, pkcs8) = signing_key();
        let device_key = device_signer.public();
        let device = DeviceId::of(&device_key);
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new();
        let fleet = Self {
            pki,
            broker,
            artifacts,
            signer,
            unseal,
            seal_key,
            keys,
            device,
            device_key,
            folder,
        };
        fleet.state().prepare(&RealDisk).unwrap();
        put(&fleet.state().trusted_root(), &fleet.keys.root(1));
        fleet.write_identity(&pkcs8);
        fleet
    }

    fn write_identity(&self, pkcs8: &[u8]) {
        let certificate_pem = self.pki.certify(pkcs8, &self.device.to_string());
        let enrolled = Enrolled {
            device: self.device,
            fleet: fleet_id(),
            environment: "prod".parse().unwrap(),
            certificate_pem: certificate_pem.clone(),
            ca_pem: self.pki.ca_pem(),
            broker: format!("mqtts://localhost:{}", self.broker.port),
            artifacts: self.artifacts.artifacts(),
            controller_keys: vec![self.signer.public()],
            seal_key: Blob::from(self.seal_key.signed_by(&self.signer).unwrap()),
            root: Blob::default(),
        };
        let folder = self.state().identity();
        put(&folder.join(identity::KEY), pkcs8);
        put(&folder.join(identity::CERTIFICATE), certificate_pem.as_bytes());
        put(&folder.join(identity::AUTHORITY), self.pki.ca_pem().as_bytes());
        put(&folder.join(identity::FLEET), &serde_json::to_vec(&enrolled).unwrap());
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.folder.path().join("state"))
            .tap(|state| std::fs::create_dir_all(state.root()).unwrap())
    }

    fn start(&self) -> Running {
        let socket = self.folder.path().join("run/mqtt.sock");
        let mut config = FleetConfig::new(self.state(), socket, "0.1.0".into(), None);
        config.vitals_every = Duration::from_millis(200);
        config.record_every = Duration::from_millis(20);
        config.retry = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
        config.timing.reconnect =
            Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
        config.timing.resend_after = Duration::from_secs(2);
        let (news, queue) = mpsc::channel(16);
        let (status_sender, status) = watch::channel(FleetStatus::default());
        let (stop, stopped) = watch::channel(false);
        let beats = Heartbeats::default();
        let task = tokio::spawn(run(Parts {
            config,
            host: Arc::new(Quiet),
            news: queue,
            status: status_sender,
            link_beat: beats.beat("link", PATIENCE),
            trial_beat: beats.beat("trial", PATIENCE),
            stop: stopped,
        }));
        Running { task, news, status, stop }
    }

    async fn controller(&self) -> Controller {
        Controller::connect(&self.pki, self.broker.port).await
    }

    fn topic(&self, channel: Channel) -> String {
        Topic::Report(fleet_id(), self.device, channel).to_string()
    }

    /// The report in a sealed message, and its sequence; none if it is on another topic.
    fn open(&self, topic: &str, payload: &[u8], channel: Channel) -> Option<(u64, Report)> {
        let parsed: Topic = topic.parse().unwrap();
        if parsed != Topic::Report(fleet_id(), self.device, channel) {
            return None;
        }
        let envelope = Envelope::parse(&parsed, payload).unwrap();
        envelope.check_signature(&self.device_key).unwrap();
        let session =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(envelope.header.session.as_slice())
                .unwrap();
        let context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.unseal,
            &session,
            INFO,
        )
        .unwrap();
        let mut key = [0; 32];
        context.export(EXPORT_CONTEXT, &mut key).unwrap();
        let plain = envelope.open(&key).unwrap();
        Some((envelope.header.sequence, cbor::decode(&plain, plain.len()).unwrap()))
    }

    /// The next event of `kind`, with its sequence.
    async fn event(&self, controller: &mut Controller, kind: EventKind) -> (u64, Event) {
        let what = format!("the event {}", kind.as_str());
        controller
            .next(&what, |topic, payload| match self.open(topic, payload, Channel::Event)? {
                (sequence, Report { body: Body::Event(event), .. }) if event.kind == kind => {
                    Some((sequence, event))
                }
                _ => None,
            })
            .await
    }

    async fn acknowledge(&self, controller: &Controller, sequences: Vec<u64>) {
        let command = Command { device: self.device, acknowledged: sequences };
        let topic = Topic::Command(fleet_id(), self.device).to_string();
        controller.publish(&topic, false, command.signed_by(&self.signer).unwrap()).await;
    }

    fn desired(&self, sequence: u64, release: &Release) -> Desired {
        Desired {
            fleet: fleet_id(),
            device: self.device,
            sequence,
            issued_at: clock::now(),
            expires_at: clock::now().plus(3_600_000),
            release: release.digest,
            manifest_bytes: release.manifest.len() as u64,
            targets_version: 1,
            rollout: 42,
            retry_quarantined: false,
            permit: None,
        }
    }

    async fn assign(&self, controller: &Controller, desired: &Desired) {
        let topic = Topic::Desired(fleet_id(), self.device).to_string();
        controller.publish(&topic, true, desired.signed_by(&self.signer).unwrap()).await;
    }

    fn publish(&self, releases: &[&Release]) {
        for release in releases {
            self.artifacts.put(&format!("sha256/{}", release.digest), &release.manifest);
            for (digest, content) in &release.objects {
                self.artifacts.put(&format!("sha256/{digest}"), content);
            }
        }
        for (name, bytes) in self.keys.metadata(1, releases, 2) {
            self.artifacts.put(&name, &bytes);
        }
    }
}

trait Tap: Sized {
    fn tap(self, look: impl FnOnce(&Self)) -> Self {
        look(&self);
        self
    }
}

impl<T> Tap for T {}

impl Running {
    async fn until(&mut self, what: &str, holds: impl FnMut(&FleetStatus) -> bool) {
        let seen = timeout(PATIENCE, self.status.wait_for(holds)).await;
        seen.unwrap_or_else(|_| panic!("waited in vain for {what}")).unwrap();
    }

    async fn end(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.task).await.expect("the link did not end").unwrap().unwrap();
    }
}

/// Looks at the disk until it is as wanted.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let wait = async {
        while !holds() {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

fn alarm(detail: &str) -> Event {
    Event { kind: EventKind::Alarm, release: None, rollout: 0, detail: detail.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_arrive_sealed_and_wait_until_they_are_acknowledged() {
    let fleet = Fleet::new();
    let mut controller = fleet.controller().await;
    let mut device = fleet.start();
    let presence = fleet.topic(Channel::Presence);
    let online = controller
        .next("presence", |topic, payload| {
            (topic == presence).then(|| cbor::decode::<Presence>(payload, 100).unwrap().online)
        })
        .await;
    assert!(online);

    device.news.send(alarm("the disk of cabinet seven is full")).await.unwrap();
    let seen = Mutex::new(VecDeque::new());
    let (sequence, event) = controller
        .next("the alarm", |topic, payload| {
            seen.lock().unwrap().push_back(payload.to_vec());
            match fleet.open(topic, payload, Channel::Event)? {
                (sequence, Report { body: Body::Event(event), .. }) => Some((sequence, event)),
                _ => None,
            }
        })
        .await;
    assert_eq!(event.detail, "the disk of cabinet seven is full");
    let readable = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).contains("cabinet");
    assert!(!seen.lock().unwrap().iter().any(readable), "the broker can read a report");

    let state = controller
        .next("the state", |topic, payload| fleet.open(topic, payload, Channel::State))
        .await;
    assert!(matches!(state.1.body, Body::State(state) if state.ready && state.phase == "steady"));
    let vitals =
        controller.next("vitals", |topic, payload| fleet.open(topic, payload, Channel::Tele)).await;
    assert!(matches!(vitals.1.body, Body::Tele(vitals) if vitals.latency_us_p99 == 7));

    // Not acknowledged: it comes again, under the same number.
    let (again, event) = fleet.event(&mut controller, EventKind::Alarm).await;
    assert_eq!((again, event.detail.as_str()), (sequence, "the disk of cabinet seven is full"));
    let file = fleet.state().outbox().join(format!("{sequence:016x}.report"));
    assert!(file.exists());
    fleet.acknowledge(&controller, vec![sequence]).await;
    let (next, _) = {
        device.news.send(alarm("another")).await.unwrap();
        let other = |topic: &str, payload: &[u8]| {
            fleet.open(topic, payload, Channel::Event).filter(|(got, _)| *got != sequence)
        };
        controller.next("another alarm", other).await
    };
    assert!(next > sequence);
    until("the report to go", || !file.exists()).await;

    device.until("the connection", |status| status.connected && status.enrolled).await;
    device.end().await;
    let offline = controller
        .next("the farewell", |topic, payload| {
            (topic == presence).then(|| cbor::decode::<Presence>(payload, 100).unwrap().online)
        })
        .await;
    assert!(!offline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_a_lost_broker_and_a_restart() {
    let mut fleet = Fleet::new();
    let mut device = fleet.start();
    device.until("the connection", |status| status.connected).await;
    fleet.broker.stop();
    device.until("the loss", |status| !status.connected && status.last_error.is_some()).await;
    device.news.send(alarm("while offline")).await.unwrap();
    device.until("the outbox", |status| status.outbox_entries > 0).await;
    device.end().await;

    let device = fleet.start();
    device.news.send(alarm("after the restart")).await.unwrap();
    fleet.broker.start_again();
    let mut controller = fleet.controller().await;
    let (first, one) = fleet.event(&mut controller, EventKind::Alarm).await;
    let (second, two) = fleet.event(&mut controller, EventKind::Alarm).await;
    assert_eq!((one.detail.as_str(), two.detail.as_str()), ("while offline", "after the restart"));
    assert!(second > first);
    device.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_is_accepted_fetched_and_handed_over_once() {
    let fleet = Fleet::new();
    let release = Release::new("r1", 1, &[("model.onnx", &noise(1, 200_000))]);
    fleet.publish(&[&release]);
    let mut controller = fleet.controller().await;
    let desired = fleet.desired(5, &release);
    fleet.assign(&controller, &desired).await;
    let mut device = fleet.start();
    let (_, accepted) = fleet.event(&mut controller, EventKind::Accepted).await;
    assert_eq!((accepted.release, accepted.rollout), (Some(release.digest), 42));
    let (_, fetched) = fleet.event(&mut controller, EventKind::Fetched).await;
    assert_eq!(fetched.detail, "r1: fetched 2 of 2 files, 200.0 kB of 200.0 kB");
    assert!(fleet.state().request().exists());
    device.until("the sequence", |status| status.desired_sequence == 5).await;
    device.end().await;

    // The broker sends the retained assignment again at the next start: nothing is fetched or said twice.
    fleet.artifacts.asked();
    let device = fleet.start();
    device.news.send(alarm("marker")).await.unwrap();
    let mut later = Vec::new();
    controller
        .next("the marker", |topic, payload| {
            let (sequence, report) = fleet.open(topic, payload, Channel::Event)?;
            let Body::Event(event) = report.body else { return None };
            later.push((sequence, event.kind));
            (event.detail == "marker").then_some(())
        })
        .await;
    let kinds: std::collections::BTreeSet<_> = later.iter().copied().collect();
    let accepted = kinds.iter().filter(|(_, kind)| *kind == EventKind::Accepted).count();
    assert!(accepted <= 1, "{kinds:?}");
    assert!(fleet.artifacts.asked().is_empty());
    device.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_old_forged_and_altered_things_are_refused_once_and_by_name() {
    let fleet = Fleet::new();
    let release = Release::new("r1", 1, &[("model.onnx", &noise(1, 5000))]);
    fleet.publish(&[&release]);
    fleet.artifacts.put(&format!("sha256/{}", Digest::of(&noise(1, 5000))), &noise(2, 5000));
    let mut controller = fleet.controller().await;
    let mut device = fleet.start();
    device.until("the connection", |status| status.connected).await;

    let expired = Desired { expires_at: UnixMs(1), ..fleet.desired(1, &release) };
    fleet.assign(&controller, &expired).await;
    let (sequence, refused) = fleet.event(&mut controller, EventKind::Refused).await;
    assert!(refused.detail.contains("expired"), "{}", refused.detail);
    fleet.acknowledge(&controller, vec![sequence]).await;

    let foreign =
        Desired { device: DeviceId::from(Digest::of(b"x")), ..fleet.desired(2, &release) };
    fleet.assign(&controller, &foreign).await;
    let (sequence, refused) = fleet.event(&mut controller, EventKind::Refused).await;
    assert!(refused.detail.contains("another device"), "{}", refused.detail);
    fleet.acknowledge(&controller, vec![sequence]).await;

    let forged = fleet.desired(3, &release).signed_by(&signing_key().0).unwrap();
    let topic = Topic::Desired(fleet_id(), fleet.device).to_string();
    controller.publish(&topic, true, forged.clone()).await;
    let (sequence, refused) = fleet.event(&mut controller, EventKind::Refused).await;
    assert!(refused.detail.contains("not trusted"), "{}", refused.detail);
    fleet.acknowledge(&controller, vec![sequence]).await;
    // The same again says nothing new; a genuine one whose file is altered is refused by the file's name.
    controller.publish(&topic, true, forged).await;
    fleet.assign(&controller, &fleet.desired(4, &release)).await;
    let (sequence, refused) = fleet.event(&mut controller, EventKind::Refused).await;
    assert!(refused.detail.contains("models/faq/model.onnx"), "{}", refused.detail);
    assert_eq!((refused.release, refused.rollout), (Some(release.digest), 42));
    assert!(!fleet.state().request().exists());
    fleet.acknowledge(&controller, vec![sequence]).await;

    fleet.assign(&controller, &fleet.desired(3, &release)).await;
    let (_, refused) = fleet.event(&mut controller, EventKind::Refused).await;
    assert!(refused.detail.contains("a replay"), "{}", refused.detail);
    device.until("the sequence", |status| status.desired_sequence == 4).await;
    device.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halt_holds_back_and_is_left_for_the_updater() {
    let fleet = Fleet::new();
    let release = Release::new("r1", 1, &[("model.onnx", &noise(1, 5000))]);
    fleet.publish(&[&release]);
    let mut controller = fleet.controller().await;
    let halt = Halt {
        fleet: fleet_id(),
        sequence: 1,
        halted: true,
        releases: vec![release.digest],
        reason: "the canary failed".into(),
    };
    let topic = Topic::Halt(fleet_id()).to_string();
    controller.publish(&topic, true, halt.signed_by(&fleet.signer).unwrap()).await;
    let mut device = fleet.start();
    let kept = fleet.state().halt();
    until("the halt to be kept", || kept.exists()).await;
    fleet.assign(&controller, &fleet.desired(1, &release)).await;
    device.until("the wait", |status| status.assignment.contains("the canary failed")).await;
    let lifted = Halt { sequence: 2, halted: false, ..halt };
    controller.publish(&topic, true, lifted.signed_by(&fleet.signer).unwrap()).await;
    fleet.event(&mut controller, EventKind::Fetched).await;
    device.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_another_fleet_is_not_believed_and_named() {
    let mut fleet = Fleet::new();
    let stranger = Broker::start(&Pki::new());
    fleet.broker = stranger;
    let (_, pkcs8) = signing_key();
    let key = SigningKey::from_pkcs8(&pkcs8).unwrap().public();
    (fleet.device, fleet.device_key) = (DeviceId::of(&key), key);
    fleet.write_identity(&pkcs8);
    let mut device = fleet.start();
    device
        .until("the reason", |status| {
            status.last_error.as_ref().is_some_and(|reason| reason.contains("TLS to the broker"))
        })
        .await;
    assert!(!device.status.borrow().connected);
    device.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_identity_waits_for_one() {
    let fleet = Fleet::new();
    let marker = fleet.state().identity().join(identity::FLEET);
    let text = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    let mut controller = fleet.controller().await;
    let mut device = fleet.start();
    device.news.send(alarm("before joining")).await.unwrap();
    device.until("the trial loop", |status| status.trial == "no trial").await;
    assert!(!device.status.borrow().enrolled);
    put(&marker, &text);
    let (_, event) = fleet.event(&mut controller, EventKind::Alarm).await;
    assert_eq!(event.detail, "before joining");
    device.until("the fleet", |status| status.enrolled && status.fleet.is_some()).await;
    device.end().await;
}
