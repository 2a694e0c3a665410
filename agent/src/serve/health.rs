//! `/healthz`, `/livez`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    observe::{exposition, status::WorkerHealth},
    serve::{
        context::Context,
        refused::{Dialect, Refused},
    },
};

/// Longest wait for what the worker counts: whoever scrapes waits for it.
const STATISTICS_MAX: Duration = Duration::from_secs(1);

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

/// Figures for Prometheus, in OpenMetrics where that is asked for.
pub async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    let models: Vec<String> = context.status.look(|snapshot| {
        context.metrics.ready.set(i64::from(snapshot.ready()));
        match &snapshot.worker {
            WorkerHealth::Ready { models, .. } => {
                models.iter().map(|model| model.name.clone()).collect()
            }
            WorkerHealth::Absent { .. } | WorkerHealth::Starting | WorkerHealth::Down { .. } => {
                Vec::new()
            }
        }
    });
    // One that is not there is not started for this.
    if let (Some(worker), false) = (&context.worker, models.is_empty()) {
        match worker.statistics(STATISTICS_MAX).await {
            Ok(statistics) => context.metrics.worker.show(statistics),
            Err(reason) => tracing::debug!(%reason, "the worker does not say what it counts"),
        }
    }
    for model in models {
        context.metrics.inference.know(&model);
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    match context.metrics.text() {
        Ok(text) if accept.is_some_and(exposition::wants_openmetrics) => {
            ([(header::CONTENT_TYPE, exposition::OPENMETRICS)], text).into_response()
        }
        Ok(text) => {
            let text = exposition::classic(&text);
            ([(header::CONTENT_TYPE, exposition::CLASSIC)], text).into_response()
        }
        Err(reason) => {
            Refused::internal(&format!("writing metrics: {reason}")).into_response(Dialect::OpenAi)
        }
    }
}
