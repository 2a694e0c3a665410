//! Descriptions and golden sets: limits that nobody has, paths that lead out, numbers and depth without sense.

use serde_json::{Value, json};

use crate::hostile::{
    case::{Case, Files},
    structure::describe,
};

/// The cases.
pub fn cases() -> Vec<Case> {
    let text = |name, from: &'static str, to: &'static str| {
        Case::offer(name, move |files| describe(files, from, to))
    };
    let mut cases = vec![
        text("model.toml/golden-set-outside", "\"golden.json\"", "\"../../../../etc/passwd\"")
            .because("names the golden set")
            .quick(),
        text("model.toml/golden-set-absolute", "\"golden.json\"", "\"/etc/passwd\""),
        text("model.toml/golden-set-is-the-model", "\"golden.json\"", "\"model.onnx\""),
        text(
            "model.toml/memory-of-2-to-63",
            "memory_bytes = 1073741824",
            "memory_bytes = 9223372036854775807",
        ),
        text(
            "model.toml/memory-of-1-tb",
            "memory_bytes = 1073741824",
            "memory_bytes = 1099511627776",
        )
        .harmless(),
        text("model.toml/memory-negative", "memory_bytes = 1073741824", "memory_bytes = -1"),
        text("model.toml/memory-too-little", "memory_bytes = 1073741824", "memory_bytes = 1"),
        text("model.toml/no-nodes", "nodes_max = 20000", "nodes_max = 0"),
        text("model.toml/width-of-0", "dim = 384", "dim = 0"),
        text("model.toml/another-width", "dim = 384", "dim = 16384"),
        text("model.toml/schema-999", "schema = 1", "schema = 999"),
        text("model.toml/unknown-field", "schema = 1", "schema = 1\nrun_as = \"root\""),
        text("model.toml/a-field-twice", "schema = 1", "schema = 1\nschema = 1"),
        text("model.toml/name-with-a-line-feed", "name = \"minilm\"", "name = \"a\\nb/../c\""),
        text("model.toml/unknown-task", "task = \"embedding\"", "task = \"takeover\""),
        text("model.toml/cosine-not-a-number", "cosine_min = ", "cosine_min = nan #"),
        Case::offer("model.toml/not-utf-8", |files| {
            drop(files.insert("model.toml".into(), vec![0xff; 100]))
        }),
        Case::offer("model.toml/10-mb", |files| {
            drop(files.insert("model.toml".into(), vec![b'#'; 10 << 20]))
        }),
        Case::offer("model.toml/depth-without-end", |files| {
            let deep = format!("schema = {}", "[".repeat(60_000));
            files.insert("model.toml".into(), deep.into_bytes());
        }),
        Case::offer("model.toml/not-there", |files| drop(files.remove("model.toml"))),
        Case::offer("package/no-tokenizer", |files| drop(files.remove("tokenizer.json")))
            .because("has no `tokenizer.json`")
            .quick(),
        Case::offer("package/no-model", |files| drop(files.remove("model.onnx"))),
    ];
    cases.extend([
        golden("golden/vectors-not-numbers", |set| set_all(set, "vector", &json!([1e39, -1e39]))),
        golden("golden/vectors-of-nothing", |set| set_all(set, "vector", &json!([]))),
        golden("golden/other-vectors", |set| set_all(set, "vector", &json!(vec![0.5; 384])))
            .because("golden answers were wrong or late")
            .quick(),
        golden("golden/texts-of-nothing", |set| set_all(set, "text", &json!(""))),
        golden("golden/texts-of-1-mb", |set| set_all(set, "text", &json!("word ".repeat(200_000)))),
        golden("golden/100000-texts", |set| {
            let one = json!({"text": "a", "vector": [0.0]});
            if let Some(all) = set.get_mut("embeddings") {
                *all = json!(vec![one; 100_000]);
            }
        }),
        Case::offer("golden/15-mb-of-brackets", |files| {
            files.insert("golden.json".into(), vec![b'['; 15 << 20]);
        }),
    ]);
    cases
}

fn golden(name: &'static str, change: fn(&mut Value)) -> Case {
    Case::offer(name, move |files: &mut Files| {
        if let Some(bytes) = files.get_mut("golden.json") {
            let mut set: Value = serde_json::from_slice(bytes).unwrap_or_default();
            change(&mut set);
            *bytes = set.to_string().into_bytes();
        }
    })
}

fn set_all(set: &mut Value, field: &str, value: &Value) {
    let cases = set.get_mut("embeddings").and_then(Value::as_array_mut);
    for case in cases.into_iter().flatten() {
        if let Some(place) = case.get_mut(field) {
            *place = value.clone();
        }
    }
}
