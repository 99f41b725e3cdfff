//! How the nodes are, as they report it themselves. It changes too often to be in the cluster's log.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogIndex, Lsn, NodeId, Term};

/// How the nodes are, by the newest reports that the answering node has. A node that it has not heard from lately is
/// missing. Answers of different nodes may differ: none of this is in the cluster's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "ClusterStatus::example")]
pub struct ClusterStatus {
    /// The node that answers.
    pub node: NodeId,
    /// The nodes, by node id, including the one that answers.
    pub nodes: BTreeMap<NodeId, NodeStatus>,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "NodeStatus::example")]
pub struct NodeStatus {
    /// Node id.
    pub id: NodeId,
    /// How far it has applied the cluster's log.
    pub applied_index: LogIndex,
    /// Which other nodes it heard from lately.
    pub sees: BTreeSet<NodeId>,
    /// Its database. None if it has none.
    pub database: Option<NodeDatabase>,
    /// What keeps it from its work, in a sentence. None if nothing does.
    pub note: Option<String>,
}

/// The database of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "NodeDatabase::example")]
pub struct NodeDatabase {
    /// What it is.
    pub role: DatabaseRole,
    /// Why it could not lead or be read from. None if it could.
    pub unfit: Option<String>,
    /// The end of its WAL: what a primary has written, or a standby has received. None if it cannot be asked.
    pub lsn: Option<Lsn>,
    /// How far a standby has replayed.
    pub replayed: Option<Lsn>,
    /// How many bytes of the primary's WAL it lacks. 0 for the primary itself. None if there is no primary, or if another
    /// primary wrote the end of its WAL, so that the positions do not compare.
    pub lag: Option<u64>,
    /// How many bytes of the primary's WAL it has not replayed, so that reads do not see them yet. None as for `lag`.
    pub replay_lag: Option<u64>,
    /// The term of the primary that wrote the end of its WAL.
    pub wal_term: Option<Term>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// The node whose database this standby has to follow.
    pub follows: Option<NodeId>,
    /// Whether a standby receives WAL at this moment.
    pub streaming: bool,
    /// How far a clone or rewind is, in percent. None if none is under way, or if that is not known.
    pub progress: Option<u8>,
}

/// What a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "DatabaseRole::example")]
pub enum DatabaseRole {
    /// It has no data directory yet.
    Absent,
    /// It does not run.
    Stopped,
    /// It runs, and does not answer yet.
    Starting,
    /// It is being cloned or rewound.
    Rebuilding,
    /// It runs in recovery.
    Standby,
    /// It takes writes.
    Primary,
}

impl std::fmt::Display for DatabaseRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DatabaseRole::Absent => "absent",
            DatabaseRole::Stopped => "stopped",
            DatabaseRole::Starting => "starting",
            DatabaseRole::Rebuilding => "being rebuilt",
            DatabaseRole::Standby => "a standby",
            DatabaseRole::Primary => "a primary",
        })
    }
}

impl ClusterStatus {
    fn example() -> Self {
        let node = NodeStatus::example();
        Self { node: node.id, nodes: BTreeMap::from([(node.id, node)]) }
    }
}

impl NodeStatus {
    fn example() -> Self {
        Self {
            id: NodeId(2),
            applied_index: LogIndex(42),
            sees: BTreeSet::from([NodeId(1)]),
            database: Some(NodeDatabase::example()),
            note: None,
        }
    }
}

impl NodeDatabase {
    fn example() -> Self {
        Self {
            role: DatabaseRole::Standby,
            unfit: None,
            lsn: Some(Lsn(0x16_B374_D848)),
            replayed: Some(Lsn(0x16_B374_D848)),
            lag: Some(128),
            replay_lag: Some(128),
            wal_term: Some(Term(7)),
            timeline: Some(3),
            follows: Some(NodeId(1)),
            streaming: true,
            progress: None,
        }
    }
}

impl DatabaseRole {
    /// Whether a database of this role answers clients, or could.
    pub fn runs(self) -> bool {
        matches!(self, DatabaseRole::Standby | DatabaseRole::Primary)
    }

    fn example() -> Self {
        Self::Standby
    }
}
