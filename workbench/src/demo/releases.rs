//! The demo's releases, made with the same functions as `socle model` and `socle release`.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use engine::{
    index::{Index, IndexError},
    package::{FAQ_FILE, GOLDEN_FILE, INDEX_FILE, MODEL_FILE, Package, SPEC_FILE, TOKENIZER_FILE},
};
use protocol::{digest::Digest, id::Environment, time::UnixMs};

use crate::{
    files::{self, Access, FileError},
    keys::{
        ceremony::{self, CeremonyError, InitArgs},
        passphrase::{OpenArgs, ProtectArgs},
    },
    model::{self, ModelError, PackArgs},
    release::{
        build::{self, BuildArgs, BuildError, Built},
        folder::ReleaseFolder,
        sign::{self, RoleArgs, SignArgs, SignError},
    },
    terminal::Terminal,
};

/// The model's name on every machine.
pub const MODEL: &str = "it-faq";

const FAQ_V1: &[u8] = include_bytes!("../../data/faq/faq-v1.jsonl");
const FAQ_V2: &[u8] = include_bytes!("../../data/faq/faq-v2.jsonl");
const CALIBRATION: &[u8] = include_bytes!("../../data/faq/calibration.jsonl");

/// What a folder without a description holds.
const UNDESCRIBED: &str = "all-MiniLM-L6-v2";

