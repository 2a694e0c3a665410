//! Tokenizers: no JSON, numbers without sense, patterns that backtrack for ever, depth, size.

use serde_json::{Value, json};

use crate::hostile::case::{Case, Files};

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = patterns();
    cases.extend(documents());
    cases.extend([
        changed("tokenizer/id-of-4294967295", |tokenizer| {
            set(tokenizer, "/model/vocab/my", json!(u32::MAX));
        }),
        changed("tokenizer/id-beyond-the-table", |tokenizer| {
            set(tokenizer, "/model/vocab/password", json!(1_000_000));
        }),
        changed("tokenizer/negative-id", |tokenizer| set(tokenizer, "/model/vocab/my", json!(-1))),
        changed("tokenizer/no-unknown-word", |tokenizer| {
            set(tokenizer, "/model/unk_token", json!("[NOWHERE]"));
            set(tokenizer, "/model/vocab", json!({"[CLS]": 101, "[SEP]": 102, "[PAD]": 0}));
        }),
        changed("tokenizer/no-words", |tokenizer| set(tokenizer, "/model/vocab", json!({}))),
        changed("tokenizer/another-model", |tokenizer| {
            set(tokenizer, "/model", json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}));
        }),
        changed("tokenizer/merges-of-themselves", |tokenizer| {
            set(tokenizer, "/model", json!({
                "type": "BPE", "vocab": {"a": 0, "aa": 1, "aaa": 2}, "unk_token": "a",
                "merges": [["a", "a"], ["aa", "aa"], ["a", "aa"], ["aa", "a"], ["nothing", "here"]],
            }));
        }),
        changed("tokenizer/merges-in-a-circle", |tokenizer| {
            let vocab: serde_json::Map<String, Value> = (0..200_u32)
                .map(|at| ("a".repeat(usize::try_from(at).unwrap_or_default() + 1), json!(at)))
                .collect();
            let merges: Vec<Value> = (1..200).map(|at| json!(["a".repeat(at), "a"])).collect();
            set(tokenizer, "/model", json!({"type": "BPE", "vocab": vocab, "merges": merges}));
        }),
        changed("tokenizer/scores-without-order", |tokenizer| {
            set(tokenizer, "/model", json!({
                "type": "Unigram", "unk_id": 0,
                "vocab": [["<unk>", -1e308], ["a", 1e308], ["aa", -1e-320], ["", 0.0]],
            }));
        }),
        changed("tokenizer/unknown-id-out-of-range", |tokenizer| {
            set(tokenizer, "/model", json!({"type": "Unigram", "unk_id": 1u64 << 40, "vocab": [["a", 0.0]]}));
        }),
        changed("tokenizer/100000-added-words", |tokenizer| {
            let words: Vec<Value> = (0..100_000_u32).map(|at| added(at, &format!("w{at}"))).collect();
            set(tokenizer, "/added_tokens", json!(words));
        })
        .harmless(),
        changed("tokenizer/added-word-of-5-mb", |tokenizer| {
            set(tokenizer, "/added_tokens", json!([added(0, &"x".repeat(5 << 20))]));
        })
        .harmless(),
        changed("tokenizer/added-word-of-nothing", |tokenizer| {
            set(tokenizer, "/added_tokens", json!([added(0, ""), added(0, " "), added(u32::MAX, "a")]));
        }),
        changed("tokenizer/template-of-unknown-words", |tokenizer| {
            set(tokenizer, "/post_processor", json!({
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[NOWHERE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [], "special_tokens": {},
            }));
        }),
        changed("tokenizer/template-of-100000-words", |tokenizer| {
            let one = json!({"SpecialToken": {"id": "[CLS]", "type_id": 0}});
            set(tokenizer, "/post_processor", json!({
                "type": "TemplateProcessing", "single": vec![one; 100_000], "pair": [],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]}},
            }));
        }),
        changed("tokenizer/cut-with-a-stride-too-long", |tokenizer| {
            set(tokenizer, "/truncation", json!({
                "direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 1u64 << 40,
            }));
        })
        .harmless(),
        changed("tokenizer/padded-to-4-billion", |tokenizer| {
            set(tokenizer, "/padding", json!({
                "strategy": {"Fixed": 4_000_000_000u64}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
            }));
        })
        .harmless(),
        changed("tokenizer/charsmap-of-noise", |tokenizer| {
            set(tokenizer, "/normalizer", json!({
                "type": "Precompiled", "precompiled_charsmap": "/////wAAAAD/////",
            }));
        })
        .quick(),
    ]);
    cases
}

