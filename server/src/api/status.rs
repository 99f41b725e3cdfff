//! The one table of status codes: what a handler's error means to a caller.
//!
//! | code | error-code | may the caller retry? |
//! |---|---|---|
//! | 400 | `bad-request` | no |
//! | 401, 403 | `unauthenticated`, `forbidden` | no |
//! | 404 | `not-found` | no |
//! | 410 | `superseded` | yes, at the new leader: nothing was applied |
//! | 412 | `precondition-failed` | after the reason is gone |
//! | 417 | `not-leader` | yes, at the leader that the body names |
//! | 420 | `unconfirmed` | look first: the change may still take effect |
//! | 429 | `too-many-requests` | yes, shortly |
//! | 500 | `internal` | no |
//! | 503 | `not-serving` | at another node: a load balancer's check is not met |
//! | 530 | `no-leader` | yes, shortly |
//! | 531 | `unavailable` | yes, elsewhere |

use dropshot::{ErrorStatusCode, HttpError, HttpResponseError};
use qluster_consensus::model::{Error, ErrorCode, Leader};
use qluster_consensus::node::cluster::ClusterError;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::report;

/// An error that a handler answers with.
#[derive(Debug)]
pub struct ApiError(Error);

impl ApiError {
    /// An error with its reason, a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Error { message: message.into(), error_code: code, request_id: None, leader: None })
    }

    /// The error with the leader that could serve the request.
    pub fn with_leader(mut self, leader: Option<Leader>) -> Self {
        self.0.leader = leader;
        self
    }

    /// The error as the answer to the request `id`.
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// The body of the answer.
    pub fn body(&self) -> &Error {
        &self.0
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        let (code, leader) = match &error {
            ClusterError::Invalid(_) => (ErrorCode::BadRequest, None),
            ClusterError::Superseded => (ErrorCode::Superseded, None),
            ClusterError::Precondition(_) => (ErrorCode::PreconditionFailed, None),
            ClusterError::NotLeader(leader) => (ErrorCode::NotLeader, Some(leader.as_ref().clone())),
            ClusterError::Unconfirmed(_) => (ErrorCode::Unconfirmed, None),
            ClusterError::NoLeader(_) => (ErrorCode::NoLeader, None),
            ClusterError::Unavailable(_) => (ErrorCode::Unavailable, None),
            ClusterError::Internal { .. } => (ErrorCode::Internal, None),
        };
        Self::new(code, report::chain(&error)).with_leader(leader)
    }
}

impl From<HttpError> for ApiError {
    /// Errors of what comes before a handler: credentials, a request that cannot be read (400; also a body over the limit),
    /// or a defect.
    fn from(error: HttpError) -> Self {
        let code = match error.status_code.as_u16() {
            401 => ErrorCode::Unauthenticated,
            403 => ErrorCode::Forbidden,
            404 => ErrorCode::NotFound,
            429 => ErrorCode::TooManyRequests,
            400..=499 => ErrorCode::BadRequest,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.external_message)
    }
}

impl HttpResponseError for ApiError {
    fn status_code(&self) -> ErrorStatusCode {
        ErrorStatusCode::from_u16(self.0.error_code.status()).unwrap_or(ErrorStatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for ApiError {
    fn schema_name() -> String {
        Error::schema_name()
    }

    fn json_schema(generator: &mut schemars::r#gen::SchemaGenerator) -> schemars::schema::Schema {
        Error::json_schema(generator)
    }
}
