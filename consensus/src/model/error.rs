//! The body of every answer that is not a success.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Leader;

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "Error::example")]
pub struct Error {
    /// What is wrong, and what was expected, in a sentence.
    pub message: String,
    /// The same for programs. Codes may be added.
    // Unknown paths are answered by the HTTP framework, whose field names differ.
    #[serde(default, alias = "error_code")]
    pub error_code: ErrorCode,
    /// Identifies the request in the node's log. The header `x-request-id` of every answer has it, too. None if the
    /// request was refused before it had one.
    #[serde(default, alias = "request_id")]
    pub request_id: Option<String>,
    /// The leader, if one is known and could serve the request.
    #[serde(default)]
    pub leader: Option<Leader>,
}

/// What is wrong with a request, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "ErrorCode::example")]
pub enum ErrorCode {
    /// 400: a parameter or the body is malformed or breaks a rule.
    BadRequest,
    /// 401: no credential, or a wrong one.
    Unauthenticated,
    /// 403: the credential does not allow this.
    Forbidden,
    /// 404: there is no such path.
    NotFound,
    /// 410: another node became the leader before the change was committed. Nothing was applied.
    Superseded,
    /// 412: this node, or the node addressed, is not in the state that this needs.
    PreconditionFailed,
    /// 417: only the leader does this, and this node is not the leader.
    NotLeader,
    /// 420: the change was not confirmed in time. It may still take effect.
    Unconfirmed,
    /// 429: too many wrong credentials came from the caller's address.
    TooManyRequests,
    /// 500: a defect or a failing disk.
    Internal,
    /// 503: a load balancer's check fails. This node must get none of the traffic that the check is for.
    NotServing,
    /// 530: the cluster has no leader now.
    NoLeader,
    /// 531: this node's consensus, or the database that it was asked about, does not run.
    Unavailable,
    /// No code, or one that this version does not know. See the status.
    #[default]
    #[serde(other)]
    Other,
}

impl ErrorCode {
    /// The status code of an answer with this error.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::BadRequest => 400,
            ErrorCode::Unauthenticated => 401,
            ErrorCode::Forbidden => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::Superseded => 410,
            ErrorCode::PreconditionFailed => 412,
            ErrorCode::NotLeader => 417,
            ErrorCode::Unconfirmed => 420,
            ErrorCode::TooManyRequests => 429,
            ErrorCode::Internal | ErrorCode::Other => 500,
            ErrorCode::NotServing => 503,
            ErrorCode::NoLeader => 530,
            ErrorCode::Unavailable => 531,
        }
    }

    fn example() -> Self {
        Self::NotLeader
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn example() -> Self {
        Self {
            message: "only the leader changes settings, and this node is not it: ask node 1".into(),
            error_code: ErrorCode::NotLeader,
            request_id: Some("3c5b21e0-6a52-4c35-b9e0-6b1d8e9f2a10".into()),
            leader: None,
        }
    }
}
