//! What the leader does beside writing the log: it brings Raft's membership to what the state says, tells who answers
//! and who does not, and removes those that the cluster has lost sight of.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::{mpsc, oneshot};

use crate::env::clock::Instant;
use crate::model::{Node, NodeId, NodeState};
use crate::primary::hand_over;
use crate::primary::local::Local;
use crate::primary::supervisor::{Order, chain};
use crate::primary::sync_rule::proof;
use crate::protocol::command::{Change, Outcome};
use crate::protocol::membership::{Step, dispensable, invisible, next_step, removable};
use crate::protocol::state::Lead;
use crate::protocol::sync_rule::{Proof, allows};
use crate::protocol::version;
use crate::raft::core::{Core, MembersChanged, RaftError};
use crate::raft::propose::{Reason, propose};
use crate::raft::views::{Views, validity};

/// How many log entries a node may lack and still count as caught up: what it lacks is on its way.
pub(crate) const CAUGHT_UP_ENTRIES: u64 = 100;
/// After how many node time-outs unseen a node is removed by itself: a restart must not cost its place.
const AUTOREMOVE_NODE_TIMEOUTS: u32 = 10;
/// After how many node time-outs without streaming a standby that commits wait for is declared down: longer than a restart
/// of its database takes.
const RELEASE_NODE_TIMEOUTS: u32 = 5;

/// Does what the leader has to, while this node leads; never ends.
pub(crate) async fn run(core: Core, local: Local, views: Views, orders: mpsc::Sender<Order>) {
    let mut progress = core.state_machine().progress();
    let mut in_force = local.in_force.clone();
    // Since when a node was not seen by half of the cluster.
    let mut lost: BTreeMap<NodeId, Instant> = BTreeMap::new();
    // Since when this node leads and knows a node, which cannot have answered before.
    let mut known: BTreeMap<NodeId, Instant> = BTreeMap::new();
    // Since when a standby that commits wait for does not stream.
    let mut missing: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        let heartbeat = core.config().heartbeat_interval.get();
        tokio::select! {
            () = tokio::time::sleep(heartbeat) => {}
            _ = progress.changed() => {}
            _ = in_force.changed() => {}
        }
        progress.borrow_and_update();
        in_force.borrow_and_update();
        let now = core.clock().now();
        let raft = core.raft_status();
        let lead = core.state_machine().read(|applied| applied.state.lead);
        let leads = raft.leader == Some(core.id())
            && lead == Some(Lead { node: core.id(), term: raft.term })
            && core.lease_end(raft.term).is_some_and(|end| now < end);
        if !leads {
            lost.clear();
            known.clear();
            missing.clear();
            continue;
        }
        if let Err(error) = membership(&core, &local, &views, &orders).await {
            tracing::warn!(error = chain(&error), "the membership could not be changed");
        }
        let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
        known.retain(|node, _| nodes.contains_key(node));
        for &node in nodes.keys() {
            known.entry(node).or_insert(now);
        }
        let patience = validity(&core);
        let due = nodes.into_iter().filter(|(id, _)| known.get(id).is_some_and(|since| now >= *since + patience));
        reach(&core, &views, now, due.map(|(_, node)| node).collect()).await;
        autoremove(&core, &views, now, &mut lost).await;
        release_commits(&core, &local, &views, now, &mut missing).await;
        raise_version(&core, &views, now).await;
    }
}

/// Takes the next step towards the membership that the state says.
async fn membership(core: &Core, local: &Local, views: &Views, orders: &mpsc::Sender<Order>) -> Result<(), RaftError> {
    // What was proven for this term counts in no other.
    let term = core.raft_status().term;
    let raft = core.ready().await;
    let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
    let (members, voters) = core.membership();
    let step = next_step(core.id(), &nodes, &voters, &members);
    if local.database.is_some() {
        if let Some(Step::AddVoter(node)) = step {
            // Before the proof is looked at, so that the rule is not lowered between the proof and the vote.
            local.set_joining(Some((term, node)));
        }
        let proof = proof(core, local, term);
        if proof.held && !proof.logged && voters.len() == 1 {
            // In the log first: a leader after this one could not prove it once a voter is gone.
            hold(core, proof).await;
            local.set_joining(None);
            return Ok(());
        }
        if !allows(&proof, step.as_ref()) || core.raft_status().term != term {
            local.set_joining(None);
            return Ok(());
        }
    }
    let Some(step) = step else { return Ok(()) };
    tracing::info!(?step, "the membership changes");
    if step == Step::HandOver {
        // One that does not follow this term yet would find this database further than its own, and hand back.
        if let Some(target) = hand_over::best_target(core, views, local.database.is_some().then_some(term)) {
            let (answer, handed_over) = oneshot::channel();
            // If the supervisor has ended, this node is stopping.
            if orders.send(Order::HandOver(target, answer)).await.is_ok()
                && let Ok(Err(reason)) = handed_over.await
            {
                tracing::warn!(%target, reason, "could not take over");
            }
        }
        return Ok(());
    }
    let forgotten = match step {
        Step::RemoveLearner(id) => Some(id),
        _ => None,
    };
    let patience = core.config().node_timeout.get() + core.config().leader_voting_timeout.get();
    match core.change_members(&raft, step, patience).await {
        MembersChanged::Settled(changed) => {
            local.set_joining(None);
            changed?;
        }
        // The change may still be on its way, so the rule stays raised for the rest of the term.
        MembersChanged::Unknown(error) => return Err(error),
    }
    if let Some(id) = forgotten {
        core.transport().forget(id);
    }
    Ok(())
}