fn patterns() -> Vec<Case> {
    let split = |pattern: &'static str| {
        move |tokenizer: &mut Value| {
            set(
                tokenizer,
                "/pre_tokenizer",
                json!({
                    "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
                }),
            );
        }
    };
    vec![
        // A look-ahead has it tried by backtracking.
        changed(
            "tokenizer/pattern-that-backtracks",
            split("(?=(a|[a-z])*(o|[a-z])*!)(\\w+\\s?)+$"),
        )
        .quick(),
        changed(
            "tokenizer/pattern-with-back-references",
            split("(.*)(.*)(.*)(.*)\\1\\2\\3\\4(?!x)y"),
        ),
        changed(
            "tokenizer/pattern-repeated-a-million-times",
            split("(((a{1000}){1000}){1000}){1000}"),
        ),
        changed("tokenizer/pattern-of-nothing", split("")),
        changed("tokenizer/pattern-not-closed", split("((((((((")),
        changed("tokenizer/pattern-of-1-mb", |tokenizer| {
            let pattern = "(?:a|b)?".repeat(1 << 17);
            set(
                tokenizer,
                "/pre_tokenizer",
                json!({
                    "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
                }),
            );
        }),
        changed("tokenizer/replaced-by-backtracking", |tokenizer| {
            set(
                tokenizer,
                "/normalizer",
                json!({
                    "type": "Replace", "pattern": {"Regex": "(?=(\\w|\\s)*(\\w|\\s)*(\\w|\\s)*!)x"}, "content": "",
                }),
            );
        }),
        changed("tokenizer/replaced-by-far-more", |tokenizer| {
            let one =
                json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "x".repeat(100)});
            set(tokenizer, "/normalizer", json!({"type": "Sequence", "normalizers": vec![one; 8]}));
        }),
    ]
}

fn documents() -> Vec<Case> {
    let document = |name, content: fn() -> Vec<u8>| {
        Case::offer(name, move |files| drop(files.insert("tokenizer.json".into(), content())))
    };
    vec![
        document("tokenizer/not-json", || b"\x00\x01 this is no tokenizer".to_vec()),
        document("tokenizer/empty", Vec::new),
        document("tokenizer/null", || b"null".to_vec()),
        document("tokenizer/not-utf-8", || b"{\"version\": \"\xff\xfe\"}".to_vec()),
        document("tokenizer/10-mb-of-brackets", || vec![b'['; 10 << 20]),
        document("tokenizer/70-mb", || {
            [b"{\"version\": \"".to_vec(), vec![b'x'; 70 << 20], b"\"}".to_vec()].concat()
        }),
        changed("tokenizer/100-sequences-in-each-other", |tokenizer| {
            let leaf = json!({"type": "Lowercase"});
            let nested =
                (0..100).fold(leaf, |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
            set(tokenizer, "/normalizer", nested);
        }),
        changed("tokenizer/sequence-of-1000", |tokenizer| {
            let all = vec![json!({"type": "BertPreTokenizer"}); 1_000];
            set(tokenizer, "/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": all}));
        })
        .harmless(),
        changed("tokenizer/unknown-parts", |tokenizer| {
            set(tokenizer, "/normalizer", json!({"type": "Telephone", "to": "127.0.0.1"}));
        }),
    ]
}

/// A package whose tokenizer is the good one with `change`.
fn changed(name: &'static str, change: impl Fn(&mut Value) + 'static) -> Case {
    Case::offer(name, move |files| edit(files, &change))
}

fn edit(files: &mut Files, change: &dyn Fn(&mut Value)) {
    if let Some(bytes) = files.get_mut("tokenizer.json") {
        let mut tokenizer: Value = serde_json::from_slice(bytes).unwrap_or_default();
        change(&mut tokenizer);
        *bytes = tokenizer.to_string().into_bytes();
    }
}

/// Puts `value` at `place`; a field of an object that is there need not be.
fn set(tokenizer: &mut Value, place: &str, value: Value) {
    if let Some((parent, name)) = place.rsplit_once('/')
        && let Some(Value::Object(fields)) = tokenizer.pointer_mut(parent)
    {
        fields.insert(name.to_owned(), value);
    }
}

fn added(id: u32, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": true, "rstrip": true,
        "normalized": true, "special": false,
    })
}
