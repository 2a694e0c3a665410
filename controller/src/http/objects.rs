//! `HEAD` and `PUT /api/v1/objects/{sha256}`: the operator uploads what releases are made of.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::digest::Digest;

use super::{context::Context, refusal::Refusal};

/// A digest in a path.
pub fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .map_err(|error: protocol::digest::NotADigest| Refusal::malformed(error.to_string()))
}

/// Whether an object is there, and how large.
pub async fn head(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let digest = digest(&name)?;
    match context.artifacts.length(digest).await? {
        Some(length) => Ok(([(header::CONTENT_LENGTH, length)], Body::empty()).into_response()),
        None => Err(Refusal::absent(format!("object {} is not uploaded", digest.short()))),
    }
}

/// Stores an object. One that is there already is not read again.
pub async fn put(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let digest = digest(&name)?;
    let length = context.artifacts.put(digest, body).await?;
    tracing::info!(object = digest.short(), length, "stored an object");
    Ok(StatusCode::CREATED)
}
