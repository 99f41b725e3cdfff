//! What the supervisor's plan is made from, and waiting until it may have changed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::STEP_RETRY_DELAY;
use crate::env::sabotage::{self, Sabotage};
use crate::primary::local::Local;
use crate::protocol::database::DatabaseStatus;
use crate::protocol::plan::{Situation, Task, plan};
use crate::protocol::state::Promoted;
use crate::raft::core::{Core, RaftStatusChanges};
use crate::raft::state_machine::Progress;

/// How often an elected leader without a lease polls for one: a lease comes with the next answer of a peer.
const LEASE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What the plan is made from, and what tells that it may have changed.
pub(super) struct Inputs {
    core: Core,
    local: Local,
    removed: watch::Receiver<bool>,
    progress: watch::Receiver<Progress>,
    raft_changes: RaftStatusChanges,
    status: Option<watch::Receiver<DatabaseStatus>>,
    /// Whether something has changed since this was set to false.
    pub(super) changed: bool,
}

impl Inputs {
    pub(super) fn new(core: Core, local: Local, removed: watch::Receiver<bool>) -> Self {
        let status = local.database.as_ref().map(|database| database.status());
        let (progress, raft_changes) = (core.state_machine().progress(), core.raft_status_changes());
        Self { core, local, removed, progress, raft_changes, status, changed: true }
    }

    fn situation(&self) -> Situation {
        let core = &self.core;
        let (raft, config, now) = (core.raft_status(), core.config(), core.clock().now());
        let (member, keeps, lead, promoted, primary) = core.state_machine().read(|applied| {
            let state = &applied.state;
            let keeps = state.nodes.get(&core.id()).is_none_or(|node| node.upgrade_to.has_database());
            let primary = state.promoted.as_ref().and_then(|promoted| state.nodes.get(&promoted.node)).cloned();
            (state.nodes.contains_key(&core.id()), keeps, state.lead, state.promoted.clone(), primary)
        });
        let (promoted, primary) = match (promoted, lead) {
            (Some(promoted), Some(lead)) if sabotage::is(Sabotage::FollowUnannounced) => (
                Some(Promoted { node: lead.node, term: lead.term, ..promoted }),
                core.state_machine().read(|applied| applied.state.nodes.get(&lead.node).cloned()),
            ),
            (promoted, _) => (promoted, primary),
        };
        // If this node is to have no database, one beside it does not belong to the cluster.
        let status = self.local.status().filter(|_| keeps);
        Situation {
            me: core.id(),
            now,
            grace: core.started() + config.node_timeout.get(),
            removed: *self.removed.borrow(),
            term: raft.term,
            member,
            leading: raft.leader == Some(core.id()),
            resumes: core.led_before() && core.votes_for_itself(),
            fence_at: core.lease(raft.term).map(|lease| lease.fence_at),
            lead,
            promoted,
            primary,
            promise: self.local.record.borrow().promise,
            applied: core.state_machine().progress().borrow().term,
            may_serve: self.local.may_serve.load(Ordering::Relaxed),
            strayed: status.as_ref().is_some_and(|status| status.strayed),
            database: status.map(|status| status.role),
        }
    }

    /// What this node has to do now.
    pub(super) fn task(&self) -> Task {
        plan(&self.situation())
    }

    /// Waits until something happened that the plan may depend on, or time alone may have changed it.
    pub(super) async fn changed(&mut self) {
        let known = self.situation();
        let lease = known.fence_at.map(|fence_at| fence_at.saturating_sub(known.now)).filter(|left| !left.is_zero());
        let wake = match lease {
            Some(left) if known.leading => left,
            None if known.leading => LEASE_POLL_INTERVAL,
            None if known.resumes && known.now < known.grace => LEASE_POLL_INTERVAL,
            _ => STEP_RETRY_DELAY,
        };
        let status = async {
            match &mut self.status {
                Some(status) => status.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wake) => {}
            _ = self.progress.changed() => {}
            () = self.raft_changes.changed() => {}
            _ = self.removed.changed() => {}
            _ = status => {}
        }
        self.changed = true;
    }

    /// Waits until this node has something else to do than `task`.
    pub(super) async fn differs(&mut self, task: &Task) {
        while self.task() == *task {
            self.changed().await;
        }
    }
}
