//! The release manifest: one JSON file that names every file of a release. Its SHA-256 is the release's name.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{cbor::DOCUMENT_BYTES_MAX, chunks::INDEX_BYTES_MAX, digest::Digest, id::Environment};

/// Manifest format this code writes and reads.
pub const SCHEMA: u32 = 1;
/// Most files one release may hold.
pub const FILES_MAX: usize = 1024;
/// Largest file of a release, in bytes.
pub const OBJECT_BYTES_MAX: u64 = 1 << 38;

/// What a release is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// Name for people, such as `2026.11.2`: 1 to 64 of `a-z 0-9 . -`.
    pub name: String,
    /// Grows with every release of a fleet; a device never goes back.
    pub counter: u64,
    /// When it was built, RFC 3339 in UTC.
    pub created: String,
    /// Version of the agent inside.
    pub agent_version: String,
    /// What a device must offer, checked before anything is downloaded.
    pub requires: Requires,
    /// How the device proves the release.
    pub policy: Policy,
    /// Every file, sorted by path.
    pub files: Vec<File>,
}

/// What a device must offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requires {
    /// Target the agent was built for, such as `x86_64-linux`.
    pub platform: String,
    /// Memory the models need, in bytes.
    pub memory_bytes: u64,
    /// Disk the installed release needs, in bytes.
    pub disk_bytes: u64,
}

/// How a release is proven on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Gateway starts before a trial is given up; 1 to 10.
    pub tries: u8,
    /// Longest time the candidate worker may take to load and warm up.
    pub load_ms: u64,
    /// Longest time the golden set may take.
    pub golden_ms: u64,
    /// Longest probation; the release is rolled back when it passes without a verdict.
    pub probation_ms: u64,
    /// Good answers the new gateway must give in probation. It asks itself golden questions when nobody else asks.
    pub probation_answers: u32,
}

/// One file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it is installed below the slot: `bin/socle-agent`, `models/<name>/model.onnx`.
    pub path: String,
    /// What it is.
    pub role: Role,
    /// Its exact installed size in bytes.
    pub length: u64,
    /// Its digest as installed.
    pub sha256: Digest,
    /// How it travels, if not as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// How what travels was cut into chunks, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Chunked>,
}

/// Where the chunks of what travels are listed, and packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunked {
    /// A [`crate::chunks::ChunkIndex`].
    pub index: Object,
    /// The compressed chunks one after the other, if that is smaller than the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<Object>,
}

/// A tar, not compressed, that holds one file under its own file name. It is compressed as chunks, so that it unpacks to
/// no more than its own length and a new version of the file moves only where it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Size of the archive in bytes.
    pub length: u64,
    /// Digest of the archive.
    pub sha256: Digest,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The agent's executable; travels as an [`Archive`].
    Agent,
    /// A model's graph and weights.
    Model,
    /// A tokenizer.
    Tokenizer,
    /// A model's description.
    Config,
    /// Golden inputs and outputs.
    Golden,
    /// What a model answers from: questions, answers, index.
    Data,
    /// Licences and attributions.
    Notice,
}

/// Bytes with a name. What a device fetches for one file is the archive where there is one, else the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Digest of the bytes that travel.
    pub sha256: Digest,
    /// Their exact number.
    pub length: u64,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than any manifest we accept.
    #[error("manifest of {0} bytes is larger than the {DOCUMENT_BYTES_MAX} allowed")]
    TooLarge(usize),
    /// Not JSON of the manifest's shape.
    #[error("manifest is not of the expected shape")]
    Shape(#[source] serde_json::Error),
    /// A newer format.
    #[error(
        "manifest has schema {0}; this version reads schema {SCHEMA}: update the software that reads it"
    )]
    Schema(u32),
    /// Not a release name.
    #[error("`{0}` is not a release name: use 1 to 64 of a-z, 0-9, . and -")]
    Name(String),
    /// Counters start at 1.
    #[error("release counter must be at least 1")]
    Counter,
    /// Outside what is allowed.
    #[error("policy: {0}")]
    Policy(&'static str),
    /// Too many or no files.
    #[error("manifest names {0} files; 1 to {FILES_MAX} are allowed")]
    Count(usize),
    /// A path that could leave the slot or the folders a release may fill.
    #[error(
        "`{0}` is not a path a release may fill: bin/socle-agent, or models/<name>/<file> without . or .. parts"
    )]
    Path(String),
    /// The same path twice, or not in order.
    #[error("`{0}` is named twice or out of order")]
    Order(String),
    /// The executable does not travel as an archive, or something else does.
    #[error("`{0}`: the agent, and only the agent, travels as an archive")]
    Archive(String),
    /// A length that no file, index or pack has.
    #[error("`{0}`: it, its chunk index or its pack is larger than is allowed")]
    Length(String),
}

