//! Places where a test bends the protocol, to show that the simulation finds it. Without the feature `simulation`, nothing
//! is ever bent, and nothing of this is compiled.

#[cfg(feature = "simulation")]
use std::cell::Cell;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// A promise does not fence the database first.
    PromiseWithoutFence,
    /// A primary promises and stays a primary.
    PromiseAsPrimary,
    /// Positions are compared by LSN, without their terms.
    CompareLsnAlone,
    /// A position has the newest term of the history before the WAL has reached it.
    TermBeforeWal,
    /// A restart forgets the promise.
    ForgetPromise,
    /// One promise less than a majority is enough.
    RecruitOneTooFew,
    /// A database is promoted without `Lead`.
    PromoteBeforeLead,
    /// Clients are let in before the term's first write is held.
    AdmitBeforeHeld,
    /// A voter is added before the rule of the larger set is in force.
    VoterBeforeRule,
    /// A voter is added before all that was acknowledged is held under the raised rule.
    NoBarrier,
    /// A voter is removed before all is held as those ask who are left.
    RemoveBeforeHeld,
    /// The sync rule stays as it was at the promotion.
    KeepOldRule,
    /// A primary that is no voter counts itself as a holder.
    CountOutsider,
    /// A standby counts that reconnected by itself, in a term that it has not followed.
    CountUntagged,
    /// An append is acknowledged before it is durable.
    AcknowledgeBeforeFsync,
    /// A restart forgets the vote.
    ForgetVote,
    /// The lease counts from when the answer came.
    LeaseFromReceipt,
    /// The lease holds while one voter less than a majority has promised.
    LeaseOneTooFew,
    /// A leader answers as one though its lease is over.
    LeaderWithoutLease,
    /// The lease holds while leadership is handed over.
    LeaseInHandOver,
    /// A voter votes although it has promised not to.
    VoteInSpiteOfPromise,
    /// A node that is removed votes.
    VoteWhenRemoved,
    /// The id of a removed node is given again.
    ReuseId,
    /// A standby follows a leader before it is promoted.
    FollowUnannounced,
    /// The WAL of a database that somebody else promoted counts.
    CountStrayed,
    /// A standby follows a primary whose history its WAL is no prefix of.
    FollowDiverged,
    /// One standby less holds what is acknowledged.
    OneHolderTooFew,
    /// A primary goes on serving though another led in between, and is not demoted while it has no lease.
    ResumeAfterAnother,
    /// The promise of the node that led last is enough, although it is left out of the choice.
    WholeWithoutChoice,
    /// A restart forgets that the database has to be rebuilt.
    ForgetRepair,
    /// A primary is not demoted when its lease ends.
    NeverDemote,
}

impl Sabotage {
    /// All of them.
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

/// Chooses what is bent for all nodes that run on this thread.
#[cfg(feature = "simulation")]
pub fn choose(sabotage: Option<Sabotage>) {
    CHOSEN.set(sabotage);
}

/// Whether this rule is bent.
#[cfg(feature = "simulation")]
pub fn is(sabotage: Sabotage) -> bool {
    CHOSEN.get() == Some(sabotage)
}

/// Never.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn is(_: Sabotage) -> bool {
    false
}
