//! Versions, expiry, and the order in which states are seen.

use serde_json::json;

use crate::attacks::{draft::DraftError, kinds::kind::Kind, scene::Scene};

/// All of them.
pub const KINDS: [Kind; 16] = [
    Kind { name: "good", make: good },
    Kind { name: "good-later", make: good_later },
    Kind { name: "expired", make: expired },
    Kind { name: "expired-old-root", make: expired_old_root },
    Kind { name: "expires-in-a-day", make: expires_in_a_day },
    Kind { name: "expiry-form", make: expiry_form },
    Kind { name: "rollback", make: rollback },
    Kind { name: "rollback-listing", make: rollback_listing },
    Kind { name: "same-version-other-content", make: same_version },
    Kind { name: "version-form", make: version_form },
    Kind { name: "fast-forward", make: fast_forward },
    Kind { name: "fast-forward-recovered", make: fast_forward_recovered },
    Kind { name: "root-gap", make: root_gap },
    Kind { name: "root-version-jump", make: root_version_jump },
    Kind { name: "version-listed-otherwise", make: listed_otherwise },
    Kind { name: "freeze", make: freeze },
];

#[expect(clippy::unnecessary_wraps, reason = "a kind may fail")]
fn good(_: &mut Scene) -> Result<(), DraftError> {
    Ok(())
}

fn good_later(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    if scene.random.bool() {
        scene.rotate(|top, key| top.targets.keys = vec![key; 1])?;
        scene.top.targets.threshold = 1;
    }
    scene.list("targets", "env/prod/2026.9.json");
    scene.advance();
    Ok(())
}

fn expired(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let days = -scene.random.i64(1..4000);
    let past = json!(scene.at(days));
    scene.with(&role, |doc| doc.set("/expires", past));
    Ok(())
}

fn expired_old_root(scene: &mut Scene) -> Result<(), DraftError> {
    let past = json!(scene.at(-5));
    scene.with("root", |doc| doc.set("/expires", past));
    scene.rotate(|_, _| {})
}

fn expires_in_a_day(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let soon = json!(scene.at(1));
    scene.with(&role, |doc| doc.set("/expires", soon));
    Ok(())
}

fn expiry_form(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let forms = [
        json!("2099-01-01T00:00:00.5Z"),
        json!("2099-01-01T00:00:00+00:00"),
        json!("2099-01-01T00:00:00+01:00"),
        json!("2099-01-01T00:00:00z"),
        json!("2099-01-01t00:00:00Z"),
        json!("2099-01-01 00:00:00Z"),
        json!("2099-01-01T00:00Z"),
        json!("2099-01-01"),
        json!("2099-13-01T00:00:00Z"),
        json!("2098-12-31T23:59:60Z"),
        json!("+2099-01-01T00:00:00Z"),
        json!("12099-01-01T00:00:00Z"),
        json!(" 2099-01-01T00:00:00Z"),
        json!("2099-01-01T00:00:00"),
        json!(4_070_908_800_u64),
        json!(null),
        json!(""),
    ];
    let form = scene.value_of(&forms);
    scene.with(&role, |doc| doc.set("/expires", form));
    Ok(())
}

fn rollback(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.one_of(&["timestamp", "snapshot", "targets"], "targets");
    let role = if role == "targets" { scene.any_role() } else { role.to_owned() };
    for _ in 0..3 {
        scene.advance();
    }
    let back = scene.random.u64(1..=3);
    scene.with(&role, |doc| {
        let version = doc.version().saturating_sub(back);
        doc.signed["version"] = json!(version);
    });
    Ok(())
}

fn rollback_listing(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    scene.advance();
    let role = scene.any_role();
    let old = scene.before.first().and_then(|draft| draft.roles.get(&role)).cloned();
    if let (Some(old), Some(doc)) = (old, scene.doc(&role)) {
        *doc = old;
    }
    Ok(())
}

fn same_version(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.one_of(&["timestamp", "snapshot", "targets"], "targets");
    scene.advance();
    scene.list("targets", "env/prod/2026.8.json");
    scene.with(role, |doc| {
        let version = doc.version() - 1;
        doc.signed["version"] = json!(version);
    });
    Ok(())
}

fn version_form(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let forms = [
        json!(0),
        json!(-1),
        json!(1.0),
        json!(2.5),
        json!("2"),
        json!(true),
        json!(null),
        json!(9_007_199_254_740_993_u64),
        json!(9_223_372_036_854_775_807_u64),
        json!(9_223_372_036_854_775_808_u64),
        json!(u64::MAX),
    ];
    let form = scene.value_of(&forms);
    scene.with(&role, |doc| doc.set("/version", form));
    Ok(())
}

fn fast_forward(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.one_of(&["timestamp", "snapshot"], "timestamp");
    let normal = scene.last.clone();
    scene.advance();
    scene.with(role, |doc| doc.signed["version"] = json!(2_000_000_000));
    // The keys were stolen; the repository goes on as before, without a new root.
    scene.before.push(std::mem::replace(&mut scene.last, normal));
    scene.last.timestamp.bump();
    scene.last.timestamp.bump();
    scene.last.snapshot.bump();
    scene.last.snapshot.bump();
    Ok(())
}

fn fast_forward_recovered(scene: &mut Scene) -> Result<(), DraftError> {
    fast_forward(scene)?;
    scene.rotate(|top, key| {
        top.timestamp.keys = vec![key];
        top.timestamp.threshold = 1;
        top.snapshot.keys = vec![key + 1];
        top.snapshot.threshold = 1;
    })
}

fn root_gap(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    scene.rotate(|_, _| {})?;
    scene.with("root", |doc| doc.missing = true);
    scene.rotate(|_, _| {})
}

fn root_version_jump(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    scene.rotate(|_, _| {})?;
    let jump = scene.random.u64(0..4);
    // Served under the next number, whatever it says inside.
    scene.with("root", |doc| {
        let version = doc.version() + jump;
        doc.amend(move |signed| signed["version"] = json!(version));
    });
    Ok(())
}

fn listed_otherwise(scene: &mut Scene) -> Result<(), DraftError> {
    scene.advance();
    let role = if scene.random.u32(0..3) == 0 { "snapshot".to_owned() } else { scene.any_role() };
    let more = scene.random.bool();
    scene.with(&role, |doc| {
        let version = doc.version();
        doc.listed = Some(if more { version + 1 } else { version.saturating_sub(1) });
    });
    Ok(())
}

fn freeze(scene: &mut Scene) -> Result<(), DraftError> {
    // The same state again, then a newer one behind the same timestamp.
    scene.before.push(scene.last.clone());
    scene.before.push(scene.last.clone());
    let timestamp = scene.last.timestamp.clone();
    scene.advance();
    scene.last.timestamp = timestamp;
    Ok(())
}
