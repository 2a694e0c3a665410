//! The model repository extension, read-only: what is served is what the signed release holds.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use crate::serve::{
    body,
    context::Context,
    refused::{Dialect, Refused},
};

/// What is asked.
#[derive(Debug, Default, Deserialize)]
struct IndexRequest {
    /// Only models that can be asked at once.
    #[serde(default)]
    ready: bool,
}

/// One model of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Indexed {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `READY` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is unavailable.
    pub reason: String,
}

/// Which models are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// All.
    All,
    /// Those that can be asked at once.
    Ready,
}

/// The models of the release.
///
/// # Errors
/// There is no worker, or it cannot be reached.
pub async fn models(context: &Context, listed: Listed) -> Result<Vec<Indexed>, Refused> {
    let models = context.models().await?;
    let all = models.into_iter().map(|model| {
        let (state, reason) = if context.is_loaded(&model) {
            ("READY", String::new())
        } else {
            ("UNAVAILABLE", context.unloaded_reason(&model))
        };
        Indexed { name: model.name, version: model.version, state, reason }
    });
    Ok(all.filter(|model| listed == Listed::All || model.state == "READY").collect())
}

/// `POST /v2/repository/index`.
pub async fn index(State(context): State<Context>, request: Request<Body>) -> Response {
    match answer(&context, request).await {
        Ok(models) => Json(models).into_response(),
        Err(refused) => refused.into_response(Dialect::Kserve),
    }
}

async fn answer(context: &Context, request: Request<Body>) -> Result<Vec<Indexed>, Refused> {
    let body = body::bytes(request).await?;
    let asked: IndexRequest =
        if body.is_empty() { IndexRequest::default() } else { body::parse(&body)? };
    models(context, if asked.ready { Listed::Ready } else { Listed::All }).await
}

/// `POST /v2/repository/models/{model}/{verb}`.
pub async fn change(Path((model, verb)): Path<(String, String)>) -> Response {
    refuse_change(&model, &verb).into_response(Dialect::Kserve)
}

/// Why nobody loads or unloads a model here.
pub fn refuse_change(model: &str, verb: &str) -> Refused {
    let shown = |text: &str| text.chars().take(80).collect::<String>().escape_debug().to_string();
    let message = format!(
        "cannot {} model `{}`: which models are served is decided by the signed release alone; roll out a release with \
         other models",
        shown(verb),
        shown(model)
    );
    Refused::new(StatusCode::FORBIDDEN, "repository_read_only", message)
}
