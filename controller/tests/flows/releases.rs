//! Keys, metadata and small releases to publish.

use std::{collections::BTreeMap, sync::Arc};

use controller::layout::Layout;
use data_encoding::BASE64;
use protocol::{
    digest::Digest,
    key::SigningKey,
    manifest::{Archive, File, Manifest, Policy, Requires, Role, SCHEMA},
    tuf::{
        document::Document,
        metadata::{Key, Role as TufRole, Root, SPEC_VERSION, Target, Targets},
        online::OnlineKeys,
    },
};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

pub(crate) const FAR: &str = "2099-01-01T00:00:00Z";

/// Three keys a role, two of which must sign.
pub(crate) struct Signers {
    pub(crate) root: Arc<Vec<SigningKey>>,
    pub(crate) targets: Vec<SigningKey>,
    /// The controller's own keys for snapshot and timestamp; without them, nobody's that could sign.
    pub(crate) online: Option<OnlineKeys>,
}

/// A release that is ready to be published.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) manifest: Vec<u8>,
    pub(crate) targets: Vec<u8>,
    pub(crate) objects: Vec<Vec<u8>>,
}

/// What distinguishes one release from another.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) counter: u64,
    pub(crate) targets_version: u64,
    pub(crate) signatures: usize,
}

pub(crate) fn signing_key() -> SigningKey {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

impl Built {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(crate) fn publication(&self) -> Value {
        json!({
            "targets": BASE64.encode(&self.targets), "manifest": BASE64.encode(&self.manifest),
        })
    }
}

impl Signers {
    pub(crate) fn new() -> Self {
        let three = || -> Vec<SigningKey> { (0..3).map(|_| signing_key()).collect() };
        Self { root: Arc::new(three()), targets: three(), online: None }
    }

    /// Those of a fleet whose root names the keys of this controller.
    pub(crate) fn of(layout: &Layout) -> Self {
        let online = std::fs::read(layout.online_keys()).unwrap();
        Self { online: Some(serde_json::from_slice(&online).unwrap()), ..Self::new() }
    }

    /// The first root.
    pub(crate) fn root(&self) -> Vec<u8> {
        self.root_of_version(1)
    }

    /// The same root keys with other targets keys: what the root names after some were lost.
    pub(crate) fn with_new_targets_keys(&self) -> Self {
        let online = self.online.clone();
        Self { root: Arc::clone(&self.root), targets: Self::new().targets, online }
    }

    pub(crate) fn root_of_version(&self, version: u64) -> Vec<u8> {
        self.root_until(version, FAR)
    }

    /// A root that expires when it is told.
    pub(crate) fn root_until(&self, version: u64, expires: &str) -> Vec<u8> {
        let ids = |keys: &[SigningKey]| -> Vec<String> {
            keys.iter().map(|key| Key::ed25519(&key.public()).id().unwrap()).collect()
        };
        let role = |keys: &[SigningKey]| TufRole { keyids: ids(keys), threshold: 2 };
        let online_role = |pick: fn(&OnlineKeys) -> &Vec<Key>| match &self.online {
            Some(online) => TufRole {
                keyids: pick(online).iter().map(|key| key.id().unwrap()).collect(),
                threshold: 1,
            },
            None => role(&self.targets),
        };
        let online =
            self.online.iter().flat_map(|keys| keys.snapshot.iter().chain(&keys.timestamp));
        let keys = self
            .root
            .iter()
            .chain(&self.targets)
            .map(|key| Key::ed25519(&key.public()))
            .chain(online.cloned())
            .map(|key| (key.id().unwrap(), key));
        let root = Root {
            kind: "root".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: expires.into(),
            consistent_snapshot: true,
            keys: keys.collect(),
            roles: BTreeMap::from([
                ("root".to_owned(), role(&self.root)),
                ("targets".to_owned(), role(&self.targets)),
                ("snapshot".to_owned(), online_role(|keys| &keys.snapshot)),
                ("timestamp".to_owned(), online_role(|keys| &keys.timestamp)),
            ]),
            other: BTreeMap::new(),
        };
        signed(Document::unsigned(&root).unwrap(), &self.root[..2])
    }

    /// A release with an agent and a model, listed with all of `earlier`.
    pub(crate) fn release(&self, wanted: Wanted<'_>, earlier: &[&Built]) -> Built {
        let agent = format!("agent archive of {}", wanted.name).into_bytes();
        let model = vec![u8::try_from(wanted.counter % 251).unwrap(); 300_000];
        let manifest = Manifest {
            schema: SCHEMA,
            name: wanted.name.into(),
            counter: wanted.counter,
            created: "2026-11-22T00:00:00Z".into(),
            agent_version: "0.1.0".into(),
            requires: Requires { platform: "x86_64-linux".into(), memory_bytes: 1, disk_bytes: 1 },
            policy: Policy::standard(),
            files: vec![
                File {
                    path: "bin/socle-agent".into(),
                    role: Role::Agent,
                    length: 5,
                    sha256: Digest::of(b"agent"),
                    archive: Some(Archive {
                        length: agent.len() as u64,
                        sha256: Digest::of(&agent),
                    }),
                    chunks: None,
                },
                File {
                    path: "models/m/model.onnx".into(),
                    role: Role::Model,
                    length: model.len() as u64,
                    sha256: Digest::of(&model),
                    archive: None,
                    chunks: None,
                },
            ],
        };
        let bytes = manifest.to_bytes().unwrap();
        let mut listed =
            BTreeMap::from([(manifest.target_path(&"prod".parse().unwrap()), Target::of(&bytes))]);
        for other in earlier {
            let path =
                Manifest::parse(&other.manifest).unwrap().target_path(&"prod".parse().unwrap());
            listed.insert(path, Target::of(&other.manifest));
        }
        let targets = Targets {
            kind: "targets".into(),
            spec_version: SPEC_VERSION.into(),
            version: wanted.targets_version,
            expires: FAR.into(),
            targets: listed,
            delegations: None,
            other: BTreeMap::new(),
        };
        let document = Document::unsigned(&targets).unwrap();
        Built {
            targets: signed(document, &self.targets[..wanted.signatures]),
            manifest: bytes,
            objects: vec![agent, model],
        }
    }

    /// Release number `number` of a fleet that has published all before it.
    pub(crate) fn numbered(&self, number: u64, earlier: &[&Built]) -> Built {
        let name = format!("r{number}");
        let wanted =
            Wanted { name: &name, counter: number, targets_version: number, signatures: 2 };
        self.release(wanted, earlier)
    }
}

pub(crate) fn signed(mut document: Document, keys: &[SigningKey]) -> Vec<u8> {
    for key in keys {
        document.sign(key).unwrap();
    }
    document.to_bytes().unwrap()
}
