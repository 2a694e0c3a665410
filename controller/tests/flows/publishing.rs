//! Publishing releases, and fetching them.

use axum::http::{Method, header};
use protocol::digest::Digest;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::json;

use crate::{
    device::{csr, new_key},
    releases::{Signers, Wanted},
    rig::{Prepared, Rig},
};

#[tokio::test]
async fn a_release_is_published_when_all_of_it_is_there() {
    let rig = Rig::without_broker().await;
    let built = rig.signers.numbered(1, &[]);
    let admin = rig.admin();
    let publication = built.publication();
    admin.post("/api/v1/releases", &publication).await.refused(409, "no-root");
    rig.publish_root().await;

    let answer = admin.post("/api/v1/releases", &publication).await;
    answer.refused(409, "missing-objects");
    let missing = answer.json()["missing"].as_array().unwrap().len();
    assert_eq!(missing, 2);

    let object = &built.objects[1];
    let path = format!("/api/v1/objects/{}", Digest::of(object));
    assert_eq!(admin.send(Method::HEAD, &path, "").await.status, 404);
    let mut altered = object.clone();
    altered[1000] ^= 1;
    admin.send(Method::PUT, &path, altered).await.refused(422, "wrong-digest");
    admin.send(Method::PUT, &path, "short").await.refused(422, "wrong-digest");
    assert_eq!(admin.send(Method::HEAD, &path, "").await.status, 404);
    let incoming = std::fs::read_dir(rig.layout.incoming()).unwrap().count();
    assert_eq!(incoming, 0, "refused uploads leave nothing behind");

    let published = rig.publish(&built).await;
    assert_eq!(published["release"], built.digest().to_string());
    assert_eq!((&published["name"], &published["counter"]), (&json!("r1"), &json!(1)));
    let head = admin.send(Method::HEAD, &path, "").await;
    assert_eq!((head.status, head.header(header::CONTENT_LENGTH)), (200, "300000"));
    // Publishing the same again changes nothing.
    assert_eq!(rig.publish(&built).await["published_at"], published["published_at"]);
    assert_eq!(rig.get("/api/v1/releases").await["releases"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_signed_listed_or_newer_is_refused() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let first = rig.signers.numbered(5, &[]);
    rig.publish(&first).await;
    let base = Wanted { name: "r6", counter: 6, targets_version: 6, signatures: 2 };
    let strangers = Signers::new();
    let good = rig.signers.release(base, &[&first]);
    let mut altered = good.clone();
    let at = altered.manifest.len() / 2;
    altered.manifest[at] ^= 1;
    let cases = [
        (rig.signers.release(Wanted { signatures: 1, ..base }, &[&first]), "refused"),
        (rig.signers.release(Wanted { signatures: 0, ..base }, &[&first]), "refused"),
        (strangers.release(base, &[&first]), "refused"),
        (altered, "refused"),
        (rig.signers.release(Wanted { targets_version: 4, ..base }, &[&first]), "refused"),
        (rig.signers.release(Wanted { targets_version: 5, ..base }, &[&first]), "rollback"),
        (rig.signers.release(Wanted { counter: 4, ..base }, &[&first]), "rollback"),
        (rig.signers.release(Wanted { counter: 5, ..base }, &[&first]), "rollback"),
        (rig.signers.release(Wanted { name: "r5", ..base }, &[]), "name-taken"),
    ];
    for (number, (built, code)) in cases.iter().enumerate() {
        for object in &built.objects {
            assert_eq!(rig.admin().put_object(object).await.status, 201);
        }
        let answer = rig.admin().post("/api/v1/releases", &built.publication()).await;
        assert_eq!(answer.status, 422, "case {number}: {}", answer.text());
        answer.refused(422, code);
    }
    rig.publish(&good).await;
    // The release before is listed by the newest metadata too.
    let listed = rig.get("/api/v1/releases").await;
    assert_eq!(listed["releases"][1]["name"], "r5");
    assert_eq!(listed["releases"][1]["targets_version"], 6);
}

#[tokio::test]
async fn roots_follow_each_other() {
    let rig = Rig::without_broker().await;
    let admin = rig.admin();
    let root =
        |version| admin.send(Method::POST, "/api/v1/root", rig.signers.root_of_version(version));
    root(2).await.refused(422, "refused");
    assert_eq!(root(1).await.status, 201);
    assert_eq!(root(1).await.status, 201);
    root(3).await.refused(422, "refused");
    let strangers = Signers::new().root_of_version(2);
    admin.send(Method::POST, "/api/v1/root", strangers).await.refused(422, "refused");
    assert_eq!(root(2).await.status, 201);
    admin.send(Method::POST, "/api/v1/root", "{}").await.refused(422, "refused");
    // Tokens go on pinning the first root, from which devices walk on.
    let token = rig.token().await;
    assert_eq!(token.root, Digest::of(&rig.signers.root()));
}

#[tokio::test]
async fn publishing_goes_on_after_the_targets_keys_were_replaced() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let first = rig.signers.numbered(1, &[]);
    rig.publish(&first).await;
    let renewed = rig.signers.with_new_targets_keys();
    let root = rig.admin().send(Method::POST, "/api/v1/root", renewed.root_of_version(2)).await;
    assert_eq!(root.status, 201);
    // What the lost keys sign counts no more; what the new ones sign does.
    let by_lost_keys = rig.signers.numbered(2, &[&first]).publication();
    rig.admin().post("/api/v1/releases", &by_lost_keys).await.refused(422, "refused");
    rig.publish(&renewed.numbered(2, &[&first])).await;
}

#[tokio::test]
async fn devices_fetch_with_their_certificate_and_in_parts() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let built = rig.signers.numbered(1, &[]);
    rig.publish(&built).await;
    let device = rig.device("fetcher").await;
    let client = device.identify(rig.stranger());

    let targets = client.get("/artifacts/metadata/targets.json").await;
    assert_eq!((targets.status, targets.body.as_ref()), (200, built.targets.as_slice()));
    assert_eq!(client.get("/artifacts/metadata/1.targets.json").await.body, targets.body);
    let root = client.get("/artifacts/metadata/1.root.json").await;
    assert_eq!(root.body.as_ref(), rig.signers.root());
    client.get("/artifacts/metadata/2.root.json").await.refused(404, "not-found");
    client.get("/artifacts/metadata/../admin-token").await.refused(404, "not-found");
    let manifest = client.get(&format!("/artifacts/sha256/{}", built.digest())).await;
    assert_eq!(manifest.body.as_ref(), built.manifest);

    let object = &built.objects[1];
    let path = format!("/artifacts/sha256/{}", Digest::of(object));
    let whole = client.get(&path).await;
    assert_eq!(whole.body.as_ref(), object.as_slice());
    let tag = whole.header(header::ETAG).to_owned();
    let part = client.clone().with(header::RANGE, "bytes=299990-");
    let answer = part.get(&path).await;
    assert_eq!((answer.status, answer.body.as_ref()), (206, &object[299_990..]));
    assert_eq!(answer.header(header::CONTENT_RANGE), "bytes 299990-299999/300000");
    let same = part.clone().with(header::IF_RANGE, &tag).get(&path).await;
    assert_eq!(same.status, 206);
    let other = part.with(header::IF_RANGE, "\"other\"").get(&path).await;
    assert_eq!((other.status, other.body.len()), (200, 300_000));
    let outside = client.clone().with(header::RANGE, "bytes=300000-").get(&path).await;
    outside.refused(416, "range");
    assert_eq!(outside.header(header::CONTENT_RANGE), "bytes */300000");
    let head = client.send(Method::HEAD, &path, "").await;
    assert_eq!((head.header(header::CONTENT_LENGTH), head.body.len()), ("300000", 0));
    client.get(&format!("/artifacts/sha256/{}", Digest::of(b"x"))).await.refused(404, "not-found");
    client.get("/artifacts/sha256/nonsense").await.refused(400, "malformed");
}

