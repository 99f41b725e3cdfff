//! The leader's lease. A voter that answers an append grants the leader a lease: until some instant it votes for nobody
//! else. The grants of a majority are the leader's lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::env::clock::Instant;
use crate::model::{Config, NodeId, Term};
use crate::protocol::quorum::lease_end;
use crate::raft::wire::VoteRecord;

/// The last time that this node heard from a leader that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) at: Instant,
    /// Until when this node votes for nobody but that leader, as it has told it. A shorter `node-timeout` that is set
    /// later does not shorten this. None if the leader hands its lead over.
    pub(super) granted_until: Option<Instant>,
}

/// The lease that this node may have granted before it was started, to the leader that its stored vote names.
pub(super) struct EarlierGrant {
    vote: VoteRecord,
    until: Instant,
}

impl EarlierGrant {
    /// None if this node, `me`, has voted for itself: since that vote it has granted nobody else a lease.
    pub(super) fn new(vote: VoteRecord, me: NodeId, until: Instant) -> Option<Self> {
        (vote.voted_for != me).then_some(Self { vote, until })
    }

    /// Until when the grant holds, if it does by `own`, the present vote of this node. It ends when this node votes for
    /// another: then the leader released it, or its time was over. It ends, too, when somebody leads a later term: one
    /// of those who elected that leader had granted the same lease.
    pub(super) fn until(&self, own: &VoteRecord) -> Option<Instant> {
        let over = own.committed && own.term > self.vote.term;
        (own.voted_for == self.vote.voted_for && !over).then_some(self.until)
    }
}

/// Until when one voter, or a majority of them, votes for nobody but the leader; and when the leader begins to fence its
/// database, so that it is fenced by then. Each grant counts by its own length: after `node-timeout` is raised, a quarter
/// of the new value may be longer than a whole lease under the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it ends.
    pub end: Instant,
    /// When the leader begins to fence its database.
    pub fence_at: Instant,
}

impl Lease {
    /// The lease that a voter grants for `length`, in its answer to what was sent at `sent`.
    fn granted(sent: Instant, length: Duration) -> Self {
        let end = sent + length;
        Self { end, fence_at: end.saturating_sub(Config::fencing_deadline_of(length)) }
    }

    /// How long the fence may take.
    pub fn fencing_deadline(&self) -> Duration {
        self.end.saturating_sub(self.fence_at)
    }
}

/// The leases that voters have granted to this node as the leader of a term.
#[derive(Default)]
pub(crate) struct LeaseGrants {
    term: u64,
    grants: BTreeMap<NodeId, Lease>,
    /// The newest term that this node has begun to hand over. Voters may elect its successor in spite of all grants, so
    /// that term has no lease any more.
    pub(super) handed_over: Option<u64>,
}

impl LeaseGrants {
    /// Notes that `node` granted the leader of `term` a lease of `length`, in its answer to what was sent at `sent`.
    pub(crate) fn note(&mut self, term: u64, node: NodeId, sent: Instant, length: Duration) {
        if term > self.term {
            self.term = term;
            self.grants.clear();
        }
        if term == self.term {
            let new = Lease::granted(sent, length);
            let known = self.grants.entry(node).or_insert(new);
            // A shorter grant does not shorten an earlier, longer one: the fence may still begin as late as that allows.
            *known = Lease { end: known.end.max(new.end), fence_at: known.fence_at.max(new.fence_at) };
        }
    }

