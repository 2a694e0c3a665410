//! How a request is refused: a status, a code for programs, a message for people.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    artifacts::ArtifactError, assign::AssignError, causes::chain, enrol::EnrolError,
    link::seal_keys::SealKeyError, metrics::MetricsError, publication::PublishError,
    store::database::StoreError,
};

/// A refusal.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    missing: Option<Vec<String>>,
}

impl Refusal {
    /// A refusal with all its parts.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), missing: None }
    }

    /// Something asked for is not there.
    pub fn absent(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// A request that cannot be understood.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// A request that does not fit how things stand.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// Understood, but not allowed to hold.
    pub fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// Nobody we know.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send the admin token as `Authorization: Bearer …`, or a device's client certificate where devices may ask",
        )
    }

    /// Too often.
    pub fn too_often() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "too many attempts from this address; wait a minute",
        )
    }

    /// A fault of ours: the cause goes to the log, not to the asker.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!("a request failed: {}", chain(error));
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the controller could not do this; its log says why",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": { "code": self.code, "message": self.message } });
        if let Some(missing) = self.missing {
            body["missing"] = json!(missing);
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let wait = axum::http::HeaderValue::from_static("60");
            response.headers_mut().insert(axum::http::header::RETRY_AFTER, wait);
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<MetricsError> for Refusal {
    fn from(error: MetricsError) -> Self {
        Self::internal(&error)
    }
}

impl From<SealKeyError> for Refusal {
    fn from(error: SealKeyError) -> Self {
        Self::internal(&error)
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "malformed" };
        Self::new(status, code, rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::malformed(rejection.body_text())
    }
}

impl From<EnrolError> for Refusal {
    fn from(error: EnrolError) -> Self {
        let message = chain(&error);
        match error {
            EnrolError::Unknown => Self::new(StatusCode::FORBIDDEN, "token-unknown", message),
            EnrolError::Used => Self::new(StatusCode::FORBIDDEN, "token-used", message),
            EnrolError::Expired(_) => Self::new(StatusCode::FORBIDDEN, "token-expired", message),
            EnrolError::Csr(_) => Self::unprocessable("csr-invalid", message),
            EnrolError::Bounds(_) => Self::unprocessable("malformed", message),
            EnrolError::NoRoot => Self::conflict("no-root", message),
            EnrolError::Random(_) | EnrolError::Store(_) => Self::internal(&error),
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        let message = chain(&error);
        match error {
            PublishError::NoRoot => Self::conflict("no-root", message),
            PublishError::Refused(_) | PublishError::FirstRoot(_) => {
                Self::unprocessable("refused", message)
            }
            PublishError::Unreadable(_) | PublishError::Empty => {
                Self::unprocessable("malformed", message)
            }
            PublishError::Permit(_) => Self::unprocessable("refused", message),
            PublishError::NoRelease(_) | PublishError::NoDevice(_) => Self::absent(message),
            PublishError::MissingRole(_) => Self::unprocessable("missing-role", message),
            PublishError::NotOurs => Self::conflict("online-keys", message),
            PublishError::SameVersion { .. } | PublishError::Counter { .. } => {
                Self::unprocessable("rollback", message)
            }
            PublishError::Name(_) => Self::unprocessable("name-taken", message),
            PublishError::Missing(missing) => Self {
                missing: Some(missing.iter().map(ToString::to_string).collect()),
                ..Self::conflict("missing-objects", message)
            },
            PublishError::LastVersion(_) => Self::conflict("last-version", message),
            PublishError::Sign(_) | PublishError::Store(_) | PublishError::Artifacts(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<ArtifactError> for Refusal {
    fn from(error: ArtifactError) -> Self {
        let message = chain(&error);
        match error {
            ArtifactError::Digest { .. } => Self::unprocessable("wrong-digest", message),
            ArtifactError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
            }
            ArtifactError::BrokeOff(_) => Self::malformed(message),
            ArtifactError::Io { .. }
            | ArtifactError::Disk { .. }
            | ArtifactError::Random(_)
            | ArtifactError::Task(_) => Self::internal(&error),
        }
    }
}

impl From<AssignError> for Refusal {
    fn from(error: AssignError) -> Self {
        match error {
            AssignError::NoDevice(_) => Self::absent(error.to_string()),
            AssignError::Sign(_) | AssignError::Store(_) => Self::internal(&error),
        }
    }
}
