//! The routes, and what holds for every request: who may ask, for how long, and that it is counted.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, State},
    http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use tokio::time::{self, Instant};

use crate::{
    observe::{clock, inference_metrics::NO_MODEL},
    serve::{
        ask, cohere,
        context::{Context, REQUEST_MAX},
        grpc_deadline, health,
        kserve::{grpc, repository, rest, statistics},
        mlflow, openai, page,
        refused::{Dialect, Outcome, Refused},
        status_page, tei,
        token::Token,
        traced::Traced,
        trail::{Noted, Trail},
    },
};

/// Routes that anyone on the machine may call: they say nothing about the models.
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];
/// Routes that take the token as a password too, under any name: a browser asks for one, and MLflow's client knows
/// nothing else. What a browser adds to requests by itself must not ask models, so all others do not, and
/// `/invocations` insists on JSON, which no page of another site can send.
const BY_PASSWORD: [(Method, &str); 5] = [
    (Method::GET, "/"),
    (Method::GET, "/status"),
    (Method::GET, "/ping"),
    (Method::GET, "/version"),
    (Method::POST, "/invocations"),
];
/// Routes by which models are asked: their answers and failures decide a probation.
const INFERENCE: [&str; 13] = [
    "/",
    "/embed",
    "/invocations",
    "/predict",
    "/rerank",
    "/similarity",
    "/v1/ask",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
    "/inference.GRPCInferenceService/ModelInfer",
];
/// Most requests at once, however many connections and streams there are: each may hold a body.
const REQUESTS_MAX: usize = 1024;

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Access {
    /// Who presents the token.
    Token(Arc<Token>),
    /// Who can open the Unix socket.
    Socket,
}

#[derive(Clone)]
struct Guard {
    context: Context,
    access: Access,
}

/// All routes, for callers with `access`.
pub fn router(context: Context, access: Access) -> Router {
    let guard = Guard { context: context.clone(), access };
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{model}", get(openai::model))
        .route("/v1/ask", post(ask::ask))
        .route("/", get(page::page).post(tei::embed::embed))
        .route("/status", get(page::page))
        .route("/v1/status", get(status_page::status))
        .merge(kserve_routes())
        .merge(other_routes())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(guard, guarded))
        .with_state(context)
}

fn kserve_routes() -> Router<Context> {
    Router::new()
        .route("/v2", get(rest::server))
        .route("/v2/health/live", get(rest::live))
        .route("/v2/health/ready", get(rest::ready))
        .route("/v2/models/stats", get(statistics::all))
        .route("/v2/models/{model}", get(rest::model))
        .route("/v2/models/{model}/ready", get(rest::model_ready))
        .route("/v2/models/{model}/config", get(rest::config))
        .route("/v2/models/{model}/stats", get(statistics::model))
        .route("/v2/models/{model}/infer", post(rest::infer))
        .route("/v2/models/{model}/versions/{version}", get(rest::model_version))
        .route("/v2/models/{model}/versions/{version}/ready", get(rest::model_version_ready))
        .route("/v2/models/{model}/versions/{version}/config", get(rest::config_version))
        .route("/v2/models/{model}/versions/{version}/stats", get(statistics::version))
        .route("/v2/models/{model}/versions/{version}/infer", post(rest::infer_version))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/{verb}", post(repository::change))
        .route("/inference.GRPCInferenceService/ModelInfer", post(grpc::service::infer))
        .route("/inference.GRPCInferenceService/{method}", post(grpc::service::other))
}

/// Of text-embeddings-inference, Cohere and MLflow.
fn other_routes() -> Router<Context> {
    Router::new()
        .route("/embed", post(tei::embed::embed))
        .route("/similarity", post(tei::embed::similarity))
        .route("/predict", post(tei::predict::predict))
        .route("/rerank", post(tei::rerank::rerank))
        .route("/tokenize", post(tei::tokenize::tokenize))
        .route("/decode", post(tei::tokenize::decode))
        .route("/info", get(tei::info::info))
        .route("/health", get(tei::info::health))
        .route("/v1/rerank", post(cohere::rerank_v1))
        .route("/v2/rerank", post(cohere::rerank_v2))
        .route("/ping", get(mlflow::ping))
        .route("/version", get(mlflow::version))
        .route("/invocations", post(mlflow::invocations))
}

async fn unknown(uri: Uri) -> Response {
    let shown: String = uri.path().chars().take(120).collect();
    let message = format!("no route `{}` here", shown.escape_debug());
    Refused::new(StatusCode::NOT_FOUND, "no_route", message).into_response(Dialect::of(uri.path()))
}

