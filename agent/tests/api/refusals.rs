//! Bad input: each is refused with the thing named, and nothing is counted as our failure.

use engine::worker::{lanes::QueuePolicy, policy::Policy};
use serde_json::json;

use crate::{
    fixture::{Gateway, MODEL, TOKEN, slot, worker_under},
    grpc, http,
};

#[test]
fn bad_input_is_refused_by_name() {
    let gateway = Gateway::with_model();
    let infer = format!("POST /v2/models/{MODEL}/infer");
    let embeddings = "POST /v1/embeddings".to_owned();
    let ask = "POST /v1/ask".to_owned();
    let megabyte = "x".repeat(1 << 20);
    let tensor = |member: &str, value: serde_json::Value| {
        let mut input = json!({"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]});
        input[member] = value;
        json!({ "inputs": [input] }).to_string().into_bytes()
    };
    let input =
        |input: serde_json::Value| json!({"model": MODEL, "input": input}).to_string().into_bytes();
    let cases: Vec<(String, Vec<u8>, u16, &str)> = vec![
        (embeddings.clone(), input(json!(megabyte)), 413, "bytes"),
        (embeddings.clone(), input(json!(["a", megabyte])), 413, "text 1"),
        (embeddings.clone(), input(json!("")), 400, "empty"),
        (embeddings.clone(), input(json!(["a", ""])), 400, "text 1"),
        (embeddings.clone(), input(json!("a ".repeat(2000))), 400, "more tokens"),
        (embeddings.clone(), input(json!([])), 400, "empty list"),
        (embeddings.clone(), input(json!([1, -2])), 400, "no number of a token"),
        (embeddings.clone(), input(json!(["a", 1])), 400, "element 1"),
        (embeddings.clone(), input(json!(vec!["a"; 300])), 400, "300 texts"),
        (
            embeddings.clone(),
            b"{\"model\": \"it-faq\", \"input\": \"\xff\"}".to_vec(),
            400,
            "not UTF-8 after byte 30",
        ),
        (embeddings.clone(), b"{\"model\"".to_vec(), 400, "not JSON"),
        (embeddings.clone(), b"{}".to_vec(), 400, "missing field `model`"),
        (embeddings.clone(), b"".to_vec(), 400, "not JSON"),
        (
            embeddings.clone(),
            br#"{"model": "gpt", "input": "a"}"#.to_vec(),
            404,
            "no model `gpt` here; there is: it-faq",
        ),
        (
            embeddings.clone(),
            br#"{"model": "it-faq", "input": "a", "encoding_format": "xml"}"#.to_vec(),
            400,
            "`xml`",
        ),
        (
            embeddings.clone(),
            br#"{"model": "it-faq", "input": "a", "dimensions": 7}"#.to_vec(),
            400,
            "384 dimensions, not 7",
        ),
        (embeddings, vec![b' '; 3 << 20], 413, "larger than 2097152 bytes"),
        (ask.clone(), br#"{"question": ""}"#.to_vec(), 400, "empty"),
        (ask.clone(), br#"{"question": "a", "model": "gpt"}"#.to_vec(), 404, "no model `gpt`"),
        (ask, br#"{"query": "a"}"#.to_vec(), 400, "unknown field `query`"),
        (
            infer.clone(),
            tensor("shape", json!([2])),
            400,
            "input `text` has shape [2] but 1 elements of data",
        ),
        (infer.clone(), tensor("shape", json!([1, 2])), 400, "must be [n] or [n, 1]"),
        (
            infer.clone(),
            tensor("datatype", json!("INT64")),
            400,
            "datatype `INT64`; it must be BYTES",
        ),
        (infer.clone(), tensor("name", json!("image")), 400, "no input `image`"),
        (infer.clone(), tensor("data", json!([7])), 400, "holds a number"),
        (infer.clone(), tensor("data", json!([""])), 400, "empty"),
        (infer, tensor("data", json!([megabyte])), 413, "bytes"),
        ("POST /v2/models/gpt/infer".into(), tensor("shape", json!([1])), 404, "no model `gpt`"),
        (
            format!("GET /v2/models/{MODEL}/versions/9"),
            vec![],
            404,
            "no version `9` here; there is: 1",
        ),
        ("GET /v1/nothing".into(), vec![], 404, "no route `/v1/nothing`"),
        ("GET /v1/ask".into(), vec![], 405, "does not take GET"),
        (
            "POST /v2/repository/models/m/load".into(),
            vec![],
            403,
            "cannot load model `m`: which models are served is decided by the signed release",
        ),
    ];
    for (request, body, status, expected) in cases {
        let refused = gateway.send(&request, &body);
        let message = refused.message();
        assert_eq!(refused.status, status, "{request}: {message}");
        assert!(message.contains(expected), "{request}: `{message}` does not say `{expected}`");
        assert!(message.len() < 400, "{request}: {} bytes of message", message.len());
    }
    assert_eq!(gateway.context.tally.failed(), 0);
    assert_eq!(gateway.post("/v1/ask", &json!({"question": "VPN?"})).status, 200);
}

#[test]
fn what_is_not_http_harms_nobody_else() {
    use std::io::{Read as _, Write as _};
    let gateway = Gateway::without_model();
    let mut odd = http::connect(gateway.address);
    odd.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    let mut said = Vec::new();
    odd.read_to_end(&mut said).unwrap();
    assert!(said.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&said));
    assert_eq!(gateway.get("/livez").status, 200);
}

/// The queue of this worker holds nothing, so it is always full: what comes of that does not hang on the machine's speed.
#[test]
fn a_full_queue_says_when_to_come_back() {
    let folder = slot();
    let standard = Policy::default();
    let queue = QueuePolicy { orders_max: 0, ..standard.queue };
    let worker = worker_under(&folder, Policy { queue, ..standard });
    let gateway = Gateway::start(folder, worker);
    let text = "How do I reset my password?";
    let tensor = json!({"inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]});
    let ranked = json!({"query": text, "texts": [text]});
    let documents = json!({"query": text, "documents": [text]});
    let compared = json!({"inputs": {"source_sentence": text, "sentences": [text]}});
    let infer = format!("/v2/models/{MODEL}/infer");
    let version = format!("/v2/models/{MODEL}/versions/1/infer");
    // Where each dialect's clients find the message, and what they find beside it.
    let cases = [
        ("/v1/embeddings", json!({"model": MODEL, "input": text}), "/error/message"),
        ("/v1/ask", json!({"question": text}), "/error/message"),
        (infer.as_str(), tensor.clone(), "/error"),
        (version.as_str(), tensor, "/error"),
        ("/embed", json!({"inputs": text}), "/error"),
        ("/", json!({"inputs": text}), "/error"),
        ("/similarity", compared, "/error"),
        ("/rerank", ranked, "/error"),
        ("/rerank", documents.clone(), "/message"),
        ("/v1/rerank", documents.clone(), "/message"),
        ("/v2/rerank", documents, "/message"),
        ("/invocations", json!({"inputs": [text]}), "/message"),
    ];
    let refusals = cases.len();
    for (path, body, place) in cases {
        let headers = ["Content-Type: application/json"];
        let (request, bytes) = (format!("POST {path}"), body.to_string().into_bytes());
        let mut stream = http::connect(gateway.address);
        let refused = http::send_with(&mut stream, &request, Some(TOKEN), &headers, &bytes);
        assert_eq!(refused.status, 429, "{path}: {}", refused.head);
        let seconds = refused.header("retry-after").map(|seconds| seconds.parse::<u32>().unwrap());
        assert!(seconds.is_some_and(|seconds| (1..=30).contains(&seconds)), "{path}: {seconds:?}");
        let said = refused.json();
        let message = said.pointer(place).and_then(|message| message.as_str()).unwrap_or_default();
        assert!(message.contains("wait already: try again in"), "{path}: {said}");
    }
    let kinds = [
        (
            "/v1/embeddings",
            json!({"model": MODEL, "input": text}),
            "/error/type",
            "rate_limit_error",
        ),
        ("/embed", json!({"inputs": text}), "/error_type", "Overloaded"),
        ("/invocations", json!({"inputs": [text]}), "/error_code", "REQUEST_LIMIT_EXCEEDED"),
    ];
    let again = kinds.len();
    for (path, body, place, kind) in kinds {
        let headers = ["Content-Type: application/json"];
        let mut stream = http::connect(gateway.address);
        let body = body.to_string().into_bytes();
        let request = format!("POST {path}");
        let refused = http::send_with(&mut stream, &request, Some(TOKEN), &headers, &body).json();
        assert_eq!(refused.pointer(place).and_then(|kind| kind.as_str()), Some(kind), "{path}");
    }
    // Over gRPC it is a code and a hint for clients that retry.
    let (code, pushback_ms) = gateway.runtime.block_on(grpc::refusal(&gateway, text));
    assert_eq!(code, 8, "RESOURCE_EXHAUSTED");
    assert!(pushback_ms.is_some_and(|ms| (1_000..=30_000).contains(&ms)), "{pushback_ms:?}");
    let figures = String::from_utf8(gateway.get("/metrics").body).unwrap();
    let line = format!(
        "socle_inference_errors_total{{model=\"{MODEL}\",slot=\"a\",kind=\"overloaded\"}} {}",
        refusals + again + 1
    );
    assert!(figures.lines().any(|there| there == line), "{line} is not in\n{figures}");
}

#[test]
fn under_load_a_request_is_answered_or_told_when_to_come_back() {
    let gateway = Gateway::with_model();
    let text = "the printer on the second floor is out of paper and blinks ".repeat(4);
    let body = json!({"model": MODEL, "input": vec![text; 2]});
    let responses: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..160).map(|_| scope.spawn(|| gateway.post("/v1/embeddings", &body))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(responses.iter().any(|response| response.status == 200));
    for response in responses.iter().filter(|response| response.status != 200) {
        // On a slow machine its deadline passes while a request waits.
        assert!([429, 504].contains(&response.status), "{}", response.head);
        let told = response.header("retry-after").is_some();
        assert_eq!(told, response.status == 429, "{}", response.head);
    }
}
