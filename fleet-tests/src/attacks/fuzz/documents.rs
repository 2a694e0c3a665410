//! JSON documents: metadata, manifests, permits. Changed ones are signed again, so that what lies behind the signature
//! is reached too.

use std::collections::BTreeMap;

use fastrand::Rng;
use protocol::{
    digest::Digest,
    id::{DeviceId, Environment, FleetId},
    manifest::Manifest,
    time::UnixMs,
    tuf::{
        chain::Seen,
        permit::{Holder, Permit, permitted},
        verify::{Release, Trusted, verify},
    },
    verified::Verified,
};
use serde_json::{Value, json};

use crate::attacks::{
    draft::{self, Doc, Files},
    fuzz::{mutation, target::Target},
    ours,
    scene::Scene,
};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const PATH: &str = "env/prod/2027.1.1.json";
/// What is changed: a role's document, and its file.
const ROLES: [(&str, &str); 6] = [
    ("root", "2.root.json"),
    ("timestamp", "timestamp.json"),
    ("snapshot", "1.snapshot.json"),
    ("targets", "1.targets.json"),
    ("prod", "1.prod.json"),
    ("vendor", "1.vendor.json"),
];

/// A manifest as an operator's tools write it.
pub fn manifest() -> Value {
    json!({
        "schema": 1, "name": "2027.1.1", "counter": 1, "created": "2027-01-01T00:00:00Z",
        "agent_version": "0.1.0",
        "requires": { "platform": "x86_64-linux", "memory_bytes": 1, "disk_bytes": 1 },
        "policy": {
            "tries": 3, "load_ms": 60_000, "golden_ms": 60_000, "probation_ms": 60_000,
            "probation_answers": 1,
        },
        "files": [
            {
                "path": "bin/socle-agent", "role": "agent", "length": 5,
                "sha256": Digest::of(b"agent").to_string(),
                "archive": { "length": 9, "sha256": Digest::of(b"archive!!").to_string() },
            },
            {
                "path": "models/faq/model.onnx", "role": "model", "length": 5,
                "sha256": Digest::of(b"model").to_string(),
            },
        ],
    })
}

/// A repository with a release in a delegated role.
struct Repository {
    scene: Scene,
    trusted: Trusted,
    manifest: Vec<u8>,
    prod: Environment,
}

impl Repository {
    fn new() -> anyhow::Result<Self> {
        let mut scene = Scene::plain(NOW)?;
        for (name, paths) in [("prod", &["env/prod/*"]), ("vendor", &["agent/*"])] {
            let delegation = scene.delegation(name, paths);
            scene.add_role(delegation, &[])?;
        }
        let manifest = serde_json::to_vec(&manifest())?;
        scene.list_file("prod", PATH, &manifest);
        scene.list_file("vendor", "agent/socle-agent-0.1.0-x86_64-linux", b"agent");
        scene.rotate(|_, _| {})?;
        let (root, _) = scene.last.render()?;
        let trusted = Trusted::new(root, Seen::default())?;
        Ok(Self { scene, trusted, manifest, prod: "prod".parse()? })
    }

    /// What the verifier makes of the files; all roles are at hand, so it is asked once.
    fn release(&self, files: &Files) -> Option<Verified<Release>> {
        let mut offered = ours::offer(&self.trusted, files, NOW).ok()?;
        offered.manifest.clone_from(&self.manifest);
        for role in ["targets", "prod", "vendor"] {
            if let Some(bytes) = files.get(&format!("1.{role}.json")) {
                offered.roles.push((role.to_owned(), bytes.clone()));
            }
        }
        verify(&self.trusted, &offered, &self.prod, NOW).ok().map(|(_, release)| release)
    }
}

/// Every role's metadata, through the whole client.
pub struct Metadata {
    repository: Repository,
    good: Files,
    signers: BTreeMap<String, Vec<u64>>,
}

impl Metadata {
    /// From a good repository.
    pub fn new() -> anyhow::Result<Self> {
        let mut repository = Repository::new()?;
        // Without digests in the listings, a changed document is not refused for its bytes alone.
        repository.scene.last.hashes = false;
        let (_, good) = repository.scene.last.render()?;
        anyhow::ensure!(repository.release(&good).is_some(), "the repository is not good");
        let mut signers = BTreeMap::new();
        for role in ROLES.map(|(role, _)| role) {
            let doc = repository.scene.doc(role);
            signers.insert(role.to_owned(), doc.map(|doc| doc.signers.clone()).unwrap_or_default());
        }
        Ok(Self { repository, good, signers })
    }

