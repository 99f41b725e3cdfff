//! Which sync rule the primary is to have, how far it is proven, and which change of the voters that allows: pure functions.

use std::collections::BTreeSet;

use crate::env::sabotage::{self, Sabotage};
use crate::model::{NodeId, Term};
use crate::protocol::database::SyncRule;
use crate::protocol::membership::{Step, VoterChange, protected, voter_change};
use crate::protocol::quorum::sync_rule;
use crate::protocol::state::State;

/// The voters, as the leader knows them: sets of one membership, or of two in a joint one.
#[derive(Clone, Debug)]
pub(crate) struct VoterSets {
    /// Those of the membership that is committed.
    pub(crate) committed: Vec<BTreeSet<NodeId>>,
    /// Those of the membership that is in the leader's log, committed or not: they may elect as well.
    pub(crate) logged: Vec<BTreeSet<NodeId>>,
    /// The node that the leader is giving a vote just now: its membership is on its way into the log.
    pub(crate) joining: Option<NodeId>,
}

/// The rules that matter to a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The voters that the wanted rule is for.
    pub(crate) voters: BTreeSet<NodeId>,
    /// The rule that it is to have.
    pub(crate) wanted: SyncRule,
    /// The rule for the voters that are left once the one is gone that loses its vote next; None if none does.
    pub(crate) rest: Option<SyncRule>,
}

/// The rules for the primary of node `me`, the leader of `term`.
///
/// The wanted rule is for every voter that may take part in an election: those of the larger set, and the one that gets a
/// vote next. So the rule is raised before a voter is added, and lowered after one was removed: at every step, the
/// holders of a commit meet every majority that can elect.
pub(crate) fn rules(state: &State, sets: &VoterSets, me: NodeId, term: Term) -> Rules {
    let change = match &sets.committed[..] {
        [now] => voter_change(me, &state.nodes, now),
        _ => None,
    };
    let (next, leaving) = match change {
        Some(VoterChange::Add(node)) => (Some(node), None),
        Some(VoterChange::Remove(node)) => (None, Some(node)),
        Some(VoterChange::HandOver) | None => (None, None),
    };
    let joining = next.into_iter().chain(sets.joining).filter(|_| !sabotage::is(Sabotage::VoterBeforeRule));
    let all: Vec<_> = sets.committed.iter().chain(&sets.logged).cloned().collect();
    let voters = protected(&all, joining);
    let rule = |voters: &BTreeSet<NodeId>| sync_rule(&state.config, &state.nodes, voters, me, term);
    let wanted = rule(&voters);
    let rest = leaving.map(|leaving| rule(&voters.iter().copied().filter(|&voter| voter != leaving).collect()));
    Rules { voters, wanted, rest }
}

/// The sync rule of a primary, as far as it is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// The rule under which every commit is acknowledged; None if this node has no primary that serves.
    pub(crate) rule: Option<SyncRule>,
    /// Whether all commits that were ever acknowledged are held under it.
    pub(crate) held: bool,
    /// The rule for the voters that are left once the one is gone that loses its vote next, if all commits that were ever
    /// acknowledged are held under that.
    pub(crate) rest: Option<SyncRule>,
}

impl InForce {
    /// The rule `rule`, of which nothing is proven yet.
    pub(crate) fn new(rule: SyncRule) -> Self {
        Self { rule: Some(rule), ..Self::default() }
    }
}

/// How far the rule that is wanted is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The voters that it is for.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Whether every commit is acknowledged under it.
    pub(crate) in_force: bool,
    /// Whether all commits that were ever acknowledged are held under it by now.
    pub(crate) held: bool,
    /// Whether they are held under the rule for the voters that are left once the next one is gone.
    pub(crate) held_by_rest: bool,
    /// Whether the log says that they are held under the rule for these voters.
    pub(crate) logged: bool,
    /// Tells a proof from before the log's word became void from one after it.
    pub(crate) void: u64,
}

/// How far the wanted one of `rules` is proven by what is in force. A proof under another rule says nothing of it.
pub(crate) fn proof(rules: Rules, state: &State, proven: &InForce) -> Proof {
    let Rules { voters, wanted, rest } = rules;
    let in_force = proven.rule.as_ref() == Some(&wanted);
    Proof {
        in_force,
        held: in_force && proven.held,
        held_by_rest: in_force && rest.is_some() && proven.rest == rest,
        logged: state.held.as_ref() == Some(&voters),
        void: state.held_void,
        voters,
    }
}

