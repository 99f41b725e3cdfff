//! Decides the next step that brings Raft's membership to the members in the state; and which nodes the leader removes or
//! declares down, by what the nodes see of each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Config, Node, NodeId, NodeRole, NodeState};
use crate::protocol::database::SyncRule;
use crate::protocol::peer::Peer;
use crate::protocol::state::check_voters;

/// A change of Raft's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Finish what a former leader began: a joint membership.
    Finish(BTreeSet<NodeId>),
    /// Send the log to a node.
    AddLearner(NodeId, Peer),
    /// Give a node a vote.
    AddVoter(NodeId),
    /// Take a node's vote.
    RemoveVoter(NodeId),
    /// This leader is to lose its vote: another has to lead first.
    HandOver,
    /// Stop sending the log to a node.
    RemoveLearner(NodeId),
}

/// The next step from Raft's membership (`voters`: one set, or two in a joint membership; `members`: all, with their
/// addresses) to what `nodes` say. Voters change one at a time.
pub(crate) fn next_step(
    me: NodeId,
    nodes: &BTreeMap<NodeId, Node>,
    voters: &[BTreeSet<NodeId>],
    members: &BTreeSet<NodeId>,
) -> Option<Step> {
    if let [_, goal] = voters {
        return Some(Step::Finish(goal.clone()));
    }
    let now = voters.first()?;
    if let Some(node) = nodes.values().find(|node| !members.contains(&node.id)) {
        return Some(Step::AddLearner(node.id, Peer::from(node)));
    }
    match voter_change(me, nodes, now) {
        Some(VoterChange::Remove(node)) => return Some(Step::RemoveVoter(node)),
        Some(VoterChange::Add(node)) => return Some(Step::AddVoter(node)),
        Some(VoterChange::HandOver) => return Some(Step::HandOver),
        None => {}
    }
    members.iter().find(|&node| !nodes.contains_key(node)).map(|&node| Step::RemoveLearner(node))
}

/// A change of the voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoterChange {
    /// Take a node's vote.
    Remove(NodeId),
    /// Give a node a vote.
    Add(NodeId),
    /// The leader is to lose its vote: another has to lead first.
    HandOver,
}

/// The next change from the voters `now` to those that `nodes` say. A node that is to go goes before another comes: commits
/// may wait for it, and each node that comes has them wait for more.
pub(crate) fn voter_change(me: NodeId, nodes: &BTreeMap<NodeId, Node>, now: &BTreeSet<NodeId>) -> Option<VoterChange> {
    let wanted: BTreeSet<_> = nodes.values().filter(|node| node.votes()).map(|node| node.id).collect();
    // The leader last: it can take the votes of others.
    let leaving = now.difference(&wanted).copied();
    if let Some(node) = leaving.clone().find(|&node| node != me) {
        return Some(VoterChange::Remove(node));
    }
    if let Some(&node) = wanted.difference(now).next() {
        return Some(VoterChange::Add(node));
    }
    (leaving.count() > 0).then_some(VoterChange::HandOver)
}

/// The voters that the sync rule is for: those of the largest of `sets`, which are all that may elect now, and those that
/// are about to get a vote. So the rule is raised before a voter is added, and lowered after one was removed.
pub(crate) fn protected(sets: &[BTreeSet<NodeId>], joining: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
    let mut voters = sets.iter().max_by_key(|set| set.len()).cloned().unwrap_or_default();
    voters.extend(joining);
    voters
}

/// The nodes that fewer than half of the others see. `sees` has the nodes that each node sees; a node that is missing there
/// sees nobody. No node counts as seeing itself, and no listener as seeing any, since listeners do not look.
pub(crate) fn invisible(nodes: &BTreeMap<NodeId, Node>, sees: &BTreeMap<NodeId, BTreeSet<NodeId>>) -> BTreeSet<NodeId> {
    let sees = |observer: &Node, id| sees.get(&observer.id).is_some_and(|seen| seen.contains(&id));
    let is_unseen = |id: &NodeId| {
        let observers: Vec<_> =
            nodes.values().filter(|node| node.id != *id && node.role != NodeRole::Listener).collect();
        2 * observers.iter().filter(|observer| sees(observer, *id)).count() < observers.len()
    };
    nodes.keys().copied().filter(is_unseen).collect()
}

