//! What is answered, and that both dialects answer the same.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::{
    fixture::{Gateway, MODEL, TOKEN},
    http,
};

const TEXTS: [&str; 2] = ["How do I reset my password?", "Où est l'imprimante ?"];

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn three_ways_to_ask_for_an_embedding_give_the_same_numbers() {
    let gateway = Gateway::with_model();
    let float = gateway.post("/v1/embeddings", &json!({"model": MODEL, "input": TEXTS}));
    assert_eq!(float.status, 200, "{}", float.head);
    let float = float.json();
    assert_eq!(float["data"][1]["index"], 1);
    assert!(float["usage"]["total_tokens"].as_u64().unwrap() > 10, "{}", float["usage"]);
    let first = numbers(&float["data"][0]["embedding"]);
    assert_eq!(first.len(), 384);
    let length: f64 = first.iter().map(|number| number * number).sum();
    assert!((length - 1.0).abs() < 1e-5, "length {length}");

    let body = json!({"model": MODEL, "input": TEXTS[0], "encoding_format": "base64"});
    let base64 = gateway.post("/v1/embeddings", &body).json();
    let bytes = BASE64.decode(base64["data"][0]["embedding"].as_str().unwrap().as_bytes()).unwrap();
    let (words, _) = bytes.as_chunks::<4>();
    let decoded: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let narrow = |numbers: &[f64]| numbers.iter().map(|n| *n as f32).collect::<Vec<f32>>();
    assert!(decoded == narrow(&first), "base64 and float differ");

    let body = json!({"id": "7", "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [2], "data": TEXTS}]});
    let inferred = gateway.post(&format!("/v2/models/{MODEL}/versions/1/infer"), &body).json();
    assert_eq!((&inferred["id"], &inferred["model_name"]), (&json!("7"), &json!(MODEL)));
    let output = &inferred["outputs"][0];
    assert_eq!((&output["name"], &output["shape"]), (&json!("embedding"), &json!([2, 384])));
    assert!(narrow(&numbers(&output["data"])[..384]) == narrow(&first), "dialects differ");
}

#[test]
fn the_assistant_answers_with_its_source_or_abstains() {
    let gateway = Gateway::with_model();
    let answer = gateway.post("/v1/ask", &json!({"question": "I forgot my password!"})).json();
    assert_eq!(answer["decision"], "answered", "{answer}");
    assert_eq!((&answer["entry"], &answer["source"]), (&json!("password"), &json!("handbook §1")));
    assert_eq!((&answer["model"], &answer["slot"]), (&json!(MODEL), &json!("a")));
    assert!(answer["score"].as_f64() >= answer["threshold"].as_f64(), "{answer}");
    let question = json!({"question": "Quelle est la capitale de l'Australie ?", "lang": "fr"});
    let abstained = gateway.post("/v1/ask", &question).json();
    assert_eq!((&abstained["decision"], &abstained["answer"]), (&json!("abstained"), &Value::Null));
}

#[test]
fn what_runs_is_told_to_people_probes_and_prometheus() {
    let gateway = Gateway::with_model();
    for path in ["/healthz", "/livez", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    assert_eq!(gateway.get(&format!("/v2/models/{MODEL}/ready")).json()["ready"], true);
    let metadata = gateway.get(&format!("/v2/models/{MODEL}")).json();
    assert_eq!(metadata["outputs"][0]["shape"], json!([-1, 384]));
    assert_eq!(gateway.get("/v1/models").json()["data"][0]["id"], MODEL);
    assert_eq!(gateway.get(&format!("/v1/models/{MODEL}")).json()["id"], MODEL);
    let status = gateway.get("/v1/status").json();
    assert_eq!((&status["mode"], &status["slot"]), (&json!("single"), &json!("a")));
    assert_eq!(status["worker"]["models"][0]["name"], MODEL);
    let weights = status["worker"]["models"][0]["weights"].as_str().unwrap();
    assert!(weights.starts_with("Q8 blocks of "), "{status}");
    assert!(status["adapter"].as_str().unwrap().starts_with("cpu"), "{status}");
    gateway.post("/v1/ask", &json!({"question": "VPN?"}));
    let metrics = gateway.get("/metrics");
    let text = String::from_utf8(metrics.body).unwrap();
    let line = "socle_http_requests_total{route=\"/v1/ask\",class=\"2xx\"} 1";
    assert!(text.lines().any(|there| there == line), "{text}");
    assert_eq!(gateway.context.tally.answered(), 1);
}

#[test]
fn over_tcp_a_token_admits_and_over_the_socket_its_permissions_do() {
    let gateway = Gateway::without_model();
    let asked =
        |token| http::send(&mut http::connect(gateway.address), "GET /v1/status", token, b"");
    for wrong in [None, Some("wrong"), Some("")] {
        let refused = asked(wrong);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
        assert!(refused.message().contains("identity/api-token"), "{}", refused.message());
    }
    assert_eq!(asked(Some(TOKEN)).status, 200);
    let probe = http::send(&mut http::connect(gateway.address), "GET /livez", None, b"");
    assert_eq!(probe.status, 200);
    let mut unix = gateway.over_unix();
    assert_eq!(http::send(&mut unix, "GET /v1/status", None, b"").status, 200);
}

#[test]
fn without_a_release_every_model_route_says_so() {
    let gateway = Gateway::without_model();
    let infer = json!({"inputs": []});
    let refusals = [
        gateway.post("/v1/ask", &json!({"question": "VPN?"})),
        gateway.post("/v1/embeddings", &json!({"model": "m", "input": "a"})),
        gateway.post("/v2/models/m/infer", &infer),
        gateway.get("/v2/models/m"),
        gateway.get("/v1/models"),
    ];
    for refused in refusals {
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert!(refused.message().contains("no release is committed"), "{}", refused.message());
    }
    assert_eq!(gateway.get("/readyz").status, 503);
    assert_eq!(gateway.get("/livez").status, 200);
    assert_eq!(gateway.context.tally.failed(), 0, "nothing failed: there was nothing to ask");
}
