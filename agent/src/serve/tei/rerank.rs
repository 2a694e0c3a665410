//! `/rerank`. Two kinds of clients ask here: those of text-embeddings-inference send `texts`, Cohere's `documents`.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::Request,
    response::{IntoResponse as _, Response},
};
use engine::worker::message::Scoring;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::serve::{
    body, cohere,
    context::Context,
    ranking,
    refused::{Dialect, Refused},
    tei::embed,
};

#[derive(Debug, Deserialize)]
struct RerankRequest {
    query: String,
    texts: Vec<String>,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
    #[serde(default)]
    model: Option<String>,
}

/// A text and how relevant it is.
#[derive(Debug, Serialize)]
struct Rank {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f32,
}

/// `POST /rerank`.
pub async fn rerank(State(context): State<Context>, request: Request<Body>) -> Response {
    let body = match body::bytes(request).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(Dialect::Tei),
    };
    let documents = body::parse::<Value>(&body).is_ok_and(|body| body.get("documents").is_some());
    if documents {
        return cohere::answer(&context, &body, cohere::Version::One).await;
    }
    match ranks(&context, &body).await {
        Ok(ranks) => Json(ranks).into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

async fn ranks(context: &Context, body: &[u8]) -> Result<Vec<Rank>, Refused> {
    let asked: RerankRequest = body::parse(body)?;
    let long = embed::long(asked.truncate, asked.truncation_direction.as_deref())?;
    let model = context.model_for(asked.model.as_deref(), &ranking::TASKS).await?;
    let given = asked.return_text.then(|| asked.texts.clone());
    let scoring = if asked.raw_scores { Scoring::Logits } else { Scoring::Scores };
    let compared = (asked.query, asked.texts);
    let (ranked, _) = ranking::rank(context, &model, compared, (long, scoring)).await?;
    let rank = |ranked: ranking::Ranked| Rank {
        index: ranked.index,
        text: given.as_ref().and_then(|texts| texts.get(ranked.index).cloned()),
        score: ranked.score,
    };
    Ok(ranked.into_iter().map(rank).collect())
}
