//! Devices, as the API shows them.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
};
use protocol::{blob::Blob, id::DeviceId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{context::Context, refusal::Refusal, releases};
use crate::{
    assign::Cause,
    store::{devices::Device, events::Event},
};

const RECENT: u32 = 50;

/// A question for a number of records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limited {
    limit: Option<u32>,
}

/// Body of `POST /api/v1/devices/{id}/assign`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    release: String,
    #[serde(default)]
    retry_quarantined: bool,
}

/// `GET /api/v1/devices`.
pub async fn list(State(context): State<Arc<Context>>) -> Result<Json<Value>, Refusal> {
    let devices = context.store.devices().await?;
    let last: BTreeMap<DeviceId, Event> =
        context.store.last_events().await?.into_iter().map(|event| (event.device, event)).collect();
    let devices: Vec<Value> =
        devices.iter().map(|device| shown(device, last.get(&device.id))).collect();
    Ok(Json(json!({ "devices": devices })))
}

/// `GET /api/v1/devices/{id}`: the id or the beginning of it, or the name if only one device has it.
pub async fn show(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let device = named(&context, &name).await?;
    let events = context.store.device_events(device.id, RECENT).await?;
    let vitals = context.store.telemetry(device.id, 1).await?;
    let mut shown = shown(&device, events.first());
    shown["events"] = json!(events);
    shown["vitals"] = json!(vitals.first());
    Ok(Json(shown))
}

/// `GET /api/v1/devices/{id}/telemetry`.
pub async fn telemetry(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    query: Result<Query<Limited>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(Limited { limit }) = query?;
    let device = named(&context, &name).await?;
    let records = context.store.telemetry(device.id, limit.unwrap_or(RECENT)).await?;
    Ok(Json(json!({ "device": device.id, "telemetry": records })))
}

/// `POST /api/v1/devices/{id}/assign`: an operator's own assignment, outside any rollout. The device still refuses
/// what is not genuine or not newer.
pub async fn assign(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    body: Result<Json<Assign>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Json(Assign { release, retry_quarantined }) = body?;
    let device = named(&context, &name).await?;
    let release = releases::named(&context, &release).await?;
    if !release.environments.contains(&device.environment) {
        let message = format!(
            "device `{}` is in {} and release `{}` is not signed for it; promote it with `socle release promote`",
            device.name, device.environment, release.name
        );
        return Err(Refusal::conflict("environment", message));
    }
    let cause = Cause::Operator { retry_quarantined };
    let sequence = context.assigner.assign(device.id, &release, cause).await?;
    let answer = json!({ "device": device.id, "release": release.digest, "sequence": sequence });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// `GET /api/v1/devices/{id}/desired`: the signed assignment as the device gets it, to be carried to it by hand.
pub async fn desired(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let device = named(&context, &name).await?;
    let signed = context.store.desired(device.id, context.clock.now()).await?;
    let signed = signed.ok_or_else(|| {
        Refusal::absent(format!(
            "device `{}` has no assignment that holds; assign it a release first",
            device.name
        ))
    })?;
    Ok(Json(json!({
        "device": device.id,
        "name": device.name,
        "environment": device.environment,
        "release": device.desired_release,
        "desired": Blob::from(signed),
    })))
}

async fn named(context: &Context, name: &str) -> Result<Device, Refusal> {
    let shown: String = name.chars().take(80).collect();
    let hex = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && name.len() >= 4 {
        let mut found = context.store.devices_like(&name.to_ascii_lowercase()).await?;
        if found.len() > 1 {
            let message = format!("more than one device id starts with `{shown}`; give more of it");
            return Err(Refusal::conflict("ambiguous", message));
        }
        if let Some(device) = found.pop() {
            return Ok(device);
        }
    }
    let devices = context.store.devices().await?;
    let mut called = devices.into_iter().filter(|device| device.name == name);
    match (called.next(), called.next()) {
        (Some(device), None) => Ok(device),
        (Some(_), Some(_)) => {
            let message = format!("more than one device is called `{shown}`; give its id");
            Err(Refusal::conflict("ambiguous", message))
        }
        (None, _) => Err(Refusal::absent(format!(
            "no device `{shown}`; `socle device list` shows those there are"
        ))),
    }
}

fn shown(device: &Device, last: Option<&Event>) -> Value {
    let state = device.state.as_ref();
    json!({
        "id": device.id,
        "short": device.id.short(),
        "name": device.name,
        "labels": device.labels,
        "environment": device.environment,
        "enrolled_at": device.enrolled_at,
        "certificate_until": device.certificate_until,
        "last_seen": device.last_seen,
        "online": device.online,
        "agent_version": state.map(|state| &state.agent_version),
        "committed": state.and_then(|state| state.committed.as_ref()),
        "trial": state.and_then(|state| state.trial.as_ref()),
        "phase": state.map(|state| &state.phase),
        "ready": state.map(|state| state.ready),
        "compute": state.map(|state| &state.compute),
        "quarantined": state.map(|state| &state.quarantined),
        "desired": device.desired_release,
        "desired_sequence": device.desired_sequence,
        "obeyed_sequence": state.map(|state| state.desired_sequence),
        "telemetry_dropped": device.dropped,
        "last_event": last,
    })
}
