//! What the gateway and a worker say to each other.
//!
//! Every message is one CBOR item in the canonical form of [`protocol::cbor`]. A request carries an id that the gateway
//! chooses and its response repeats; responses may come in another order than their requests.

use protocol::{blob::Blob, digest::Digest};
use serde::{Deserialize, Serialize};

use crate::{assistant::Decision, embedder::LongText, golden::GoldenReport, package::Task};

/// The version of this protocol. A worker answers a `Hello` of another version with its own, and the gateway decides.
pub const PROTOCOL: u16 = 1;

/// From the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Repeated by the response.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The request's; 0 when it could not be read.
    pub id: u64,
    /// What came of it.
    pub reply: Reply,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Call {
    /// Who are you? → [`Reply::Hello`].
    Hello {
        /// The gateway's [`PROTOCOL`].
        protocol: u16,
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
    },
    /// An answer from an assistant → [`Reply::Answer`].
    Ask {
        /// The model's name.
        model: String,
        /// The question.
        text: String,
        /// Consider only entries in this language.
        lang: Option<String>,
    },
    /// Are you there? → [`Reply::Pong`], at once, whatever else is being computed.
    Ping,
    /// Finish what was accepted, then end → [`Reply::Bye`].
    Shutdown,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerInfo {
    /// The worker's [`PROTOCOL`].
    pub protocol: u16,
    /// The release whose slot it serves, as it was told.
    pub release: Option<Digest>,
    /// Its process.
    pub pid: u32,
    /// What it computes on, for a person.
    pub device: String,
    /// The models of its slot.
    pub models: Vec<ModelInfo>,
    /// Directories of its slot that are no usable package.
    pub broken: Vec<BrokenPackage>,
}

/// A model of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

/// Whether a model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelState {
    /// It is read on its first use.
    OnDisk,
    /// It is ready.
    Loaded,
}

/// A directory that is no usable package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokenPackage {
    /// Its name within the slot's `models` directory.
    pub dir: String,
    /// Why, with the whole chain of causes.
    pub message: String,
}

/// A model that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedInfo {
    /// How long loading took; 0 when it was loaded already.
    pub load_us: u64,
    /// What the whole worker process holds in memory now.
    pub resident_bytes: u64,
}

/// Embeddings of the texts of one request, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

impl Embeddings {
    /// The rows as numbers; the last one is left out if the bytes do not fill it.
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        let (words, _) = self.rows.as_slice().as_chunks::<4>();
        let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        numbers.chunks_exact((self.dim as usize).max(1)).map(<[f32]>::to_vec).collect()
    }
}

/// What an assistant says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

/// An answer of an FAQ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// For the gateway to decide on.
    pub kind: FailureKind,
    /// For a person, with the whole chain of causes.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// No model of that name in the slot.
    UnknownModel,
    /// The model does not do that.
    WrongTask,
    /// A text is above the model's limit of bytes.
    TextTooLong,
    /// A text has more tokens than the model takes, and may not be cut.
    TooManyTokens,
    /// A text has nothing in it.
    EmptyText,
    /// No text, or more than one request may have.
    TextCount,
    /// The frame is too large, cut, or not a request. The connection is closed after it.
    BadFrame,
    /// The queue is full: try again shortly.
    Overloaded,
    /// The worker is ending.
    Stopping,
    /// The package cannot be loaded.
    CannotLoad,
    /// The model failed on this input.
    ModelFailed,
    /// The response would not fit into a frame.
    TooLarge,
}