    /// One document with its content changed and signed again.
    fn signed_again(&self, role: &str, good: &[u8], random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let document: Value = serde_json::from_slice(good)?;
        let signers = self.signers.get(role).cloned().unwrap_or_default();
        let mut doc = Doc::new(document.get("signed").cloned().unwrap_or_default(), &signers);
        mutation::json(&mut doc.signed, random);
        Ok(draft::signed_bytes(&doc)?)
    }
}

impl Target for Metadata {
    fn name(&self) -> &'static str {
        "metadata"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let (role, name) = ROLES.get(random.usize(0..ROLES.len())).copied().unwrap_or_default();
        let mut files = self.good.clone();
        if let Some(bytes) = files.get_mut(name) {
            match random.u32(0..8) {
                0 => *bytes = mutation::noise(random),
                1..=3 => mutation::bytes(bytes, random),
                _ => *bytes = self.signed_again(role, bytes, random)?,
            }
        }
        files.retain(|name, _| name == "timestamp.json" || name.starts_with(['1', '2']));
        let mut input = Vec::new();
        for (name, bytes) in files {
            input.extend_from_slice(&u32::try_from(name.len())?.to_le_bytes());
            input.extend_from_slice(name.as_bytes());
            input.extend_from_slice(&u32::try_from(bytes.len())?.to_le_bytes());
            input.extend_from_slice(&bytes);
        }
        Ok(input)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let files = unpack(input).unwrap_or_default();
        Ok(self.repository.release(&files).is_some())
    }
}

/// The files that [`Metadata::input`] wrote one after the other.
fn unpack(mut input: &[u8]) -> Option<Files> {
    let mut files = Files::new();
    while !input.is_empty() {
        let name = String::from_utf8(piece(&mut input)?.to_vec()).ok()?;
        let bytes = piece(&mut input)?.to_vec();
        files.insert(name, bytes);
    }
    Some(files)
}

fn piece<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = input.split_at_checked(4)?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (piece, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(piece)
}

/// Release manifests.
#[derive(Debug, Default)]
pub struct Manifests;

impl Target for Manifests {
    fn name(&self) -> &'static str {
        "manifest"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let mut tree = manifest();
        match random.u32(0..6) {
            0 => return Ok(mutation::noise(random)),
            1 | 2 => {
                let mut bytes = serde_json::to_vec_pretty(&tree)?;
                mutation::bytes(&mut bytes, random);
                return Ok(bytes);
            }
            _ => mutation::json(&mut tree, random),
        }
        Ok(serde_json::to_vec(&tree)?)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let Ok(manifest) = Manifest::parse(input) else { return Ok(false) };
        // What is accepted is also used.
        drop((manifest.objects(), manifest.models(), manifest.agent().cloned()));
        Ok(true)
    }
}

/// Permits to go back.
pub struct Permits {
    release: Verified<Release>,
    fleet: FleetId,
    device: DeviceId,
    signers: Vec<u64>,
}

impl Permits {
    /// From a good release.
    pub fn new() -> anyhow::Result<Self> {
        let repository = Repository::new()?;
        let (_, files) = repository.scene.last.render()?;
        let release = repository.release(&files);
        let release = release.ok_or_else(|| anyhow::anyhow!("the repository is not good"))?;
        let delegation = repository.scene.delegations.first();
        let signers = delegation.map(|prod| prod.signers.keys.clone()).unwrap_or_default();
        let device = DeviceId::from(Digest::of(b"device"));
        Ok(Self { release, fleet: "demo".parse()?, device, signers })
    }

    const fn holder(&self) -> Holder<'_> {
        Holder { fleet: &self.fleet, device: self.device }
    }
}

impl Target for Permits {
    fn name(&self) -> &'static str {
        "permit"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let permit = Permit::new(self.holder(), self.release.get().digest, NOW.plus(1_000_000));
        let mut doc = Doc::new(serde_json::to_value(permit)?, &self.signers);
        let choice = random.u32(0..6);
        if choice > 2 {
            let seed = random.u64(..);
            doc.amend(move |signed| mutation::json(signed, &mut Rng::with_seed(seed)));
        }
        let mut bytes = draft::signed_bytes(&doc)?;
        match choice {
            0 => bytes = mutation::noise(random),
            1 | 2 => mutation::bytes(&mut bytes, random),
            _ => {}
        }
        Ok(bytes)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        Ok(permitted(&self.release, input, self.holder(), NOW).is_ok())
    }
}
