//! How many nodes must hold a log or WAL position, as pure functions.

use std::collections::{BTreeMap, BTreeSet};

use crate::env::sabotage::{self, Sabotage};
use crate::model::{Config, Node, NodeId, NodeRole, Term};
use crate::protocol::database::SyncRule;

/// How many of `voters` nodes are a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many voters must hold an entry of the cluster's log before a change is confirmed to the caller: at least a
/// majority, whatever the factor, because that log is what fences databases; never more than there are.
pub fn log_holders(config: &Config, voters: usize) -> usize {
    (config.replication_factor as usize).max(majority(voters)).min(voters)
}

/// The sync rule for a primary on node `primary` in `term`, with these `voters` among the `nodes`: as many databases as
/// the replication factor says hold a transaction before its commit is acknowledged, the primary among them if it is a
/// voter itself. If there are fewer databases than that, all of them hold it.
pub fn sync_rule(
    config: &Config,
    nodes: &BTreeMap<NodeId, Node>,
    voters: &BTreeSet<NodeId>,
    primary: NodeId,
    term: Term,
) -> SyncRule {
    let is_database = |id: &NodeId| nodes.get(id).is_some_and(|node| node.role == NodeRole::Voter);
    let mut databases: BTreeSet<NodeId> = voters.iter().copied().filter(is_database).collect();
    let factor = if config.quorum_replication { majority(voters.len()) } else { config.replication_factor as usize };
    let holders = factor.min(databases.len());
    let own = usize::from(databases.remove(&primary) || sabotage::is(Sabotage::CountOutsider));
    let count = holders.saturating_sub(own + usize::from(sabotage::is(Sabotage::OneHolderTooFew)));
    let standbys = if count == 0 { BTreeSet::new() } else { databases };
    SyncRule { term, standbys, count }
}

