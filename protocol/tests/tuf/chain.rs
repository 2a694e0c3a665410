//! Root, timestamp and snapshot: thresholds, rotation, rollback, freeze, mix-and-match, fast-forward.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::tuf::{
    chain::{Seen, newest_root, pinned_root},
    document::Document,
    metadata::{Key, Meta},
    refusal::VerifyError,
    verify::{Offered, Trusted, verify},
};

use crate::repository::{EARLIER, NOW, Repository, keys, prod, refused, signed};

#[test]
fn what_is_signed_and_fresh_is_accepted_and_remembered() {
    let repository = Repository::new();
    let (trusted, release) = repository.verify().unwrap();
    assert_eq!(release.get().manifest.counter, 1);
    assert_eq!(release.get().roles, ["targets"]);
    let roles = BTreeMap::from([("targets.json".to_owned(), 1)]);
    assert_eq!(*trusted.seen(), Seen { timestamp: 1, snapshot: 1, roles });
    assert!(repository.verify_from(&trusted).is_ok(), "the same again");
}

#[test]
fn too_few_signatures_are_refused_for_every_role() {
    let repository = Repository::new();
    let good = repository.offer();
    let stranger = keys(1);
    let strip = |bytes: &[u8], keep: usize| {
        let mut document = Document::parse("any", bytes).unwrap();
        document.signatures.truncate(keep);
        document.sign(&stranger[0]).unwrap();
        document.to_bytes().unwrap()
    };
    let check = |offered: Offered, expected: &str| {
        refused(verify(&repository.trusted(), &offered, &prod(), NOW), expected);
    };
    check(
        Offered { timestamp: strip(&good.timestamp, 0), ..good.clone() },
        "timestamp metadata is signed by 0 of the 1",
    );
    // Listed as they are, so that only the signatures are wrong.
    let mut unlisted = repository.snapshot.clone();
    unlisted.meta.insert(
        "targets.json".into(),
        Meta { version: 1, length: None, hashes: None, other: BTreeMap::new() },
    );
    let bare = Meta { version: 1, length: None, hashes: None, other: BTreeMap::new() };
    let timestamp =
        protocol::tuf::metadata::Timestamp::of(1, crate::repository::LATER.into(), bare);
    let loose = Offered {
        timestamp: repository.sign("timestamp", &timestamp),
        snapshot: repository.sign("snapshot", &unlisted),
        ..good.clone()
    };
    assert!(
        verify(&repository.trusted(), &loose, &prod(), NOW).is_ok(),
        "hashes and lengths may be left out"
    );
    check(
        Offered { snapshot: strip(&good.snapshot, 0), ..loose.clone() },
        "snapshot metadata is signed by 0 of the 1",
    );
    let targets = strip(&good.roles[0].1, 1);
    check(
        Offered { roles: vec![("targets".into(), targets)], ..loose },
        "targets metadata is signed by 1 of the 2",
    );
    refused(
        pinned_root(&strip(&repository.root_bytes(), 1)),
        "root metadata is signed by 1 of the 2",
    );
}

#[test]
fn the_same_key_under_two_ids_counts_once() {
    let mut repository = Repository::new();
    let twin = {
        let mut twin = Key::ed25519(&repository.keys["targets"][0].public());
        twin.other.insert("comment".into(), "again".into());
        twin
    };
    let twin_id = twin.id().unwrap();
    repository.root.keys.insert(twin_id.clone(), twin);
    repository.root.roles.get_mut("targets").unwrap().keyids.push(twin_id.clone());
    let mut offered = repository.offer();
    let mut document = Document::parse("targets", &offered.roles[0].1).unwrap();
    document.signatures.truncate(1);
    let mut again = document.signatures[0].clone();
    again.keyid = twin_id;
    document.signatures.push(again);
    offered.roles[0].1 = document.to_bytes().unwrap();
    // The snapshot lists other bytes: say so rather than pass for another reason.
    repository.snapshot.meta.insert("targets.json".into(), Meta::of(1, &offered.roles[0].1));
    let listed = repository.offer();
    offered.snapshot = listed.snapshot;
    offered.timestamp = listed.timestamp;
    refused(verify(&repository.trusted(), &offered, &prod(), NOW), "signed by 1 of the 2");
}

