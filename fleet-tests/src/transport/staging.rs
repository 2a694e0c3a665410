//! The real updater on a large release: how long from the staging area to a slot that is complete and durable, beside
//! `sha256sum` over the same bytes; and the most memory it held.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    chunks::{self, ChunkName, Cut, IndexWriter},
    digest::Digest,
    manifest::{Chunked, File, Object, Policy, Role},
    time::UnixMs,
};
use serde::Serialize;
use slots::{
    disk::{Disk as _, RealDisk},
    state::State,
};

use crate::{
    device::{Device, Wish, factory},
    release::{PackedAgent, Recipe, Release, build},
    signing::FleetKeys,
    transport::program::{self, Cost},
};

/// One run of the updater between two of `sha256sum`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// Seconds of `sha256sum`, the mean of before and after.
    pub sha256sum_seconds: f64,
    /// Seconds of `socle-agent updater`, all of it: signatures, copies, hashes, syncs, self-check.
    pub updater_seconds: f64,
    /// The updater's `VmHWM`.
    pub updater_memory_bytes: u64,
}

/// All rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Staged {
    /// Bytes that are staged in each round.
    pub bytes: u64,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// A signed release with one file of `bytes` bytes, and the programs.
pub struct Staging {
    keys: FleetKeys,
    release: Release,
    updater: PathBuf,
    bytes: u64,
}

impl Staging {
    /// Makes the release. It is held in memory, here and not in what is measured.
    pub fn new(bytes: u64, updater: &Path) -> anyhow::Result<Self> {
        let keys = FleetKeys::new()?;
        let size = usize::try_from(bytes).context("so many bytes do not fit into memory")?;
        let mut content = vec![0; size];
        fastrand::Rng::with_seed(1).fill(&mut content);
        let recipe = Recipe {
            counter: 1,
            agent: PackedAgent::pack(updater)?,
            files: vec![("models/large/model.onnx".into(), Role::Model, content)],
            policy: Policy::standard(),
            signers: 2,
        };
        let release = build(&keys, recipe)?;
        Ok(Self { keys, release, updater: updater.to_owned(), bytes })
    }

    /// Stages it `rounds` times below `work`, each time in a new state folder.
    pub fn measure(&self, rounds: u32, work: &Path) -> anyhow::Result<Staged> {
        let rounds: anyhow::Result<Vec<Round>> = (0..rounds).map(|_| self.round(work)).collect();
        let bytes = self.release.objects.values().map(|content| content.len() as u64).sum();
        Ok(Staged { bytes, rounds: rounds? })
    }

    fn round(&self, work: &Path) -> anyhow::Result<Round> {
        let folder = tempfile::tempdir_in(work).context("making a state folder")?;
        let mut device = Device::enrol(&folder.path().join("state"), &self.keys)?;
        let factory_folder = folder.path().join("factory");
        factory(&factory_folder, &self.updater)?;
        let request = device.request(
            &self.keys,
            &self.release,
            UnixMs(1_800_000_000_000),
            Wish::default(),
        )?;
        device.stage(&self.release.objects, &request)?;
        let staged: Vec<String> = self
            .release
            .objects
            .keys()
            .map(|digest| device.dir.staged_object(digest).display().to_string())
            .collect();
        let before = program::run("sha256sum", &staged)?;
        let cost = self.update(&device, &factory_folder)?;
        // What was staged is gone now; the same bytes lie in the slot and in the store.
        let state = device.record().state;
        let State::Staged { trial, .. } = state else {
            bail!("the updater left the device {}", state.phase());
        };
        let slot = device.dir.slot(trial.held.slot);
        let model = slot.file("models/large/model.onnx").display().to_string();
        let after =
            program::run("sha256sum", &[model.clone(), slot.agent().display().to_string()])?;
        ensure!(fs::metadata(&model)?.len() == self.bytes, "the slot's file is not whole");
        Ok(Round {
            sha256sum_seconds: f64::midpoint(before.seconds, after.seconds),
            updater_seconds: cost.seconds,
            updater_memory_bytes: cost.memory_bytes,
        })
    }

    fn update(&self, device: &Device, factory: &Path) -> anyhow::Result<Cost> {
        let arguments = [
            "updater".to_owned(),
            "--state".into(),
            device.dir.root().display().to_string(),
            "--factory".into(),
            factory.display().to_string(),
        ];
        program::run(&self.updater.display().to_string(), &arguments)
    }
}

impl Staged {
    /// The median, over the rounds, of the updater's rate as a part of `sha256sum`'s.
    pub fn ratio(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.sha256sum_seconds / round.updater_seconds))
    }

    /// The median rate of the updater, in bytes per second.
    pub fn rate(&self) -> f64 {
        median(self.rounds.iter().map(|round| self.bytes as f64 / round.updater_seconds))
    }

    /// The median rate of `sha256sum`, in bytes per second.
    pub fn sha256sum_rate(&self) -> f64 {
        median(self.rounds.iter().map(|round| self.bytes as f64 / round.sha256sum_seconds))
    }

    /// The most memory of any round.
    pub fn memory_bytes(&self) -> u64 {
        self.rounds.iter().map(|round| round.updater_memory_bytes).max().unwrap_or_default()
    }
}

/// A folder of objects with one file of `bytes` bytes and its chunk index, made without holding it in memory.
pub fn large_object(bytes: u64, folder: &Path) -> anyhow::Result<File> {
    struct Noise(fastrand::Rng, u64);
    impl std::io::Read for Noise {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(usize::try_from(self.1).unwrap_or(usize::MAX));
            let (piece, _) = buffer.split_at_mut(count);
            self.0.fill(piece);
            self.1 -= count as u64;
            Ok(count)
        }
    }
    let path = folder.join("large");
    let seed = fastrand::Rng::with_seed(2);
    RealDisk.write(&path, &mut Noise(seed, bytes)).context("making a large file")?;
    let digest = slots::verify::hash(&mut fs::File::open(&path)?)?;
    let object = folder.join(digest.to_string());
    RealDisk.rename(&path, &object)?;
    let sizes = Cut::for_length(bytes);
    let mut index = IndexWriter::new(sizes);
    for chunk in chunks::cut(fs::File::open(&object)?, sizes) {
        let chunk = chunk?;
        let length = u32::try_from(chunk.len())?;
        index.push(ChunkName::of(&chunk), length, length);
    }
    let index = index.without_pack()?;
    let named = Object { sha256: Digest::of(&index), length: index.len() as u64 };
    RealDisk.write(&folder.join(named.sha256.to_string()), &mut index.as_slice())?;
    Ok(File {
        path: "models/large/model.onnx".into(),
        role: Role::Model,
        length: bytes,
        sha256: digest,
        archive: None,
        chunks: Some(Chunked { index: named, pack: None }),
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
