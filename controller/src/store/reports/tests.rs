//! Each report is stored once, however often and in whatever order it arrives.

use std::collections::BTreeMap;

use protocol::{digest::Digest, key::PublicKey, report::EventKind};
use tempfile::TempDir;

use super::*;
use crate::store::devices::Joining;

const NOW: UnixMs = UnixMs(1000);

struct Scene {
    _folder: TempDir,
    store: Store,
    device: DeviceId,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).await.unwrap();
        let public = PublicKey::from_bytes([7; 32]);
        let device = DeviceId::of(&public);
        let joining = Joining {
            id: device,
            public,
            name: "edge".into(),
            labels: BTreeMap::new(),
            environment: "prod".parse().unwrap(),
            certificate_until: NOW,
        };
        let mut writing = store.begin().await.unwrap();
        store.join(&mut writing, &joining, NOW).await.unwrap();
        store.commit(writing).await.unwrap();
        Self { _folder: folder, store, device }
    }

    async fn record(&self, sequence: u64, body: Body) -> Novelty {
        let report = Report { at: NOW, dropped: 3, body };
        let reported = Reported { device: self.device, sequence, report };
        let mut writing = self.store.begin().await.unwrap();
        let novelty = self.store.record(&mut writing, &reported, NOW).await.unwrap();
        self.store.commit(writing).await.unwrap();
        novelty
    }
}

fn vitals(answered: u64) -> Body {
    Body::Tele(Vitals {
        cpu_permille: 1,
        memory_used_bytes: 2,
        memory_total_bytes: 3,
        disk_free_bytes: 4,
        uptime_s: 5,
        answered,
        failed: 0,
        latency_us_p99: 6,
    })
}

fn event(detail: &str) -> Body {
    Body::Event(Event {
        kind: EventKind::Alarm,
        release: Some(Digest::of(b"r")),
        rollout: 1,
        detail: detail.into(),
    })
}

fn state(version: &str) -> Body {
    Body::State(DeviceState {
        agent_version: version.into(),
        committed: None,
        trial: None,
        phase: "steady".into(),
        quarantined: Vec::new(),
        desired_sequence: 0,
        compute: "cpu".into(),
        ready: true,
    })
}

#[tokio::test]
async fn an_event_is_stored_once_whenever_it_comes() {
    let scene = Scene::new().await;
    assert_eq!(scene.record(9, event("late")).await, Novelty::New);
    assert_eq!(scene.record(2, event("early, but held up")).await, Novelty::New);
    assert_eq!(scene.record(9, event("late")).await, Novelty::Seen);
    assert_eq!(scene.record(2, event("another content")).await, Novelty::Seen);
    let events = scene.store.events_after(0, 10).await.unwrap();
    let details: Vec<_> = events.iter().map(|event| event.detail.as_str()).collect();
    assert_eq!(details, ["late", "early, but held up"]);
    let device = scene.store.device(scene.device).await.unwrap().unwrap();
    assert_eq!((device.dropped, device.last_seen), (3, Some(NOW)));
}

#[tokio::test]
async fn only_a_newer_state_replaces_a_state() {
    let scene = Scene::new().await;
    assert_eq!(scene.record(5, state("new")).await, Novelty::New);
    assert_eq!(scene.record(5, state("new")).await, Novelty::Seen);
    assert_eq!(scene.record(4, state("old")).await, Novelty::Seen);
    let device = scene.store.device(scene.device).await.unwrap().unwrap();
    assert_eq!(device.state.unwrap().agent_version, "new");
}

#[tokio::test]
async fn telemetry_is_bounded_and_what_was_dropped_does_not_come_back() {
    let scene = Scene::new().await;
    let most = u64::from(TELEMETRY_MAX);
    for sequence in 1..=most + 2 {
        assert_eq!(scene.record(sequence, vitals(sequence)).await, Novelty::New);
    }
    let kept = scene.store.telemetry(scene.device, 1000).await.unwrap();
    assert_eq!(kept[0].vitals.answered, most + 2);
    for (sequence, novelty) in [(1, Novelty::Seen), (2, Novelty::Seen), (3, Novelty::Seen)] {
        assert_eq!(scene.record(sequence, vitals(0)).await, novelty, "{sequence}");
    }
    assert_eq!(scene.record(most + 4, vitals(0)).await, Novelty::New);
    // Held up, but not below what was dropped: still new.
    assert_eq!(scene.record(most + 3, vitals(0)).await, Novelty::New);
}
