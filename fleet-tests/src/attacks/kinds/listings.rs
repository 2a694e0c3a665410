//! Lengths, digests, and what listings name.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::attacks::{draft::DraftError, kinds::kind::Kind, scene::Scene};

/// All of them.
pub const KINDS: [Kind; 14] = [
    Kind { name: "listed-length-wrong", make: length_wrong },
    Kind { name: "listed-digest-wrong", make: digest_wrong },
    Kind { name: "listed-digest-form", make: digest_form },
    Kind { name: "listed-length-form", make: length_form },
    Kind { name: "file-missing", make: file_missing },
    Kind { name: "targets-not-in-snapshot", make: targets_not_listed },
    Kind { name: "role-dropped-from-snapshot", make: role_dropped },
    Kind { name: "timestamp-lists-more", make: timestamp_lists_more },
    Kind { name: "timestamp-lists-nothing", make: timestamp_lists_nothing },
    Kind { name: "mix-and-match", make: mix_and_match },
    Kind { name: "document-in-anothers-place", make: in_anothers_place },
    Kind { name: "target-digest-form", make: target_digest_form },
    Kind { name: "target-length-form", make: target_length_form },
    Kind { name: "not-consistent-snapshot", make: not_consistent },
];

/// Where listings name a document: in the timestamp, or in the snapshot.
fn entry(scene: &mut Scene, change: impl Fn(&mut Value) + 'static) {
    scene.advance();
    scene.last.hashes = true;
    let role = if scene.random.u32(0..3) == 0 { "snapshot".to_owned() } else { scene.any_role() };
    let by = if role == "snapshot" { "timestamp" } else { "snapshot" };
    let pointer = format!("/meta/{role}.json");
    scene.with(&role, |_| {});
    scene.with(by, |doc| {
        doc.amend(move |signed| {
            if let Some(entry) = signed.pointer_mut(&pointer) {
                change(entry);
            }
        });
    });
}

fn length_wrong(scene: &mut Scene) -> Result<(), DraftError> {
    let more = scene.random.bool();
    entry(scene, move |entry| {
        let length = entry["length"].as_u64().unwrap_or(9);
        entry["length"] = json!(if more { length + 1 } else { length - 1 });
    });
    Ok(())
}

fn digest_wrong(scene: &mut Scene) -> Result<(), DraftError> {
    entry(scene, |entry| entry["hashes"]["sha256"] = json!("00".repeat(32)));
    Ok(())
}

fn digest_form(scene: &mut Scene) -> Result<(), DraftError> {
    let form = scene.random.u32(0..8);
    entry(scene, move |entry| {
        let sha256 = entry["hashes"]["sha256"].as_str().unwrap_or_default().to_owned();
        match form {
            0 => entry["hashes"] = json!({ "sha256": sha256.to_uppercase() }),
            1 => entry["hashes"] = json!({ "sha256": sha256.get(..62) }),
            2 => entry["hashes"] = json!({}),
            3 => entry["hashes"]["sha512"] = json!("00".repeat(64)),
            4 => entry["hashes"]["gost"] = json!("00"),
            5 => entry["hashes"] = json!({ "gost": "00" }),
            6 => entry["hashes"] = json!([sha256]),
            _ => entry["hashes"] = Value::Null,
        }
    });
    Ok(())
}

fn length_form(scene: &mut Scene) -> Result<(), DraftError> {
    let forms = [json!(0), json!(-1), json!("9"), json!(1e3), json!(null), json!(u64::MAX)];
    let form = scene.value_of(&forms);
    entry(scene, move |entry| entry["length"] = form.clone());
    Ok(())
}

fn file_missing(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let role = scene.one_of(&["timestamp", "snapshot", "targets"], "targets");
    scene.with(role, |doc| doc.missing = true);
    Ok(())
}

fn targets_not_listed(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    scene.with("targets", |doc| doc.unlisted = true);
    Ok(())
}

fn role_dropped(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("gone", &["gone/*"]);
    scene.add_role(delegation, &["gone/a.json"])?;
    scene.advance();
    scene.with("gone", |doc| doc.unlisted = true);
    scene.delegations.retain(|delegation| delegation.name != "gone");
    scene.delegate()
}

fn timestamp_lists_more(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    scene.with("timestamp", |doc| {
        doc.amend(|signed| signed["meta"]["targets.json"] = json!({ "version": 1 }));
    });
    Ok(())
}

fn timestamp_lists_nothing(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let form = scene.value_of(&[json!({}), json!(null), json!([]), json!({ "snapshot": {} })]);
    scene.with("timestamp", |doc| doc.set("/meta", form));
    Ok(())
}

fn mix_and_match(scene: &mut Scene) -> Result<(), DraftError> {
    // A genuine older document under the name of the newer one.
    let role = scene.any_role();
    let old = scene.last.roles.get(&role).cloned();
    scene.advance();
    scene.list(&role, "env/prod/2026.7.json");
    if let Some(old) = old {
        let bytes = crate::attacks::draft::signed_bytes(&old)?;
        scene.with(&role, |doc| doc.late.push(Rc::new(move |_| bytes.clone())));
    }
    Ok(())
}

fn in_anothers_place(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let role = scene.one_of(&["timestamp", "snapshot", "targets"], "targets");
    let other = scene.one_of(&["root", "timestamp", "snapshot", "targets"], "root");
    let kind = json!(other);
    scene.with(role, |doc| doc.set("/_type", kind));
    Ok(())
}

fn first_target(scene: &mut Scene, change: impl Fn(&mut Value) + 'static) {
    scene.advance();
    scene.list("targets", "env/prod/formed.json");
    scene.with("targets", |doc| {
        doc.amend(move |signed| change(&mut signed["targets"]["env/prod/formed.json"]));
    });
}

fn target_digest_form(scene: &mut Scene) -> Result<(), DraftError> {
    let form = scene.random.u32(0..7);
    first_target(scene, move |target| {
        let sha256 = target["hashes"]["sha256"].as_str().unwrap_or_default().to_owned();
        match form {
            0 => target["hashes"] = json!({ "sha256": sha256.to_uppercase() }),
            1 => target["hashes"] = json!({ "sha256": sha256.get(..62) }),
            2 => target["hashes"] = json!({}),
            3 => target["hashes"]["sha512"] = json!("00".repeat(64)),
            4 => target["hashes"] = json!({ "sha512": "00".repeat(64) }),
            5 => target["custom"] = json!({ "any": ["thing", 1, null] }),
            _ => target["hashes"] = Value::Null,
        }
    });
    Ok(())
}

fn target_length_form(scene: &mut Scene) -> Result<(), DraftError> {
    let forms = [
        json!(0),
        json!(-1),
        json!("9"),
        json!(9.0),
        json!(null),
        json!(u64::MAX),
        json!(9_223_372_036_854_775_808_u64),
    ];
    let form = scene.value_of(&forms);
    first_target(scene, move |target| target["length"] = form.clone());
    Ok(())
}

fn not_consistent(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    scene.rotate(|_, _| {})?;
    scene.with("root", |doc| doc.set("/consistent_snapshot", json!(false)));
    Ok(())
}
