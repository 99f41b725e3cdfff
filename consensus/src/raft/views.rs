//! What the nodes see of each other. Each node asks every other node for a report, half as often as the leader sends
//! heartbeats. Elections do not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::env::clock::Instant;
use crate::env::lock::lock;
use crate::model::{Node, NodeId, NodeRole};
use crate::raft::core::Core;
use crate::raft::transport::{NodeReport, PeerRequest, PeerResponse};

/// How many requests a node sends in the time of one round. In larger clusters the rounds are further apart, so that the
/// traffic grows with the number of nodes and not with its square.
const REQUESTS_PER_ROUND: u32 = 16;

/// The newest report of each other node.
#[derive(Clone, Default)]
pub(crate) struct Views(Arc<Mutex<BTreeMap<NodeId, (NodeReport, Instant)>>>);

impl Views {
    pub(crate) fn note(&self, report: NodeReport, now: Instant) {
        lock(&self.0).insert(report.node, (report, now));
    }

    /// The newest report of `node`. None if it is older than `age`.
    pub(crate) fn fresh(&self, node: NodeId, now: Instant, age: Duration) -> Option<NodeReport> {
        let views = lock(&self.0);
        views.get(&node).filter(|(_, at)| now < *at + age).map(|(report, _)| report.clone())
    }

    /// The nodes that reported within `age`.
    pub(crate) fn seen(&self, now: Instant, age: Duration) -> BTreeSet<NodeId> {
        lock(&self.0).iter().filter(|(_, (_, at))| now < *at + age).map(|(&node, _)| node).collect()
    }

    /// Whom each node that reported within `age` sees.
    pub(crate) fn sees(&self, now: Instant, age: Duration) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let views = lock(&self.0);
        let fresh = views.iter().filter(|(_, (_, at))| now < *at + age);
        fresh.map(|(&node, (report, _))| (node, report.sees.clone())).collect()
    }

    /// Forgets the nodes that are no members any more, and returns them.
    fn keep(&self, nodes: &BTreeMap<NodeId, Node>) -> Vec<NodeId> {
        let mut views = lock(&self.0);
        let gone: Vec<_> = views.keys().copied().filter(|node| !nodes.contains_key(node)).collect();
        gone.iter().for_each(|node| drop(views.remove(node)));
        gone
    }
}

/// How long a report counts: two and a half rounds, and at least `node-timeout`.
pub(crate) fn validity(core: &Core) -> Duration {
    let config = core.config();
    let nodes = core.state_machine().read(|applied| applied.state.nodes.len());
    config.node_timeout.get().max(period(config.heartbeat_interval.get(), nodes) * 5 / 2)
}

fn period(heartbeat: Duration, nodes: usize) -> Duration {
    2 * heartbeat * u32::try_from(nodes).unwrap_or(u32::MAX).div_ceil(REQUESTS_PER_ROUND).max(1)
}

/// Asks the other nodes for reports, round after round, and never ends. `report` makes the report of this node.
pub(crate) async fn run(core: Core, views: Views, report: impl Fn() -> NodeReport) {
    loop {
        let config = core.config();
        let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
        for gone in views.keep(&nodes) {
            core.transport().forget(gone);
        }
        // A listener asks nobody, so that a cluster can have many.
        let role = nodes.get(&core.id()).map_or(NodeRole::Listener, |node| node.role);
        if role != NodeRole::Listener {
            let own = report();
            for node in nodes.values().filter(|node| node.id != core.id()) {
                let request = PeerRequest::Report(Box::new(own.clone()));
                let answer = core.transport().call(node.id, node.api_address(), request, config.node_timeout.get());
                let (core, views) = (core.clone(), views.clone());
                tokio::spawn(async move {
                    match answer.await {
                        Ok(PeerResponse::Report(report)) => views.note(*report, core.clock().now()),
                        Ok(PeerResponse::Removed) => core.note_removal(),
                        // A node that does not answer is not seen: that is what the round finds out.
                        Ok(_) | Err(_) => {}
                    }
                });
            }
        }
        tokio::time::sleep(period(config.heartbeat_interval.get(), nodes.len())).await;
    }
}
