//! The binary tensor extension: the body is JSON, whose length a header gives, and then the bytes of the tensors that the
//! JSON announces, in its order.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};

use crate::serve::{
    body,
    kserve::{
        exchange::{Inference, Output},
        json::{self, Answering, AsBytes, InferRequest},
    },
    refused::Refused,
};

/// Length of the JSON.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The request in `body`.
///
/// # Errors
/// The header is no length within the body; else see [`InferRequest::read`].
pub fn read(headers: &HeaderMap, mut body: Bytes) -> Result<(Inference, AsBytes), Refused> {
    let tail = match json_length(headers)? {
        Some(length) if length > body.len() => {
            let message =
                format!("`{JSON_LENGTH}` says {length}, but the body has {} bytes", body.len());
            return Err(Refused::bad("binary_tensor", message));
        }
        Some(length) => body.split_off(length),
        None => Bytes::new(),
    };
    body::parse::<InferRequest>(&body)?.read(tail)
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Refused> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => {
            let message = format!("`{JSON_LENGTH}` must be the length of the JSON in bytes");
            Err(Refused::bad("binary_tensor", message))
        }
    }
}

/// The response with `outputs`.
pub fn write(answering: Answering<'_>, outputs: &[Output], as_bytes: &AsBytes) -> Response {
    let (response, tail) = json::response(answering, outputs, as_bytes);
    if tail.is_empty() {
        return Json(response).into_response();
    }
    let json = match serde_json::to_vec(&response) {
        Ok(json) => json,
        Err(reason) => {
            return Refused::internal(&format!("writing a response: {reason}"))
                .into_response(crate::serve::refused::Dialect::Kserve);
        }
    };
    let size = json.len() + tail.iter().map(Bytes::len).sum::<usize>();
    let mut body = BytesMut::with_capacity(size);
    let length = HeaderValue::from(json.len());
    body.extend_from_slice(&json);
    tail.iter().for_each(|bytes| body.extend_from_slice(bytes));
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = [(header::CONTENT_TYPE, octets), (JSON_LENGTH, length)];
    (headers, Body::from(body.freeze())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(length: Option<&'static str>, body: &'static [u8]) -> Result<Inference, String> {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(JSON_LENGTH, HeaderValue::from_static(length));
        }
        read(&headers, Bytes::from_static(body))
            .map(|(inference, _)| inference)
            .map_err(|refused| refused.message)
    }

    const BODY: &[u8] = b"{\"inputs\":[{\"name\":\"text\",\"datatype\":\"BYTES\",\"shape\":[1],\
        \"parameters\":{\"binary_data_size\":5}}]}\x01\0\0\0a";

    #[test]
    fn the_header_says_where_the_tensors_begin() {
        let at = "95";
        assert_eq!(BODY.len() - 5, 95);
        let inference = read_with(Some(at), BODY).unwrap();
        assert_eq!(inference.inputs[0].elements, [Bytes::from_static(b"a")]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        for (length, expected) in [
            (Some("1000"), "the body has 100 bytes"),
            (Some("-1"), "must be the length"),
            (Some("90"), "not JSON"),
            (None, "not JSON"),
        ] {
            let message = read_with(length, BODY).unwrap_err();
            assert!(message.contains(expected), "{length:?}: {message}");
        }
    }
}