/// Tells the cluster that all commits that were ever acknowledged are held under the rule for the voters.
async fn hold(core: &Core, Proof { voters, void, .. }: Proof) {
    let cause = format!("the sync rule of {} voters is in force, and a commit was acknowledged under it", voters.len());
    write(core, Change::Held { voters, void }, Reason::own(core, cause)).await;
}

/// Declares a standby down that commits would wait for without an end: too few standbys stream, and this one has not for
/// long. What was acknowledged is held under the rule for the voters, so the others can go on without it. It is brought back
/// once it streams again.
async fn release_commits(
    core: &Core,
    local: &Local,
    views: &Views,
    now: Instant,
    missing: &mut BTreeMap<NodeId, Instant>,
) {
    let rule = local.in_force.borrow().rule.clone();
    let Some(rule) = rule else { return missing.clear() };
    let streams = |node: NodeId| {
        let status = views.fresh(node, now, validity(core)).and_then(|report| report.database);
        status.is_some_and(|status| status.streams_from(core.id(), rule.term))
    };
    missing.retain(|&node, _| rule.standbys.contains(&node) && !streams(node));
    for &node in rule.standbys.iter().filter(|&&node| !streams(node)) {
        missing.entry(node).or_insert(now);
    }
    let patience = core.config().node_timeout.get() * RELEASE_NODE_TIMEOUTS;
    let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
    let late: BTreeSet<_> =
        missing.iter().filter(|(_, since)| now >= **since + patience).map(|(&node, _)| node).collect();
    if let Some(node) = dispensable(&rule, &nodes, missing.len(), &late) {
        let cause = format!("commits wait for its database, which has not followed for {patience:?}");
        write(core, Change::DownNode { node }, Reason::own(core, cause)).await;
    }
}

/// Tells the cluster which nodes answer and which do not, if that has changed.
async fn reach(core: &Core, views: &Views, now: Instant, nodes: Vec<Node>) {
    let seen = views.seen(now, validity(core));
    for node in &nodes {
        // A former leader may have told that this node does not answer.
        let reachable = node.id == core.id() || seen.contains(&node.id);
        let cause = match (node.state, reachable) {
            (NodeState::Up, false) => format!("node {} did not answer for {:?}", node.id, validity(core)),
            (NodeState::Unreachable, true) => format!("node {} answers again", node.id),
            _ => continue,
        };
        write(core, Change::Reach { node: node.id, reachable }, Reason::own(core, cause)).await;
    }
}

/// Removes a node that half of the cluster has not seen for long.
async fn autoremove(core: &Core, views: &Views, now: Instant, lost: &mut BTreeMap<NodeId, Instant>) {
    let config = core.config();
    let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
    let mut sees = views.sees(now, validity(core));
    sees.insert(core.id(), views.seen(now, validity(core)));
    let unseen = invisible(&nodes, &sees);
    lost.retain(|node, _| unseen.contains(node));
    for &node in &unseen {
        lost.entry(node).or_insert(now);
    }
    let patience = config.node_timeout.get() * AUTOREMOVE_NODE_TIMEOUTS;
    let candidates = lost.iter().filter(|(_, since)| now >= **since + patience).map(|(&node, _)| node).collect();
    if let Some(node) = removable(&config, core.id(), &nodes, &candidates) {
        let cause = format!("fewer than half of the nodes have seen node {node} for {patience:?}");
        // Its vote goes first; it is removed in a later round, when it has none.
        let votes = nodes.get(&node).is_some_and(Node::votes);
        let voting = core.membership().1.iter().any(|voters| voters.contains(&node));
        match (votes, voting) {
            (true, _) => write(core, Change::DownNode { node }, Reason::new("autoremove", cause)).await,
            (false, true) => {}
            (false, false) => write(core, Change::RemoveNode { node }, Reason::new("autoremove", cause)).await,
        }
    }
}

/// Has the cluster speak a newer version once all members know it.
async fn raise_version(core: &Core, views: &Views, now: Instant) {
    let (spoken, nodes) = core
        .state_machine()
        .read(|applied| (applied.state.version, applied.state.nodes.keys().copied().collect::<Vec<NodeId>>()));
    let known = |node: &NodeId| match *node == core.id() {
        true => Some(core.newest_version()),
        false => views.fresh(*node, now, validity(core)).map(|report| report.version),
    };
    if let Some(version) = version::next(spoken, nodes.iter().map(known)) {
        let cause = format!("all {} nodes know version {version}", nodes.len());
        write(core, Change::RaiseVersion { version }, Reason::own(core, cause)).await;
    }
}

async fn write(core: &Core, change: Change, reason: Reason) {
    let cause = reason.cause.clone();
    match propose(core, change, reason, core.config().node_timeout.get()).await {
        Ok(Outcome::Done | Outcome::Node(_)) => tracing::info!(cause, "written to the cluster's log"),
        Ok(Outcome::Refused(reason) | Outcome::Invalid(reason)) => {
            tracing::debug!(cause, reason, "the change was refused");
            // Usually the state has changed meanwhile, and the next round finds whether the change is still wanted. That round
            // does not come at once: the refused change is in the log, too, and would be written again as soon as it is applied.
            tokio::time::sleep(core.config().heartbeat_interval.get()).await;
        }
        Err(error) => tracing::warn!(cause, error = chain(&error), "could not be written to the cluster's log"),
    }
}
