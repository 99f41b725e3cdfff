//! The statements that do not write: what the leader finds out of them, for poolers.
//!
//! The leader takes the statements of its primary from `pg_stat_statements`, looks what each rests on, and asks the
//! catalogue whether any of that may write. What it finds goes through the cluster's log to every node.
//!
//! # Layout
//!
//! - `parse`, `facts`: SQL to what it rests on, by PostgreSQL's own parser.
//! - `catalogue`, `judge`: what is known of a database, and whether a statement may write by it; pure.
//! - `collect`: reads the catalogue. `sources`: reads the statements. `sessions`: the connections for both.
//! - `watch`: the leader's rounds. `publish`: what they change in the cluster.
//!
//! # Rounds
//!
//! Every [`POLL`](watch::POLL), the *basis* of each database with published statements is asked for: a digest of what the
//! catalogue says, the same on all nodes. Where it is not the one that they were judged by, all are judged again, and
//! those that are not found safe are withdrawn. That costs the database a few milliseconds; nothing is written.
//! Every [`LOOK`](watch::LOOK), new statements are looked for, and judged. What took long is followed by a longer
//! pause, so that the database is busy with this for a small part of its time.
//!
//! Nothing is kept but which statements were judged: a leader that is new, or lacks the text of a published statement,
//! leaves that published while the basis is the one that it was judged by.

mod catalogue;
mod collect;
mod facts;
mod judge;
mod parse;
mod publish;
mod sessions;
mod sources;
mod watch;

pub(crate) use watch::run;

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
        source: crate::database::Error,
    },
    #[error("cannot {attempted} of the database {database}")]
    Ask {
        attempted: &'static str,
        database: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("cannot tell the cluster of statements that do not write")]
    Tell(#[source] qluster_consensus::node::cluster::ClusterError),
    #[error("the catalogue of the database {0} keeps changing")]
    Restless(String),
    #[error("the node is stopping")]
    Stopping,
}
