//! The bytes of metadata: altered, cut, padded, written otherwise.

use std::rc::Rc;

use fastrand::Rng;
use fleet_tests::attacks::{draft::Edit, ours};
use protocol::{
    cbor::DOCUMENT_BYTES_MAX,
    tuf::{chain::TIMESTAMP_BYTES_MAX, refusal::VerifyError},
};
use serde_json::{Value, json};

use crate::repository::{
    Answer, NOW, after, delegated, files, first, good, look, manifest, pinned, refused,
};

const ROLES: [&str; 4] = ["timestamp", "snapshot", "targets", "prod"];

/// One document written otherwise after it was signed; its listing knows of it, or not.
fn rewritten(role: &str, listed: bool, edit: Edit) -> Answer {
    let mut scene = delegated();
    scene.with(role, |doc| if listed { doc.early.push(edit) } else { doc.late.push(edit) });
    first(&scene)
}

#[test]
fn ten_thousand_single_bit_flips() {
    let scene = delegated();
    let (trusted, files, manifest) = (pinned(&scene), files(&scene), manifest());
    let prod = "prod".parse().unwrap();
    let good = ours::release(&trusted, &files, &manifest, &prod, NOW).unwrap().1;
    let names = ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.prod.json"];
    let mut random = Rng::with_seed(20_261_122);
    for round in 0..10_000_usize {
        let name = names[round % names.len()];
        let mut flipped = files.clone();
        let bytes = flipped.get_mut(name).unwrap();
        let at = random.usize(0..bytes.len());
        let bit = random.u8(0..8);
        bytes[at] ^= 1 << bit;
        match ours::release(&trusted, &flipped, &manifest, &prod, NOW) {
            Err(_) => {}
            // Nothing lists the digest of a timestamp: white space in it, or a key id that is nobody's beside enough
            // others, changes no word of what is signed.
            Ok((_, release)) => {
                assert_eq!(name, "timestamp.json", "byte {at} bit {bit} of {name}");
                assert_eq!(release, good, "byte {at} bit {bit} of {name}");
                let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                assert_eq!(
                    read(&flipped[name])["signed"],
                    read(&files[name])["signed"],
                    "byte {at} bit {bit} of {name}"
                );
            }
        }
    }
}

#[test]
fn one_bit_of_the_manifest() {
    let scene = good();
    let (trusted, files, whole) = (pinned(&scene), files(&scene), manifest());
    let prod = "prod".parse().unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let answer = ours::release(&trusted, &files, &flipped, &prod, NOW);
        assert!(answer.is_err(), "byte {at}");
    }
}

