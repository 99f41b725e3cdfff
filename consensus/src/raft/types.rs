//! openraft's types, as this crate uses them.

use crate::model::NodeId;
use crate::protocol::command::{Command, Outcome};
use crate::protocol::peer::Peer;

#[cfg(feature = "simulation")]
use crate::raft::runtime::Runtime;
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

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::raft::state_machine::StateMachine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
