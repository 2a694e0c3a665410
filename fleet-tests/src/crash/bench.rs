//! A device, the releases it is given one after another, and what was seen.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use engine::{
    pack::{GoldenRecipe, Recipe as PackRecipe, pack},
    package::Spec,
};
use protocol::{
    digest::Digest,
    manifest::{Policy, Role},
    time::UnixMs,
};
use serde::Serialize;
use slots::{
    disk::RealDisk,
    launch::{self, Place},
    record::{self, Source},
    state::{StartId, State},
};

use crate::{
    device::{Device, Wish, factory},
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
};

/// Embedding size of the model that is packed.
const DIM: u32 = 384;
/// A new executable comes with every so many releases; the others keep it.
const NEW_AGENT_EVERY: u64 = 4;

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Processes killed.
    pub kills: u64,
    /// By what they were.
    pub killed: BTreeMap<String, u64>,
    /// After a kill, the old release was what starts.
    pub old: u64,
    /// After a kill, the new release was what starts.
    pub new: u64,
    /// Releases that committed.
    pub committed: u64,
    /// Releases given up, their tries spent by kills.
    pub rolled_back: u64,
}

/// Where the programs under test are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `socle-agent`.
    pub agent: PathBuf,
    /// `socle-launch`.
    pub launch: PathBuf,
}

/// A device and its fleet.
#[derive(Debug)]
pub struct Bench {
    /// The folder of everything.
    pub folder: PathBuf,
    /// The device.
    pub device: Device,
    /// The factory slot.
    pub factory: PathBuf,
    /// Programs.
    pub programs: Programs,
    /// What was seen.
    pub tally: Tally,
    keys: FleetKeys,
    model: Vec<(String, Role, Vec<u8>)>,
    policy: Policy,
    executable: Vec<u8>,
    packed: Option<PackedAgent>,
    counter: u64,
    old: Option<Digest>,
    target: Option<Digest>,
}

impl Programs {
    /// The programs in `folder`.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is missing; run `cargo build --release`", path.display());
            std::path::absolute(&path).with_context(|| format!("finding {}", path.display()))
        };
        Ok(Self { agent: find("socle-agent")?, launch: find("socle-launch")? })
    }
}

/// The files of a model package made from `model.onnx` and `tokenizer.json` in `folder`.
pub fn pack_model(folder: &Path) -> anyhow::Result<Vec<(String, Role, Vec<u8>)>> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (onnx, tokenizer) = (read("model.onnx")?, read("tokenizer.json")?);
    let spec = Spec::sentence_encoder("minilm", "1.0.0", DIM);
    let texts = ["How do I reset my password?", "Comment réinitialiser mon mot de passe ?"];
    let recipe = PackRecipe {
        spec: &spec,
        onnx: &onnx,
        tokenizer: &tokenizer,
        faq: None,
        golden: GoldenRecipe::Record(&texts),
    };
    let packed = pack(&recipe, |_, _| {}).context("packing the model")?;
    let place = |name: &str| format!("models/minilm/{name}");
    let mut files = vec![
        (place("model.onnx"), Role::Model, onnx),
        (place("tokenizer.json"), Role::Tokenizer, tokenizer),
    ];
    for (name, content) in packed.files {
        let role = if name == "golden.json" { Role::Golden } else { Role::Config };
        files.push((place(&name), role, content));
    }
    Ok(files)
}

impl Bench {
    /// A device in `folder` whose releases hold `model`.
    pub fn new(
        folder: &Path,
        programs: Programs,
        model: Vec<(String, Role, Vec<u8>)>,
        policy: Policy,
    ) -> anyhow::Result<Self> {
        let keys = FleetKeys::new()?;
        let device = Device::enrol(&folder.join("state"), &keys)?;
        let factory_folder = folder.join("factory");
        factory(&factory_folder, &programs.agent)?;
        let executable = fs::read(&programs.agent)
            .with_context(|| format!("reading {}", programs.agent.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            device,
            factory: factory_folder,
            programs,
            tally: Tally::default(),
            keys,
            model,
            policy,
            executable,
            packed: None,
            counter: 0,
            old: None,
            target: None,
        })
    }

