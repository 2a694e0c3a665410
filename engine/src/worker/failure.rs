//! Why a call to a worker was not done.

use serde::{Deserialize, Serialize};

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For the gateway to decide on.
    pub kind: FailureKind,
    /// For a person, with the whole chain of causes.
    pub message: String,
    /// In how many milliseconds it may be worth trying again; set exactly when [`FailureKind::Overloaded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

impl Failure {
    /// A failure that trying again does not mend.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after_ms: None }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// The queue is full: try again after [`Failure::retry_after_ms`].
    Overloaded,
    /// The worker is ending.
    Stopping,
    /// The package cannot be loaded.
    CannotLoad,
    /// The model failed on this input.
    ModelFailed,
    /// The response would not fit into a frame.
    TooLarge,
    /// Its deadline passed before it was computed.
    Expired,
    /// The model does not fit into the memory that the worker may use.
    NoMemory,
    /// What was given is not what the model takes.
    BadInput,
    /// The worker does not know this call, or not in this form: the other side is of another version.
    Unsupported,
    /// A kind that this version does not know. It is read, never written.
    #[serde(other)]
    Other,
}

impl FailureKind {
    /// All that a worker of this version says.
    pub const ALL: [Self; 16] = [
        Self::UnknownModel,
        Self::WrongTask,
        Self::TextTooLong,
        Self::TooManyTokens,
        Self::EmptyText,
        Self::TextCount,
        Self::BadFrame,
        Self::Overloaded,
        Self::Stopping,
        Self::CannotLoad,
        Self::ModelFailed,
        Self::TooLarge,
        Self::Expired,
        Self::NoMemory,
        Self::BadInput,
        Self::Unsupported,
    ];
}
