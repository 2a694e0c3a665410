//! The bytes themselves: JSON that is written otherwise, cut, flipped, or made to say two things.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::attacks::{draft::DraftError, kinds::kind::Kind, scene::Scene};

/// All of them.
pub const KINDS: [Kind; 15] = [
    Kind { name: "bit-flipped", make: bit_flipped },
    Kind { name: "bit-flipped-and-listed-so", make: bit_flipped_listed },
    Kind { name: "truncated", make: truncated },
    Kind { name: "garbage-after", make: garbage_after },
    Kind { name: "compact", make: compact },
    Kind { name: "escaped", make: escaped },
    Kind { name: "byte-order-mark", make: byte_order_mark },
    Kind { name: "name-twice-in-signed", make: name_twice },
    Kind { name: "signed-twice", make: signed_twice },
    Kind { name: "unsigned-fields", make: unsigned_fields },
    Kind { name: "signed-extra-fields", make: extra_fields },
    Kind { name: "signed-unicode", make: unicode },
    Kind { name: "signed-number", make: number },
    Kind { name: "spec-version", make: spec_version },
    Kind { name: "field-missing", make: field_missing },
];

fn bit_flipped(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let (place, bit) = (scene.random.f64(), scene.random.u8(0..8));
    let edit = Rc::new(move |bytes: Vec<u8>| flip(bytes, place, bit));
    scene.with(&role, |doc| doc.late.push(edit));
    Ok(())
}

fn bit_flipped_listed(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let (place, bit) = (scene.random.f64(), scene.random.u8(0..8));
    let edit = Rc::new(move |bytes: Vec<u8>| flip(bytes, place, bit));
    scene.with(&role, |doc| doc.early.push(edit));
    Ok(())
}

fn flip(mut bytes: Vec<u8>, place: f64, bit: u8) -> Vec<u8> {
    // In 0..1, so it stays within.
    let at = (bytes.len() as f64 * place) as usize;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
    bytes
}

fn truncated(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let (place, listed) = (scene.random.f64(), scene.random.bool());
    let edit = Rc::new(move |mut bytes: Vec<u8>| {
        bytes.truncate((bytes.len() as f64 * place) as usize);
        bytes
    });
    scene.with(&role, |doc| if listed { doc.early.push(edit) } else { doc.late.push(edit) });
    Ok(())
}

/// Writes a random document otherwise, and its listing knows.
fn rewrite(
    scene: &mut Scene,
    edit: impl Fn(Vec<u8>) -> Vec<u8> + 'static,
) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    scene.with(&role, |doc| doc.early.push(Rc::new(edit)));
    Ok(())
}

fn garbage_after(scene: &mut Scene) -> Result<(), DraftError> {
    let tail = scene.one_of(&["\n\n  ", "x", "{}", "\0", " // end"], "x");
    rewrite(scene, move |bytes| [bytes, tail.as_bytes().to_vec()].concat())
}

fn compact(scene: &mut Scene) -> Result<(), DraftError> {
    rewrite(scene, |bytes| {
        let parsed = serde_json::from_slice::<Value>(&bytes);
        parsed.ok().and_then(|value| serde_json::to_vec(&value).ok()).unwrap_or(bytes)
    })
}

fn escaped(scene: &mut Scene) -> Result<(), DraftError> {
    rewrite(scene, |bytes| replace(bytes, "\"_type\"", "\"\\u005ftype\""))
}

fn byte_order_mark(scene: &mut Scene) -> Result<(), DraftError> {
    rewrite(scene, |bytes| [b"\xef\xbb\xbf".to_vec(), bytes].concat())
}

fn name_twice(scene: &mut Scene) -> Result<(), DraftError> {
    // Which of the two counts decides whether the signature holds.
    let before = scene.random.bool();
    rewrite(scene, move |bytes| {
        let (from, to) = if before {
            ("\"signed\": {", "\"signed\": {\n    \"version\": 77,")
        } else {
            ("\"_type\":", "\"spec_version\": \"1.0.99\",\n    \"_type\":")
        };
        replace(bytes, from, to)
    })
}

fn signed_twice(scene: &mut Scene) -> Result<(), DraftError> {
    rewrite(scene, |bytes| replace(bytes, "\"signed\": {", "\"signed\": {},\n  \"signed\": {"))
}

fn unsigned_fields(scene: &mut Scene) -> Result<(), DraftError> {
    rewrite(scene, |bytes| {
        replace(bytes, "\"signatures\":", "\"version\": 99,\n  \"note\": \"x\",\n  \"signatures\":")
    })
}

fn extra_fields(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let extra = json!({ "list": [1, { "a": null }], "text": "t", "yes": true });
    scene.with(&role, |doc| doc.set("/x-extra", extra));
    Ok(())
}

fn unicode(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let texts = [
        "é",
        "e\u{301}",
        "\u{1f600}",
        "\u{0}",
        "\"\\/",
        "\u{7f}\u{80}",
        "\u{2028}",
        "\u{fffd}",
        "\t\n\r",
    ];
    let text = json!(scene.one_of(&texts, "é"));
    scene.with(&role, |doc| doc.set("/x-text", text));
    Ok(())
}

fn number(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let numbers = [
        json!(0.5),
        json!(1e300),
        json!(-0.0),
        json!(1.0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(9_007_199_254_740_993_u64),
    ];
    let number = scene.value_of(&numbers);
    // A float has no canonical form, so it is written in after the signature over a whole number.
    scene.with(&role, |doc| {
        if number.is_f64() {
            doc.set("/x-number", json!(1_234_567));
            let text = number.to_string();
            doc.early.push(Rc::new(move |bytes| replace(bytes, "1234567", &text)));
        } else {
            doc.set("/x-number", number);
        }
    });
    Ok(())
}

fn spec_version(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let forms = [
        json!("1.0"),
        json!("1"),
        json!("1.0.0"),
        json!("1.99.99"),
        json!("2.0.0"),
        json!("0.9.0"),
        json!("1.x"),
        json!("10.0.0"),
        json!("1.0.31.4"),
        json!(""),
        json!(1),
    ];
    let form = scene.value_of(&forms);
    scene.with(&role, |doc| doc.set("/spec_version", form));
    Ok(())
}

fn field_missing(scene: &mut Scene) -> Result<(), DraftError> {
    let role = scene.next_doc()?;
    let fields = [
        "_type",
        "spec_version",
        "version",
        "expires",
        "keys",
        "roles",
        "meta",
        "targets",
        "delegations",
        "consistent_snapshot",
    ];
    let field = scene.one_of(&fields, "version");
    scene.with(&role, |doc| doc.unset(field));
    Ok(())
}

/// The first `from` replaced.
fn replace(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    match String::from_utf8(bytes) {
        Ok(text) => text.replacen(from, to, 1).into_bytes(),
        Err(error) => error.into_bytes(),
    }
}
