//! Why a request is not answered: one value, written in the words of the dialect that was spoken.

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use engine::worker::failure::{Failure, FailureKind};
use serde_json::json;
use tonic::Status;

use crate::{observe::logging, serve::grpc_status, worker::call_error::CallError};

/// How errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `{"error": {"message", "type", "code", "param"}}`; the product's own routes use it too.
    OpenAi,
    /// `{"error": "…"}`, the Open Inference Protocol.
    Kserve,
    /// A status in the headers, the Open Inference Protocol over gRPC.
    Grpc,
    /// `{"error": "…", "error_type": "…"}`, text-embeddings-inference.
    Tei,
    /// `{"message": "…"}`, Cohere.
    Cohere,
    /// `{"error_code": "…", "message": "…"}`, MLflow.
    Mlflow,
}

/// How a request that was not answered is counted. Goes with the response, whose own status may say something else:
/// gRPC's is always 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status it has, or would have.
    pub status: StatusCode,
    /// One of [`crate::observe::inference_metrics::KINDS`].
    pub kind: &'static str,
}

impl Outcome {
    /// A message that cannot be read.
    pub const BAD_REQUEST: Self = Self { status: StatusCode::BAD_REQUEST, kind: "bad_request" };
}

/// A request that is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people: what is wrong with what, and what to do.
    pub message: String,
    /// When to try again.
    pub retry_after_s: Option<u32>,
}

impl Dialect {
    /// The dialect of a path.
    pub fn of(path: &str) -> Self {
        const TEI: [&str; 10] = [
            "/embed",
            "/embed_all",
            "/embed_sparse",
            "/predict",
            "/rerank",
            "/similarity",
            "/tokenize",
            "/decode",
            "/info",
            "/health",
        ];
        match path {
            "/v1/rerank" | "/v2/rerank" => Self::Cohere,
            "/ping" | "/version" | "/invocations" => Self::Mlflow,
            path if path.starts_with("/inference.GRPCInferenceService/") => Self::Grpc,
            path if path == "/v2" || path.starts_with("/v2/") => Self::Kserve,
            path if TEI.contains(&path) => Self::Tei,
            _ => Self::OpenAi,
        }
    }
}