/// The one of the `candidates` that the leader `me` may remove by itself; None if there is none. It never removes itself, nor
/// goes below `autoremove-minimum`, nor removes a voter without which the reachable ones would be no majority.
pub(crate) fn removable(
    config: &Config,
    me: NodeId,
    nodes: &BTreeMap<NodeId, Node>,
    candidates: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    if !config.autoremove_enabled || nodes.len() <= config.autoremove_minimum as usize {
        return None;
    }
    candidates.iter().copied().find(|&id| id != me && nodes.contains_key(&id) && can_lose(nodes, id))
}

/// The one of the standbys that are `late` that the leader declares down, since commits wait for it; None if they wait for
/// none. They wait if too few of the standbys that the sync rule names stream: `missing` do not. A node that does not answer
/// goes before one that does.
pub(crate) fn dispensable(
    rule: &SyncRule,
    nodes: &BTreeMap<NodeId, Node>,
    missing: usize,
    late: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    // One at a time: the one that is leaving already may be all that commits wait for.
    let leaving = rule.standbys.iter().any(|id| !nodes.get(id).is_some_and(Node::votes));
    if leaving {
        return None;
    }
    if rule.standbys.len() - missing.min(rule.standbys.len()) >= rule.count {
        return None;
    }
    let candidates = late.iter().filter_map(|id| nodes.get(id)).filter(|node| node.votes());
    let candidates = candidates.filter(|node| can_lose(nodes, node.id));
    candidates.max_by_key(|node| node.state == NodeState::Unreachable).map(|node| node.id)
}

/// Whether the voters that answer would still be a majority once the node `id` is gone or has no vote.
pub(crate) fn majority_without(nodes: &BTreeMap<NodeId, Node>, id: NodeId) -> bool {
    let rest = voters_without(nodes, id);
    let up = rest.iter().filter(|node| node.state == NodeState::Up).count();
    up >= crate::protocol::quorum::majority(rest.len())
}

/// Whether the cluster could go on without the vote of the node `id`, and would be one that is allowed.
fn can_lose(nodes: &BTreeMap<NodeId, Node>, id: NodeId) -> bool {
    majority_without(nodes, id) && check_voters(&voters_without(nodes, id)).is_ok()
}

