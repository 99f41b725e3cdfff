//! Rules of the protocol that a test breaks on purpose, to show that the simulation finds it. Without the feature
//! `simulation` no rule is ever broken, and the checks compile to nothing.

#[cfg(feature = "simulation")]
use std::cell::Cell;

/// A rule that is broken, named by what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// A node promises to a recruiter and does not fence its database first.
    PromiseWithoutFence,
    /// A primary promises to a recruiter and stays a primary.
    PromiseAsPrimary,
    /// WAL positions are compared by LSN, without their terms.
    CompareLsnAlone,
    /// A WAL position has the newest term of the history before the WAL has reached that term.
    TermBeforeWal,
    /// A restart forgets the promise to a recruiter.
    ForgetPromise,
    /// A recruiter is content with one promise less than a majority.
    RecruitOneTooFew,
    /// A database is promoted without `Lead`.
    PromoteBeforeLead,
    /// Clients are let in before a quorum holds the term's first write.
    AdmitBeforeHeld,
    /// A voter is added before the sync rule of the larger set is in force.
    VoterBeforeRule,
    /// A voter is added before everything that was acknowledged is held under the raised sync rule.
    NoBarrier,
    /// A voter is removed before everything is held as the remaining voters require.
    RemoveBeforeHeld,
    /// The sync rule stays as it was when the primary was promoted.
    KeepOldRule,
    /// A primary that is no voter counts itself as a holder.
    CountOutsider,
    /// A standby counts although it reconnected by itself, in a term that it has not followed.
    CountUntagged,
    /// An append is acknowledged before it is durable.
    AcknowledgeBeforeFsync,
    /// A restart forgets the vote.
    ForgetVote,
    /// The lease counts from when the answer arrived, not from when the append was sent.
    LeaseFromReceipt,
    /// The lease holds although one voter less than a majority has granted it.
    LeaseOneTooFew,
    /// A leader answers as the leader although its lease is over.
    LeaderWithoutLease,
    /// The lease holds while leadership is handed over.
    LeaseInHandOver,
    /// A voter votes for another although the lease that it granted still holds.
    VoteInSpiteOfPromise,
    /// A node that was removed votes.
    VoteWhenRemoved,
    /// The id of a removed node is given to another.
    ReuseId,
    /// A standby follows a leader before the leader's database is promoted.
    FollowUnannounced,
    /// The WAL of a database counts although somebody promoted it by hand.
    CountStrayed,
    /// A standby follows a primary although its own WAL is no prefix of the primary's.
    FollowDiverged,
    /// A commit is acknowledged although one standby less than required holds it.
    OneHolderTooFew,
    /// A primary keeps serving although another led in between, and is not demoted while it has no lease.
    ResumeAfterAnother,
    /// The promise of the node that led last is enough, although that node is left out of the choice.
    WholeWithoutChoice,
    /// A restart forgets that the database has to be rebuilt.
    ForgetRepair,
    /// A primary is not demoted when its lease ends.
    NeverDemote,
}

impl Sabotage {
    /// All rules that can be broken.
    pub const ALL: [Self; 31] = [
        Self::PromiseWithoutFence,
        Self::PromiseAsPrimary,
        Self::CompareLsnAlone,
        Self::TermBeforeWal,
        Self::ForgetPromise,
        Self::RecruitOneTooFew,
        Self::PromoteBeforeLead,
        Self::AdmitBeforeHeld,
        Self::VoterBeforeRule,
        Self::NoBarrier,
        Self::RemoveBeforeHeld,
        Self::KeepOldRule,
        Self::CountOutsider,
        Self::CountUntagged,
        Self::AcknowledgeBeforeFsync,
        Self::ForgetVote,
        Self::LeaseFromReceipt,
        Self::LeaseOneTooFew,
        Self::LeaderWithoutLease,
        Self::LeaseInHandOver,
        Self::VoteInSpiteOfPromise,
        Self::VoteWhenRemoved,
        Self::ReuseId,
        Self::FollowUnannounced,
        Self::CountStrayed,
        Self::FollowDiverged,
        Self::OneHolderTooFew,
        Self::ResumeAfterAnother,
        Self::WholeWithoutChoice,
        Self::ForgetRepair,
        Self::NeverDemote,
    ];
}

#[cfg(feature = "simulation")]
thread_local! {
    static CHOSEN: Cell<Option<Sabotage>> = const { Cell::new(None) };
}

/// Chooses the rule that is broken for all nodes that run on this thread.
#[cfg(feature = "simulation")]
pub fn choose(sabotage: Option<Sabotage>) {
    CHOSEN.set(sabotage);
}

/// Whether this rule is broken.
#[cfg(feature = "simulation")]
pub fn is(sabotage: Sabotage) -> bool {
    CHOSEN.get() == Some(sabotage)
}

/// Without the feature `simulation`, no rule is broken.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn is(_: Sabotage) -> bool {
    false
}
