//! Recruiting: asking the voters for their promises.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::env::lock::lock;
use crate::model::{Node, NodeId, Term};
use crate::protocol::choice::Promise;
use crate::raft::core::Core;
use crate::raft::transport::{PeerRequest, PeerResponse};

/// The voters that are being asked for their promises. When this is dropped, nobody is asked any longer.
pub(crate) struct Recruiting {
    asked: JoinSet<(NodeId, Promise)>,
    /// Why those that have not promised have not.
    refusals: Refusals,
}

/// How long a voter may take to stop its primary and to start it as a standby before it promises.
const FENCE_TIME: Duration = Duration::from_secs(5);

type Refusals = Arc<Mutex<BTreeMap<NodeId, String>>>;

impl Recruiting {
    /// Begins to ask `voters` for their promises to the leader-to-be of `term`, each until it gives one.
    pub(crate) fn begin<'a>(core: &Core, voters: impl Iterator<Item = &'a Node>, term: Term) -> Self {
        let refusals = Refusals::default();
        let asked = voters.map(|node| ask(core.clone(), node.clone(), term, refusals.clone())).collect();
        Self { asked, refusals }
    }

    /// The next promise; None if nobody is left to be asked.
    pub(crate) async fn next(&mut self) -> Option<(NodeId, Promise)> {
        loop {
            match self.asked.join_next().await? {
                Ok(promise) => return Some(promise),
                Err(error) => tracing::error!(%error, "recruiting a voter ended"),
            }
        }
    }

    /// The next promise, if it is there already.
    pub(crate) fn next_now(&mut self) -> Option<(NodeId, Promise)> {
        loop {
            match self.asked.try_join_next()? {
                Ok(promise) => return Some(promise),
                Err(error) => tracing::error!(%error, "recruiting a voter ended"),
            }
        }
    }

    /// Whether a voter is still being asked, or has promised and the promise was not taken yet.
    pub(crate) fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Notes why this node does not promise itself.
    pub(crate) fn refused(&self, node: NodeId, reason: String) {
        lock(&self.refusals).insert(node, reason);
    }

    /// Why those that have not promised have not, for people.
    pub(crate) fn why(&self) -> String {
        let refusals = lock(&self.refusals);
        if refusals.is_empty() {
            return "the others are being asked".into();
        }
        refusals.iter().map(|(node, reason)| format!("node {node}: {reason}")).collect::<Vec<_>>().join("; ")
    }
}

/// Asks a voter for its promise until it gives one.
async fn ask(core: Core, node: Node, term: Term, refusals: Refusals) -> (NodeId, Promise) {
    loop {
        let config = core.config();
        let limit = config.node_timeout.get().max(FENCE_TIME);
        let request = PeerRequest::Recruit { term };
        let refusal = match core.transport().call(node.id, node.api_address(), request, limit).await {
            Ok(PeerResponse::Promise(promise)) => {
                lock(&refusals).remove(&node.id);
                return (node.id, promise);
            }
            Ok(PeerResponse::Failed(reason)) => reason,
            Ok(other) => {
                tracing::warn!(node = %node.id, ?other, "an answer that does not fit the question");
                "it gave an answer that does not fit the question".into()
            }
            Err(error) => error.to_string(),
        };
        tracing::debug!(node = %node.id, refusal, "does not promise");
        lock(&refusals).insert(node.id, refusal);
        tokio::time::sleep(config.heartbeat_interval.get()).await;
    }
}
