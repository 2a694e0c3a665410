//! Reports sealed with ring open with the `hpke` crate, and only as they were made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hpke::{
    Deserializable, Kem as _, OpModeR, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256 as Kem,
};
use protocol::{
    cbor,
    command::SealKey,
    id::{DeviceId, FleetId},
    key::{PublicKey, SigningKey},
    seal::{EXPORT_CONTEXT, Envelope, EnvelopeError, INFO, SealError, Sealer},
    time::UnixMs,
    topic::{Channel, Topic},
};
use ring::rand::SystemRandom;

struct Pair {
    signer: SigningKey,
    fleet: FleetId,
    private: <Kem as hpke::Kem>::PrivateKey,
    seal_key: SealKey,
}

fn pair() -> Pair {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    let (private, public) = Kem::gen_keypair();
    let fleet: FleetId = "demo".parse().unwrap();
    let raw: [u8; 32] = public.to_bytes().as_slice().try_into().unwrap();
    Pair {
        signer: SigningKey::from_pkcs8(&pkcs8).unwrap(),
        fleet: fleet.clone(),
        private,
        seal_key: SealKey {
            fleet,
            sequence: 4,
            public: PublicKey::from_bytes(raw),
            expires_at: UnixMs(9),
        },
    }
}

fn session_key(pair: &Pair, envelope: &Envelope) -> [u8; 32] {
    let session =
        <Kem as hpke::Kem>::EncappedKey::from_bytes(envelope.header.session.as_slice()).unwrap();
    let context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &pair.private,
        &session,
        INFO,
    )
    .unwrap();
    let mut key = [0; 32];
    context.export(EXPORT_CONTEXT, &mut key).unwrap();
    key
}

fn topic(pair: &Pair, channel: Channel) -> Topic {
    Topic::Report(pair.fleet.clone(), DeviceId::of(&pair.signer.public()), channel)
}

#[test]
fn the_hpke_crate_opens_what_ring_sealed() {
    let pair = pair();
    let sealer = Sealer::open(&pair.seal_key, &SystemRandom::new()).unwrap();
    for (sequence, length) in [(1_u64, 0_usize), (2, 1), (700, 600), (u64::MAX, 60_000)] {
        let plain = vec![7; length];
        let bytes =
            sealer.seal(&pair.signer, (&pair.fleet, Channel::Event, sequence), &plain).unwrap();
        let envelope = Envelope::parse(&topic(&pair, Channel::Event), &bytes).unwrap();
        envelope.check_signature(&pair.signer.public()).unwrap();
        assert_eq!(envelope.open(&session_key(&pair, &envelope)).unwrap(), plain);
    }
}

#[test]
fn a_report_sent_twice_is_the_same_bytes() {
    let pair = pair();
    let sealer = Sealer::open(&pair.seal_key, &SystemRandom::new()).unwrap();
    let seal = || sealer.seal(&pair.signer, (&pair.fleet, Channel::Event, 3), b"x").unwrap();
    assert_eq!(seal(), seal());
}

#[test]
fn a_report_moved_altered_or_signed_by_another_is_refused() {
    let (pair, other) = (pair(), pair());
    let sealer = Sealer::open(&pair.seal_key, &SystemRandom::new()).unwrap();
    let bytes = sealer.seal(&pair.signer, (&pair.fleet, Channel::Event, 3), b"secret").unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));

    for foreign in [topic(&pair, Channel::Tele), topic(&other, Channel::Event)] {
        assert!(matches!(Envelope::parse(&foreign, &bytes), Err(EnvelopeError::Foreign { .. })));
    }
    let envelope = Envelope::parse(&topic(&pair, Channel::Event), &bytes).unwrap();
    assert!(envelope.check_signature(&other.signer.public()).is_err());

    let mut resequenced = envelope.clone();
    resequenced.header.sequence = 4;
    assert!(resequenced.check_signature(&pair.signer.public()).is_err());
    assert!(resequenced.open(&session_key(&pair, &envelope)).is_err());
    assert!(envelope.open(&[0; 32]).is_err());
}

#[test]
fn every_truncation_and_every_flipped_byte_is_refused() {
    let pair = pair();
    let sealer = Sealer::open(&pair.seal_key, &SystemRandom::new()).unwrap();
    let bytes = sealer.seal(&pair.signer, (&pair.fleet, Channel::State, 3), b"secret").unwrap();
    let topic = topic(&pair, Channel::State);
    let accepted = |bytes: &[u8]| {
        Envelope::parse(&topic, bytes)
            .is_ok_and(|envelope| envelope.check_signature(&pair.signer.public()).is_ok())
    };
    assert!(accepted(&bytes));
    for at in 0..bytes.len() {
        assert!(!accepted(&bytes[..at]), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(!accepted(&flipped), "flipped at {at}");
    }
}

#[test]
fn a_worthless_controller_key_and_a_huge_report_are_refused() {
    let pair = pair();
    let zero = SealKey { public: PublicKey::from_bytes([0; 32]), ..pair.seal_key.clone() };
    assert!(matches!(Sealer::open(&zero, &SystemRandom::new()), Err(SealError::Peer)));
    let sealer = Sealer::open(&pair.seal_key, &SystemRandom::new()).unwrap();
    let huge = vec![0; cbor::MESSAGE_BYTES_MAX];
    let result = sealer.seal(&pair.signer, (&pair.fleet, Channel::Event, 1), &huge);
    assert!(matches!(result, Err(SealError::TooLarge(_))));
}
