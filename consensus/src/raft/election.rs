//! Standing for election, by the three time-outs of the settings.
//!
//! One loop: seek a leader (`node-timeout`, plus up to half as much again at random, so that two nodes seldom stand at
//! once) → pre-vote (`pre-voting-timeout`) → vote (`leader-voting-timeout`) → back to the pre-vote until there is a
//! leader. A pre-vote asks whether an election could be won and changes nothing (Raft dissertation, section 9.6), so a
//! node that was cut off does not unseat a leader when it comes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::{NodeId, Term, WalPosition};
use crate::raft::core::Core;

/// What a node brings to an election.
pub(crate) struct Candidacy {
    /// How far its database is.
    pub(crate) position: Option<WalPosition>,
    /// Whether it should be elected only where nobody else stands: its database is not fit, or it has none.
    pub(crate) last: bool,
}

/// Stands for election whenever there is no leader; ends never.
///
/// `now` makes the node stand at once: it has just given a leadership up that nobody could take over, or it was asked
/// for a pre-vote by a node with a worse database.
pub(crate) async fn run(core: Core, candidacy: impl Fn() -> Candidacy, now: Arc<Notify>) {
    // A leader that was only restarted is elected again at once: the others may vote for it, and for no other yet. Where
    // another was elected meanwhile, the pre-vote tells so, and does not unseat it.
    while core.led_before() && core.votes_for_itself() && may_stand(&core) {
        let config = core.config();
        // Where the core has ended, there is nothing to stand for.
        let stands = core.ready().await.trigger().elect(true).await.is_ok();
        // The core may have been rebuilt meanwhile, for settings that only the log has told.
        let elected = reached(&core, |_, leader, _| leader.is_some().then_some(()));
        let elected = tokio::time::timeout(config.heartbeat_interval.get(), elected).await.is_ok();
        if !stands || elected || core.clock().now() >= core.started() + config.node_timeout.get() {
            break;
        }
    }
    loop {
        seek(&core, candidacy().last, &now).await;
        let mut position = candidacy().position;
        while may_stand(&core) && !core.has_granted_lease() {
            let term = core.raft_status().term;
            core.stand_with(position.take());
            if pre_vote(&core, term).await && vote(&core).await {
                break;
            }
            // Two candidates that took each other's votes must not meet again.
            tokio::time::sleep(core.config().node_timeout.get().mul_f64(core.random().in_range(0.0..0.25))).await;
        }
        core.stand_with(None);
    }
}

/// Returns when no leader was heard for the node time-out and this node may stand.
async fn seek(core: &Core, last: bool, now: &Notify) {
    let mut heard = core.heard();
    let mut status_changes = core.raft_status_changes();
    // Half a time-out is the spread; those who stand last begin where it ends. It does not begin at once: the others may
    // have heard the leader a little later, and a pre-vote before their lease grants end costs a whole round.
    let share = core.random().in_range(0.05..0.5) + if last { 0.5 } else { 0.0 };
    let mut led = core.started();
    loop {
        let timeout = core.config().node_timeout.get();
        if core.raft_status().leader == Some(core.id()) {
            led = core.clock().now();
        }
        let alone = core.voters().iter().all(|voters| voters.len() == 1 && voters.contains(&core.id()));
        let last_heard = heard.borrow_and_update().map_or(led, |heard| heard.at.max(led));
        let stand_at = if alone { last_heard } else { last_heard + timeout.mul_f64(1.0 + share) };
        let remaining = stand_at.saturating_sub(core.clock().now());
        let ready = may_stand(core) && !core.has_granted_lease();
        if remaining.is_zero() && ready {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(remaining), if !remaining.is_zero() => {}
            _ = heard.changed() => {}
            () = status_changes.changed() => {}
            // Where it may not stand now, its own time-out or its peers' tells when.
            () = now.notified() => if may_stand(core) && !core.has_granted_lease() { return },
            () = tokio::time::sleep(timeout) => {}
        }
    }
}

/// Whether this node has a vote, its consensus runs, and it does not lead already.
///
/// A node whose vote is being taken has it until that is committed, too: the leader may have told it of the change, and
/// have lost it with its own disk. Then nobody can be elected but the node that still has it in its log.
fn may_stand(core: &Core) -> bool {
    let status = core.raft_status();
    let votes = |configs: Vec<BTreeSet<NodeId>>| configs.iter().any(|voters| voters.contains(&core.id()));
    status.stopped.is_none() && status.leader != Some(core.id()) && (votes(core.voters()) || votes(core.membership().1))
}

/// Asks for a pre-vote in a term after `term`. Whether it was won: openraft goes on to the vote by itself then.
async fn pre_vote(core: &Core, term: Term) -> bool {
    let raft = core.ready().await;
    if raft.trigger().elect(true).await.is_err() {
        return false;
    }
    let won = reached(core, |term_now, leader, candidate| {
        (term_now > term && (candidate || leader == Some(core.id())))
            .then_some(true)
            .or((leader.is_some() && term_now > term).then_some(false))
    });
    tokio::time::timeout(core.config().pre_voting_timeout.get(), won).await.unwrap_or(false)
}

/// Waits for the outcome of a vote. Whether there is a leader now.
async fn vote(core: &Core) -> bool {
    let elected = reached(core, |_, leader, _| leader.is_some().then_some(()));
    tokio::time::timeout(core.config().leader_voting_timeout.get(), elected).await.is_ok()
}

/// Waits until `goal` tells something of the term, its leader, and whether this node stands in it.
async fn reached<T>(core: &Core, goal: impl Fn(Term, Option<NodeId>, bool) -> Option<T>) -> T {
    let mut status_changes = core.raft_status_changes();
    loop {
        let status = core.raft_status();
        if let Some(reached) = goal(status.term, status.leader, status.candidate) {
            return reached;
        }
        status_changes.changed().await;
    }
}
