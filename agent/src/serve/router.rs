//! The routes, and what holds for every request: who may ask, for how long, and that it is counted.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, State},
    http::{HeaderValue, Request, StatusCode, Uri, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use tokio::time::{self, Instant};

use crate::serve::{
    ask,
    context::{Context, REQUEST_MAX},
    health, kserve, openai,
    refused::{Dialect, Refused},
    status_page,
    token::Token,
};

/// Routes that anyone on the machine may call: they say nothing about the models.
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];
/// Routes by which models are asked: their answers and failures decide a probation.
const INFERENCE: [&str; 4] = [
    "/v1/embeddings",
    "/v1/ask",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
];

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
        .route("/v1/status", get(status_page::status))
        .route("/v2", get(kserve::server))
        .route("/v2/health/live", get(kserve::live))
        .route("/v2/health/ready", get(kserve::ready))
        .route("/v2/models/{model}", get(kserve::model))
        .route("/v2/models/{model}/ready", get(kserve::model_ready))
        .route("/v2/models/{model}/infer", post(kserve::infer))
        .route("/v2/models/{model}/versions/{version}", get(kserve::model_version))
        .route("/v2/models/{model}/versions/{version}/infer", post(kserve::infer_version))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(guard, guarded))
        .with_state(context)
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
    let _counted = Counted::new(&context);
    let mut response = if admitted(&access, &route, &request) {
        let answering = time::timeout(REQUEST_MAX, next.run(request)).await;
        answering.unwrap_or_else(|_| {
            let message = format!("not answered within {} s", REQUEST_MAX.as_secs());
            Refused::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into_response(dialect)
        })
    } else {
        let message = "send `Authorization: Bearer <token>`; the token is in identity/api-token of the agent's state folder";
        Refused::new(StatusCode::UNAUTHORIZED, "token", message).into_response(dialect)
    };
    count(&context, &route, response.status(), began);
    if context.status.look(|snapshot| snapshot.draining) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn admitted(access: &Access, route: &str, request: &Request<Body>) -> bool {
    match access {
        Access::Socket => true,
        Access::Token(token) => {
            let presented = request.headers().get(header::AUTHORIZATION);
            OPEN.contains(&route) || token.admits(presented.map(HeaderValue::as_bytes))
        }
    }
}

fn count(context: &Context, route: &str, status: StatusCode, began: Instant) {
    let took = began.elapsed();
    context.metrics.request(route, status.as_u16(), took);
    if INFERENCE.contains(&route) && context.worker.is_some() {
        if status.is_success() {
            context.tally.answer(took);
        } else if status.is_server_error() {
            context.tally.fail();
        }
    }
    tracing::debug!(route, status = status.as_u16(), took_us = took.as_micros() as u64, "answered");
}

/// Counts a request as being answered, also when its caller goes away before the answer.
struct Counted<'a>(&'a Context);

impl<'a> Counted<'a> {
    fn new(context: &'a Context) -> Self {
        context.in_flight.fetch_add(1, Ordering::Relaxed);
        context.metrics.in_flight.inc();
        Self(context)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.in_flight.dec();
    }
}
