//! The sync rule of this node's primary, by the state and the membership of now.

use crate::model::Term;
use crate::primary::local::Local;
use crate::protocol::state::State;
use crate::protocol::sync_rule::{self, Proof, Rules, VoterSets};
use crate::raft::core::Core;

/// The rules for the primary of this node, the leader of `term`.
pub(crate) fn rules(core: &Core, local: &Local, term: Term) -> Rules {
    core.state_machine().read(|applied| rules_by(core, local, &applied.state, term))
}

/// How far the rule that the primary of this node, the leader of `term`, is to have is proven.
pub(crate) fn proof(core: &Core, local: &Local, term: Term) -> Proof {
    core.state_machine().read(|applied| {
        let rules = rules_by(core, local, &applied.state, term);
        sync_rule::proof(rules, &applied.state, &local.in_force.borrow())
    })
}

fn rules_by(core: &Core, local: &Local, state: &State, term: Term) -> Rules {
    let (_, committed) = core.membership();
    let sets = VoterSets { committed, logged: core.voters(), joining: local.joining(term) };
    sync_rule::rules(state, &sets, core.id(), term)
}