async fn wrong_method(uri: Uri, request: Request<Body>) -> Response {
    let message = format!("{} does not take {}", uri.path(), request.method());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method", message)
        .into_response(Dialect::of(uri.path()))
}

/// Around every request.
async fn guarded(State(guard): State<Guard>, request: Request<Body>, next: Next) -> Response {
    let Guard { context, access } = guard;
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let route = route.to_owned();
    let dialect = Dialect::of(request.uri().path());
    let (version, method) = (request.version(), request.method().clone());
    let asks = method == Method::POST && INFERENCE.contains(&route.as_str());
    let patience =
        grpc_deadline::of(request.headers()).map_or(REQUEST_MAX, |asked| asked.min(REQUEST_MAX));
    let trail = Trail::new(began, began + patience);
    let counted = Counted::new(&context);
    let traced = Traced::of(context.collector.as_ref(), &request, &route);
    let mut response = if !admitted(&access, &route, &request) {
        let message = "send `Authorization: Bearer <token>`; the token is in identity/api-token of the agent's state folder";
        let mut response =
            Refused::new(StatusCode::UNAUTHORIZED, "token", message).into_response(dialect);
        if by_password(&method, &route) {
            let scheme = HeaderValue::from_static(
                "Basic realm=\"Socle: the password is the API token\", charset=\"UTF-8\"",
            );
            response.headers_mut().append(header::WWW_AUTHENTICATE, scheme);
        }
        response
    } else if asks && counted.under_way > REQUESTS_MAX {
        let message =
            format!("more than {REQUESTS_MAX} requests are under way already; try again shortly");
        Refused::overloaded(message, 1).into_response(dialect)
    } else {
        let answering = time::timeout(patience, Arc::clone(&trail).follow(next.run(request))).await;
        answering.unwrap_or_else(|_| {
            let message = format!("not answered within {} ms", patience.as_millis());
            Refused::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into_response(dialect)
        })
    };
    let noted = trail.noted();
    count(&context, (&route, asks), &response, &noted, began);
    if let Some(traced) = traced {
        traced.end(&mut response, noted, began.elapsed());
    }
    // HTTP/2 has a way of its own to say that a connection ends.
    if version < Version::HTTP_2 && context.status.look(|snapshot| snapshot.draining) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn by_password(method: &Method, route: &str) -> bool {
    BY_PASSWORD.iter().any(|(taken, path)| taken == method && *path == route)
}

fn admitted(access: &Access, route: &str, request: &Request<Body>) -> bool {
    match access {
        Access::Socket => true,
        Access::Token(token) => {
            let presented = request.headers().get(header::AUTHORIZATION);
            let presented = presented.map(HeaderValue::as_bytes);
            OPEN.contains(&route)
                || token.admits(presented)
                || (by_password(request.method(), route) && token.admits_password(presented))
        }
    }
}

fn count(
    context: &Context,
    (route, asks): (&str, bool),
    response: &Response,
    noted: &Noted,
    began: Instant,
) {
    let took = began.elapsed();
    let failed = response.extensions().get::<Outcome>().copied();
    let status = failed.map_or(response.status(), |outcome| outcome.status);
    context.metrics.request(route, status.as_u16(), took);
    if asks && context.worker.is_some() {
        let now = clock::now();
        if status.is_success() {
            context.tally.answer(took);
            if let Some(model) = &noted.model {
                context.metrics.inference.answer(model, took, noted.work);
                context.figures.answer(model, now, took, noted.work);
            }
        } else {
            if status.is_server_error() {
                context.tally.fail();
            }
            let kind = failed.map_or("internal", |outcome| outcome.kind);
            context.metrics.inference.fail(noted.model.as_deref().unwrap_or(NO_MODEL), kind);
            if let Some(model) = &noted.model {
                context.figures.fail(model, now, took);
            }
        }
    }
    tracing::debug!(route, status = status.as_u16(), took_us = took.as_micros() as u64, "answered");
}

/// Counts a request as being answered, also when its caller goes away before the answer.
struct Counted<'a> {
    context: &'a Context,
    /// How many there are with it.
    under_way: usize,
}

impl<'a> Counted<'a> {
    fn new(context: &'a Context) -> Self {
        let under_way = context.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        context.metrics.in_flight.inc();
        Self { context, under_way }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.context.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.context.metrics.in_flight.dec();
    }
}
