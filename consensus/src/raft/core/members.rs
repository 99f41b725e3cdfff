//! Changes of Raft's membership.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;

use super::{Core, RaftError};
use crate::model::NodeId;
use crate::protocol::membership::Step;
use crate::protocol::peer::Peer;
use crate::raft::types::Raft;

/// What became of a change of the membership.
pub(crate) enum MembersChanged {
    /// It is committed, or it was refused: the outcome is known.
    Settled(Result<(), RaftError>),
    /// It was not confirmed in time. It may still take effect.
    Unknown(RaftError),
}

impl Core {
    /// Takes `step` by `raft`, the core that leads, and waits for the outcome for at most `patience`. A hand-over changes
    /// no membership.
    pub(crate) async fn change_members(&self, raft: &Raft, step: Step, patience: Duration) -> MembersChanged {
        const ATTEMPTED: &str = "changing the membership";
        // A member that loses its vote stays a learner until the next step.
        let Some(change) = change_of(step) else { return MembersChanged::Settled(Ok(())) };
        match tokio::time::timeout(patience, raft.change_membership(change, true)).await {
            Ok(changed) => MembersChanged::Settled(changed.map(drop).map_err(|error| self.failed(ATTEMPTED, error))),
            Err(error) => MembersChanged::Unknown(self.failed(ATTEMPTED, error)),
        }
    }
}

/// The change of the membership that a step makes, for openraft. None if it makes none.
fn change_of(step: Step) -> Option<ChangeMembers<NodeId, Peer>> {
    Some(match step {
        Step::AddLearner(id, peer) => ChangeMembers::AddNodes(BTreeMap::from([(id, peer)])),
        Step::AddVoter(id) => ChangeMembers::AddVoterIds(BTreeSet::from([id])),
        Step::RemoveVoter(id) => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
        Step::RemoveLearner(id) => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
        Step::Finish(goal) => ChangeMembers::ReplaceAllVoters(goal),
        Step::HandOver => return None,
    })
}
