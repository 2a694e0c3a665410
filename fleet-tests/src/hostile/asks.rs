//! What is asked of the good model: texts, documents and heads that no client of good will sends.

use serde_json::json;

use crate::hostile::{
    case::{Ask, Case},
    probe::MODEL,
};

/// It is answered.
const ANSWERED: &[u16] = &[200];
/// It is the client's fault.
const REFUSED: &[u16] = &[400, 413, 422];
/// It may be either.
const EITHER: &[u16] = &[200, 400, 413, 422];
/// It may also be more than the machine computes in time.
const LOAD: &[u16] = &[200, 400, 413, 422, 429, 504];
/// The head itself is wrong: the server may hang up.
const HEAD: &[u16] = &[0, 400, 404, 405, 408, 411, 413, 414, 431, 501];

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = texts();
    cases.extend(documents());
    cases.extend(tensors());
    cases.extend(heads());
    cases
}

fn texts() -> Vec<Case> {
    let text = |name, right, text: fn() -> String| {
        Case::ask(name, move || embed(&json!({"model": MODEL, "input": text()}), right))
    };
    vec![
        text("ask/text-of-1-mb", REFUSED, || "word ".repeat(200_000)).quick(),
        text("ask/text-of-3-mb", REFUSED, || "word ".repeat(600_000)),
        text("ask/one-word-of-60000-letters", EITHER, || "a".repeat(60_000)),
        text("ask/only-spaces", REFUSED, || " \t\r\n\u{2003}\u{a0}".repeat(100)).quick(),
        text("ask/nothing", REFUSED, String::new),
        text("ask/zero-width", EITHER, || "\u{200b}\u{200d}\u{feff}\u{2060}".repeat(200)),
        text("ask/control-characters", EITHER, || "a\0\u{1}\u{7f}\u{85}\u{1b}[2J b".repeat(20)),
        text("ask/right-to-left-override", EITHER, || {
            "\u{202e}drowssap\u{202c} \u{2066}x".repeat(20)
        }),
        text("ask/10000-accents-on-one-letter", EITHER, || {
            format!("a{}", "\u{301}".repeat(10_000))
        }),
        text("ask/emoji-joined-without-end", EITHER, || "👩\u{200d}".repeat(5_000)),
        text("ask/noncharacters", EITHER, || "\u{fffe}\u{ffff}\u{10ffff}\u{fdd0} word".repeat(50)),
        text("ask/special-words-of-the-tokenizer", EITHER, || {
            "[CLS] [SEP] [MASK] <s> </s> [PAD]".repeat(20)
        }),
    ]
}

