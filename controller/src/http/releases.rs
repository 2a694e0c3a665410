//! Roots and releases.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use protocol::blob::Blob;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{context::Context, refusal::Refusal};
use crate::store::releases::Release;

/// Body of `POST /api/v1/releases`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    targets: Blob,
    manifest: Blob,
}

/// `POST /api/v1/root`: the signed root, as it is.
pub async fn publish_root(
    State(context): State<Arc<Context>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let version = context.publisher.root(body.to_vec()).await?;
    tracing::info!(version, "published a root");
    Ok((StatusCode::CREATED, Json(json!({ "version": version }))))
}

/// `POST /api/v1/releases`.
pub async fn publish(
    State(context): State<Arc<Context>>,
    body: Result<Json<Publication>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Json(Publication { targets, manifest }) = body?;
    let release = context.publisher.release(targets.into_vec(), manifest.into_vec()).await?;
    tracing::info!(release = release.digest.short(), name = release.name, "published a release");
    Ok((StatusCode::CREATED, Json(shown(&release))))
}

/// `GET /api/v1/releases`.
pub async fn list(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    let releases = context.store.releases().await?;
    let releases: Vec<Value> = releases.iter().map(shown).collect();
    Ok(Json(json!({ "releases": releases })))
}

fn shown(release: &Release) -> Value {
    json!({
        "release": release.digest,
        "short": release.digest.short(),
        "name": release.name,
        "counter": release.counter,
        "targets_version": release.targets_version,
        "manifest_bytes": release.manifest_bytes,
        "agent_version": release.agent_version,
        "published_at": release.published_at,
    })
}

/// The release that a person or program names, by digest or by name.
pub async fn named(context: &Context, name: &str) -> Result<Release, Refusal> {
    context.store.release(name).await?.ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        Refusal::absent(format!("no release `{name}`; `socle release publish` first"))
    })
}
