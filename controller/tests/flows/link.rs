//! Devices and controller through a real mosquitto with mutual TLS and the access list of `pki broker`.

use std::time::Duration;

use axum::{body::Body, http::Method};
use controller::{init, tls::Identity};
use http_body_util::BodyExt as _;
use protocol::{
    cbor,
    command::Desired,
    digest::Digest,
    report::{EventKind, Presence},
    topic::{Channel, Topic},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    broker::Mosquitto,
    device::{Connected, Device, SOON, event, state},
    rig::{Prepared, Rig},
    rollouts::canary_rest,
};

struct Scene {
    rig: Rig,
    mosquitto: Mosquitto,
}

impl Scene {
    async fn new() -> Self {
        let prepared = Prepared::new();
        let folder = prepared.folder.path().to_owned();
        // Certificates are checked by the real clock; the rig's clock starts with it.
        let now = protocol::time::UnixMs(
            u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap() * 1000,
        );
        let mosquitto = Mosquitto::start(&prepared.layout, &folder, now).await;
        let rig = prepared.start(&mosquitto.url()).await;
        timeout(SOON, rig.running.connected()).await.expect("the broker in time");
        rig.publish_root().await;
        Self { rig, mosquitto }
    }

    async fn device(&self, name: &str) -> (Device, Connected) {
        let device = self.rig.device(name).await;
        let connected = self.connect(&device).await;
        (device, connected)
    }

    async fn connect(&self, device: &Device) -> Connected {
        device.connect(self.rig.folder.path(), &self.mosquitto.url()).await
    }

