//! A repository whose content a test changes before it is signed.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    digest::Digest,
    id::Environment,
    key::SigningKey,
    manifest::{Archive, File, Manifest, Policy, Requires, Role, SCHEMA},
    time::UnixMs,
    tuf::{
        chain::Seen,
        document::Document,
        metadata::{
            self, DelegatedRole, Delegations, Key, Meta, Root, SPEC_VERSION, Snapshot, TOP_LEVEL,
            Target, Targets, Timestamp,
        },
        refusal::VerifyError,
        verify::{Offered, Release, Trusted, verify},
    },
    verified::Verified,
};
use ring::rand::SystemRandom;

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);
pub(crate) const LATER: &str = "2030-01-01T00:00:00Z";
pub(crate) const EARLIER: &str = "2020-01-01T00:00:00Z";

pub(crate) struct Repository {
    /// By role; the first `threshold` sign.
    pub(crate) keys: BTreeMap<String, Vec<SigningKey>>,
    pub(crate) root: Root,
    pub(crate) timestamp: Timestamp,
    pub(crate) snapshot: Snapshot,
    pub(crate) roles: BTreeMap<String, Targets>,
    pub(crate) manifest: Vec<u8>,
}

pub(crate) fn keys(count: usize) -> Vec<SigningKey> {
    let pkcs8 = || SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    (0..count).map(|_| SigningKey::from_pkcs8(&pkcs8()).unwrap()).collect()
}

pub(crate) fn id(key: &SigningKey) -> String {
    Key::ed25519(&key.public()).id().unwrap()
}

pub(crate) fn signed<'a, T: serde::Serialize>(
    content: &T,
    keys: impl IntoIterator<Item = &'a SigningKey>,
) -> Vec<u8> {
    let mut document = Document::unsigned(content).unwrap();
    keys.into_iter().for_each(|key| document.sign(key).unwrap());
    document.to_bytes().unwrap()
}

pub(crate) fn manifest(counter: u64) -> Manifest {
    let file = |path: &str, role, content: &[u8], archive| File {
        path: path.into(),
        role,
        length: content.len() as u64,
        sha256: Digest::of(content),
        archive,
        chunks: None,
    };
    let archive = Archive { length: 9, sha256: Digest::of(b"archive") };
    Manifest {
        schema: SCHEMA,
        name: format!("2027.1.{counter}"),
        counter,
        created: "2027-01-01T00:00:00Z".into(),
        agent_version: "0.1.0".into(),
        requires: Requires { platform: "x86_64-linux".into(), memory_bytes: 1, disk_bytes: 1 },
        policy: Policy::standard(),
        files: vec![
            file("bin/socle-agent", Role::Agent, b"agent", Some(archive)),
            file("models/faq/faq.json", Role::Data, b"faq", None),
        ],
    }
}

pub(crate) fn prod() -> Environment {
    Environment::production()
}

pub(crate) fn targets(version: u64) -> Targets {
    Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: LATER.into(),
        targets: BTreeMap::new(),
        delegations: None,
        other: BTreeMap::new(),
    }
}

impl Repository {
    /// Root and targets 2 of 3, snapshot and timestamp 1 of 1, one release for prod listed by the top-level targets.
    pub(crate) fn new() -> Self {
        let count = |role| if matches!(role, "root" | "targets") { 3 } else { 1 };
        let keys = TOP_LEVEL.into_iter().map(|role| (role.to_owned(), keys(count(role)))).collect();
        let root = Root {
            kind: "root".into(),
            spec_version: SPEC_VERSION.into(),
            version: 1,
            expires: LATER.into(),
            consistent_snapshot: true,
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
            other: BTreeMap::new(),
        };
        let mut repository = Self {
            keys,
            root,
            timestamp: Timestamp::of(1, LATER.into(), Meta::of(1, b"")),
            snapshot: Snapshot::of(1, LATER.into(), []),
            roles: BTreeMap::from([("targets".to_owned(), targets(1))]),
            manifest: manifest(1).to_bytes().unwrap(),
        };
        repository.name_keys();
        repository.list("targets", &prod());
        repository
    }

    /// Names in the root the keys that the repository has.
    pub(crate) fn name_keys(&mut self) {
        for role in TOP_LEVEL {
            let keys = &self.keys[role];
            let threshold = if keys.len() == 3 { 2 } else { 1 };
            let keyids = keys.iter().map(id).collect();
            self.root.roles.insert(role.into(), metadata::Role { keyids, threshold });
            let named = keys.iter().map(|key| (id(key), Key::ed25519(&key.public())));
            self.root.keys.extend(named);
        }
    }