#[test]
fn a_root_that_would_let_anybody_sign_is_none() {
    for (change, expected) in [(0, "threshold of 0"), (1, "names a key id twice")] {
        let mut repository = Repository::new();
        let role = repository.root.roles.get_mut("targets").unwrap();
        match change {
            0 => role.threshold = 0,
            _ => role.keyids = vec![role.keyids[0].clone(); 2],
        }
        refused(pinned_root(&repository.root_bytes()), expected);
    }
    let repository = Repository::new();
    let mut document = Document::parse("root", &repository.root_bytes()).unwrap();
    document.signatures.push(document.signatures[0].clone());
    refused(pinned_root(&document.to_bytes().unwrap()), "two signatures by key");
}

#[test]
fn roots_rotate_one_step_at_a_time_and_only_with_the_old_keys() {
    let mut repository = Repository::new();
    let trusted = pinned_root(&repository.root_bytes()).unwrap();
    let old = repository.keys.insert("root".into(), keys(3)).unwrap();
    repository.name_keys();
    repository.root.version = 2;
    let new = &repository.keys["root"];
    let both: Vec<_> = old[..2].iter().chain(&new[..2]).collect();
    let rotated = newest_root(trusted.clone(), &[signed(&repository.root, both.clone())]).unwrap();
    assert_eq!(rotated.get().version, 2);
    for signers in [&both[..2], &both[2..]] {
        let root = signed(&repository.root, signers.iter().copied());
        refused(newest_root(trusted.clone(), &[root]), "of the 2 distinct keys");
    }
    repository.root.version = 3;
    let skipped = newest_root(trusted.clone(), &[signed(&repository.root, both.clone())]);
    assert!(matches!(skipped, Err(VerifyError::RootSequence { trusted: 1, got: 3 })));
    repository.root.version = 1;
    let same = newest_root(trusted.clone(), &[signed(&repository.root, both)]);
    assert!(matches!(same, Err(VerifyError::RootSequence { .. })));
    assert!(matches!(newest_root(trusted, &vec![vec![]; 65]), Err(VerifyError::TooManyRoots(65))));
}

#[test]
fn an_expired_root_on_the_way_is_walked_through_and_the_last_one_must_be_fresh() {
    let mut repository = Repository::new();
    repository.root.expires = EARLIER.into();
    let trusted = repository.trusted();
    refused(repository.verify_from(&trusted), "root metadata expired at 2020");
    repository.root.version = 2;
    let second = repository.root_bytes();
    repository.root.version = 3;
    repository.root.expires = crate::repository::LATER.into();
    let offered = Offered { roots: vec![second, repository.root_bytes()], ..repository.offer() };
    let (after, _) = verify(&trusted, &offered, &prod(), NOW).unwrap();
    assert_eq!(after.root().get().version, 3);
    assert_eq!(after.root_bytes(), offered.roots[1]);
}

#[test]
fn each_role_expires() {
    type Change = fn(&mut Repository);
    let cases: [(Change, &str); 4] = [
        (|r| r.root.expires = EARLIER.into(), "root metadata expired"),
        (|r| r.timestamp.expires = EARLIER.into(), "timestamp metadata expired"),
        (|r| r.snapshot.expires = EARLIER.into(), "snapshot metadata expired"),
        (|r| r.role("targets").expires = EARLIER.into(), "targets metadata expired"),
    ];
    for (change, expected) in cases {
        let mut repository = Repository::new();
        change(&mut repository);
        refused(repository.verify(), expected);
    }
    let mut odd = Repository::new();
    odd.timestamp.expires = "2030-01-01T00:00:00.5Z".into();
    refused(odd.verify(), "no readable expiry");
}

