//! A model package: a directory that holds a model, its tokenizer, and `model.toml`, which says how to use them.
//!
//! | file | what |
//! |---|---|
//! | `model.toml` | [`Spec`] |
//! | `model.onnx` | the encoder; external data is refused |
//! | `tokenizer.json` | a Hugging Face fast tokenizer; a model of bytes has none |
//! | `faq.jsonl` | assistant only: the entries ([`crate::faq`]) |
//! | `index.bin` | assistant only: embeddings of their questions and answers ([`crate::index`]) |
//! | `golden.json` | inputs and the expected outputs ([`crate::golden`]), named by `[golden] file` |
//!
//! [`Package::open`] reads and bounds the files; it runs nothing of them. [`crate::model::Model::load`] does. What is used
//! later is what was there at first, and where a release signs the files, what it signs: every content is held against
//! its digest after it was read and before anything looks at it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use protocol::digest::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::{
    blend::Blend,
    calibrate::{Calibration, Thresholds},
    encoder_spec::{EncoderInput, EncoderSpec, Pooling, Prefixes},
    head::{BytesSpec, ClassificationSpec, RerankSpec},
};

/// The only `schema` this version reads.
pub const SCHEMA: u32 = 1;
/// Name of the description.
pub const SPEC_FILE: &str = "model.toml";
/// Name of the model.
pub const MODEL_FILE: &str = "model.onnx";
/// Name of the tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the assistant's entries.
pub const FAQ_FILE: &str = "faq.jsonl";
/// Name of the assistant's index.
pub const INDEX_FILE: &str = "index.bin";
/// Name that `socle model pack` gives the golden set.
pub const GOLDEN_FILE: &str = "golden.json";

/// SHA-256 of the files of a package, by name, as a verified release says.
pub type SignedFiles = BTreeMap<String, Digest>;

const SPEC_BYTES_MAX: u64 = 64 * 1024;
const TOKENIZER_BYTES_MAX: u64 = 64 * 1024 * 1024;
const FAQ_BYTES_MAX: u64 = 16 * 1024 * 1024;
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;
const GOLDEN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// No package may raise its own limits above these.
const MODEL_BYTES_CEILING: u64 = 4 * 1024 * 1024 * 1024;
const TEXT_BYTES_CEILING: u32 = 1024 * 1024;

/// What `model.toml` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of this format: [`SCHEMA`].
    pub schema: u32,
    /// Name by which the API serves the model: lowercase letters, digits, `-`, `_`, `.`; at most 64.
    pub name: String,
    /// Version of the model, for people.
    pub version: String,
    /// What it does.
    pub task: Task,
    /// SPDX expression.
    pub licence: String,
    /// Where the weights came from.
    pub source: String,
    /// How text becomes tokens.
    pub tokenizer: TokenizerSpec,
    /// How tokens become an embedding.
    pub encoder: EncoderSpec,
    /// What one request, and the process, may cost.
    pub limits: Limits,
    /// Present exactly when `task` is [`Task::Assistant`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assistant: Option<AssistantSpec>,
    /// Present exactly when `task` is [`Task::Classification`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<ClassificationSpec>,
    /// Present exactly when `task` is [`Task::Rerank`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<RerankSpec>,
    /// Present exactly when `task` is [`Task::Bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<BytesSpec>,
    /// What proves the package before it serves.
    pub golden: GoldenSpec,
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Text to a unit vector.
    Embedding,
    /// Question to an entry of the FAQ, or an abstention; gives embeddings too.
    Assistant,
    /// Text, or a pair of texts, to a score for each label.
    Classification,
    /// Query and document to a score of relevance.
    Rerank,
    /// Bytes of a file to a score for each label.
    Bytes,
}

/// `[tokenizer]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSpec {
    /// Longest sequence, special tokens included: 8 to 8192. Longer text is cut there. For a model of bytes, how many
    /// numbers it looks at.
    pub max_tokens: u32,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest text, in bytes of UTF-8; at most 1 MiB.
    pub text_bytes_max: u32,
    /// Most tokens that are computed at once, over the texts of a request.
    pub tokens_max: u32,
    /// Most texts in one request.
    pub batch_max: u32,
    /// Largest `model.onnx`.
    pub model_bytes_max: u64,
    /// Most nodes of the graph, counted over its subgraphs too.
    pub nodes_max: u32,
    /// What the model may take of the worker's memory.
    pub memory_bytes: u64,
    /// Longest that reading and preparing the model may take, in seconds of processor time.
    #[serde(default = "load_seconds_max")]
    pub load_seconds_max: u32,
}

