//! The Open Inference Protocol v2 over REST: health, metadata, inference.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    worker::message::{ModelInfo, Terms},
};
use serde::Serialize;
use serde_json::json;

use crate::serve::{
    body,
    context::{CALL_MAX, Context},
    refused::{Dialect, Refused},
    tensor::{self, InferRequest, InferResponse},
};

/// `GET /v2`.
pub async fn server() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({ "name": "socle", "version": version, "extensions": [] })).into_response()
}

/// `GET /v2/health/live`.
pub async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

/// `GET /v2/health/ready`.
pub async fn ready(State(context): State<Context>) -> Response {
    let ready = context.status.look(|snapshot| snapshot.ready());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

/// `GET /v2/models/{model}`.
pub async fn model(State(context): State<Context>, Path(name): Path<String>) -> Response {
    respond(context.model(&name).await.map(|model| tensor::metadata(&model)))
}

/// `GET /v2/models/{model}/versions/{version}`.
pub async fn model_version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
) -> Response {
    respond(versioned(&context, &name, &version).await.map(|model| tensor::metadata(&model)))
}

/// `GET /v2/models/{model}/ready`.
pub async fn model_ready(State(context): State<Context>, Path(name): Path<String>) -> Response {
    match context.model(&name).await {
        Ok(model) => {
            let ready = context.is_loaded(&model);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, Json(json!({ "name": model.name, "ready": ready }))).into_response()
        }
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}

/// `POST /v2/models/{model}/infer`.
pub async fn infer(
    State(context): State<Context>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    respond(match context.model(&name).await {
        Ok(model) => infer_by(&context, model, request).await,
        Err(refused) => Err(refused),
    })
}

/// `POST /v2/models/{model}/versions/{version}/infer`.
pub async fn infer_version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    respond(match versioned(&context, &name, &version).await {
        Ok(model) => infer_by(&context, model, request).await,
        Err(refused) => Err(refused),
    })
}

async fn infer_by(
    context: &Context,
    model: ModelInfo,
    request: Request<Body>,
) -> Result<InferResponse, Refused> {
    let mut request: InferRequest = body::json(request).await?;
    let id = request.id.take();
    let long = if request.truncate()? { LongText::Cut } else { LongText::Refuse };
    let texts = request.texts(&model.name)?;
    let embeddings = context
        .worker()?
        .embed(&model.name, texts, long, InputKind::Plain, Terms::default(), CALL_MAX)
        .await?;
    context.metrics.texts.inc_by(embeddings.tokens.len() as u64);
    context.metrics.tokens.inc_by(embeddings.tokens.iter().copied().map(u64::from).sum());
    Ok(tensor::response(id, model, &embeddings))
}

async fn versioned(context: &Context, name: &str, version: &str) -> Result<ModelInfo, Refused> {
    let model = context.model(name).await?;
    if model.version == version {
        return Ok(model);
    }
    let shown: String = version.chars().take(80).collect();
    let message = format!(
        "model `{}` has no version `{}` here; there is: {}",
        model.name,
        shown.escape_debug(),
        model.version
    );
    Err(Refused::new(StatusCode::NOT_FOUND, "version_not_found", message))
}

fn respond<T: Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}
