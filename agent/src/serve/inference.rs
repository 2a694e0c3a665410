//! Asking the worker, in the one place where it is measured.

use std::time::Duration;

use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    text_tokenizer::{Special, Tokens},
    worker::message::{
        AnswerInfo, BytesInput, Embeddings, ModelInfo, Scores, Scoring, Terms, TextInput,
    },
};

use crate::{
    observe::figures::Work,
    serve::{
        context::{CALL_MAX, Context},
        refused::Refused,
        trail,
    },
};

/// The embeddings of `texts`.
///
/// # Errors
/// There is no worker, or it refuses; so for all calls below.
pub async fn embed(
    context: &Context,
    model: &ModelInfo,
    texts: Vec<String>,
    long: LongText,
    kind: InputKind,
) -> Result<Embeddings, Refused> {
    let (name, terms, within) = asked(model);
    let embeddings = context.worker()?.embed(&name, texts, long, kind, terms, within).await?;
    note(context, embeddings.queue_us, embeddings.compute_us, &embeddings.tokens);
    Ok(embeddings)
}

/// An assistant's answer to `question`.
///
/// # Errors
/// See [`embed`].
pub async fn answer(
    context: &Context,
    model: &ModelInfo,
    question: String,
    lang: Option<String>,
) -> Result<AnswerInfo, Refused> {
    let (name, terms, within) = asked(model);
    let answer = context.worker()?.answer(&name, question, lang, terms, within).await?;
    note(context, answer.queue_us, answer.compute_us, &[0]);
    Ok(answer)
}

/// Scores of a classifier's labels.
///
/// # Errors
/// See [`embed`].
pub async fn classify(
    context: &Context,
    model: &ModelInfo,
    inputs: Vec<TextInput>,
    how: (LongText, Scoring),
) -> Result<Scores, Refused> {
    let (name, terms, within) = asked(model);
    let scores = context.worker()?.classify(&name, inputs, how, terms, within).await?;
    note(context, scores.queue_us, scores.compute_us, &scores.tokens);
    Ok(scores)
}

/// How relevant each of the documents is to the query, by a model made for that.
///
/// # Errors
/// See [`embed`].
pub async fn rerank(
    context: &Context,
    model: &ModelInfo,
    compared: (String, Vec<String>),
    how: (LongText, Scoring),
) -> Result<Scores, Refused> {
    let (name, terms, within) = asked(model);
    let scores = context.worker()?.rerank(&name, compared, how, terms, within).await?;
    note(context, scores.queue_us, scores.compute_us, &scores.tokens);
    Ok(scores)
}

/// Scores of the labels of a model of bytes.
///
/// # Errors
/// See [`embed`].
pub async fn bytes(
    context: &Context,
    model: &ModelInfo,
    input: BytesInput,
) -> Result<Scores, Refused> {
    let (name, terms, within) = asked(model);
    let scores = context.worker()?.bytes(&name, input, terms, within).await?;
    note(context, scores.queue_us, scores.compute_us, &scores.tokens);
    Ok(scores)
}

/// How `texts` are read.
///
/// # Errors
/// See [`embed`].
pub async fn tokenize(
    context: &Context,
    model: &ModelInfo,
    texts: Vec<String>,
    special: Special,
) -> Result<Vec<Tokens>, Refused> {
    let (name, _, within) = asked(model);
    Ok(context.worker()?.tokenize(&name, texts, special, within).await?)
}

/// The texts that `ids` stand for.
///
/// # Errors
/// See [`embed`].
pub async fn decode(
    context: &Context,
    model: &ModelInfo,
    ids: Vec<Vec<u32>>,
    special: Special,
) -> Result<Vec<String>, Refused> {
    let (name, _, within) = asked(model);
    Ok(context.worker()?.decode(&name, ids, special, within).await?)
}

/// The model as the worker knows it, how soon its answer is wanted, and how long it is waited for. The worker does not
/// compute what nobody waits for any more.
fn asked(model: &ModelInfo) -> (String, Terms, Duration) {
    trail::asks(&model.name);
    let within = trail::time_left(CALL_MAX);
    let deadline_us = u64::try_from(within.as_micros()).ok();
    (format!("{}@{}", model.name, model.version), Terms { deadline_us, ..Terms::default() }, within)
}

fn note(context: &Context, queue_us: u64, compute_us: u64, tokens: &[u32]) {
    let items = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    let tokens = tokens.iter().copied().map(u64::from).sum();
    context.metrics.texts.inc_by(u64::from(items));
    context.metrics.tokens.inc_by(tokens);
    trail::computed(Work {
        items,
        tokens,
        queue: Duration::from_micros(queue_us),
        compute: Duration::from_micros(compute_us),
    });
}
