//! Two releases, really signed, and a machine that takes them on any disk.

use std::{collections::BTreeSet, error::Error, path::Path};

use protocol::{
    digest::Digest,
    enrol::Authority,
    handover::Gate,
    id::{DeviceId, Environment},
    key::SigningKey,
    manifest::{Archive, File, Manifest, Policy, Requires, Role, SCHEMA},
    time::UnixMs,
    tuf::{
        document::Document,
        metadata::{
            DelegatedRole, Delegations, Key, Role as TufRole, Root, SPEC_VERSION, Target, Targets,
        },
    },
};
use ring::rand::SystemRandom;
use slots::{
    disk::Disk,
    install::{self, Documents},
    layout::StateDir,
    record,
    state::{Candidate, Event, StartId, State},
    store::Store,
    transition::{Effect, resume},
    trust, verify,
};

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);
/// The role that lists every release.
const APPROVERS: &str = "approvers";
const EXPIRES: &str = "2099-01-01T00:00:00Z";

pub(crate) struct Release {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) targets: Vec<u8>,
    /// The document of the role that lists it, to which the targets role gave its path.
    pub(crate) approval: Vec<u8>,
    pub(crate) roots: Vec<(u64, Vec<u8>)>,
    pub(crate) contents: Vec<Vec<u8>>,
}

pub(crate) struct World {
    pub(crate) pinned: Vec<u8>,
    pub(crate) one: Release,
    pub(crate) two: Release,
    pub(crate) three: Release,
}

fn key() -> SigningKey {
    let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

fn signed<T: serde::Serialize>(content: &T, keys: &[&SigningKey]) -> Vec<u8> {
    let mut document = Document::unsigned(content).unwrap();
    for key in keys {
        document.sign(key).unwrap();
    }
    document.to_bytes().unwrap()
}

fn root(version: u64, root: &SigningKey, targets: &SigningKey) -> Root {
    let named = |key: &SigningKey| {
        let key = Key::ed25519(&key.public());
        (key.id().unwrap(), key)
    };
    let role = |key: &SigningKey| TufRole { keyids: vec![named(key).0], threshold: 1 };
    Root {
        kind: "root".into(),
        spec_version: SPEC_VERSION.into(),
        version,
        expires: EXPIRES.into(),
        consistent_snapshot: true,
        keys: [named(root), named(targets)].into(),
        roles: [("root".to_owned(), role(root)), ("targets".to_owned(), role(targets))].into(),
        other: Default::default(),
    }
}

fn release(counter: u64, key: &SigningKey, roots: Vec<(u64, Vec<u8>)>, agent: &[u8]) -> Release {
    // Bytes after an executable's last section change its digest and nothing it does.
    let agent = [agent, &[b'0' + counter as u8]].concat();
    let model = vec![7; 700];
    let faq = format!("answers {counter}").into_bytes();
    let file = |path: &str, role, content: &[u8], archive| File {
        path: path.into(),
        role,
        length: content.len() as u64,
        sha256: Digest::of(content),
        archive,
        chunks: None,
    };
    let archive = Archive { length: 1, sha256: Digest::of(b"archive") };
    let manifest = Manifest {
        schema: SCHEMA,
        name: format!("2026.{counter}"),
        counter,
        created: "2026-11-22T00:00:00Z".into(),
        agent_version: "0.1.0".into(),
        requires: Requires { platform: "any".into(), memory_bytes: 0, disk_bytes: 0 },
        policy: Policy::standard(),
        files: vec![
            file("bin/socle-agent", Role::Agent, &agent, Some(archive)),
            file("models/faq/faq.json", Role::Data, &faq, None),
            file("models/faq/model.onnx", Role::Model, &model, None),
        ],
    };
    manifest.check().unwrap();
    let bytes = manifest.to_bytes().unwrap();
    let public = Key::ed25519(&key.public());
    let role = DelegatedRole {
        name: APPROVERS.into(),
        keyids: vec![public.id().unwrap()],
        threshold: 1,
        paths: Some(vec!["env/prod/*".into()]),
        path_hash_prefixes: None,
        terminating: true,
        other: Default::default(),
    };
    let approval = Targets {
        kind: "targets".into(),
        spec_version: SPEC_VERSION.into(),
        version: counter,
        expires: EXPIRES.into(),
        targets: [(manifest.target_path(&"prod".parse().unwrap()), Target::of(&bytes))].into(),
        delegations: None,
        other: Default::default(),
    };
    let delegations = Delegations {
        keys: [(public.id().unwrap(), public)].into(),
        roles: vec![role],
        other: Default::default(),
    };
    let targets =
        Targets { targets: Default::default(), delegations: Some(delegations), ..approval.clone() };
    Release {
        targets: signed(&targets, &[key]),
        approval: signed(&approval, &[key]),
        contents: vec![agent, faq, model],
        manifest,
        bytes,
        roots,
    }
}

impl World {
    /// Release 2 is signed under a root that only release 2 brings: the way there has to be walked.
    pub(crate) fn new(agent: &[u8]) -> Self {
        let (root_key, targets_1, targets_2) = (key(), key(), key());
        let pinned = signed(&root(1, &root_key, &targets_1), &[&root_key]);
        let newer = signed(&root(2, &root_key, &targets_2), &[&root_key]);
        Self {
            pinned,
            one: release(1, &targets_1, vec![], agent),
            two: release(2, &targets_2, vec![(2, newer)], agent),
            three: release(3, &targets_2, vec![], agent),
        }
    }

    /// A machine fresh from enrolment.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) fn enrol(&self, disk: &dyn Disk, dir: &StateDir) {
        self.try_enrol(disk, dir).unwrap();
    }

    /// What enrolment does; it may be begun again.
    pub(crate) fn try_enrol(&self, disk: &dyn Disk, dir: &StateDir) -> Result<(), Box<dyn Error>> {
        dir.prepare(disk)?;
        let authority = Authority {
            fleet: "demo".parse().unwrap(),
            device: DeviceId::from(Digest::of(b"device")),
            environment: Environment::production(),
            controller_keys: vec![],
        };
        trust::enrol(disk, dir, &self.pinned, &authority)?;
        Ok(())
    }
}

