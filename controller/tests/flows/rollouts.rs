//! Rollouts through the API, without a broker: what may be started and stopped.

use serde_json::{Value, json};

use crate::rig::Rig;

pub(crate) fn canary_rest(release: &str) -> Value {
    json!({
        "release": release,
        "waves": [{ "name": "canary", "devices": 1 }, { "name": "rest", "percent": 100 }],
        "gate": { "success_percent": 100, "min_sample": 1, "timeout_s": 600 },
    })
}

#[tokio::test]
async fn one_rollout_at_a_time_and_a_halted_release_never_again() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let first = rig.signers.numbered(1, &[]);
    rig.publish(&first).await;
    rig.publish(&rig.signers.numbered(2, &[&first])).await;
    let admin = rig.admin();
    let start = |release: &str| {
        let body = canary_rest(release);
        let admin = admin.clone();
        async move { admin.post("/api/v1/rollouts", &body).await }
    };
    start("nothing").await.refused(404, "not-found");
    let started = start("r1").await;
    assert_eq!((started.status, &started.json()["id"]), (201, &json!(1)));
    start("r2").await.refused(409, "rollout-running");

    let shown = rig.get("/api/v1/rollouts/1").await;
    assert_eq!(
        (&shown["state"], &shown["waves"][0]["name"]),
        (&json!("running"), &json!("canary"))
    );
    admin.post("/api/v1/rollouts/1/halt", &json!({ "reason": "" })).await.refused(422, "reason");
    admin
        .post("/api/v1/rollouts/9/halt", &json!({ "reason": "x" }))
        .await
        .refused(404, "not-found");
    let halted = admin.post("/api/v1/rollouts/1/halt", &json!({ "reason": "not today" })).await;
    assert_eq!(
        (&halted.json()["state"], &halted.json()["reason"]),
        (&json!("halted"), &json!("not today"))
    );
    admin
        .post("/api/v1/rollouts/1/halt", &json!({ "reason": "x" }))
        .await
        .refused(409, "not-running");
    start("r1").await.refused(409, "release-halted");
    // A release is named by its digest as well.
    let digest = rig.signers.numbered(2, &[&first]).digest().to_string();
    assert_eq!(start(&digest).await.status, 201);
    let listed = rig.get("/api/v1/rollouts").await;
    let names: Vec<_> =
        listed["rollouts"].as_array().unwrap().iter().map(|rollout| &rollout["name"]).collect();
    assert_eq!(names, ["r2", "r1"]);
}

#[tokio::test]
async fn a_policy_that_cannot_end_is_refused() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    rig.publish(&rig.signers.numbered(1, &[])).await;
    let mut no_last = canary_rest("r1");
    no_last["waves"].as_array_mut().unwrap().pop();
    rig.admin().post("/api/v1/rollouts", &no_last).await.refused(422, "policy");
    let mut ungated = canary_rest("r1");
    ungated["gate"]["success_percent"] = json!(0);
    rig.admin().post("/api/v1/rollouts", &ungated).await.refused(422, "policy");
    let mut unknown = canary_rest("r1");
    unknown["gate"]["soak"] = json!(1);
    rig.admin().post("/api/v1/rollouts", &unknown).await.refused(422, "malformed");
}

#[tokio::test]
async fn an_assignment_needs_a_device_and_a_release() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    rig.publish(&rig.signers.numbered(1, &[])).await;
    let device = rig.device("edge-1").await;
    let assign = |device: &str, release: &str| {
        let path = format!("/api/v1/devices/{device}/assign");
        let body = json!({ "release": release });
        let admin = rig.admin();
        async move { admin.post(&path, &body).await }
    };
    assign("edge-2", "r1").await.refused(404, "not-found");
    assign("edge-1", "r2").await.refused(404, "not-found");
    let first = assign("edge-1", "r1").await.json()["sequence"].as_u64().unwrap();
    // Above what any earlier identity of the machine, or a database put back, can have said.
    assert!(first > 1_600_000_000_000, "{first}");
    let answer = assign(&device.id().short(), "r1").await;
    assert_eq!(answer.status, 201);
    assert!(answer.json()["sequence"].as_u64().unwrap() > first);
}
