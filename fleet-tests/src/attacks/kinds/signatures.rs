//! Keys, signatures and thresholds.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::attacks::{
    draft::{self, DraftError},
    kinds::kind::Kind,
    scene::Scene,
};

/// All of them.
pub const KINDS: [Kind; 22] = [
    Kind { name: "too-few-signatures", make: too_few },
    Kind { name: "no-signature", make: no_signature },
    Kind { name: "signed-by-strangers", make: strangers },
    Kind { name: "signed-by-another-role", make: another_role },
    Kind { name: "more-signatures-than-needed", make: more_signatures },
    Kind { name: "signature-twice", make: signature_twice },
    Kind { name: "signature-damaged-beside-good-one", make: damaged_beside },
    Kind { name: "signature-form", make: signature_form },
    Kind { name: "sixty-five-signatures", make: many_signatures },
    Kind { name: "key-id-twice-in-role", make: key_id_twice },
    Kind { name: "key-under-two-ids", make: key_under_two_ids },
    Kind { name: "key-under-wrong-id", make: key_under_wrong_id },
    Kind { name: "key-not-there", make: key_not_there },
    Kind { name: "key-of-unknown-type", make: key_of_unknown_type },
    Kind { name: "key-extra-field", make: key_extra_field },
    Kind { name: "threshold-zero", make: threshold_zero },
    Kind { name: "threshold-above-keys", make: threshold_above },
    Kind { name: "threshold-form", make: threshold_form },
    Kind { name: "role-key-rotated", make: rotated },
    Kind { name: "role-key-removed-but-used", make: removed_but_used },
    Kind { name: "root-signed-by-old-only", make: root_old_only },
    Kind { name: "root-signed-by-new-only", make: root_new_only },
];

/// Changes the list of signatures of a finished document.
fn signatures(change: impl Fn(&mut Vec<Value>) + 'static) -> Rc<dyn Fn(Vec<u8>) -> Vec<u8>> {
    Rc::new(move |bytes| {
        let Ok(mut document) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
        if let Some(list) = document.get_mut("signatures").and_then(Value::as_array_mut) {
            change(list);
        }
        serde_json::to_vec_pretty(&document).unwrap_or(bytes)
    })
}

/// Does `change` to a random document's signatures, as its listing knows them or behind its back.
fn resign(scene: &mut Scene, change: impl Fn(&mut Vec<Value>) + 'static) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let edit = signatures(change);
    scene.with(&role, |doc| doc.early.push(edit));
    Ok(())
}

/// What the roles of the newest root say of `role`.
fn amend_role(scene: &mut Scene, role: &str, change: impl Fn(&mut Value) + 'static) {
    let pointer = format!("/roles/{role}");
    scene.with("root", |doc| {
        doc.amend(move |signed| {
            if let Some(role) = signed.pointer_mut(&pointer) {
                change(role);
            }
        });
    });
}

/// A role that the root names.
fn top_role(scene: &mut Scene) -> &'static str {
    scene.one_of(&crate::attacks::kinds::kind::TOP, "targets")
}

fn too_few(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    scene.advance();
    scene.rotate(|top, key| {
        let signers = match role {
            "root" => &mut top.root,
            "timestamp" => &mut top.timestamp,
            "snapshot" => &mut top.snapshot,
            _ => &mut top.targets,
        };
        signers.keys = vec![key, key + 1, key + 2];
        signers.threshold = 2;
    })?;
    scene.with(role, |doc| {
        let keep = doc.signers.len().saturating_sub(2);
        doc.signers.truncate(keep.max(1));
    });
    Ok(())
}

fn no_signature(scene: &mut Scene) -> Result<(), DraftError> {
    resign(scene, Vec::clear)
}

fn strangers(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let stranger = scene.keys + 990;
    scene.with(&role, |doc| doc.signers = vec![stranger, stranger + 1, stranger + 2]);
    Ok(())
}

fn another_role(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let other = top_role(scene);
    let signers = scene.doc(other).map(|doc| doc.signers.clone()).unwrap_or_default();
    scene.with(&role, |doc| doc.signers = signers);
    Ok(())
}

fn more_signatures(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let stranger = scene.keys + 990;
    scene.with(&role, |doc| doc.signers.insert(0, stranger));
    Ok(())
}

