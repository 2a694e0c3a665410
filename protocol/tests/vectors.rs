//! The test vectors of docs/formats/vectors.json: every binary format, byte for byte. Another implementation can be
//! checked against the same file.
//!
//! To make the file anew after a deliberate change of format, run this test with `SOCLE_WRITE_VECTORS=1` and say in
//! the change why old and new devices still understand each other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use data_encoding::HEXLOWER;
use hpke::{
    Deserializable, OpModeR, aead::ChaCha20Poly1305, kdf::HkdfSha256, kem::X25519HkdfSha256 as Kem,
};
use protocol::{
    blob::Blob,
    cbor,
    command::{Command, Desired, Halt, SealKey, Signable},
    digest::Digest,
    enrol::EnrolToken,
    handover::{Gate, Outcome, Request, RoleDocument, Verdict},
    id::{DeviceId, Slot},
    key::{PublicKey, SigningKey},
    report::{Body, DeviceState, Event, EventKind, Installed, Presence, Report, Vitals},
    seal::{EXPORT_CONTEXT, Envelope, INFO, Sealer},
    time::UnixMs,
    topic::{Channel, Topic},
};
use ring::rand::SystemRandom;

const AT: UnixMs = UnixMs(1_800_000_000_000);

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/vectors.json")
}

/// RFC 8410 PKCS#8 of the seed 0x01 × 32.
fn signer() -> SigningKey {
    let mut pkcs8 = HEXLOWER.decode(b"302e020100300506032b657004220420").unwrap();
    pkcs8.extend([1; 32]);
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

fn device() -> DeviceId {
    DeviceId::of(&signer().public())
}

fn desired() -> Desired {
    Desired {
        fleet: "demo".parse().unwrap(),
        device: device(),
        sequence: 7,
        issued_at: AT,
        expires_at: AT.plus(86_400_000),
        release: Digest::of(b"release"),
        manifest_bytes: 2048,
        targets_version: 3,
        rollout: 2,
        retry_quarantined: false,
        permit: None,
    }
}

fn halt() -> Halt {
    Halt {
        fleet: "demo".parse().unwrap(),
        sequence: 4,
        halted: true,
        releases: vec![Digest::of(b"release")],
        reason: "canary: golden set".into(),
    }
}

fn report(body: Body) -> Report {
    Report { at: AT, dropped: 0, body }
}

fn installed() -> Installed {
    Installed { release: Digest::of(b"release"), name: "2027.1.2".into(), slot: Slot::B }
}

/// X25519 private key 0x02 × 32; its public half is computed by the receiver's library.
fn receiver() -> (<Kem as hpke::Kem>::PrivateKey, SealKey) {
    use hpke::{Kem as _, Serializable as _};
    let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&[2; 32]).unwrap();
    let public: [u8; 32] = Kem::sk_to_pk(&private).to_bytes().as_slice().try_into().unwrap();
    let key = SealKey {
        fleet: "demo".parse().unwrap(),
        sequence: 1,
        public: PublicKey::from_bytes(public),
        expires_at: AT,
    };
    (private, key)
}

fn deterministic() -> BTreeMap<&'static str, Vec<u8>> {
    let state = DeviceState {
        agent_version: "0.1.0".into(),
        committed: Some(installed()),
        trial: None,
        phase: "steady".into(),
        quarantined: vec![Digest::of(b"bad")],
        desired_sequence: 7,
        compute: "cpu".into(),
        ready: true,
    };
    let vitals = Vitals {
        cpu_permille: 125,
        memory_used_bytes: 1 << 30,
        memory_total_bytes: 1 << 34,
        disk_free_bytes: 1 << 36,
        uptime_s: 3600,
        answered: 1000,
        failed: 1,
        latency_us_p99: 20_000,
    };
    let event = Event {
        kind: EventKind::RolledBack,
        release: Some(Digest::of(b"release")),
        rollout: 2,
        detail: "golden set: cosine 0.12".into(),
    };
    let verdict = Verdict {
        release: Digest::of(b"release"),
        gate: Gate::Golden,
        outcome: Outcome::Failed { reason: "cosine 0.12".into() },
        at: AT,
    };
    let request = Request {
        desired: Blob::from(vec![1]),
        roots: vec![],
        timestamp: Blob::from(b"{}".to_vec()),
        snapshot: Blob::from(b"{}".to_vec()),
        targets: vec![RoleDocument {
            role: "targets".into(),
            document: Blob::from(b"{}".to_vec()),
        }],
        manifest: Blob::from(b"{}".to_vec()),
        permit: None,
    };
    let token = EnrolToken {
        id: Blob::from(vec![9; 8]),
        secret: Blob::from(vec![8; 32]),
        fleet: "demo".parse().unwrap(),
        environment: "prod".parse().unwrap(),
        ca: Digest::of(b"ca"),
        root: Digest::of(b"root"),
        expires_at: AT,
    };
    let command = Command { device: device(), acknowledged: vec![1, 2, 300] };
    BTreeMap::from([
        ("desired", cbor::encode(&desired()).unwrap()),
        ("desired.signed", desired().signed_by(&signer()).unwrap()),
        ("halt", cbor::encode(&halt()).unwrap()),
        ("halt.signed", halt().signed_by(&signer()).unwrap()),
        ("command", cbor::encode(&command).unwrap()),
        ("seal-key", cbor::encode(&receiver().1).unwrap()),
        ("report.state", cbor::encode(&report(Body::State(state))).unwrap()),
        ("report.tele", cbor::encode(&report(Body::Tele(vitals))).unwrap()),
        ("report.event", cbor::encode(&report(Body::Event(event))).unwrap()),
        ("presence.online", cbor::encode(&Presence { online: true }).unwrap()),
        ("handover.request", cbor::encode(&request).unwrap()),
        ("handover.verdict", cbor::encode(&verdict).unwrap()),
        ("enrol-token", cbor::encode(&token).unwrap()),
    ])
}