/// When the lease of a leader ends: the last instant up to which a majority of each of `configs` (two, in a joint
/// membership) votes for nobody else. `until` tells that of each voter, the leader included; None if it granted nothing.
pub fn lease_end<T: Ord>(configs: &[BTreeSet<NodeId>], until: impl Fn(NodeId) -> Option<T>) -> Option<T> {
    let less = usize::from(sabotage::is(Sabotage::LeaseOneTooFew));
    let of_one = |voters: &BTreeSet<NodeId>| {
        let mut instants: Vec<Option<T>> = voters.iter().map(|&voter| until(voter)).collect();
        instants.sort_unstable_by(|a, b| b.cmp(a));
        instants.into_iter().nth(majority(voters.len()) - 1 - less.min(majority(voters.len()) - 1)).flatten()
    };
    // None is smaller than any instant: a config without a majority ends it.
    configs.iter().map(of_one).min().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeState, Port};

    fn voter(id: u64, role: NodeRole) -> Node {
        Node {
            id: NodeId(id),
            ip: [127, 0, 0, 1].into(),
            db_port: None,
            api_port: Port::new(1).unwrap(),
            role,
            upgrade_to: role,
            state: NodeState::Up,
            reason: None,
        }
    }

    fn cluster(databases: u64, witnesses: u64) -> Vec<Node> {
        let witnesses = (databases + 1..=databases + witnesses).map(|id| voter(id, NodeRole::Witness));
        (1..=databases).map(|id| voter(id, NodeRole::Voter)).chain(witnesses).collect()
    }

    /// The rule for all of `nodes`.
    fn rule_of(config: &Config, nodes: &[Node], primary: NodeId) -> SyncRule {
        rule_for(config, nodes, &nodes.iter().map(|node| node.id).collect(), primary)
    }

    fn rule_for(config: &Config, nodes: &[Node], voters: &BTreeSet<NodeId>, primary: NodeId) -> SyncRule {
        let nodes = nodes.iter().map(|node| (node.id, node.clone())).collect();
        sync_rule(config, &nodes, voters, primary, Term(1))
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn with_quorum_replication_a_majority_holds_a_commit() {
        let config = Config::default();
        for (databases, witnesses, primary, count) in [
            (1, 0, 1, 0),
            (2, 0, 1, 1),
            (3, 0, 1, 1),
            (4, 0, 1, 2),
            (5, 0, 1, 2),
            (2, 1, 1, 1),
            (2, 2, 1, 1),
            // A primary that is no voter does not count itself.
            (3, 0, 9, 2),
        ] {
            let nodes = cluster(databases, witnesses);
            let rule = rule_of(&config, &nodes, NodeId(primary));
            assert_eq!(rule.count, count, "{databases} databases, {witnesses} witnesses, primary {primary}");
            assert!(!rule.standbys.contains(&NodeId(primary)));
            assert!(rule.standbys.iter().all(|id| id.0 <= databases), "a witness holds no WAL");
        }
    }

    #[test]
    fn without_it_the_factor_counts() {
        for (factor, count) in [(0, 0), (1, 0), (2, 1), (3, 2), (9, 2)] {
            let config = Config { quorum_replication: false, replication_factor: factor, ..Config::default() };
            assert_eq!(rule_of(&config, &cluster(3, 0), NodeId(2)).count, count);
        }
    }

    #[test]
    fn the_clusters_own_log_is_never_confirmed_below_a_majority() {
        for (factor, voters, holders) in [(0, 3, 2), (1, 3, 2), (3, 3, 3), (5, 3, 3), (0, 1, 1)] {
            let config = Config { quorum_replication: false, replication_factor: factor, ..Config::default() };
            assert_eq!(log_holders(&config, voters), holders);
        }
    }

    #[test]
    fn a_lease_ends_when_a_majority_may_vote_for_another() {
        let until = |known: &[(u64, u64)]| {
            let known: BTreeMap<u64, u64> = known.iter().copied().chain([(1, 100)]).collect();
            move |node: NodeId| known.get(&node.0).copied()
        };
        for (configs, known, expected) in [
            (vec![ids(&[1])], vec![], Some(100)),
            (vec![ids(&[1, 2, 3])], vec![], None),
            (vec![ids(&[1, 2, 3])], vec![(2, 50)], Some(50)),
            (vec![ids(&[1, 2, 3])], vec![(2, 50), (3, 70)], Some(70)),
            (vec![ids(&[1, 2, 3, 4])], vec![(2, 50), (3, 70)], Some(50)),
            // In a joint membership both majorities count; one that does not include the leader needs more others.
            (vec![ids(&[1, 2, 3]), ids(&[2, 3])], vec![(2, 50), (3, 70)], Some(50)),
            (vec![ids(&[1, 2, 3]), ids(&[2, 3])], vec![(3, 70)], None),
        ] {
            assert_eq!(lease_end(&configs, until(&known)), expected, "{configs:?} {known:?}");
        }
    }

    /// A change of one voter, and whether it is a database.
    #[derive(Clone, Copy, Debug)]
    enum OneVoter {
        Added(NodeRole),
        Removed(NodeRole),
    }

    /// The nodes before and after a change of one voter: the last of its kind is added or removed.
    fn around(databases: u64, witnesses: u64, change: OneVoter) -> Option<(Vec<Node>, Vec<Node>)> {
        let more = |role| match role {
            NodeRole::Witness => (databases, witnesses + 1),
            _ => (databases + 1, witnesses),
        };
        let (larger, role) = match change {
            OneVoter::Added(role) => (more(role), role),
            OneVoter::Removed(role) => ((databases, witnesses), role),
        };
        let larger = cluster(larger.0, larger.1);
        let leaver = larger.iter().rposition(|node| node.role == role)?;
        let mut smaller = larger.clone();
        smaller.remove(leaver);
        let count = |nodes: &[Node], role| nodes.iter().filter(|node| node.role == role).count();
        // What the cluster refuses to be.
        let refused = |nodes: &[Node]| count(nodes, NodeRole::Voter) < count(nodes, NodeRole::Witness).max(1);
        if refused(&smaller) || refused(&larger) {
            return None;
        }
        Some(match change {
            OneVoter::Added(_) => (smaller, larger),
            OneVoter::Removed(_) => (larger, smaller),
        })
    }

    /// Fails if the voters `sets` can elect somebody without a database that holds what `primary` acknowledged
    /// under the rule for `sync`.
    fn check_step(nodes: &[Node], sets: &[BTreeSet<NodeId>], sync: &BTreeSet<NodeId>, primary: NodeId) {
        let rule = rule_for(&Config::default(), nodes, sync, primary);
        for chosen in 0u32..1 << nodes.len() {
            let elects = |id: NodeId| nodes.iter().position(|node| node.id == id).is_some_and(|i| chosen >> i & 1 == 1);
            let is_majority =
                |set: &BTreeSet<NodeId>| set.iter().filter(|&&id| elects(id)).count() >= majority(set.len());
            // Whoever leads without having been a voter holds for nobody.
            let holder = sets.iter().any(|set| set.contains(&primary));
            if !sets.iter().all(is_majority) || holder && elects(primary) {
                continue;
            }
            // Holders that all stay out of this majority would have to be among these.
            let outside = rule.standbys.iter().filter(|&&id| !elects(id)).count();
            assert!(outside < rule.count, "{sets:?}, rule for {sync:?}, primary {primary}, majority {chosen:b}");
        }
    }

    #[test]
    fn at_every_step_of_a_change_holders_meet_every_majority_that_elects() {
        let changes = [NodeRole::Voter, NodeRole::Witness]
            .into_iter()
            .flat_map(|role| [OneVoter::Added(role), OneVoter::Removed(role)]);
        let sizes = (1..=7).flat_map(|databases| (0..=databases).map(move |witnesses| (databases, witnesses)));
        for ((databases, witnesses), change) in sizes.flat_map(|size| changes.clone().map(move |change| (size, change)))
        {
            let Some((before, after)) = around(databases, witnesses, change) else { continue };
            let of = |nodes: &[Node]| nodes.iter().map(|node| node.id).collect::<BTreeSet<_>>();
            let (old, new) = (of(&before), of(&after));
            let nodes = if old.len() > new.len() { &before } else { &after };
            let larger = of(nodes);
            // The first is in all sets; the last database may be the one that comes or leaves. The rule is raised
            // before a voter is added, and lowered after one was removed.
            let last = nodes.iter().rfind(|node| node.role == NodeRole::Voter).unwrap().id;
            for primary in [NodeId(1), last].into_iter().filter(|primary| old.contains(primary)) {
                for (sets, sync) in [
                    (vec![old.clone()], &old),
                    (vec![old.clone()], &larger),
                    (vec![old.clone(), new.clone()], &larger),
                    (vec![new.clone()], &larger),
                    (vec![new.clone()], &new),
                ] {
                    check_step(nodes, &sets, sync, primary);
                }
            }
        }
    }
}
