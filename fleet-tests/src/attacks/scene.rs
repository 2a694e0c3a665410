//! A good repository with random shape, and how it goes on from one look to the next.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use protocol::{digest::Digest, time::UnixMs};
use serde_json::{Map, Value, json};

use crate::attacks::{
    cases::{self, Case},
    draft::{self, Doc, Draft, DraftError},
};

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;
/// Patterns that every client reads alike, and paths that they hold.
const PLACES: [(&str, &[&str]); 7] = [
    ("env/prod/*", &["env/prod/2026.1.json", "env/prod/2026.2.json"]),
    ("env/dev/*", &["env/dev/2026.1.json", "env/dev/x.json"]),
    ("env/prod/2026.?.json", &["env/prod/2026.3.json"]),
    ("agent/*", &["agent/socle-agent-1.0.0-x86_64-linux"]),
    ("models/faq/*", &["models/faq/faq.model.onnx", "models/faq/faq.tokenizer.json"]),
    ("models/*/b.onnx", &["models/ner/b.onnx"]),
    ("plain-*", &["plain-text"]),
];

/// Which keys sign a top-level role, and how many of them must.
#[derive(Clone, Debug)]
pub struct Signers {
    /// Numbers of the keys.
    pub keys: Vec<u64>,
    /// How many must sign.
    pub threshold: u64,
}

/// Who signs what at the top.
#[derive(Clone, Debug)]
pub struct Top {
    /// The root role.
    pub root: Signers,
    /// Targets.
    pub targets: Signers,
    /// Snapshot.
    pub snapshot: Signers,
    /// Timestamp.
    pub timestamp: Signers,
}

/// One delegation.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// Who delegates.
    pub from: String,
    /// Name of the role.
    pub name: String,
    /// Path patterns.
    pub paths: Vec<String>,
    /// Prefixes of path hashes, instead of patterns.
    pub prefixes: Option<Vec<String>>,
    /// Nobody after it is asked.
    pub terminating: bool,
    /// Who signs it.
    pub signers: Signers,
}

/// A repository and its past.
pub struct Scene {
    /// What clients saw before.
    pub before: Vec<Draft>,
    /// What they see last.
    pub last: Draft,
    /// Paths that are asked for.
    pub paths: BTreeSet<String>,
    /// The time.
    pub now: UnixMs,
    /// Where choices come from.
    pub random: Rng,
    /// Who signs the top-level roles now.
    pub top: Top,
    /// Delegations, in the order of each delegator.
    pub delegations: Vec<Delegation>,
    /// First number of keys of this scene.
    pub keys: u64,
    /// The last delegated role whose own document was changed.
    pub delegated: String,
}

impl Scene {
    /// A good repository, random in shape, looked at once.
    pub fn new(seed: u64, now: UnixMs) -> Result<Self, DraftError> {
        let mut random = Rng::with_seed(seed);
        let keys = (seed % 64) * 1000;
        let signers = |random: &mut Rng, first: u64, most: u64| {
            let count = random.u64(1..=most);
            Signers { keys: (first..first + count).collect(), threshold: random.u64(1..=count) }
        };
        let top = Top {
            root: signers(&mut random, keys + 100, 3),
            targets: signers(&mut random, keys + 200, 3),
            snapshot: signers(&mut random, keys + 300, 1),
            timestamp: signers(&mut random, keys + 400, 2),
        };
        let mut scene = Self::bare(top, keys, random, now)?;
        scene.last.hashes = scene.random.bool();
        scene.choose_delegations();
        scene.fill_roles()?;
        for _ in 0..scene.random.u32(0..3) {
            scene.rotate(|_, _| {})?;
        }
        Ok(scene)
    }

