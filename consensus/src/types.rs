//! openraft's types, as this crate uses them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Outcome};
use crate::model::NodeId;

#[cfg(feature = "simulation")]
use crate::simulation::Runtime;
#[cfg(not(feature = "simulation"))]
#[allow(deprecated)] // openraft's default, which goes by this name.
type Runtime = openraft::impls::TokioRuntime;

openraft::declare_raft_types!(
    /// The types that openraft is used with.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = NodeId,
        Node = Peer,
        Term = u64,
        // At most one leader a term, as in the paper; openraft's default allows several.
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

/// Where a member of the Raft cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Address of its API port, on which the peer channel is, too.
    pub address: SocketAddr,
}

impl Default for Peer {
    fn default() -> Self {
        Self { address: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::machine::Machine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