impl Refused {
    /// The caller's mistake.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// With a status of its own.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_s: None }
    }

    /// Nothing can be answered now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    /// Too much is asked at once; it is worth trying again after so many seconds.
    pub fn overloaded(message: impl Into<String>, seconds: u32) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self { retry_after_s: Some(seconds), ..Self::new(status, "overloaded", message) }
    }

    /// No such model; `known` are those there are.
    pub fn unknown_model<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let shown: String = name.chars().take(80).collect();
        let known: Vec<&str> = known.collect();
        let message =
            format!("no model `{}` here; there is: {}", shown.escape_debug(), known.join(", "));
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message)
    }

    /// Our own fault: the caller learns nothing but where to look, the log learns all.
    pub fn internal(what: &str) -> Self {
        let id = format!("{:08x}", fastrand::u32(..));
        tracing::error!(id, what, "request failed");
        let message = format!("internal error {id}; the agent's log says more");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The status of a gRPC call.
    pub fn grpc(&self) -> Status {
        grpc_status::status(self.status, &self.message, self.retry_after_s)
    }

    /// How it is counted.
    pub fn outcome(&self) -> Outcome {
        Outcome { status: self.status, kind: kind(self.status) }
    }

    /// The response in `dialect`.
    pub fn into_response(self, dialect: Dialect) -> Response {
        let outcome = self.outcome();
        let body = match dialect {
            Dialect::Kserve => json!({ "error": self.message }),
            Dialect::OpenAi => json!({ "error": {
                "message": self.message, "type": openai_type(self.status), "code": self.code, "param": null,
            }}),
            Dialect::Tei => json!({ "error": self.message, "error_type": tei_type(self.status) }),
            Dialect::Cohere => json!({ "message": self.message }),
            Dialect::Mlflow => {
                json!({ "error_code": mlflow_code(self.status), "message": self.message })
            }
            Dialect::Grpc => {
                let mut response = self.grpc().into_http::<Body>();
                response.extensions_mut().insert(outcome);
                return response;
            }
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(outcome);
        response
    }
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Failed(failure) => Self::from(failure),
            CallError::Busy(_) => Self::overloaded(error.to_string(), 1),
            CallError::TimedOut(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", error.to_string())
            }
            CallError::Lost | CallError::Connect { .. } => {
                tracing::warn!("request failed: {}", logging::chain(&error));
                Self::unavailable(
                    "worker_down",
                    "the worker ended and is started again; try again shortly",
                )
            }
            CallError::Frame(_)
            | CallError::Unreadable(_)
            | CallError::Mismatch { .. }
            | CallError::Version { .. } => Self::internal(&logging::chain(&error)),
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message, retry_after_ms } = failure;
        match kind {
            FailureKind::UnknownModel => {
                Self::new(StatusCode::NOT_FOUND, "model_not_found", message)
            }
            FailureKind::WrongTask => Self::bad("wrong_task", message),
            FailureKind::TextTooLong => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "text_too_long", message)
            }
            FailureKind::TooManyTokens => Self::bad("too_many_tokens", message),
            FailureKind::EmptyText => Self::bad("empty_text", message),
            FailureKind::TextCount => Self::bad("text_count", message),
            FailureKind::TooLarge => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "response_too_large", message)
            }
            FailureKind::Overloaded => {
                Self::overloaded(message, retry_after_ms.unwrap_or(1).div_ceil(1_000).max(1))
            }
            FailureKind::Expired => Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message),
            FailureKind::NoMemory => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_memory", message)
            }
            FailureKind::BadInput => Self::bad("bad_input", message),
            FailureKind::Stopping => Self::unavailable("worker_stopping", message),
            FailureKind::CannotLoad => Self {
                retry_after_s: Some(retry_after_ms.unwrap_or(1).div_ceil(1_000).max(1)),
                ..Self::unavailable("model_not_loaded", message)
            },
            FailureKind::BadFrame
            | FailureKind::ModelFailed
            | FailureKind::Unsupported
            | FailureKind::Other => Self::internal(&message),
        }
    }
}

/// The kind of error that metrics count.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "not_allowed",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::TOO_MANY_REQUESTS => "overloaded",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "timeout",
        status if status.is_client_error() => "bad_request",
        _ => "internal",
    }
}

/// OpenAI's word for a class of errors.
fn openai_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    }
}

/// The word of text-embeddings-inference.
fn tei_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "Overloaded",
        StatusCode::SERVICE_UNAVAILABLE => "Unhealthy",
        status if status.is_client_error() => "Validation",
        _ => "Backend",
    }
}

/// MLflow's.
fn mlflow_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::NOT_FOUND => "RESOURCE_DOES_NOT_EXIST",
        StatusCode::TOO_MANY_REQUESTS => "REQUEST_LIMIT_EXCEEDED",
        StatusCode::SERVICE_UNAVAILABLE => "TEMPORARILY_UNAVAILABLE",
        status if status.is_client_error() => "INVALID_PARAMETER_VALUE",
        _ => "INTERNAL_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let failure = Failure::new(FailureKind::ModelFailed, "tensor 7 of /secret/path");
        let refused = Refused::from(failure);
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!refused.message.contains("secret"), "{}", refused.message);
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let failure = Failure {
            retry_after_ms: Some(2_400),
            ..Failure::new(FailureKind::Overloaded, "full")
        };
        let response = Refused::from(failure.clone()).into_response(Dialect::Kserve);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        let status = Refused::from(failure).grpc();
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "3000");
        let response = Refused::from(CallError::Busy(64)).into_response(Dialect::Kserve);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
