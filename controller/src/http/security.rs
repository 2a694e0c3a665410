//! `GET /api/v1/security`: messages that were refused.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{context::Context, refusal::Refusal};
use crate::link::judge::REASONS;

const RECENT: u32 = 100;

/// Counts by reason, zeros included, and the newest ones.
pub async fn show(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    let counted = context.store.refusal_counts().await?;
    let refused: Vec<Value> = REASONS
        .iter()
        .map(|reason| match counted.iter().find(|count| count.reason == *reason) {
            Some(count) => json!(count),
            None => json!({
                "reason": reason, "count": 0, "last_at": null, "last_device": null,
                "last_detail": null,
            }),
        })
        .collect();
    let recent = context.store.recent_refusals(RECENT).await?;
    Ok(Json(json!({ "refused": refused, "recent": recent })))
}
