//! The extensions of the Open Inference Protocol over REST.

use serde_json::{Value, json};

use crate::{
    fixture::{Gateway, MODEL, TOKEN},
    http::{self, Response},
};

/// Posts JSON with bytes behind it.
fn infer(gateway: &Gateway, json: &Value, tail: &[u8]) -> Response {
    let json = json.to_string();
    let request = format!("POST /v2/models/{MODEL}/infer");
    let body = [json.as_bytes(), tail].concat();
    let header = format!("Inference-Header-Content-Length: {}", json.len());
    http::send_with(&mut http::connect(gateway.address), &request, Some(TOKEN), &[&header], &body)
}

#[test]
fn tensors_as_bytes_are_those_of_json_both_ways() {
    let gateway = Gateway::with_model();
    let plain = json!({"inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "où"]}]});
    let plain = gateway.post(&format!("/v2/models/{MODEL}/infer"), &plain).json();
    let expected: Vec<f32> = plain["outputs"][0]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap() as f32)
        .collect();

    let tail = b"\x01\0\0\0a\x03\0\0\0o\xc3\xb9";
    let asked = json!({"id": "x", "parameters": {"binary_data_output": true}, "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": tail.len()}}]});
    let answer = infer(&gateway, &asked, tail);
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, bytes) = answer.body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!((&json["id"], &json["outputs"][0]["shape"]), (&json!("x"), &json!([2, 384])));
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], bytes.len());
    let (words, _) = bytes.as_chunks::<4>();
    let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    assert!(numbers == expected, "bytes and JSON differ");

    let asked = json!({"outputs": [{"name": "embedding", "parameters": {"binary_data": false}}],
        "parameters": {"binary_data_output": true}, "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": tail.len()}}]});
    let answer = infer(&gateway, &asked, tail);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["outputs"][0]["data"], plain["outputs"][0]["data"]);

    let refused = infer(&gateway, &asked, b"\x01\0\0\0a");
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("only 5 bytes are left"), "{}", refused.message());
}

#[test]
fn what_is_served_and_how_it_went_is_told_by_the_extensions() {
    let gateway = Gateway::with_model();
    let server = gateway.get("/v2").json();
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    let index = gateway.post("/v2/repository/index", &json!({"ready": true})).json();
    assert_eq!(index, json!([{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]));
    let config = gateway.get(&format!("/v2/models/{MODEL}/config")).json();
    assert_eq!((&config["name"], &config["max_batch_size"]), (&json!(MODEL), &json!(0)));
    assert_eq!(config["input"][0]["data_type"], "TYPE_STRING");
    assert_eq!(config["output"][0]["dims"], json!([-1, 384]));

    let good = json!({"inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [3], "data": ["a", "b", "c"]}]});
    let bad =
        json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [""]}]});
    let path = format!("/v2/models/{MODEL}/infer");
    assert_eq!(gateway.post(&path, &good).status, 200);
    assert_eq!(gateway.post(&path, &bad).status, 400);
    for path in
        ["/v2/models/stats", "/v2/models/it-faq/stats", "/v2/models/it-faq/versions/1/stats"]
    {
        let said = gateway.get(path).json();
        let stats = &said["model_stats"][0];
        assert_eq!(
            (&stats["name"], &stats["inference_count"]),
            (&json!(MODEL), &json!(3)),
            "{path}"
        );
        let times = &stats["inference_stats"];
        assert_eq!((&times["success"]["count"], &times["fail"]["count"]), (&json!(1), &json!(1)));
        assert!(times["compute_infer"]["ns"].as_u64().unwrap() > 0, "{stats}");
        assert_eq!(stats["execution_count"], 1, "{stats}");
        let batch = &stats["batch_stats"][0];
        assert_eq!(
            (&batch["batch_size"], &batch["compute_infer"]["count"]),
            (&json!(3), &json!(1))
        );
        assert!(
            times["success"]["ns"].as_u64() >= times["compute_infer"]["ns"].as_u64(),
            "{stats}"
        );
        assert!(stats["last_inference"].as_u64().unwrap() > 1_700_000_000_000, "{stats}");
    }
    assert_eq!(gateway.get("/v2/models/gpt/stats").status, 404);
    assert_eq!(gateway.get("/v2/models/it-faq/versions/9/config").status, 404);
}

#[test]
fn batches_are_shown_as_the_worker_computed_them_and_not_as_they_were_asked() {
    let gateway = Gateway::with_model();
    // More tokens than the first batch of a model takes.
    let text = "the printer on the second floor is out of paper and blinks";
    let body = json!({"model": MODEL, "input": vec![text; 40]});
    assert_eq!(gateway.post("/v1/embeddings", &body).status, 200);
    let said = gateway.get(&format!("/v2/models/{MODEL}/stats")).json();
    let stats = &said["model_stats"][0];
    let executions = stats["execution_count"].as_u64().unwrap();
    assert!((2..=40).contains(&executions), "{stats}");
    let batches: Vec<(u64, u64)> = stats["batch_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| {
            let number = |value: &Value| value.as_u64().unwrap();
            (number(&batch["batch_size"]), number(&batch["compute_infer"]["count"]))
        })
        .collect();
    assert_eq!(batches.iter().map(|(_, count)| count).sum::<u64>(), executions);
    assert_eq!(batches.iter().map(|(size, count)| size * count).sum::<u64>(), 40, "{stats}");
    assert!(batches.iter().all(|(size, _)| *size < 40), "{stats}");
    let figures = String::from_utf8(gateway.get("/metrics").body).unwrap();
    for (sum, value) in [("items_count", executions.to_string()), ("items_sum", "40.0".into())] {
        let line = format!("socle_inference_batch_{sum}{{model=\"{MODEL}\",slot=\"a\"}} {value}");
        assert!(figures.lines().any(|there| there == line), "{line} is not in\n{figures}");
    }
}

#[test]
fn a_compressed_body_is_refused_rather_than_misread() {
    let gateway = Gateway::without_model();
    let refused = http::send_with(
        &mut http::connect(gateway.address),
        "POST /v2/repository/index",
        Some(TOKEN),
        &["Content-Encoding: gzip"],
        b"\x1f\x8b",
    );
    assert_eq!(refused.status, 415);
    assert!(refused.message().contains("compressed by `gzip`"), "{}", refused.message());
}
