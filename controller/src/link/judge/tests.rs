//! Genuine reports are opened; each attack is refused by its name.

use hpke::{Kem as _, Serializable as _, kem::X25519HkdfSha256};
use protocol::{
    command::SealKey,
    key::SigningKey,
    report::{Event, EventKind, Vitals},
    seal::Sealer,
    time::UnixMs,
};
use ring::rand::SystemRandom;

use super::*;

const SEQUENCE: u64 = 7;

struct Scene {
    fleet: FleetId,
    device: SigningKey,
    seal_key: SealKey,
    devices: BTreeMap<DeviceId, PublicKey>,
    private: BTreeMap<u64, PrivateKey>,
}

fn signing_key() -> SigningKey {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

impl Scene {
    fn new() -> Self {
        let fleet: FleetId = "demo".parse().unwrap();
        let device = signing_key();
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let seal_key = SealKey {
            fleet: fleet.clone(),
            sequence: 3,
            public: PublicKey::from_bytes(public.to_bytes().into()),
            expires_at: UnixMs(u64::MAX),
        };
        let id = DeviceId::of(&device.public());
        Self {
            devices: BTreeMap::from([(id, device.public())]),
            private: BTreeMap::from([(3, PrivateKey(private.to_bytes().into()))]),
            fleet,
            device,
            seal_key,
        }
    }

    fn id(&self) -> DeviceId {
        DeviceId::of(&self.device.public())
    }

    fn sealed(&self, by: &SigningKey, channel: Channel, body: Body) -> Vec<u8> {
        let report = Report { at: UnixMs(5), dropped: 2, body };
        let sealer = Sealer::open(&self.seal_key, &SystemRandom::new()).unwrap();
        let plain = cbor::encode(&report).unwrap();
        sealer.seal(by, (&self.fleet, channel, SEQUENCE), &plain).unwrap()
    }

    fn genuine(&self) -> Vec<u8> {
        self.sealed(&self.device, Channel::Event, event())
    }

    fn judge(&self, topic: &str, bytes: &[u8]) -> Judgement {
        let known = Known { fleet: &self.fleet, devices: &self.devices, seal_keys: &self.private };
        let arrival =
            Arrival { topic: topic.to_owned(), bytes: bytes.to_vec().into(), retained: false };
        judge(&known, &mut Sessions::default(), &arrival)
    }

    fn topic(&self, channel: Channel) -> String {
        Topic::Report(self.fleet.clone(), self.id(), channel).to_string()
    }

    fn check_refused(&self, topic: &str, bytes: &[u8], expected: &str) {
        let Judgement::Refused(refused) = self.judge(topic, bytes) else {
            panic!("accepted what is {expected}")
        };
        assert_eq!(refused.reason, expected, "{}", refused.detail);
        assert!(REASONS.contains(&refused.reason));
        assert_eq!(refused.topic, topic);
    }
}

fn event() -> Body {
    Body::Event(Event {
        kind: EventKind::Committed,
        release: None,
        rollout: 1,
        detail: "well".into(),
    })
}

#[test]
fn a_genuine_report_is_opened() {
    let scene = Scene::new();
    let Judgement::Report(reported) = scene.judge(&scene.topic(Channel::Event), &scene.genuine())
    else {
        panic!("refused")
    };
    assert_eq!((reported.device, reported.sequence), (scene.id(), SEQUENCE));
    assert_eq!(reported.report.body, event());
    assert_eq!(reported.report.dropped, 2);
}

#[test]
fn one_session_serves_many_reports() {
    let scene = Scene::new();
    let known = Known { fleet: &scene.fleet, devices: &scene.devices, seal_keys: &scene.private };
    let sealer = Sealer::open(&scene.seal_key, &SystemRandom::new()).unwrap();
    let mut sessions = Sessions::default();
    for sequence in 1..=20 {
        let plain = cbor::encode(&Report { at: UnixMs(1), dropped: 0, body: event() }).unwrap();
        let place = (&scene.fleet, Channel::Event, sequence);
        let bytes = sealer.seal(&scene.device, place, &plain).unwrap().into();
        let arrival = Arrival { topic: scene.topic(Channel::Event), bytes, retained: false };
        assert!(matches!(judge(&known, &mut sessions, &arrival), Judgement::Report(_)));
    }
}

#[test]
fn presence_is_believed_of_enrolled_devices_only() {
    let scene = Scene::new();
    let bytes = cbor::encode(&Presence { online: true }).unwrap();
    let judged = scene.judge(&scene.topic(Channel::Presence), &bytes);
    assert!(matches!(judged, Judgement::Presence { online: true, .. }), "{judged:?}");
    let stranger = DeviceId::of(&signing_key().public());
    let topic = Topic::Report(scene.fleet.clone(), stranger, Channel::Presence).to_string();
    scene.check_refused(&topic, &bytes, "unknown-device");
    scene.check_refused(&scene.topic(Channel::Presence), &[0; 100], "malformed");
}

#[test]
fn topics_that_are_not_ours_are_refused() {
    let scene = Scene::new();
    let genuine = scene.genuine();
    scene.check_refused("a/b", &genuine, "unknown-topic");
    scene.check_refused("socle/1/demo/all/halt", &genuine, "unknown-topic");
    let other = Topic::Report("other".parse().unwrap(), scene.id(), Channel::Event).to_string();
    scene.check_refused(&other, &genuine, "foreign");
    let other = Topic::Report("other".parse().unwrap(), scene.id(), Channel::Presence).to_string();
    let online = cbor::encode(&Presence { online: true }).unwrap();
    scene.check_refused(&other, &online, "foreign");
}

#[test]
fn a_report_on_another_topic_than_its_own_is_foreign() {
    let mut scene = Scene::new();
    let genuine = scene.genuine();
    scene.check_refused(&scene.topic(Channel::Tele), &genuine, "foreign");
    let neighbour = signing_key().public();
    scene.devices.insert(DeviceId::of(&neighbour), neighbour);
    let topic =
        Topic::Report(scene.fleet.clone(), DeviceId::of(&neighbour), Channel::Event).to_string();
    scene.check_refused(&topic, &genuine, "foreign");
}

#[test]
fn a_device_that_is_not_enrolled_is_not_heard() {
    let mut scene = Scene::new();
    let (topic, genuine) = (scene.topic(Channel::Event), scene.genuine());
    scene.devices.clear();
    scene.check_refused(&topic, &genuine, "unknown-device");
}

#[test]
fn altered_bytes_are_refused_wherever_they_are_altered() {
    let scene = Scene::new();
    let (topic, genuine) = (scene.topic(Channel::Event), scene.genuine());
    for at in 0..genuine.len() {
        let mut altered = genuine.clone();
        altered[at] ^= 1;
        let judged = scene.judge(&topic, &altered);
        assert!(matches!(judged, Judgement::Refused(_)), "accepted with byte {at} altered");
    }
    let mut altered = genuine.clone();
    *altered.last_mut().unwrap() ^= 1;
    scene.check_refused(&topic, &altered, "bad-signature");
    scene.check_refused(&topic, &genuine[..genuine.len() - 1], "malformed");
    scene.check_refused(&topic, &[], "malformed");
    scene.check_refused(&topic, &vec![0; 70_000], "malformed");
}

#[test]
fn what_is_sealed_to_a_destroyed_key_is_named() {
    let mut scene = Scene::new();
    let (topic, genuine) = (scene.topic(Channel::Event), scene.genuine());
    let (other, _) = X25519HkdfSha256::gen_keypair();
    scene.private.insert(3, PrivateKey(other.to_bytes().into()));
    scene.check_refused(&topic, &genuine, "unopenable");
    scene.private.clear();
    scene.check_refused(&topic, &genuine, "unknown-seal-key");
}

#[test]
fn a_body_of_another_kind_than_its_channel_is_refused() {
    let scene = Scene::new();
    let vitals = Body::Tele(Vitals {
        cpu_permille: 1,
        memory_used_bytes: 1,
        memory_total_bytes: 1,
        disk_free_bytes: 1,
        uptime_s: 1,
        answered: 1,
        failed: 0,
        latency_us_p99: 1,
    });
    let bytes = scene.sealed(&scene.device, Channel::Event, vitals);
    scene.check_refused(&scene.topic(Channel::Event), &bytes, "malformed");
}
