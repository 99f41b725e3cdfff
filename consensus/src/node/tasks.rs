//! What a node does by itself, beside elections and its database: it tells how it is, keeps its core at the settings in
//! force, and notices its own removal.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::env::sabotage::{self, Sabotage};
use crate::model::{Config, Lsn, Node, NodeId, NodeRole, Term};
use crate::primary::local::Local;
use crate::primary::supervisor::chain;
use crate::protocol::database::{DatabaseRole, DatabaseStatus};
use crate::raft::core::Core;
use crate::raft::transport::NodeReport;
use crate::raft::views::{Views, validity};

/// How often a node looks which WAL the others need.
const KEEP_WAL_INTERVAL: Duration = Duration::from_secs(2);
/// After this time a core that could not be rebuilt is tried again.
const REBUILD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How this node is.
pub(crate) fn own_report(core: &Core, local: &Local, views: &Views) -> NodeReport {
    NodeReport {
        node: core.id(),
        applied: core.state_machine().progress().borrow().index,
        sees: views.seen(core.clock().now(), validity(core)),
        database: local.status().map(|status| DatabaseStatus { unfit: local.unfit(), ..status }),
        position: local.position(),
        note: local.note.borrow().clone().or_else(|| local.status()?.hindrance),
        version: core.newest_version(),
    }
}

/// Has the database keep the WAL that the databases lack which may come to follow it; never ends.
pub(crate) async fn keep_wal(core: Core, local: Local, views: Views) {
    let Some(database) = local.database.clone() else { return std::future::pending().await };
    let mut told = None;
    loop {
        let (nodes, promoted) = core.state_machine().read(|applied| {
            let promoted = applied.state.promoted.as_ref().map(|promoted| (promoted.node, promoted.term));
            (applied.state.nodes.clone(), promoted)
        });
        let runs = matches!(database.status().borrow().role, DatabaseRole::Standby | DatabaseRole::Primary);
        if runs && nodes.contains_key(&core.id()) {
            let fresh = |node| views.fresh(node, core.clock().now(), validity(&core));
            let standbys = wal_kept_for(core.id(), &nodes, promoted, fresh);
            let error = database.keep_wal(standbys).await.err().map(|error| chain(&error));
            if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                tracing::warn!(error, "WAL that others may need is not kept");
            }
            told = error;
        }
        tokio::time::sleep(KEEP_WAL_INTERVAL).await;
    }
}

/// The nodes for which WAL is kept on node `me`, and how far each is. That is None unless its database is the announced
/// primary or streams from it: the positions of any other WAL mean nothing here.
fn wal_kept_for(
    me: NodeId,
    nodes: &BTreeMap<NodeId, Node>,
    promoted: Option<(NodeId, Term)>,
    report: impl Fn(NodeId) -> Option<NodeReport>,
) -> BTreeMap<NodeId, Option<Lsn>> {
    // A replica is never promoted, so nobody follows it. A listener clones its database before it is enrolled.
    let may_lead = nodes.get(&me).is_some_and(|node| node.role == NodeRole::Voter);
    let others = nodes.values().filter(|node| may_lead && node.id != me && node.upgrade_to.has_database());
    let known = |node: &Node| {
        let status = report(node.id)?.database?;
        let counts = promoted.is_some_and(|(primary, _)| primary == node.id) && status.role == DatabaseRole::Primary
            || status.streaming && status.follows == promoted;
        status.lsn.filter(|_| counts)
    };
    others.map(|node| (node.id, known(node))).collect()
}

/// Runs a task until this node was removed from its cluster.
pub(crate) async fn until_removed(mut removed: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = removed.wait_for(|removed| *removed) => {}
    }
}