fn signature_twice(scene: &mut Scene) -> Result<(), DraftError> {
    resign(scene, |list| {
        if let Some(first) = list.first().cloned() {
            list.push(first);
        }
    })
}

fn damaged_beside(scene: &mut Scene) -> Result<(), DraftError> {
    resign(scene, |list| {
        if let Some(mut first) = list.first().cloned() {
            first["sig"] = json!("00".repeat(64));
            list.insert(0, first);
        }
    })
}

fn signature_form(scene: &mut Scene) -> Result<(), DraftError> {
    let form = scene.random.u32(0..9);
    resign(scene, move |list| {
        let Some(first) = list.first_mut() else { return };
        let sig = first["sig"].as_str().unwrap_or_default().to_owned();
        let keyid = first["keyid"].as_str().unwrap_or_default().to_owned();
        match form {
            0 => first["sig"] = json!(sig.to_uppercase()),
            1 => first["sig"] = json!(sig.get(..126)),
            2 => first["sig"] = json!(format!("{sig}00")),
            3 => first["sig"] = json!(""),
            4 => first["sig"] = json!("zz".repeat(64)),
            5 => first["sig"] = json!(7),
            6 => first["keyid"] = json!(keyid.to_uppercase()),
            7 => first["more"] = json!({ "unsigned": true }),
            _ => drop(first.as_object_mut().map(|fields| fields.remove("keyid"))),
        }
    })
}

fn many_signatures(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let first = scene.keys + 5000;
    scene.with(&role, |doc| doc.signers.extend(first..first + 65));
    Ok(())
}

fn key_id_twice(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    scene.advance();
    scene.rotate(|_, _| {})?;
    amend_role(scene, role, |role| {
        if let Some(list) = role["keyids"].as_array_mut()
            && let Some(first) = list.first().cloned()
        {
            list.push(first);
            role["threshold"] = json!(role["keyids"].as_array().map_or(1, Vec::len));
        }
    });
    Ok(())
}

fn key_under_two_ids(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let number = scene.keys + 700;
    scene.rotate(|top, _| {
        top.targets.keys = vec![number];
        top.targets.threshold = 2;
    })?;
    let mut twin = draft::public(number)?;
    twin["comment"] = json!("again");
    let id = draft::id_of(&twin)?;
    let named = id.clone();
    scene.with("root", |doc| {
        doc.amend(move |signed| {
            signed["keys"][&named] = twin.clone();
            if let Some(list) = signed["roles"]["targets"]["keyids"].as_array_mut() {
                list.push(json!(named));
            }
        });
    });
    let edit = signatures(move |list| {
        if let Some(mut again) = list.first().cloned() {
            again["keyid"] = json!(id);
            list.push(again);
        }
    });
    scene.with("targets", |doc| doc.early.push(edit));
    Ok(())
}

fn key_under_wrong_id(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let number = scene.keys + 701;
    scene.rotate(|top, _| {
        top.targets.keys = vec![number];
        top.targets.threshold = 1;
    })?;
    let (right, wrong) = (draft::key_id(number)?, "ab".repeat(32));
    let (from, to) = (right.clone(), wrong.clone());
    scene.with("root", |doc| {
        doc.amend(move |signed| {
            let key = signed["keys"][&from].take();
            drop(signed["keys"].as_object_mut().map(|keys| keys.remove(&from)));
            signed["keys"][&to] = key;
            signed["roles"]["targets"]["keyids"] = json!([to]);
        });
    });
    let edit = signatures(move |list| {
        for signature in list {
            if signature["keyid"] == right.as_str() {
                signature["keyid"] = json!(wrong);
            }
        }
    });
    scene.with("targets", |doc| doc.early.push(edit));
    Ok(())
}

fn key_not_there(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    scene.advance();
    scene.rotate(|_, _| {})?;
    amend_role(scene, role, |role| {
        if let Some(list) = role["keyids"].as_array_mut() {
            list.push(json!("cd".repeat(32)));
        }
    });
    Ok(())
}

