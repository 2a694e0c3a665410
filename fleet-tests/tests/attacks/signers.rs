//! Keys, signatures and thresholds.

use std::collections::BTreeMap;

use fleet_tests::attacks::draft;
use serde_json::{Value, json};

use crate::repository::{Answer, after, delegated, first, good, look, refused};

/// Changes what the pinned root says of a role.
fn with_role(role: &str, change: impl Fn(&mut Value) + Clone + 'static) -> Answer {
    let mut scene = good();
    let pointer = format!("/roles/{role}");
    scene.last.roots[0].amend(move |signed| change(signed.pointer_mut(&pointer).unwrap()));
    let (root, _) = scene.last.render().unwrap();
    match protocol::tuf::verify::Trusted::new(root, protocol::tuf::chain::Seen::default()) {
        Ok(trusted) => look(&trusted, &scene),
        Err(error) => Err(error),
    }
}

#[test]
fn unsigned_metadata() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut scene = good();
        scene.doc(role).unwrap().signers.clear();
        refused(&first(&scene), "is signed by 0 of the");
    }
}

#[test]
fn too_few_signatures() {
    let mut scene = good();
    scene.last.roles.get_mut("targets").unwrap().signers.truncate(1);
    refused(&first(&scene), "is signed by 1 of the 2");
    let mut scene = delegated();
    scene.last.roles.get_mut("prod").unwrap().signers.truncate(1);
    refused(&first(&scene), "is signed by 1 of the 2");
}

#[test]
fn signatures_by_keys_of_another_role() {
    for (role, signers) in
        [("timestamp", vec![300]), ("snapshot", vec![400]), ("targets", vec![100, 101, 102])]
    {
        let mut scene = good();
        scene.doc(role).unwrap().signers = signers;
        refused(&first(&scene), "is signed by 0 of the");
    }
}

#[test]
fn signatures_by_strangers() {
    let mut scene = good();
    scene.last.roles.get_mut("targets").unwrap().signers = vec![9001, 9002, 9003];
    refused(&first(&scene), "is signed by 0 of the 2");
}

#[test]
fn one_signature_written_twice_against_the_threshold() {
    let mut scene = good();
    let targets = scene.last.roles.get_mut("targets").unwrap();
    targets.signers = vec![200, 200];
    refused(&first(&scene), "two signatures by key");
}

#[test]
fn duplicate_key_ids_against_the_threshold() {
    let answer = with_role("targets", |role| {
        let id = role["keyids"][0].clone();
        role["keyids"] = json!([id, id]);
    });
    refused(&answer, "names a key id twice");
}

#[test]
fn one_key_under_two_ids_against_the_threshold() {
    let mut scene = good();
    let mut twin = draft::public(200).unwrap();
    twin["comment"] = json!("again");
    let id = draft::id_of(&twin).unwrap();
    let named = id.clone();
    scene.last.roots[0].amend(move |signed| {
        signed["keys"][&named] = twin.clone();
        signed["roles"]["targets"]["keyids"].as_array_mut().unwrap().push(json!(named));
    });
    let targets = scene.last.roles.get_mut("targets").unwrap();
    targets.signers = vec![200];
    targets.early.push(std::rc::Rc::new(move |bytes| {
        let mut document: Value = serde_json::from_slice(&bytes).unwrap();
        let mut again = document["signatures"][0].clone();
        again["keyid"] = json!(id);
        document["signatures"].as_array_mut().unwrap().push(again);
        serde_json::to_vec(&document).unwrap()
    }));
    refused(&first(&scene), "is signed by 1 of the 2");
}

#[test]
fn a_key_under_an_id_that_is_not_its_digest() {
    let mut scene = good();
    let wrong = "ab".repeat(32);
    let (named, right) = (wrong.clone(), draft::key_id(400).unwrap());
    scene.last.roots[0].amend(move |signed| {
        let key = signed["keys"][&right].take();
        signed["keys"].as_object_mut().unwrap().remove(&right);
        signed["keys"][&named] = key;
        signed["roles"]["timestamp"]["keyids"] = json!([named]);
    });
    scene.last.timestamp.early.push(std::rc::Rc::new(move |bytes| {
        let mut document: Value = serde_json::from_slice(&bytes).unwrap();
        document["signatures"][0]["keyid"] = json!(wrong);
        serde_json::to_vec(&document).unwrap()
    }));
    refused(&first(&scene), "is signed by 0 of the 1");
}

#[test]
fn threshold_of_zero() {
    for role in ["root", "targets", "snapshot", "timestamp"] {
        refused(&with_role(role, |role| role["threshold"] = json!(0)), "threshold of 0");
    }
}

#[test]
fn threshold_that_is_no_whole_number() {
    for threshold in [json!(-1), json!(0.5), json!("1"), json!(true), json!(4_294_967_296_u64)] {
        let answer = with_role("targets", move |role| role["threshold"] = threshold.clone());
        refused(&answer, "not of the TUF shape");
    }
}

#[test]
fn threshold_above_the_number_of_keys() {
    refused(&with_role("targets", |role| role["threshold"] = json!(4)), "is signed by 3 of the 4");
}

