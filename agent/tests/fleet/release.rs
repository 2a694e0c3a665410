//! Signed releases, small but whole.

use std::collections::BTreeMap;

use protocol::{
    digest::Digest,
    key::SigningKey,
    manifest::{Archive, File, Manifest, Policy, Requires, Role},
    tuf::{
        document::Document,
        metadata::{self, Key, Meta, Root, SPEC_VERSION, Snapshot, Target, Targets, Timestamp},
    },
};
use ring::rand::SystemRandom;

pub(crate) const EXPIRES: &str = "2099-01-01T00:00:00Z";

/// Root and targets keys, three each, two of which must sign; and one for snapshots and timestamps.
pub(crate) struct Keys {
    root: Vec<SigningKey>,
    targets: Vec<SigningKey>,
    online: Vec<SigningKey>,
}

/// A manifest and what travels for it, by digest.
pub(crate) struct Release {
    pub(crate) manifest: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) objects: BTreeMap<Digest, Vec<u8>>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { root: keys(3), targets: keys(3), online: keys(1) }
    }

    pub(crate) fn root(&self, version: u64) -> Vec<u8> {
        let id = |key: &SigningKey| Key::ed25519(&key.public()).id().unwrap();
        let all = self.root.iter().chain(&self.targets).chain(&self.online);
        let role = |keys: &[SigningKey]| metadata::Role {
            keyids: keys.iter().map(id).collect(),
            threshold: if keys.len() == 1 { 1 } else { 2 },
        };
        let root = Root {
            kind: "root".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: EXPIRES.into(),
            consistent_snapshot: true,
            keys: all.map(|key| (id(key), Key::ed25519(&key.public()))).collect(),
            roles: BTreeMap::from([
                ("root".into(), role(&self.root)),
                ("targets".into(), role(&self.targets)),
                ("snapshot".into(), role(&self.online)),
                ("timestamp".into(), role(&self.online)),
            ]),
            other: BTreeMap::new(),
        };
        signed(&root, &self.root[..2])
    }

    /// Targets metadata signed by `signers` of the three keys.
    pub(crate) fn targets(&self, version: u64, releases: &[&Release], signers: usize) -> Vec<u8> {
        let entry = |release: &&Release| {
            let manifest = Manifest::parse(&release.manifest).unwrap();
            (manifest.target_path(&"prod".parse().unwrap()), Target::of(&release.manifest))
        };
        let targets = Targets {
            kind: "targets".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: EXPIRES.into(),
            targets: releases.iter().map(entry).collect(),
            delegations: None,
            other: BTreeMap::new(),
        };
        signed(&targets, &self.targets[..signers])
    }

    /// Every metadata file of a publication, by name; all of them have `version`.
    pub(crate) fn metadata(
        &self,
        version: u64,
        releases: &[&Release],
        signers: usize,
    ) -> [(String, Vec<u8>); 3] {
        let targets = self.targets(version, releases, signers);
        let roles = [("targets".to_owned(), Meta::of(version, &targets))];
        let snapshot = signed(&Snapshot::of(version, EXPIRES.into(), roles), &self.online);
        let timestamp = Timestamp::of(version, EXPIRES.into(), Meta::of(version, &snapshot));
        [
            (format!("metadata/{version}.targets.json"), targets),
            (format!("metadata/{version}.snapshot.json"), snapshot),
            ("metadata/timestamp.json".into(), signed(&timestamp, &self.online)),
        ]
    }
}

impl Release {
    /// A release of one model with the given files, and an agent.
    pub(crate) fn new(name: &str, counter: u64, model: &[(&str, &[u8])]) -> Self {
        Self::for_platform(&platform(), name, counter, model)
    }

    pub(crate) fn for_platform(
        platform: &str,
        name: &str,
        counter: u64,
        model: &[(&str, &[u8])],
    ) -> Self {
        let mut objects = BTreeMap::new();
        let (agent, archive) = (b"agent".as_slice(), b"archive of the agent".as_slice());
        objects.insert(Digest::of(archive), archive.to_vec());
        let mut files = vec![File {
            path: "bin/socle-agent".into(),
            role: Role::Agent,
            length: agent.len() as u64,
            sha256: Digest::of(agent),
            archive: Some(Archive { length: archive.len() as u64, sha256: Digest::of(archive) }),
            chunks: None,
        }];
        for (path, content) in model {
            objects.insert(Digest::of(content), content.to_vec());
            files.push(File {
                path: format!("models/faq/{path}"),
                role: Role::Model,
                length: content.len() as u64,
                sha256: Digest::of(content),
                archive: None,
                chunks: None,
            });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest {
            schema: 1,
            name: name.into(),
            counter,
            created: "2026-11-22T00:00:00Z".into(),
            agent_version: "0.1.0".into(),
            requires: Requires { platform: platform.into(), memory_bytes: 1000, disk_bytes: 1000 },
            policy: Policy::standard(),
            files,
        };
        let manifest = manifest.to_bytes().unwrap();
        Self { digest: Digest::of(&manifest), manifest, objects }
    }
}

pub(crate) fn platform() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Bytes that look like nothing in particular.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn keys(count: usize) -> Vec<SigningKey> {
    let key =
        |_| SigningKey::from_pkcs8(&SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap());
    (0..count).map(|at| key(at).unwrap()).collect()
}

fn signed<T: serde::Serialize>(content: &T, keys: &[SigningKey]) -> Vec<u8> {
    let mut document = Document::unsigned(content).unwrap();
    for key in keys {
        document.sign(key).unwrap();
    }
    document.to_bytes().unwrap()
}