/// Rebuilds the Raft core when the settings that it was built with change.
pub(crate) async fn live_settings(core: Core) {
    let timing = |config: &Config| (config.node_timeout, config.heartbeat_interval, config.replication_retry_interval);
    let mut progress = core.state_machine().progress();
    loop {
        progress.borrow_and_update();
        if timing(&core.config()) != timing(&core.built_with()) {
            tracing::info!("the settings changed: the Raft core is rebuilt");
            if let Err(error) = core.rebuild(true).await {
                tracing::error!(error = chain(&error), "the Raft core could not be rebuilt");
                tokio::time::sleep(REBUILD_RETRY_DELAY).await;
            }
            // They may have changed again meanwhile.
            continue;
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// Notices that this node is no longer a member, by its own log or by what a peer said, and keeps that durably.
pub(crate) async fn watch_removal(core: Core, removed: watch::Sender<bool>) {
    let mut progress = core.state_machine().progress();
    let mut told = removed.subscribe();
    loop {
        progress.borrow_and_update();
        let by_log = core.state_machine().read(|applied| applied.state.was_removed(core.id()));
        if by_log || *told.borrow_and_update() {
            if let Err(error) = core.store().set_removed(true) {
                tracing::error!(error = chain(&error), "the removal of this node could not be kept");
            }
            removed.send_if_modified(|removed| !std::mem::replace(removed, true));
            tracing::warn!("this node was removed from its cluster: its database is stopped");
            if sabotage::is(Sabotage::VoteWhenRemoved) {
                return;
            }
            // A member that does not know it yet may still want its vote; it no longer gives one.
            if let Err(error) = core.shutdown().await {
                tracing::error!(error = chain(&error), "consensus did not stop");
            }
            return;
        }
        tokio::select! { _ = progress.changed() => {}, _ = told.changed() => {} }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeState, Port, WalPosition};

    fn node(id: u64, upgrade_to: NodeRole) -> (NodeId, Node) {
        let (ip, api_port, state) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap(), NodeState::Up);
        let (id, role, db_port, reason) = (NodeId(id), upgrade_to, None, None);
        (id, Node { id, ip, db_port, api_port, role, upgrade_to, state, reason })
    }

    fn report(node: u64, role: DatabaseRole, follows: Option<u64>, streaming: bool) -> NodeReport {
        let follows = follows.map(|primary| (NodeId(primary), Term(5)));
        let status = DatabaseStatus { follows, streaming, lsn: Some(Lsn(node)), ..DatabaseStatus::unknown(role) };
        NodeReport {
            node: NodeId(node),
            applied: Default::default(),
            sees: Default::default(),
            database: Some(status),
            position: None::<WalPosition>,
            note: None,
            version: Default::default(),
        }
    }

    #[test]
    fn wal_is_kept_for_every_other_database_and_only_positions_that_mean_something_here_count() {
        use DatabaseRole::{Primary, Standby};
        let nodes: BTreeMap<_, _> = [1, 2, 3, 4].map(|id| node(id, NodeRole::Voter)).into_iter().collect();
        let nodes: BTreeMap<_, _> =
            nodes.into_iter().chain([node(8, NodeRole::Replica), node(9, NodeRole::Witness)]).collect();
        // 2 is the primary of term 5, 3 streams from it, 4 follows another, 8 is away.
        let reports: BTreeMap<_, _> =
            [report(2, Primary, None, false), report(3, Standby, Some(2), true), report(4, Standby, Some(1), true)]
                .map(|report| (report.node, report))
                .into_iter()
                .collect();
        let kept = |me| {
            let kept = wal_kept_for(NodeId(me), &nodes, Some((NodeId(2), Term(5))), |id| reports.get(&id).cloned());
            kept.into_iter().map(|(node, lsn)| (node.0, lsn.map(|lsn| lsn.0))).collect::<Vec<_>>()
        };
        assert_eq!(kept(1), [(2, Some(2)), (3, Some(3)), (4, None), (8, None)]);
        assert_eq!(kept(2), [(1, None), (3, Some(3)), (4, None), (8, None)]);
        assert_eq!(kept(8), []);
    }
}
