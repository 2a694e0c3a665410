//! Requests told to a collector of traces: a small real HTTP server takes them.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use agent::observe::{
    collector::{Collector, Wanted},
    span::Resource,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fixture::{Gateway, MODEL, TOKEN, worker_of},
    http,
};

const WAIT: Duration = Duration::from_secs(60);

/// A collector that answers `status`: its address, and the exports it got with their heads.
fn collector(status: &'static str) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, exports) = sync_channel(64);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            loop {
                let count = stream.read(&mut piece).unwrap();
                if count == 0 {
                    break;
                }
                bytes.extend(&piece[..count]);
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                let length: usize = length.unwrap();
                if bytes.len() >= end + 4 + length {
                    let body = serde_json::from_slice(&bytes[end + 4..end + 4 + length]).unwrap();
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
                    stream.write_all(answer.as_bytes()).unwrap();
                    bytes.drain(..end + 4 + length);
                    if sender.send((head, body)).is_err() {
                        return;
                    }
                }
            }
        }
    });
    (endpoint, exports)
}

fn traced(folder: TempDir, endpoint: &str, ratio: f64) -> Gateway {
    let worker = worker_of(&folder);
    Gateway::start_with(folder, worker, |context| {
        let wanted = Wanted {
            endpoint: endpoint.to_owned(),
            headers: "x-team=edge".to_owned(),
            ratio,
            ..Wanted::default()
        };
        let resource = Resource { version: "0", slot: "a".to_owned(), release: String::new() };
        let counts = context.metrics.spans.clone();
        context.collector = Some(Collector::start(&wanted, resource, counts).unwrap());
    })
}

fn ask(gateway: &Gateway, request: &str, headers: &[&str], body: &Value) -> http::Response {
    let body = body.to_string();
    let mut stream = http::connect(gateway.address);
    http::send_with(&mut stream, request, Some(TOKEN), headers, body.as_bytes())
}

#[test]
fn a_request_is_a_span_of_its_callers_trace_with_its_waiting_and_computing() {
    let (endpoint, exports) = collector("200 OK");
    let gateway = traced(crate::fixture::slot(), &endpoint, 0.0);
    let given = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({"model": MODEL, "input": "a text"});
    let answer = ask(&gateway, "POST /v1/embeddings", &[given], &body);
    let response = answer.header("traceresponse").unwrap().to_owned();
    assert!(response.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{response}");
    let (head, export) = exports.recv_timeout(WAIT).unwrap();
    assert!(head.starts_with("POST /v1/traces ") && head.contains("x-team: edge"), "{head}");
    let spans = export["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POST /v1/embeddings", "queue", "compute"]);
    assert_eq!(spans[0]["parentSpanId"], "00f067aa0ba902b7");
    assert!(response.contains(spans[0]["spanId"].as_str().unwrap()), "{response}");
    let model = json!({"key": "socle.model", "value": {"stringValue": MODEL}});
    assert!(spans[0]["attributes"].as_array().unwrap().contains(&model), "{}", spans[0]);
    assert!(!export.to_string().contains("a text"), "no input in a trace");

    let silent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    ask(&gateway, "POST /v1/embeddings", &[silent], &body);
    ask(&gateway, "POST /v1/embeddings", &[], &body);
    ask(&gateway, "POST /v1/embeddings", &[given], &json!({"model": "gpt", "input": "a"}));
    let (_, export) = exports.recv_timeout(WAIT).unwrap();
    let spans = export["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 1, "neither the one its caller does not want nor one of no trace");
    assert!(spans[0].to_string().contains(r#""intValue":"404""#), "{}", spans[0]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a wait has an end")]
fn a_collector_that_takes_nothing_costs_no_answer() {
    let (endpoint, exports) = collector("503 Service Unavailable");
    let gateway = traced(TempDir::new().unwrap(), &endpoint, 1.0);
    for _ in 0..20 {
        assert_eq!(gateway.get("/livez").status, 200);
    }
    exports.recv_timeout(WAIT).unwrap();
    let metrics = &gateway.context.metrics;
    let until = std::time::Instant::now() + WAIT;
    while metrics.spans.dropped.get() < 20 {
        assert!(std::time::Instant::now() < until, "{} dropped", metrics.spans.dropped.get());
        thread::yield_now();
    }
    assert_eq!(metrics.spans.sent.get(), 0);
}
