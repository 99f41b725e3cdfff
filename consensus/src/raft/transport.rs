//! What nodes say to each other, and the trait that carries it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Duration as Interval, LogIndex, Node, NodeId, Term, WalPosition};
use crate::protocol::choice::Promise;
use crate::protocol::database::DatabaseStatus;
use crate::protocol::version::Version;
use crate::raft::wire::{
    AppendRequest, AppendResponse, SnapshotMetadata, SnapshotResponse, TransferRequest, TransferResponse, VoteRecord,
    VoteRequest, VoteResponse,
};

/// Carries requests to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` to node `to` at `address` and returns its answer, within `timeout`.
    ///
    /// Requests to one node arrive in the order of the calls, although their answers may overtake each other; so the
    /// request is in line when the call returns, before its future is polled first. An implementation makes sure that
    /// it speaks to the node `to` of its own cluster and to no other.
    fn call(
        &self,
        to: NodeId,
        address: SocketAddr,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>>;

    /// Forgets the node `id`, which was removed from the cluster: connections to it are closed.
    fn forget(&self, id: NodeId);
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no connection to the node. The request did not arrive.
    #[error("node {node} at {address} is not reachable: {reason}")]
    Unreachable {
        /// Whom it was for.
        node: NodeId,
        /// Where the node should be.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// No answer came in time. The request may have arrived.
    #[error("node {node} at {address} did not answer within {timeout:?}")]
    Timeout {
        /// Whom it was for.
        node: NodeId,
        /// Where the node should be.
        address: SocketAddr,
        /// For how long it was waited.
        timeout: Duration,
    },
}

/// What a node asks of another. As for [`Change`](crate::protocol::command::Change), new ones go to the end, and none changes once
/// it is part of a release; the same is true of the answers, and of all that they consist of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Raft's AppendEntries; without entries, a heartbeat.
    Append(AppendRequest),
    /// Raft's RequestVote.
    Vote(VoteRequest),
    /// Raft's pre-vote: would you vote for me?
    PreVote {
        /// The vote that would be asked for.
        request: VoteRequest,
        /// How far the candidate's database is, in the first round: later ones do not ask for the best database, so
        /// that a cluster whose newest log and newest WAL are on two nodes elects one of them.
        position: Option<WalPosition>,
    },
    /// A leader hands its leadership to the receiver, or tells it that it hands it to another.
    Transfer(TransferRequest),
    /// A piece of a snapshot.
    Snapshot(SnapshotChunk),
    /// The leader-to-be of a term asks a voter to take WAL of no earlier primary, and for its position.
    Recruit {
        /// The term that the asking node was elected in.
        term: Term,
    },
    /// The asking node, which led until now, is to be removed.
    Leave {
        /// Who wants that.
        actor: String,
    },
    /// The asking node is to be declared down.
    Down {
        /// Why, in a sentence.
        reason: String,
        /// Who wants that.
        actor: String,
    },
    /// The asking node is fit again and wants to be upgraded again.
    Up,
    /// An operator has accepted that commits may be lost where the receiver leads.
    Force {
        /// Who.
        actor: String,
    },
    /// The asking node is to lead by an operator's word: the receiver, which was elected and cannot lead, transfers its
    /// Raft leadership to it.
    Yield,
    /// How the asking node is, and a request for the same.
    Report(Box<NodeReport>),
    /// A request for a report that is fresh at this very moment.
    Look,
}

/// The answer to a [`PeerRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PeerResponse {
    /// To an append.
    Append {
        /// Raft's answer.
        response: AppendResponse,
        /// For so long after it heard from a leader the receiver votes for no other: its own `node-timeout`, which may
        /// differ from the leader's while a change of it is on its way.
        node_timeout: Interval,
    },
    /// To a vote or pre-vote.
    Vote(VoteResponse),
    /// To a transfer of leadership.
    Transfer(TransferResponse),
    /// To a piece of a snapshot that is not the last.
    SnapshotPart,
    /// To the last piece of a snapshot.
    Snapshot(SnapshotResponse),
    /// To a recruiter.
    Promise(Promise),
    /// The receiver does, or has done, what it was asked for.
    Done,
    /// The asking node as it is now, or as it was before it was removed.
    Changed(Box<Node>),
    /// What the asking node wanted is in the log, and was not confirmed in time; the reason, in a sentence.
    Unconfirmed(String),
    /// How the receiver is.
    Report(Box<NodeReport>),
    /// The asking node was removed from the cluster.
    Removed,
    /// The receiver cannot serve the request; the reason, in a sentence.
    Failed(String),
}

/// A piece of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Identifies the transfer that it belongs to.
    pub transfer: Uuid,
    /// The vote of the leader that sends it.
    pub vote: VoteRecord,
    /// What the snapshot is of.
    pub meta: SnapshotMetadata,
    /// Where the piece belongs, in bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// Whether it is the last.
    pub last: bool,
}

/// How a node is, as it tells itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeId,
    /// How far it has applied the cluster's log.
    pub applied: LogIndex,
    /// Which nodes answered it lately.
    pub sees: BTreeSet<NodeId>,
    /// Its database, where it has one.
    pub database: Option<DatabaseStatus>,
    /// How far its database is, where that can be told.
    pub position: Option<WalPosition>,
    /// What hinders it in doing what it has to, in a sentence.
    pub note: Option<String>,
    /// The newest version that it knows.
    pub version: Version,
}
