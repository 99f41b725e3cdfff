//! The sync rule that the primary of a cluster is to have.

use crate::database::SyncRule;
use crate::durability::sync_rule;
use crate::duty::Local;
use crate::membership::{next_step, protected};
use crate::model::Term;
use crate::raft::Core;

/// The sync rule for the database of this node, the leader of `term`, with the voters that there are and the next that is
/// about to become one.
pub(crate) fn wanted(core: &Core, term: Term) -> SyncRule {
    let (members, mut sets) = core.membership();
    core.machine().read(|applied| {
        let nodes = &applied.state.nodes;
        let step = next_step(core.id(), nodes, &sets, &members);
        // What is in the log and not committed may elect as well.
        sets.extend(core.voters());
        let protected = protected(&sets, step.as_ref());
        let voters = nodes.values().filter(|node| protected.contains(&node.id));
        sync_rule(&applied.state.config, voters, core.id(), term)
    })
}

/// How far the rule that is wanted is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proven {
    /// It is not known to be in force.
    No,
    /// Every commit is acknowledged under it.
    InForce,
    /// So is, by now, all that was ever acknowledged.
    Held,
}

/// How far the rule that is wanted of the primary of this node, the leader, is proven.
pub(crate) fn proven(core: &Core, local: &Local) -> Proven {
    let in_force = local.in_force.borrow();
    if in_force.rule.as_ref() != Some(&wanted(core, core.seat().term)) {
        return Proven::No;
    }
    if in_force.held { Proven::Held } else { Proven::InForce }
}