/// Whether the proof allows the next step of the membership.
///
/// A voter is added once the rule for the larger set is in force, all commits are held under it, and the log says so: a
/// leader after this one could not prove it. A voter is removed once all commits are held under the present rule, by the
/// log's word, or under the rule for those who are left. Other steps change no majority.
pub(crate) fn allows(proof: &Proof, step: Option<&Step>) -> bool {
    match step {
        Some(Step::AddVoter(_)) if sabotage::is(Sabotage::NoBarrier) => proof.in_force,
        Some(Step::RemoveVoter(_)) if sabotage::is(Sabotage::RemoveBeforeHeld) => proof.in_force,
        Some(Step::AddVoter(_)) => proof.held && proof.logged,
        Some(Step::RemoveVoter(_)) => proof.in_force && (proof.logged || proof.held_by_rest),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, NodeRole, NodeState, Port};

    const ME: NodeId = NodeId(1);
    const TERM: Term = Term(5);

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// A state whose nodes `voters` are to have a vote, and the `down` ones none.
    fn state(voters: &[u64], down: &[u64]) -> State {
        let node = |id: u64, state| {
            let (ip, api_port, role) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap(), NodeRole::Voter);
            let (id, db_port, reason) = (NodeId(id), None, None);
            (id, Node { id, ip, db_port, api_port, role, upgrade_to: role, state, reason })
        };
        let up = voters.iter().map(|&id| node(id, NodeState::Up));
        let nodes = up.chain(down.iter().map(|&id| node(id, NodeState::Down))).collect();
        State { nodes, ..State::default() }
    }

    fn rule(standbys: &[u64], count: usize) -> SyncRule {
        SyncRule { term: TERM, standbys: ids(standbys), count }
    }

    #[test]
    fn the_rule_is_raised_before_a_voter_is_added_and_lowered_after_one_is_removed() {
        let one = |set: &[u64]| vec![ids(set)];
        for (case, state, committed, logged, joining, wanted, rest) in [
            ("nothing changes", state(&[1, 2, 3], &[]), one(&[1, 2, 3]), one(&[1, 2, 3]), None, rule(&[2, 3], 1), None),
            ("alone", state(&[1], &[]), one(&[1]), one(&[1]), None, rule(&[], 0), None),
            ("2 is to be added", state(&[1, 2], &[]), one(&[1]), one(&[1]), None, rule(&[2], 1), None),
            (
                "4 is being added, and was declared down meanwhile",
                state(&[1, 2, 3], &[4]),
                one(&[1, 2, 3]),
                one(&[1, 2, 3]),
                Some(NodeId(4)),
                rule(&[2, 3, 4], 2),
                None,
            ),
            (
                "4 is in the log, not committed",
                state(&[1, 2, 3, 4], &[]),
                one(&[1, 2, 3]),
                one(&[1, 2, 3, 4]),
                None,
                rule(&[2, 3, 4], 2),
                None,
            ),
            (
                "4 is to be removed",
                state(&[1, 2, 3], &[4]),
                one(&[1, 2, 3, 4]),
                one(&[1, 2, 3, 4]),
                None,
                rule(&[2, 3, 4], 2),
                Some(rule(&[2, 3], 1)),
            ),
            (
                "a joint membership is finished first",
                state(&[1, 2, 3], &[4]),
                vec![ids(&[1, 2, 3, 4]), ids(&[1, 2, 3])],
                vec![ids(&[1, 2, 3, 4]), ids(&[1, 2, 3])],
                None,
                rule(&[2, 3, 4], 2),
                None,
            ),
            (
                "the leader itself is to go: it hands over first",
                state(&[2, 3], &[1]),
                one(&[1, 2, 3]),
                one(&[1, 2, 3]),
                None,
                rule(&[2, 3], 1),
                None,
            ),
        ] {
            let sets = VoterSets { committed, logged, joining };
            let rules = rules(&state, &sets, ME, TERM);
            assert_eq!((rules.wanted, rules.rest), (wanted, rest), "{case}");
        }
    }

    #[test]
    fn a_proof_counts_for_the_rule_that_it_was_made_under() {
        let state = State { held: Some(ids(&[1, 2, 3, 4])), held_void: 7, ..state(&[1, 2, 3], &[4]) };
        let all = vec![ids(&[1, 2, 3, 4])];
        let rules = rules(&state, &VoterSets { committed: all.clone(), logged: all, joining: None }, ME, TERM);
        let (wanted, rest) = (rule(&[2, 3, 4], 2), rule(&[2, 3], 1));
        let proven = |rule: &SyncRule, held, rest: Option<&SyncRule>| InForce {
            rule: Some(rule.clone()),
            held,
            rest: rest.cloned(),
        };
        for (case, in_force, expected) in [
            ("no rule is in force", InForce::default(), (false, false, false)),
            ("another one is, and is held", proven(&rest, true, Some(&rest)), (false, false, false)),
            ("the wanted one is in force", InForce::new(wanted.clone()), (true, false, false)),
            ("and held", proven(&wanted, true, None), (true, true, false)),
            ("and held by the rest", proven(&wanted, false, Some(&rest)), (true, false, true)),
            ("the rest was another one", proven(&wanted, false, Some(&wanted)), (true, false, false)),
        ] {
            let proof = proof(rules.clone(), &state, &in_force);
            assert_eq!((proof.in_force, proof.held, proof.held_by_rest), expected, "{case}");
            assert_eq!((proof.logged, proof.void), (true, 7), "{case}");
        }
        let other = State { held: Some(ids(&[1, 2, 3])), ..state };
        assert!(!proof(rules, &other, &InForce::default()).logged);
    }

    #[test]
    fn no_voter_comes_or_goes_before_what_was_acknowledged_is_held() {
        let (add, remove) = (Step::AddVoter(NodeId(4)), Step::RemoveVoter(NodeId(4)));
        for (in_force, held, held_by_rest, logged, may_add, may_remove) in [
            (false, false, false, false, false, false),
            (true, false, false, false, false, false),
            (true, true, false, false, false, false),
            (true, false, false, true, false, true),
            (true, true, false, true, true, true),
            (true, false, true, false, false, true),
            // By the log's word alone, a rule that is not in force allows nothing.
            (false, false, false, true, false, false),
        ] {
            let proof = Proof { voters: ids(&[1]), in_force, held, held_by_rest, logged, void: 0 };
            assert_eq!(allows(&proof, Some(&add)), may_add, "{proof:?}");
            assert_eq!(allows(&proof, Some(&remove)), may_remove, "{proof:?}");
            assert!(allows(&proof, None) && allows(&proof, Some(&Step::RemoveLearner(NodeId(4)))));
        }
    }
}
