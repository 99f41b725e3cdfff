//! The leases that this node grants to leaders, and the lease that voters have granted to it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::Core;
use crate::env::clock::Instant;
use crate::env::lock::lock;
use crate::env::sabotage::{self, Sabotage};
use crate::model::Term;
use crate::raft::lease::{Contact, Lease};
use crate::raft::store::StoreError;

impl Core {
    /// Follows this node's contact to leaders.
    pub(crate) fn heard(&self) -> watch::Receiver<Option<Contact>> {
        self.0.heard.subscribe()
    }

    /// Whether the leader of `term` told this node that it hands its lead over.
    pub(crate) fn was_handed_over(&self, term: Term) -> bool {
        self.0.handed_over.load(Ordering::Relaxed) >= term.0
    }

    /// Ends the lease of this node as the leader of `term` for good: it hands its lead over.
    pub(crate) fn end_lease(&self, term: Term) {
        let mut grants = lock(&self.0.context.grants);
        grants.handed_over = grants.handed_over.max(Some(term.0));
    }

    /// Whether the lease of this node as the leader of `term` was ended for good.
    pub(super) fn is_given_up(&self, term: Term) -> bool {
        lock(&self.0.context.grants).handed_over >= Some(term.0)
    }

    /// When the lease of this node as the leader of `term` ends. None if no majority has granted one.
    pub(crate) fn lease_end(&self, term: Term) -> Option<Instant> {
        self.lease(term).map(|lease| lease.end)
    }

    /// The lease of this node as the leader of `term`. None if no majority has granted one, or it was ended for good.
    pub(crate) fn lease(&self, term: Term) -> Option<Lease> {
        let (now, own) = (self.clock().now(), self.config().node_timeout.get());
        let voters = self.voters();
        let grants = lock(&self.0.context.grants);
        if grants.handed_over >= Some(term.0) && !sabotage::is(Sabotage::LeaseInHandOver) {
            return None;
        }
        grants.lease(term, &voters, self.id(), own, now)
    }

    /// Whether this node has granted a leader a lease that still holds: it may vote for nobody else. A lease that it
    /// granted before it restarted counts.
    pub(crate) fn has_granted_lease(&self) -> bool {
        let heard = self.0.heard.borrow().and_then(|heard| heard.granted_until);
        heard.max(self.earlier_grant_until()) > Some(self.clock().now())
    }

    /// Until when a lease holds that this node granted before it was started.
    fn earlier_grant_until(&self) -> Option<Instant> {
        let own = self.own_vote();
        self.0.earlier_grant.as_ref().and_then(|grant| grant.until(&own))
    }

    /// Grants a lease of `length` to a leader that was heard just now. The grant outlives this process. Its length may
    /// not be in the settings that the process starts with again: they may be in the log alone, or be lowered later. So
    /// the store keeps the length of the longest grant that may still hold, from before it is given until it is over.
    ///
    /// # Errors
    ///
    /// If the store has failed: then no lease is granted.
    pub(super) async fn grant_lease(&self, length: Duration) -> Result<(), StoreError> {
        let mut stored = self.0.longest_grant.lock().await;
        if length > *stored {
            self.0.store.raise_longest_grant(length).await?;
            *stored = length;
        }
        let contact = self.note_contact(Some(length));
        let longest = contact.granted_until.max(self.earlier_grant_until());
        if length < *stored && longest == Some(contact.at + length) {
            *stored = length;
            self.0.store.lower_longest_grant(length)?;
        }
        Ok(())
    }

    /// Notes that a leader was heard, and the length of the lease that it was granted, if it was.
    pub(super) fn note_contact(&self, granted: Option<Duration>) -> Contact {
        let at = self.clock().now();
        let mut contact = Contact { at, granted_until: None };
        self.0.heard.send_modify(|heard| {
            let earlier = heard.and_then(|heard| heard.granted_until);
            contact.granted_until = granted.map(|length| earlier.unwrap_or(at).max(at + length));
            *heard = Some(contact);
        });
        contact
    }
}