/// Of packages that do not say.
const fn load_seconds_max() -> u32 {
    60
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes_max: 64 * 1024,
            tokens_max: 4096,
            batch_max: 256,
            model_bytes_max: 256 * 1024 * 1024,
            nodes_max: 20_000,
            memory_bytes: 1024 * 1024 * 1024,
            load_seconds_max: load_seconds_max(),
        }
    }
}

/// `[assistant]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssistantSpec {
    /// How scores are made.
    #[serde(default)]
    pub blend: Blend,
    /// For each language of the entries (`fr`, `en`) the score below which the assistant abstains.
    pub thresholds: Thresholds,
    /// What the thresholds were measured to do.
    pub calibration: Calibration,
}

/// `[golden]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSpec {
    /// File in the package: a plain file name.
    pub file: String,
    /// Least cosine between an embedding and the expected one.
    pub cosine_min: f32,
    /// Longest that one text may take.
    pub latency_ms_max: u32,
    /// Largest difference between a score and the expected one; of models that give scores.
    #[serde(default = "score_error_max")]
    pub score_error_max: f32,
}

/// Of packages that do not say.
const fn score_error_max() -> f32 {
    0.02
}

/// The bytes of a package, bounded and checked for presence, not yet understood.
#[derive(Debug, Clone)]
pub struct Package {
    /// Where it lies.
    pub dir: PathBuf,
    /// What it says of itself.
    pub spec: Spec,
    /// Names its content: SHA-256 over `"<sha256 of file>  <name>\n"` for each of its files, by name.
    pub digest: Digest,
    /// SHA-256 of `model.onnx`.
    pub model_digest: Digest,
    /// SHA-256 of each file.
    files: BTreeMap<String, Digest>,
}

/// Why a directory is not a usable package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file that the package must have.
    #[error("model package `{}` has no `{file}`: put the file there, or pack the model again with `socle model pack`", dir.display())]
    Missing {
        /// The package.
        dir: PathBuf,
        /// The file.
        file: String,
    },
    /// A file that cannot be read.
    #[error("reading `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is not the one that was signed, or that was there before.
    #[error(
        "`{}` is not the file it should be: its SHA-256 is {found}, expected {}; let the release be installed again",
        path.display(), expected.map_or_else(|| "none: the release names no such file".to_owned(), |digest| digest.to_string())
    )]
    Altered {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: Digest,
        /// What should be; none if the release does not name the file.
        expected: Option<Digest>,
    },
    /// A file above its limit.
    #[error("`{}` is larger than the {max} bytes allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Largest allowed.
        max: u64,
    },
    /// `model.toml` is not TOML, lacks a field or has one too many.
    #[error("reading the description `{}`", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// `model.toml` is well formed and says something impossible.
    #[error("`{}` {what}", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// What.
        what: String,
    },
}

impl Package {
    /// Reads the description of the package in `dir`, and checks that each file is there and within its limit.
    ///
    /// # Errors
    /// Names the file that is missing, too large or wrong.
    pub fn open(dir: &Path) -> Result<Self, PackageError> {
        Self::open_as(dir, None)
    }

    /// The same for a package whose files a release signs: each must be exactly what `signed` says.
    ///
    /// # Errors
    /// As [`Package::open`], and names a file that is altered or not signed.
    pub fn open_signed(dir: &Path, signed: &SignedFiles) -> Result<Self, PackageError> {
        Self::open_as(dir, Some(signed))
    }

    fn open_as(dir: &Path, signed: Option<&SignedFiles>) -> Result<Self, PackageError> {
        let as_signed = |name: &str, found: Digest| match signed.map(|signed| signed.get(name)) {
            None => Ok(found),
            Some(expected) if expected == Some(&found) => Ok(found),
            Some(expected) => {
                let (path, expected) = (dir.join(name), expected.copied());
                Err(PackageError::Altered { path, found, expected })
            }
        };
        let spec_bytes = read_bounded(dir, SPEC_FILE, SPEC_BYTES_MAX)?;
        let spec_digest = as_signed(SPEC_FILE, Digest::of(&spec_bytes))?;
        let spec = Spec::parse(&dir.join(SPEC_FILE), &spec_bytes)?;
        let mut names = vec![SPEC_FILE, MODEL_FILE, &spec.golden.file];
        names.extend(spec.task.files());
        names.sort_unstable();
        let (mut all, mut files) = (Hasher::default(), BTreeMap::new());
        let mut model_digest = None;
        for name in names {
            let digest = match name {
                SPEC_FILE => spec_digest,
                _ => as_signed(name, digest_bounded(dir, name, bytes_max(&spec, name))?)?,
            };
            files.insert(name.to_owned(), digest);
            all.update(format!("{digest}  {name}\n").as_bytes());
            if name == MODEL_FILE {
                model_digest = Some(digest);
            }
        }
        let digest = all.finish();
        let model_digest = model_digest.unwrap_or(digest);
        Ok(Self { dir: dir.to_path_buf(), digest, model_digest, files, spec })
    }

