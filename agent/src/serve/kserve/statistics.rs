//! The statistics extension: how each model's requests went since this gateway started, and what its worker computed at
//! once since that started.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use engine::worker::message::{BatchSize, ModelInfo, ModelStatistics};
use serde::Serialize;
use serde_json::json;

use crate::{
    observe::figures::{Figures, Sum},
    serve::{
        context::{CALL_MAX, Context},
        kserve::rest,
        refused::{Dialect, Refused},
        trail,
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

/// Statistics of `models`: how requests went, by this gateway; what was computed at once, by its worker.
///
/// # Errors
/// There is no worker, or it does not say.
pub async fn of(context: &Context, models: Vec<ModelInfo>) -> Result<Vec<Statistics>, Refused> {
    let worker = context.worker()?.statistics(trail::time_left(CALL_MAX)).await?;
    let one = |model: ModelInfo| {
        let computed = worker
            .models
            .iter()
            .find(|there| there.name == model.name && there.version == model.version);
        one(&context.figures, model, computed)
    };
    Ok(models.into_iter().map(one).collect())
}

fn one(figures: &Figures, model: ModelInfo, computed: Option<&ModelStatistics>) -> Statistics {
    let figures = figures.of(&model.name);
    // What is not told apart was done as often, in no time of its own.
    let within = |sum: Duration| Duration { count: sum.count, ns: 0 };
    let compute = Duration::from(figures.compute);
    let batches = computed.map(|computed| computed.batches.as_slice()).unwrap_or_default();
    let batch = |batch: &BatchSize| {
        let sum = Duration { count: batch.count, ns: batch.compute_us.saturating_mul(1_000) };
        Batch {
            batch_size: u64::from(batch.items),
            compute_input: within(sum),
            compute_infer: sum,
            compute_output: within(sum),
        }
    };
    Statistics {
        name: model.name,
        version: model.version,
        last_inference: figures.last.0,
        inference_count: computed.map_or(0, |computed| computed.items),
        execution_count: batches.iter().map(|batch| batch.count).sum(),
        inference_stats: Times {
            success: figures.success.into(),
            fail: figures.fail.into(),
            queue: figures.queue.into(),
            compute_input: within(compute),
            compute_infer: compute,
            compute_output: within(compute),
            cache_hit: Duration::default(),
            cache_miss: Duration::default(),
        },
        batch_stats: batches.iter().map(batch).collect(),
    }
}

/// `GET /v2/models/stats`.
pub async fn all(State(context): State<Context>) -> Response {
    respond(&context, context.models().await).await
}

/// `GET /v2/models/{model}/stats`.
pub async fn model(State(context): State<Context>, Path(name): Path<String>) -> Response {
    let model = context.model(&name).await;
    respond(&context, model.map(|model| vec![model])).await
}

/// `GET /v2/models/{model}/versions/{version}/stats`.
pub async fn version(
    State(context): State<Context>,
    Path((name, version)): Path<(String, String)>,
) -> Response {
    let model = rest::versioned(&context, &name, &version).await;
    respond(&context, model.map(|model| vec![model])).await
}

async fn respond(context: &Context, models: Result<Vec<ModelInfo>, Refused>) -> Response {
    let statistics = match models {
        Ok(models) => of(context, models).await,
        Err(refused) => Err(refused),
    };
    match statistics {
        Ok(statistics) => Json(json!({ "model_stats": statistics })).into_response(),
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}
