//! The routes of the REST form: health, metadata, configuration, inference.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use engine::worker::message::ModelInfo;
use serde::Serialize;
use serde_json::{Value, json};

use crate::serve::{
    body,
    context::Context,
    kserve::{answer, binary, json::Answering, signature},
    refused::{Dialect, Refused},
};

/// What is served beyond the protocol itself, by Triton's names.
pub const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"];
/// Name of the server.
pub const SERVER: &str = "socle";

/// `GET /v2`.
pub async fn server() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({ "name": SERVER, "version": version, "extensions": EXTENSIONS })).into_response()
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
    respond(context.model(&name).await.map(|model| signature::metadata(&model)))
}

/// `GET /v2/models/{model}/versions/{version}`.
pub async fn model_version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
) -> Response {
    respond(versioned(&context, &name, &version).await.map(|model| signature::metadata(&model)))
}

/// `GET /v2/models/{model}/ready`.
pub async fn model_ready(State(context): State<Context>, Path(name): Path<String>) -> Response {
    readiness(&context, context.model(&name).await)
}

/// `GET /v2/models/{model}/versions/{version}/ready`.
pub async fn model_version_ready(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
) -> Response {
    readiness(&context, versioned(&context, &name, &version).await)
}

/// `GET /v2/models/{model}/config`.
pub async fn config(State(context): State<Context>, Path(name): Path<String>) -> Response {
    respond(context.model(&name).await.map(|model| configuration(&model)))
}

/// `GET /v2/models/{model}/versions/{version}/config`.
pub async fn config_version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
) -> Response {
    respond(versioned(&context, &name, &version).await.map(|model| configuration(&model)))
}

/// `POST /v2/models/{model}/infer`.
pub async fn infer(
    State(context): State<Context>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answered = match context.model(&name).await {
        Ok(model) => infer_by(&context, model, request).await,
        Err(refused) => Err(refused),
    };
    answered.unwrap_or_else(|refused| refused.into_response(Dialect::Kserve))
}

/// `POST /v2/models/{model}/versions/{version}/infer`.
pub async fn infer_version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    let answered = match versioned(&context, &name, &version).await {
        Ok(model) => infer_by(&context, model, request).await,
        Err(refused) => Err(refused),
    };
    answered.unwrap_or_else(|refused| refused.into_response(Dialect::Kserve))
}

async fn infer_by(
    context: &Context,
    model: ModelInfo,
    request: Request<Body>,
) -> Result<Response, Refused> {
    let headers = request.headers().clone();
    let body = body::bytes(request).await?;
    let (mut inference, as_bytes) = binary::read(&headers, body)?;
    let id = inference.id.take();
    let outputs = answer::infer(context, &model, inference).await?;
    let answering = Answering { id: id.as_deref(), model: &model.name, version: &model.version };
    Ok(binary::write(answering, &outputs, &as_bytes))
}

/// The model of this name and version; any version when `version` is empty.
///
/// # Errors
/// There is none.
pub async fn versioned(context: &Context, name: &str, version: &str) -> Result<ModelInfo, Refused> {
    let model = context.model(name).await?;
    if version.is_empty() || model.version == version {
        return Ok(model);
    }
    if let Ok(other) = context.model(&format!("{name}@{version}")).await {
        return Ok(other);
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

fn readiness(context: &Context, model: Result<ModelInfo, Refused>) -> Response {
    match model {
        Ok(model) => {
            let ready = context.is_loaded(&model);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, Json(json!({ "name": model.name, "ready": ready }))).into_response()
        }
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}

/// Triton's form of a model's configuration. The batch is part of each shape (`max_batch_size` 0), since requests of any
/// size are taken and texts of several requests are computed together.
fn configuration(model: &ModelInfo) -> Value {
    let ports = |ports: Vec<signature::Port>| -> Vec<Value> {
        let one = |port: &signature::Port| json!({ "name": port.name, "data_type": port.config_type(), "dims": port.shape });
        ports.iter().map(one).collect()
    };
    json!({
        "name": model.name,
        "platform": signature::PLATFORM,
        "backend": signature::BACKEND,
        "version_policy": { "latest": { "num_versions": 1 } },
        "max_batch_size": 0,
        "input": ports(signature::inputs(model)),
        "output": ports(signature::outputs(model)),
        "parameters": parameters(model).into_iter()
            .map(|(key, value)| (key, json!({ "string_value": value })))
            .collect::<serde_json::Map<_, _>>(),
    })
}

/// What else there is to know of a model before asking it.
pub fn parameters(model: &ModelInfo) -> Vec<(String, String)> {
    let weights = model.weights.map(|form| ("weights".to_owned(), form.to_string()));
    let always = [
        ("version".into(), model.version.clone()),
        ("package_sha256".into(), model.digest.to_string()),
        ("texts_per_request_max".into(), model.batch_max.to_string()),
        ("text_bytes_max".into(), model.text_bytes_max.to_string()),
    ];
    always.into_iter().chain(weights).collect()
}

fn respond<T: Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}