    /// The content of one file of the package, within its limit and as it was when the package was opened.
    ///
    /// # Errors
    /// The file is missing, unreadable, too large or altered.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, PackageError> {
        let bytes = read_bounded(&self.dir, name, bytes_max(&self.spec, name))?;
        let (found, expected) = (Digest::of(&bytes), self.files.get(name).copied());
        if expected == Some(found) {
            Ok(bytes)
        } else {
            Err(PackageError::Altered { path: self.dir.join(name), found, expected })
        }
    }
}

impl Task {
    /// The files that a package of this task has besides those that all have.
    pub const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Embedding | Self::Classification | Self::Rerank => &[TOKENIZER_FILE],
            Self::Assistant => &[TOKENIZER_FILE, FAQ_FILE, INDEX_FILE],
            Self::Bytes => &[],
        }
    }
}

impl Spec {
    /// A description of a sentence encoder of the BERT family (all-MiniLM-L6-v2 and its kin), with the usual limits.
    pub fn sentence_encoder(name: &str, version: &str, dim: u32) -> Self {
        Self {
            schema: SCHEMA,
            name: name.into(),
            version: version.into(),
            task: Task::Embedding,
            licence: "Apache-2.0".into(),
            source: String::new(),
            tokenizer: TokenizerSpec { max_tokens: 256 },
            encoder: EncoderSpec {
                inputs: vec![
                    EncoderInput::InputIds,
                    EncoderInput::AttentionMask,
                    EncoderInput::TokenTypeIds,
                ],
                output: "last_hidden_state".into(),
                pooling: Pooling::Mean,
                normalize: true,
                dim,
                prefixes: Prefixes::default(),
            },
            limits: Limits::default(),
            assistant: None,
            classification: None,
            rerank: None,
            bytes: None,
            golden: GoldenSpec {
                file: GOLDEN_FILE.into(),
                cosine_min: 0.9999,
                latency_ms_max: 5_000,
                score_error_max: score_error_max(),
            },
        }
    }

    /// The text of `model.toml`.
    ///
    /// # Errors
    /// The description is impossible.
    pub fn to_toml(&self) -> Result<String, PackageError> {
        let impossible = |what| PackageError::Impossible { path: SPEC_FILE.into(), what };
        self.check().map_err(impossible)?;
        toml::to_string(self).map_err(|reason| impossible(format!("cannot be written: {reason}")))
    }

