//! What consensus needs of the database beside a node: the trait that the server implements for PostgreSQL, and a
//! model implements in simulation.
//!
//! The rules that keep data safe are not in an implementation but in its caller (the room `primary`): who may be
//! promoted, whom to follow, when to rewind. An implementation carries out the caller's order, or fails and says why. Every
//! method is safe to call again after it failed, was cancelled (its future dropped) or the process was killed in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::env::sabotage::{self, Sabotage};
pub use crate::model::DatabaseRole;
use crate::model::{Lsn, NodeId, Port, Term};

/// A database that consensus directs.
///
/// The caller never has it do two things at once: it waits for, or drops, the future of one method before it calls the
/// next. Only [`Database::keep_wal`] and [`Database::look`] may be called beside another.
pub trait Database: Send + Sync + 'static {
    /// What the database is and does now. The implementation keeps it fresh.
    fn status(&self) -> watch::Receiver<DatabaseStatus>;

    /// Looks what the database is now: the status is fresh when this returns. It may be called beside another method.
    fn look(&self) -> BoxFuture<'_, ()>;

    /// Makes the database a standby that takes WAL from nobody, and reports the end of its WAL.
    ///
    /// A primary is stopped by the demote ladder (backends terminated and an immediate stop, then SIGKILL to the whole
    /// process group at `deadline`), and comes back as a standby. A standby forgets its primary, its receiver ends, and
    /// what was received is replayed to its end. The answer is the end of the last whole record, which is where a
    /// promotion would start.
    fn fence(&self, deadline: Duration) -> BoxFuture<'_, Result<Lsn, DatabaseError>>;

    /// Stops a primary by the demote ladder, so that it serves nobody at `deadline`, and leaves it stopped. Does
    /// nothing to a standby.
    fn demote(&self, deadline: Duration) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Promotes a fenced standby under the sync rule `rule`, which is in force before its first commit. Clients, readers
    /// too, are shut out before the promotion, their sessions ended, until [`Database::admit`] lets them in. A
    /// checkpoint is begun: pg_rewind misjudges a source that has not checkpointed since its promotion, so
    /// [`Database::rewind`] waits for it.
    fn promote(&self, rule: SyncRule) -> BoxFuture<'_, Result<Promotion, DatabaseError>>;

    /// Puts `rule` in force on a running primary: when this returns, no commit is acknowledged but under it. Whether
    /// what was acknowledged before is held under it is for [`Database::hold`] to tell.
    fn set_sync_rule(&self, rule: SyncRule) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Writes to a running primary, and waits until that is held as the sync rule in force asks; with it, all that was
    /// written before. It takes as long as the standbys take to come; dropping the future leaves nothing behind.
    fn hold(&self) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Waits until all that a running primary has written by now is held as `rule` asks, whether or not that is the rule
    /// in force.
    fn flushed(&self, rule: SyncRule) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Lets clients in to a running primary.
    fn admit(&self) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Makes a fenced standby, whose WAL is a prefix of `primary`'s, stream from it. It returns once the standby is set up to
    /// stream; the status tells whether it does.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Hopeless`] if its WAL turns out to be no prefix: it has to be rewound.
    fn follow(&self, primary: Primary) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Rewinds a database whose WAL has diverged from `primary`'s at `fork` (pg_rewind), and starts it to follow that
    /// primary, whose WAL it has from then on.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Hopeless`] if only a clone can help. One case: by its own account of its past, the database would be
    /// rewound to a point behind `fork`, since two promotions that did not know of each other can begin timelines of the same
    /// number.
    fn rewind(&self, primary: Primary, fork: Lsn) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Waits until a database that was rewound to `primary` streams from it, in a consistent state. Before that it is of no
    /// use, and has to be rewound again if that primary is lost.
    ///
    /// # Errors
    ///
    /// As [`Database::rewind`].
    fn settle(&self, primary: Primary) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Throws the local data away and copies `primary`'s (pg_basebackup). It returns when the whole copy is in its place and
    /// was started to follow the primary. The copy is of use as soon as it is consistent, and is not made again because it is
    /// not consistent yet.
    fn copy_from(&self, primary: Primary) -> BoxFuture<'_, Result<(), DatabaseError>>;

    /// Stops the database, whatever it is, and leaves it stopped; in good order if it can (PostgreSQL's fast shutdown:
    /// sessions end, all WAL is sent to the standbys that stream). The answer is where the last record begins that it wrote
    /// as a primary, the shutdown checkpoint: a standby has all of its WAL once its own ends beyond that.
    fn stop(&self) -> BoxFuture<'_, Result<Lsn, DatabaseError>>;

    /// Keeps WAL for the databases that follow this one, or would if it were the primary: `standbys` has the node of each, and
    /// how far it is, or None if it has not told that lately. WAL that one of them lacks is kept, within the bounds that keep
    /// the disk from filling up. For other nodes nothing is kept any longer.
    fn keep_wal(&self, standbys: BTreeMap<NodeId, Option<Lsn>>) -> BoxFuture<'_, Result<(), DatabaseError>>;
}

