//! The members of a cluster.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeId, Port, Term};

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "NodeRole::example")]
pub enum NodeRole {
    /// Votes, may lead, and has a database.
    Voter,
    /// Votes, never leads, and has no database.
    Witness,
    /// Has a database and no vote.
    Replica,
    /// Receives the cluster's log and nothing more. Every node is one before its upgrade.
    Listener,
}

/// Whether a node can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "NodeState::example")]
pub enum NodeState {
    /// It answers.
    Up,
    /// The leader does not reach it. It is up again as soon as it answers.
    Unreachable,
    /// It was declared down with `/node-down`. Until it is brought back, it has no vote and poolers do not use it.
    Down,
}

/// Cluster node information.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "Node::example")]
pub struct Node {
    /// Node id.
    pub id: NodeId,
    /// IPv4 or IPv6 address of the host.
    pub ip: IpAddr,
    /// Port on which PostgreSQL is running. None before the node is enrolled.
    pub db_port: Option<Port>,
    /// Port on which the REST API is running.
    pub api_port: Port,
    /// What the node is in the cluster now.
    pub role: NodeRole,
    /// What it becomes when it is enrolled.
    pub upgrade_to: NodeRole,
    /// Whether it can be counted on.
    pub state: NodeState,
    /// Why it is in this state. None if it is up.
    pub reason: Option<String>,
}

/// The leader and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(example = "Leader::example")]
pub struct Leader {
    /// Node id of the leader.
    pub id: NodeId,
    /// The term that it leads.
    pub term: Term,
    /// IPv4 or IPv6 address of its host.
    pub ip: IpAddr,
    /// Port of its REST API.
    pub api_port: Port,
    /// Port of its PostgreSQL. None if the cluster manages no database.
    pub db_port: Option<Port>,
}

impl NodeRole {
    /// Whether a node of this role has a vote, unless it is down.
    pub fn votes(self) -> bool {
        matches!(self, NodeRole::Voter | NodeRole::Witness)
    }

    /// Whether a node of this role has a database in the cluster.
    pub fn has_database(self) -> bool {
        matches!(self, NodeRole::Voter | NodeRole::Replica)
    }

    fn example() -> Self {
        Self::Voter
    }
}

impl NodeState {
    fn example() -> Self {
        Self::Up
    }
}

impl std::fmt::Display for NodeRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NodeRole::Voter => "voter",
            NodeRole::Witness => "witness",
            NodeRole::Replica => "replica",
            NodeRole::Listener => "listener",
        })
    }
}

impl std::str::FromStr for NodeRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let roles = [Self::Voter, Self::Witness, Self::Replica, Self::Listener];
        let found = roles.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| format!("expected voter, witness, replica or listener, got `{text}`"))
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NodeState::Up => "up",
            NodeState::Unreachable => "unreachable",
            NodeState::Down => "down",
        })
    }
}

impl Node {
    /// Where its REST API and its peer channel are.
    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.api_port.get())
    }

    /// Whether it has a vote: its role has one, and it was not declared down.
    pub fn votes(&self) -> bool {
        self.role.votes() && self.state != NodeState::Down
    }

    fn example() -> Self {
        Self {
            id: NodeId(1),
            ip: IpAddr::from([10, 0, 0, 1]),
            db_port: Port::new(5432),
            api_port: Port::new(8080).expect("8080 is a port"),
            role: NodeRole::Voter,
            upgrade_to: NodeRole::Voter,
            state: NodeState::Up,
            reason: None,
        }
    }
}

impl Leader {
    fn example() -> Self {
        let node = Node::example();
        Self { id: node.id, term: Term(7), ip: node.ip, api_port: node.api_port, db_port: node.db_port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_as_it_is_told() {
        for role in [NodeRole::Voter, NodeRole::Witness, NodeRole::Replica, NodeRole::Listener] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        let error = "Voter".parse::<NodeRole>().unwrap_err();
        assert_eq!(error, "expected voter, witness, replica or listener, got `Voter`");
    }
}