#[tokio::test]
async fn who_has_no_authority_gets_nothing() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    let stranger = rig.stranger();
    let wrong = rig.stranger().with_bearer("wrong");
    let device = rig.device("curious").await;
    for path in ["/artifacts/metadata/1.root.json", "/api/v1/devices", "/metrics"] {
        stranger.get(path).await.refused(401, "unauthorized");
        wrong.get(path).await.refused(401, "unauthorized");
    }
    // A device fetches artifacts, and that is all.
    let client = device.identify(rig.stranger());
    assert_eq!(client.get("/artifacts/metadata/1.root.json").await.status, 200);
    client.get("/api/v1/devices").await.refused(401, "unauthorized");
    client.put_object(b"x").await.refused(401, "unauthorized");
    stranger.get("/nowhere").await.refused(404, "not-found");
    assert_eq!(stranger.get("/healthz").await.json()["status"], "ok");

    // A device of another fleet is turned away in the handshake.
    let other = Prepared::new().start("mqtts://localhost:9").await;
    other.publish_root().await;
    let foreigner = other.device("foreigner").await;
    let client = foreigner.identify(rig.stranger());
    let answer = client.begin(Method::GET, "/healthz", axum::body::Body::empty()).await;
    assert!(answer.is_err(), "a certificate of another fleet was accepted");

    // A genuine certificate of a device that the fleet does not know (any more) opens nothing.
    let (_, authority) = controller::init::authority(&rig.layout).unwrap();
    let unknown = new_key();
    let certificate = authority.device(&csr(&unknown), rig.now()).unwrap();
    let client = rig.stranger().with_identity(&certificate.pem, &unknown);
    client.get("/artifacts/metadata/1.root.json").await.refused(401, "unauthorized");

    // The controller's own certificate at the broker is nobody's device.
    let pki = |name: &str| std::fs::read(rig.layout.pki_file(name)).unwrap();
    let chain = String::from_utf8(pki("broker-client.crt.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pki("broker-client.key.pem")).unwrap();
    let client = rig.stranger().with_identity(&chain, key.secret_der());
    client.get("/artifacts/metadata/1.root.json").await.refused(401, "unauthorized");
}

#[tokio::test]
async fn the_figures_are_there_from_the_start() {
    let rig = Rig::without_broker().await;
    let text = rig.admin().get("/metrics").await.text();
    for line in [
        "socle_controller_refused_messages_total{reason=\"replayed\"} 0",
        "socle_controller_events_total{kind=\"rolled-back\"} 0",
        "socle_controller_devices{state=\"online\"} 0",
        "socle_controller_rollouts{state=\"halted\"} 0",
        "socle_controller_broker_connected 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|other| other == line), "no `{line}` in:\n{text}");
    }
}

#[tokio::test]
async fn a_controller_stops_and_starts_where_it_was() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    rig.publish(&rig.signers.numbered(1, &[])).await;
    let (folder, layout) = (rig.folder, rig.layout);
    rig.running.stop().await;
    let options = controller::serve::Options {
        state: layout.state().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        broker: "mqtts://localhost:9".parse().unwrap(),
        public_url: None,
        timestamp_hours: 24,
    };
    let now = protocol::time::UnixMs(rig.clock.load(std::sync::atomic::Ordering::SeqCst));
    let clock = controller::clock::Clock::new(move || now);
    let running = controller::serve::start(&options, clock).await.unwrap();
    let token = std::fs::read_to_string(layout.admin_token()).unwrap();
    let client = crate::client::Client::new(running.address, &layout.pki_file("ca.crt.pem"));
    let listed = client.with_bearer(&token).get("/api/v1/releases").await.json();
    assert_eq!(listed["releases"][0]["name"], "r1");
    running.stop().await;
    drop(folder);
}
