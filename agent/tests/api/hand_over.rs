//! One gateway takes over from another on the same listening socket, and no request fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent::{
    daemon::ending::{self, Connections},
    serve::{bequest::Bequest, context::Context, taking::Taking},
};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    fixture::{Gateway, MODEL, TOKEN, context, serve_tcp},
    http,
};

/// Hand-overs in the test.
const TIMES: usize = 5;

/// How a client uses its connections.
#[derive(Clone, Copy, PartialEq)]
enum Client {
    /// One for every request.
    Fresh,
    /// One, until the server says that it closes.
    KeptOpen,
    /// The same, and it is idle for longer than a gateway that ends tells its clients so.
    Idle,
}

/// Longer than an ending gateway says `Connection: close` before it closes idle connections.
const IDLE: Duration = Duration::from_millis(2_500);

#[test]
fn no_request_fails_while_gateways_take_over_from_each_other() {
    take_over(None, &[Client::KeptOpen, Client::KeptOpen, Client::Fresh]);
}

#[test]
fn connections_that_are_left_go_on_with_the_next_gateway_and_never_close() {
    let clients = [Client::KeptOpen, Client::KeptOpen, Client::Idle, Client::Idle, Client::Fresh];
    take_over(Some(Arc::new(Bequest::new().unwrap())), &clients);
}

fn take_over(bequest: Option<Arc<Bequest>>, clients: &[Client]) {
    let mut gateway = Gateway::with_model();
    let body = json!({"model": MODEL, "input": "printer"}).to_string();
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (address, mut servers) = (gateway.address, std::mem::take(&mut gateway.servers));
    // Outlives the clients: a gateway whose sender is gone ends at once.
    let mut current = (gateway.context.clone(), gateway.taking.clone());
    if bequest.is_some() {
        // The fixture's own knows of no bequest: it is ended, and one that does takes its place.
        let (context, taking) = &current;
        gateway.runtime.block_on(ending::finish(
            &context.status,
            &context.metrics,
            taking,
            std::mem::take(&mut servers),
            Connections::Closed,
        ));
        current = successor(&gateway, bequest.as_ref(), &mut servers);
    }
    let left = bequest.is_some();
    std::thread::scope(|scope| {
        for client in clients.iter().copied() {
            let (done, asked, body) = (&done, &asked, body.as_bytes());
            scope.spawn(move || {
                let mut stream = http::connect(address);
                while !done.load(Ordering::Relaxed) {
                    if client == Client::Idle {
                        std::thread::sleep(IDLE);
                    }
                    let response =
                        http::send(&mut stream, "POST /v1/embeddings", Some(TOKEN), body);
                    assert_eq!(response.status, 200, "{}", response.message());
                    asked.fetch_add(1, Ordering::Relaxed);
                    let closes = response.header("connection") == Some("close");
                    assert!(!(left && closes), "a connection that could be left is closed");
                    if client == Client::Fresh || closes {
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
                if left { Connections::Left } else { Connections::Closed },
            ));
            current = successor(&gateway, bequest.as_ref(), &mut servers);
        }
        let before = asked.load(Ordering::Relaxed);
        while asked.load(Ordering::Relaxed) < before + 20 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 20 * TIMES);
}

/// A new gateway on the same socket, with the connections that the last one left.
fn successor(
    gateway: &Gateway,
    bequest: Option<&Arc<Bequest>>,
    servers: &mut Vec<JoinHandle<()>>,
) -> (Context, watch::Sender<Taking>) {
    let socket = gateway.folder.path().join("worker.sock");
    let new = context(Some(agent::worker::client::WorkerClient::new(socket)));
    let (taking, taken) = watch::channel(Taking::All);
    let _entered = gateway.runtime.enter();
    *servers = vec![serve_tcp(&new, &gateway.listener, taken, bequest)];
    (new, taking)
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
        Connections::Closed,
    ));
    let response = asking.join().unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(response.json()["data"].as_array().unwrap().len(), 64);
}
