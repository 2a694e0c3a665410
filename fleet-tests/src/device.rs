//! An enrolled device's state folder, and what its gateway would stage there.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use protocol::{
    blob::Blob,
    cbor,
    command::{Desired, Signable as _},
    digest::Digest,
    enrol::{Authority, Enrolled},
    handover::{Gate, Outcome, Request, RoleDocument, Verdict},
    id::{DeviceId, FleetId},
    key::SigningKey,
    time::UnixMs,
};
use ring::rand::SystemRandom;
use slots::{
    boot::BootRecord,
    disk::{self, Disk as _, RealDisk},
    launch::Factory,
    layout::StateDir,
    record, trust,
};

use crate::{
    release::Release,
    signing::{EXPIRES, FleetKeys},
};

/// An enrolled device.
#[derive(Debug)]
pub struct Device {
    /// Its state folder.
    pub dir: StateDir,
    /// Its id.
    pub id: DeviceId,
    /// Its fleet.
    pub fleet: FleetId,
    /// Sequence of its last assignment.
    pub sequence: u64,
}

/// How an assignment differs from an ordinary one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Try although quarantined.
    pub retry: bool,
    /// The permit to go back that it names.
    pub permit: Option<Digest>,
}

impl Device {
    /// Makes the state folder of a device that joined the fleet of `keys`, with root version 1 trusted.
    pub fn enrol(state: &Path, keys: &FleetKeys) -> anyhow::Result<Self> {
        let dir = StateDir::new(state);
        dir.prepare(&RealDisk).context("preparing the state folder")?;
        RealDisk.create_dir(&dir.identity())?;
        let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new())?;
        let id = DeviceId::of(&SigningKey::from_pkcs8(&pkcs8)?.public());
        let fleet: FleetId = "crash".parse()?;
        let root = keys.root(1)?;
        let enrolled = Enrolled {
            device: id,
            fleet: fleet.clone(),
            environment: "prod".parse()?,
            certificate_pem: String::new(),
            ca_pem: String::new(),
            broker: "mqtts://localhost:1".into(),
            artifacts: "https://localhost:1/artifacts".into(),
            controller_keys: vec![keys.controller.public()],
            seal_key: Blob::default(),
            root: Blob::default(),
        };
        disk::replace(&RealDisk, &dir.identity().join("device.key.pk8"), &pkcs8)?;
        disk::replace(&RealDisk, &dir.fleet(), &serde_json::to_vec(&enrolled)?)?;
        trust::enrol(&RealDisk, &dir, &root, &Authority::from(&enrolled))?;
        Ok(Self { dir, id, fleet, sequence: 0 })
    }

    /// The request a gateway would leave for `release`.
    pub fn request(
        &mut self,
        keys: &FleetKeys,
        release: &Release,
        now: UnixMs,
        wish: Wish,
    ) -> anyhow::Result<Request> {
        self.sequence += 1;
        let desired = Desired {
            fleet: self.fleet.clone(),
            device: self.id,
            sequence: self.sequence,
            issued_at: now,
            expires_at: EXPIRES,
            release: release.digest(),
            manifest_bytes: release.manifest_bytes.len() as u64,
            targets_version: release.manifest.counter,
            rollout: 7,
            retry_quarantined: wish.retry,
            permit: wish.permit,
        };
        Ok(Request {
            desired: Blob::from(desired.signed_by(&keys.controller)?),
            roots: vec![],
            timestamp: Blob::from(release.listing.timestamp.clone()),
            snapshot: Blob::from(release.listing.snapshot.clone()),
            targets: vec![RoleDocument {
                role: "targets".into(),
                document: Blob::from(release.targets.clone()),
            }],
            manifest: Blob::from(release.manifest_bytes.clone()),
            permit: None,
        })
    }

    /// Stages objects and, last, the request.
    pub fn stage(
        &self,
        objects: &BTreeMap<Digest, Vec<u8>>,
        request: &Request,
    ) -> anyhow::Result<()> {
        for (digest, content) in objects {
            disk::replace(&RealDisk, &self.dir.staged_object(digest), content)?;
        }
        disk::replace(&RealDisk, &self.dir.request(), &cbor::encode(request)?)?;
        Ok(())
    }

    /// Leaves a verdict.
    pub fn judge(&self, release: Digest, gate: Gate, failed: Option<&str>) -> anyhow::Result<()> {
        let outcome = match failed {
            None => Outcome::Passed { detail: String::new() },
            Some(reason) => Outcome::Failed { reason: reason.to_owned() },
        };
        let verdict = Verdict { release, gate, outcome, at: UnixMs(0) };
        disk::replace(&RealDisk, &self.dir.verdict(), &cbor::encode(&verdict)?)?;
        Ok(())
    }

    /// The boot record as it stands.
    pub fn record(&self) -> BootRecord {
        record::load(&RealDisk, &self.dir, UnixMs(0)).record
    }
}

/// A factory slot at `folder` whose agent is a copy of `agent`.
pub fn factory(folder: &Path, agent: &Path) -> anyhow::Result<()> {
    let bin = folder.join("bin");
    RealDisk.create_dir(folder)?;
    RealDisk.create_dir(&bin)?;
    let content = std::fs::read(agent).with_context(|| format!("reading {}", agent.display()))?;
    disk::replace(&RealDisk, &bin.join("socle-agent"), &content)?;
    RealDisk.set_mode(&bin.join("socle-agent"), 0o555)?;
    let factory = Factory { version: "0.1.0".into(), sha256: Digest::of(&content) };
    disk::replace(&RealDisk, &folder.join("factory.json"), &serde_json::to_vec(&factory)?)?;
    Ok(())
}
