//! What a device trusts, as the controller publishes it: snapshot and timestamp, delegated roles, environments, permits.

use std::collections::BTreeMap;

use axum::http::Method;
use data_encoding::BASE64;
use protocol::{
    digest::Digest,
    id::Environment,
    manifest::Manifest,
    time::UnixMs,
    tuf::{
        chain::Seen,
        document::Document,
        metadata::{DelegatedRole, Delegations, Key, SPEC_VERSION, Target, Targets},
        permit::{Holder, Permit},
        verify::{Offered, Trusted, verify},
    },
};
use serde_json::{Value, json};

use crate::{
    client::Client,
    releases::{Built, FAR, Signers, signed, signing_key},
    rig::Rig,
};

const DAY_MS: u64 = 86_400_000;

fn env(name: &str) -> Environment {
    name.parse().unwrap()
}

/// What a device fetches: timestamp, the snapshot it names, the roles that lists.
async fn fetched(client: &Client, manifest: &[u8]) -> Offered {
    let get = async |file: String| {
        let answer = client.get(&format!("/artifacts/metadata/{file}")).await;
        assert_eq!(answer.status, 200, "{file}: {}", answer.text());
        answer.body.to_vec()
    };
    let meta = |bytes: &[u8]| -> BTreeMap<String, u64> {
        let document: Value = serde_json::from_slice(bytes).unwrap();
        let meta = document["signed"]["meta"].as_object().unwrap();
        meta.iter().map(|(name, meta)| (name.clone(), meta["version"].as_u64().unwrap())).collect()
    };
    let timestamp = get("timestamp.json".into()).await;
    let snapshot = get(format!("{}.snapshot.json", meta(&timestamp)["snapshot.json"])).await;
    let mut roles = Vec::new();
    for (file, version) in meta(&snapshot) {
        let bytes = get(format!("{version}.{file}")).await;
        roles.push((file.trim_end_matches(".json").to_owned(), bytes));
    }
    Offered { roots: Vec::new(), timestamp, snapshot, roles, manifest: manifest.to_vec() }
}

fn new_device(rig: &Rig) -> Trusted {
    Trusted::new(rig.signers.root(), Seen::default()).unwrap()
}

#[tokio::test]
async fn a_device_accepts_what_is_published_and_a_frozen_copy_only_for_a_day() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let built = rig.signers.numbered(1, &[]);
    let published = rig.publish(&built).await;
    assert_eq!(published["environments"], json!(["prod"]));
    let admin = rig.admin();
    let offered = fetched(&admin, &built.manifest).await;
    let (trusted, release) = verify(&new_device(&rig), &offered, &env("prod"), rig.now()).unwrap();
    assert_eq!(release.get().digest, built.digest());
    assert!(verify(&trusted, &offered, &env("dev"), rig.now()).is_err());

    // Who keeps the device from hearing more than this can do so for a day.
    let later = rig.now().plus(DAY_MS);
    let frozen = verify(&trusted, &offered, &env("prod"), later).unwrap_err();
    assert!(frozen.to_string().contains("timestamp metadata expired"), "{frozen}");
    rig.pass(7 * 3_600_000);
    let status = rig.get("/api/v1/status").await;
    assert_eq!(status["metadata"]["signed_here"], true);
    let before = status["metadata"]["timestamp"]["version"].as_u64().unwrap();
    publish_again(&rig).await;
    let offered = fetched(&admin, &built.manifest).await;
    let (after, _) = verify(&trusted, &offered, &env("prod"), later).unwrap();
    assert!(after.seen().timestamp > before, "{:?}", after.seen());
    assert_eq!(after.seen().snapshot, trusted.seen().snapshot, "nothing else changed");
}

/// Publishing the same again signs the timestamp again, without any wait.
async fn publish_again(rig: &Rig) {
    let publication = rig.signers.numbered(1, &[]).publication();
    assert_eq!(rig.admin().post("/api/v1/releases", &publication).await.status, 201);
}

#[tokio::test]
async fn other_clients_find_listed_files_under_their_hash() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let built = rig.signers.numbered(1, &[]);
    rig.publish(&built).await;
    let admin = rig.admin();
    let path = format!("/artifacts/targets/env/prod/{}.r1.json", built.digest());
    let answer = admin.get(&path).await;
    assert_eq!((answer.status, answer.body.as_ref()), (200, built.manifest.as_slice()));
    let stored_not_listed =
        format!("/artifacts/targets/env/prod/{}.r1.json", Digest::of(&built.objects[1]));
    admin.get(&stored_not_listed).await.refused(404, "not-found");
    admin.get("/artifacts/targets/env/prod/r1.json").await.refused(404, "not-found");
    admin.get("/artifacts/metadata/1.timestamp.json.json").await.refused(404, "not-found");
}