fn recorded() -> BTreeMap<String, String> {
    serde_json::from_slice(&fs::read(file()).unwrap()).unwrap()
}

#[test]
fn every_format_is_as_published() {
    let made = deterministic();
    if std::env::var_os("SOCLE_WRITE_VECTORS").is_some() {
        write(&made);
    }
    let recorded = recorded();
    for (name, bytes) in &made {
        assert_eq!(recorded.get(*name), Some(&HEXLOWER.encode(bytes)), "{name}");
    }
    assert_eq!(
        recorded.len(),
        made.len() + 1,
        "one vector more: the sealed report, which is random"
    );
}

#[test]
fn the_published_sealed_report_opens() {
    let bytes = HEXLOWER.decode(recorded()["report.event.sealed"].as_bytes()).unwrap();
    let topic = Topic::Report("demo".parse().unwrap(), device(), Channel::Event);
    let envelope = Envelope::parse(&topic, &bytes).unwrap();
    envelope.check_signature(&signer().public()).unwrap();
    let session =
        <Kem as hpke::Kem>::EncappedKey::from_bytes(envelope.header.session.as_slice()).unwrap();
    let context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &receiver().0,
        &session,
        INFO,
    )
    .unwrap();
    let mut key = [0; 32];
    context.export(EXPORT_CONTEXT, &mut key).unwrap();
    assert_eq!(envelope.open(&key).unwrap(), deterministic()["report.event"]);
}

#[test]
fn every_vector_is_read_back() {
    let made = deterministic();
    let max = cbor::MESSAGE_BYTES_MAX;
    assert_eq!(cbor::decode::<Desired>(&made["desired"], max).unwrap(), desired());
    assert_eq!(cbor::decode::<Halt>(&made["halt"], max).unwrap(), halt());
    for name in ["report.state", "report.tele", "report.event"] {
        cbor::decode::<Report>(&made[name], max).unwrap();
    }
    cbor::decode::<Verdict>(&made["handover.verdict"], max).unwrap();
    cbor::decode::<Request>(&made["handover.request"], max).unwrap();
    cbor::decode::<EnrolToken>(&made["enrol-token"], max).unwrap();
    cbor::decode::<Command>(&made["command"], max).unwrap();
}

#[test]
fn a_token_survives_its_text_form_and_nothing_else_is_one() {
    let token: EnrolToken = cbor::decode(&deterministic()["enrol-token"], 2048).unwrap();
    let text = token.to_text().unwrap();
    assert_eq!(format!(" {text}\n").parse::<EnrolToken>().unwrap(), token);
    for wrong in ["", "socle1.", "socle2.AAAA", &text[..text.len() - 2], &format!("{text}AA")] {
        assert!(wrong.parse::<EnrolToken>().is_err(), "{wrong}");
    }
    assert!(!format!("{token:?}").contains("secret"));
}

fn write(made: &BTreeMap<&'static str, Vec<u8>>) {
    let mut all: BTreeMap<String, String> =
        made.iter().map(|(name, bytes)| ((*name).to_owned(), HEXLOWER.encode(bytes))).collect();
    let sealer = Sealer::open(&receiver().1, &SystemRandom::new()).unwrap();
    let fleet = "demo".parse().unwrap();
    let sealed =
        sealer.seal(&signer(), (&fleet, Channel::Event, 42), &made["report.event"]).unwrap();
    all.insert("report.event.sealed".into(), HEXLOWER.encode(&sealed));
    #[expect(clippy::disallowed_methods, reason = "a developer's file, written on request")]
    fs::write(file(), serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
}
