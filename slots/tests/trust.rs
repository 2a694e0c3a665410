//! The trust folder: what survives enrolling again, a power cut, and a change of keys.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use protocol::{
    digest::Digest,
    enrol::Authority,
    id::{DeviceId, Environment},
    key::SigningKey,
    tuf::{
        chain::Seen,
        document::Document,
        metadata::{Key, Role, Root, SPEC_VERSION},
        verify::Trusted,
    },
};
use ring::rand::SystemRandom;
use slots::{crash_disk::CrashDisk, disk, layout::StateDir, trust};

fn key() -> SigningKey {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

/// A root of `version` whose online roles have the key `online`.
fn root(version: u64, own: &SigningKey, online: &SigningKey) -> Vec<u8> {
    let named = |key: &SigningKey| {
        let key = Key::ed25519(&key.public());
        (key.id().unwrap(), key)
    };
    let role = |key: &SigningKey| Role { keyids: vec![named(key).0], threshold: 1 };
    let root = Root {
        kind: "root".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: "2099-01-01T00:00:00Z".into(),
        consistent_snapshot: true,
        keys: [named(own), named(online)].into(),
        roles: [
            ("root".to_owned(), role(own)),
            ("targets".to_owned(), role(own)),
            ("snapshot".to_owned(), role(online)),
            ("timestamp".to_owned(), role(online)),
        ]
        .into(),
        other: BTreeMap::new(),
    };
    let mut document = Document::unsigned(&root).unwrap();
    document.sign(own).unwrap();
    document.to_bytes().unwrap()
}

fn authority() -> Authority {
    Authority {
        fleet: "demo".parse().unwrap(),
        device: DeviceId::from(Digest::of(b"device")),
        environment: Environment::production(),
        controller_keys: vec![],
    }
}

fn seen(version: u64) -> Seen {
    let roles = BTreeMap::from([("targets.json".to_owned(), version)]);
    Seen { timestamp: version, snapshot: version, roles }
}

fn machine() -> (CrashDisk, StateDir) {
    let (disk, dir) = (CrashDisk::new(), StateDir::new("/s"));
    dir.prepare(&disk).unwrap();
    (disk, dir)
}

#[test]
fn what_is_kept_is_found_again() {
    let (disk, dir) = machine();
    assert!(trust::load(&disk, &dir).is_err());
    let (own, online) = (key(), key());
    let first = root(1, &own, &online);
    trust::enrol(&disk, &dir, &first, &authority()).unwrap();
    assert_eq!(trust::authority(&disk, &dir).unwrap(), authority());
    let trusted = trust::load(&disk, &dir).unwrap();
    assert_eq!((trusted.root_bytes(), trusted.seen()), (first.as_slice(), &Seen::default()));
    let newer = [root(2, &own, &online), root(3, &own, &online)];
    let walked = Trusted::new(first, seen(7)).unwrap().after_roots(&newer).unwrap();
    trust::keep(&disk, &dir, &newer, &walked).unwrap();
    assert_eq!(trust::load(&disk, &dir).unwrap(), walked);
    assert_eq!(walked.seen(), &seen(7));
}

#[test]
fn a_cut_between_new_keys_and_what_was_seen_does_not_keep_the_old_floor() {
    let (disk, dir) = machine();
    let (own, online, renewed) = (key(), key(), key());
    let (first, second) = (root(1, &own, &online), root(2, &own, &renewed));
    let known = Trusted::new(first, seen(u64::MAX)).unwrap();
    trust::keep(&disk, &dir, &[], &known).unwrap();
    // As far as the writing gets before the power goes: the roots, not what was seen.
    disk::replace(&disk, &dir.known_root(2), &second).unwrap();
    disk::replace(&disk, &dir.trusted_root(), &second).unwrap();
    let after = trust::load(&disk, &dir).unwrap();
    assert_eq!((after.root().get().version, after.seen()), (2, &Seen::default()));
}

#[test]
fn enrolling_again_keeps_a_newer_root_of_the_same_line_and_nothing_of_another() {
    let (own, online) = (key(), key());
    let roots: Vec<Vec<u8>> = (1..=3).map(|version| root(version, &own, &online)).collect();
    let walked = |disk: &CrashDisk, dir: &StateDir| {
        trust::enrol(disk, dir, &roots[0], &authority()).unwrap();
        let second = Trusted::new(roots[0].clone(), seen(7)).unwrap();
        let second = second.after_roots(&roots[1..2]).unwrap();
        trust::keep(disk, dir, &roots[1..2], &second).unwrap();
        second
    };
    // The token still pins the first root: the second one stays, with what was seen.
    let (disk, dir) = machine();
    let second = walked(&disk, &dir);
    trust::enrol(&disk, &dir, &roots[0], &authority()).unwrap();
    assert_eq!(trust::load(&disk, &dir).unwrap(), second);
    // The token pins the next one.
    trust::enrol(&disk, &dir, &roots[2], &authority()).unwrap();
    let third = trust::load(&disk, &dir).unwrap();
    assert_eq!((third.root().get().version, third.seen()), (3, &seen(7)));
    // Another fleet's.
    let foreign = root(2, &key(), &key());
    trust::enrol(&disk, &dir, &foreign, &authority()).unwrap();
    let other = trust::load(&disk, &dir).unwrap();
    assert_eq!((other.root_bytes(), other.seen()), (foreign.as_slice(), &Seen::default()));
    for version in [1, 3] {
        assert!(matches!(disk::Disk::length(&disk, &dir.known_root(version)), Ok(None)));
    }
    // A root that only claims the number of one that was walked.
    let (disk, dir) = machine();
    walked(&disk, &dir);
    let twin = root(1, &own, &key());
    trust::enrol(&disk, &dir, &twin, &authority()).unwrap();
    assert_eq!(trust::load(&disk, &dir).unwrap().root_bytes(), twin);
}
