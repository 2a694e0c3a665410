//! `/v1/ask`: a question to the FAQ assistant.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use engine::{
    assistant::Decision,
    package::Task,
    worker::message::{AnswerInfo, ModelInfo},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::serve::{
    body,
    context::Context,
    inference,
    refused::{Dialect, Refused},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    question: String,
    /// The first assistant when left out.
    #[serde(default)]
    model: Option<String>,
    /// Only entries in this language.
    #[serde(default)]
    lang: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize)]
struct Answered {
    decision: Decision,
    answer: Option<String>,
    /// Where the answer stands.
    source: Option<String>,
    /// Id of the nearest entry, also when the assistant abstains.
    entry: Option<String>,
    /// That entry's own question, when it is the answer.
    matched: Option<String>,
    lang: Option<String>,
    score: f32,
    threshold: f32,
    model: String,
    model_version: String,
    release: Option<String>,
    slot: Option<&'static str>,
    latency_ms: f64,
}

/// `POST /v1/ask`.
pub async fn ask(State(context): State<Context>, request: Request<Body>) -> Response {
    let began = Instant::now();
    match answer(&context, request, began).await {
        Ok(answered) => Json(answered).into_response(),
        Err(refused) => refused.into_response(Dialect::OpenAi),
    }
}

async fn answer(
    context: &Context,
    request: Request<Body>,
    began: Instant,
) -> Result<Answered, Refused> {
    let question: Question = body::json(request).await?;
    let model = match &question.model {
        Some(name) => context.model(name).await?,
        None => first_assistant(context.models().await?)?,
    };
    let info = inference::answer(context, &model, question.question, question.lang).await?;
    match info.decision {
        Decision::Answered => context.metrics.answered.inc(),
        Decision::Abstained => context.metrics.abstained.inc(),
    };
    let (release, slot) = context.origin();
    let release = release.map(|release| release.to_string());
    Ok(Answered::new(info, model, (release, slot), began.elapsed().as_secs_f64() * 1000.0))
}

fn first_assistant(models: Vec<ModelInfo>) -> Result<ModelInfo, Refused> {
    models.into_iter().find(|model| model.task == Task::Assistant).ok_or_else(|| {
        let message = "this release has no assistant; it answers /v1/embeddings only";
        Refused::new(StatusCode::NOT_FOUND, "no_assistant", message)
    })
}

impl Answered {
    fn new(
        info: AnswerInfo,
        model: ModelInfo,
        (release, slot): (Option<String>, Option<&'static str>),
        latency_ms: f64,
    ) -> Self {
        let (answer, source, matched, lang) = match info.answer {
            Some(text) => {
                (Some(text.text), Some(text.source), Some(text.question), Some(text.lang))
            }
            None => (None, None, None, None),
        };
        Self {
            decision: info.decision,
            answer,
            source,
            entry: info.nearest,
            matched,
            lang,
            score: info.score,
            threshold: info.threshold,
            model: model.name,
            model_version: model.version,
            release,
            slot,
            latency_ms: (latency_ms * 1000.0).round() / 1000.0,
        }
    }
}
