//! Messages that nobody signed, in any number: said in a few words, and nothing else waits for them.

use std::collections::BTreeSet;

use protocol::{
    command::Signable as _,
    report::{Body, EventKind},
    topic::{Channel, Topic},
};

use crate::{
    release::{Release, noise},
    session::{Fleet, fleet_id, signing_key},
};

/// Forged messages, each another one.
const FORGED: u64 = 400;
/// Most that are told to the controller at once.
const TOLD_MAX: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_that_nobody_signed_is_told_in_a_few_words_and_stops_nothing() {
    let fleet = Fleet::new();
    let release = Release::new("r1", 1, &[("model.onnx", &noise(1, 5000))]);
    fleet.publish(&[&release]);
    let mut controller = fleet.controller().await;
    let mut device = fleet.start();
    device.until("the connection", |status| status.connected).await;

    let stranger = signing_key().0;
    let topic = Topic::Desired(fleet_id(), fleet.device).to_string();
    for sequence in 0..FORGED {
        let forged = fleet.desired(100 + sequence, &release).signed_by(&stranger).unwrap();
        controller.publish(&topic, false, forged).await;
    }
    fleet.assign(&controller, &fleet.desired(5, &release)).await;
    let mut told = BTreeSet::new();
    controller
        .next("the acceptance", |topic, payload| {
            let (sequence, report) = fleet.open(topic, payload, Channel::Event)?;
            let Body::Event(event) = report.body else { return None };
            if event.kind == EventKind::Refused {
                assert!(event.detail.contains("not trusted"), "{}", event.detail);
                told.insert(sequence);
            }
            (event.kind == EventKind::Accepted).then_some(())
        })
        .await;
    assert!((1..=TOLD_MAX).contains(&told.len()), "{} were told", told.len());
    device.until("the sequence", |status| status.desired_sequence == 5).await;
    device.end().await;
}
