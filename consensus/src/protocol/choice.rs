//! The choice of the primary among the voters that promised.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::env::sabotage::{self, Sabotage};
use crate::model::{Node, NodeId, NodeRole, Term, WalPosition};
use crate::protocol::quorum::majority;
use crate::protocol::state::{Lead, Promoted};

/// What a voter tells a recruiter: it no longer takes WAL of a primary of an earlier term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// How far its database is; None if it has none.
    pub position: Option<WalPosition>,
    /// Why the database could not be promoted; None if it could.
    pub unfit: Option<String>,
}

/// Whether the nodes that promised are a majority of each voter set (two, in a joint membership).
pub(crate) fn is_majority(voters: &[BTreeSet<NodeId>], promised: impl Fn(NodeId) -> bool) -> bool {
    let less = usize::from(sabotage::is(Sabotage::RecruitOneTooFew));
    voters.iter().all(|set| set.iter().filter(|&&voter| promised(voter)).count() + less >= majority(set.len()))
}

/// Whether the node that led last is among those who promised, with the whole WAL of its lead. Then it has every commit
/// that was ever acknowledged:
///
/// - those from before its term it had when it was chosen;
/// - in its term no commit is acknowledged without it, and it is fenced now;
/// - in earlier terms no commit has been acknowledged since it was promoted.
///
/// So nobody has to wait for other voters, such as those that cannot promise because their databases have to be rebuilt
/// from a primary.
///
/// The node has to be one that [`choose`] may choose. If it were left out there, one that lacks commits would be chosen.
pub(crate) fn is_whole(
    lead: Option<Lead>,
    promoted: Option<&Promoted>,
    promises: &BTreeMap<NodeId, Promise>,
    may_lead: impl Fn(NodeId) -> bool,
) -> bool {
    let (Some(lead), Some(promoted)) = (lead, promoted) else { return false };
    let newest = (promoted.node, promoted.term) == (lead.node, lead.term);
    let wrote = promoted.history.0.last().map(|start| start.term);
    let position = promises.get(&lead.node).and_then(|promise| promise.position);
    newest && may_lead(lead.node) && position.is_some_and(|position| Some(position.term) == wrote)
}

/// Who is to be the primary.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The node that recruited.
    Me,
    /// A node whose database is further.
    Other(NodeId),
    /// The furthest database is not fit to lead: its node, and why. A node that led instead could lack commits.
    Unfit(NodeId, String),
    /// None of those who promised may lead: they are witnesses.
    Nobody,
}

/// Whether a voter may lead: it may if it has a database. One that was declared down may, too, while Raft counts it as a
/// voter: it may hold what nobody else does. It hands over once the others have that.
pub(crate) fn may_lead(node: &Node) -> bool {
    node.role == NodeRole::Voter
}