/// Bytes of the pinned models' `model.onnx` that are all inside the raw data of their word embeddings, so that the file
/// stays well formed whatever stands there.
const WORD_EMBEDDINGS: Range<usize> = 262_144..7_000_000;

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// A file.
    #[error("handling the demo's files")]
    File(#[from] FileError),
    /// Keys.
    #[error("making keys")]
    Keys(#[from] CeremonyError),
    /// A model.
    #[error("packing a model")]
    Model(#[from] ModelError),
    /// A release.
    #[error("building a release")]
    Build(#[from] BuildError),
    /// A signature.
    #[error("signing a release")]
    Sign(#[from] SignError),
    /// The index of the genuine package.
    #[error("reading the index to be re-bound")]
    Index(#[from] IndexError),
    /// A model too small to be the pinned one.
    #[error("the demo poisons one of the pinned models; the model given is too small to be one")]
    OtherModel,
    /// Two of three keys did not suffice.
    #[error("two of three keys did not suffice: {0}")]
    Unsigned(String),
}

/// Which entries a package has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faq {
    /// The first version.
    V1,
    /// The second, with more topics.
    V2,
    /// The second with one answer changed: a release that differs in one file.
    V2Revised,
}

/// Makes releases: keys, counter, and the targets metadata so far.
pub struct Forge {
    folder: PathBuf,
    model: PathBuf,
    terminal: Terminal,
    counter: u64,
    targets: Option<PathBuf>,
}

impl Forge {
    /// Makes keys (2 of 3) below `folder`; weights and tokenizer come from `model`.
    pub fn open(
        folder: &Path,
        model: &Path,
        online: &Path,
        terminal: Terminal,
        now: UnixMs,
    ) -> Result<Self, ForgeError> {
        let args = InitArgs {
            out: folder.join("keys"),
            keys: 3,
            threshold: 2,
            days: 30,
            root_keys: Vec::new(),
            targets_keys: Vec::new(),
            online: vec![online.to_owned()],
            // The demo's folder goes with the demo.
            protect: ProtectArgs { passphrase_file: None, no_passphrase: true },
        };
        ceremony::init(&args, now)?;
        let (folder, model) = (folder.to_owned(), model.to_owned());
        Ok(Self { folder, model, terminal, counter: 0, targets: None })
    }

    /// The root metadata.
    pub fn root(&self) -> PathBuf {
        self.folder.join("keys/metadata/1.root.json")
    }

    /// Packs the assistant; its folder comes back.
    pub fn pack(&self, label: &str, faq: Faq) -> Result<PathBuf, ForgeError> {
        let bench = self.folder.join("bench").join(label);
        files::make_folder(&bench)?;
        let (entries, questions) = (bench.join("faq.jsonl"), bench.join("calibration.jsonl"));
        let revised;
        let content = match faq {
            Faq::V1 => FAQ_V1,
            Faq::V2 => FAQ_V2,
            Faq::V2Revised => {
                revised =
                    String::from_utf8_lossy(FAQ_V2).replacen("IT handbook", "IT handbook 2027,", 1);
                revised.as_bytes()
            }
        };
        files::write(&entries, content, Access::All)?;
        files::write(&questions, CALIBRATION, Access::All)?;
        let out = self.folder.join("packages").join(label).join(MODEL);
        let args = PackArgs {
            from: self.model.clone(),
            name: MODEL.into(),
            version: label.into(),
            licence: None,
            source: (!self.model.join(SPEC_FILE).exists()).then(|| UNDESCRIBED.to_owned()),
            faq: Some(entries),
            calibration: Some(questions),
            false_answers_per_mille: 50,
            golden: None,
            out: out.clone(),
        };
        model::pack(&args, &self.terminal)?;
        Ok(out)
    }

    /// Where the weights of a package came from, in its own words.
    pub fn source(&self, package: &Path) -> Result<String, ForgeError> {
        let spec = Package::open(package).map_err(ModelError::from)?.spec;
        Ok(format!("{}, {}", spec.source, spec.licence))
    }

    /// Builds the next release and signs it with two of three keys.
    pub fn release(
        &mut self,
        agent: &Path,
        package: &Path,
        now: UnixMs,
    ) -> Result<(ReleaseFolder, Built), ForgeError> {
        self.counter += 1;
        let out = self.folder.join("releases").join(self.counter.to_string());
        let args = BuildArgs {
            environment: Environment::production(),
            name: format!("demo.{}", self.counter),
            counter: self.counter,
            agent: agent.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            models: vec![package.to_owned()],
            out: out.clone(),
            previous: self.targets.clone(),
            role: "targets".into(),
            days: 30,
            memory_bytes: 256 << 20,
            probation_answers: 8,
            probation_ms: 60_000,
            tries: 3,
        };
        let built = build::build(&args, now)?;
        let key = |n: u8| self.folder.join(format!("keys/targets-{n}.pem"));
        let sign = |n: u8| {
            let role = RoleArgs { release: out.clone(), role: "targets".into(), root: self.root() };
            sign::sign(&SignArgs { role, keys: vec![key(n)], open: OpenArgs::default() })
        };
        sign(1)?;
        let standing = sign(3)?;
        if !standing.complete() {
            return Err(ForgeError::Unsigned(standing.to_string()));
        }
        let folder = ReleaseFolder::new(&out);
        self.targets = Some(folder.targets());
        Ok((folder, built))
    }

    /// A copy of `genuine` whose word embeddings are scrambled: it loads, answers, and means nothing by it. Its golden
    /// set is still the genuine one, so a device can tell.
    pub fn poison(&self, genuine: &Path) -> Result<PathBuf, ForgeError> {
        let out = self.folder.join("packages/poisoned").join(MODEL);
        files::make_folder(&out)?;
        for name in [TOKENIZER_FILE, FAQ_FILE, GOLDEN_FILE, SPEC_FILE] {
            files::write(
                &out.join(name),
                &files::read(&genuine.join(name), files::TEXT_BYTES_MAX)?,
                Access::All,
            )?;
        }
        let mut weights = files::read(&genuine.join(MODEL_FILE), files::OBJECT_BYTES_MAX)?;
        let embeddings = weights.get_mut(WORD_EMBEDDINGS).ok_or(ForgeError::OtherModel)?;
        embeddings.iter_mut().for_each(|byte| *byte ^= 0x55);
        let mut index =
            Index::decode(&files::read(&genuine.join(INDEX_FILE), files::OBJECT_BYTES_MAX)?)?;
        index.model = Digest::of(&weights);
        files::write(&out.join(MODEL_FILE), &weights, Access::All)?;
        files::write(&out.join(INDEX_FILE), &index.encode(), Access::All)?;
        Ok(out)
    }
}
