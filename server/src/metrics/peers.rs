//! The transport between nodes, measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::model::NodeId;
use qluster_consensus::raft::transport::Transport;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, TransportError};

use super::Metrics;

/// A transport whose requests are measured.
pub struct Measured {
    /// The transport that carries them.
    pub transport: Arc<dyn Transport>,
    /// The metrics that they go to.
    pub metrics: Arc<Metrics>,
}

impl Transport for Measured {
    fn call(
        &self,
        to: NodeId,
        address: SocketAddr,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let (kind, metrics, begun) = (kind(&request), self.metrics.clone(), Instant::now());
        // The request is in the queue when this returns, as the trait asks.
        let answer = self.transport.call(to, address, request, timeout);
        let measured = async move {
            let answer = answer.await;
            let failed = |reason| metrics.peer_failures.with_label_values(&[to.to_string().as_str(), reason]).inc();
            match &answer {
                Ok(_) => metrics.peer_requests.with_label_values(&[kind]).observe(begun.elapsed().as_secs_f64()),
                Err(TransportError::Unreachable { .. }) => failed("unreachable"),
                Err(TransportError::Timeout { .. }) => failed("timeout"),
            }
            answer
        };
        measured.boxed()
    }

    fn forget(&self, id: NodeId) {
        self.transport.forget(id);
    }
}

fn kind(request: &PeerRequest) -> &'static str {
    match request {
        PeerRequest::Append(_) => "append",
        PeerRequest::Vote(_) => "vote",
        PeerRequest::PreVote { .. } => "pre-vote",
        PeerRequest::Transfer(_) => "transfer",
        PeerRequest::Snapshot(_) => "snapshot",
        PeerRequest::Recruit { .. } => "recruit",
        PeerRequest::Report(_) | PeerRequest::Look => "report",
        PeerRequest::Leave { .. }
        | PeerRequest::Down { .. }
        | PeerRequest::Up
        | PeerRequest::Force { .. }
        | PeerRequest::Yield => "change",
    }
}
