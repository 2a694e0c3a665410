//! `/v1/status`: what runs here, and where an update stands.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use engine::worker::message::ModelInfo;
use protocol::time::UnixMs;
use serde_json::{Value, json};
use slots::{
    boot::{BootRecord, Happening},
    state::{Held, Trial},
};

use crate::{
    observe::{
        clock,
        status::{Mode, Snapshot, WorkerHealth},
    },
    serve::context::Context,
};

/// `GET /v1/status`.
pub async fn status(State(context): State<Context>) -> Response {
    let snapshot = context.status.snapshot();
    let mut body = described(&snapshot, clock::now());
    if let Some(members) = body.as_object_mut() {
        let requests = json!({
            "answered": context.tally.answered(),
            "failed": context.tally.failed(),
            "latency_us_p99": context.tally.latency_us_p99(),
        });
        members.insert("requests".to_owned(), requests);
        members.insert("fleet".to_owned(), (context.fleet)());
    }
    Json(body).into_response()
}

fn described(snapshot: &Snapshot, now: UnixMs) -> Value {
    let release =
        snapshot.release.map(|digest| json!({ "digest": digest, "name": snapshot.release_name }));
    json!({
        "mode": mode(snapshot.mode),
        "version": env!("CARGO_PKG_VERSION"),
        "slot": snapshot.slot.map_or("factory", |slot| slot.as_str()),
        "release": release,
        "ready": snapshot.ready(),
        "not_ready": snapshot.not_ready(),
        "draining": snapshot.draining,
        "started_at": snapshot.started_at.to_rfc3339(),
        "uptime_s": now.since(snapshot.started_at) / 1000,
        "adapter": snapshot.compute(),
        "worker": worker(&snapshot.worker),
        "slots": snapshot.record.as_deref().map(slots_of),
    })
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Services => "services",
        Mode::Single => "single",
    }
}

fn worker(health: &WorkerHealth) -> Value {
    match health {
        WorkerHealth::Absent { reason } => json!({ "state": "absent", "reason": reason }),
        WorkerHealth::Starting => json!({ "state": "starting" }),
        WorkerHealth::Down { reason } => json!({ "state": "down", "reason": reason }),
        WorkerHealth::Ready { pid, device, models } => {
            let models: Vec<Value> = models.iter().map(model).collect();
            json!({ "state": "ready", "pid": pid, "device": device, "models": models })
        }
    }
}

fn model(model: &ModelInfo) -> Value {
    json!({
        "name": model.name,
        "version": model.version,
        "task": model.task,
        "dim": model.dim,
        "digest": model.digest,
        "licence": model.licence,
        "weights": model.weights.map(|form| form.to_string()),
    })
}

fn slots_of(record: &BootRecord) -> Value {
    let quarantine: Vec<Value> = record
        .quarantine
        .iter()
        .map(|one| json!({ "release": one.release, "reason": one.reason, "at": one.at.to_rfc3339() }))
        .collect();
    json!({
        "phase": record.state.phase(),
        "committed": record.state.active().map(held),
        "trial": record.state.trial().map(trial),
        "deadline": record.state.deadline().map(UnixMs::to_rfc3339),
        "quarantine": quarantine,
        "floor": { "counter": record.counter_floor },
        "desired_sequence": record.desired_sequence,
        "last": record.last().map(happening),
        "history": record.history.iter().map(happening).collect::<Vec<_>>(),
    })
}

fn held(held: &Held) -> Value {
    json!({
        "release": held.release,
        "name": held.name,
        "slot": held.slot,
        "counter": held.counter,
    })
}

fn trial(trial: &Trial) -> Value {
    let mut value = held(&trial.held);
    if let Some(members) = value.as_object_mut() {
        members.insert("rollout".to_owned(), Value::from(trial.rollout));
    }
    value
}

fn happening(happening: &Happening) -> Value {
    json!({
        "what": happening.kind.as_str(),
        "release": happening.release,
        "name": happening.name,
        "reason": happening.detail,
        "at": happening.at.to_rfc3339(),
    })
}
