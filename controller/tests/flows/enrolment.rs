//! Joining a fleet.

use axum::http::Method;
use protocol::{blob::Blob, digest::Digest, enrol::Enrolled, time::UnixMs};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

use crate::{
    device::{Device, ask, csr, new_key, request},
    rig::Rig,
};

#[tokio::test]
async fn a_device_joins_once_with_a_token() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let token = rig.token().await;
    let device = Device::join(&rig.stranger(), &token, "first").await;
    let enrolled = &device.enrolled;

    // What the device pinned before it trusted anything is what it gets.
    let ca = CertificateDer::from_pem_slice(enrolled.ca_pem.as_bytes()).unwrap();
    assert_eq!(Digest::of(&ca), token.ca);
    assert_eq!(Digest::of(enrolled.root.as_slice()), token.root);
    assert_eq!(enrolled.root.as_slice(), rig.signers.root());
    assert_eq!(device.seal_key(rig.now()).fleet, enrolled.fleet);
    assert!(enrolled.artifacts.starts_with("https://localhost:"));

    ask(&rig.stranger(), &token, "second", &new_key()).await.refused(403, "token-used");
    ask(&rig.stranger(), &token, "first", &device.pkcs8).await.refused(403, "token-used");
    let listed = rig.get("/api/v1/devices").await;
    assert_eq!(listed["devices"].as_array().unwrap().len(), 1);
    assert_eq!(listed["devices"][0]["id"], device.id().to_string());
    assert_eq!(listed["devices"][0]["labels"]["site"], "north");

    // The same key may join again with a new token: it stays the same device.
    let again = rig.token().await;
    let answer = ask(&rig.stranger(), &again, "renamed", &device.pkcs8).await;
    let enrolled: Enrolled = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(enrolled.device, device.id());
    let shown = rig.get(&format!("/api/v1/devices/{}", device.id().short())).await;
    assert_eq!(shown["name"], "renamed");
}

#[tokio::test]
async fn of_two_requests_at_once_one_wins() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let token = rig.token().await;
    let (client, first, second) = (rig.stranger(), new_key(), new_key());
    let (one, two) =
        tokio::join!(ask(&client, &token, "one", &first), ask(&client, &token, "two", &second));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
}

#[tokio::test]
async fn a_token_expires() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let answer = rig.admin().post("/api/v1/tokens", &json!({ "ttl_s": 60 })).await;
    let token: protocol::enrol::EnrolToken =
        answer.json()["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.expires_at, UnixMs(rig.now().0 + 60_000));
    rig.pass(60_000);
    ask(&rig.stranger(), &token, "late", &new_key()).await.refused(403, "token-expired");
    rig.admin().post("/api/v1/tokens", &json!({ "ttl_s": 90_000 })).await.refused(422, "ttl");
}

#[tokio::test]
async fn a_guessed_secret_is_answered_like_a_guessed_name() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let token = rig.token().await;
    let mut wrong_secret = token.clone();
    wrong_secret.secret = Blob::from(vec![7; 32]);
    let mut wrong_name = token.clone();
    wrong_name.id = Blob::from(vec![7; 12]);
    for guessed in [wrong_secret, wrong_name] {
        let answer = ask(&rig.stranger(), &guessed, "guess", &new_key()).await;
        answer.refused(403, "token-unknown");
    }
    // And guessing has not used the token up.
    Device::join(&rig.stranger(), &token, "right").await;
}

#[tokio::test]
async fn a_bad_request_does_not_use_the_token_up() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let token = rig.token().await;
    let client = rig.stranger();
    let other_kind = KeyPair::generate().unwrap();
    let other_kind =
        CertificateParams::default().serialize_request(&other_kind).unwrap().pem().unwrap();
    for csr_pem in ["nonsense".to_owned(), other_kind, "A".repeat(10_000)] {
        client.post("/enrol/v1", &request(&token, csr_pem)).await.refused(422, "csr-invalid");
    }
    let mut nameless = request(&token, csr(&new_key()));
    nameless["name"] = "".into();
    client.post("/enrol/v1", &nameless).await.refused(422, "malformed");
    client.post("/enrol/v1", &json!({ "token_id": 1 })).await.refused(422, "malformed");
    client.post("/enrol/v1", &json!({ "x": "y".repeat(70_000) })).await.refused(413, "too-large");
    Device::join(&client, &token, "at last").await;
}

#[tokio::test]
async fn no_token_before_there_is_a_root_to_pin() {
    let rig = Rig::without_broker().await;
    rig.admin().send(Method::POST, "/api/v1/tokens", "").await.refused(409, "no-root");
}
