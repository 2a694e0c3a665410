//! What the gateway and a worker say to each other.
//!
//! Every message is one CBOR item in the canonical form of [`protocol::cbor`]. A request carries an id that the gateway
//! chooses and its response repeats; responses may come in another order than their requests.
//!
//! While a release is tried, the gateway of one speaks with the worker of another, so each reads what the other writes,
//! whichever is newer. A message only ever grows at its end: a new field comes last and has a default, which is not written
//! and means what its absence did; a new call, reply or word comes last too. Fields that are not known are skipped. What a
//! side speaks is [`crate::worker::spoken`], and how an older one is spoken to, [`crate::worker::older`].

use protocol::{blob::Blob, cbor, digest::Digest};
use serde::{Deserialize, Serialize};

use crate::{
    assistant::Decision,
    embedder::LongText,
    encoder_spec::{InputKind, Pooling},
    golden::GoldenReport,
    package::Task,
    text_tokenizer::{Special, Tokens},
    weight_form::WeightForm,
    worker::{
        failure::{Failure, FailureKind},
        spoken::Spoken,
    },
};

/// From the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Repeated by the response.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The request's; 0 when it could not be read.
    pub id: u64,
    /// What came of it.
    pub reply: Reply,
}

/// What is asked.
///
/// A model is named by its name alone, which means its newest version, or as `name@version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// Who are you? → [`Reply::Hello`], at once, whatever else is being computed. The first call of a connection, since
    /// it settles the version that is spoken there.
    Hello {
        /// The newest version that the gateway speaks.
        protocol: u16,
        /// The oldest.
        #[serde(default = "first", skip_serializing_if = "is_first")]
        oldest: u16,
    },
    /// Load a model and run it once → [`Reply::Loaded`].
    Load {
        /// Its name.
        model: String,
    },
    /// Try a model's golden set, loading it first when needed → [`Reply::Golden`].
    Golden {
        /// Its name.
        model: String,
    },
    /// Embeddings of texts → [`Reply::Embeddings`].
    Embed {
        /// The model's name.
        model: String,
        /// The texts.
        texts: Vec<String>,
        /// What to do with long ones.
        long: LongText,
        /// As what they are meant.
        #[serde(default, skip_serializing_if = "InputKind::is_plain")]
        kind: InputKind,
        /// How soon.
        #[serde(default, skip_serializing_if = "is_default")]
        terms: Terms,
    },
    /// An answer from an assistant → [`Reply::Answer`].
    Ask {
        /// The model's name.
        model: String,
        /// The question.
        text: String,
        /// Consider only entries in this language.
        lang: Option<String>,
        /// How soon.
        #[serde(default, skip_serializing_if = "is_default")]
        terms: Terms,
    },
    /// Are you there? → [`Reply::Pong`], at once, whatever else is being computed.
    Ping,
    /// Finish what was accepted, then end → [`Reply::Bye`].
    Shutdown,
    /// A score for each label of a classifier → [`Reply::Scores`].
    Classify {
        /// The model's name.
        model: String,
        /// The texts, or pairs of texts.
        inputs: Vec<TextInput>,
        /// What to do with long ones.
        long: LongText,
        /// Which numbers are wanted.
        scoring: Scoring,
        /// How soon.
        terms: Terms,
    },
    /// How relevant each document is to a query → [`Reply::Scores`] of one column.
    Rerank {
        /// The model's name.
        model: String,
        /// The query.
        query: String,
        /// The documents.
        documents: Vec<String>,
        /// What to do with long ones.
        long: LongText,
        /// Which numbers are wanted.
        scoring: Scoring,
        /// How soon.
        terms: Terms,
    },
    /// A score for each label of a model of bytes → [`Reply::Scores`].
    Bytes {
        /// The model's name.
        model: String,
        /// The files.
        input: BytesInput,
        /// How soon.
        terms: Terms,
    },
    /// How texts are read by a model → [`Reply::Tokens`].
    Tokenize {
        /// The model's name.
        model: String,
        /// The texts.
        texts: Vec<String>,
        /// Whether the tokens that the model adds are given too.
        special: Special,
    },
    /// The texts that ids stand for → [`Reply::Texts`].
    Decode {
        /// The model's name.
        model: String,
        /// The ids of each text.
        ids: Vec<Vec<u32>>,
        /// Whether special tokens appear in the texts.
        special: Special,
    },
    /// What was done so far → [`Reply::Statistics`], at once.
    Statistics,
    /// Forget a loaded model; it is loaded again on its next use → [`Reply::Unloaded`].
    Unload {
        /// Its name.
        model: String,
    },
}

/// How soon something is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What goes first.
    pub priority: Priority,
    /// After how many microseconds from its arrival at the worker nobody wants the answer any more: then it is answered
    /// as [`FailureKind::Expired`], and not computed if it has not been yet.
    pub deadline_us: Option<u64>,
}

