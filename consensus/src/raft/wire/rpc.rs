//! The requests and answers of Raft, as peers send them.

use serde::{Deserialize, Serialize};

use super::log::{LogEntry, LogPosition, VoteRecord};
use crate::model::NodeId;

/// AppendEntries (Raft, section 5.3). Without entries it is a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendRequest {
    /// The vote by which the sender leads.
    pub vote: VoteRecord,
    /// The entry before the first of `entries`. None if they begin the log.
    pub previous: Option<LogPosition>,
    /// The entries, in order.
    pub entries: Vec<LogEntry>,
    /// The newest entry that the sender knows to be committed.
    pub committed: Option<LogPosition>,
}

/// The answer to an [`AppendRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendResponse {
    /// The receiver has all entries on disk.
    Success,
    /// The receiver has the entries up to this one on disk.
    PartialSuccess(Option<LogPosition>),
    /// The receiver does not have the entry before them.
    Conflict,
    /// The receiver has voted in a later term.
    HigherVote(VoteRecord),
}

/// RequestVote (Raft, section 5.2), also for a pre-vote (Raft dissertation, section 9.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// The vote that is asked for.
    pub vote: VoteRecord,
    /// The last entry of the candidate's log.
    pub last: Option<LogPosition>,
    /// Whether the leader handed its lead to the candidate.
    pub leadership_transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteResponse {
    /// The receiver's newest vote.
    pub vote: VoteRecord,
    /// Whether the receiver gives its vote.
    pub granted: bool,
    /// The last entry of the receiver's log.
    pub last: Option<LogPosition>,
}

/// A leader hands its lead over (Raft dissertation, section 3.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferRequest {
    /// The vote by which the sender leads.
    pub from: VoteRecord,
    /// Who is to lead.
    pub to: NodeId,
    /// The last entry of the sender's log.
    pub last: Option<LogPosition>,
}

/// The answer to a [`TransferRequest`].
pub type TransferResponse = Result<(), TransferRefused>;

/// Why a node does not take a lead over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferRefused {
    /// It does not follow the sender any more.
    VoteChanged {
        /// The vote by which the sender leads.
        expected: VoteRecord,
        /// The receiver's vote.
        actual: VoteRecord,
    },
    /// It lacks entries of the sender's log.
    LogNotFlushed {
        /// The last entry of the sender's log.
        expected: Option<LogPosition>,
        /// The last entry that the receiver has on disk.
        actual: Option<LogPosition>,
    },
}

/// The answer to the last piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotResponse {
    /// The receiver's vote.
    pub vote: VoteRecord,
}
