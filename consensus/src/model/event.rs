//! What happened in the cluster, for people and for programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogIndex, NodeId, Term};

/// Something that happened in the cluster. Events are part of the replicated state: every node has the same ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "Event::example")]
pub struct Event {
    /// The log entry that made it happen.
    pub index: LogIndex,
    /// When, by the clock of the node that wrote the entry: RFC 3339, UTC.
    pub time: String,
    /// The term in which it happened.
    pub term: Term,
    /// What happened.
    pub kind: EventKind,
    /// The node that it concerns. None if it concerns the whole cluster.
    pub node: Option<NodeId>,
    /// Why, in a sentence.
    pub cause: String,
    /// Who or what asked for it: `operator`, `node 3`, `autoremove`, …
    pub actor: String,
}

/// Kinds of events. Kinds may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "EventKind::example")]
pub enum EventKind {
    /// The cluster was created.
    ClusterCreated,
    /// Settings were changed.
    ConfigChanged,
    /// A node was added, as a listener.
    NodeAdded,
    /// A listener was enrolled in its role, or a node that was down was brought back.
    NodeUpgraded,
    /// A node was declared down.
    NodeDown,
    /// The leader no longer reaches a node.
    NodeUnreachable,
    /// The leader reaches a node again.
    NodeReachable,
    /// A node was removed.
    NodeRemoved,
    /// A node was elected and leads now. Its database may be promoted.
    LeaderElected,
    /// A node leads although its database may lack acknowledged commits: an operator accepted that.
    DataLossAccepted,
    /// The node that was elected cannot lead, and no other can. The cause says why.
    NobodyLeads,
    /// The leader's database was promoted and announced. The others follow it.
    DatabasePromoted,
    /// As many nodes as the present voters require hold every commit that was ever acknowledged.
    CommitsHeld,
    /// The list of statements that do not write was changed.
    ReadonlyStatementsChanged,
    /// A node goes on alone, as a new cluster: an operator has given up the others.
    Recovered,
    /// All nodes know a newer version of the protocol and use it from now on. Older programs are refused.
    VersionRaised,
}

impl EventKind {
    fn example() -> Self {
        Self::LeaderElected
    }
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EventKind::ClusterCreated => "cluster created",
            EventKind::ConfigChanged => "config changed",
            EventKind::NodeAdded => "node added",
            EventKind::NodeUpgraded => "node enrolled",
            EventKind::NodeDown => "node down",
            EventKind::NodeUnreachable => "node unreachable",
            EventKind::NodeReachable => "node reachable",
            EventKind::NodeRemoved => "node removed",
            EventKind::LeaderElected => "leader elected",
            EventKind::DataLossAccepted => "data loss accepted",
            EventKind::NobodyLeads => "nobody leads",
            EventKind::DatabasePromoted => "database promoted",
            EventKind::CommitsHeld => "commits held",
            EventKind::ReadonlyStatementsChanged => "read-only statements changed",
            EventKind::Recovered => "recovered",
            EventKind::VersionRaised => "version raised",
        })
    }
}

impl Event {
    fn example() -> Self {
        Self {
            index: LogIndex(42),
            time: "2026-01-31T12:00:00.123Z".into(),
            term: Term(7),
            kind: EventKind::example(),
            node: Some(NodeId(1)),
            cause: "node 2 did not answer for 1s".into(),
            actor: "node 1".into(),
        }
    }
}
