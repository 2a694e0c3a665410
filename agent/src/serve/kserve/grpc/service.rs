//! The calls. tonic frames and decodes the messages; route, token, time limit and counts are those of every request.

use std::{
    future::{self, Future},
    sync::{Arc, OnceLock},
};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{self, StatusCode},
    response::Response,
};
use futures_util::future::BoxFuture;
use prost::Message;
use tonic::{
    Status,
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::serve::{
    body::{self, BODY_BYTES_MAX},
    context::Context,
    kserve::{
        answer,
        grpc::{
            convert,
            message::{
                Empty, ModelConfigResponse, ModelIndex, ModelInferRequest, ModelInferResponse,
                ModelMetadataResponse, ModelRequest, ModelStatisticsResponse, ReadyResponse,
                RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelRequest,
                ServerLiveResponse, ServerMetadataResponse,
            },
        },
        repository::{self, Listed},
        rest, statistics,
    },
    refused::{Dialect, Outcome, Refused},
};

/// Largest reply: what a worker may answer at most, and some room for names.
const REPLY_BYTES_MAX: usize = 17 * 1024 * 1024;

/// `POST /inference.GRPCInferenceService/ModelInfer`.
pub async fn infer(State(context): State<Context>, request: http::Request<Body>) -> Response {
    unary(request, move |message| async move { infer_by(&context, message).await }).await
}

/// `POST /inference.GRPCInferenceService/{method}`: all others.
pub async fn other(
    State(context): State<Context>,
    Path(method): Path<String>,
    request: http::Request<Body>,
) -> Response {
    match method.as_str() {
        "ServerLive" => {
            unary(request, |_: Empty| future::ready(Ok(ServerLiveResponse { live: true }))).await
        }
        "ServerReady" => {
            let ready = context.status.look(|snapshot| snapshot.ready());
            unary(request, move |_: Empty| future::ready(Ok(ReadyResponse { ready }))).await
        }
        "ServerMetadata" => unary(request, |_: Empty| future::ready(Ok(server()))).await,
        "ModelReady" => {
            unary(request, move |asked| async move { model_ready(&context, asked).await }).await
        }
        "ModelMetadata" => {
            unary(request, move |asked| async move { metadata(&context, asked).await }).await
        }
        "ModelConfig" => {
            unary(request, move |asked| async move { config(&context, asked).await }).await
        }
        "ModelStatistics" => {
            unary(request, move |asked| async move { model_statistics(&context, asked).await })
                .await
        }
        "RepositoryIndex" => {
            unary(request, move |asked| async move { index(&context, asked).await }).await
        }
        "RepositoryModelLoad" => {
            unary(request, |asked| future::ready(change("load", &asked))).await
        }
        "RepositoryModelUnload" => {
            unary(request, |asked| future::ready(change("unload", &asked))).await
        }
        _ => {
            let shown: String = method.chars().take(80).collect();
            let message = format!("this server has no call `{}`", shown.escape_debug());
            Refused::new(StatusCode::NOT_IMPLEMENTED, "no_route", message)
                .into_response(Dialect::Grpc)
        }
    }
}

async fn infer_by(
    context: &Context,
    message: ModelInferRequest,
) -> Result<ModelInferResponse, Refused> {
    let model = rest::versioned(context, &message.model_name, &message.model_version).await?;
    let (mut inference, contents) = convert::inference(message)?;
    let id = inference.id.take();
    let outputs = answer::infer(context, &model, inference).await?;
    Ok(convert::response(id, &model, outputs, contents))
}

fn server() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: rest::SERVER.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: rest::EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

/// A model or version that is not there is not ready, and no error: clients ask so whether it is there.
async fn model_ready(context: &Context, asked: ModelRequest) -> Result<ReadyResponse, Refused> {
    match rest::versioned(context, &asked.name, &asked.version).await {
        Ok(model) => Ok(ReadyResponse { ready: context.is_loaded(&model) }),
        Err(refused) if refused.status == StatusCode::NOT_FOUND => {
            Ok(ReadyResponse { ready: false })
        }
        Err(refused) => Err(refused),
    }
}

async fn metadata(
    context: &Context,
    asked: ModelRequest,
) -> Result<ModelMetadataResponse, Refused> {
    Ok(convert::metadata(&rest::versioned(context, &asked.name, &asked.version).await?))
}

async fn config(context: &Context, asked: ModelRequest) -> Result<ModelConfigResponse, Refused> {
    let model = rest::versioned(context, &asked.name, &asked.version).await?;
    Ok(ModelConfigResponse { config: Some(convert::config(&model)) })
}

async fn model_statistics(
    context: &Context,
    asked: ModelRequest,
) -> Result<ModelStatisticsResponse, Refused> {
    let models = if asked.name.is_empty() {
        context.models().await?
    } else {
        vec![rest::versioned(context, &asked.name, &asked.version).await?]
    };
    let model_stats = statistics::of(context, models).await?;
    let model_stats = model_stats.into_iter().map(convert::statistics).collect();
    Ok(ModelStatisticsResponse { model_stats })
}

async fn index(
    context: &Context,
    asked: RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, Refused> {
    let listed = if asked.ready { Listed::Ready } else { Listed::All };
    let models = repository::models(context, listed).await?.into_iter().map(|model| ModelIndex {
        name: model.name,
        version: model.version,
        state: model.state.to_owned(),
        reason: model.reason,
    });
    Ok(RepositoryIndexResponse { models: models.collect() })
}

fn change(verb: &str, asked: &RepositoryModelRequest) -> Result<Empty, Refused> {
    Err(repository::refuse_change(&asked.model_name, verb))
}

/// One message in, one message out.
async fn unary<M, R, F, Fut>(request: http::Request<Body>, work: F) -> Response
where
    M: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
    F: FnOnce(M) -> Fut,
    Fut: Future<Output = Result<R, Refused>> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let bytes = match body::bytes(http::Request::new(body)).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused.into_response(Dialect::Grpc),
    };
    let outcome = Arc::new(OnceLock::new());
    let mut grpc = Grpc::new(ProstCodec::<R, M>::default())
        .max_decoding_message_size(BODY_BYTES_MAX)
        .max_encoding_message_size(REPLY_BYTES_MAX);
    let call = Once { work: Some(work), outcome: Arc::clone(&outcome) };
    let response = grpc.unary(call, http::Request::from_parts(head, Body::from(bytes))).await;
    let mut response = response.map(Body::new);
    // An error that no work was done for is tonic's: bytes that are no such message.
    let outcome = outcome
        .get()
        .copied()
        .or_else(|| response.headers().contains_key("grpc-status").then_some(Outcome::BAD_REQUEST));
    if let Some(outcome) = outcome {
        response.extensions_mut().insert(outcome);
    }
    response
}

/// Work that is done once, and how it ended when it did not end well.
struct Once<F> {
    work: Option<F>,
    outcome: Arc<OnceLock<Outcome>>,
}

impl<F, Fut, M, R> UnaryService<M> for Once<F>
where
    F: FnOnce(M) -> Fut,
    Fut: Future<Output = Result<R, Refused>> + Send + 'static,
    R: Send + 'static,
{
    type Response = R;
    type Future = BoxFuture<'static, Result<tonic::Response<R>, Status>>;

    fn call(&mut self, request: tonic::Request<M>) -> Self::Future {
        let Some(work) = self.work.take() else {
            return Box::pin(future::ready(Err(Status::internal("called twice"))));
        };
        let working = work(request.into_inner());
        let outcome = Arc::clone(&self.outcome);
        Box::pin(async move {
            working.await.map(tonic::Response::new).map_err(|refused| {
                // Set here alone, and once.
                outcome.get_or_init(|| refused.outcome());
                refused.grpc()
            })
        })
    }
}
