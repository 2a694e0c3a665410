//! `/artifacts/…`: what devices fetch. Signed metadata, and objects with ranges.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use protocol::{
    digest::Digest,
    tuf::{metadata::TOP_LEVEL, shape::is_role_name},
};

use super::{
    context::Context,
    objects::digest,
    range::{Wanted, wanted},
    refusal::Refusal,
};
use crate::artifacts::Span;

/// `GET /artifacts/metadata/{file}`: `timestamp.json`, `targets.json` and `root.json` (the newest), and
/// `<N>.<role>.json` for root, snapshot, targets and delegated roles.
pub async fn metadata(
    State(context): State<Arc<Context>>,
    Path(file): Path<String>,
) -> Result<Response, Refusal> {
    let unknown = || {
        Refusal::absent("metadata files are timestamp.json and N.ROLE.json, such as 1.root.json")
    };
    let name = file.strip_suffix(".json").ok_or_else(unknown)?;
    let found = match name.split_once('.') {
        None if ["timestamp", "targets", "root"].contains(&name) => {
            context.store.newest_metadata(name).await?
        }
        Some((version, role)) if TOP_LEVEL.contains(&role) || is_role_name(role) => {
            let version = version.parse().map_err(|_| unknown())?;
            context.store.metadata(role, version).await?
        }
        Some(_) | None => return Err(unknown()),
    };
    let bytes = found.ok_or_else(|| Refusal::absent(format!("{file} is not published")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// `GET` and `HEAD /artifacts/targets/{path}`: a listed file under the name that consistent snapshots give it,
/// `<directory>/<sha256>.<file>`, as other clients of TUF ask for it.
pub async fn target(
    state: State<Arc<Context>>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let digest = state.publisher.catalogue().hashed_path(&path).ok_or_else(|| {
        Refusal::absent("no such file is listed; names are <directory>/<sha256>.<file>")
    })?;
    served(&state.0, digest, method, &headers).await
}

/// `GET` and `HEAD /artifacts/sha256/{hex}`.
pub async fn object(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    served(&context, digest(&name)?, method, &headers).await
}

async fn served(
    context: &Context,
    digest: Digest,
    method: Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let length = context
        .artifacts
        .length(digest)
        .await?
        .ok_or_else(|| Refusal::absent(format!("object {} is not here", digest.short())))?;
    let tag = format!("\"{digest}\"");
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let wanted = wanted(text(header::RANGE), text(header::IF_RANGE), &tag, length);
    let (status, span, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, Span { start: 0, length }, None),
        Wanted::Part(span) => {
            let last = span.start + span.length - 1;
            let range = format!("bytes {}-{last}/{length}", span.start);
            (StatusCode::PARTIAL_CONTENT, span, Some(range))
        }
        Wanted::Outside => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            let refusal = Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range",
                format!("the object has {length} bytes; the range lies outside"),
            );
            return Ok((range, refusal).into_response());
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        context.metrics.served(span.length);
        Body::from_stream(context.artifacts.get(digest, span).await?)
    };
    let mut response = (status, body).into_response();
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::CONTENT_TYPE, "application/octet-stream".into());
    put(header::CONTENT_LENGTH, span.length.to_string());
    put(header::ACCEPT_RANGES, "bytes".into());
    put(header::ETAG, tag);
    put(header::CACHE_CONTROL, "private, immutable, max-age=31536000".into());
    if let Some(range) = range {
        put(header::CONTENT_RANGE, range);
    }
    Ok(response)
}
