//! What Prometheus reads, checked by its own tool where that is installed.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    fixture::{Gateway, MODEL, TOKEN},
    http,
};

fn figures(gateway: &Gateway) -> String {
    String::from_utf8(gateway.get("/metrics").body).unwrap()
}

#[test]
fn every_series_of_a_model_is_there_before_it_is_asked_and_counts_after() {
    let gateway = Gateway::with_model();
    let before = figures(&gateway);
    let has = |text: &str, line: &str| text.lines().any(|there| there == line);
    for line in [
        "socle_inference_queue_seconds_count{model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_compute_seconds_count{model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_request_seconds_count{model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_batch_items_count{model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_batch_tokens_count{model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_tokens_total{model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_errors_total{model=\"it-faq\",slot=\"a\",kind=\"overloaded\"} 0",
        "socle_inference_errors_total{model=\"none\",slot=\"a\",kind=\"not_found\"} 0",
        "# TYPE socle_inference_errors_total counter",
        "# TYPE socle_inference_request_seconds histogram",
    ] {
        assert!(has(&before, line), "{line} is not in\n{before}");
    }
    gateway.post("/v1/embeddings", &json!({"model": MODEL, "input": ["a", "b"]}));
    gateway.post("/v1/embeddings", &json!({"model": MODEL, "input": ""}));
    gateway.post("/v1/embeddings", &json!({"model": "gpt", "input": "a"}));
    let after = figures(&gateway);
    for line in [
        "socle_inference_request_seconds_count{model=\"it-faq\",slot=\"a\"} 1",
        "socle_inference_items_total{model=\"it-faq\",slot=\"a\"} 2",
        // As the worker computed them: both at once.
        "socle_inference_batch_items_count{model=\"it-faq\",slot=\"a\"} 1",
        "socle_inference_batch_items_sum{model=\"it-faq\",slot=\"a\"} 2.0",
        "socle_inference_batch_items_bucket{le=\"1.0\",model=\"it-faq\",slot=\"a\"} 0",
        "socle_inference_batch_items_bucket{le=\"2.0\",model=\"it-faq\",slot=\"a\"} 1",
        "socle_inference_errors_total{model=\"it-faq\",slot=\"a\",kind=\"bad_request\"} 1",
        "socle_inference_errors_total{model=\"none\",slot=\"a\",kind=\"not_found\"} 1",
    ] {
        assert!(has(&after, line), "{line} is not in\n{after}");
    }
    assert_eq!(before.lines().count(), after.lines().count(), "no series appears later");
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_figures() {
    let gateway = Gateway::without_model();
    let openmetrics = http::send_with(
        &mut http::connect(gateway.address),
        "GET /metrics",
        Some(TOKEN),
        &["Accept: application/openmetrics-text;version=1.0.0"],
        b"",
    );
    let text = String::from_utf8(openmetrics.body).unwrap();
    assert!(
        text.ends_with("# EOF\n") && text.contains("# UNIT socle_http_request_seconds seconds")
    );
    let text = figures(&gateway);
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    // Not everywhere; CI installs it.
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