fn documents() -> Vec<Case> {
    let document = |name, right, body: fn() -> Vec<u8>| {
        Case::ask(name, move || post("/v1/embeddings", "", &body(), right))
    };
    vec![
        document("ask/lone-surrogates", REFUSED, || {
            format!(r#"{{"model": "{MODEL}", "input": "\ud800 \udc00\ud800"}}"#).into_bytes()
        })
        .quick(),
        document("ask/100000-texts", REFUSED, || {
            json!({"model": MODEL, "input": vec!["a"; 100_000]}).to_string().into_bytes()
        })
        .quick(),
        document("ask/many-long-texts", LOAD, || {
            let long = "reset the password of the printer ".repeat(36);
            json!({"model": MODEL, "input": vec![long; 64]}).to_string().into_bytes()
        }),
        document("ask/100000-brackets", REFUSED, || vec![b'['; 100_000]),
        document("ask/not-utf-8", REFUSED, || vec![0xff; 1000]),
        document("ask/numbers-for-texts", REFUSED, || {
            format!(r#"{{"model": "{MODEL}", "input": [1e999, -1, 4294967296]}}"#).into_bytes()
        }),
        document("ask/a-field-100000-times", EITHER, || {
            let fields = r#""input": "a","#.repeat(100_000);
            format!(r#"{{{fields}"model": "{MODEL}"}}"#).into_bytes()
        }),
        document("ask/a-model-with-a-path-for-a-name", &[404], || {
            br#"{"model": "../../etc/passwd\u0000", "input": "a"}"#.to_vec()
        }),
        document("ask/a-model-name-of-1-mb", &[404], || {
            json!({"model": "m".repeat(1 << 20), "input": "a"}).to_string().into_bytes()
        }),
    ]
}

fn tensors() -> Vec<Case> {
    let tensor = |name, right, inputs: fn() -> serde_json::Value| {
        Case::ask(name, move || {
            let body = json!({"inputs": inputs()}).to_string();
            post(&infer(), "", body.as_bytes(), right)
        })
    };
    vec![
        tensor("ask/shape-of-2-to-40", REFUSED, || {
            json!([{"name": "text", "datatype": "BYTES", "shape": [1u64 << 40], "data": ["a"]}])
        })
        .quick(),
        tensor("ask/shape-negative", REFUSED, || {
            json!([{"name": "text", "datatype": "BYTES", "shape": [-1], "data": ["a"]}])
        }),
        tensor("ask/shape-of-10000-dimensions", REFUSED, || {
            json!([{"name": "text", "datatype": "BYTES", "shape": vec![1; 10_000], "data": ["a"]}])
        }),
        tensor("ask/tensor-of-what-is-no-number", REFUSED, || {
            json!([{"name": "text", "datatype": "FP32", "shape": [2], "data": [null, "NaN"]}])
        }),
        tensor("ask/tensors-in-each-other", REFUSED, || {
            let deep = (0..100).fold(json!("a"), |inner, _| json!([inner]));
            json!([{"name": "text", "datatype": "BYTES", "shape": [1], "data": deep}])
        }),
        Case::ask("ask/binary-tensor-shorter-than-claimed", || {
            let body = br#"{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":8}}]}"#;
            let head = format!("Inference-Header-Content-Length: {}\r\n", body.len());
            post(&infer(), &head, &[&body[..], &[0xff; 8]].concat(), REFUSED)
        })
        .quick(),
        Case::ask("ask/binary-tensor-of-2-to-63-bytes", || {
            let body = br#"{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":9223372036854775807}}]}"#;
            let head = format!("Inference-Header-Content-Length: {}\r\n", body.len());
            post(&infer(), &head, body, REFUSED)
        }),
        Case::ask("ask/binary-head-longer-than-the-body", || {
            let head = "Inference-Header-Content-Length: 18446744073709551615\r\n";
            post(&infer(), head, br#"{"inputs":[]}"#, REFUSED)
        }),
    ]
}

fn heads() -> Vec<Case> {
    let head =
        |name, bytes: fn() -> Vec<u8>| Case::ask(name, move || Ask { bytes: bytes(), right: HEAD });
    vec![
        head("ask/a-head-that-is-no-http", || vec![0; 10_000]),
        head("ask/a-header-of-1-mb", || {
            format!("POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes()
        }),
        head("ask/10000-headers", || {
            format!("POST /v1/embeddings HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10_000)).into_bytes()
        }),
        head("ask/two-lengths", || {
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_vec()
        }),
        head("ask/length-and-chunks", || {
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()
        }),
        head("ask/a-chunk-of-2-to-64", || {
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}".to_vec()
        }),
        head("ask/a-length-of-2-to-60", || {
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 1152921504606846976\r\n\r\n{}".to_vec()
        })
        .quick(),
    ]
}

fn infer() -> String {
    format!("/v2/models/{MODEL}/infer")
}

fn embed(body: &serde_json::Value, right: &'static [u16]) -> Ask {
    post("/v1/embeddings", "", body.to_string().as_bytes(), right)
}

fn post(path: &str, more: &str, body: &[u8], right: &'static [u16]) -> Ask {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{more}Content-Length: {length}\r\n\r\n"
    );
    Ask { bytes: [head.as_bytes(), body].concat(), right }
}

/// That what is right stays right: a plain text is answered.
pub fn plain() -> Ask {
    embed(&json!({"model": MODEL, "input": "How do I reset my password?"}), ANSWERED)
}
