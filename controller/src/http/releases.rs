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
use crate::{publication::Publication, store::releases::Release};

/// Body of `POST /api/v1/releases`: metadata that is new, and a release if there is one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    targets: Option<Blob>,
    #[serde(default)]
    roles: Vec<RoleDocument>,
    manifest: Option<Blob>,
    /// Both or none: for a repository whose root names other keys than the controller's.
    snapshot: Option<Blob>,
    timestamp: Option<Blob>,
}

/// Metadata of a delegated role.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleDocument {
    role: String,
    document: Blob,
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
    body: Result<Json<Body>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Json(Body { targets, roles, manifest, snapshot, timestamp }) = body?;
    let publication = Publication {
        targets: targets.map(Blob::into_vec),
        roles: roles.into_iter().map(|role| (role.role, role.document.into_vec())).collect(),
        manifest: manifest.map(Blob::into_vec),
        online: snapshot.zip(timestamp).map(|(s, t)| (s.into_vec(), t.into_vec())),
    };
    let Some(release) = context.publisher.publish(publication).await? else {
        tracing::info!("published metadata");
        return Ok((StatusCode::CREATED, Json(json!({ "release": null }))));
    };
    tracing::info!(release = release.digest.short(), name = release.name, "published a release");
    Ok((StatusCode::CREATED, Json(shown(&release))))
}

/// Body of `POST /api/v1/permits`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitBody {
    permit: Blob,
}

/// `POST /api/v1/permits`: a signed permit for one device to go back to one release. Assignments name it from then on.
pub async fn permit(
    State(context): State<Arc<Context>>,
    body: Result<Json<PermitBody>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Json(PermitBody { permit }) = body?;
    let fleet = &context.settings.fleet;
    let kept = context.publisher.permit(permit.into_vec(), fleet).await?;
    tracing::warn!(
        device = kept.device.short(),
        release = kept.release.short(),
        "a device may go back to an older release"
    );
    let answer = json!({
        "permit": kept.digest, "device": kept.device, "release": kept.release,
        "expires_at": kept.expires_at,
    });
    Ok((StatusCode::CREATED, Json(answer)))
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
        "environments": release.environments,
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
