//! The statistics extension: how each model's requests went since this gateway started.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use engine::worker::message::ModelInfo;
use serde::Serialize;
use serde_json::json;

use crate::{
    observe::figures::{Figures, Sum},
    serve::{
        context::Context,
        kserve::rest,
        refused::{Dialect, Refused},
    },
};

/// Of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// When it was last asked: milliseconds since 1970; 0 when never.
    pub last_inference: u64,
    /// Texts computed.
    pub inference_count: u64,
    /// Times it was computed; texts of several requests may be computed at once.
    pub execution_count: u64,
    /// Times.
    pub inference_stats: Times,
    /// Times by the number of texts computed at once.
    pub batch_stats: Vec<Batch>,
}

/// Times by what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// Whole requests that were answered.
    pub success: Duration,
    /// Whole requests that were not.
    pub fail: Duration,
    /// Waiting for the worker.
    pub queue: Duration,
    /// Not told apart from the next one.
    pub compute_input: Duration,
    /// Computing.
    pub compute_infer: Duration,
    /// Not told apart from the last one.
    pub compute_output: Duration,
    /// There is no cache.
    pub cache_hit: Duration,
    /// There is no cache.
    pub cache_miss: Duration,
}

/// Times of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// How many texts were computed at once.
    pub batch_size: u64,
    /// Not told apart from the next one.
    pub compute_input: Duration,
    /// Computing.
    pub compute_infer: Duration,
    /// Not told apart from the last one.
    pub compute_output: Duration,
}

/// How often, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duration {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

impl From<Sum> for Duration {
    fn from(sum: Sum) -> Self {
        Self { count: sum.count, ns: sum.ns }
    }
}

/// Statistics of `models`.
pub fn of(context: &Context, models: Vec<ModelInfo>) -> Vec<Statistics> {
    models.into_iter().map(|model| one(&context.figures, model)).collect()
}

fn one(figures: &Figures, model: ModelInfo) -> Statistics {
    let figures = figures.of(&model.name);
    // What is not told apart was done as often, in no time of its own.
    let within = |sum: Sum| Duration { count: sum.count, ns: 0 };
    let batch_stats = figures
        .batches
        .iter()
        .map(|(size, sum)| Batch {
            batch_size: u64::from(*size),
            compute_input: within(*sum),
            compute_infer: (*sum).into(),
            compute_output: within(*sum),
        })
        .collect();
    Statistics {
        name: model.name,
        version: model.version,
        last_inference: figures.last.0,
        inference_count: figures.items,
        execution_count: figures.compute.count,
        inference_stats: Times {
            success: figures.success.into(),
            fail: figures.fail.into(),
            queue: figures.queue.into(),
            compute_input: within(figures.compute),
            compute_infer: figures.compute.into(),
            compute_output: within(figures.compute),
            cache_hit: Duration::default(),
            cache_miss: Duration::default(),
        },
        batch_stats,
    }
}

/// `GET /v2/models/stats`.
pub async fn all(State(context): State<Context>) -> Response {
    respond(context.models().await.map(|models| of(&context, models)))
}

/// `GET /v2/models/{model}/stats`.
pub async fn model(State(context): State<Context>, Path(name): Path<String>) -> Response {
    respond(context.model(&name).await.map(|model| of(&context, vec![model])))
}

/// `GET /v2/models/{model}/versions/{version}/stats`.
pub async fn version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
) -> Response {
    let model = rest::versioned(&context, &name, &version).await;
    respond(model.map(|model| of(&context, vec![model])))
}

fn respond(statistics: Result<Vec<Statistics>, Refused>) -> Response {
    match statistics {
        Ok(statistics) => Json(json!({ "model_stats": statistics })).into_response(),
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}
