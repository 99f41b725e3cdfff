//! What is measured of a node's consensus.

use std::time::Duration;

use super::Cluster;
use crate::model::{LogIndex, NodeId};
use crate::protocol::database::SyncRule;
use crate::raft::views::validity;

/// How a node's consensus is at this moment, in numbers.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// How long the lease of this node still holds; None if it has none.
    pub lease_left: Option<Duration>,
    /// How many voters are in force.
    pub voters: usize,
    /// How many of them this node reaches, itself included.
    pub voters_seen: usize,
    /// The last entry in this node's log.
    pub last_index: LogIndex,
    /// The last entry that it has applied.
    pub applied_index: LogIndex,
    /// The rule under which commits are acknowledged; None if this node's database is not the primary.
    pub sync_rule: Option<SyncRule>,
    /// Whether all commits that were ever acknowledged are held under that rule.
    pub sync_rule_proven: bool,
}

impl Cluster {
    /// How this node's consensus is at this moment, in numbers.
    pub fn vitals(&self) -> Vitals {
        let (core, local) = (&self.0.core, &self.0.local);
        let now = core.clock().now();
        let seen = self.0.views.seen(now, validity(core));
        let voters = self.voters();
        let reached = |voter: &&NodeId| **voter == core.id() || seen.contains(voter);
        let in_force = local.in_force.borrow().clone();
        Vitals {
            lease_left: self.lease_end().map(|end| end.saturating_sub(now)),
            voters: voters.len(),
            voters_seen: voters.iter().filter(reached).count(),
            last_index: core.last_index(),
            applied_index: core.state_machine().progress().borrow().index,
            sync_rule: in_force.rule,
            sync_rule_proven: in_force.held,
        }
    }

    /// Calls `hook` for each change that this node, as the leader, wrote to the cluster's log, with the time from the write
    /// until it was applied here. It is called from within consensus and must not block. Only the first hook counts.
    pub fn observe_commits(&self, hook: impl Fn(Duration) + Send + Sync + 'static) {
        self.0.core.observers().commits.set(Box::new(hook));
    }

    /// Calls `hook` when this node becomes the leader, with the cause: one of [`CAUSES`](super::CAUSES). It is called from
    /// within consensus and must not block. Only the first hook counts.
    pub fn observe_leaderships(&self, hook: impl Fn(&'static str) + Send + Sync + 'static) {
        self.0.core.observers().leaderships.set(Box::new(hook));
    }
}