    pub(crate) fn role(&mut self, role: &str) -> &mut Targets {
        self.roles.get_mut(role).unwrap()
    }

    /// Lists the manifest in `role` for `environment`.
    pub(crate) fn list(&mut self, role: &str, environment: &Environment) {
        let path = Manifest::parse(&self.manifest).unwrap().target_path(environment);
        let target = Target::of(&self.manifest);
        self.role(role).targets.insert(path, target);
    }

    /// Delegates `paths` from one role to another, which is made with a key of its own.
    pub(crate) fn delegate(&mut self, from: &str, to: &str, paths: &[&str], terminating: bool) {
        if !self.keys.contains_key(to) {
            self.keys.insert(to.to_owned(), keys(1));
            self.roles.insert(to.to_owned(), targets(1));
        }
        let key = &self.keys[to][0];
        let (keyid, public) = (id(key), Key::ed25519(&key.public()));
        let delegations = self.role(from).delegations.get_or_insert_with(Delegations::default);
        delegations.keys.insert(keyid.clone(), public);
        delegations.roles.push(DelegatedRole {
            name: to.into(),
            keyids: vec![keyid],
            threshold: 1,
            paths: Some(paths.iter().map(|path| (*path).to_owned()).collect()),
            path_hash_prefixes: None,
            terminating,
            other: BTreeMap::new(),
        });
    }

    pub(crate) fn sign<T: serde::Serialize>(&self, role: &str, content: &T) -> Vec<u8> {
        let count = if self.keys[role].len() == 3 { 2 } else { 1 };
        signed(content, &self.keys[role][..count])
    }

    pub(crate) fn root_bytes(&self) -> Vec<u8> {
        self.sign("root", &self.root)
    }

    pub(crate) fn trusted(&self) -> Trusted {
        Trusted::new(self.root_bytes(), Seen::default()).unwrap()
    }

    /// Everything signed, each document listed by the one above it.
    pub(crate) fn offer(&self) -> Offered {
        self.offer_without(&[])
    }

    /// The same without the documents of some roles.
    pub(crate) fn offer_without(&self, missing: &[&str]) -> Offered {
        let roles: Vec<(String, Vec<u8>)> = self
            .roles
            .iter()
            .map(|(role, content)| (role.clone(), self.sign(role, content)))
            .collect();
        let mut snapshot = self.snapshot.clone();
        for (role, bytes) in &roles {
            let name = format!("{role}.json");
            snapshot.meta.entry(name).or_insert_with(|| Meta::of(self.roles[role].version, bytes));
        }
        let snapshot_bytes = self.sign("snapshot", &snapshot);
        let mut timestamp = self.timestamp.clone();
        timestamp.meta.insert("snapshot.json".into(), Meta::of(snapshot.version, &snapshot_bytes));
        let missing: BTreeSet<&str> = missing.iter().copied().collect();
        Offered {
            roots: vec![],
            timestamp: self.sign("timestamp", &timestamp),
            snapshot: snapshot_bytes,
            roles: roles.into_iter().filter(|(role, _)| !missing.contains(role.as_str())).collect(),
            manifest: self.manifest.clone(),
        }
    }

    /// Raises every version by one, as a publication does.
    pub(crate) fn publish(&mut self) {
        self.timestamp.version += 1;
        self.snapshot.version += 1;
        self.roles.values_mut().for_each(|role| role.version += 1);
    }

    pub(crate) fn verify(&self) -> Result<(Trusted, Verified<Release>), VerifyError> {
        self.verify_from(&self.trusted())
    }

    pub(crate) fn verify_from(
        &self,
        trusted: &Trusted,
    ) -> Result<(Trusted, Verified<Release>), VerifyError> {
        verify(trusted, &self.offer(), &prod(), NOW)
    }
}

/// An error with its causes.
pub(crate) fn words<T>(result: Result<T, impl std::error::Error>) -> String {
    let Err(error) = result.map(|_| ()) else { return "accepted".into() };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

pub(crate) fn refused<T>(result: Result<T, impl std::error::Error>, expected: &str) {
    let text = words(result);
    assert!(text.contains(expected), "expected `{expected}`, got `{text}`");
}
