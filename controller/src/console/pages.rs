//! Requests for the console.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    page::{self, Facts, Login},
    words::Language,
};
use crate::{
    auth::{COOKIE, SESSION_MS},
    http::{context::Context, guard::Peer, refusal::Refusal, rollouts},
    store::database::StoreError,
};

const EVENTS: u32 = 50;
const FORM_BYTES_MAX: usize = 1024;
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Deserialize)]
struct Asked {
    lang: Option<String>,
}

#[derive(Deserialize)]
struct Form {
    token: String,
}

/// The console's routes.
pub fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/assets/console.css", get(style))
        .route("/assets/console.js", get(script))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .with_state(context)
}

async fn overview(
    State(context): State<Arc<Context>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let language = language(&asked, &headers);
    let fleet = context.settings.fleet.as_str();
    if !context.admin.in_session(&headers, context.clock.now()) {
        let text = page::login(fleet, language, Login::First);
        return shown(StatusCode::OK, text);
    }
    let facts = facts(&context).await?;
    shown(StatusCode::OK, page::overview(&facts, language))
}

async fn log_in(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let language = language(&asked, &headers);
    let now = context.clock.now();
    if form(&body).is_some_and(|form| context.admin.is(form.token.trim())) {
        let cookie = format!(
            "{COOKIE}={}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Strict",
            context.admin.session(now),
            SESSION_MS / 1000
        );
        let back = format!("/?lang={}", language.words().tag);
        return Ok((with_cookie(&cookie), Redirect::to(&back)).into_response());
    }
    if !context.failures.allows(peer.address.ip(), now) {
        return Err(Refusal::too_often());
    }
    tracing::warn!(from = %peer.address.ip(), "refused a console login");
    let text = page::login(context.settings.fleet.as_str(), language, Login::Wrong);
    shown(StatusCode::FORBIDDEN, text)
}

async fn log_out() -> Response {
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    (with_cookie(&cookie), Redirect::to("/")).into_response()
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("assets/console.css"))
}

async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("assets/console.js"))
}

async fn facts(context: &Context) -> Result<Facts, StoreError> {
    let store = &context.store;
    let newest = store.rollouts(1).await?;
    let rollout = match newest.first() {
        Some(rollout) => Some(rollouts::shown(context, rollout).await?),
        None => None,
    };
    let connected = *context.connected.borrow();
    Ok(Facts {
        fleet: context.settings.fleet.to_string(),
        connected,
        devices: store.devices().await?,
        releases: store.releases().await?,
        rollout,
        events: store.newest_events(EVENTS).await?,
        refused: store.refusal_counts().await?,
    })
}

fn language(asked: &Asked, headers: &HeaderMap) -> Language {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    Language::chosen(asked.lang.as_deref(), accepted)
}

/// A form's fields have the shape of a query.
fn form(body: &[u8]) -> Option<Form> {
    let uri: Uri = format!("/?{}", std::str::from_utf8(body).ok()?).parse().ok()?;
    Query::<Form>::try_from_uri(&uri).ok().map(|Query(form)| form)
}

fn with_cookie(cookie: &str) -> HeaderMap {
    HeaderValue::from_str(cookie)
        .map(|value| HeaderMap::from_iter([(header::SET_COOKIE, value)]))
        .unwrap_or_default()
}

fn shown(status: StatusCode, text: Result<String, std::fmt::Error>) -> Result<Response, Refusal> {
    let text = text.map_err(|error| Refusal::internal(&error))?;
    let headers =
        [(header::CONTENT_SECURITY_POLICY, POLICY), (header::VARY, "Accept-Language, Cookie")];
    Ok((status, headers, Html(text)).into_response())
}