#[test]
fn nothing_goes_back_once_it_was_seen() {
    type Change = fn(&mut Repository);
    let cases: [(Change, &str); 5] = [
        (|r| r.timestamp.version = 4, "timestamp metadata version 4 is older than version 5"),
        (|r| r.snapshot.version = 4, "snapshot metadata version 4 is older than version 5"),
        (
            |r| r.role("targets").version = 4,
            "targets.json metadata version 4 is older than version 5",
        ),
        (|r| drop(r.roles.remove("team")), "snapshot metadata does not list team.json"),
        // Another snapshot under the same timestamp version: two documents were signed as one.
        (
            |r| {
                r.timestamp.version = 5;
                r.snapshot.version = 7;
            },
            "seen before with another content",
        ),
    ];
    for (change, expected) in cases {
        let mut repository = Repository::new();
        repository.delegate("targets", "team", &["x/*"], false);
        (0..4).for_each(|_| repository.publish());
        let (seen, _) = repository.verify().unwrap();
        repository.publish();
        change(&mut repository);
        refused(repository.verify_from(&seen), expected);
    }
}

#[test]
fn old_files_among_new_ones_are_refused() {
    let mut repository = Repository::new();
    let old = repository.offer();
    repository.publish();
    let new = repository.offer();
    let trusted = repository.trusted();
    for (offered, expected) in [
        (
            Offered { snapshot: old.snapshot.clone(), ..new.clone() },
            "snapshot metadata is not the file that timestamp metadata lists",
        ),
        (
            Offered { roles: old.roles.clone(), ..new.clone() },
            "targets metadata is not the file that snapshot metadata lists",
        ),
        (Offered { timestamp: old.timestamp, ..new.clone() }, "snapshot metadata is not the file"),
    ] {
        refused(verify(&trusted, &offered, &prod(), NOW), expected);
    }
    // Without hashes and lengths it is the versions that tell.
    repository.snapshot.meta.insert(
        "targets.json".into(),
        Meta { version: 9, length: None, hashes: None, other: BTreeMap::new() },
    );
    refused(
        repository.verify(),
        "targets metadata has version 2 where snapshot metadata lists version 9",
    );
}

#[test]
fn a_frozen_repository_is_believed_until_its_timestamp_expires() {
    let mut repository = Repository::new();
    let (seen, _) = repository.verify().unwrap();
    assert!(repository.verify_from(&seen).is_ok());
    repository.timestamp.expires = EARLIER.into();
    refused(repository.verify_from(&seen), "timestamp metadata expired");
}

#[test]
fn a_fleet_recovers_from_versions_near_the_end_by_replacing_the_keys() {
    for role in ["timestamp", "snapshot"] {
        let mut repository = Repository::new();
        let trusted = repository.trusted();
        // A thief of the online keys signs versions that nothing can be above.
        repository.timestamp.version = u64::MAX;
        repository.snapshot.version = u64::MAX;
        let (forwarded, _) = repository.verify_from(&trusted).unwrap();
        repository.timestamp.version = 2;
        repository.snapshot.version = 2;
        refused(repository.verify_from(&forwarded), "refused as a rollback");
        // A new root for another reason does not help.
        repository.root.version = 2;
        let root_2 = repository.root_bytes();
        let offered = Offered { roots: vec![root_2.clone()], ..repository.offer() };
        refused(verify(&forwarded, &offered, &prod(), NOW), "refused as a rollback");
        // New keys do.
        repository.keys.insert(role.into(), keys(1));
        repository.root.version = 3;
        repository.name_keys();
        let offered =
            Offered { roots: vec![root_2, repository.root_bytes()], ..repository.offer() };
        let (recovered, _) = verify(&forwarded, &offered, &prod(), NOW).unwrap();
        assert_eq!((recovered.seen().timestamp, recovered.seen().snapshot), (2, 2));
    }
}

