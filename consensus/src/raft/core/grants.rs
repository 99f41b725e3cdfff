//! What this node promises to leaders, and what voters have promised to it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use super::Core;
use crate::env::clock::Instant;
use crate::env::lock::lock;
use crate::env::sabotage::{self, Sabotage};
use crate::model::Term;
use crate::raft::lease::{Contact, Lease};
use crate::raft::store::StoreError;

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
        self.lease(term).map(|lease| lease.end)
    }

    /// The lease of this node as the leader of `term`, where a majority has promised one.
    pub(crate) fn lease(&self, term: Term) -> Option<Lease> {
        let (now, own) = (self.clock().now(), self.config().node_timeout.get());
        let voters = self.voters();
        let leases = lock(&self.0.context.leases);
        if leases.handed_over >= Some(term.0) && !sabotage::is(Sabotage::LeaseInHandOver) {
            return None;
        }
        leases.lease(term, &voters, self.id(), own, now)
    }

    /// Whether this node must vote for nobody because it heard from a leader lately, or did before it restarted: its
    /// promise outlives it.
    pub(crate) fn promised_to_a_leader(&self) -> bool {
        let heard = self.0.heard.borrow().and_then(|heard| heard.promised);
        heard.max(self.promised_before()) > Some(self.clock().now())
    }

    /// Until when a promise holds that this node gave before it was started.
    fn promised_before(&self) -> Option<Instant> {
        let own = self.raft().server_metrics().borrow_watched().vote;
        self.0.before.as_ref().and_then(|before| before.until(&own))
    }

    /// Promises a leader that was heard just now to vote for no other for `length`. The promise outlives this process, and
    /// the setting that it goes by may not: it may be in the log alone, or be lowered after it. So the longest that may
    /// still hold is in the store, before it is given and until it is over.
    pub(super) async fn promise(&self, length: Duration) -> Result<(), StoreError> {
        let mut stored = self.0.promised.lock().await;
        if length > *stored {
            self.0.store.raise_promised(length).await?;
            *stored = length;
        }
        let contact = self.note_contact(Some(length));
        let longest = contact.promised.max(self.promised_before());
        if length < *stored && longest == Some(contact.at + length) {
            *stored = length;
            self.0.store.lower_promised(length)?;
        }
        Ok(())
    }

    /// Notes that a leader was heard, and promised to vote for no other for so long.
    pub(super) fn note_contact(&self, promise: Option<Duration>) -> Contact {
        let at = self.clock().now();
        let mut contact = Contact { at, promised: None };
        self.0.heard.send_modify(|heard| {
            let earlier = heard.and_then(|heard| heard.promised);
            contact.promised = promise.map(|promise| earlier.unwrap_or(at).max(at + promise));
            *heard = Some(contact);
        });
        contact
    }
}
