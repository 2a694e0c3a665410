//! Reading a bounded JSON body in bounded time.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time;

use crate::serve::refused::Refused;

/// Largest body.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest time a body may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// The body of `request` as JSON of the shape `T`.
///
/// # Errors
/// Too large, too slow, compressed, not UTF-8, not JSON, or of another shape.
pub async fn json<T: DeserializeOwned>(request: Request<Body>) -> Result<T, Refused> {
    parse(&bytes(request).await?)
}

/// The body of `request`.
///
/// # Errors
/// Too large, too slow, or compressed.
pub async fn bytes(request: Request<Body>) -> Result<Bytes, Refused> {
    if let Some(coding) = coding(request.headers()) {
        let message = format!("the body is compressed by `{coding}`; send it as it is");
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message));
    }
    if announced(request.headers()).is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let arriving = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let collected = time::timeout(ARRIVAL_MAX, arriving).await.map_err(|_| {
        let message = format!("the body did not arrive within {} s", ARRIVAL_MAX.as_secs());
        Refused::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(reason) if reason.is::<LengthLimitError>() => Err(too_large()),
        Err(reason) => {
            Err(Refused::bad("body_cut", format!("the body did not arrive whole: {reason}")))
        }
    }
}

/// `bytes` as JSON of the shape `T`.
///
/// # Errors
/// Not UTF-8, not JSON, or of another shape.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|at| {
        let message = format!("the body is not UTF-8 after byte {}", at.valid_up_to());
        Refused::bad("not_utf8", message)
    })?;
    serde_json::from_str(text).map_err(|reason| {
        let what = if reason.is_data() { "of the expected shape" } else { "JSON" };
        Refused::bad("bad_json", format!("the body is not {what}: {reason}"))
    })
}

/// How the body is compressed, if it is.
fn coding(headers: &HeaderMap) -> Option<String> {
    let coding = String::from_utf8_lossy(headers.get(header::CONTENT_ENCODING)?.as_bytes());
    let coding: String = coding.trim().chars().take(40).collect();
    (!coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
        .then(|| coding.escape_debug().to_string())
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Refused {
    let message =
        format!("the body is larger than {BODY_BYTES_MAX} bytes: send fewer or shorter texts");
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
