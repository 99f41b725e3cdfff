//! What voters promise to a leader: to vote for no other until some instant. A majority of promises is its lease.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::{Core, lock};
use crate::clock::Instant;
use crate::durability::lease_end;
use crate::model::{NodeId, Term};
use crate::sabotage::{self, Sabotage};

/// The last time that this node heard from a leader that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) at: Instant,
    /// Until when this node votes for no other, as it has told the leader: a shorter node time-out that is set later
    /// does not shorten it. None where the leader hands its lead over.
    promised: Option<Instant>,
}

/// What voters have promised to the leader of a term: to vote for no other until some instant.
#[derive(Default)]
pub(crate) struct Leases {
    term: u64,
    until: BTreeMap<NodeId, Instant>,
    /// The newest term that this node has begun to hand over: whoever takes over may be voted for in spite of all
    /// promises, so that term has no lease any more.
    handed_over: Option<u64>,
}

impl Leases {
    /// Notes that `node` promised the leader of `term` to vote for no other until then.
    pub(crate) fn note(&mut self, term: u64, node: NodeId, until: Instant) {
        if term > self.term {
            self.term = term;
            self.until.clear();
        }
        if term == self.term {
            let known = self.until.entry(node).or_default();
            *known = until.max(*known);
        }
    }
}

impl Core {
    /// Follows the contact to leaders.
    pub(crate) fn heard(&self) -> watch::Receiver<Option<Contact>> {
        self.0.heard.subscribe()
    }

    /// Whether the leader of `term` told this node that it hands its lead over.
    pub(crate) fn was_handed_over(&self, term: Term) -> bool {
        self.0.handed_over.load(Ordering::Relaxed) >= term.0
    }

    /// Ends the lease of this node as the leader of `term` for good: its lead is being handed over.
    pub(crate) fn end_lease(&self, term: Term) {
        let mut leases = lock(&self.0.context.leases);
        leases.handed_over = leases.handed_over.max(Some(term.0));
    }

    /// Whether the lease of this node as the leader of `term` was ended for good.
    pub(super) fn is_given_up(&self, term: Term) -> bool {
        lock(&self.0.context.leases).handed_over >= Some(term.0)
    }

    /// When the lease of this node as the leader of `term` ends, where a majority has promised one.
    pub(crate) fn lease_end(&self, term: Term) -> Option<Instant> {
        let now = self.clock().now();
        let own = now + self.config().node_timeout.get();
        let voters = self.voters();
        let leases = lock(&self.0.context.leases);
        if leases.handed_over >= Some(term.0) && !sabotage::is(Sabotage::LeaseInHandOver) {
            return None;
        }
        lease_end(&voters, |voter| {
            if voter == self.id() {
                return Some(own);
            }
            // The leader's own setting bounds the promises of voters that have not applied a lower one yet.
            let promised = (leases.term == term.0).then(|| leases.until.get(&voter)).flatten();
            promised.map(|&until| until.min(own))
        })
    }

    /// Whether this node must vote for nobody because it heard from a leader lately, or did before it restarted: its
    /// promise outlives it.
    pub(crate) fn promised_to_a_leader(&self) -> bool {
        let timeout = self.config().node_timeout.get();
        let now = self.clock().now();
        let heard = *self.0.heard.borrow();
        heard.and_then(|heard| heard.promised).is_some_and(|until| now < until)
            || (now < self.0.started + timeout && self.seat().leader.is_some_and(|leader| leader != self.id()))
    }

    /// Notes that a leader was heard, and promised to vote for no other for so long.
    pub(super) fn note_contact(&self, promise: Option<Duration>) {
        let at = self.clock().now();
        self.0.heard.send_modify(|heard| {
            let earlier = heard.and_then(|heard| heard.promised);
            *heard = Some(Contact { at, promised: promise.map(|promise| earlier.unwrap_or(at).max(at + promise)) });
        });
    }
}
