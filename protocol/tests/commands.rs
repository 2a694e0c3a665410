//! What a device obeys: only its own controller, only what is meant for it, never anything older.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::{
    cbor,
    command::{Command, Desired, Halt, Reader, Refusal, SealKey, Signable},
    digest::Digest,
    id::{DeviceId, FleetId},
    key::{PublicKey, Purpose, SigningKey},
    signed::{Signed, SignedError},
    time::UnixMs,
};
use ring::rand::SystemRandom;

const NOW: UnixMs = UnixMs(1_000_000);

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap()).unwrap()
}

fn device() -> DeviceId {
    DeviceId::from(Digest::of(b"device"))
}

fn fleet() -> FleetId {
    "demo".parse().unwrap()
}

fn desired() -> Desired {
    Desired {
        fleet: fleet(),
        device: device(),
        sequence: 5,
        issued_at: UnixMs(999_000),
        expires_at: UnixMs(1_000_001),
        release: Digest::of(b"release"),
        manifest_bytes: 700,
        targets_version: 2,
        rollout: 1,
        retry_quarantined: false,
        permit: None,
    }
}

#[test]
fn an_assignment_is_obeyed_once_in_order_and_by_its_addressee() {
    let (controller, stranger) = (key(), key());
    let (fleet, other_fleet) = (fleet(), "other".parse().unwrap());
    let keys = [controller.public()];
    let reader = Reader { fleet: &fleet, device: device(), controller_keys: &keys };
    let bytes = desired().signed_by(&controller).unwrap();

    assert_eq!(reader.desired(&bytes, 4, NOW).unwrap().get(), &desired());
    assert!(reader.desired(&bytes, 5, NOW).is_ok(), "the retained message again");
    assert!(matches!(reader.desired(&bytes, 6, NOW), Err(Refusal::Replayed { seen: 6, got: 5 })));
    assert!(matches!(reader.desired(&bytes, 0, NOW.plus(1)), Err(Refusal::Expired(_))));

    let foreign = Reader { device: DeviceId::from(Digest::of(b"x")), ..reader };
    assert!(matches!(foreign.desired(&bytes, 0, NOW), Err(Refusal::Foreign("device"))));
    let elsewhere = Reader { fleet: &other_fleet, ..reader };
    assert!(matches!(elsewhere.desired(&bytes, 0, NOW), Err(Refusal::Foreign("fleet"))));

    let forged = desired().signed_by(&stranger).unwrap();
    assert!(matches!(
        reader.desired(&forged, 0, NOW),
        Err(Refusal::Signature(SignedError::UnknownKey(_)))
    ));
    let none: [PublicKey; 0] = [];
    let keyless = Reader { controller_keys: &none, ..reader };
    assert!(matches!(keyless.desired(&bytes, 0, NOW), Err(Refusal::Signature(_))));
}

#[test]
fn a_signature_for_one_thing_is_none_for_another() {
    let controller = key();
    let fleet = fleet();
    let keys = [controller.public()];
    let reader = Reader { fleet: &fleet, device: device(), controller_keys: &keys };
    let payload = cbor::encode(&desired()).unwrap();
    let as_halt = Signed::seal(&controller, Purpose::Halt, payload).unwrap();
    assert!(matches!(
        reader.desired(&as_halt, 0, NOW),
        Err(Refusal::Signature(SignedError::BadSignature(_)))
    ));
}

#[test]
fn a_halt_names_what_it_forbids() {
    let controller = key();
    let fleet = fleet();
    let keys = [controller.public()];
    let reader = Reader { fleet: &fleet, device: device(), controller_keys: &keys };
    let (bad, good) = (Digest::of(b"bad"), Digest::of(b"good"));
    let halt = |releases: Vec<Digest>, halted| Halt {
        fleet: fleet.clone(),
        sequence: 2,
        halted,
        releases,
        reason: "canary failed".into(),
    };
    let bytes = halt(vec![bad], true).signed_by(&controller).unwrap();
    let read = reader.halt(&bytes, 2).unwrap().into_inner();
    assert!(read.forbids(&bad) && !read.forbids(&good));
    assert!(halt(vec![], true).forbids(&good));
    assert!(!halt(vec![], false).forbids(&bad));
    assert!(matches!(reader.halt(&bytes, 3), Err(Refusal::Replayed { .. })));
    let long = halt(vec![bad; 300], true).signed_by(&controller).unwrap();
    assert!(matches!(reader.halt(&long, 0), Err(Refusal::TooLong(300))));
}

#[test]
fn acknowledgements_and_sealing_keys_are_read_alike() {
    let controller = key();
    let fleet = fleet();
    let keys = [controller.public()];
    let reader = Reader { fleet: &fleet, device: device(), controller_keys: &keys };
    let ack = Command { device: device(), acknowledged: vec![1, 2, 9] };
    assert_eq!(reader.command(&ack.signed_by(&controller).unwrap()).unwrap().get(), &ack);
    let seal = SealKey {
        fleet: fleet.clone(),
        sequence: 3,
        public: key().public(),
        expires_at: NOW.plus(1),
    };
    let bytes = seal.signed_by(&controller).unwrap();
    assert_eq!(reader.seal_key(&bytes, 3, NOW).unwrap().get(), &seal);
    assert!(matches!(reader.seal_key(&bytes, 4, NOW), Err(Refusal::Replayed { .. })));
    assert!(matches!(reader.seal_key(&bytes, 3, NOW.plus(1)), Err(Refusal::Expired(_))));
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let controller = key();
    let fleet = fleet();
    let keys = [controller.public()];
    let reader = Reader { fleet: &fleet, device: device(), controller_keys: &keys };
    let bytes = desired().signed_by(&controller).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(reader.desired(&flipped, 0, NOW).is_err(), "flipped at {at}");
        assert!(reader.desired(&bytes[..at], 0, NOW).is_err(), "cut at {at}");
    }
}
