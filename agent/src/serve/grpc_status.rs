//! An error in gRPC's words.

use axum::http::StatusCode;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

/// When a client may try again, in milliseconds; clients with a retry policy heed it.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The status of a call that would have HTTP `status` otherwise.
pub fn status(status: StatusCode, message: &str, retry_after_s: Option<u32>) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(seconds) = retry_after_s {
        metadata.insert(PUSHBACK, MetadataValue::from(u64::from(seconds) * 1000));
    }
    Status::with_metadata(code(status), message, metadata)
}

fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}
