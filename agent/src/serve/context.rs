//! What the routes need.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use axum::http::StatusCode;
use engine::{
    package::Task,
    worker::message::{ModelInfo, ModelState},
};
use protocol::digest::Digest;

use crate::{
    observe::{
        collector::Collector,
        figures::Figures,
        metrics::Metrics,
        status::{Status, WorkerHealth},
        tally::Tally,
    },
    serve::{refused::Refused, trail},
    worker::client::WorkerClient,
};

/// Longest time a request may take as a whole.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Longest time the worker may take for one: below [`REQUEST_MAX`], so that the more exact message wins.
pub const CALL_MAX: Duration = Duration::from_secs(28);

/// Shared by all routes.
#[derive(Clone)]
pub struct Context {
    /// The gateway's picture of itself.
    pub status: Arc<Status>,
    /// Counts for the probation gate and the vitals.
    pub tally: Arc<Tally>,
    /// What each model did, for the statistics and the status page.
    pub figures: Arc<Figures>,
    /// Counts for Prometheus.
    pub metrics: Arc<Metrics>,
    /// The worker of this gateway's slot; none in the factory slot.
    pub worker: Option<Arc<WorkerClient>>,
    /// Where traces go, if anywhere.
    pub collector: Option<Collector>,
    /// What the link says of itself, as JSON.
    pub fleet: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Requests being answered.
    pub in_flight: Arc<AtomicUsize>,
}

impl Context {
    /// The worker, or why there is none.
    ///
    /// # Errors
    /// This gateway runs from the factory slot, which has no model.
    pub fn worker(&self) -> Result<&Arc<WorkerClient>, Refused> {
        self.worker.as_ref().ok_or_else(|| {
            let reason = self.status.look(|snapshot| snapshot.not_ready());
            Refused::unavailable(
                "no_model",
                reason.unwrap_or_else(|| "there is no model".to_owned()),
            )
        })
    }

    /// The models that can be asked. While the worker starts, this waits for it, so that a request that arrives during a
    /// restart is answered late rather than refused.
    ///
    /// # Errors
    /// There is no worker, or it cannot be reached.
    pub async fn models(&self) -> Result<Vec<ModelInfo>, Refused> {
        let worker = self.worker()?;
        let known = self.status.look(|snapshot| match &snapshot.worker {
            WorkerHealth::Ready { models, .. } => Some(models.clone()),
            WorkerHealth::Absent { .. } | WorkerHealth::Starting | WorkerHealth::Down { .. } => {
                None
            }
        });
        match known {
            Some(models) => Ok(models),
            None => Ok(worker.hello(CALL_MAX).await?.models),
        }
    }

    /// The model called `name`.
    ///
    /// # Errors
    /// There is none, or no worker.
    pub async fn model(&self, name: &str) -> Result<ModelInfo, Refused> {
        let named = |model: &&ModelInfo| match name.split_once('@') {
            Some((name, version)) => model.name == name && model.version == version,
            None => model.name == name && model.newest,
        };
        // Nearly always; the list as a whole would be copied otherwise.
        let known = self.status.look(|snapshot| match &snapshot.worker {
            WorkerHealth::Ready { models, .. } => models.iter().find(named).cloned(),
            WorkerHealth::Absent { .. } | WorkerHealth::Starting | WorkerHealth::Down { .. } => {
                None
            }
        });
        if let Some(model) = known {
            trail::asks(&model.name);
            return Ok(model);
        }
        let models = self.models().await?;
        match models.iter().find(named) {
            Some(model) => {
                trail::asks(&model.name);
                Ok(model.clone())
            }
            None => {
                Err(Refused::unknown_model(name, models.iter().map(|model| model.name.as_str())))
            }
        }
    }

    /// The model called `name`; where none is named, the first that does the first of `tasks` that any does.
    ///
    /// # Errors
    /// There is none, or no worker.
    pub async fn model_for(
        &self,
        name: Option<&str>,
        tasks: &[Task],
    ) -> Result<ModelInfo, Refused> {
        if let Some(name) = name {
            return self.model(name).await;
        }
        let models = self.models().await?;
        let first = |task: &Task| models.iter().find(|model| model.task == *task && model.newest);
        match tasks.iter().find_map(first) {
            Some(model) => {
                trail::asks(&model.name);
                Ok(model.clone())
            }
            None => Err(Refused::new(
                StatusCode::NOT_FOUND,
                "model_not_found",
                "this release has no model that does this; GET /v1/models names those it has",
            )),
        }
    }

    /// Whether a model can be asked at once.
    pub fn is_loaded(&self, model: &ModelInfo) -> bool {
        model.state == ModelState::Loaded && self.status.look(|snapshot| snapshot.ready())
    }

    /// Why it cannot.
    pub fn unloaded_reason(&self, model: &ModelInfo) -> String {
        let name = format!("{}@{}", model.name, model.version);
        let refusal = self.worker.as_ref().and_then(|worker| worker.refusal(&name));
        match refusal {
            Some(refusal) => refusal.message,
            None if model.preload => "it is being loaded".to_owned(),
            None => "it is loaded when it is asked".to_owned(),
        }
    }

    /// The release that answers and its slot, for answers that name them.
    pub fn origin(&self) -> (Option<Digest>, Option<&'static str>) {
        self.status.look(|snapshot| (snapshot.release, snapshot.slot.map(|slot| slot.as_str())))
    }
}