impl Release {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            release: self.digest(),
            name: self.manifest.name.clone(),
            counter: self.manifest.counter,
            rollout: 1,
            tries: 3,
            load_ms: 60_000,
            golden_ms: 60_000,
            probation_ms: 60_000,
        }
    }
}

/// Takes `release` all the way to committed, from whatever state the machine is in.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn drive(
    disk: &dyn Disk,
    dir: &StateDir,
    release: &Release,
) -> Result<(), Box<dyn Error>> {
    drive_until(disk, dir, release, "steady")
}

/// Takes `release` as far as armed.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn until_armed(
    disk: &dyn Disk,
    dir: &StateDir,
    release: &Release,
) -> Result<(), Box<dyn Error>> {
    drive_until(disk, dir, release, "armed")
}

#[allow(dead_code, reason = "not every test file needs it")]
fn drive_until(
    disk: &dyn Disk,
    dir: &StateDir,
    release: &Release,
    phase: &str,
) -> Result<(), Box<dyn Error>> {
    dir.prepare(disk)?;
    for _ in 0..32 {
        let record = record::load(disk, dir, NOW).record;
        let digest = release.digest();
        if let State::Steady { .. } = record.state {
            perform(disk, dir, &resume(&record.state))?;
        }
        let gate = |gate| Event::Passed { release: digest, gate };
        if record.state.phase() == phase && phase != "steady" {
            return Ok(());
        }
        let event = match &record.state {
            State::Steady { active: Some(held) } if held.release == digest => return Ok(()),
            State::Steady { .. } => {
                trust_roots(disk, dir, release)?;
                Event::Accept(release.candidate())
            }
            State::Staging { .. } => {
                build(disk, dir, &record.state, release)?;
                Event::Built
            }
            State::Staged { .. } => gate(Gate::Load),
            State::Loaded { .. } => gate(Gate::Golden),
            State::Golden { .. } => Event::Arm { halted: None },
            State::Armed { .. } => Event::Start(StartId::UNKNOWN),
            State::Probation { .. } => gate(Gate::Probation),
        };
        let (_, effects) = record::advance(disk, dir, event, NOW)?;
        perform(disk, dir, &effects)?;
    }
    Err("no end".into())
}

/// What must hold once `release` is committed and all is done, whatever is lost then.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn check_done(disk: &dyn Disk, dir: &StateDir, release: &Release) -> Result<(), String> {
    check(disk, dir, Some(release.digest()), release.digest())?;
    let stamped = install::stamped(disk, dir).map(|stamped| stamped.held.release);
    if stamped != Some(release.digest()) {
        return Err(format!("committed, and the stamp names {stamped:?}"));
    }
    let root = disk.read(&dir.trusted_root(), 1 << 20).map_err(|error| error.to_string())?;
    match release.roots.last() {
        Some((_, newest)) if *newest != root => Err("the newest root is not trusted".into()),
        Some(_) | None => Ok(()),
    }
}

