//! `POST /api/v1/tokens`: a token that lets one device join.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use protocol::id::Environment;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{context::Context, refusal::Refusal};
use crate::enrol::{self, TOKEN_MS};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    ttl_s: Option<u64>,
    environment: Option<Environment>,
}

/// Makes a token; the body may be empty.
pub async fn create(
    State(context): State<Arc<Context>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let asked: Asked = if body.is_empty() {
        Asked::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal::malformed(error.to_string()))?
    };
    let ttl_ms = asked.ttl_s.map_or(TOKEN_MS, |ttl_s| ttl_s.saturating_mul(1000));
    if ttl_ms == 0 || ttl_ms > TOKEN_MS {
        return Err(Refusal::unprocessable(
            "ttl",
            format!("a token holds 1 to {} seconds", TOKEN_MS / 1000),
        ));
    }
    let now = context.clock.now();
    let times = (now, now.plus(ttl_ms));
    let environment = asked.environment.unwrap_or_else(Environment::production);
    let place = (&context.settings.fleet, environment.clone());
    let token = enrol::new_token(&context.store, &context.authority, place, times).await?;
    let text = token.to_text().map_err(|error| Refusal::internal(&error))?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "token": text, "environment": environment, "expires_at": token.expires_at })),
    ))
}
