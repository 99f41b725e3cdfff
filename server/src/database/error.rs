//! What can go wrong with the database of a node.

use qluster_consensus::protocol::database::DatabaseError;

use crate::{formats, os};

/// Why the database of a node is not there, does not start, or does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, process or program of the machine could not be used.
    #[error(transparent)]
    Os(#[from] os::Error),
    /// A text of PostgreSQL was not as expected.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// The database, its directory or its programs are not in the state that the operation needs.
    #[error("{0}")]
    Unfit(String),
    /// It cannot be done with the data on this node: the database has to be cloned.
    #[error("{0}")]
    Hopeless(String),
    /// PostgreSQL ended while the daemon waited for it.
    #[error("PostgreSQL ended: {log}")]
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// A statement or connection failed.
    #[error("cannot {attempted}")]
    Query {
        /// What was attempted.
        attempted: &'static str,
        /// The cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// PostgreSQL did not answer in time.
    #[error("PostgreSQL did not answer within {within:?}, asked to {attempted}")]
    Unanswered {
        /// What was attempted.
        attempted: &'static str,
        /// How long the daemon waited.
        within: std::time::Duration,
    },
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    Stopping,
}

/// Shorthand for results of this module.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error for a caller of the trait `Database`. `attempted` says what the caller asked for.
    pub(crate) fn during(self, attempted: &str) -> DatabaseError {
        match self {
            Self::Unfit(reason) | Self::Os(os::Error::Unfit(reason)) => {
                DatabaseError::Unfit { attempted: attempted.into(), reason }
            }
            Self::Hopeless(reason) => DatabaseError::Hopeless { attempted: attempted.into(), reason },
            other => DatabaseError::Failed { attempted: attempted.into(), source: Box::new(other) },
        }
    }

    /// The error with all its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        crate::report::chain(self)
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        error.during("use the database")
    }
}
