//! openraft's types, with the parameters that this crate gives them.

use crate::model::NodeId;
use crate::protocol::command::{Command, Outcome};
use crate::protocol::peer::Peer;

#[cfg(feature = "simulation")]
use crate::raft::runtime::Runtime;
#[cfg(not(feature = "simulation"))]
#[allow(deprecated)] // openraft's default runtime has no other name yet.
type Runtime = openraft::impls::TokioRuntime;

openraft::declare_raft_types!(
    /// The types that this crate gives openraft.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = NodeId,
        Node = Peer,
        Term = u64,
        // A term has at most one leader, as in the paper. openraft's default allows several.
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::raft::state_machine::StateMachine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
