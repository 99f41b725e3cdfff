//! Standing for election, by the three timeouts of the settings.
//!
//! It is one loop:
//!
//! 1. Wait until no leader was heard for `node-timeout`, plus up to half as much at random, so that two nodes seldom
//!    stand at once.
//! 2. Ask for pre-votes, for at most `pre-voting-timeout`. A pre-vote asks whether an election could be won, and changes
//!    nothing (Raft dissertation, section 9.6). So a node that was cut off does not unseat a leader when it comes back.
//! 3. Ask for votes, for at most `leader-voting-timeout`. If there is no leader then, go back to the pre-votes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::{NodeId, Term, WalPosition};
use crate::raft::core::Core;

/// What a node brings to an election.
pub(crate) struct Candidacy {
    /// How far the node's database is.
    pub(crate) position: Option<WalPosition>,
    /// Whether it should be elected only if nobody else stands: its database is not fit, or it has none.
    pub(crate) last: bool,
}

/// Stands for election whenever there is no leader, and never ends.
///
/// `now` makes the node stand at once: it has just given up a lead that nobody could take over, or a node with a worse
/// database asked it for a pre-vote.
pub(crate) async fn run(core: Core, candidacy: impl Fn() -> Candidacy, now: Arc<Notify>) {
    // A leader that was only restarted is elected again at once: the others may vote for it, and for nobody else yet. If
    // another was elected meanwhile, the pre-vote fails, and does not unseat it.
    while core.led_before() && core.votes_for_itself() && may_stand(&core) {
        let config = core.config();
        // If the core has ended, there is nothing to stand for.
        let stands = core.ready().await.trigger().elect(true).await.is_ok();
        // The core may have been rebuilt meanwhile, for settings that were only in the log.
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

/// Returns when no leader was heard for `node-timeout` and this node may stand. `last` makes it wait longer than others.
async fn seek(core: &Core, last: bool, now: &Notify) {
    let mut heard = core.heard();
    let mut status_changes = core.raft_status_changes();
    // The times are spread over half a timeout. Those who stand last begin after that. Nobody begins at once: the others may
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
            // If it may not stand now, it stands after its own timeout, or when its peers ask again.
            () = now.notified() => if may_stand(core) && !core.has_granted_lease() { return },
            () = tokio::time::sleep(timeout) => {}
        }
    }
}

/// Whether this node has a vote, its consensus runs, and it does not lead already.
///
/// A node whose vote is taken keeps it until the change is committed. The leader may have sent it the change, and then
/// have lost the change with its own disk. Then only the node that still has the change in its log can be elected.
fn may_stand(core: &Core) -> bool {
    let status = core.raft_status();
    let votes = |configs: Vec<BTreeSet<NodeId>>| configs.iter().any(|voters| voters.contains(&core.id()));
    status.stopped.is_none() && status.leader != Some(core.id()) && (votes(core.voters()) || votes(core.membership().1))
}

/// Asks for pre-votes for a term after `term`. Returns whether they were won: then openraft asks for votes by itself.
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

/// Waits for the outcome of a vote. Returns whether there is a leader now.
async fn vote(core: &Core) -> bool {
    let elected = reached(core, |_, leader, _| leader.is_some().then_some(()));
    tokio::time::timeout(core.config().leader_voting_timeout.get(), elected).await.is_ok()
}

/// Waits until `goal` returns something for the term, its leader, and whether this node stands in it.
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