    /// The lease of the node `me` as the leader of `term`, whose `node-timeout` is `own`. None if no majority of each
    /// set of `voters` has granted one.
    pub(super) fn lease(
        &self,
        term: Term,
        voters: &[BTreeSet<NodeId>],
        me: NodeId,
        own: Duration,
        now: Instant,
    ) -> Option<Lease> {
        let mine = Lease::granted(now, own);
        let grant = |voter| match voter == me {
            true => Some(mine),
            false => self.grants.get(&voter).copied().filter(|_| self.term == term.0),
        };
        // The leader's own setting bounds the grants of voters that have not applied a lower one yet.
        let end = lease_end(voters, |voter| grant(voter).map(|grant| grant.end.min(mine.end)))?;
        let fence_at = lease_end(voters, |voter| grant(voter).map(|grant| grant.fence_at.min(mine.fence_at)))?;
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
    fn an_earlier_grant_holds_until_its_leader_releases_it_or_another_leads() {
        let [one, two, three] = [1, 2, 3].map(NodeId);
        let vote = |term, voted_for, committed| VoteRecord { term: Term(term), voted_for, committed };
        assert!(EarlierGrant::new(vote(4, one, true), one, at(9)).is_none());
        for committed in [true, false] {
            let earlier = EarlierGrant::new(vote(4, two, committed), one, at(9)).unwrap();
            for (own, holds) in [
                (vote(4, two, committed), true),
                (vote(4, two, true), true),
                // Its leader has restarted, was voted for again, and leads again.
                (vote(5, two, false), true),
                (vote(5, two, true), false),
                (vote(5, three, false), false),
                (vote(5, three, true), false),
            ] {
                assert_eq!(earlier.until(&own).is_some(), holds, "{own:?}");
            }
        }
    }

    #[test]
    fn each_grant_leaves_time_for_a_fence_by_its_own_length() {
        let [one, two, three] = [1, 2, 3].map(NodeId);
        let voters = [BTreeSet::from([one, two, three])];
        let mut grants = LeaseGrants::default();
        let lease = |grants: &LeaseGrants, own, now| {
            let lease = grants.lease(Term(4), &voters, one, at(own), at(now))?;
            Some((lease.end.as_millis(), lease.fence_at.as_millis()))
        };
        assert_eq!(lease(&grants, 1000, 10_000), None);
        grants.note(4, two, at(10_000), at(1000));
        grants.note(4, three, at(10_000), at(1000));
        assert_eq!(lease(&grants, 1000, 10_000), Some((11_000, 10_750)));
        // node-timeout is raised here, and the voters hear of it one after the other.
        assert_eq!(lease(&grants, 8000, 10_100), Some((11_000, 10_750)));
        grants.note(4, two, at(10_200), at(8000));
        assert_eq!(lease(&grants, 8000, 10_300), Some((18_200, 16_200)));
        // The other voter does not answer: that changes nothing, nor does an answer that was late.
        grants.note(4, two, at(10_100), at(1000));
        assert_eq!(lease(&grants, 8000, 15_000), Some((18_200, 16_200)));
        // node-timeout is lowered here, before anybody else hears of it.
        assert_eq!(lease(&grants, 400, 15_000), Some((15_400, 15_300)));
        // From then on they answer as often as the lower setting asks for, and the fence is never due.
        for now in (15_000..20_000).step_by(100) {
            grants.note(4, two, at(now - 10), at(400));
            let (end, fence_at) = lease(&grants, 400, now).unwrap();
            assert!(end <= u128::from(now) + 400 && fence_at > u128::from(now), "{end} {fence_at} at {now}");
        }
        // Another term has no lease.
        grants.note(5, three, at(15_000), at(1000));
        assert_eq!(lease(&grants, 1000, 15_000), None);
    }

    proptest::proptest! {
        #[test]
        fn the_fence_begins_before_the_end_and_never_later_than_a_quarter_of_the_shortest_grant_before_it(
            sent in proptest::collection::vec((9000..10_000u64, 300..20_000u64), 4),
            own in 300..20_000u64,
        ) {
            let ids: BTreeSet<NodeId> = (1..=5).map(NodeId).collect();
            let mut grants = LeaseGrants::default();
            for (id, (sent, length)) in (2..).zip(&sent) {
                grants.note(4, NodeId(id), at(*sent), at(*length));
            }
            let lease = grants.lease(Term(4), &[ids], NodeId(1), at(own), at(10_000)).unwrap();
            let shortest = sent.iter().map(|(_, length)| *length).min().unwrap().min(own);
            proptest::prop_assert!(lease.fencing_deadline() >= at(shortest) / 4, "{lease:?}");
            proptest::prop_assert!(lease.end <= at(10_000 + own), "{lease:?}");
        }
    }
}
