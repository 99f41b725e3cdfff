//! What the API says of the cluster as a whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Config, LogIndex, Node, NodeId, Term};

/// Cluster map: who is there, who leads, and the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "ClusterMap::example")]
pub struct ClusterMap {
    /// The leader. None while an election is under way, or while a majority is missing.
    pub leader: Option<NodeId>,
    /// Why there is no leader. None if there is one.
    pub reason: Option<String>,
    /// All nodes of the cluster, by node id.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The cluster's settings.
    pub config: Config,
    /// The newest term that the answering node knows.
    pub term: Term,
    /// Grows with each change of the map. Give it as `after-index` to wait for the next change.
    pub index: LogIndex,
}

/// An entry of the cluster's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "ClusterLog::example")]
pub struct ClusterLog {
    /// Its position in the log.
    pub index: LogIndex,
    /// The term of the leader that wrote it.
    pub term: Term,
    /// What it says: an object with one field, which is named after the kind of the entry. Kinds may be added, so do not
    /// rely on a closed list.
    pub payload: BTreeMap<String, serde_json::Value>,
}

/// What a previously added node needs to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "ClusterInfo::example")]
pub struct ClusterInfo {
    /// Identifies the cluster. Nodes of another cluster are refused.
    pub cluster_id: Uuid,
    /// The newest term that the answering node knows.
    pub term: Term,
    /// The newest log entry that is part of its state.
    pub applied_index: LogIndex,
    /// The cluster's settings.
    pub config: Config,
    /// The cluster's log, oldest entry first, as far as it was applied. If the log was compacted, the only entry is the
    /// state, of the kind `snapshot`.
    pub logs: Vec<ClusterLog>,
}

impl ClusterMap {
    fn example() -> Self {
        let node: Node = serde_json::from_value(serde_json::json!({
            "id": 1, "ip": "10.0.0.1", "db-port": 5432, "api-port": 8080, "role": "voter", "upgrade-to": "voter",
            "state": "up", "reason": null
        }))
        .expect("the example is a node");
        Self {
            leader: Some(NodeId(1)),
            reason: None,
            nodes: BTreeMap::from([(node.id, node)]),
            config: Config::default(),
            term: Term(7),
            index: LogIndex(42),
        }
    }
}

impl ClusterLog {
    fn example() -> Self {
        Self {
            index: LogIndex(42),
            term: Term(7),
            payload: BTreeMap::from([("lead".into(), serde_json::json!({"node": 1, "term": 7}))]),
        }
    }
}

impl ClusterInfo {
    fn example() -> Self {
        Self {
            cluster_id: Uuid::from_u128(0x8f2b_1c7e_52d4_4e0a_9d3f_6a1b_0c5e_7f90),
            term: Term(7),
            applied_index: LogIndex(42),
            config: Config::default(),
            logs: vec![ClusterLog::example()],
        }
    }
}
