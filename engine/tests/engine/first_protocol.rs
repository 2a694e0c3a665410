//! Protocol 1 between gateway and worker, as its software has it: it speaks no other version, refuses a message of which
//! it does not know all, and takes one encoding only. Frozen: the peer that newer versions are tested against. Shared with
//! the tests of the agent.

use protocol::{
    blob::Blob,
    cbor::{self, DecodeError},
    digest::Digest,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What both of its sides speak.
pub(crate) const PROTOCOL: u16 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) call: Call,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) reply: Reply,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Call {
    Hello { protocol: u16 },
    Load { model: String },
    Golden { model: String },
    Embed { model: String, texts: Vec<String>, long: LongText },
    Ask { model: String, text: String, lang: Option<String> },
    Ping,
    Shutdown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Reply {
    Hello(WorkerInfo),
    Loaded(LoadedInfo),
    Golden(GoldenReport),
    Embeddings(Embeddings),
    Answer(AnswerInfo),
    Pong,
    Bye,
    Failed(Failure),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerInfo {
    pub(crate) protocol: u16,
    pub(crate) release: Option<Digest>,
    pub(crate) pid: u32,
    pub(crate) device: String,
    pub(crate) models: Vec<ModelInfo>,
    pub(crate) broken: Vec<BrokenPackage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelInfo {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) task: Task,
    pub(crate) dim: u32,
    pub(crate) digest: Digest,
    pub(crate) text_bytes_max: u32,
    pub(crate) batch_max: u32,
    pub(crate) state: ModelState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ModelState {
    OnDisk,
    Loaded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrokenPackage {
    pub(crate) dir: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadedInfo {
    pub(crate) load_us: u64,
    pub(crate) resident_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Embeddings {
    pub(crate) package: Digest,
    pub(crate) dim: u32,
    pub(crate) rows: Blob,
    pub(crate) tokens: Vec<u32>,
    pub(crate) compute_us: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerInfo {
    pub(crate) package: Digest,
    pub(crate) decision: Decision,
    pub(crate) answer: Option<AnswerText>,
    pub(crate) nearest: Option<String>,
    pub(crate) score: f32,
    pub(crate) threshold: f32,
    pub(crate) compute_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerText {
    pub(crate) id: String,
    pub(crate) lang: String,
    pub(crate) question: String,
    pub(crate) text: String,
    pub(crate) source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    UnknownModel,
    WrongTask,
    TextTooLong,
    TooManyTokens,
    EmptyText,
    TextCount,
    BadFrame,
    Overloaded,
    Stopping,
    CannotLoad,
    ModelFailed,
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoldenReport {
    pub(crate) cases: u32,
    pub(crate) failed: u32,
    pub(crate) worst_cosine: f32,
    pub(crate) slowest_us: u64,
    pub(crate) failures: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Decision {
    Answered,
    Abstained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LongText {
    Cut,
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Task {
    Embedding,
    Assistant,
}

/// The bytes of a message in a frame.
pub(crate) fn written<T: Serialize>(message: &T) -> Vec<u8> {
    cbor::encode(message).unwrap()
}

/// The message in a frame, if it is one of this protocol.
pub(crate) fn read<T: DeserializeOwned + Serialize>(body: &[u8]) -> Result<T, DecodeError> {
    cbor::decode(body, 16 << 20)
}