#[test]
fn a_key_of_a_type_nobody_can_check() {
    let answer = with_role("timestamp", |role| role["keyids"] = json!(["cd".repeat(32)]));
    refused(&answer, "is signed by 0 of the 1");
    let mut scene = good();
    scene.last.roots[0].amend(|signed| {
        for (_, key) in signed["keys"].as_object_mut().unwrap() {
            key["keytype"] = json!("none");
        }
    });
    let (root, _) = scene.last.render().unwrap();
    assert!(protocol::tuf::chain::pinned_root(&root).is_err());
}

#[test]
fn a_role_that_the_root_does_not_name() {
    let mut scene = good();
    scene.last.roots[0].amend(|signed| {
        signed["roles"].as_object_mut().unwrap().remove("timestamp");
    });
    refused(&first(&scene), "does not name the role timestamp");
}

#[test]
fn sixty_five_signatures() {
    let mut scene = good();
    scene.last.timestamp.signers.extend(5000..5064);
    refused(&first(&scene), "at most 64 are read");
}

#[test]
fn key_rotation_of_root() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|top, key| top.root.keys = vec![key, key + 1, key + 2]).unwrap();
    let moved = look(&trusted, &scene).unwrap().0;
    // What the old keys sign from now on is nothing.
    scene.rotate(|_, _| {}).unwrap();
    scene.last.roots[2].signers = vec![100, 101, 102];
    refused(&look(&moved, &scene), "root metadata is signed by 0 of the 2");
    refused(&look(&trusted, &scene), "root metadata is signed by 0 of the 2");
}

#[test]
fn key_rotation_of_targets_snapshot_and_timestamp() {
    for role in ["targets", "snapshot", "timestamp"] {
        let mut scene = good();
        let trusted = after(&scene);
        let old = scene.doc(role).unwrap().signers.clone();
        scene
            .rotate(|top, key| {
                let signers = match role {
                    "targets" => &mut top.targets,
                    "snapshot" => &mut top.snapshot,
                    _ => &mut top.timestamp,
                };
                signers.keys = vec![key, key + 1];
                signers.threshold = 2;
            })
            .unwrap();
        scene.advance();
        assert!(look(&trusted, &scene).is_ok(), "the new keys of {role} are believed");
        scene.doc(role).unwrap().signers = old;
        refused(&look(&trusted, &scene), "is signed by 0 of the 2");
    }
}

#[test]
fn key_rotation_of_a_delegated_role() {
    let mut scene = delegated();
    let trusted = after(&scene);
    let old = scene.delegations[0].signers.keys.clone();
    scene.advance();
    scene.delegations[0].signers.keys = vec![800, 801];
    scene.delegate().unwrap();
    assert!(look(&trusted, &scene).is_ok(), "the new keys are believed");
    scene.last.roles.get_mut("prod").unwrap().signers = old;
    refused(&look(&trusted, &scene), "prod metadata is signed by 0 of the 2");
}

#[test]
fn a_removed_key_that_still_signs() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|top, _| top.targets.keys = vec![200, 201]).unwrap();
    scene.last.roles.get_mut("targets").unwrap().signers = vec![201, 202];
    refused(&look(&trusted, &scene), "is signed by 1 of the 2");
}

#[test]
fn a_root_signed_by_the_old_keys_only() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|top, key| top.root.keys = vec![key, key + 1, key + 2]).unwrap();
    scene.last.roots[1].signers = vec![100, 101, 102];
    refused(&look(&trusted, &scene), "root metadata is signed by 0 of the 2");
}

#[test]
fn a_root_signed_by_the_new_keys_only() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|top, key| top.root.keys = vec![key, key + 1, key + 2]).unwrap();
    scene.last.roots[1].signers = scene.top.root.keys.clone();
    refused(&look(&trusted, &scene), "root metadata is signed by 0 of the 2");
}

#[test]
fn a_root_that_skips_a_version() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|_, _| {}).unwrap();
    scene.last.roots[1].amend(|signed| signed["version"] = json!(3));
    refused(&look(&trusted, &scene), "root version 3 does not follow version 1");
    scene.last.roots[1].amend(|signed| signed["version"] = json!(1));
    refused(&look(&trusted, &scene), "root version 1 does not follow version 1");
}

#[test]
fn more_roots_than_one_walk_takes() {
    let mut scene = good();
    let trusted = after(&scene);
    for _ in 0..65 {
        scene.rotate(|_, _| {}).unwrap();
    }
    let (_, files) = scene.last.render().unwrap();
    let roots: Vec<_> = (2..=66).map(|v| files[&format!("{v}.root.json")].clone()).collect();
    let error = trusted.after_roots(&roots).unwrap_err();
    assert!(error.to_string().contains("at most 64 are walked"), "{error}");
    // Sixty-four at a time, the device arrives all the same.
    let at_64 = look(&trusted, &scene).unwrap().0;
    assert_eq!(at_64.root().get().version, 65);
    assert_eq!(look(&at_64, &scene).unwrap().0.root().get().version, 66);
}

#[test]
fn another_documents_signatures() {
    // The signatures of the timestamp under a snapshot that its thief wrote.
    let mut scene = good();
    let signatures: BTreeMap<String, Value> =
        serde_json::from_slice(&crate::repository::files(&scene)["timestamp.json"]).unwrap();
    let stolen = signatures["signatures"].clone();
    scene.last.snapshot.early.push(std::rc::Rc::new(move |bytes| {
        let mut document: Value = serde_json::from_slice(&bytes).unwrap();
        document["signatures"] = stolen.clone();
        serde_json::to_vec(&document).unwrap()
    }));
    refused(&first(&scene), "is signed by 0 of the 1");
}
