//! Older, newer, frozen and mixed metadata.

use protocol::time::UnixMs;
use serde_json::json;

use crate::repository::{
    NOW, after, delegated, first, good, look, look_at, manifest, manifest_of, pinned, refused,
};

const YEARS_10_MS: u64 = 10 * 365 * 86_400_000;

#[test]
fn rollback_of_the_timestamp() {
    let mut scene = good();
    scene.advance();
    let trusted = after(&scene);
    scene.last.timestamp.signed["version"] = json!(1);
    refused(&look(&trusted, &scene), "timestamp metadata version 1 is older than version 2");
}

#[test]
fn rollback_of_the_snapshot() {
    let mut scene = good();
    scene.advance();
    let trusted = after(&scene);
    scene.last.timestamp.bump();
    scene.last.snapshot.signed["version"] = json!(1);
    refused(&look(&trusted, &scene), "snapshot metadata version 1 is older than version 2");
}

#[test]
fn rollback_of_targets() {
    let mut scene = good();
    scene.advance();
    let trusted = after(&scene);
    let old = scene.before[0].roles["targets"].clone();
    scene.advance();
    scene.last.roles.insert("targets".to_owned(), old);
    refused(&look(&trusted, &scene), "targets.json metadata version 1 is older than version 2");
}

#[test]
fn rollback_of_a_delegated_role() {
    let mut scene = delegated();
    scene.advance();
    let trusted = after(&scene);
    let old = scene.before[0].roles["prod"].clone();
    scene.advance();
    scene.last.roles.insert("prod".to_owned(), old);
    refused(&look(&trusted, &scene), "prod.json metadata version 1 is older than version 2");
}

#[test]
fn a_role_dropped_from_the_snapshot() {
    let mut scene = delegated();
    let trusted = after(&scene);
    scene.advance();
    scene.list_file("targets", "env/prod/2027.1.1.json", &manifest());
    scene.delegations.clear();
    scene.delegate().unwrap();
    scene.last.roles.get_mut("prod").unwrap().unlisted = true;
    refused(&look(&trusted, &scene), "snapshot metadata does not list prod.json");
}

#[test]
fn freeze_behind_an_expired_timestamp() {
    let scene = good();
    let trusted = after(&scene);
    let later = UnixMs(NOW.0 + 8 * 86_400_000);
    refused(&look_at(&trusted, &scene, later), "timestamp metadata expired");
    let mut fresh = scene;
    fresh.advance();
    let until = fresh.at(30);
    fresh.last.timestamp.signed["expires"] = json!(until);
    fresh.last.snapshot.signed["expires"] = json!(until);
    assert!(look_at(&trusted, &fresh, later).is_ok(), "a new timestamp ends the freeze");
}

#[test]
fn freeze_with_two_timestamps_of_one_version() {
    let mut scene = good();
    let trusted = after(&scene);
    let timestamp = scene.last.timestamp.clone();
    scene.advance();
    scene.last.timestamp = timestamp;
    refused(&look(&trusted, &scene), "two documents were signed as one version");
}

