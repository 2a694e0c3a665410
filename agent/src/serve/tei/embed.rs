//! `/embed`: vectors; `/similarity`: how alike texts are.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::Request,
    response::{IntoResponse as _, Response},
};
use engine::{
    embedder::LongText, encoder_spec::InputKind, package::Task, worker::message::ModelInfo,
};
use serde::Deserialize;

use crate::serve::{
    body,
    context::Context,
    inference, ranking,
    refused::{Dialect, Refused},
    texts::Texts,
};

/// The tasks of models that embed.
pub const TASKS: [Task; 2] = [Task::Embedding, Task::Assistant];

#[derive(Debug, Deserialize)]
struct EmbedRequest {
    inputs: Texts,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<String>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default)]
    dimensions: Option<u32>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SimilarityRequest {
    inputs: Compared,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Compared {
    source_sentence: String,
    sentences: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<String>,
    #[serde(default)]
    prompt_name: Option<String>,
}

/// `POST /embed`, and `POST /` as a client sends it that was given the server's address alone.
pub async fn embed(State(context): State<Context>, request: Request<Body>) -> Response {
    match vectors(&context, request).await {
        Ok(vectors) => Json(vectors).into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

/// `POST /similarity`.
pub async fn similarity(State(context): State<Context>, request: Request<Body>) -> Response {
    match similarities(&context, request).await {
        Ok(scores) => Json(scores).into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

async fn vectors(context: &Context, request: Request<Body>) -> Result<Vec<Vec<f32>>, Refused> {
    let asked: EmbedRequest = body::json(request).await?;
    let long = long(asked.truncate, asked.truncation_direction.as_deref())?;
    let kind = kind(asked.prompt_name.as_deref())?;
    if asked.normalize == Some(false) {
        let message = "models here give unit vectors: leave `normalize` out, or true";
        return Err(Refused::bad("normalize", message));
    }
    let model = context.model_for(asked.model.as_deref(), &TASKS).await?;
    check_dimensions(&model, asked.dimensions)?;
    let embeddings = inference::embed(context, &model, asked.inputs.into_vec(), long, kind).await?;
    Ok(embeddings.vectors())
}

async fn similarities(context: &Context, request: Request<Body>) -> Result<Vec<f32>, Refused> {
    let SimilarityRequest { inputs, parameters, model } = body::json(request).await?;
    let long = long(parameters.truncate, parameters.truncation_direction.as_deref())?;
    let kind = kind(parameters.prompt_name.as_deref())?;
    if inputs.sentences.is_empty() {
        return Err(Refused::bad("no_texts", "`sentences` is empty; send at least one"));
    }
    let model = context.model_for(model.as_deref(), &TASKS).await?;
    let mut texts = inputs.sentences;
    texts.insert(0, inputs.source_sentence);
    let embeddings = inference::embed(context, &model, texts, long, kind).await?;
    Ok(ranking::similarities(&embeddings))
}

/// What is done with long texts.
///
/// # Errors
/// They are to be cut at their beginning.
pub fn long(truncate: Option<bool>, direction: Option<&str>) -> Result<LongText, Refused> {
    match direction {
        None | Some("Right" | "right") => {
            Ok(if truncate == Some(true) { LongText::Cut } else { LongText::Refuse })
        }
        Some(_) => Err(Refused::bad(
            "truncation_direction",
            "long texts are cut at their end only: `truncation_direction` must be `Right`",
        )),
    }
}

/// As what a text is meant; where a model makes no difference, it makes none.
fn kind(prompt: Option<&str>) -> Result<InputKind, Refused> {
    match prompt {
        None => Ok(InputKind::Plain),
        Some("query") => Ok(InputKind::Query),
        Some("passage" | "document") => Ok(InputKind::Passage),
        Some(name) => {
            let shown: String = name.chars().take(80).collect();
            let message = format!(
                "there is no prompt `{}`; there are `query` and `passage`",
                shown.escape_debug()
            );
            Err(Refused::bad("prompt_name", message))
        }
    }
}

/// That a model's vectors have as many numbers as wanted.
///
/// # Errors
/// They have not: a part of a vector would mean nothing.
pub fn check_dimensions(model: &ModelInfo, wanted: Option<u32>) -> Result<(), Refused> {
    match wanted.filter(|wanted| *wanted != model.dim) {
        None => Ok(()),
        Some(dimensions) => {
            let message = format!(
                "model `{}` makes embeddings of {} dimensions, not {dimensions}: leave `dimensions` out",
                model.name, model.dim
            );
            Err(Refused::bad("dimensions", message))
        }
    }
}