fn key_of_unknown_type(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    let kind = scene.one_of(&["rsa", "ecdsa", "post-quantum"], "rsa");
    scene.advance();
    scene.rotate(|_, _| {})?;
    let key = json!({ "keytype": kind, "scheme": kind, "keyval": { "public": "00" } });
    let id = draft::id_of(&key)?;
    let pointer = format!("/roles/{role}/keyids");
    scene.with("root", |doc| {
        doc.amend(move |signed| {
            signed["keys"][&id] = key.clone();
            if let Some(list) = signed.pointer_mut(&pointer).and_then(Value::as_array_mut) {
                list.push(json!(id));
            }
        });
    });
    Ok(())
}

fn key_extra_field(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let number = scene.keys + 702;
    scene.rotate(|top, _| {
        top.targets.keys = vec![number];
        top.targets.threshold = 1;
    })?;
    let plain = draft::key_id(number)?;
    let mut key = draft::public(number)?;
    match scene.random.u32(0..3) {
        0 => key["keyid_hash_algorithms"] = json!(["sha256", "sha512"]),
        1 => key["keyval"]["note"] = json!("élan"),
        _ => key["x-owner"] = json!({ "name": "ops", "ids": [1, 2] }),
    }
    let id = draft::id_of(&key)?;
    let (old, new) = (plain.clone(), id.clone());
    scene.with("root", |doc| {
        doc.amend(move |signed| {
            drop(signed["keys"].as_object_mut().map(|keys| keys.remove(&old)));
            signed["keys"][&new] = key.clone();
            signed["roles"]["targets"]["keyids"] = json!([new]);
        });
    });
    let edit = signatures(move |list| {
        for signature in list {
            if signature["keyid"] == plain.as_str() {
                signature["keyid"] = json!(id);
            }
        }
    });
    scene.with("targets", |doc| doc.early.push(edit));
    Ok(())
}

fn threshold_zero(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    scene.advance();
    scene.rotate(|_, _| {})?;
    amend_role(scene, role, |role| role["threshold"] = json!(0));
    if role != "root" {
        scene.with(role, |doc| doc.signers.clear());
    }
    Ok(())
}

fn threshold_above(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    scene.advance();
    scene.rotate(|_, _| {})?;
    amend_role(scene, role, |role| {
        role["threshold"] = json!(role["keyids"].as_array().map_or(1, Vec::len) + 1);
    });
    Ok(())
}

fn threshold_form(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    let forms =
        [json!("1"), json!(1.0), json!(-1), json!(true), json!(null), json!(4_294_967_297_u64)];
    let form = scene.value_of(&forms);
    scene.advance();
    scene.rotate(|_, _| {})?;
    amend_role(scene, role, move |role| role["threshold"] = form.clone());
    Ok(())
}

fn rotated(scene: &mut Scene) -> Result<(), DraftError> {
    let role = top_role(scene);
    scene.advance();
    scene.rotate(|top, key| {
        let signers = match role {
            "root" => &mut top.root,
            "timestamp" => &mut top.timestamp,
            "snapshot" => &mut top.snapshot,
            _ => &mut top.targets,
        };
        signers.keys = vec![key, key + 1];
        signers.threshold = 2;
    })
}

fn removed_but_used(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.one_of(&["timestamp", "snapshot", "targets"], "targets");
    let old = scene.doc(role).map(|doc| doc.signers.clone()).unwrap_or_default();
    rotated_to_one(scene, role)?;
    scene.with(role, |doc| doc.signers = old);
    Ok(())
}

fn rotated_to_one(scene: &mut Scene, role: &str) -> Result<(), DraftError> {
    scene.advance();
    scene.rotate(|top, key| {
        let signers = match role {
            "root" => &mut top.root,
            "timestamp" => &mut top.timestamp,
            "snapshot" => &mut top.snapshot,
            _ => &mut top.targets,
        };
        signers.keys = vec![key];
        signers.threshold = 1;
    })
}

fn root_old_only(scene: &mut Scene) -> Result<(), DraftError> {
    let old = scene.top.root.keys.clone();
    rotated_to_one(scene, "root")?;
    scene.with("root", |doc| doc.signers = old);
    Ok(())
}

fn root_new_only(scene: &mut Scene) -> Result<(), DraftError> {
    rotated_to_one(scene, "root")?;
    let new = scene.top.root.keys.clone();
    scene.with("root", |doc| doc.signers = new);
    Ok(())
}