    /// Asks until the answer is as it must become; the last answer is shown if it never is.
    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let asked = timeout(SOON, async {
            loop {
                last = self.rig.get(path).await;
                if holds(&last) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(asked.is_ok(), "{path} never became what it must: {last:#}");
        last
    }

    async fn refused(&self, reason: &str) -> u64 {
        let security = self.rig.get("/api/v1/security").await;
        let counts = security["refused"].as_array().unwrap();
        counts.iter().find(|count| count["reason"] == reason).unwrap()["count"].as_u64().unwrap()
    }

    async fn until_refused(&self, reason: &str, count: u64) {
        self.until("/api/v1/security", |security| {
            security["refused"]
                .as_array()
                .unwrap()
                .iter()
                .any(|other| other["reason"] == reason && other["count"] == count)
        })
        .await;
    }

    /// Everyone in the fleet, by the order of their names.
    async fn online(&self, count: usize) {
        self.until("/api/v1/devices", |listed| {
            let devices = listed["devices"].as_array().unwrap();
            devices.iter().filter(|device| device["online"] == true).count() == count
        })
        .await;
    }
}

async fn desired(device: &Device, connected: &mut Connected, now: u64) -> Desired {
    let bytes = connected.next("/desired").await;
    let now = protocol::time::UnixMs(now);
    device.reader().desired(&bytes, 0, now).unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_reports_is_opened_stored_once_and_acknowledged() {
    let scene = Scene::new().await;
    let (device, mut connected) = scene.device("edge-1").await;
    scene.online(1).await;
    let now = scene.rig.now();
    let release = Digest::of(b"r1");
    let report = device.sealed(now, 1, event(EventKind::Alarm, release, 0, "disk is filling"));
    connected.report(&device, report.clone()).await;
    connected.acknowledged(&device, 1).await;
    connected.report(&device, device.sealed(now, 2, state(Some(release)))).await;
    connected.acknowledged(&device, 2).await;

    let events = scene.rig.get("/api/v1/events").await;
    assert_eq!(events["events"][0]["kind"], "alarm");
    assert_eq!(events["events"][0]["detail"], "disk is filling");
    let shown = scene.rig.get("/api/v1/devices/edge-1").await;
    assert_eq!(shown["committed"]["release"], release.to_string());
    assert_eq!((&shown["ready"], &shown["compute"]), (&json!(true), &json!("cpu")));
    assert_eq!(shown["last_event"]["kind"], "alarm");

    // The same bytes again: stored once, counted, and acknowledged again.
    connected.report(&device, report).await;
    connected.acknowledged(&device, 1).await;
    scene.until_refused("replayed", 1).await;
    let events = scene.rig.get("/api/v1/events").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1);

    // Gone offline, by the last will or by its own word.
    let goodbye = cbor::encode(&Presence { online: false }).unwrap();
    connected.publish(&device.topic(Channel::Presence), true, goodbye).await;
    scene.online(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_foreign_and_unopenable_messages_are_recorded_and_change_nothing() {
    let scene = Scene::new().await;
    let (device, connected) = scene.device("edge-1").await;
    let (other, _other_connected) = scene.device("edge-2").await;
    let now = scene.rig.now();
    let alarm = || event(EventKind::Alarm, Digest::of(b"r"), 0, "x");
    // The broker holds each device to its own topics, so the attacker here is the broker itself: it may say anything.
    let evil = broker_itself(&scene).await;

    let (channel, genuine) = device.sealed(now, 1, alarm());
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    evil.publish(&device.topic(channel), false, forged).await;
    scene.until_refused("bad-signature", 1).await;

    evil.publish(&other.topic(channel), false, genuine.clone()).await;
    scene.until_refused("foreign", 1).await;

    evil.publish(&device.topic(Channel::Tele), false, b"nonsense".to_vec()).await;
    scene.until_refused("malformed", 1).await;

    let nobody = Topic::Report(
        "demo".parse().unwrap(),
        protocol::id::DeviceId::from(Digest::of(b"nobody")),
        Channel::Event,
    );
    evil.publish(&nobody.to_string(), false, genuine.clone()).await;
    scene.until_refused("unknown-device", 1).await;

    evil.publish("socle/1/demo/short/event", false, genuine).await;
    scene.until_refused("unknown-topic", 1).await;

    assert_eq!(scene.rig.get("/api/v1/events").await["events"], json!([]));
    let recent = scene.rig.get("/api/v1/security").await;
    assert_eq!(recent["recent"].as_array().unwrap().len(), 5);
    assert_eq!(scene.refused("replayed").await, 0);

    // The access list: what a device writes to another's topic never arrives.
    let (channel, bytes) = other.sealed(now, 1, alarm());
    connected.publish(&other.topic(channel), false, bytes).await;
    connected.report(&device, device.sealed(now, 2, alarm())).await;
    scene.until("/api/v1/events", |events| !events["events"].as_array().unwrap().is_empty()).await;
    let events = scene.rig.get("/api/v1/events").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
    assert_eq!(events["events"][0]["device"], device.id().to_string());
}

/// A connection with the controller's own certificate, which the access list lets write everything.
async fn broker_itself(scene: &Scene) -> Connected {
    let identity: Identity = init::broker_identity(&scene.rig.layout);
    let socket = scene.rig.folder.path().join("evil.s");
    let topics = vec!["socle/1/demo/#".to_owned()];
    Connected::open(&identity, &socket, &scene.mosquitto.url(), topics).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_sees_no_content() {
    let scene = Scene::new().await;
    let mut spy = broker_itself(&scene).await;
    let (device, connected) = scene.device("edge-1").await;
    let secret = "the temperature of ward seven";
    let alarm = event(EventKind::Alarm, Digest::of(b"r"), 0, secret);
    connected.report(&device, device.sealed(scene.rig.now(), 1, alarm)).await;
    let seen = spy.next("/event").await;
    assert!(!String::from_utf8_lossy(&seen).contains("temperature"));
    scene.until("/api/v1/events", |events| events["events"][0]["detail"] == secret).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_release_goes_through_its_waves() {
    let scene = Scene::new().await;
    let built = scene.rig.signers.numbered(1, &[]);
    scene.rig.publish(&built).await;
    let mut fleet = Vec::new();
    for name in ["edge-1", "edge-2", "edge-3"] {
        fleet.push(scene.device(name).await);
    }
    scene.online(3).await;
    let started = scene.rig.admin().post("/api/v1/rollouts", &canary_rest("r1")).await;
    assert_eq!(started.status, 201);
    let shown = scene
        .until("/api/v1/rollouts/1", |shown| {
            shown["waves"][0]["devices"][0]["status"] == "assigned"
        })
        .await;
    let canary = shown["waves"][0]["devices"][0]["id"].as_str().unwrap().to_owned();
    fleet.sort_by_key(|(device, _)| device.id().to_string() != canary);

    let now = scene.rig.now();
    let (device, connected) = &mut fleet[0];
    let assignment = desired(device, connected, now.0).await;
    assert_eq!((assignment.release, assignment.rollout), (built.digest(), 1));
    assert_eq!(assignment.manifest_bytes, built.manifest.len() as u64);
    // Reports of progress open nothing yet.
    let armed = event(EventKind::Armed, built.digest(), 1, "");
    connected.report(device, device.sealed(now, 1, armed)).await;
    connected.acknowledged(device, 1).await;
    let shown = scene.rig.get("/api/v1/rollouts/1").await;
    assert_eq!(shown["waves"][1]["state"], "pending");
    assert_eq!(shown["waves"][1]["devices"].as_array().unwrap().len(), 2);
    for (device, connected) in &mut fleet[1..] {
        assert_eq!(connected.waiting("/desired"), 0, "{} came too early", device.id());
    }

    for (sequence, (device, connected)) in fleet.iter_mut().enumerate() {
        if sequence > 0 {
            let assignment = desired(device, connected, now.0).await;
            assert_eq!(assignment.release, built.digest());
        }
        let committed = event(EventKind::Committed, built.digest(), 1, "20 good answers");
        connected.report(device, device.sealed(now, 2, committed)).await;
        connected.acknowledged(device, 2).await;
    }
    let shown = scene.until("/api/v1/rollouts/1", |shown| shown["state"] == "complete").await;
    assert!(shown["waves"].as_array().unwrap().iter().all(|wave| wave["state"] == "passed"));
    assert_eq!(shown["waves"][0]["devices"][0]["detail"], "20 good answers");

    // Who joins later gets the release through the last gate.
    let (late, mut connected) = scene.device("edge-4").await;
    let assignment = desired(&late, &mut connected, now.0).await;
    assert_eq!(assignment.release, built.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_stops_at_the_canary_and_is_halted_for_all() {
    let mut scene = Scene::new().await;
    let built = scene.rig.signers.numbered(1, &[]);
    scene.rig.publish(&built).await;
    let mut fleet = vec![
        scene.device("edge-1").await,
        scene.device("edge-2").await,
        scene.device("edge-3").await,
    ];
    scene.online(3).await;
    scene.rig.admin().post("/api/v1/rollouts", &canary_rest("r1")).await;
    let shown = scene
        .until("/api/v1/rollouts/1", |shown| {
            shown["waves"][0]["devices"][0]["status"] == "assigned"
        })
        .await;
    let canary = shown["waves"][0]["devices"][0]["id"].as_str().unwrap().to_owned();
    fleet.sort_by_key(|(device, _)| device.id().to_string() != canary);
    let now = scene.rig.now();
    let (device, connected) = &mut fleet[0];
    desired(device, connected, now.0).await;
    let back = event(EventKind::RolledBack, built.digest(), 1, "golden answer 3 is wrong");
    connected.report(device, device.sealed(now, 1, back)).await;
    let shown = scene.until("/api/v1/rollouts/1", |shown| shown["state"] == "halted").await;
    assert_eq!(shown["waves"][0]["devices"][0]["status"], "rolled-back");
    assert_eq!(shown["waves"][0]["devices"][0]["detail"], "golden answer 3 is wrong");
    assert_eq!(shown["waves"][1]["state"], "pending");
    for (device, connected) in &mut fleet {
        let halt = device.reader().halt(&connected.next("/all/halt").await, 0).unwrap();
        assert!(halt.get().forbids(&built.digest()));
        assert!(!halt.get().forbids(&Digest::of(b"another")));
    }
    for (_, connected) in &mut fleet[1..] {
        assert_eq!(connected.waiting("/desired"), 0);
    }

    // A broker that forgot everything is told everything again.
    scene.mosquitto.restart().await;
    let (device, _) = &fleet[0];
    let mut again = scene.connect(device).await;
    let halt = device.reader().halt(&again.next("/all/halt").await, 0).unwrap();
    assert!(halt.get().forbids(&built.digest()));
    let mut again = scene.connect(device).await;
    assert_eq!(desired(device, &mut again, now.0).await.release, built.digest());
    let mut again = scene.connect(device).await;
    let key = device.reader().seal_key(&again.next("/all/keys").await, 0, now).unwrap();
    assert_eq!(*key.get(), device.seal_key(now));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_as_they_arrive() {
    let scene = Scene::new().await;
    let (device, connected) = scene.device("edge-1").await;
    let path = "/api/v1/events/stream";
    scene.rig.stranger().get(path).await.refused(401, "unauthorized");
    let answer = scene.rig.admin().begin(Method::GET, path, Body::empty()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let alarm = event(EventKind::Alarm, Digest::of(b"r"), 0, "look here");
    connected.report(&device, device.sealed(scene.rig.now(), 1, alarm)).await;
    let frame = timeout(SOON, body.frame()).await.expect("an event in time").unwrap().unwrap();
    let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    assert!(text.contains("event: event\n") && text.contains("id: 1\n"), "{text}");
    assert!(text.contains("look here"), "{text}");
    // An open stream does not hold up the end.
    timeout(SOON, scene.rig.running.stop()).await.expect("an end in time");
}
