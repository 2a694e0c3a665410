//! How inputs are made: bytes that are changed, and JSON that stays JSON.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Most changes to one input.
const CHANGES_MAX: usize = 4;
/// Largest piece that is inserted.
const PIECE_MAX: usize = 64;

/// Changes some bytes: flips, cuts, repeats, inserts, overwrites with values near a limit.
pub fn bytes(input: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..=CHANGES_MAX) {
        let at = random.usize(0..=input.len().saturating_sub(1));
        match random.u32(0..8) {
            0 => flip(input, at, random),
            1 => input.truncate(at),
            2 => {
                let piece: Vec<u8> =
                    (0..random.usize(0..PIECE_MAX)).map(|_| random.u8(..)).collect();
                insert(input, at, &piece);
            }
            3 => {
                let end = input.len().min(at + random.usize(0..PIECE_MAX));
                let piece = input.get(at..end).unwrap_or_default().to_vec();
                insert(input, at, &piece);
            }
            4 => {
                let end = input.len().min(at + random.usize(0..PIECE_MAX));
                input.drain(at.min(end)..end);
            }
            5 => overwrite(input, at, &u64::MAX.to_le_bytes()),
            6 => overwrite(input, at, &[0; 8]),
            _ => overwrite(input, at, &[random.u8(..)]),
        }
    }
}

/// Bytes that were never valid.
pub fn noise(random: &mut Rng) -> Vec<u8> {
    let length = random.usize(0..2048);
    (0..length).map(|_| random.u8(..)).collect()
}

/// Changes some values of a tree; it stays JSON.
pub fn json(tree: &mut Value, random: &mut Rng) {
    for _ in 0..random.usize(1..=CHANGES_MAX) {
        node(tree, random);
    }
}

fn node(value: &mut Value, random: &mut Rng) {
    // Down to a leaf most of the time, sometimes a branch.
    if random.u32(0..6) > 0 {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                let chosen = random.usize(0..fields.len());
                if let Some((_, child)) = fields.iter_mut().nth(chosen) {
                    return node(child, random);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let chosen = random.usize(0..items.len());
                if let Some(child) = items.get_mut(chosen) {
                    return node(child, random);
                }
            }
            Value::Object(_)
            | Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => {}
        }
    }
    change(value, random);
}

fn change(value: &mut Value, random: &mut Rng) {
    match value {
        Value::Object(fields) => object(fields, random),
        Value::Array(items) => array(items, random),
        Value::String(text) if random.bool() => *text = altered(text, random),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *value = strange(random);
        }
    }
}

fn object(fields: &mut Map<String, Value>, random: &mut Rng) {
    let chosen = random.usize(0..fields.len().max(1));
    let name = fields.keys().nth(chosen).cloned().unwrap_or_default();
    match random.u32(0..4) {
        0 => drop(fields.remove(&name)),
        1 => drop(fields.insert(altered(&name, random), strange(random))),
        2 => {
            if let Some(value) = fields.remove(&name) {
                fields.insert(altered(&name, random), value);
            }
        }
        _ => drop(fields.insert(name, strange(random))),
    }
}

fn array(items: &mut Vec<Value>, random: &mut Rng) {
    let chosen = random.usize(0..items.len().max(1));
    match (random.u32(0..3), items.get(chosen).cloned()) {
        (0, Some(item)) => {
            let times = random.usize(1..80);
            items.extend(std::iter::repeat_n(item, times));
        }
        (1, Some(_)) => drop(items.remove(chosen)),
        (_, _) => items.push(strange(random)),
    }
}

fn altered(text: &str, random: &mut Rng) -> String {
    const PIECES: [&str; 12] =
        ["", "/", "..", "*", "?", "\0", "é", "\u{1f600}", "0", "A", "*****", "targets"];
    let piece = PIECES.get(random.usize(0..PIECES.len())).copied().unwrap_or_default();
    match random.u32(0..4) {
        0 => piece.to_owned(),
        1 => format!("{text}{piece}"),
        2 => piece.repeat(random.usize(1..400)),
        _ => text.chars().skip(random.usize(0..3)).collect(),
    }
}

fn strange(random: &mut Rng) -> Value {
    match random.u32(0..14) {
        0 => json!(0),
        1 => json!(-1),
        2 => json!(u64::MAX),
        3 => json!(i64::MIN),
        4 => json!(0.5),
        5 => json!(1e308),
        6 => json!(true),
        7 => json!(null),
        8 => json!(""),
        9 => json!({}),
        10 => json!([]),
        11 => (0..random.usize(1..60)).fold(json!(1), |inner, _| json!([inner])),
        12 => json!("x".repeat(random.usize(1..3000))),
        _ => json!(random.u64(..)),
    }
}

fn flip(input: &mut [u8], at: usize, random: &mut Rng) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.u8(0..8);
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let at = at.min(input.len());
    input.splice(at..at, piece.iter().copied());
}

fn overwrite(input: &mut [u8], at: usize, piece: &[u8]) {
    for (byte, new) in input.iter_mut().skip(at).zip(piece) {
        *byte = *new;
    }
}
