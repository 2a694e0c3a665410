//! `/info`: the model that is asked when none is named, and the limits; `/health`.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use crate::{
    serve::{
        body::BODY_BYTES_MAX,
        context::Context,
        refused::{Dialect, Refused},
        tei::embed::TASKS,
    },
    worker::client::IN_FLIGHT_MAX,
};

/// `GET /info`.
pub async fn info(State(context): State<Context>) -> Response {
    match context.model_for(None, &TASKS).await {
        Ok(model) => Json(json!({
            "model_id": model.name,
            "model_sha": model.digest,
            "model_dtype": model.weights.map_or_else(|| "unknown".to_owned(), |form| form.to_string()),
            "model_type": { "embedding": { "pooling": model.pooling } },
            "max_input_length": model.tokens_max,
            "max_concurrent_requests": IN_FLIGHT_MAX,
            "max_client_batch_size": model.batch_max,
            "max_text_bytes": model.text_bytes_max,
            "payload_limit": BODY_BYTES_MAX,
            "auto_truncate": false,
            "version": env!("CARGO_PKG_VERSION"),
        }))
        .into_response(),
        Err(refused) => refused.into_response(Dialect::Tei),
    }
}

/// `GET /health`: models can be asked.
pub async fn health(State(context): State<Context>) -> Response {
    match context.status.look(|snapshot| snapshot.not_ready()) {
        None => StatusCode::OK.into_response(),
        Some(reason) => Refused::unavailable("not_ready", reason).into_response(Dialect::Tei),
    }
}
