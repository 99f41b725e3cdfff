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
    /// Sends `request` to node `to` at `address`, and waits for its answer for at most `timeout`.
    ///
    /// Requests to one node arrive in the order of the calls. So the request is queued when the call returns, before its
    /// future is polled for the first time. Answers may overtake each other. An implementation makes sure that it speaks
    /// to the node `to` of its own cluster, and to no other.
    ///
    /// # Errors
    ///
    /// If there is no connection, or no answer in time. Then the request may have arrived all the same.
    fn call(
        &self,
        to: NodeId,
        address: SocketAddr,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>>;

    /// Closes the connections to the node `id`, which was removed from the cluster.
    fn forget(&self, id: NodeId);
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no connection to the node. The request did not arrive.
    #[error("node {node} at {address} is not reachable: {reason}")]
    Unreachable {
        /// The node that the request was for.
        node: NodeId,
        /// Where the node should be.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// No answer came in time. The request may have arrived.
    #[error("node {node} at {address} did not answer within {timeout:?}")]
    Timeout {
        /// The node that the request was for.
        node: NodeId,
        /// Where the node should be.
        address: SocketAddr,
        /// How long the caller waited.
        timeout: Duration,
    },
}

/// What a node asks of another. As for [`Change`](crate::protocol::command::Change), a new request goes to the end of the
/// list, and none changes once it is part of a release. The same is true for the answers, and for every type in them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Raft's AppendEntries. Without entries it is a heartbeat.
    Append(AppendRequest),
    /// Raft's RequestVote.
    Vote(VoteRequest),
    /// Raft's pre-vote: would you vote for me?
    PreVote {
        /// The vote that would be asked for.
        request: VoteRequest,
        /// How far the candidate's database is. None after the first round: later rounds do not prefer the best
        /// database, so that a cluster whose newest log and newest WAL are on two nodes elects one of them.
        position: Option<WalPosition>,
    },
    /// A leader hands its lead to the receiver, or tells the receiver that it hands it to another node.
    Transfer(TransferRequest),
    /// A piece of a snapshot.
    Snapshot(SnapshotChunk),
    /// The elected node of a term asks a voter to promise that it takes no WAL of an earlier primary, and for its position.
    Recruit {
        /// The term in which the asking node was elected.
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
    /// The asking node, which was down, is fit again and wants to be brought back.
    Up,
    /// An operator accepts that commits may be lost if the receiver leads.
    Force {
        /// Who.
        actor: String,
    },
    /// An operator wants the asking node to lead. The receiver, which was elected and cannot lead, transfers its Raft
    /// leadership to it.
    Yield,
    /// How the asking node is. The receiver answers with the same about itself.
    Report(Box<NodeReport>),
    /// Asks for a report that is made for this request.
    Look,
}

/// The answer to a [`PeerRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PeerResponse {
    /// To an append.
    Append {
        /// Raft's answer.
        response: AppendResponse,
        /// The length of the lease that the receiver grants: for that long it votes for nobody else. It is the
        /// receiver's own `node-timeout`, which may differ from the leader's while a change of the setting spreads.
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
    /// The receiver does what it was asked for, or has done it.
    Done,
    /// The asking node as it is now, or as it was before it was removed.
    Changed(Box<Node>),
    /// What the asking node wanted is in the log, and was not confirmed in time. The reason, in a sentence.
    Unconfirmed(String),
    /// How the receiver is.
    Report(Box<NodeReport>),
    /// The asking node was removed from the cluster.
    Removed,
    /// The receiver cannot serve the request. The reason, in a sentence.
    Failed(String),
}

/// A piece of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Identifies the snapshot's transfer, of which this is a piece.
    pub transfer: Uuid,
    /// The vote of the leader that sends it.
    pub vote: VoteRecord,
    /// The metadata of the whole snapshot.
    pub meta: SnapshotMetadata,
    /// Where the piece begins in the snapshot, in bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// Whether it is the last piece.
    pub last: bool,
}

/// How a node is, as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeId,
    /// How far it has applied the cluster's log.
    pub applied: LogIndex,
    /// The nodes that it heard from lately.
    pub sees: BTreeSet<NodeId>,
    /// Its database. None if it has none.
    pub database: Option<DatabaseStatus>,
    /// How far its database is. None if that is not known.
    pub position: Option<WalPosition>,
    /// What keeps it from its work, in a sentence. None if nothing does.
    pub note: Option<String>,
    /// The newest version of the protocol that it knows.
    pub version: Version,
}
