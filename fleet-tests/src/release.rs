//! A release, built and signed as an operator would.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use protocol::{
    digest::Digest,
    manifest::{Archive, File, Manifest, Policy, Requires, Role, SCHEMA},
};

use crate::signing::{FleetKeys, Listing};

/// A signed release with all that travels.
#[derive(Clone, Debug)]
pub struct Release {
    /// What it is made of.
    pub manifest: Manifest,
    /// The manifest as signed.
    pub manifest_bytes: Vec<u8>,
    /// The targets metadata that lists it.
    pub targets: Vec<u8>,
    /// What the controller signs about it.
    pub listing: Listing,
    /// What travels, by digest.
    pub objects: BTreeMap<Digest, Vec<u8>>,
}

/// What a release is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its counter; also the version of its targets metadata.
    pub counter: u64,
    /// The agent's archive and what is in it.
    pub agent: PackedAgent,
    /// Path, role and content of every other file.
    pub files: Vec<(String, Role, Vec<u8>)>,
    /// How it is proven.
    pub policy: Policy,
    /// How many targets keys sign it.
    pub signers: usize,
}

/// An executable in its archive.
#[derive(Clone, Debug)]
pub struct PackedAgent {
    /// The archive.
    pub archive: Vec<u8>,
    /// Digest of the executable.
    pub sha256: Digest,
    /// Its length.
    pub length: u64,
}

impl PackedAgent {
    /// Packs the executable at `path`.
    pub fn pack(path: &Path) -> anyhow::Result<Self> {
        let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::of(&content)
    }

    /// Packs an executable.
    pub fn of(content: &[u8]) -> anyhow::Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_cksum();
        tar.append_data(&mut header, "socle-agent", content).context("packing the agent")?;
        let archive = tar.into_inner().context("packing the agent")?;
        Ok(Self { archive, sha256: Digest::of(content), length: content.len() as u64 })
    }
}

/// Builds and signs.
pub fn build(keys: &FleetKeys, recipe: Recipe) -> anyhow::Result<Release> {
    let Recipe { counter, agent, mut files, policy, signers } = recipe;
    let archive =
        Archive { length: agent.archive.len() as u64, sha256: Digest::of(&agent.archive) };
    let mut objects = BTreeMap::from([(archive.sha256, agent.archive)]);
    let mut listed = vec![File {
        path: "bin/socle-agent".into(),
        role: Role::Agent,
        length: agent.length,
        sha256: agent.sha256,
        archive: Some(archive),
        chunks: None,
    }];
    files.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, role, content) in files {
        let (length, sha256) = (content.len() as u64, Digest::of(&content));
        objects.insert(sha256, content);
        listed.push(File { path, role, length, sha256, archive: None, chunks: None });
    }
    let manifest = Manifest {
        schema: SCHEMA,
        name: format!("2026.11.{counter}"),
        counter,
        created: "2026-11-22T00:00:00Z".into(),
        agent_version: "0.1.0".into(),
        requires: Requires {
            platform: agent::update::fit::platform(),
            memory_bytes: 0,
            disk_bytes: 0,
        },
        policy,
        files: listed,
    };
    manifest.check().context("checking the manifest")?;
    let manifest_bytes = manifest.to_bytes()?;
    let targets =
        keys.targets(counter, &manifest.target_path(&"prod".parse()?), &manifest_bytes, signers)?;
    let listing = keys.listing(counter, &targets)?;
    Ok(Release { manifest, manifest_bytes, targets, listing, objects })
}

impl Release {
    /// The release's name everywhere.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest_bytes)
    }
}