    /// Stages the next release if the last one ended.
    pub fn offer(&mut self) -> anyhow::Result<()> {
        let record = self.device.record();
        let active = record.state.active().map(|held| held.release);
        match self.target {
            Some(target) if active == Some(target) => {
                self.tally.committed += 1;
                self.old = active;
            }
            Some(target) if record.quarantined(&target).is_some() => self.tally.rolled_back += 1,
            Some(_) if self.device.dir.request().exists() => return Ok(()),
            Some(_) if !matches!(record.state, State::Steady { .. }) => return Ok(()),
            // Its request was consumed and nothing came of it: offered again below, as a new one.
            Some(_) | None => {}
        }
        let release = self.next_release()?;
        self.target = Some(release.digest());
        let request = self.device.request(&self.keys, &release, now(), Wish::default())?;
        self.device.stage(&release.objects, &request)
    }

    /// The release under way.
    pub const fn target(&self) -> Option<Digest> {
        self.target
    }

    /// What must hold at any moment: the record is whole, and what starts is the old release or the new one, genuine,
    /// with nothing skipped. The factory starts only before there ever was a release.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let loaded = record::load(&RealDisk, &self.device.dir, now());
        ensure!(loaded.source != Source::Recovered, "the boot record was lost");
        let state = &loaded.record.state;
        let role = launch::Role::Gateway;
        let asked = launch::Asked { role, state, start: StartId::UNKNOWN, now: now() };
        let opened = launch::open(&RealDisk, &self.device.dir, &self.factory, &asked)
            .context("nothing starts")?;
        ensure!(opened.alarms.is_empty(), "a slot was skipped: {:?}", opened.alarms);
        ensure!(
            (opened.place == Place::Factory) == (opened.release.is_none()),
            "a slot without a release"
        );
        self.saw(opened.release)
    }

    /// Counts what starts, or says that it is neither old nor new.
    pub fn saw(&mut self, release: Option<Digest>) -> anyhow::Result<()> {
        if release == self.old {
            self.tally.old += 1;
        } else if release == self.target && release.is_some() {
            self.tally.new += 1;
        } else {
            let name = release.map_or_else(|| "the factory agent".to_owned(), |r| r.short());
            bail!("neither old nor new starts, but {name}");
        }
        Ok(())
    }

    /// Counts a kill.
    pub fn killed(&mut self, what: &str) {
        self.tally.kills += 1;
        *self.tally.killed.entry(what.to_owned()).or_default() += 1;
    }

    fn next_release(&mut self) -> anyhow::Result<Release> {
        self.counter += 1;
        if self.packed.is_none() || self.counter.is_multiple_of(NEW_AGENT_EVERY) {
            // Bytes after an executable's last section change its digest and nothing it does.
            let mut content = self.executable.clone();
            content.extend_from_slice(&self.counter.to_le_bytes());
            self.packed = Some(PackedAgent::of(&content)?);
        }
        let agent = self.packed.clone().context("no agent was packed")?;
        let mut files = self.model.clone();
        let note = format!("release {}\n", self.counter).into_bytes();
        let folder = files
            .first()
            .and_then(|(path, ..)| path.rsplit_once('/'))
            .map_or("models/none", |(folder, _)| folder);
        files.push((format!("{folder}/notice.txt"), Role::Notice, note));
        build(
            &self.keys,
            Recipe { counter: self.counter, agent, files, policy: self.policy.clone(), signers: 2 },
        )
    }
}

/// The clock.
#[expect(clippy::disallowed_methods, reason = "the harness is an edge")]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A stopwatch's start.
#[expect(clippy::disallowed_methods, reason = "the harness is an edge")]
pub fn instant() -> Instant {
    Instant::now()
}