    /// The description in `bytes`; `path` is only named in errors.
    ///
    /// # Errors
    /// Not TOML, an unknown or missing field, or an impossible value.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, PackageError> {
        let impossible = |what: String| PackageError::Impossible { path: path.into(), what };
        let text = std::str::from_utf8(bytes)
            .map_err(|at| impossible(format!("is not UTF-8 after byte {}", at.valid_up_to())))?;
        let spec: Self = toml::from_str(text)
            .map_err(|source| PackageError::Spec { path: path.into(), source: Box::new(source) })?;
        spec.check().map_err(impossible)?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let within = |what: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("says {what} = {value}; allowed are {least} to {most}"))
            }
        };
        if self.schema != SCHEMA {
            return Err(format!("has schema {}; this version reads schema {SCHEMA}", self.schema));
        }
        if self.name.is_empty()
            || self.name.len() > 64
            || self.name.starts_with('.')
            || !self.name.chars().all(plain)
        {
            return Err(format!(
                "names the model `{}`; use 1 to 64 of a-z 0-9 - _ . and do not begin with a dot",
                self.name.escape_debug()
            ));
        }
        if self.version.is_empty() || self.version.len() > 64 {
            return Err("has an empty version, or one longer than 64 bytes".into());
        }
        let golden = &self.golden.file;
        if golden.is_empty() || golden.contains(['/', '\\', '\0']) || golden.starts_with('.') {
            return Err(format!(
                "names the golden set `{}`; it must be a plain file name in the package",
                golden.escape_debug()
            ));
        }
        self.check_task()?;
        if let Some(assistant) = &self.assistant {
            if !self.encoder.normalize {
                return Err("has an assistant whose encoder does not normalize".into());
            }
            if assistant.thresholds.is_empty() {
                return Err("has an assistant without thresholds".into());
            }
            if assistant.thresholds.values().any(|threshold| !(-1.0..=1.0).contains(threshold)) {
                return Err("has an assistant threshold outside -1 to 1".into());
            }
            if !assistant.blend.is_possible() {
                return Err(
                    "has an assistant blend beyond answer = 0 to 1 and words = 0 to 10".into()
                );
            }
        }
        if !(-1.0..=1.0).contains(&self.golden.cosine_min) {
            return Err("has a golden cosine_min outside -1 to 1".into());
        }
        if !(0.0..=1e6).contains(&self.golden.score_error_max) {
            return Err("has a golden score_error_max below 0, or beyond any score".into());
        }
        let limits = &self.limits;
        within("tokenizer.max_tokens", self.tokenizer.max_tokens.into(), 8, 8192)?;
        within("encoder.dim", self.encoder.dim.into(), 1, 16_384)?;
        within(
            "limits.text_bytes_max",
            limits.text_bytes_max.into(),
            1,
            TEXT_BYTES_CEILING.into(),
        )?;
        within(
            "limits.tokens_max",
            limits.tokens_max.into(),
            self.tokenizer.max_tokens.into(),
            1 << 20,
        )?;
        within("limits.batch_max", limits.batch_max.into(), 1, 4096)?;
        within("limits.model_bytes_max", limits.model_bytes_max, 1, MODEL_BYTES_CEILING)?;
        within("limits.nodes_max", limits.nodes_max.into(), 1, 1_000_000)?;
        within("limits.memory_bytes", limits.memory_bytes, 1 << 20, 1 << 40)?;
        within("limits.load_seconds_max", limits.load_seconds_max.into(), 1, 3600)?;
        within("golden.latency_ms_max", self.golden.latency_ms_max.into(), 1, 600_000)
    }

    /// Each task has the section that describes it, no other one, and the inputs and output that it needs.
    fn check_task(&self) -> Result<(), String> {
        for (section, task, present) in [
            ("assistant", Task::Assistant, self.assistant.is_some()),
            ("classification", Task::Classification, self.classification.is_some()),
            ("rerank", Task::Rerank, self.rerank.is_some()),
            ("bytes", Task::Bytes, self.bytes.is_some()),
        ] {
            if (self.task == task) != present {
                return Err(format!("must have [{section}] exactly when task = \"{section}\""));
            }
        }
        let dim = self.encoder.dim;
        match self.task {
            Task::Embedding | Task::Assistant => {}
            Task::Classification => {
                self.classification.as_ref().map_or(Ok(()), |head| head.check(dim))?;
            }
            Task::Rerank => self.rerank.map_or(Ok(()), |head| head.check(dim))?,
            Task::Bytes => {
                let window = self.tokenizer.max_tokens;
                self.bytes.as_ref().map_or(Ok(()), |head| head.check(window, dim))?;
            }
        }
        match self.task {
            Task::Bytes => self.encoder.check_bytes(),
            Task::Embedding | Task::Assistant | Task::Classification | Task::Rerank => {
                self.encoder.check_text()
            }
        }
    }
}

fn bytes_max(spec: &Spec, name: &str) -> u64 {
    match name {
        SPEC_FILE => SPEC_BYTES_MAX,
        MODEL_FILE => spec.limits.model_bytes_max,
        TOKENIZER_FILE => TOKENIZER_BYTES_MAX,
        FAQ_FILE => FAQ_BYTES_MAX,
        INDEX_FILE => INDEX_BYTES_MAX,
        _ => GOLDEN_BYTES_MAX,
    }
}

fn open_bounded(dir: &Path, name: &str, max: u64) -> Result<(File, PathBuf), PackageError> {
    let path = dir.join(name);
    let unreadable = |source| PackageError::Read { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
            return Err(PackageError::Missing { dir: dir.into(), file: name.into() });
        }
        Err(source) => return Err(unreadable(source)),
    };
    if file.metadata().map_err(unreadable)?.len() > max {
        return Err(PackageError::TooLarge { path, max });
    }
    Ok((file, path))
}

fn read_bounded(dir: &Path, name: &str, max: u64) -> Result<Vec<u8>, PackageError> {
    let (file, path) = open_bounded(dir, name, max)?;
    let mut bytes = Vec::new();
    if let Err(source) = file.take(max + 1).read_to_end(&mut bytes) {
        return Err(PackageError::Read { path, source });
    }
    if bytes.len() as u64 > max {
        return Err(PackageError::TooLarge { path, max });
    }
    Ok(bytes)
}

fn digest_bounded(dir: &Path, name: &str, max: u64) -> Result<Digest, PackageError> {
    let (mut file, path) = open_bounded(dir, name, max)?;
    let mut hasher = Hasher::default();
    let mut piece = vec![0; 256 * 1024];
    let mut left = max;
    loop {
        let got = file
            .read(&mut piece)
            .map_err(|source| PackageError::Read { path: path.clone(), source })?;
        if got == 0 {
            return Ok(hasher.finish());
        }
        left = left
            .checked_sub(got as u64)
            .ok_or_else(|| PackageError::TooLarge { path: path.clone(), max })?;
        hasher.update(piece.get(..got).unwrap_or_default());
    }
}
