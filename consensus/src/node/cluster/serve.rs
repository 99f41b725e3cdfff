//! Requests of peers, and of this node to the leader.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Cluster, ClusterError};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Node, NodeId};
use crate::node::fitness::Ask;
use crate::node::tasks::own_report;
use crate::primary::hand_over;
use crate::primary::supervisor::{Order, chain};
use crate::raft::transport::{PeerRequest, PeerResponse};

impl Cluster {
    /// Serves a request of node `from`. The request is in line when this returns.
    pub fn serve(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'static, PeerResponse> {
        let inner = self.0.clone();
        if self.read(|state| state.was_removed(from)) {
            return Box::pin(std::future::ready(PeerResponse::Removed));
        }
        if *inner.removed.borrow() && !sabotage::is(Sabotage::VoteWhenRemoved) {
            let reason = "this node was removed from the cluster";
            return Box::pin(std::future::ready(PeerResponse::Failed(reason.into())));
        }
        Box::pin(async move {
            let core = &inner.core;
            match request {
                PeerRequest::Append(request) => core.append(request).await,
                PeerRequest::Vote(request) => core.vote(request).await,
                PeerRequest::PreVote { request, position } => {
                    let better = position.is_some_and(|theirs| {
                        inner.local.unfit().is_none() && inner.local.position().is_some_and(|mine| mine > theirs)
                    });
                    if better && !core.has_granted_lease() {
                        core.stand_at_once();
                        return core.reject();
                    }
                    core.pre_vote(request).await
                }
                PeerRequest::Transfer(request) => core.transfer(request).await,
                PeerRequest::Snapshot(chunk) => core.snapshot(chunk).await,
                PeerRequest::Recruit { term } => {
                    if let Some(reason) = inner.local.refuses(term) {
                        return PeerResponse::Failed(reason);
                    }
                    let (answer, promised) = oneshot::channel();
                    let gone = || PeerResponse::Failed("this node is stopping".into());
                    if inner.orders.send(Order::Promise(term, answer)).await.is_err() {
                        return gone();
                    }
                    promised.await.unwrap_or_else(|_| gone())
                }
                PeerRequest::Leave { actor } => changed(Cluster(inner.clone()).remove_node(from, &actor).await),
                PeerRequest::Down { reason, actor } => {
                    changed(Cluster(inner.clone()).down_node(from, &reason, &actor).await)
                }
                PeerRequest::Up => changed(Cluster(inner.clone()).bring_back(from).await),
                PeerRequest::Force { actor } => match Cluster(inner.clone()).force(&actor).await {
                    Ok(()) => PeerResponse::Done,
                    Err(reason) => PeerResponse::Failed(reason),
                },
                PeerRequest::Yield => {
                    let cluster = Cluster(inner.clone());
                    if cluster.serving_leader().is_some() {
                        return PeerResponse::Failed("it leads, and its database serves".into());
                    }
                    match hand_over::transfer(core, from).await {
                        Ok(()) => PeerResponse::Done,
                        Err(error) => PeerResponse::Failed(chain(&error)),
                    }
                }
                PeerRequest::Look => {
                    if let Some(database) = &inner.local.database {
                        database.look().await;
                    }
                    PeerResponse::Report(Box::new(own_report(core, &inner.local, &inner.views)))
                }
                PeerRequest::Report(report) => {
                    inner.views.note(*report, core.clock().now());
                    PeerResponse::Report(Box::new(own_report(core, &inner.local, &inner.views)))
                }
            }
        })
    }

    /// Asks the leader for a change of this node's own state.
    pub(super) async fn ask_leader(&self, ask: Ask) -> Result<(), String> {
        let core = &self.0.core;
        let Some(leader) = self.known_leader() else { return Err("there is no leader".into()) };
        let request = match ask {
            Ask::Down(reason) => PeerRequest::Down { reason, actor: format!("node {}", core.id()) },
            Ask::Up => PeerRequest::Up,
        };
        if leader.id == core.id() {
            return match self.serve(core.id(), request).await {
                PeerResponse::Failed(reason) | PeerResponse::Unconfirmed(reason) => Err(reason),
                _ => Ok(()),
            };
        }
        let address = SocketAddr::new(leader.ip, leader.api_port.get());
        match core.transport().call(leader.id, address, request, 2 * self.time_limit()).await {
            Ok(PeerResponse::Failed(reason) | PeerResponse::Unconfirmed(reason)) => Err(reason),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The answer to a node that asked for a change of itself.
fn changed(change: Result<Node, ClusterError>) -> PeerResponse {
    match change {
        Ok(node) => PeerResponse::Changed(Box::new(node)),
        Err(error @ ClusterError::Unconfirmed(_)) => PeerResponse::Unconfirmed(chain(&error)),
        Err(error) => PeerResponse::Failed(chain(&error)),
    }
}
