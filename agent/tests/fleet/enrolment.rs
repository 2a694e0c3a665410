//! Joining a fleet, and every reason not to.

use std::{collections::BTreeMap, error::Error, os::unix::fs::PermissionsExt, sync::Arc};

use agent::fleet::{
    enrolment::{EnrolError, EnrolOptions, enrol},
    identity::Identity,
};
use protocol::{
    blob::Blob,
    command::{SealKey, Signable},
    digest::Digest,
    enrol::{EnrolRequest, EnrolToken, Enrolled},
    id::DeviceId,
    key::{PublicKey, SigningKey},
    time::UnixMs,
};
use ring::rand::SystemRandom;
use slots::{disk::RealDisk, layout::StateDir};
use tempfile::TempDir;

use crate::{
    artifacts::Server,
    pki::{Clients, Pki},
    release::Keys,
};

const NOW: UnixMs = UnixMs(1_795_000_000_000);

struct Rig {
    pki: Arc<Pki>,
    server: Server,
    root: Vec<u8>,
    folder: TempDir,
}

/// A controller that enrols whoever asks, after `change` to its answer.
fn rig(name: &str, change: impl Fn(&mut Enrolled) + Send + Sync + 'static) -> Rig {
    let pki = Arc::new(Pki::new());
    let server = Server::start(pki.server_config(name, Clients::Anyone));
    let root = Keys::new().root(1);
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    let controller = SigningKey::from_pkcs8(&pkcs8).unwrap();
    let (authority, answer_root) = (Arc::clone(&pki), root.clone());
    let answer = move |request: EnrolRequest| {
        assert_eq!(request.token_secret, Blob::from(vec![7; 32]));
        assert_eq!((request.name.as_str(), request.labels["site"].as_str()), ("edge-1", "paris"));
        let (certificate_pem, raw) = authority.certify_request(&request.csr_pem);
        let fleet = "demo".parse().unwrap();
        let public = PublicKey::try_from(raw.as_slice()).unwrap();
        let expires_at = UnixMs(NOW.0 + 1);
        let seal_key = SealKey { fleet, sequence: 1, public, expires_at };
        let mut enrolled = Enrolled {
            device: DeviceId::of(&public),
            fleet: "demo".parse().unwrap(),
            environment: "prod".parse().unwrap(),
            certificate_pem,
            ca_pem: authority.ca_pem(),
            broker: "mqtts://localhost:8883".into(),
            artifacts: "https://localhost:8443/artifacts".into(),
            controller_keys: vec![controller.public()],
            seal_key: Blob::from(seal_key.signed_by(&controller).unwrap()),
            root: Blob::from(answer_root.clone()),
        };
        change(&mut enrolled);
        (201, serde_json::to_vec(&enrolled).unwrap())
    };
    server.shelf.lock().unwrap().enrol = Some(Arc::new(answer));
    Rig { pki, server, root, folder: tempfile::tempdir().unwrap() }
}

impl Rig {
    fn token(&self) -> EnrolToken {
        EnrolToken {
            id: Blob::from(vec![1; 8]),
            secret: Blob::from(vec![7; 32]),
            fleet: "demo".parse().unwrap(),
            environment: "prod".parse().unwrap(),
            ca: self.pki.pin(),
            root: Digest::of(&self.root),
            expires_at: UnixMs(NOW.0 + 1000),
        }
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.folder.path().join("state"))
    }

    fn enrol(&self, token: &EnrolToken) -> Result<Enrolled, EnrolError> {
        let options = EnrolOptions {
            state: self.state(),
            controller: self.server.url.clone(),
            token: token.to_text().unwrap(),
            name: "edge-1".into(),
            labels: BTreeMap::from([("site".into(), "paris".into())]),
        };
        enrol(&options, NOW)
    }

    fn not_enrolled(&self) {
        assert!(Identity::load(&RealDisk, &self.state().identity()).unwrap().is_none());
        assert!(!self.state().trusted_root().exists());
    }
}

/// An error with all its causes.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(reason) = cause {
        text = format!("{text}: {reason}");
        cause = reason.source();
    }
    text
}

