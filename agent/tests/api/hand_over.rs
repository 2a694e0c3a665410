//! One gateway takes over from another on the same listening socket, and no request fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use agent::{daemon::ending, serve::server::Taking};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    fixture::{Gateway, MODEL, TOKEN, context, serve_tcp},
    http,
};

/// Hand-overs in the test.
const TIMES: usize = 5;

#[test]
fn no_request_fails_while_gateways_take_over_from_each_other() {
    let mut gateway = Gateway::with_model();
    let body = json!({"model": MODEL, "input": "printer"}).to_string();
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (address, mut servers) = (gateway.address, std::mem::take(&mut gateway.servers));
    // Outlives the clients: a gateway whose sender is gone ends at once.
    let mut current = (gateway.context.clone(), gateway.taking.clone());
    std::thread::scope(|scope| {
        for kept_open in [true, true, false] {
            let (done, asked, body) = (&done, &asked, body.as_bytes());
            scope.spawn(move || {
                let mut stream = http::connect(address);
                while !done.load(Ordering::Relaxed) {
                    let response =
                        http::send(&mut stream, "POST /v1/embeddings", Some(TOKEN), body);
                    assert_eq!(response.status, 200, "{}", response.message());
                    asked.fetch_add(1, Ordering::Relaxed);
                    if !kept_open || response.header("connection") == Some("close") {
                        stream = http::connect(address);
                    }
                }
            });
        }
        for _ in 0..TIMES {
            let before = asked.load(Ordering::Relaxed);
            while asked.load(Ordering::Relaxed) < before + 20 {
                std::thread::yield_now();
            }
            let (old, taking) = &current;
            gateway.runtime.block_on(ending::finish(
                &old.status,
                &old.metrics,
                taking,
                std::mem::take(&mut servers),
            ));
            let socket = gateway.folder.path().join("worker.sock");
            let new = context(Some(agent::worker::client::WorkerClient::new(socket)));
            let (taking, taken) = watch::channel(Taking::All);
            let _entered = gateway.runtime.enter();
            servers = vec![serve_tcp(&new, &gateway.listener, taken)];
            current = (new, taking);
        }
        let before = asked.load(Ordering::Relaxed);
        while asked.load(Ordering::Relaxed) < before + 20 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 20 * TIMES);
}

#[test]
fn a_request_that_was_begun_is_finished() {
    let mut gateway = Gateway::with_model();
    let text = "the printer on the second floor is out of paper and blinks ".repeat(4);
    let body = json!({"model": MODEL, "input": vec![text; 64]}).to_string();
    let address = gateway.address;
    let asking = std::thread::spawn(move || {
        http::send(&mut http::connect(address), "POST /v1/embeddings", Some(TOKEN), body.as_bytes())
    });
    let in_flight = Arc::clone(&gateway.context.in_flight);
    while in_flight.load(Ordering::Relaxed) == 0 {
        // Bounded by the request itself: it is answered or times out.
        assert!(!asking.is_finished(), "the request ended before it was seen in flight");
        std::thread::yield_now();
    }
    let servers = std::mem::take(&mut gateway.servers);
    let context = &gateway.context;
    gateway.runtime.block_on(ending::finish(
        &context.status,
        &context.metrics,
        &gateway.taking,
        servers,
    ));
    let response = asking.join().unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(response.json()["data"].as_array().unwrap().len(), 64);
}