/// What goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// It fills what the others leave.
    Bulk,
}

/// Which numbers are wanted of a model that gives scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scoring {
    /// What its description makes of its output.
    #[default]
    Scores,
    /// Its output itself.
    Logits,
}

/// A text, or two that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextInput {
    /// The text.
    pub text: String,
    /// The second one.
    pub pair: Option<String>,
}

/// What a model of bytes is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BytesInput {
    /// What the model looks at, made by the caller: rows of [`ModelInfo::tokens_max`] numbers, i32 little-endian.
    Rows(Blob),
    /// Files, of which the worker looks at both ends.
    Files(Vec<FileEnds>),
}

/// A file: its first and its last bytes. Of a short one both are the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEnds {
    /// The first bytes.
    pub head: Blob,
    /// The last bytes; none where the whole file is in `head`.
    pub tail: Option<Blob>,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Call::Hello`].
    Hello(WorkerInfo),
    /// To [`Call::Load`].
    Loaded(LoadedInfo),
    /// To [`Call::Golden`]; the model may serve only when the report says so.
    Golden(GoldenReport),
    /// To [`Call::Embed`].
    Embeddings(Embeddings),
    /// To [`Call::Ask`].
    Answer(AnswerInfo),
    /// To [`Call::Ping`].
    Pong,
    /// To [`Call::Shutdown`].
    Bye,
    /// To any call that was not done.
    Failed(Failure),
    /// To [`Call::Classify`], [`Call::Rerank`] and [`Call::Bytes`].
    Scores(Scores),
    /// To [`Call::Tokenize`], text by text.
    Tokens(Vec<Tokens>),
    /// To [`Call::Decode`].
    Texts(Vec<String>),
    /// To [`Call::Statistics`].
    Statistics(WorkerStatistics),
    /// To [`Call::Unload`].
    Unloaded,
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The version that is spoken on this connection: the highest that both sides speak.
    pub protocol: u16,
    /// The release whose slot it serves, as it was told.
    pub release: Option<Digest>,
    /// Its process.
    pub pid: u32,
    /// What it computes on, for a person.
    pub device: String,
    /// The models of its slot; those of which a newer worker says what this version cannot read are left out.
    #[serde(deserialize_with = "cbor::readable")]
    pub models: Vec<ModelInfo>,
    /// Directories of its slot that are no usable package.
    pub broken: Vec<BrokenPackage>,
    /// Threads that compute.
    #[serde(default, skip_serializing_if = "is_default")]
    pub threads: u32,
    /// What loaded models together may take of memory, in bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_bytes: u64,
    /// A random number that this start of the worker has to itself; 0 where it does not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: u64,
    /// Which versions it speaks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub speaks: Spoken,
    /// The names of all its models, whatever else is said of them; none where it does not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub names: Vec<String>,
}

impl WorkerInfo {
    /// Whether it has a model called `name`.
    pub fn offers(&self, name: &str) -> bool {
        self.names.iter().any(|there| there == name)
            || self.models.iter().any(|model| model.name == name)
    }
}

/// A model of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name.
    pub name: String,
    /// Version, for people.
    pub version: String,
    /// What it does.
    pub task: Task,
    /// Width of an embedding.
    pub dim: u32,
    /// Digest of the package.
    pub digest: Digest,
    /// Longest text, in bytes.
    pub text_bytes_max: u32,
    /// Most texts in one request.
    pub batch_max: u32,
    /// Whether it is in memory.
    pub state: ModelState,
    /// Whether the name alone means this version.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub newest: bool,
    /// Whether it is to be loaded when the worker starts: it fits beside the others of which that is said.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub preload: bool,
    /// Longest sequence of tokens; of a model of bytes, how many numbers it looks at.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokens_max: u32,
    /// How the states of tokens become a vector.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pooling: Pooling,
    /// Whether it tells queries from passages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prefixes: bool,
    /// A label for each column of its scores; none where it gives none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Vec<String>,
    /// SPDX expression.
    #[serde(default, skip_serializing_if = "is_default")]
    pub licence: String,
    /// In which form its weights are, once it is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightForm>,
}

/// Whether a model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelState {
    /// It is read on its first use.
    OnDisk,
    /// It is ready, and was warmed up.
    Loaded,
    /// It is being read.
    Loading,
}

/// A directory that is no usable package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenPackage {
    /// Its name within the slot's `models` directory.
    pub dir: String,
    /// Why, with the whole chain of causes.
    pub message: String,
}

/// A model that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedInfo {
    /// How long loading took; 0 when it was loaded already.
    pub load_us: u64,
    /// What the whole worker process holds in memory now.
    pub resident_bytes: u64,
}

/// Embeddings of the texts of one request, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embeddings {
    /// Digest of the package that computed them.
    pub package: Digest,
    /// Width.
    pub dim: u32,
    /// `texts × dim` numbers, f32 little-endian, row by row.
    pub rows: Blob,
    /// Tokens of each text.
    pub tokens: Vec<u32>,
    /// Time spent computing.
    pub compute_us: u64,
    /// Time spent waiting before that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub queue_us: u64,
}

/// Scores of the inputs of one request, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scores {
    /// Digest of the package that computed them.
    pub package: Digest,
    /// Scores of one input: the number of [`ModelInfo::labels`], 1 for a reranker.
    pub columns: u32,
    /// `inputs × columns` numbers, f32 little-endian, row by row.
    pub rows: Blob,
    /// The label of each input, where one holds; empty for a reranker.
    pub labels: Vec<Option<String>>,
    /// Tokens of each input; of bytes, how many numbers were looked at.
    pub tokens: Vec<u32>,
    /// Time spent computing.
    pub compute_us: u64,
    /// Time spent waiting before that.
    pub queue_us: u64,
}

impl Embeddings {
    /// The rows as numbers; the last one is left out if the bytes do not fill it.
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        numbers(&self.rows, self.dim)
    }
}

impl Scores {
    /// The rows as numbers; the last one is left out if the bytes do not fill it.
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        numbers(&self.rows, self.columns)
    }
}

fn numbers(rows: &Blob, columns: u32) -> Vec<Vec<f32>> {
    let (words, _) = rows.as_slice().as_chunks::<4>();
    let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    numbers.chunks_exact((columns as usize).max(1)).map(<[f32]>::to_vec).collect()
}

/// What an assistant says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerInfo {
    /// Digest of the package that answered.
    pub package: Digest,
    /// Whether it answers.
    pub decision: Decision,
    /// Set exactly when it answers.
    pub answer: Option<AnswerText>,
    /// Id of the nearest entry, also when it abstains.
    pub nearest: Option<String>,
    /// Score of the nearest entry; -1 when there is none.
    pub score: f32,
    /// What the score had to reach.
    pub threshold: f32,
    /// Time spent computing.
    pub compute_us: u64,
    /// Time spent waiting before that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub queue_us: u64,
}

/// An answer of an FAQ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerText {
    /// Id of the entry.
    pub id: String,
    /// Language of the answer.
    pub lang: String,
    /// The entry's own question.
    pub question: String,
    /// The answer.
    pub text: String,
    /// Where it stands.
    pub source: String,
}

/// How often which values were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// The largest value of each bucket; above the last one there is one bucket more.
    pub bounds: Vec<u64>,
    /// How many values fell into each bucket, not into those below it too.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

/// Of one model, since the worker started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatistics {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Requests answered with a result.
    pub requests: u64,
    /// Texts, pairs or files in them.
    pub items: u64,
    /// Tokens computed.
    pub tokens: u64,
    /// Requests not done, by why.
    pub failures: Vec<(FailureKind, u64)>,
    /// Time of a request until its texts were tokens, in microseconds: waiting for it included.
    pub prepare_us: Histogram,
    /// Time of a request from there until its computing began, in microseconds.
    pub queue_us: Histogram,
    /// Time of a batch, in microseconds.
    pub compute_us: Histogram,
    /// Items of a batch.
    pub batch_items: Histogram,
    /// Tokens of a batch.
    pub batch_tokens: Histogram,
    /// How often it was loaded.
    pub loads: u64,
    /// How often it was unloaded.
    pub unloads: u64,
    /// How long loading took the last time, in microseconds.
    pub last_load_us: u64,
    /// What was computed at once, by the number of items.
    #[serde(default, skip_serializing_if = "is_default")]
    pub batches: Vec<BatchSize>,
}

/// All batches of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSize {
    /// Items of each.
    pub items: u32,
    /// How many there were.
    pub count: u64,
    /// Time of all of them, in microseconds.
    pub compute_us: u64,
}

/// Of the whole worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatistics {
    /// Requests that were accepted and are not answered.
    pub waiting_requests: u64,
    /// Tokens that wait to be computed.
    pub waiting_tokens: u64,
    /// What the process holds in memory.
    pub resident_bytes: u64,
    /// What the loaded models may take by what they say of themselves.
    pub loaded_bytes: u64,
    /// What they may take together.
    pub memory_bytes: u64,
    /// The models, by name and version.
    pub models: Vec<ModelStatistics>,
}

impl Call {
    /// The greeting of a gateway of this version.
    pub const fn hello() -> Self {
        Self::Hello { protocol: Spoken::OURS.newest, oldest: Spoken::OURS.oldest }
    }
}

const fn first() -> u16 {
    Spoken::FIRST.oldest
}

const fn is_first(version: &u16) -> bool {
    *version == first()
}

const fn yes() -> bool {
    true
}

const fn is_yes(said: &bool) -> bool {
    *said
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