/// What a database is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// What it is.
    pub role: DatabaseRole,
    /// Why it could not be promoted or read from; None if it could.
    pub unfit: Option<String>,
    /// The end of its WAL: written, for a primary; received and flushed, for a standby. None if it cannot be asked.
    pub lsn: Option<Lsn>,
    /// How far a standby has replayed.
    pub replayed: Option<Lsn>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// The primary that a standby is set up to follow, and its term.
    pub follows: Option<(NodeId, Term)>,
    /// Whether its receiver streams at this moment.
    pub streaming: bool,
    /// Whether the primary that it follows no longer has the WAL that it needs: it must be cloned.
    pub lacks_wal: bool,
    /// Whether somebody else than qluster promoted it. What it wrote then belongs to no term, and its LSN does not show that.
    /// This is so until it is rewound, cloned or promoted. Only its node needs to know.
    #[serde(skip)]
    pub strayed: bool,
    /// Why a standby does not stream from the primary that it follows; None if unknown. It is fit all the same: the standbys
    /// of a primary that is gone do not stream. Peers learn of it by the node's note.
    #[serde(skip)]
    pub hindrance: Option<String>,
    /// How far a clone or rewind is that is under way, in percent; None if unknown, or if none is.
    pub progress: Option<u8>,
}

impl DatabaseStatus {
    /// Whether it streams from the primary that `node` was promoted as in `term`.
    pub fn streams_from(&self, node: NodeId, term: Term) -> bool {
        self.streaming && self.follows == Some((node, term))
    }
}

/// A primary to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Its node.
    pub node: NodeId,
    /// The term that it was promoted in.
    pub term: Term,
    /// Address of its host.
    pub ip: IpAddr,
    /// Port of its database.
    pub port: Port,
    /// The timeline that its promotion began.
    pub timeline: u32,
}

/// What became of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The timeline that it began.
    pub timeline: u32,
    /// Where the WAL of that term begins: where its timeline does. If somebody else had promoted the database before, what it
    /// wrote since belongs to this term.
    pub start: Lsn,
}

/// Which standbys must hold a transaction before its commit is acknowledged: any `count` of `standbys`.
///
/// Standbys are named by node *and* term. So a standby that reconnects by itself, while its daemon is frozen, holds nothing for a term
/// that it has not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRule {
    /// The term of the primary.
    pub term: Term,
    /// Nodes that count.
    pub standbys: BTreeSet<NodeId>,
    /// How many of them must hold it; 0: commits wait for nobody.
    pub count: usize,
}

/// Why a database did not carry out an order.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is not in the state that the order needs.
    #[error("{attempted}: {reason}")]
    Unfit {
        /// What was attempted.
        attempted: String,
        /// Why it cannot be.
        reason: String,
    },
    /// It cannot be done with the present data, however often it is tried. A rewind says so if it was begun and did not get to
    /// its end, or lacks what it needs; never because the primary is away, since that passes and a clone costs a whole copy.
    #[error("{attempted}: {reason}")]
    Hopeless {
        /// What was attempted.
        attempted: String,
        /// Why it cannot work.
        reason: String,
    },
    /// It was tried and failed.
    #[error("{attempted}")]
    Failed {
        /// What was attempted, on what.
        attempted: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DatabaseStatus {
    /// The status of a database of which only its role is known.
    pub fn unknown(role: DatabaseRole) -> Self {
        Self {
            role,
            unfit: None,
            lsn: None,
            replayed: None,
            timeline: None,
            follows: None,
            streaming: false,
            lacks_wal: false,
            strayed: false,
            hindrance: None,
            progress: None,
        }
    }
}

/// The name that a standby gives itself (`application_name`): its node and the term that it follows.
pub fn standby_name(node: NodeId, term: Term) -> String {
    if sabotage::is(Sabotage::CountUntagged) {
        return format!("qluster_{node}");
    }
    format!("qluster_{node}_{term}")
}
