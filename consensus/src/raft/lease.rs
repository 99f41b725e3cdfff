//! What voters promise to a leader: to vote for no other until some instant. A majority of promises is its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::env::clock::Instant;
use crate::model::{Config, NodeId, Term};
use crate::protocol::quorum::lease_end;
use crate::raft::types::Vote;

/// The last time that this node heard from a leader that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) at: Instant,
    /// Until when this node votes for no other, as it has told the leader: a shorter node time-out that is set later
    /// does not shorten it. None where the leader hands its lead over.
    pub(super) promised: Option<Instant>,
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
    pub(super) fn until(&self, own: &Vote) -> Option<Instant> {
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
    pub(super) handed_over: Option<u64>,
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
    pub(super) fn lease(
        &self,
        term: Term,
        voters: &[BTreeSet<NodeId>],
        me: NodeId,
        own: Duration,
        now: Instant,
    ) -> Option<Lease> {
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