/// What must hold whenever a machine wakes up: what would start is whole and genuine, and it is `old` or `new`.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn check(
    disk: &dyn Disk,
    dir: &StateDir,
    old: Option<Digest>,
    new: Digest,
) -> Result<(), String> {
    let loaded = record::load(disk, dir, NOW);
    if loaded.source == record::Source::Recovered {
        return Err("the boot record was lost".into());
    }
    let state = &loaded.record.state;
    let running = state.running().map(|held| held.release);
    if running != old && running != Some(new) {
        return Err(format!("neither old nor new would run: {running:?}"));
    }
    for held in [state.running(), state.active()].into_iter().flatten() {
        let release = verify::installed(disk, dir, held.slot, Some(&held.release))
            .map_err(|error| slots::launch::chain_text(&error))?;
        verify::complete(disk, &dir.slot(held.slot), &release.get().manifest.files)
            .map_err(|(_, error)| error.to_string())?;
    }
    if running == Some(new) && state.active().map(|held| held.release) == Some(new) {
        return Ok(());
    }
    match install::stamped(disk, dir).map(|stamped| stamped.held.release) {
        stamped if stamped == old => Ok(()),
        Some(stamped) if stamped == new => {
            Err("a slot is stamped that is not committed".to_owned())
        }
        stamped => Err(format!("the stamp names {stamped:?}")),
    }
}

#[allow(dead_code, reason = "not every test file needs it")]
fn perform(disk: &dyn Disk, dir: &StateDir, effects: &[Effect]) -> Result<(), Box<dyn Error>> {
    for effect in effects {
        match effect {
            Effect::Build(_) => {}
            Effect::Stamp(held) => {
                let commit = record::load(disk, dir, NOW).record.commits;
                install::stamp(disk, dir, held, commit)?;
            }
            Effect::Sweep(keep) => drop(install::sweep(disk, dir, keep.as_ref())?),
            Effect::Prune => drop(Store::new(disk, dir).prune(&BTreeSet::new())?),
        }
    }
    Ok(())
}

/// As the updater does once a request passed every check.
pub(crate) fn trust_roots(
    disk: &dyn Disk,
    dir: &StateDir,
    release: &Release,
) -> Result<(), Box<dyn Error>> {
    let known = trust::load(disk, dir)?;
    let version = known.root().get().version;
    let newer: Vec<Vec<u8>> = release
        .roots
        .iter()
        .filter(|(root, _)| *root > version)
        .map(|(_, bytes)| bytes.clone())
        .collect();
    trust::keep(disk, dir, &newer, &known.after_roots(&newer)?)?;
    Ok(())
}

pub(crate) fn build(
    disk: &dyn Disk,
    dir: &StateDir,
    state: &State,
    release: &Release,
) -> Result<(), Box<dyn Error>> {
    let slot = state.trial().ok_or("no trial")?.held.slot;
    let store = Store::new(disk, dir);
    let (agent, others) = release.manifest.files.split_first().ok_or("no files")?;
    for (file, content) in others.iter().zip(&release.contents[1..]) {
        store.add(file.object(), &mut content.as_slice())?;
    }
    let place = install::clear(disk, dir, slot, &release.manifest)?;
    if !store.has(&agent.sha256) {
        // As the archive is unpacked: under another name, then moved, nothing synced.
        write_unsynced(disk, &place.agent(), &release.contents[0])?;
    }
    let roles = [
        ("targets".to_owned(), release.targets.clone()),
        (APPROVERS.to_owned(), release.approval.clone()),
    ];
    let trusted = trust::load(disk, dir)?;
    let root = (trusted.root().get().version, trusted.root_bytes());
    let documents = Documents { manifest: &release.bytes, roles: &roles, root };
    install::fill(disk, dir, slot, &release.manifest, &documents, &BTreeSet::new())?;
    store.adopt(&place.agent(), agent.sha256)?;
    Ok(())
}

fn write_unsynced(disk: &dyn Disk, path: &Path, mut content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("unpacked");
    disk.write(&temporary, &mut content)?;
    disk.rename(&temporary, path)
}