#[test]
fn truncated_at_every_byte() {
    let scene = delegated();
    let (trusted, whole, manifest) = (pinned(&scene), files(&scene), manifest());
    let prod = "prod".parse().unwrap();
    for name in ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.prod.json"] {
        for end in 0..whole[name].len() {
            let mut cut = whole.clone();
            cut.get_mut(name).unwrap().truncate(end);
            let answer = ours::release(&trusted, &cut, &manifest, &prod, NOW);
            assert!(answer.is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn truncated_root() {
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|_, _| {}).unwrap();
    let (_, whole) = scene.last.render().unwrap();
    let root = &whole["2.root.json"];
    for end in 0..root.len() {
        assert!(trusted.after_roots(&[root[..end].to_vec()]).is_err(), "cut at {end}");
    }
    assert!(trusted.after_roots(std::slice::from_ref(root)).is_ok());
}

#[test]
fn wrong_length_in_the_listing() {
    for role in ["snapshot", "targets", "prod"] {
        for more in [1_i64, -1] {
            let mut scene = delegated();
            let by = if role == "snapshot" { "timestamp" } else { "snapshot" };
            let pointer = format!("/meta/{role}.json/length");
            scene.with(by, |doc| {
                doc.amend(move |signed| {
                    let length = signed.pointer_mut(&pointer).unwrap();
                    *length = json!(length.as_i64().unwrap() + more);
                });
            });
            assert!(first(&scene).is_err(), "{role} {more}");
        }
    }
}

#[test]
fn wrong_hash_in_the_listing() {
    for role in ["snapshot", "targets", "prod"] {
        let mut scene = delegated();
        let by = if role == "snapshot" { "timestamp" } else { "snapshot" };
        let pointer = format!("/meta/{role}.json/hashes/sha256");
        scene.with(by, |doc| {
            doc.amend(move |signed| *signed.pointer_mut(&pointer).unwrap() = json!("0".repeat(64)));
        });
        refused(&first(&scene), "its sha256 differs");
    }
}

#[test]
fn a_listing_by_an_unknown_algorithm() {
    let mut scene = delegated();
    scene.with("snapshot", |doc| {
        doc.amend(|signed| signed["meta"]["targets.json"]["hashes"] = json!({ "crc32": "0" }));
    });
    refused(&first(&scene), "an algorithm we do not know");
}

#[test]
fn a_version_other_than_listed() {
    for role in ["snapshot", "targets", "prod"] {
        let mut scene = delegated();
        scene.with(role, |doc| doc.listed = Some(7));
        refused(&first(&scene), "lists version 7");
    }
}

#[test]
fn endless_metadata() {
    let space = |bytes: Vec<u8>, to: usize| [bytes, vec![b' '; to]].concat();
    let timestamp = Rc::new(move |bytes| space(bytes, TIMESTAMP_BYTES_MAX));
    refused(&rewritten("timestamp", false, timestamp), "larger than");
    for role in ["snapshot", "targets"] {
        let mut scene = delegated();
        scene.last.hashes = false;
        let endless = Rc::new(move |bytes| space(bytes, DOCUMENT_BYTES_MAX));
        scene.with(role, |doc| doc.early.push(endless));
        assert!(first(&scene).is_err(), "{role}");
    }
    let mut scene = good();
    let trusted = after(&scene);
    scene.rotate(|_, _| {}).unwrap();
    scene.last.roots[1].early.push(Rc::new(move |bytes| space(bytes, DOCUMENT_BYTES_MAX)));
    refused(&look(&trusted, &scene), "larger than");
}

#[test]
fn deeply_nested_json() {
    for role in ROLES {
        let nested = Rc::new(|_: Vec<u8>| {
            [b"{\"signed\":".to_vec(), vec![b'['; 10_000], b"}".to_vec()].concat()
        });
        refused(&rewritten(role, true, nested), "recursion limit");
    }
}

#[test]
fn a_document_in_the_place_of_another() {
    for (role, kind) in [
        ("timestamp", "snapshot"),
        ("snapshot", "timestamp"),
        ("targets", "root"),
        ("prod", "downgrade-permit"),
    ] {
        let mut scene = delegated();
        scene.with(role, |doc| doc.signed["_type"] = json!(kind));
        refused(&first(&scene), "expected");
    }
}

#[test]
fn another_major_version_of_the_specification() {
    for version in ["2.0.0", "0.9", "1", "10.0.0", "1.x", "1.0.31.4", ""] {
        let mut scene = good();
        scene.with("targets", |doc| doc.signed["spec_version"] = json!(version));
        refused(&first(&scene), "specification 1.x");
    }
}

#[test]
fn unsigned_fields_change_nothing() {
    let good = first(&delegated()).unwrap().1;
    for role in ROLES {
        let edit: Edit = Rc::new(|bytes| {
            let mut document: Value = serde_json::from_slice(&bytes).unwrap();
            document["version"] = json!(99);
            document["expires"] = json!("2999-01-01T00:00:00Z");
            document["targets"] = json!({ "env/prod/evil.json": {} });
            document["signatures"][0]["threshold"] = json!(0);
            serde_json::to_vec(&document).unwrap()
        });
        // Where a listing fixes the bytes it is refused; where none does, nothing of it is read.
        let answer = rewritten(role, false, Rc::clone(&edit));
        assert_eq!(answer.is_ok(), role == "timestamp", "{role}");
        let (_, release) = rewritten(role, true, edit).unwrap();
        assert_eq!(release, good, "{role}");
    }
}

#[test]
fn non_canonical_json_says_the_same_or_nothing() {
    let good = first(&delegated()).unwrap().1;
    let replace = |from: &'static str, to: &'static str| -> Edit {
        Rc::new(move |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from));
            text.replacen(from, to, 1).into_bytes()
        })
    };
    let compact: Edit = Rc::new(|bytes| {
        serde_json::to_vec(&serde_json::from_slice::<Value>(&bytes).unwrap()).unwrap()
    });
    for role in ROLES {
        for same in [Rc::clone(&compact), replace("\"_type\"", "\"\\u005ftype\"")] {
            assert_eq!(rewritten(role, true, same).unwrap().1, good, "{role}");
        }
        for (from, to) in [
            ("\"version\": 1", "\"version\": 1.0"),
            ("\"version\": 1", "\"version\": 1e0"),
            ("\"version\": 1", "\"version\": 01"),
            ("\"version\": 1", "\"version\": \"1\""),
            ("\"version\": 1", "\"version\": 2"),
            ("\"_type\"", "\"_Type\""),
            ("\"signed\": {", "\"signed\": {},\n  \"signed\": {"),
            ("\"signatures\": [", "// note\n  \"signatures\": ["),
        ] {
            assert!(rewritten(role, true, replace(from, to)).is_err(), "{role}: {to}");
        }
    }
}

#[test]
fn a_field_written_twice_never_says_two_things() {
    let good = first(&delegated()).unwrap().1;
    for role in ROLES {
        for (from, to) in [
            ("\"signed\": {", "\"signed\": {\n    \"version\": 77,"),
            ("\"signed\": {", "\"signed\": {\n    \"expires\": \"2999-01-01T00:00:00Z\","),
        ] {
            let edit: Edit = Rc::new(move |bytes| {
                String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes()
            });
            if let Ok((_, release)) = rewritten(role, true, edit) {
                assert_eq!(release, good, "{role}: {to}");
            }
        }
        // The second one counts, and its signature does not hold.
        let edit: Edit = Rc::new(|bytes| {
            let text = String::from_utf8(bytes).unwrap();
            let end = text.rfind("\n  }\n}").unwrap();
            format!("{},\n    \"version\": 77{}", &text[..end], &text[end..]).into_bytes()
        });
        assert!(rewritten(role, true, edit).is_err(), "{role}");
    }
}

#[test]
fn numbers_at_their_limits() {
    for version in [json!(0), json!(-1), json!(1.5), json!("1"), json!(null), json!(true)] {
        let mut scene = delegated();
        scene.with("prod", |doc| doc.amend(move |signed| signed["version"] = version.clone()));
        assert!(first(&scene).is_err());
    }
    let scene = delegated();
    let (mut whole, trusted) = (files(&scene), pinned(&scene));
    let text = String::from_utf8(whole["timestamp.json"].clone()).unwrap();
    for number in ["18446744073709551616", "1e400", "-9223372036854775809"] {
        let big = text.replacen("\"version\": 1", &format!("\"version\": {number}"), 1);
        whole.insert("timestamp.json".to_owned(), big.into_bytes());
        let prod = "prod".parse().unwrap();
        let answer = ours::release(&trusted, &whole, &manifest(), &prod, NOW);
        assert!(matches!(answer, Err(VerifyError::Document { .. })), "{number}");
    }
}
