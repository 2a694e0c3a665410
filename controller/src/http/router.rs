//! What is where, who may ask for it, how large and how slow a request may be.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::Response,
    routing::{get, post, put},
};
use tower_http::timeout::TimeoutLayer;

use super::{
    context::Context, devices, enrolment, events, files, guard, health, objects, refusal::Refusal,
    releases, rollouts, security, tokens,
};

/// Largest body of a request that is read into memory: a dozen documents of 1 MiB each in base64.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
const ANSWER: Duration = Duration::from_secs(30);

/// All routes; `console` is added beside the API.
pub fn router(context: Arc<Context>, console: Router) -> Router {
    let timed = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ANSWER);
    let admin = from_fn_with_state(Arc::clone(&context), guard::admin);
    let reader = from_fn_with_state(Arc::clone(&context), guard::reader);
    let device = from_fn_with_state(Arc::clone(&context), guard::device);
    let count = from_fn_with_state(Arc::clone(&context), guard::count);
    let open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/enrol/v1", post(enrolment::enrol))
        .layer(DefaultBodyLimit::max(SMALL_BODY_BYTES_MAX))
        .layer(timed);
    let fetched = Router::new()
        .route("/artifacts/metadata/{file}", get(files::metadata))
        .route("/artifacts/sha256/{hex}", get(files::object))
        .route("/artifacts/targets/{*path}", get(files::target))
        .route_layer(device)
        .layer(timed);
    // Uploads take as long as they move; a piece that does not come ends them.
    let uploaded = Router::new()
        .route("/api/v1/objects/{sha256}", put(objects::put).head(objects::head))
        .route_layer(admin.clone());
    let streamed =
        Router::new().route("/api/v1/events/stream", get(events::stream)).route_layer(reader);
    let api = api().route_layer(admin).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(timed);
    open.merge(fetched)
        .merge(uploaded)
        .merge(streamed)
        .merge(api)
        .with_state(context)
        .merge(console)
        .fallback(nowhere)
        .layer(count)
        .layer(map_response(harden))
}

fn api() -> Router<Arc<Context>> {
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/api/v1/status", get(health::status))
        .route("/api/v1/tokens", post(tokens::create))
        .route("/api/v1/devices", get(devices::list))
        .route("/api/v1/devices/{id}", get(devices::show))
        .route("/api/v1/devices/{id}/telemetry", get(devices::telemetry))
        .route("/api/v1/devices/{id}/assign", post(devices::assign))
        .route("/api/v1/devices/{id}/desired", get(devices::desired))
        .route("/api/v1/root", post(releases::publish_root))
        .route("/api/v1/releases", get(releases::list).post(releases::publish))
        .route("/api/v1/permits", post(releases::permit))
        .route("/api/v1/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/api/v1/rollouts/{id}", get(rollouts::show))
        .route("/api/v1/rollouts/{id}/halt", post(rollouts::halt))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/security", get(security::show))
}

async fn nowhere() -> Refusal {
    Refusal::absent("nothing is here; the API is below /api/v1, the console at /")
}

/// Headers that every answer carries; what an answer has set itself stays.
async fn harden(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