#[tokio::test]
async fn nothing_is_published_under_a_root_that_names_other_online_keys() {
    let rig = Rig::without_broker().await;
    let foreign = Signers::new();
    let admin = rig.admin();
    let root = admin.send(Method::POST, "/api/v1/root", foreign.root()).await;
    assert_eq!(root.status, 201);
    let built = foreign.numbered(1, &[]);
    for object in &built.objects {
        assert_eq!(admin.put_object(object).await.status, 201);
    }
    let answer = admin.post("/api/v1/releases", &built.publication()).await;
    answer.refused(409, "online-keys");
    // The next root names them, and what was refused is published.
    let named = Signers { online: rig.signers.online.clone(), ..foreign };
    let root = admin.send(Method::POST, "/api/v1/root", named.root_of_version(2)).await;
    assert_eq!(root.status, 201, "{}", root.text());
    assert_eq!(admin.post("/api/v1/releases", &built.publication()).await.status, 201);
}

#[tokio::test]
async fn a_root_is_renewed_after_it_expired() {
    let rig = Rig::without_broker().await;
    let admin = rig.admin();
    let soon = rig.now().plus(DAY_MS).to_rfc3339();
    let root = admin.send(Method::POST, "/api/v1/root", rig.signers.root_until(1, &soon)).await;
    assert_eq!(root.status, 201);
    rig.publish(&rig.signers.numbered(1, &[])).await;
    rig.pass(2 * DAY_MS);
    let second = rig.signers.numbered(2, &[&rig.signers.numbered(1, &[])]);
    for object in &second.objects {
        assert_eq!(admin.put_object(object).await.status, 201);
    }
    let expired = admin.post("/api/v1/releases", &second.publication()).await;
    expired.refused(422, "refused");
    assert!(expired.text().contains("root metadata expired"), "{}", expired.text());
    let renewed = admin.send(Method::POST, "/api/v1/root", rig.signers.root_of_version(2)).await;
    assert_eq!(renewed.status, 201, "{}", renewed.text());
    rig.publish(&second).await;
}

/// A role with one key, trusted for `env/dev/*`.
fn dev_role(key: &protocol::key::SigningKey) -> Delegations {
    let public = Key::ed25519(&key.public());
    let id = public.id().unwrap();
    Delegations {
        keys: BTreeMap::from([(id.clone(), public)]),
        roles: vec![DelegatedRole {
            name: "developers".into(),
            keyids: vec![id],
            threshold: 1,
            paths: Some(vec!["env/dev/*".into()]),
            path_hash_prefixes: None,
            terminating: true,
            other: BTreeMap::new(),
        }],
        other: BTreeMap::new(),
    }
}

fn listing(version: u64, files: &[(String, &[u8])], delegations: Option<Delegations>) -> Document {
    let targets = Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: FAR.into(),
        targets: files.iter().map(|(path, bytes)| (path.clone(), Target::of(bytes))).collect(),
        delegations,
        other: BTreeMap::new(),
    };
    Document::unsigned(&targets).unwrap()
}

fn role(document: &[u8]) -> Value {
    json!([{ "role": "developers", "document": BASE64.encode(document) }])
}

async fn upload(client: &Client, built: &Built) {
    for object in &built.objects {
        assert_eq!(client.put_object(object).await.status, 201);
    }
}