#[test]
fn a_device_joins_once_and_keeps_its_identity() {
    let rig = rig("localhost", |_| {});
    let enrolled = rig.enrol(&rig.token()).unwrap();
    let identity = Identity::load(&RealDisk, &rig.state().identity()).unwrap().unwrap();
    assert_eq!(identity.device(), enrolled.device);
    identity.credentials.check().unwrap();
    identity.credentials.client_config().unwrap();
    assert_eq!(std::fs::read(rig.state().trusted_root()).unwrap(), rig.root);
    let mode = |path: &str| {
        let path = rig.state().identity().join(path);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("device.key.pk8"), mode("")), (0o600, 0o700));

    let again = rig.enrol(&rig.token());
    assert!(matches!(again, Err(EnrolError::Enrolled(_))), "{again:?}");
    assert_eq!(rig.server.asked().len(), 1);
}

#[test]
fn an_expired_or_damaged_token_uses_no_network() {
    let rig = rig("localhost", |_| {});
    let expired = EnrolToken { expires_at: NOW, ..rig.token() };
    let options = |token: String| EnrolOptions {
        state: rig.state(),
        // Nobody listens here.
        controller: "https://localhost:1".into(),
        token,
        name: "edge-1".into(),
        labels: BTreeMap::new(),
    };
    let refused = enrol(&options(expired.to_text().unwrap()), NOW);
    assert!(matches!(refused, Err(EnrolError::Expired(at)) if at == NOW), "{refused:?}");
    let text = rig.token().to_text().unwrap();
    let refused = enrol(&options(text[..text.len() - 9].into()), NOW);
    assert!(matches!(refused, Err(EnrolError::Token(_))), "{refused:?}");
    rig.not_enrolled();
}

#[test]
fn a_server_of_another_authority_hears_nothing() {
    let rig = rig("localhost", |_| {});
    let token = EnrolToken { ca: Digest::of(b"another authority"), ..rig.token() };
    let refused = rig.enrol(&token).unwrap_err();
    assert!(matches!(refused, EnrolError::Connect { .. }), "{refused:?}");
    assert!(
        words(&refused).contains("did not present the certificate authority"),
        "{}",
        words(&refused)
    );
    assert!(rig.server.asked().is_empty());
    rig.not_enrolled();
}

#[test]
fn a_server_of_our_authority_with_another_name_hears_nothing() {
    let rig = rig("elsewhere.example", |_| {});
    let refused = rig.enrol(&rig.token()).unwrap_err();
    assert!(matches!(refused, EnrolError::Connect { .. }), "{refused:?}");
    assert!(rig.server.asked().is_empty());
}

#[test]
fn an_answer_that_contradicts_the_token_is_refused() {
    type Change = fn(&mut Enrolled);
    let cases: [(&str, Change); 7] = [
        ("release root", |e| e.root = Blob::from(Keys::new().root(1))),
        ("another fleet", |e| e.fleet = "other".parse().unwrap()),
        ("another device", |e| e.device = DeviceId::from(Digest::of(b"x"))),
        ("certificate authority", |e| e.ca_pem = Pki::new().ca_pem()),
        ("certificate that the controller issued", |e| {
            let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
            e.certificate_pem = Pki::new().certify(&pkcs8, "x");
        }),
        ("no key of the controller", |e| e.controller_keys.clear()),
        ("sealing key", |e| e.seal_key = Blob::from(vec![1, 2, 3])),
    ];
    for (expected, change) in cases {
        let rig = rig("localhost", change);
        let refused = rig.enrol(&rig.token()).unwrap_err();
        assert!(words(&refused).contains(expected), "{expected}: {}", words(&refused));
        rig.not_enrolled();
    }
}

#[test]
fn a_refusal_is_told_in_the_controllers_words_and_a_second_try_keeps_the_key() {
    let rig = rig("localhost", |_| {});
    let accept = rig.server.shelf.lock().unwrap().enrol.take();
    let refuse =
        |_| (403, br#"{"error":{"code":"used","message":"this token was used"}}"#.to_vec());
    rig.server.shelf.lock().unwrap().enrol = Some(Arc::new(refuse));
    let refused = rig.enrol(&rig.token()).unwrap_err();
    assert!(words(&refused).contains("this token was used"), "{}", words(&refused));
    let key = rig.state().identity().join("device.key.pk8");
    let before = std::fs::read(&key).unwrap();
    rig.server.shelf.lock().unwrap().enrol = accept;
    rig.enrol(&rig.token()).unwrap();
    assert_eq!(std::fs::read(&key).unwrap(), before);
}