    /// A good repository that is always the same: root and targets signed by two of three, listings with digests,
    /// nothing listed, nothing delegated.
    pub fn plain(now: UnixMs) -> Result<Self, DraftError> {
        let of = |first: u64, count: u64, threshold| Signers {
            keys: (first..first + count).collect(),
            threshold,
        };
        let top = Top {
            root: of(100, 3, 2),
            targets: of(200, 3, 2),
            snapshot: of(300, 1, 1),
            timestamp: of(400, 1, 1),
        };
        let mut scene = Self::bare(top, 0, Rng::with_seed(1), now)?;
        let doc = Doc::new(scene.targets_content(&[], "targets"), &scene.top.targets.keys);
        scene.last.roles.insert("targets".to_owned(), doc);
        Ok(scene)
    }

    fn bare(top: Top, keys: u64, random: Rng, now: UnixMs) -> Result<Self, DraftError> {
        let content = |kind: &str| json!({ "_type": kind, "spec_version": "1.0.31", "version": 1, "expires": at(now, 7) });
        let timestamp = Doc::new(content("timestamp"), &top.timestamp.keys);
        let snapshot = Doc::new(content("snapshot"), &top.snapshot.keys);
        let mut scene = Self {
            before: Vec::new(),
            last: Draft {
                roots: vec![],
                timestamp,
                snapshot,
                roles: BTreeMap::new(),
                hashes: true,
                extra: BTreeMap::new(),
            },
            paths: BTreeSet::new(),
            now,
            random,
            top,
            delegations: Vec::new(),
            keys,
            delegated: String::new(),
        };
        let root = scene.root_content(1)?;
        scene.last.roots.push(Doc::new(root, &scene.top.root.keys));
        Ok(scene)
    }

    /// The next look: everything is one version on, and nothing else changes.
    pub fn advance(&mut self) {
        self.before.push(self.last.clone());
        self.last.timestamp.bump();
        self.last.snapshot.bump();
        for doc in self.last.roles.values_mut() {
            doc.bump();
        }
    }

    /// A new root, signed by the old keys and by the new ones that `change` leaves.
    pub fn rotate(&mut self, change: impl FnOnce(&mut Top, u64)) -> Result<(), DraftError> {
        let mut signers = self.top.root.keys.clone();
        let next = self.last.roots.len() as u64 + 1;
        change(&mut self.top, self.keys + 600 + 10 * next);
        for key in &self.top.root.keys {
            if !signers.contains(key) {
                signers.push(*key);
            }
        }
        let content = self.root_content(next)?;
        self.last.roots.push(Doc::new(content, &signers));
        self.last.timestamp.signers.clone_from(&self.top.timestamp.keys);
        self.last.snapshot.signers.clone_from(&self.top.snapshot.keys);
        if let Some(targets) = self.last.roles.get_mut("targets") {
            targets.signers.clone_from(&self.top.targets.keys);
        }
        Ok(())
    }

    /// Writes the delegations into their delegators again, after they were changed.
    pub fn delegate(&mut self) -> Result<(), DraftError> {
        for (name, doc) in &mut self.last.roles {
            let content = delegations_of(&self.delegations, name)?;
            match content {
                Some(content) => draft::put(&mut doc.signed, "/delegations", content),
                None => drop(doc.signed.as_object_mut().map(|fields| fields.remove("delegations"))),
            }
        }
        // Who signs a top-level role is the root's to say, whatever a delegation is called.
        for delegation in self.delegations.iter().filter(|delegation| delegation.name != "targets")
        {
            if let Some(doc) = self.last.roles.get_mut(&delegation.name) {
                doc.signers.clone_from(&delegation.signers.keys);
            }
        }
        Ok(())
    }

    /// A delegated role that nobody signed yet, with these targets.
    pub fn add_role(&mut self, delegation: Delegation, paths: &[&str]) -> Result<(), DraftError> {
        let doc = Doc::new(self.targets_content(paths, &delegation.name), &delegation.signers.keys);
        self.last.roles.insert(delegation.name.clone(), doc);
        self.paths.extend(paths.iter().map(|path| (*path).to_owned()));
        self.delegations.push(delegation);
        self.delegate()
    }