fn voters_without(nodes: &BTreeMap<NodeId, Node>, id: NodeId) -> Vec<&Node> {
    nodes.values().filter(|node| node.id != id && node.votes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeRole, Port};

    fn nodes(voters: &[u64], listeners: &[u64]) -> BTreeMap<NodeId, Node> {
        let node = |id: u64, role| {
            let ip = [127, 0, 0, 1].into();
            let api_port = Port::new(8000 + id as u16).unwrap();
            let (state, reason) = (NodeState::Up, None);
            Node { id: NodeId(id), ip, db_port: None, api_port, role, upgrade_to: NodeRole::Voter, state, reason }
        };
        voters
            .iter()
            .map(|&id| node(id, NodeRole::Voter))
            .chain(listeners.iter().map(|&id| node(id, NodeRole::Listener)))
            .map(|node| (node.id, node))
            .collect()
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn membership_follows_the_nodes_a_step_at_a_time() {
        let me = NodeId(1);
        let peer = |id: u64| Peer { address: ([127, 0, 0, 1], 8000 + id as u16).into() };
        for (nodes, voters, members, expected) in [
            (nodes(&[1, 2], &[]), vec![ids(&[1, 2])], ids(&[1, 2]), None),
            (nodes(&[1], &[2]), vec![ids(&[1])], ids(&[1]), Some(Step::AddLearner(NodeId(2), peer(2)))),
            (nodes(&[1, 2], &[]), vec![ids(&[1])], ids(&[1, 2]), Some(Step::AddVoter(NodeId(2)))),
            (nodes(&[1], &[2]), vec![ids(&[1, 2])], ids(&[1, 2]), Some(Step::RemoveVoter(NodeId(2)))),
            (nodes(&[1], &[]), vec![ids(&[1])], ids(&[1, 2]), Some(Step::RemoveLearner(NodeId(2)))),
            (nodes(&[2, 3], &[]), vec![ids(&[1, 2, 3])], ids(&[1, 2, 3]), Some(Step::HandOver)),
            (nodes(&[2], &[3]), vec![ids(&[1, 2, 3])], ids(&[1, 2, 3]), Some(Step::RemoveVoter(NodeId(3)))),
            // A node that is to go goes first.
            (nodes(&[1, 3], &[2]), vec![ids(&[1, 2])], ids(&[1, 2, 3]), Some(Step::RemoveVoter(NodeId(2)))),
            (nodes(&[1, 2], &[]), vec![ids(&[1]), ids(&[1, 3])], ids(&[1, 2, 3]), Some(Step::Finish(ids(&[1, 3])))),
        ] {
            assert_eq!(next_step(me, &nodes, &voters, &members), expected, "{voters:?} {members:?}");
        }
    }

    #[test]
    fn the_sync_rule_is_for_the_larger_set() {
        for (sets, joining, expected) in [
            (vec![ids(&[1, 2])], None, ids(&[1, 2])),
            (vec![ids(&[1, 2])], Some(NodeId(3)), ids(&[1, 2, 3])),
            (vec![ids(&[1, 2]), ids(&[1, 2, 3])], None, ids(&[1, 2, 3])),
            (vec![ids(&[1, 2, 3]), ids(&[1, 2])], None, ids(&[1, 2, 3])),
        ] {
            assert_eq!(protected(&sets, joining), expected, "{sets:?} {joining:?}");
        }
    }

    #[test]
    fn who_keeps_commits_waiting_is_dispensable_while_the_rest_is_a_majority() {
        let cluster = |unreachable: &[u64], witness: bool| {
            let mut nodes = nodes(&[1, 2, 3], &[]);
            for id in unreachable {
                nodes.get_mut(&NodeId(*id)).unwrap().state = NodeState::Unreachable;
            }
            if witness {
                nodes.get_mut(&NodeId(3)).unwrap().role = NodeRole::Witness;
            }
            nodes
        };
        let rule = |standbys: &[u64]| SyncRule { standbys: ids(standbys), count: 1, ..SyncRule::default() };
        let mut with_two_witnesses = nodes(&[1, 2, 3, 4], &[]);
        for id in [3, 4] {
            with_two_witnesses.get_mut(&NodeId(id)).unwrap().role = NodeRole::Witness;
        }
        for (nodes, rule, missing, late, expected) in [
            // Another streams.
            (cluster(&[2], false), rule(&[2, 3]), 1, ids(&[2]), None),
            // The only other database is gone, and a witness is there.
            (cluster(&[2], true), rule(&[2]), 1, ids(&[2]), Some(NodeId(2))),
            (cluster(&[2], true), rule(&[2]), 1, ids(&[]), None),
            // The agents of both live; the database of one of them may yet come back.
            (cluster(&[2], false), rule(&[2, 3]), 2, ids(&[2, 3]), Some(NodeId(2))),
            // Nobody would be left to elect.
            (cluster(&[2, 3], false), rule(&[2, 3]), 2, ids(&[2, 3]), None),
            // There would be more witnesses than databases.
            (with_two_witnesses, rule(&[2]), 1, ids(&[2]), None),
        ] {
            assert_eq!(dispensable(&rule, &nodes, missing, &late), expected, "{nodes:?} {rule:?}");
        }
    }

    #[test]
    fn every_change_ends() {
        for (start, goal) in [(&[1, 2, 3][..], &[1, 4, 5][..]), (&[1], &[1, 2, 3, 4, 5]), (&[1, 2, 3, 4, 5], &[1])] {
            let (mut voters, mut members, nodes) = (ids(start), ids(start), nodes(goal, &[]));
            let mut steps = 0;
            while let Some(step) = next_step(NodeId(1), &nodes, &[voters.clone()], &members) {
                match step {
                    Step::AddLearner(id, _) => assert!(members.insert(id)),
                    Step::AddVoter(id) => assert!(voters.insert(id)),
                    Step::RemoveVoter(id) => assert!(voters.remove(&id)),
                    Step::RemoveLearner(id) => assert!(members.remove(&id) && !voters.contains(&id)),
                    Step::Finish(_) | Step::HandOver => panic!("{step:?}"),
                }
                steps += 1;
                assert!(steps < 20);
            }
            assert_eq!((voters, members), (ids(goal), ids(goal)));
        }
    }

    #[test]
    fn a_node_is_invisible_if_fewer_than_half_of_the_others_see_it() {
        let nodes = nodes(&[1, 2, 3, 4], &[]);
        let sees = |sees: &[(u64, &[u64])]| -> BTreeMap<_, _> {
            sees.iter().map(|&(id, seen)| (NodeId(id), ids(seen))).collect()
        };
        for (sees, expected) in [
            (sees(&[(1, &[2, 3, 4]), (2, &[1, 3, 4]), (3, &[1, 2, 4]), (4, &[1, 2, 3])]), ids(&[])),
            (sees(&[(1, &[2, 3]), (2, &[1, 3]), (3, &[1, 2])]), ids(&[4])),
            // One of three others sees 4: fewer than half. It sees the others, but that tells nobody.
            (sees(&[(1, &[2, 3]), (2, &[1, 3, 4]), (3, &[1, 2]), (4, &[4])]), ids(&[4])),
            (sees(&[(1, &[2, 3]), (2, &[1, 3, 4]), (3, &[1, 2, 4])]), ids(&[])),
        ] {
            assert_eq!(invisible(&nodes, &sees), expected, "{sees:?}");
        }
    }

    #[test]
    fn listeners_do_not_look_and_are_seen() {
        let nodes = nodes(&[1, 2, 3], &[4, 5, 6, 7, 8]);
        let all = ids(&[1, 2, 3, 4, 5, 6, 7, 8]);
        // What listeners tell all the same counts for nothing.
        let mut sees: BTreeMap<_, _> = (1..=8).map(|id| (NodeId(id), all.clone())).collect();
        assert_eq!(invisible(&nodes, &sees), ids(&[]));
        sees.get_mut(&NodeId(1)).unwrap().remove(&NodeId(8));
        assert_eq!(invisible(&nodes, &sees), ids(&[]));
        sees.get_mut(&NodeId(2)).unwrap().remove(&NodeId(8));
        assert_eq!(invisible(&nodes, &sees), ids(&[8]));
    }

    #[test]
    fn autoremove_keeps_the_minimum_the_leader_and_a_majority() {
        let config = Config { autoremove_enabled: true, ..Config::default() };
        let gone = |voters: &[u64], listeners: &[u64], unreachable: &[u64]| {
            let mut nodes = nodes(voters, listeners);
            for id in unreachable {
                nodes.get_mut(&NodeId(*id)).unwrap().state = NodeState::Unreachable;
            }
            nodes
        };
        for (nodes, candidates, expected) in [
            (gone(&[1, 2, 3, 4], &[], &[4]), ids(&[4]), Some(NodeId(4))),
            (gone(&[1, 2, 3], &[], &[3]), ids(&[3]), None),
            (gone(&[1, 2, 3, 4], &[], &[]), ids(&[1]), None),
            (gone(&[1, 2, 3, 4], &[], &[]), ids(&[]), None),
            // Two of four are away: of the three that were left, two answer.
            (gone(&[1, 2, 3, 4], &[], &[3, 4]), ids(&[3, 4]), Some(NodeId(3))),
            // Three of five are away: two of the four that were left are no majority.
            (gone(&[1, 2, 3, 4, 5], &[], &[3, 4, 5]), ids(&[3, 4, 5]), None),
        ] {
            assert_eq!(removable(&config, NodeId(1), &nodes, &candidates), expected, "{candidates:?}");
        }
        let off = Config::default();
        assert_eq!(removable(&off, NodeId(1), &gone(&[1, 2, 3, 4], &[], &[4]), &ids(&[4])), None);
    }
}
