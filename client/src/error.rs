//! Errors, and what each means for a read and for a change.

use std::time::Duration;

use crate::generated;
use crate::model::{self, ErrorCode, Leader};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that the client was given is not valid.
    #[error("`{address}` is not an address such as `http://10.0.0.1:8080`: {reason}")]
    Address {
        /// The address that was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client was given no address.
    #[error("no address of a node was given")]
    NoAddress,
    /// The token cannot be sent in a header.
    #[error("the token has characters that a header cannot hold")]
    Token,
    /// The certificates of the authorities, or the certificate and key of the caller, cannot be used.
    #[cfg(feature = "tls")]
    #[error("{what} cannot be used")]
    Certificate {
        /// Which of the two.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: reqwest::Error,
    },
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Setup(#[source] reqwest::Error),
    /// A node refused, and to ask again at once would not help. A change was not made.
    #[error("{operation} was refused by {address}")]
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The node that was asked.
        address: String,
        /// Its answer.
        #[source]
        cause: Box<Cause>,
    },
    /// A change was sent and not confirmed: it may still take effect. The client did not repeat it. Check the cluster
    /// before you do.
    #[error("{operation} was sent to {address} but not confirmed, and may still take effect")]
    Unconfirmed {
        /// What was asked for.
        operation: &'static str,
        /// The node that was asked.
        address: String,
        /// What happened instead of a confirmation.
        #[source]
        cause: Box<Cause>,
    },
    /// No node gave an answer in time. A change was not made.
    #[error("{operation} got no answer within {within:?} and {attempts} attempts; the last at {address}")]
    Deadline {
        /// What was asked for.
        operation: &'static str,
        /// The node of the last attempt that had enough time.
        address: String,
        /// The time for all attempts together.
        within: Duration,
        /// The number of attempts.
        attempts: u32,
        /// Why the attempt at `address` failed.
        #[source]
        cause: Box<Cause>,
    },
}

/// Why one attempt at one node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The request could not be built; nothing was sent.
    #[error("the request could not be built: {0}")]
    Request(String),
    /// There was no connection; nothing was sent.
    #[error("no connection")]
    Connect(#[source] reqwest::Error),
    /// The connection was lost after the request was sent, wholly or in part.
    #[error("the connection was lost before the answer")]
    Lost(#[source] reqwest::Error),
    /// The request was sent, wholly or in part, and there was no answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The node answered with an error.
    #[error("answered {status}")]
    Answer {
        /// The status code.
        status: u16,
        /// The body.
        #[source]
        error: Box<model::Error>,
    },
    /// The answer has a status that this API does not use: something other than a node answered.
    #[error("answered {0}, which this API does not use")]
    Status(u16),
    /// The answer cannot be read: something other than a node answered, or a node with another version of the API.
    #[error("the answer is not one of this API")]
    Body(#[source] serde_json::Error),
}

impl Error {
    /// What happened at the node that the error names; `None` if no node was asked.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Error::Refused { cause, .. } | Error::Unconfirmed { cause, .. } | Error::Deadline { cause, .. } => {
                Some(cause)
            }
            _ => None,
        }
    }

    /// The error of a change whose earlier attempt may have been taken: it is not confirmed.
    pub(crate) fn unconfirmed(self) -> Self {
        match self {
            Error::Refused { operation, address, cause } | Error::Deadline { operation, address, cause, .. } => {
                Error::Unconfirmed { operation, address, cause }
            }
            other => other,
        }
    }

    /// The error that a node answered with; `None` if no node answered with one.
    pub fn answer(&self) -> Option<&model::Error> {
        match self.cause() {
            Some(Cause::Answer { error, .. }) => Some(error),
            _ => None,
        }
    }

    /// The code of the error that a node answered with; `None` if no node answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.answer().map(|error| error.error_code)
    }
}

impl From<generated::Error<model::Error>> for Cause {
    fn from(error: generated::Error<model::Error>) -> Self {
        use generated::Error::*;
        match error {
            InvalidRequest(reason) | Custom(reason) => Cause::Request(reason),
            CommunicationError(error) if error.is_builder() => Cause::Request(chain(&error)),
            CommunicationError(error) if error.is_connect() => Cause::Connect(error),
            CommunicationError(error) | InvalidUpgrade(error) | ResponseBodyError(error) => Cause::Lost(error),
            ErrorResponse(answer) => {
                Cause::Answer { status: answer.status().as_u16(), error: Box::new(answer.into_inner()) }
            }
            InvalidResponsePayload(_, error) => Cause::Body(error),
            UnexpectedResponse(response) => Cause::Status(response.status().as_u16()),
        }
    }
}

/// An error and its sources, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// What to do after a change that was not confirmed.
#[derive(Debug, PartialEq)]
pub(crate) enum AfterChange<'a> {
    /// Nothing was changed, and to ask again would not help.
    Refused,
    /// It is not known whether the change was made.
    Unconfirmed,
    /// Nothing was changed; ask the leader, if the node named it.
    Follow(Option<&'a Leader>),
    /// Nothing was changed; there is no leader for now.
    Wait,
    /// Nothing was changed; this node cannot be asked.
    Elsewhere,
}

