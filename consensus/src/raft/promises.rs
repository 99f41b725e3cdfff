//! What voters promise to a leader: to vote for no other until some instant. A majority of promises is its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use super::{Core, lock};
use crate::clock::Instant;
use crate::durability::lease_end;
use crate::model::{Config, NodeId, Term};
use crate::sabotage::{self, Sabotage};
use crate::store::StoreError;
use crate::types::Vote;

/// The last time that this node heard from a leader that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) at: Instant,
    /// Until when this node votes for no other, as it has told the leader: a shorter node time-out that is set later
    /// does not shorten it. None where the leader hands its lead over.
    promised: Option<Instant>,
}

/// What this node may have promised before it was started: to vote for no other than the leader of its vote of then.
pub(super) struct Before {
    vote: Vote,
    until: Instant,
}

impl Before {
    /// None where it has voted for itself: it has promised nobody else anything since.
    pub(super) fn new(vote: Vote, me: NodeId, until: Instant) -> Option<Self> {
        (vote.leader_id().voted_for != me).then_some(Self { vote, until })
    }

    /// Until when it holds, if it does by `own`, the vote of now. It does not where another was voted for: the leader let
    /// it go, or it was over. Nor where somebody leads a later term: one of those who voted for that had promised the same.
    fn until(&self, own: &Vote) -> Option<Instant> {
        let (then, now) = (self.vote.leader_id(), own.leader_id());
        let over = own.is_committed() && now.term > then.term;
        (now.voted_for == then.voted_for && !over).then_some(self.until)
    }
}

/// Until when a voter, or a majority of them, votes for no other than the leader, and when that begins to fence its
/// database, to be done by then. Each promise counts by its own length: where node-timeout was raised, a quarter of what
/// it is now may be more than all of a lease of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it ends.
    pub end: Instant,
    /// When the fence begins.
    pub fence_at: Instant,
}

impl Lease {
    /// By the promise of a voter, in its answer to what was sent at `sent`, to vote for no other for `length`.
    fn promised(sent: Instant, length: Duration) -> Self {
        let end = sent + length;
        Self { end, fence_at: end.saturating_sub(Config::fencing_deadline_of(length)) }
    }

    /// How long the fence may take.
    pub fn fencing_deadline(&self) -> Duration {
        self.end.saturating_sub(self.fence_at)
    }
}

/// What voters have promised to the leader of a term.
#[derive(Default)]
pub(crate) struct Leases {
    term: u64,
    promises: BTreeMap<NodeId, Lease>,
    /// The newest term that this node has begun to hand over: whoever takes over may be voted for in spite of all
    /// promises, so that term has no lease any more.
    handed_over: Option<u64>,
}

impl Leases {
    /// Notes that `node` promised the leader of `term` to vote for no other for `length`, in its answer to what was sent
    /// at `sent`.
    pub(crate) fn note(&mut self, term: u64, node: NodeId, sent: Instant, length: Duration) {
        if term > self.term {
            self.term = term;
            self.promises.clear();
        }
        if term == self.term {
            let new = Lease::promised(sent, length);
            let known = self.promises.entry(node).or_insert(new);
            // A shorter promise takes nothing from a longer one that it follows: the fence may still begin as late as it asks.
            *known = Lease { end: known.end.max(new.end), fence_at: known.fence_at.max(new.fence_at) };
        }
    }