    /// A delegation from `targets` of `name` to a key of its own.
    pub fn delegation(&self, name: &str, paths: &[&str]) -> Delegation {
        Delegation {
            from: "targets".to_owned(),
            name: name.to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            prefixes: None,
            terminating: false,
            signers: Signers {
                keys: vec![self.keys + 900 + self.delegations.len() as u64],
                threshold: 1,
            },
        }
    }

    /// Adds one target to a role.
    pub fn list(&mut self, role: &str, path: &str) {
        self.list_as(role, path, target(path, role));
    }

    /// Adds the file `content` at `path` to a role.
    pub fn list_file(&mut self, role: &str, path: &str, content: &[u8]) {
        let sha256 = Digest::of(content).to_string();
        self.list_as(
            role,
            path,
            json!({ "length": content.len(), "hashes": { "sha256": sha256 } }),
        );
    }

    fn list_as(&mut self, role: &str, path: &str, target: Value) {
        self.paths.insert(path.to_owned());
        if let Some(targets) = self
            .last
            .roles
            .get_mut(role)
            .and_then(|doc| doc.signed.get_mut("targets"))
            .and_then(Value::as_object_mut)
        {
            targets.insert(path.to_owned(), target);
        }
    }

    /// The name of a random role: `targets` or a delegated one.
    pub fn any_role(&mut self) -> String {
        let names: Vec<String> = self.last.roles.keys().cloned().collect();
        let chosen = self.random.usize(0..names.len().max(1));
        names.into_iter().nth(chosen).unwrap_or_else(|| "targets".to_owned())
    }

    /// The name of a random delegated role, if there is one.
    pub fn any_delegated(&mut self) -> Option<String> {
        if self.delegations.is_empty() {
            return None;
        }
        let chosen = self.random.usize(0..self.delegations.len());
        self.delegations.get(chosen).map(|delegation| delegation.name.clone())
    }

    /// The time `days` from now.
    pub fn at(&self, days: i64) -> String {
        at(self.now, days)
    }

    /// The case for the clients.
    pub fn case(self, id: u64, kind: &str, seed: u64) -> Result<Case, DraftError> {
        let mut root = None;
        let mut steps = Vec::new();
        for draft in self.before.iter().chain([&self.last]) {
            let (pinned, files) = draft.render()?;
            root.get_or_insert(pinned);
            let file = |(name, bytes): (String, Vec<u8>)| (name, cases::encode(&bytes));
            steps.push(files.into_iter().map(file).collect());
        }
        Ok(Case {
            id,
            kind: kind.to_owned(),
            delegated: self.delegated,
            seed,
            now: self.now.to_rfc3339(),
            root: cases::encode(&root.unwrap_or_default()),
            steps,
            paths: self.paths.into_iter().collect(),
        })
    }

    fn root_content(&self, version: u64) -> Result<Value, DraftError> {
        let Top { root, targets, snapshot, timestamp } = &self.top;
        let all = [root, targets, snapshot, timestamp];
        let numbers = all.iter().flat_map(|signers| signers.keys.iter().copied());
        let role = |signers: &Signers| draft::role(&signers.keys, signers.threshold);
        Ok(json!({
            "_type": "root", "spec_version": "1.0.31", "version": version,
            "expires": at(self.now, 365), "consistent_snapshot": true,
            "keys": draft::keys(numbers)?,
            "roles": {
                "root": role(root)?, "targets": role(targets)?,
                "snapshot": role(snapshot)?, "timestamp": role(timestamp)?,
            },
        }))
    }

    fn targets_content(&self, paths: &[&str], role: &str) -> Value {
        let mut targets = Map::new();
        for path in paths {
            targets.insert((*path).to_owned(), target(path, role));
        }
        json!({
            "_type": "targets", "spec_version": "1.0.31", "version": 1,
            "expires": at(self.now, 90), "targets": targets,
        })
    }