/// What to do after a read that failed.
#[derive(Debug, PartialEq)]
pub(crate) enum AfterRead {
    /// Every node would give the same answer.
    Refused,
    /// This node would give the same answer again; another may answer.
    NotHere,
    /// Another node may answer, or this one later.
    Elsewhere,
}

impl Cause {
    /// A change is repeated only if it is certain that it was not made. In other cases the caller decides.
    pub(crate) fn after_change(&self) -> AfterChange<'_> {
        match self {
            Cause::Request(_) => AfterChange::Refused,
            Cause::Connect(_) => AfterChange::Elsewhere,
            Cause::Lost(_) | Cause::Timeout(_) | Cause::Body(_) => AfterChange::Unconfirmed,
            // A proxy refused it before the node was asked. With 5xx, a proxy may have asked the node.
            Cause::Status(300..=499) => AfterChange::Refused,
            Cause::Status(_) => AfterChange::Unconfirmed,
            Cause::Answer { status, error } => match status {
                410 | 417 => AfterChange::Follow(error.leader.as_ref()),
                412 if error.leader.is_some() => AfterChange::Follow(error.leader.as_ref()),
                // The node may have failed before the change or after it.
                420 | 500 => AfterChange::Unconfirmed,
                429 | 530 => AfterChange::Wait,
                531 => AfterChange::Elsewhere,
                _ => AfterChange::Refused,
            },
        }
    }

    /// Whether the node answered that nobody leads.
    pub(crate) fn is_no_leader(&self) -> bool {
        matches!(self, Cause::Answer { status: 530, .. })
    }

    /// A read is tried at another node, unless every node would give the same answer.
    pub(crate) fn after_read(&self) -> AfterRead {
        match self {
            Cause::Request(_) => AfterRead::Refused,
            Cause::Answer { status: 400 | 401 | 403 | 404, .. } => AfterRead::Refused,
            Cause::Answer { status: 412 | 500, .. } | Cause::Status(300..=499) | Cause::Body(_) => AfterRead::NotHere,
            _ => AfterRead::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, leader: Option<Leader>) -> Cause {
        let error = model::Error { message: String::new(), error_code: ErrorCode::Other, request_id: None, leader };
        Cause::Answer { status, error: Box::new(error) }
    }

    fn leader() -> Leader {
        let json = r#"{"id": 1, "term": 7, "ip": "10.0.0.1", "api-port": 8080, "db-port": null}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_change_is_repeated_only_where_it_was_certainly_not_made() {
        let malformed = serde_json::from_str::<Leader>("").unwrap_err();
        for (cause, expected) in [
            (Cause::Request("no body".into()), AfterChange::Refused),
            (Cause::Timeout(Duration::ZERO), AfterChange::Unconfirmed),
            (Cause::Body(malformed), AfterChange::Unconfirmed),
            (Cause::Status(204), AfterChange::Unconfirmed),
            (Cause::Status(302), AfterChange::Refused),
            (Cause::Status(405), AfterChange::Refused),
            (Cause::Status(502), AfterChange::Unconfirmed),
            (answer(400, None), AfterChange::Refused),
            (answer(401, None), AfterChange::Refused),
            (answer(403, None), AfterChange::Refused),
            (answer(410, None), AfterChange::Follow(None)),
            (answer(410, Some(leader())), AfterChange::Follow(Some(&leader()))),
            (answer(412, None), AfterChange::Refused),
            (answer(412, Some(leader())), AfterChange::Follow(Some(&leader()))),
            (answer(417, None), AfterChange::Follow(None)),
            (answer(417, Some(leader())), AfterChange::Follow(Some(&leader()))),
            (answer(420, None), AfterChange::Unconfirmed),
            (answer(500, None), AfterChange::Unconfirmed),
            (answer(530, None), AfterChange::Wait),
            (answer(531, None), AfterChange::Elsewhere),
        ] {
            assert_eq!(cause.after_change(), expected, "{cause:?}");
        }
    }

    #[test]
    fn a_read_is_tried_elsewhere_unless_every_node_would_say_the_same() {
        for (cause, expected) in [
            (Cause::Timeout(Duration::ZERO), AfterRead::Elsewhere),
            (Cause::Status(302), AfterRead::NotHere),
            (Cause::Status(502), AfterRead::Elsewhere),
            (answer(400, None), AfterRead::Refused),
            (answer(401, None), AfterRead::Refused),
            (answer(403, None), AfterRead::Refused),
            (answer(412, None), AfterRead::NotHere),
            (answer(500, None), AfterRead::NotHere),
            (answer(530, None), AfterRead::Elsewhere),
            (answer(531, None), AfterRead::Elsewhere),
        ] {
            assert_eq!(cause.after_read(), expected, "{cause:?}");
        }
    }
}
