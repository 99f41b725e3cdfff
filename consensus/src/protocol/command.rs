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
/// It carries an id. So a command that is written twice, because its outcome was unknown, is applied once.
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

/// What a command changes. The log identifies a change by its place in this list: new ones go to its end, and none changes
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
        /// The role that it is enrolled in later.
        role: NodeRole,
    },
    /// Enroll a listener in its role, or bring back a node that was declared down.
    UpgradeNode {
        /// The node.
        node: NodeId,
        /// Port of its database.
        db_port: Port,
        /// Port of its REST API and peer channel.
        api_port: Port,
    },
    /// Declare a node down: it has no vote until it is brought back.
    DownNode {
        /// The node.
        node: NodeId,
    },
    /// Remove a node for good.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// The leader does, or does not, reach a node.
    Reach {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        reachable: bool,
    },
    /// The node leads `term`, and its database may be promoted.
    Lead {
        /// The node.
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
    /// All commits that were ever acknowledged are held under the sync rule for these voters.
    Held {
        /// The voters: those that there are, or are to be next.
        voters: BTreeSet<NodeId>,
        /// `State::held_void` when that was proven.
        void: u64,
    },
    /// The node that was elected cannot lead, and neither can another: the cause says why.
    NobodyLeads {
        /// The node that was elected.
        node: NodeId,
    },
    /// The statements that do not write have changed.
    Readonly(ReadonlyChange),
    /// All members know this version: from now on the cluster speaks it.
    RaiseVersion {
        /// A newer one than before.
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
