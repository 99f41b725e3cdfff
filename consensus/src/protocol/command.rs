//! What can be replicated: the entries of the cluster's log.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{ConfigUpdate, Node, NodeId, NodeRole, Port, Term, WalHistory};
use crate::protocol::readonly::ReadonlyChange;
use crate::protocol::version::Version;

/// A change of the replicated state, with who wants it and why.
///
/// It carries an id, so that one which is written twice, because its outcome was unknown, is applied once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Identifies the command.
    pub id: Uuid,
    /// When, by the clock of the node that wrote it: RFC 3339, UTC.
    pub time: String,
    /// Who or what wants it.
    pub actor: String,
    /// Why, in a sentence.
    pub cause: String,
    /// What to change.
    pub change: Change,
}

/// What a command changes. The log keeps them by their place in this list: new ones go to its end, and none changes
/// once it is part of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The first entry: the cluster and its first node.
    Create {
        /// Identifies the cluster from now on.
        cluster: Uuid,
        /// The first node, a voter.
        node: Node,
    },
    /// Change settings.
    SetConfig(ConfigUpdate),
    /// Add a node, as a listener.
    AddNode {
        /// Address of its host.
        ip: IpAddr,
        /// Port of its REST API and peer channel.
        api_port: Port,
        /// What it becomes when it is upgraded.
        role: NodeRole,
    },
    /// Upgrade a listener to its role, or bring back a node that was down.
    UpgradeNode {
        /// Which.
        node: NodeId,
        /// Port of its database.
        db_port: Port,
        /// Port of its REST API and peer channel.
        api_port: Port,
    },
    /// Take a node's vote until it is upgraded again.
    DownNode {
        /// Which.
        node: NodeId,
    },
    /// Remove a node for good.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// The leader does, or does not, reach a node.
    Reach {
        /// Which.
        node: NodeId,
        /// Whether it answers.
        reachable: bool,
    },
    /// The node leads `term`, and its database may be promoted.
    Lead {
        /// Which.
        node: NodeId,
        /// The term that it was elected in.
        term: Term,
        /// Whether an operator has accepted that commits may be lost by it: others may have more.
        lossy: bool,
    },
    /// The database of the leader of `term` was promoted; others may follow it.
    Promoted {
        /// The leader.
        node: NodeId,
        /// Its term.
        term: Term,
        /// The timeline that the promotion began.
        timeline: u32,
        /// Its whole WAL history.
        history: WalHistory,
    },
    /// All that was ever acknowledged is held as these voters ask.
    Held {
        /// The voters: those that there are, or are to be next.
        voters: BTreeSet<NodeId>,
        /// `State::held_void` when that was proven.
        void: u64,
    },
    /// The node that was elected cannot lead, and neither can another: the cause says why.
    NobodyLeads {
        /// Which was elected.
        node: NodeId,
    },
    /// The statements that do not write have changed.
    Readonly(ReadonlyChange),
    /// All members know this version: from now on it is spoken.
    RaiseVersion {
        /// Newer than the one before.
        version: Version,
    },
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied.
    Done,
    /// Applied, and this is the node that it concerned, as it is now.
    Node(Box<Node>),
    /// The state at its turn does not allow it: nothing was changed. The reason, in a sentence.
    Refused(String),
    /// The command breaks a rule of its own: nothing was changed. The reason, in a sentence.
    Invalid(String),
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} by {}: {}", self.change, self.actor, self.cause)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