impl Manifest {
    /// Reads and checks a manifest. The caller has checked that these bytes are signed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Shape)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Holds if every field is within its bounds.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.schema != SCHEMA {
            return Err(ManifestError::Schema(self.schema));
        }
        if !is_word(&self.name, b".-") {
            return Err(ManifestError::Name(self.name.chars().take(80).collect()));
        }
        if self.counter == 0 {
            return Err(ManifestError::Counter);
        }
        self.policy.check()?;
        if self.files.is_empty() || self.files.len() > FILES_MAX {
            return Err(ManifestError::Count(self.files.len()));
        }
        for file in &self.files {
            file.check()?;
        }
        match self.files.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            Some(pair) => Err(ManifestError::Order(pair[1].path.clone())),
            None => Ok(()),
        }
    }

    /// The bytes that are hashed and signed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Its path in targets metadata, where it is signed for `environment`.
    pub fn target_path(&self, environment: &Environment) -> String {
        format!("env/{environment}/{}.json", self.name)
    }

    /// The agent's executable.
    pub fn agent(&self) -> Option<&File> {
        self.files.iter().find(|file| file.role == Role::Agent)
    }

    /// Names of the models inside, sorted.
    pub fn models(&self) -> BTreeSet<&str> {
        self.files
            .iter()
            .filter_map(|file| file.path.strip_prefix("models/")?.split('/').next())
            .collect()
    }

    /// What a device stages: each object once.
    pub fn objects(&self) -> Vec<Object> {
        let mut seen = BTreeSet::new();
        self.files.iter().map(File::object).filter(|object| seen.insert(object.sha256)).collect()
    }

    /// What a server must have for the release: the objects, their chunk indexes and their packs, each once.
    pub fn published(&self) -> Vec<Object> {
        let mut seen = BTreeSet::new();
        let chunked = |file: &File| {
            file.chunks.map(|chunks| [Some(chunks.index), chunks.pack]).into_iter().flatten()
        };
        self.files
            .iter()
            .flat_map(|file| std::iter::once(file.object()).chain(chunked(file).flatten()))
            .filter(|object| seen.insert(object.sha256))
            .collect()
    }
}

impl Policy {
    /// What suits a real fleet.
    pub const fn standard() -> Self {
        Self {
            tries: 3,
            load_ms: 60_000,
            golden_ms: 60_000,
            probation_ms: 600_000,
            probation_answers: 20,
        }
    }

    fn check(&self) -> Result<(), ManifestError> {
        const DAY_MS: u64 = 86_400_000;
        let spans = [self.load_ms, self.golden_ms, self.probation_ms];
        if !(1..=10).contains(&self.tries) {
            Err(ManifestError::Policy("tries must be 1 to 10"))
        } else if spans.iter().any(|ms| !(100..=DAY_MS).contains(ms)) {
            Err(ManifestError::Policy("each span must be 100 ms to one day"))
        } else if self.probation_answers == 0 {
            Err(ManifestError::Policy(
                "golden set and probation cannot be skipped: ask for at least one answer",
            ))
        } else {
            Ok(())
        }
    }
}

impl File {
    /// What travels for it.
    pub fn object(&self) -> Object {
        self.archive.as_ref().map_or(
            Object { sha256: self.sha256, length: self.length },
            |archive| Object { sha256: archive.sha256, length: archive.length },
        )
    }

    fn check(&self) -> Result<(), ManifestError> {
        let agent = self.path == "bin/socle-agent";
        let model = match self.path.split('/').collect::<Vec<_>>().as_slice() {
            ["models", name, file] => {
                is_word(name, b"-_") && is_word(file, b"._-") && !file.starts_with('.')
            }
            _ => false,
        };
        if agent != (self.role == Role::Agent) || !(agent || model) {
            return Err(ManifestError::Path(self.path.chars().take(120).collect()));
        }
        if agent != self.archive.is_some() {
            return Err(ManifestError::Archive(self.path.clone()));
        }
        let travels = self.object().length;
        let chunks = self.chunks.is_none_or(|chunks| {
            chunks.index.length <= INDEX_BYTES_MAX as u64
                && chunks.pack.is_none_or(|pack| pack.length < travels)
        });
        if chunks && self.length.max(travels) <= OBJECT_BYTES_MAX {
            Ok(())
        } else {
            Err(ManifestError::Length(self.path.clone()))
        }
    }
}

/// 1 to 64 lowercase letters, digits and `extra`.
fn is_word(text: &str, extra: &[u8]) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || extra.contains(&b))
}
