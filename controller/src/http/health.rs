//! Whether the controller works, and its figures.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use protocol::time::UnixMs;
use serde_json::{Value, json};

use super::{context::Context, refusal::Refusal};

/// `GET /healthz`: the store answers. A broker that is away is shown, but is no reason to restart the controller.
pub async fn healthz(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    context.store.newest_event_id().await?;
    Ok(Json(json!({ "status": "ok", "broker_connected": *context.connected.borrow() })))
}

/// `GET /metrics`.
pub async fn metrics(State(context): State<Arc<Context>>) -> Result<Response, Refusal> {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = context.metrics.text(&context.store).await?;
    Ok(([(header::CONTENT_TYPE, TYPE)], text).into_response())
}

/// `GET /api/v1/status`.
pub async fn status(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    let devices = context.store.devices().await?;
    let releases = context.store.releases().await?;
    let online = context.publisher.online_state().await?;
    let shown = |end: Option<(u64, UnixMs)>| {
        end.map(|(version, expires)| json!({ "version": version, "expires_at": expires }))
    };
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "fleet": context.settings.fleet,
        "public_url": context.public_url,
        "broker": context.broker,
        "broker_connected": *context.connected.borrow(),
        "now": context.clock.now(),
        "devices": devices.len(),
        "online": devices.iter().filter(|device| device.online).count(),
        "releases": releases.len(),
        "metadata": {
            "signed_here": online.ours,
            "snapshot": shown(online.snapshot),
            "timestamp": shown(online.timestamp),
        },
        "newest_event": *context.newest_event.borrow(),
        "controller_key": context.signer.public(),
        "ca": context.authority.digest(),
    })))
}
