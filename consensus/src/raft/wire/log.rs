//! What the store keeps.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{ClusterLog, LogIndex, NodeId, Term};
use crate::protocol::command::Command;
use crate::protocol::peer::Peer;

/// Whom a node voted for last (Raft, section 5.2: `currentTerm` and `votedFor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    /// The term of the vote.
    pub term: Term,
    /// The candidate. It is encoded as an option that is never none.
    #[serde(with = "some")]
    pub voted_for: NodeId,
    /// Whether a majority elected the candidate, so that it leads the term.
    pub committed: bool,
}

/// Where an entry is in the log. Two entries of the same position are the same entry (Raft, section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the leader that wrote the entry.
    pub term: Term,
    /// The number of the entry, counted from 0.
    pub index: u64,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Where it is.
    pub position: LogPosition,
    /// What is in it.
    pub payload: LogPayload,
}

/// What is in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogPayload {
    /// Nothing: a new leader writes it, to commit what its predecessors left (Raft, section 8).
    Blank,
    /// A change of the replicated state.
    Command(Command),
    /// Who is a member from here on.
    Membership(Membership),
}

/// The members of the Raft cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The voters: one set; or two in a joint membership, while they change (Raft, section 6); or none before the first.
    #[serde(rename = "configs")]
    pub voters: Vec<BTreeSet<NodeId>>,
    /// All members and where they are. Those that are no voters are learners.
    #[serde(rename = "nodes")]
    pub members: BTreeMap<NodeId, Peer>,
}

/// A membership and the entry that it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedMembership {
    /// Where the entry is. None before the first.
    pub position: Option<LogPosition>,
    /// The members.
    pub membership: Membership,
}

/// What a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMetadata {
    /// The last entry that is in it.
    pub last: Option<LogPosition>,
    /// The members by that entry.
    pub membership: PlacedMembership,
    /// Always empty. It held an id of the snapshot before the first release.
    pub snapshot_id: String,
}

impl LogEntry {
    /// The entry, as the API shows it.
    pub(crate) fn into_api(self) -> Result<ClusterLog, serde_json::Error> {
        let (kind, payload) = match self.payload {
            LogPayload::Blank => ("blank", serde_json::Value::Null),
            LogPayload::Command(command) => ("command", serde_json::to_value(command)?),
            LogPayload::Membership(membership) => ("membership", serde_json::to_value(membership)?),
        };
        Ok(ClusterLog {
            index: LogIndex(self.position.index),
            term: self.position.term,
            payload: [(kind.to_owned(), payload)].into(),
        })
    }
}

/// A value that is encoded as an option. None is refused.
mod some {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_some(value)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        Option::deserialize(deserializer)?.ok_or_else(|| D::Error::custom("a vote is for a node"))
    }
}
