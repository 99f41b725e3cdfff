//! The choice of the primary among those who promised to follow it.

use std::collections::{BTreeMap, BTreeSet};

use crate::durability::majority;
use crate::model::{NodeId, WalPosition};

/// Whether the nodes that promised are a majority of each voter set (two, in a joint membership).
pub(crate) fn is_majority(voters: &[BTreeSet<NodeId>], promised: impl Fn(NodeId) -> bool) -> bool {
    voters.iter().all(|set| set.iter().filter(|&&voter| promised(voter)).count() >= majority(set.len()))
}

/// Who is to be the primary.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The node that recruited.
    Me,
    /// A node whose database is further.
    Other(NodeId),
    /// None of those who promised may lead: they are witnesses.
    Nobody,
}

/// Chooses among `promises`: each voter's position, none for one without a database. `databases` tells which voters
/// may lead.
///
/// The chosen position is at least every position reported, so it has whatever any majority may have acknowledged. Among
/// equals the recruiter stays, so that leadership moves no more than it must.
pub(crate) fn choose(
    me: NodeId,
    promises: &BTreeMap<NodeId, Option<WalPosition>>,
    may_lead: impl Fn(NodeId) -> bool,
) -> Choice {
    let candidates = promises.iter().filter(|&(&node, _)| may_lead(node));
    match candidates.map(|(&node, &position)| (position, node == me, node)).max() {
        Some((_, true, _)) => Choice::Me,
        Some((_, false, node)) => Choice::Other(node),
        None => Choice::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Term};

    fn at(term: u64, lsn: u64) -> Option<WalPosition> {
        Some(WalPosition { term: Term(term), lsn: Lsn(lsn) })
    }

    #[test]
    fn the_furthest_database_is_chosen_and_the_recruiter_among_equals() {
        for (promises, expected) in [
            (vec![(1, at(3, 100)), (2, at(3, 100))], Choice::Me),
            (vec![(1, at(3, 100)), (2, at(3, 101))], Choice::Other(NodeId(2))),
            // A later term beats a longer WAL of an earlier one.
            (vec![(1, at(3, 900)), (2, at(4, 10))], Choice::Other(NodeId(2))),
            (vec![(1, at(4, 10)), (2, at(3, 900))], Choice::Me),
            // A cluster without databases: whoever was elected leads.
            (vec![(1, None), (2, None)], Choice::Me),
            (vec![(2, at(0, 0))], Choice::Other(NodeId(2))),
            // 9 is a witness.
            (vec![(9, None)], Choice::Nobody),
        ] {
            let promises = promises.into_iter().map(|(node, position)| (NodeId(node), position)).collect();
            assert_eq!(choose(NodeId(1), &promises, |node| node != NodeId(9)), expected, "{promises:?}");
        }
    }

    #[test]
    fn a_majority_of_both_halves_of_a_joint_membership_is_needed() {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let joint = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        for (promised, expected) in [(&[1, 2][..], false), (&[1, 3], false), (&[1, 3, 4], true), (&[4, 5, 1], false)] {
            let promised = set(promised);
            assert_eq!(is_majority(&joint, |node| promised.contains(&node)), expected, "{promised:?}");
        }
    }
}
