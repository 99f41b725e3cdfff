//! Who leads, as this node knows it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Cluster, ClusterError};
use crate::env::clock::Instant;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Leader, NodeId};
use crate::protocol::quorum::majority;
use crate::protocol::state::Lead;
use crate::raft::lease::Lease;
use crate::raft::views::validity;

/// How often a node that was just elected looks whether it leads with authority.
const AUTHORITY_POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Cluster {
    /// The leader as this node knows it: it was announced in the newest term and, if it is this node, its lease holds; if
    /// it is another, this node heard from it within `node-timeout`.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoLeader`], with the reason, if there is none; [`ClusterError::Precondition`] or
    /// [`ClusterError::Unavailable`] if this node is no member, or its consensus does not run.
    pub fn leader(&self) -> Result<Leader, ClusterError> {
        self.check_member()?;
        self.known_leader().ok_or_else(|| ClusterError::NoLeader(self.why_no_leader()))
    }

    /// This node as the leader. At most one node at a time answers so.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotLeader`], with the leader, if it is another node; else as [`Cluster::leader`].
    pub fn is_leader(&self) -> Result<Leader, ClusterError> {
        let leader = self.leader()?;
        if leader.id == self.0.identity.node { Ok(leader) } else { Err(ClusterError::NotLeader(Box::new(leader))) }
    }

    /// Until when no other node can be elected, on the clock that this node was started with: until then its database may
    /// serve as the primary. That instant may be past. None if this node does not lead, no majority has granted it a lease
    /// yet, or its lead is being handed over.
    pub fn lease_end(&self) -> Option<Instant> {
        self.lease().map(|lease| lease.end)
    }

    /// The lease of this node: when it ends, as in [`Cluster::lease_end`], and when the database is fenced before that.
    pub fn lease(&self) -> Option<Lease> {
        let core = &self.0.core;
        let raft = core.raft_status();
        if raft.leader == Some(core.id()) { core.lease(raft.term) } else { None }
    }

    /// The announced leader of the newest term; None if there is none, or it is not known to be able to serve.
    pub(super) fn known_leader(&self) -> Option<Leader> {
        let core = &self.0.core;
        let raft = core.raft_status();
        let now = core.clock().now();
        let lead = self.read(|state| state.lead)?;
        if raft.leader != Some(lead.node) || lead.term != raft.term {
            return None;
        }
        let holds = if lead.node == core.id() {
            core.lease_end(lead.term).is_some_and(|end| now < end) || sabotage::is(Sabotage::LeaderWithoutLease)
        } else {
            let heard = *core.heard().borrow();
            heard.is_some_and(|heard| now < heard.at + core.config().node_timeout.get())
        };
        holds.then(|| self.leader_of(lead)).flatten()
    }

    fn leader_of(&self, lead: Lead) -> Option<Leader> {
        let node = self.read(|state| state.nodes.get(&lead.node).cloned())?;
        Some(Leader { id: node.id, term: lead.term, ip: node.ip, api_port: node.api_port, db_port: node.db_port })
    }

    /// Why [`Cluster::leader`] tells of none, for people.
    pub(super) fn why_no_leader(&self) -> String {
        let core = &self.0.core;
        let raft = core.raft_status();
        let (now, age) = (core.clock().now(), validity(core));
        let seen = self.0.views.seen(now, age);
        let voters: BTreeSet<NodeId> = core.voters().into_iter().flatten().collect();
        let answering = voters.iter().filter(|&&voter| voter == core.id() || seen.contains(&voter)).count();
        let mut reason = if answering < majority(voters.len()) {
            format!("no majority: of {} voters, this node reaches {answering}, itself included", voters.len())
        } else if raft.leader == Some(core.id()) {
            format!("this node was elected in term {} and is taking up its lead", raft.term)
        } else if let Some(leader) = raft.leader {
            format!("node {leader} leads term {} and does not answer, or is still taking up its lead", raft.term)
        } else {
            format!("an election is under way in term {}", raft.term)
        };
        if let Some(note) = self.0.local.note.borrow().as_deref() {
            reason.push_str(&format!("; this node: {note}"));
        }
        // The node that was elected knows what it waits for.
        let elected = raft.leader.filter(|&elected| elected != core.id());
        let told = elected.and_then(|elected| self.0.views.fresh(elected, now, age)?.note);
        if let (Some(elected), Some(note)) = (elected, told) {
            reason.push_str(&format!("; node {elected}: {note}"));
        }
        reason
    }

    /// Waits until this node leads with authority, since it may just have been elected, and returns it.
    ///
    /// # Errors
    ///
    /// As [`Cluster::is_leader`].
    pub(super) async fn authority(&self) -> Result<Leader, ClusterError> {
        let core = &self.0.core;
        let limit = core.config().leader_voting_timeout.get();
        let settled = async {
            loop {
                match self.is_leader() {
                    Err(ClusterError::NoLeader(_)) if core.raft_status().leader == Some(core.id()) => {
                        tokio::time::sleep(AUTHORITY_POLL_INTERVAL).await;
                    }
                    settled => return settled,
                }
            }
        };
        tokio::time::timeout(limit, settled).await.unwrap_or_else(|_| self.is_leader())
    }
}
