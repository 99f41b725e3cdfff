//! What can go wrong with the database of a node.

use std::io;
use std::path::{Path, PathBuf};

use qluster_consensus::protocol::database::DatabaseError;

/// Why the database of a node is not there, does not start, or does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the database could not be read or changed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The database, its directory or its programs are not in a state that this needs.
    #[error("{0}")]
    Unfit(String),
    /// It cannot be done with the data that there are: they have to be cloned.
    #[error("{0}")]
    Hopeless(String),
    /// A program could not be run.
    #[error("cannot run {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// PostgreSQL ended while it was waited for.
    #[error("PostgreSQL ended: {log}")]
    Ended {
        /// The end of its log.
        log: String,
    },
    /// A process could not be signalled.
    #[error("cannot signal process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// The cause.
        #[source]
        source: io::Error,
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
        /// How long was waited.
        within: std::time::Duration,
    },
    /// A file or answer was not as expected.
    #[error("unexpected {what}: {text}")]
    Odd {
        /// What was read.
        what: &'static str,
        /// What it said.
        text: String,
    },
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopping,
}

/// Shorthand for results of this module.
pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A mapper of I/O errors for `action` on `path`.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// As what a caller that was told `attempted` hears of it.
    pub(super) fn during(self, attempted: &str) -> DatabaseError {
        match self {
            Self::Unfit(reason) => DatabaseError::Unfit { attempted: attempted.into(), reason },
            Self::Hopeless(reason) => DatabaseError::Hopeless { attempted: attempted.into(), reason },
            other => DatabaseError::Failed { attempted: attempted.into(), source: Box::new(other) },
        }
    }

    /// The error with all its causes, in one line.
    pub(super) fn chain(&self) -> String {
        crate::report::chain(self)
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        error.during("use the database")
    }
}