    fn choose_delegations(&mut self) {
        let names = ["prod", "dev", "night", "agent", "models-faq", "ner", "plain"];
        for (place, name) in PLACES.iter().zip(names) {
            if self.random.u32(0..5) < 2 {
                let mut delegation = self.delegation(name, &[place.0]);
                delegation.terminating = self.random.u32(0..4) == 0;
                if self.random.u32(0..5) == 0 {
                    let hashed = place.1.iter().map(|path| Digest::of(path.as_bytes()).to_string());
                    delegation.prefixes = Some(hashed.map(|text| text[..4].to_owned()).collect());
                }
                let more = self.random.u64(0..3);
                let first = self.keys + 1000 + 10 * self.delegations.len() as u64;
                delegation.signers = Signers {
                    keys: (first..=first + more).collect(),
                    threshold: self.random.u64(1..=more + 1),
                };
                // Some hang below another one that may hold the same paths.
                if let Some(parent) = self.delegations.last()
                    && parent.paths == [place.0]
                {
                    delegation.from.clone_from(&parent.name);
                }
                self.delegations.push(delegation);
            }
        }
    }

    fn fill_roles(&mut self) -> Result<(), DraftError> {
        let own: Vec<&str> = PLACES
            .iter()
            .flat_map(|place| place.1)
            .copied()
            .filter(|_| self.random.bool())
            .collect();
        let doc = Doc::new(self.targets_content(&own, "targets"), &self.top.targets.keys);
        self.last.roles.insert("targets".to_owned(), doc);
        for delegation in self.delegations.clone() {
            let place = PLACES.iter().find(|place| delegation.paths == [place.0]);
            let paths = place.map_or(&[][..], |place| place.1);
            let doc =
                Doc::new(self.targets_content(paths, &delegation.name), &delegation.signers.keys);
            self.last.roles.insert(delegation.name.clone(), doc);
        }
        self.paths =
            PLACES.iter().flat_map(|place| place.1).map(|path| (*path).to_owned()).collect();
        self.paths.insert("env/prod/absent.json".to_owned());
        self.delegate()
    }
}

impl Doc {
    /// One version on, and every change of the last look is kept.
    pub fn bump(&mut self) {
        let next = self.version() + 1;
        draft::put(&mut self.signed, "/version", json!(next));
    }
}

/// The target whose bytes are its own path and the role that lists it.
pub fn target(path: &str, role: &str) -> Value {
    let content = format!("{path} of {role}");
    let sha256 = Digest::of(content.as_bytes()).to_string();
    json!({ "length": content.len(), "hashes": { "sha256": sha256 } })
}

/// `days` from `now`, RFC 3339.
pub fn at(now: UnixMs, days: i64) -> String {
    let span = days.unsigned_abs() * DAY_MS;
    let ms = if days < 0 { now.0.saturating_sub(span) } else { now.0.saturating_add(span) };
    UnixMs(ms).to_rfc3339()
}

fn delegations_of(all: &[Delegation], from: &str) -> Result<Option<Value>, DraftError> {
    let own: Vec<&Delegation> = all.iter().filter(|delegation| delegation.from == from).collect();
    if own.is_empty() {
        return Ok(None);
    }
    let mut roles = Vec::new();
    for delegation in &own {
        let mut role = draft::role(&delegation.signers.keys, delegation.signers.threshold)?;
        draft::put(&mut role, "/name", json!(delegation.name));
        draft::put(&mut role, "/terminating", json!(delegation.terminating));
        match &delegation.prefixes {
            Some(prefixes) => draft::put(&mut role, "/path_hash_prefixes", json!(prefixes)),
            None => draft::put(&mut role, "/paths", json!(delegation.paths)),
        }
        roles.push(role);
    }
    let numbers = own.iter().flat_map(|delegation| delegation.signers.keys.iter().copied());
    Ok(Some(json!({ "keys": draft::keys(numbers)?, "roles": roles })))
}
