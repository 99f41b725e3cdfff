//! Leadership that goes from one node to another by the leader's own will.

use crate::model::{Node, NodeId, NodeRole, NodeState, Term};
use crate::protocol::database::DatabaseRole;
use crate::raft::core::{Core, RaftError};
use crate::raft::transport::{NodeReport, PeerRequest, PeerResponse};
use crate::raft::views::{Views, validity};

/// Transfers Raft's leadership to `target`, and waits until it is gone from here. Where it has not moved in time, this
/// node gives its term up: the target may still take over in spite of all promises, so that term has no lease any more.
pub(crate) async fn transfer(core: &Core, target: NodeId) -> Result<(), RaftError> {
    // A task of its own: a caller that is cancelled half-way must not leave a leader that takes no more entries.
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

/// Asks a node how it is at this moment.
pub(crate) async fn ask(core: &Core, node: &Node) -> Option<NodeReport> {
    let patience = core.config().node_timeout.get();
    match core.transport().call(node.id, node.api_address(), PeerRequest::Look, patience).await {
        Ok(PeerResponse::Report(report)) => Some(*report),
        // Whoever asks goes on asking, and says what it waits for.
        Ok(_) | Err(_) => None,
    }
}

/// Why `node` is not fit to lead, by its newest report; none where it is.
pub(crate) fn unfit(node: &Node, report: Option<&NodeReport>, databases: bool) -> Option<String> {
    let id = node.id;
    if node.role != NodeRole::Voter {
        return Some(format!("node {id} is a {}, which never leads", node.role));
    }
    if node.state == NodeState::Down {
        return Some(format!("node {id} was declared down: {}", node.reason.as_deref().unwrap_or("no reason given")));
    }
    let Some(report) = report else { return Some(format!("node {id} does not answer")) };
    if !databases {
        return None;
    }
    let Some(status) = &report.database else { return Some(format!("node {id} has no database")) };
    if let Some(reason) = &status.unfit {
        return Some(format!("the database of node {id} is not fit: {reason}"));
    }
    if status.role != DatabaseRole::Standby {
        return Some(format!("the database of node {id} is {}", status.role));
    }
    (!status.streaming).then(|| format!("the database of node {id} does not stream"))
}

/// The other voter that is fit to lead and whose database is the furthest; of those that stream from this node's in
/// the term `streams_in`, where that is given.
pub(crate) fn best_target(core: &Core, views: &Views, streams_in: Option<Term>) -> Option<NodeId> {
    let (now, age) = (core.clock().now(), validity(core));
    let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
    let fit = nodes.values().filter(|node| node.id != core.id()).filter_map(|node| {
        let report = views.fresh(node.id, now, age)?;
        let status = report.database.as_ref();
        let database_fit = status.is_none_or(|status| status.role == DatabaseRole::Standby && status.unfit.is_none())
            && streams_in.is_none_or(|term| status.is_some_and(|status| status.streams_from(core.id(), term)));
        let fit = node.role == NodeRole::Voter && node.votes() && database_fit;
        fit.then_some((report.position, node.id))
    });
    fit.max().map(|(_, node)| node)
}