#[test]
fn mix_and_match_of_two_genuine_states() {
    let mut scene = delegated();
    let mut states = vec![];
    for _ in 0..2 {
        states.push(crate::repository::files(&scene));
        scene.advance();
    }
    states.push(crate::repository::files(&scene));
    let prod = "prod".parse().unwrap();
    let mut tried = 0;
    // Every document of every state in the place of its namesake in every other one.
    for (ours, state) in states.iter().enumerate() {
        for (theirs, other) in states.iter().enumerate().filter(|(theirs, _)| *theirs != ours) {
            for role in ["snapshot", "targets", "prod"] {
                let mut mixed = state.clone();
                let name = format!("{}.{role}.json", ours + 1);
                mixed.insert(name, other[&format!("{}.{role}.json", theirs + 1)].clone());
                let answer = fleet_tests::attacks::ours::release(
                    &pinned(&scene),
                    &mixed,
                    &manifest(),
                    &prod,
                    NOW,
                );
                refused(&answer, "lists");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 18);
}

#[test]
fn fast_forward_of_online_roles_ends_with_new_keys() {
    for role in ["timestamp", "snapshot"] {
        let mut scene = good();
        let normal = scene.last.clone();
        // A thief of the key signs the largest version there is.
        match role {
            "timestamp" => scene.last.timestamp.signed["version"] = json!(u64::MAX),
            _ => scene.last.snapshot.signed["version"] = json!(u64::MAX),
        }
        let trusted = after(&scene);
        scene.last = normal;
        for _ in 0..3 {
            scene.last.timestamp.bump();
            scene.last.snapshot.bump();
        }
        refused(&look(&trusted, &scene), "is older than version 18446744073709551615");
        // Recovery: the root names other keys, and what the stolen ones signed is forgotten.
        scene
            .rotate(|top, key| match role {
                "timestamp" => top.timestamp.keys = vec![key],
                _ => top.snapshot.keys = vec![key],
            })
            .unwrap();
        let recovered = look(&trusted, &scene).unwrap().0;
        assert_eq!(recovered.seen().timestamp, 4);
        // And the stolen key signs no more.
        scene.last.timestamp.bump();
        match role {
            "timestamp" => scene.last.timestamp.signers = vec![400],
            _ => scene.last.snapshot.signers = vec![300],
        }
        refused(&look(&recovered, &scene), "is signed by 0 of the 1");
    }
}

#[test]
fn expired_root() {
    let mut scene = good();
    let past = json!(scene.at(-1));
    scene.last.roots[0].signed["expires"] = past;
    refused(&first(&scene), "root metadata expired");
    scene.rotate(|_, _| {}).unwrap();
    assert!(first(&scene).is_ok(), "an expired root may be followed by a fresh one");
}

#[test]
fn expired_timestamp() {
    let mut scene = good();
    scene.last.timestamp.signed["expires"] = json!(scene.at(-1));
    refused(&first(&scene), "timestamp metadata expired");
}

#[test]
fn expired_snapshot() {
    let mut scene = good();
    scene.last.snapshot.signed["expires"] = json!(scene.at(-1));
    refused(&first(&scene), "snapshot metadata expired");
}

#[test]
fn expired_targets() {
    let mut scene = good();
    let past = json!(scene.at(-1));
    scene.last.roles.get_mut("targets").unwrap().signed["expires"] = past;
    refused(&first(&scene), "targets metadata expired");
}

#[test]
fn expired_delegated_role() {
    let mut scene = delegated();
    let past = json!(scene.at(-1));
    scene.last.roles.get_mut("prod").unwrap().signed["expires"] = past;
    refused(&first(&scene), "prod metadata expired");
}

#[test]
fn expiry_without_a_readable_time() {
    for text in ["", "never", "2099-01-01", "2099-01-01T00:00:00+01:00", "2099-01-01t00:00:00Z"] {
        let mut scene = good();
        scene.last.timestamp.signed["expires"] = json!(text);
        refused(&first(&scene), "no readable expiry");
    }
}

#[test]
fn clock_ten_years_ahead() {
    let scene = good();
    let ahead = UnixMs(NOW.0 + YEARS_10_MS);
    refused(&look_at(&pinned(&scene), &scene, ahead), "expired");
}

#[test]
fn clock_ten_years_behind_with_expired_metadata() {
    // A device that has seen a signed time does not believe an older clock.
    let mut scene = good();
    scene.last.timestamp.signed["expires"] = json!(scene.at(-400));
    let record =
        slots::boot::BootRecord { time_floor: NOW, ..slots::boot::BootRecord::new(UnixMs(0)) };
    let behind = record.time(UnixMs(NOW.0 - YEARS_10_MS));
    refused(&look_at(&pinned(&scene), &scene, behind), "timestamp metadata expired");
}

#[test]
fn an_older_release_that_is_still_listed() {
    let (_, release) = first(&good()).unwrap();
    let refusal = protocol::tuf::verify::newer_than(&release, 1).unwrap_err();
    assert!(refusal.to_string().contains("refused as a rollback"), "{refusal}");
    assert!(protocol::tuf::verify::newer_than(&release, 0).is_ok());
}

#[test]
fn a_release_that_was_taken_back() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.advance();
    scene.last.roles.get_mut("targets").unwrap().signed["targets"] = json!({});
    refused(&look(&trusted, &scene), "is not listed");
}

#[test]
fn another_manifest_under_a_listed_name() {
    let scene = good();
    let other = manifest_of("2027.1.1", 9);
    let prod = "prod".parse().unwrap();
    let files = crate::repository::files(&scene);
    let answer = fleet_tests::attacks::ours::release(&pinned(&scene), &files, &other, &prod, NOW);
    refused(&answer, "is not listed");
}