    /// The lease of the node `me` as the leader of `term`, whose node-timeout is `own`.
    fn lease(&self, term: Term, voters: &[BTreeSet<NodeId>], me: NodeId, own: Duration, now: Instant) -> Option<Lease> {
        let mine = Lease::promised(now, own);
        let promise = |voter| match voter == me {
            true => Some(mine),
            false => self.promises.get(&voter).copied().filter(|_| self.term == term.0),
        };
        // The leader's own setting bounds the promises of voters that have not applied a lower one yet.
        let end = lease_end(voters, |voter| promise(voter).map(|promise| promise.end.min(mine.end)))?;
        let fence_at = lease_end(voters, |voter| promise(voter).map(|promise| promise.fence_at.min(mine.fence_at)))?;
        Some(Lease { end, fence_at })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_promise_of_before_holds_until_it_was_let_go_or_another_leads() {
        let [one, two, three] = [1, 2, 3].map(NodeId);
        let vote =
            |term, node, committed| if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
        assert!(Before::new(vote(4, one, true), one, at(9)).is_none());
        for committed in [true, false] {
            let before = Before::new(vote(4, two, committed), one, at(9)).unwrap();
            for (own, holds) in [
                (vote(4, two, committed), true),
                (vote(4, two, true), true),
                // Its leader has restarted, and was voted for again; and leads again.
                (vote(5, two, false), true),
                (vote(5, two, true), false),
                (vote(5, three, false), false),
                (vote(5, three, true), false),
            ] {
                assert_eq!(before.until(&own).is_some(), holds, "{own}");
            }
        }
    }

    #[test]
    fn each_promise_leaves_time_for_a_fence_by_its_own_length() {
        let [one, two, three] = [1, 2, 3].map(NodeId);
        let voters = [BTreeSet::from([one, two, three])];
        let mut leases = Leases::default();
        let lease = |leases: &Leases, own, now| {
            let lease = leases.lease(Term(4), &voters, one, at(own), at(now))?;
            Some((lease.end.as_millis(), lease.fence_at.as_millis()))
        };
        assert_eq!(lease(&leases, 1000, 10_000), None);
        leases.note(4, two, at(10_000), at(1000));
        leases.note(4, three, at(10_000), at(1000));
        assert_eq!(lease(&leases, 1000, 10_000), Some((11_000, 10_750)));
        // It is raised here, and the voters hear of it one after the other.
        assert_eq!(lease(&leases, 8000, 10_100), Some((11_000, 10_750)));
        leases.note(4, two, at(10_200), at(8000));
        assert_eq!(lease(&leases, 8000, 10_300), Some((18_200, 16_200)));
        // The other stays away: that changes nothing, nor does an answer that was late.
        leases.note(4, two, at(10_100), at(1000));
        assert_eq!(lease(&leases, 8000, 15_000), Some((18_200, 16_200)));
        // It is lowered here, before anybody else hears of it.
        assert_eq!(lease(&leases, 400, 15_000), Some((15_400, 15_300)));
        // From then on they are heard as often as the lower one asks for, and the fence is never due.
        for now in (15_000..20_000).step_by(100) {
            leases.note(4, two, at(now - 10), at(400));
            let (end, fence_at) = lease(&leases, 400, now).unwrap();
            assert!(end <= u128::from(now) + 400 && fence_at > u128::from(now), "{end} {fence_at} at {now}");
        }
        // Of another term there is none.
        leases.note(5, three, at(15_000), at(1000));
        assert_eq!(lease(&leases, 1000, 15_000), None);
    }

    proptest::proptest! {
        #[test]
        fn the_fence_begins_before_the_end_and_never_later_than_a_quarter_of_the_shortest_promise_before_it(
            sent in proptest::collection::vec((9000..10_000u64, 300..20_000u64), 4),
            own in 300..20_000u64,
        ) {
            let ids: BTreeSet<NodeId> = (1..=5).map(NodeId).collect();
            let mut leases = Leases::default();
            for (id, (sent, length)) in (2..).zip(&sent) {
                leases.note(4, NodeId(id), at(*sent), at(*length));
            }
            let lease = leases.lease(Term(4), &[ids], NodeId(1), at(own), at(10_000)).unwrap();
            let shortest = sent.iter().map(|(_, length)| *length).min().unwrap().min(own);
            proptest::prop_assert!(lease.fencing_deadline() >= at(shortest) / 4, "{lease:?}");
            proptest::prop_assert!(lease.end <= at(10_000 + own), "{lease:?}");
        }
    }
}