#[tokio::test]
async fn a_delegated_role_signs_for_its_environment_and_nothing_else() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let admin = rig.admin();
    let key = signing_key();
    let top = signed(listing(1, &[], Some(dev_role(&key))), &rig.signers.targets[..2]);
    let built = rig.signers.numbered(1, &[]);
    upload(&admin, &built).await;
    let post = async |body: Value| admin.post("/api/v1/releases", &body).await;
    let name = Manifest::parse(&built.manifest).unwrap().name;
    let at = |environment: &str| format!("env/{environment}/{name}.json");
    let dev = |version, place: &str, key| {
        let files = [(at(place), built.manifest.as_slice())];
        signed(listing(version, &files, None), std::slice::from_ref(key))
    };
    let top_b64 = BASE64.encode(&top);
    let missing = post(json!({ "targets": top_b64 })).await;
    missing.refused(422, "missing-role");
    let manifest = BASE64.encode(&built.manifest);
    let stranger = signing_key();
    let by_stranger = dev(1, "dev", &stranger);
    let foreign = json!({ "targets": top_b64, "roles": role(&by_stranger), "manifest": manifest });
    post(foreign).await.refused(422, "refused");
    // It cannot speak for production.
    let outside = dev(1, "prod", &key);
    let body = json!({ "targets": top_b64, "roles": role(&outside), "manifest": manifest });
    post(body).await.refused(422, "refused");
    let good = dev(1, "dev", &key);
    let body = json!({ "targets": top_b64, "roles": role(&good), "manifest": manifest });
    let published = post(body).await;
    assert_eq!(published.status, 201, "{}", published.text());
    assert_eq!(published.json()["environments"], json!(["dev"]));
    let offered = fetched(&admin, &built.manifest).await;
    let trusted = new_device(&rig);
    assert!(verify(&trusted, &offered, &env("dev"), rig.now()).is_ok());
    assert!(verify(&trusted, &offered, &env("prod"), rig.now()).is_err());

    // The role alone publishes its next version; an older or altered one is refused.
    let next = dev(2, "dev", &key);
    assert_eq!(post(json!({ "roles": role(&next) })).await.status, 201);
    post(json!({ "roles": role(&good) })).await.refused(422, "refused");
    let altered = signed(listing(2, &[], None), std::slice::from_ref(&key));
    post(json!({ "roles": role(&altered) })).await.refused(422, "rollback");
    post(json!({})).await.refused(422, "malformed");
    let bad_name = json!({ "roles": [{ "role": "../x", "document": BASE64.encode(&next) }] });
    post(bad_name).await.refused(422, "malformed");

    // No device of production is assigned what only developers signed; one of dev is.
    let device = rig.device("in-production").await;
    let rollout = json!({
        "release": name, "waves": [{ "name": "all", "percent": 100 }],
        "gate": { "success_percent": 100, "min_sample": 1, "timeout_s": 60 },
    });
    admin.post("/api/v1/rollouts", &rollout).await.refused(409, "environment");
    let path = format!("/api/v1/devices/{}/assign", device.id());
    admin.post(&path, &json!({ "release": name })).await.refused(409, "environment");
    let token = admin.post("/api/v1/tokens", &json!({ "environment": "dev" })).await.json();
    let token = token["token"].as_str().unwrap().parse().unwrap();
    let tester = crate::device::Device::join(&rig.stranger(), &token, "in-dev").await;
    assert_eq!(tester.enrolled.environment, env("dev"));
    let shown = rig.get(&format!("/api/v1/devices/{}", tester.id())).await;
    assert_eq!(shown["environment"], "dev");
    assert_eq!(admin.post("/api/v1/rollouts", &rollout).await.status, 201);
    let rollout = rig.get("/api/v1/rollouts/1").await;
    let members: Vec<_> = rollout["waves"][0]["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(!members.contains(&device.id().to_string()), "{members:?}");
}

#[tokio::test]
async fn a_permit_counts_when_those_who_sign_for_the_release_signed_it() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let first = rig.signers.numbered(1, &[]);
    rig.publish(&first).await;
    rig.publish(&rig.signers.numbered(2, &[&first])).await;
    let device = rig.device("edge").await;
    let fleet = device.enrolled.fleet.clone();
    let permit = |release, expires: UnixMs, keys: &[protocol::key::SigningKey]| {
        let holder = Holder { fleet: &fleet, device: device.id() };
        let document = Document::unsigned(&Permit::new(holder, release, expires)).unwrap();
        json!({ "permit": BASE64.encode(&signed(document, keys)) })
    };
    let admin = rig.admin();
    let post = async |body: Value| admin.post("/api/v1/permits", &body).await;
    let soon = rig.now().plus(DAY_MS);
    let keys = &rig.signers.targets;
    post(permit(first.digest(), soon, &keys[..1])).await.refused(422, "refused");
    post(permit(first.digest(), soon, &rig.signers.root)).await.refused(422, "refused");
    post(permit(first.digest(), rig.now(), &keys[..2])).await.refused(422, "refused");
    post(permit(Digest::of(b"x"), soon, &keys[..2])).await.refused(404, "not-found");
    post(json!({ "permit": "AAAA" })).await.refused(422, "refused");

    let assign = async || {
        let path = format!("/api/v1/devices/{}/assign", device.id());
        let answer = admin.post(&path, &json!({ "release": "r1" })).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let signed = rig.get(&format!("/api/v1/devices/{}/desired", device.id())).await;
        let signed = BASE64.decode(signed["desired"].as_str().unwrap().as_bytes()).unwrap();
        device.reader().desired(&signed, 0, rig.now()).unwrap().into_inner()
    };
    assert_eq!(assign().await.permit, None);
    let kept = post(permit(first.digest(), soon, &keys[..2])).await;
    assert_eq!(kept.status, 201, "{}", kept.text());
    let object: Digest = kept.json()["permit"].as_str().unwrap().parse().unwrap();
    assert_eq!(assign().await.permit, Some(object));
    let client = device.identify(rig.stranger());
    assert_eq!(client.get(&format!("/artifacts/sha256/{object}")).await.status, 200);
    rig.pass(2 * DAY_MS);
    assert_eq!(assign().await.permit, None, "an expired permit is not named");
}
