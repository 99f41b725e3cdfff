//! What a node does by itself beside its duty and its elections: it tells how it is, keeps its core at the settings in
//! force, and notices its own removal.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::database::DatabaseStatus;
use crate::duty::{Local, chain};
use crate::model::Config;
use crate::raft::Core;
use crate::transport::NodeReport;
use crate::views::{Views, validity};

/// A core that could not be rebuilt is tried again after this time.
const REBUILD_AGAIN: Duration = Duration::from_secs(1);

/// How this node is.
pub(crate) fn own_report(core: &Core, local: &Local, views: &Views) -> NodeReport {
    NodeReport {
        node: core.id(),
        applied: core.machine().progress().borrow().index,
        sees: views.seen(core.clock().now(), validity(core)),
        database: local.status().map(|status| DatabaseStatus { unfit: local.unfit(), ..status }),
        position: local.position(),
    }
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
    let mut built_with = timing(&core.config());
    let mut progress = core.machine().progress();
    loop {
        progress.borrow_and_update();
        let wanted = timing(&core.config());
        if wanted != built_with {
            tracing::info!("the settings changed: the Raft core is rebuilt");
            match core.rebuild(true).await {
                Ok(()) => built_with = wanted,
                Err(error) => {
                    tracing::error!(error = chain(&error), "the Raft core could not be rebuilt");
                    tokio::time::sleep(REBUILD_AGAIN).await;
                    continue;
                }
            }
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// Notices that this node is no member any more, by its own log or by what a peer said, and keeps it durably.
pub(crate) async fn watch_removal(core: Core, removed: watch::Sender<bool>) {
    let mut progress = core.machine().progress();
    let mut told = removed.subscribe();
    loop {
        progress.borrow_and_update();
        let by_log = core.machine().read(|applied| applied.state.was_removed(core.id()));
        if by_log || *told.borrow_and_update() {
            if let Err(error) = core.store().set_removed(true) {
                tracing::error!(error = chain(&error), "the removal of this node could not be kept");
            }
            removed.send_if_modified(|removed| !std::mem::replace(removed, true));
            tracing::warn!("this node was removed from its cluster: its database is stopped");
            // A member that does not know it yet may still want its vote; it gives none any more.
            if let Err(error) = core.shutdown().await {
                tracing::error!(error = chain(&error), "consensus did not stop");
            }
            return;
        }
        tokio::select! { _ = progress.changed() => {}, _ = told.changed() => {} }
    }
}
