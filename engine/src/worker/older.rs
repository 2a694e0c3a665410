//! What is said to a peer that speaks an older version, in the words that it knows. Pure.
//!
//! Version 1 reads a message only if it knows all of it. A field that has its default is not written, so a message of
//! today is one of version 1 when all that came later has its default.

use crate::{
    package::Task,
    worker::{
        failure::{Failure, FailureKind},
        message::{Call, ModelInfo, ModelState, Reply, Terms, WorkerInfo},
        spoken::Spoken,
    },
};

const FIRST: u16 = Spoken::FIRST.newest;

/// `call` for a worker that speaks `version`; none where that version has no such call.
pub fn call(call: Call, version: u16) -> Option<Call> {
    if version > FIRST {
        return Some(call);
    }
    match call {
        Call::Embed { model, texts, long, kind, terms: _ } if kind.is_plain() => {
            Some(Call::Embed { model, texts, long, kind, terms: Terms::default() })
        }
        Call::Ask { model, text, lang, terms: _ } => {
            Some(Call::Ask { model, text, lang, terms: Terms::default() })
        }
        Call::Hello { .. }
        | Call::Load { .. }
        | Call::Golden { .. }
        | Call::Ping
        | Call::Shutdown => Some(call),
        Call::Embed { .. }
        | Call::Classify { .. }
        | Call::Rerank { .. }
        | Call::Bytes { .. }
        | Call::Tokenize { .. }
        | Call::Decode { .. }
        | Call::Statistics
        | Call::Unload { .. } => None,
    }
}

/// `reply` for a gateway that speaks `version`.
pub fn reply(reply: Reply, version: u16) -> Reply {
    if version > FIRST {
        return reply;
    }
    match reply {
        Reply::Hello(info) => Reply::Hello(introduction(info)),
        Reply::Failed(failure) => Reply::Failed(refusal(failure)),
        Reply::Embeddings(mut embeddings) => {
            embeddings.queue_us = 0;
            Reply::Embeddings(embeddings)
        }
        Reply::Answer(mut answer) => {
            answer.queue_us = 0;
            Reply::Answer(answer)
        }
        Reply::Loaded(_) | Reply::Golden(_) | Reply::Pong | Reply::Bye => reply,
        // To calls that version 1 does not have.
        Reply::Scores(_)
        | Reply::Tokens(_)
        | Reply::Texts(_)
        | Reply::Statistics(_)
        | Reply::Unloaded => {
            Reply::Failed(Failure::new(FailureKind::BadFrame, "protocol 1 has no such call"))
        }
    }
}

fn introduction(info: WorkerInfo) -> WorkerInfo {
    let WorkerInfo { protocol, release, pid, device, models, broken, .. } = info;
    let models = models.into_iter().map(|model| ModelInfo {
        // Version 1 knows two; whoever asks in it asks for the names.
        task: match model.task {
            Task::Embedding | Task::Assistant => model.task,
            Task::Classification | Task::Rerank | Task::Bytes => Task::Embedding,
        },
        state: match model.state {
            ModelState::Loaded => ModelState::Loaded,
            ModelState::OnDisk | ModelState::Loading => ModelState::OnDisk,
        },
        newest: true,
        preload: true,
        tokens_max: 0,
        pooling: Default::default(),
        prefixes: false,
        labels: Vec::new(),
        licence: String::new(),
        weights: None,
        ..model
    });
    let (speaks, names) = (Spoken::FIRST, Vec::new());
    let (threads, memory_bytes, start, models) = (0, 0, 0, models.collect());
    WorkerInfo {
        protocol,
        release,
        pid,
        device,
        models,
        broken,
        threads,
        memory_bytes,
        start,
        speaks,
        names,
    }
}

fn refusal(failure: Failure) -> Failure {
    let kind = match failure.kind {
        FailureKind::Expired | FailureKind::Other => FailureKind::ModelFailed,
        FailureKind::NoMemory => FailureKind::CannotLoad,
        FailureKind::BadInput => FailureKind::WrongTask,
        FailureKind::Unsupported => FailureKind::BadFrame,
        FailureKind::UnknownModel
        | FailureKind::WrongTask
        | FailureKind::TextTooLong
        | FailureKind::TooManyTokens
        | FailureKind::EmptyText
        | FailureKind::TextCount
        | FailureKind::BadFrame
        | FailureKind::Overloaded
        | FailureKind::Stopping
        | FailureKind::CannotLoad
        | FailureKind::ModelFailed
        | FailureKind::TooLarge => failure.kind,
    };
    Failure { kind, retry_after_ms: None, message: failure.message }
}
