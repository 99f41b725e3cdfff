//! The sync rule that the primary of a cluster is to have.

use std::collections::BTreeSet;

use crate::env::sabotage::{self, Sabotage};
use crate::model::{NodeId, Term};
use crate::primary::local::Local;
use crate::protocol::database::SyncRule;
use crate::protocol::membership::{VoterChange, protected, voter_change};
use crate::protocol::quorum::sync_rule;
use crate::protocol::state::State;
use crate::raft::core::Core;

/// What the rule is for, and what comes next.
struct Voters {
    /// The voters that the rule is for.
    protected: BTreeSet<NodeId>,
    /// The one that is to lose its vote next.
    leaving: Option<NodeId>,
}

fn voters(core: &Core, local: &Local, state: &State, term: Term) -> Voters {
    let (_, mut sets) = core.membership();
    let change = match &sets[..] {
        [now] => voter_change(core.id(), &state.nodes, now),
        _ => None,
    };
    // What is in the log and not committed may elect as well, and so may what is on its way there.
    sets.extend(core.voters());
    let next = match change {
        Some(VoterChange::Add(node)) => Some(node),
        _ => None,
    };
    let joining = next.into_iter().chain(local.joining(term)).filter(|_| !sabotage::is(Sabotage::VoterBeforeRule));
    let leaving = match change {
        Some(VoterChange::Remove(node)) => Some(node),
        _ => None,
    };
    Voters { protected: protected(&sets, joining), leaving }
}

/// The sync rule for the database of this node, the leader of `term`, with the voters that there are and the next that is
/// about to become one.
pub(crate) fn wanted(core: &Core, local: &Local, term: Term) -> SyncRule {
    core.state_machine().read(|applied| {
        let state = &applied.state;
        sync_rule(&state.config, &state.nodes, &voters(core, local, state, term).protected, core.id(), term)
    })
}

/// The rule of those who are left once the voter is gone that is to go next, where there is one.
pub(crate) fn of_the_rest(core: &Core, local: &Local, term: Term) -> Option<SyncRule> {
    core.state_machine().read(|applied| {
        let state = &applied.state;
        let Voters { mut protected, leaving } = voters(core, local, state, term);
        protected.remove(&leaving?);
        Some(sync_rule(&state.config, &state.nodes, &protected, core.id(), term))
    })
}

/// How far the rule that is wanted is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The voters that it is for.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Whether every commit is acknowledged under it.
    pub(crate) in_force: bool,
    /// Whether all that was ever acknowledged is held under it by now.
    pub(crate) held: bool,
    /// Whether that is held as the rest asks once the voter is gone that is to go next.
    pub(crate) held_by_rest: bool,
    /// Whether the log says that all that was ever acknowledged is held as these voters ask.
    pub(crate) logged: bool,
    /// Tells apart what was proven before and after the log's word became void.
    pub(crate) void: u64,
}

/// How far the rule that is wanted of the primary of this node, the leader of `term`, is proven.
pub(crate) fn proof(core: &Core, local: &Local, term: Term) -> Proof {
    let rest = of_the_rest(core, local, term);
    core.state_machine().read(|applied| {
        let state = &applied.state;
        let voters = voters(core, local, state, term).protected;
        let wanted = sync_rule(&state.config, &state.nodes, &voters, core.id(), term);
        let proven = local.in_force.borrow();
        let in_force = proven.rule.as_ref() == Some(&wanted);
        Proof {
            in_force,
            held: in_force && proven.held,
            held_by_rest: in_force && rest.is_some() && proven.rest == rest,
            logged: state.held.as_ref() == Some(&voters),
            void: state.held_void,
            voters,
        }
    })
}
