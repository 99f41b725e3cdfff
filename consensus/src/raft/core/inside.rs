//! The inner state of a node, for simulations.

use std::collections::BTreeSet;

use openraft::async_runtime::watch::WatchReceiver;

use super::Core;
use crate::env::clock::Instant;
use crate::model::NodeId;
use crate::raft::wire::{LogPosition, VoteRecord};

/// The inner state of a node.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Its vote.
    pub vote: VoteRecord,
    /// Whether Raft says that it leads.
    pub leads: bool,
    /// The newest entry that it has applied.
    pub applied: Option<LogPosition>,
    /// The index of the newest entry of its log.
    pub last: Option<u64>,
    /// The voters in its log: one set, or two in a joint membership.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// The end of the lease that it has as the leader of its term. None if it does not lead, or has no lease.
    pub lease_end: Option<Instant>,
    /// Why its consensus has stopped. None while it runs.
    pub stopped: Option<String>,
}

impl Core {
    /// The inner state of this node.
    pub(crate) fn inside(&self) -> Inside {
        let status = self.raft_status();
        let last = self.raft().data_metrics();
        let leads = status.leader == Some(self.id());
        Inside {
            vote: self.own_vote(),
            leads,
            applied: self.state_machine().read(|applied| applied.last),
            last: last.borrow_watched().last_log.map(|last| last.index),
            voters: self.voters(),
            lease_end: leads.then(|| self.lease_end(status.term)).flatten(),
            stopped: status.stopped,
        }
    }
}
