//! Pairs of releases that differ as updates do, each built by `socle model pack` and `socle release build`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use protocol::manifest::Manifest;
use slots::disk::{Disk as _, RealDisk};

use crate::transport::program;

/// Where the programs and the data are.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Folder of `socle` and `socle-agent`.
    pub bin_dir: PathBuf,
    /// Folder with `model.onnx` and `tokenizer.json`.
    pub model: PathBuf,
    /// Folder of the FAQs.
    pub faq: PathBuf,
    /// An agent and the same rebuilt after a change.
    pub agents: Option<(PathBuf, PathBuf)>,
    /// A folder for everything that is made.
    pub work: PathBuf,
}

/// A release folder.
#[derive(Clone, Debug)]
pub struct Built {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// The executable inside, which is not an object as it is.
    pub agent: PathBuf,
}

/// An update: what it is, the release before, and the one after.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What changed.
    pub what: &'static str,
    /// Before.
    pub old: Built,
    /// After.
    pub new: Built,
}

/// What stands in the default model right before the last layer's output projection, 1536 × 384 weights of 8 bits: field
/// 8 of ONNX's `TensorProto`, the name; then field 9, the raw data, with its length.
const LAST_LAYER: &[u8] = b"\x42\x09val_473_q\x4a\x80\x80\x24";
const LAST_LAYER_BYTES: usize = 1536 * 384;

impl Ground {
    /// The pairs that are measured.
    pub fn pairs(&self) -> anyhow::Result<Vec<Pair>> {
        let text = |name: &str| {
            let path = self.faq.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (small, large) = (text("faq-v1.jsonl")?, text("faq-v2.jsonl")?);
        let revised = large.replacen("IT handbook", "IT handbook 2027,", 1);
        ensure!(revised != large, "the FAQ does not say `IT handbook` any more");
        let retrained = self.retrained()?;
        let agent = self.bin_dir.join("socle-agent");
        let before = self.pack("before", &self.model, &large)?;
        let old = self.build("base", &agent, &before)?;
        let mut pairs = vec![
            Pair {
                what: "FAQ: one answer reworded",
                old: old.clone(),
                new: self.build(
                    "reworded",
                    &agent,
                    &self.pack("reworded", &self.model, &revised)?,
                )?,
            },
            Pair {
                what: "FAQ: entries added (v1 to v2)",
                old: self.build("fewer", &agent, &self.pack("fewer", &self.model, &small)?)?,
                new: old.clone(),
            },
            Pair {
                what: "model: last layer retrained",
                old: old.clone(),
                new: self.build(
                    "retrained",
                    &agent,
                    &self.pack("retrained", &retrained, &large)?,
                )?,
            },
        ];
        if let Some((was, is)) = &self.agents {
            pairs.push(Pair {
                what: "agent: rebuilt",
                old: self.build("agent-was", was, &before)?,
                new: self.build("agent-is", is, &before)?,
            });
        }
        Ok(pairs)
    }

    /// The model with every weight of its last layer's output projection moved by −1, 0 or +1.
    fn retrained(&self) -> anyhow::Result<PathBuf> {
        let to = self.work.join("retrained-model");
        RealDisk.create_dir(&to)?;
        let mut model = fs::read(self.model.join("model.onnx")).context("reading the model")?;
        let named = model
            .windows(LAST_LAYER.len())
            .position(|window| window == LAST_LAYER)
            .context("the model has no such last layer; this measures the default model")?;
        let from = named + LAST_LAYER.len();
        let mut random = fastrand::Rng::with_seed(7);
        for weight in model.get_mut(from..from + LAST_LAYER_BYTES).unwrap_or_default() {
            *weight = weight.wrapping_add(random.u8(0..3)).wrapping_sub(1);
        }
        RealDisk.write(&to.join("model.onnx"), &mut model.as_slice())?;
        let tokenizer =
            fs::read(self.model.join("tokenizer.json")).context("reading the tokenizer")?;
        RealDisk.write(&to.join("tokenizer.json"), &mut tokenizer.as_slice())?;
        Ok(to)
    }

    fn socle(&self, arguments: &[&str]) -> anyhow::Result<String> {
        program::output(&self.bin_dir.join("socle").to_string_lossy(), arguments)
    }

    fn pack(&self, name: &str, model: &Path, faq: &str) -> anyhow::Result<PathBuf> {
        let entries = self.work.join(format!("{name}.jsonl"));
        RealDisk.write(&entries, &mut faq.as_bytes())?;
        let out = self.work.join(format!("package-{name}"));
        let calibration = self.faq.join("calibration.jsonl");
        self.socle(&[
            "model",
            "pack",
            "--name",
            "it-faq",
            "--version",
            "1",
            "--licence",
            "Apache-2.0",
            "--from",
            &model.to_string_lossy(),
            "--faq",
            &entries.to_string_lossy(),
            "--calibration",
            &calibration.to_string_lossy(),
            "--out",
            &out.to_string_lossy(),
        ])?;
        Ok(out)
    }

    /// Builds a release of these.
    pub fn build(&self, name: &str, agent: &Path, package: &Path) -> anyhow::Result<Built> {
        let folder = self.work.join(format!("release-{name}"));
        self.socle(&[
            "release",
            "build",
            "--name",
            name,
            "--counter",
            "1",
            "--agent",
            &agent.to_string_lossy(),
            "--model",
            &package.to_string_lossy(),
            "--out",
            &folder.to_string_lossy(),
        ])?;
        let path = folder.join("manifest.json");
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let manifest = Manifest::parse(&bytes).context("reading the manifest")?;
        Ok(Built { folder, manifest, agent: agent.to_owned() })
    }
}
