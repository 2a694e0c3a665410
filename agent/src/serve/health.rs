//! `/healthz`, `/livez`, `/readyz`, `/metrics`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::serve::{
    context::Context,
    refused::{Dialect, Refused},
};

/// What Prometheus expects.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers: enough to keep it running.
pub async fn livez() -> Response {
    Json(json!({ "live": true })).into_response()
}

/// The process answers; says as well whether models can be asked.
pub async fn healthz(State(context): State<Context>) -> Response {
    let reason = context.status.look(|snapshot| snapshot.not_ready());
    Json(json!({ "live": true, "ready": reason.is_none(), "reason": reason })).into_response()
}

/// Models can be asked: enough to send requests here.
pub async fn readyz(State(context): State<Context>) -> Response {
    match context.status.look(|snapshot| snapshot.not_ready()) {
        None => Json(json!({ "ready": true })).into_response(),
        Some(reason) => {
            let body = Json(json!({ "ready": false, "reason": reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// Figures for Prometheus.
pub async fn metrics(State(context): State<Context>) -> Response {
    context.metrics.ready.set(i64::from(context.status.look(|snapshot| snapshot.ready())));
    match context.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(reason) => {
            Refused::internal(&format!("writing metrics: {reason}")).into_response(Dialect::OpenAi)
        }
    }
}
