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
    /// It is committed, or it was refused.
    Settled(Result<(), RaftError>),
    /// It was not confirmed in time: it may still be on its way.
    Unknown(RaftError),
}

impl Core {
    /// Takes `step` on `raft`, the core that leads, and waits for its outcome for `patience`. A hand-over changes no
    /// membership.
    pub(crate) async fn change_members(&self, raft: &Raft, step: Step, patience: Duration) -> MembersChanged {
        const ATTEMPTED: &str = "changing the membership";
        // Who loses its vote stays a learner until the next step.
        let Some(change) = change_of(step) else { return MembersChanged::Settled(Ok(())) };
        match tokio::time::timeout(patience, raft.change_membership(change, true)).await {
            Ok(changed) => MembersChanged::Settled(changed.map(drop).map_err(|error| self.failed(ATTEMPTED, error))),
            Err(error) => MembersChanged::Unknown(self.failed(ATTEMPTED, error)),
        }
    }
}

/// The change of the membership that a step is, in openraft's words.
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