#[test]
fn a_removed_key_no_longer_counts() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    let old = repository.keys.insert("timestamp".into(), keys(1)).unwrap();
    repository.root.version = 2;
    repository.name_keys();
    let mut offered = Offered { roots: vec![repository.root_bytes()], ..repository.offer() };
    assert!(verify(&trusted, &offered, &prod(), NOW).is_ok());
    let document = Document::parse("timestamp", &offered.timestamp).unwrap();
    offered.timestamp = signed(&document.signed, &old);
    refused(verify(&trusted, &offered, &prod(), NOW), "timestamp metadata is signed by 0 of the 1");
}

#[test]
fn kinds_specifications_and_sizes_are_held_to() {
    type Change = fn(&mut Repository);
    let cases: [(Change, &str); 7] = [
        (
            |r| r.timestamp.kind = "snapshot".into(),
            "expected timestamp metadata of specification 1.x, got `snapshot`",
        ),
        (
            |r| r.snapshot.spec_version = "2.0.0".into(),
            "expected snapshot metadata of specification 1.x",
        ),
        (
            |r| r.snapshot.spec_version = "1.zero".into(),
            "expected snapshot metadata of specification 1.x",
        ),
        (|r| r.role("targets").version = 0, "version 0"),
        (
            |r| drop(r.timestamp.other.insert("padding".into(), "x".repeat(20_000).into())),
            "larger than the 16384 allowed",
        ),
        (
            |r| {
                r.role("targets")
                    .other
                    .insert("padding".into(), "x".repeat(1 << 20).into())
                    .map_or((), drop)
            },
            "larger than the 1048576 allowed",
        ),
        (
            |r| {
                drop(r.snapshot.meta.insert(
                    "x.json".into(),
                    Meta {
                        version: 1,
                        length: None,
                        hashes: Some(BTreeMap::new()),
                        other: BTreeMap::new(),
                    },
                ))
            },
            "empty list of hashes",
        ),
    ];
    for (change, expected) in cases {
        let mut repository = Repository::new();
        change(&mut repository);
        refused(repository.verify(), expected);
    }
    let mut newer = Repository::new();
    newer.role("targets").spec_version = "1.7.3".into();
    newer.role("targets").other.insert("x-later".into(), serde_json::json!({ "kept": [1, null] }));
    assert!(newer.verify().is_ok(), "what newer versions add is signed along and ignored");
}

#[test]
fn every_hash_that_is_given_must_hold() {
    let mut repository = Repository::new();
    let good = repository.offer();
    for (algorithm, value, expected) in
        [("sha512", "00", "its sha512 differs"), ("blake7", "00", "an algorithm we do not know")]
    {
        let mut meta = Meta::of(1, &good.roles[0].1);
        meta.hashes.as_mut().unwrap().insert(algorithm.into(), value.into());
        repository.snapshot.meta.insert("targets.json".into(), meta);
        refused(repository.verify(), expected);
    }
    let mut meta = Meta::of(1, &good.roles[0].1);
    meta.length = Some(7);
    repository.snapshot.meta.insert("targets.json".into(), meta);
    refused(repository.verify(), "its length differs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One flipped bit anywhere changes nothing, or is refused.
    #[test]
    fn a_flipped_bit_proves_nothing_else(file in 0_usize..5, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let repository = Repository::new();
        let trusted = repository.trusted();
        let mut offered = repository.offer();
        let bytes = match file {
            0 => &mut offered.timestamp,
            1 => &mut offered.snapshot,
            2 => &mut offered.roles[0].1,
            3 => &mut offered.manifest,
            _ => { offered.roots = vec![repository.root_bytes()]; &mut offered.roots[0] }
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok((after, release)) = verify(&trusted, &offered, &prod(), NOW) {
            prop_assert_eq!(release.get().digest, protocol::digest::Digest::of(&repository.manifest));
            let (untouched, _) = repository.verify().unwrap();
            prop_assert_eq!(after.seen(), untouched.seen());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let repository = Repository::new();
        let trusted: Trusted = repository.trusted();
        prop_assert!(pinned_root(&bytes).is_err());
        let offered = Offered { timestamp: bytes, ..repository.offer() };
        prop_assert!(verify(&trusted, &offered, &prod(), NOW).is_err());
    }
}
