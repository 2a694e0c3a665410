//! Rollouts, as the API shows them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use protocol::{
    id::{DeviceId, Environment},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{context::Context, refusal::Refusal, releases};
use crate::{
    rollout::{
        drive::{self, View},
        plan,
    },
    store::{database::StoreError, devices::Device, rollouts::Rollout},
    waves::{Gate, Policy, RolloutState, Wave},
};

const SHOWN_MAX: u32 = 100;
const REASON_MAX: usize = 500;

/// Body of `POST /api/v1/rollouts`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    release: String,
    waves: Vec<Wave>,
    gate: Gate,
}

/// Body of `POST /api/v1/rollouts/{id}/halt`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    reason: String,
}

/// A rollout with its waves.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its number.
    pub id: u64,
    /// What it brings.
    pub release: protocol::digest::Digest,
    /// That release's name.
    pub name: String,
    /// `running`, `complete` or `halted`.
    pub state: RolloutState,
    /// Why.
    pub reason: String,
    /// When it was started.
    pub created_at: UnixMs,
    /// When its state last changed.
    pub changed_at: UnixMs,
    /// The gate of every wave.
    pub gate: Gate,
    /// Its waves.
    pub waves: Vec<ShownWave>,
}

/// A wave with its devices.
#[derive(Clone, Debug, Serialize)]
pub struct ShownWave {
    /// Its name.
    pub name: String,
    /// `pending`, `running`, `passed` or `failed`.
    pub state: &'static str,
    /// Its devices, those that would come next included.
    pub devices: Vec<ShownDevice>,
}

/// A device in a wave.
#[derive(Clone, Debug, Serialize)]
pub struct ShownDevice {
    /// Who.
    pub id: DeviceId,
    /// `pending`, or a [`crate::waves::Status`].
    pub status: &'static str,
    /// In words.
    pub detail: String,
}

/// `POST /api/v1/rollouts`.
pub async fn start(
    State(context): State<Arc<Context>>,
    body: Result<Json<Start>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Json(Start { release, waves, gate }) = body?;
    let policy = Policy { waves, gate };
    policy.check().map_err(|error| Refusal::unprocessable("policy", error.to_string()))?;
    let release = releases::named(&context, &release).await?;
    if context.store.is_halted(release.digest).await? {
        let message = format!(
            "release `{}` was halted for this fleet; build a new one with a higher counter",
            release.name
        );
        return Err(Refusal::conflict("release-halted", message));
    }
    let devices = context.store.devices().await?;
    let meant = |device: &Device| release.environments.contains(&device.environment);
    if !devices.is_empty() && !devices.iter().any(meant) {
        let names: Vec<&str> = release.environments.iter().map(Environment::as_str).collect();
        let message = format!(
            "release `{}` is signed for {}, where no device is enrolled; promote it with `socle release promote`, or enrol devices there",
            release.name,
            if names.is_empty() { "no environment".to_owned() } else { names.join(", ") },
        );
        return Err(Refusal::conflict("environment", message));
    }
    let now = context.clock.now();
    let started = context.store.start_rollout(release.digest, &policy, now).await?;
    let id = started.ok_or_else(|| {
        Refusal::conflict(
            "rollout-running",
            "another rollout is running; wait for its end or halt it first",
        )
    })?;
    tracing::info!(rollout = id, release = release.digest.short(), "started a rollout");
    context.news.notify_one();
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

/// `GET /api/v1/rollouts`.
pub async fn list(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    let rollouts = context.store.rollouts(SHOWN_MAX).await?;
    let mut shown = Vec::with_capacity(rollouts.len());
    for rollout in &rollouts {
        shown.push(self::shown(&context, rollout).await?);
    }
    Ok(Json(json!({ "rollouts": shown })))
}

/// `GET /api/v1/rollouts/{id}`.
pub async fn show(
    State(context): State<Arc<Context>>,
    Path(id): Path<u64>,
) -> Result<Json<Shown>, Refusal> {
    let rollout = named(&context, id).await?;
    Ok(Json(shown(&context, &rollout).await?))
}

/// `POST /api/v1/rollouts/{id}/halt`.
pub async fn halt(
    State(context): State<Arc<Context>>,
    Path(id): Path<u64>,
    body: Result<Json<Reason>, JsonRejection>,
) -> Result<Json<Shown>, Refusal> {
    let Json(Reason { reason }) = body?;
    if reason.trim().is_empty() || reason.chars().count() > REASON_MAX {
        let message = format!("give a reason of 1 to {REASON_MAX} characters");
        return Err(Refusal::unprocessable("reason", message));
    }
    let rollout = named(&context, id).await?;
    let now = context.clock.now();
    if !drive::halt(&context.store, &context.outgoing, &rollout, &reason, now).await? {
        let message = format!("rollout {id} is {}, only a running one can be halted", {
            rollout.state.as_str()
        });
        return Err(Refusal::conflict("not-running", message));
    }
    tracing::warn!(rollout = id, "halted by an operator: {reason}");
    let rollout = named(&context, id).await?;
    Ok(Json(shown(&context, &rollout).await?))
}

async fn named(context: &Context, id: u64) -> Result<Rollout, Refusal> {
    let found = context.store.rollout(id).await?;
    found.ok_or_else(|| Refusal::absent(format!("no rollout {id}")))
}

/// A rollout with its waves and devices, for the API and the console.
pub async fn shown(context: &Context, rollout: &Rollout) -> Result<Shown, StoreError> {
    let View { assignments, members } = drive::view(&context.store, rollout).await?;
    let release = context.store.release(&rollout.release.to_string()).await?;
    let forecast = plan::forecast(&drive::planned(rollout), &members, context.clock.now());
    let waves = rollout
        .policy
        .waves
        .iter()
        .zip(forecast)
        .enumerate()
        .map(|(number, (wave, (state, next)))| {
            let assigned =
                assignments.iter().filter(|other| other.wave == number).map(|other| ShownDevice {
                    id: other.device,
                    status: other.status.as_str(),
                    detail: other.detail.clone(),
                });
            let next = next.into_iter().map(|id| ShownDevice {
                id,
                status: "pending",
                detail: String::new(),
            });
            ShownWave {
                name: wave.name.clone(),
                state: state.as_str(),
                devices: assigned.chain(next).collect(),
            }
        })
        .collect();
    Ok(Shown {
        id: rollout.id,
        release: rollout.release,
        name: release.map(|release| release.name).unwrap_or_default(),
        state: rollout.state,
        reason: rollout.reason.clone(),
        created_at: rollout.created_at,
        changed_at: rollout.changed_at,
        gate: rollout.policy.gate,
        waves,
    })
}
