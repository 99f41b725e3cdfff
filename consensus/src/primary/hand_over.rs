//! Leadership that goes from one node to another by the leader's own will.

use crate::model::{Node, NodeId, Term};
use crate::protocol::hand_over::{self, Answer, Candidate};
use crate::raft::core::{Core, RaftError};
use crate::raft::transport::{NodeReport, PeerRequest, PeerResponse};
use crate::raft::views::{Views, validity};

/// Transfers Raft's leadership to `target`, and waits until it is gone from here. If it has not moved within
/// `leader-voting-timeout`, this node gives its term up: the target may still take over in spite of all grants, so that
/// term no longer has a lease.
///
/// # Errors
///
/// Fails if Raft did not take the request, or leadership did not move in time.
pub(crate) async fn transfer(core: &Core, target: NodeId) -> Result<(), RaftError> {
    // In a task of its own: a caller that is cancelled half-way must not leave a leader that takes no entries.
    let transferring = core.clone();
    let transfer = tokio::spawn(async move { transfer_now(&transferring, target).await });
    transfer.await.unwrap_or_else(|error| Err(core.failed("handing leadership over", error)))
}

async fn transfer_now(core: &Core, target: NodeId) -> Result<(), RaftError> {
    let failed = |error| core.failed("handing leadership over", error);
    core.end_lease(core.raft_status().term);
    core.ready().await.trigger().transfer_leader(target).await.map_err(failed)?;
    let gone = async {
        let mut raft_changes = core.raft_status_changes();
        while core.raft_status().leader == Some(core.id()) {
            raft_changes.changed().await;
        }
    };
    let moved = tokio::time::timeout(core.config().leader_voting_timeout.get(), gone).await;
    if let Err(error) = moved {
        give_up_term(core).await?;
        return Err(core.failed("waiting for the new leader", error));
    }
    Ok(())
}

/// Gives the term that this node leads up, and stands for election again.
pub(crate) async fn give_up_term(core: &Core) -> Result<(), RaftError> {
    core.end_lease(core.raft_status().term);
    core.rebuild(false).await?;
    core.stand_at_once();
    Ok(())
}

/// Asks a node how it is at this moment; None if it does not answer.
pub(crate) async fn ask(core: &Core, node: &Node) -> Option<NodeReport> {
    let limit = core.config().node_timeout.get();
    match core.transport().call(node.id, node.api_address(), PeerRequest::Look, limit).await {
        Ok(PeerResponse::Report(report)) => Some(*report),
        // Whoever asks goes on asking, and says what it waits for.
        Ok(_) | Err(_) => None,
    }
}

/// The other voter that is fit to lead and has the furthest database, by the newest reports. If `streams_in` is given, only
/// one that streams from this node in that term counts.
pub(crate) fn best_target(core: &Core, views: &Views, streams_in: Option<Term>) -> Option<NodeId> {
    let (now, age) = (core.clock().now(), validity(core));
    let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
    let candidates = nodes.values().filter_map(|node| {
        let NodeReport { database, position, .. } = views.fresh(node.id, now, age)?;
        Some(Candidate { node, database, position })
    });
    hand_over::best_target(core.id(), candidates, streams_in)
}

/// Why an operator cannot make `node` the leader, by what it answered; None if it can.
pub(crate) fn unfit(node: &Node, report: Option<&NodeReport>, databases: bool) -> Option<String> {
    let answer = report.map_or(Answer::None, |report| Answer::Database(report.database.as_ref()));
    hand_over::unfit(node, &answer, databases)
}
