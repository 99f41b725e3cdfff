//! Why a connection to a peer failed or ended.

use std::io;
use std::time::Duration;

use tokio_tungstenite::tungstenite;

use super::log::State;

/// Why a connection to a peer failed or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// Nobody listens there, or there is no network to it.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The other side took too long for a step.
    #[error("no {awaited} within {within:?}")]
    Late {
        /// What was waited for.
        awaited: &'static str,
        /// For how long.
        within: Duration,
    },
    /// The other side refuses this connection; its reason, in a sentence.
    #[error("{0}")]
    Refused(String),
    /// This side does not trust the other one; why, in a sentence.
    #[error("{0}")]
    Distrusted(&'static str),
    /// The TLS handshake failed.
    #[error("TLS could not be agreed on")]
    Tls(#[source] io::Error),
    /// The connection broke, or what arrived is not a WebSocket.
    #[error("the connection failed")]
    // In a box: it is large, and results are passed often.
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The other side ended it.
    #[error("the other side closed it")]
    Closed,
    /// Bytes that do not parse.
    #[error("it sent bytes that are no {expected}")]
    Malformed {
        /// What should have come.
        expected: &'static str,
        /// The cause.
        #[source]
        source: postcard::Error,
    },
    /// A message that does not belong here.
    #[error("it sent {0}")]
    Unexpected(&'static str),
    /// A message to be sent cannot be encoded.
    #[error("the message cannot be encoded")]
    Encode(#[source] postcard::Error),
    /// A message to be sent is over the limit.
    #[error("the message has {bytes} bytes, over the limit of {}", super::wire::MESSAGE_LIMIT_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl PeerError {
    /// The state of the connection that failed like this.
    pub(super) fn state(&self) -> State {
        match self {
            // Its cause has the time in it, and would count as a change each time.
            Self::Distrusted(_) | Self::Tls(_) => State::Distrusted(self.to_string()),
            _ => State::Refused(self.chain()),
        }
    }

    /// The error with its causes, for people.
    pub(super) fn chain(&self) -> String {
        crate::report::chain(self)
    }
}

impl From<tungstenite::Error> for PeerError {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        match error {
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(ResetWithoutClosingHandshake) => Self::Closed,
            error => Self::WebSocket(Box::new(error)),
        }
    }
}