/// Chooses among `promises`. `may_lead` tells which voters may lead.
///
/// The chosen position is at least every position reported, so it has whatever any majority may have acknowledged. Among
/// equals a fit one is chosen, and the recruiter before others, so that leadership moves no more than it must.
pub(crate) fn choose(me: NodeId, promises: &BTreeMap<NodeId, Promise>, may_lead: impl Fn(NodeId) -> bool) -> Choice {
    let position = |promise: &Promise| match promise.position {
        Some(position) if sabotage::is(Sabotage::CompareLsnAlone) => Some(WalPosition { term: Term(0), ..position }),
        position => position,
    };
    let candidates = promises.iter().filter(|&(&node, _)| may_lead(node));
    let best =
        candidates.max_by_key(|&(&node, promise)| (position(promise), promise.unfit.is_none(), node == me, node));
    match best {
        Some((&node, Promise { unfit: Some(reason), .. })) => Choice::Unfit(node, reason.clone()),
        Some((&node, _)) if node == me => Choice::Me,
        Some((&node, _)) => Choice::Other(node),
        None => Choice::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, NodeState, Port, WalHistory, WalStart};

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
            let promise = |position| Promise { position, unfit: None };
            let promises = promises.into_iter().map(|(node, position)| (NodeId(node), promise(position))).collect();
            assert_eq!(choose(NodeId(1), &promises, |node| node != NodeId(9)), expected, "{promises:?}");
        }
    }

    #[test]
    fn a_voter_that_was_declared_down_still_counts_for_what_it_holds() {
        let node = |id, role, state| {
            let (ip, api_port) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap());
            let node =
                Node { id: NodeId(id), ip, db_port: None, api_port, role, upgrade_to: role, state, reason: None };
            (node.id, node)
        };
        let nodes: BTreeMap<_, _> = [
            node(1, NodeRole::Voter, NodeState::Up),
            node(2, NodeRole::Voter, NodeState::Down),
            node(9, NodeRole::Witness, NodeState::Up),
        ]
        .into();
        let promise = |position| Promise { position, unfit: None };
        let promises = [(1, at(3, 100)), (2, at(3, 101)), (9, None)];
        let promises = promises.into_iter().map(|(node, position)| (NodeId(node), promise(position))).collect();
        assert_eq!(choose(NodeId(1), &promises, |node| may_lead(&nodes[&node])), Choice::Other(NodeId(2)));
    }

    #[test]
    fn who_is_not_fit_leads_only_where_nobody_else_has_as_much_and_then_nobody_does() {
        let full = Some("its disk is full".to_owned());
        let fit = |lsn| Promise { position: at(3, lsn), unfit: None };
        let unfit = |lsn| Promise { position: at(3, lsn), unfit: full.clone() };
        for (promises, expected) in [
            ([unfit(100), fit(100)], Choice::Other(NodeId(2))),
            ([fit(100), unfit(100)], Choice::Me),
            ([fit(100), unfit(101)], Choice::Unfit(NodeId(2), "its disk is full".into())),
            ([unfit(101), fit(100)], Choice::Unfit(NodeId(1), "its disk is full".into())),
            ([unfit(99), fit(100)], Choice::Other(NodeId(2))),
        ] {
            let promises = (1..).map(NodeId).zip(promises).collect();
            assert_eq!(choose(NodeId(1), &promises, |_| true), expected, "{promises:?}");
        }
    }

    #[test]
    fn who_led_last_has_everything_as_long_as_it_has_the_wal_of_its_lead() {
        let lead = |node, term| Some(Lead { node: NodeId(node), term: Term(term) });
        let promoted = |node, term, wrote: &[u64]| {
            let starts = wrote.iter().map(|&term| WalStart { term: Term(term), lsn: Lsn(term * 10) }).collect();
            Some(Promoted { node: NodeId(node), term: Term(term), timeline: 2, history: WalHistory(starts) })
        };
        for (lead, promoted, position, expected) in [
            (lead(2, 5), promoted(2, 5, &[3, 5]), at(5, 60), true),
            // It went on serving when it was elected again.
            (lead(2, 5), promoted(2, 5, &[3]), at(3, 60), true),
            // Its WAL is not what it was.
            (lead(2, 5), promoted(2, 5, &[3, 5]), at(3, 49), false),
            // It was never promoted, so a majority's promises are all that is known.
            (lead(2, 6), promoted(2, 5, &[3, 5]), at(5, 60), false),
            (lead(2, 6), None, at(5, 60), false),
            // Another led after it.
            (lead(3, 6), promoted(3, 6, &[3, 5, 6]), at(5, 60), false),
            // It has no database.
            (lead(2, 5), promoted(2, 5, &[]), None, false),
            (None, None, at(0, 0), false),
        ] {
            let promises = BTreeMap::from([(NodeId(2), Promise { position, unfit: None })]);
            let whole = |voter| is_whole(lead, promoted.as_ref(), &promises, |node| voter && node == NodeId(2));
            assert_eq!(whole(true), expected, "{lead:?} {promoted:?} {position:?}");
            // Who cannot be chosen does not count.
            assert!(!whole(false));
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
