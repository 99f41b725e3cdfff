//! The statements that do not write: what the leader finds out about them, for connection poolers.
//!
//! The leader takes the statements of its primary from `pg_stat_statements`, finds out what each rests on, and asks the
//! catalogue whether any of that may write. The result goes through the cluster's log to every node.
//!
//! This module needs nothing of the daemon but a [`Server`] to ask and a handle to the cluster. It is left out without
//! the feature `readonly-statements`, and PostgreSQL's parser with it.
//!
//! # Layout
//!
//! - `parse`, `facts`: from SQL to what it rests on, by PostgreSQL's own parser.
//! - `catalogue`, `judge`: what is known of a database, and whether a statement may write according to that; pure.
//! - `collect`: reads the catalogue. `sources`: reads the statements. `sessions`: the connections for both.
//! - `watch`: the leader's rounds. `publish`: what they change in the cluster.
//!
//! # Rounds
//!
//! Every [`CATALOGUE_CHECK_INTERVAL`](watch::CATALOGUE_CHECK_INTERVAL), the leader reads the *basis* of each database with
//! published statements: a digest of its catalogue, the same on all nodes. If it is not the basis by which the
//! statements were judged, all are judged again, and those that are not found safe are withdrawn. That costs the database
//! a few milliseconds, and writes nothing. Every [`DISCOVERY_INTERVAL`](watch::DISCOVERY_INTERVAL), the leader reads
//! which statements are new, and judges them. A longer pause follows what took long, so that the database spends a small
//! part of its time on this.
//!
//! The leader remembers only which statements were judged. A new leader, or one that lacks the text of a published
//! statement, leaves that published while the basis is the one by which it was judged.

mod catalogue;
mod collect;
mod facts;
mod judge;
mod parse;
mod publish;
mod sessions;
mod sources;
mod watch;

use futures::future::BoxFuture;

pub(crate) use watch::run;

/// The PostgreSQL server whose statements are judged.
pub(crate) trait Server: Send + Sync {
    /// Whether it is a primary now.
    fn is_primary(&self) -> bool;

    /// Opens a connection to a database, for reading only.
    fn connect<'a>(&'a self, database: &'a str) -> Connecting<'a>;
}

/// A connection that is being made, or why it cannot be made.
pub(crate) type Connecting<'a> = BoxFuture<'a, Result<tokio_postgres::Client, ConnectError>>;

/// Why a connection cannot be made.
pub(crate) type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// What PostgreSQL answered.
type Asked<T> = Result<T, tokio_postgres::Error>;

fn cell<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a tokio_postgres::Row, index: usize) -> Asked<T> {
    row.try_get(index)
}

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to the database {database}")]
    Connect {
        database: String,
        #[source]
        source: ConnectError,
    },
    #[error("cannot {attempted} of the database {database}")]
    Ask {
        attempted: &'static str,
        database: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("cannot publish which statements do not write")]
    Tell(#[source] qluster_consensus::node::cluster::ClusterError),
    #[error("the catalogue of the database {0} keeps changing")]
    Restless(String),
    #[error("the connection to the database {0} was closed")]
    Closed(String),
    #[error("a defect: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

#[cfg(test)]
mod tests {
    /// Of this crate, only `report` is used.
    #[test]
    fn statements_know_nothing_of_the_daemon() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/statements");
        let files: Vec<_> = std::fs::read_dir(sources).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10, "{files:?}");
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let own = concat!("crate", "::");
            let foreign = text.split(own).skip(1).find(|used| !used.starts_with("report"));
            assert_eq!(foreign.map(|used| used.lines().next()), None, "{}", path.display());
        }
    }
}
