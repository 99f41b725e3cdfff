//! The node as the handlers see it: its parts, and how they ask for one that may not be there yet.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use qluster_consensus::model::{Bytes, ErrorCode, Event, LogIndex, NodeId, NodeStatus, Port, ReadonlyStatements};
use qluster_consensus::node::cluster::{Cluster, ClusterError};
use qluster_consensus::protocol::version::Spoken;
use qluster_consensus::raft::store::Identity;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse};

use super::check::{self, Check, Seen};
use super::etag::Tag;
use super::status::ApiError;
use crate::database::{DbConfig, Postgres};
use crate::metrics::Metrics;
use crate::peer::PeerLog;
use crate::report;
use crate::security::Security;

/// The parts of the node. Those that are not there from the beginning are set once.
pub struct Context {
    /// Whether the node is part of a cluster, once that is known.
    pub member: OnceLock<bool>,
    /// The node's part in its cluster, once it has started.
    pub cluster: OnceLock<Cluster>,
    /// The node's database, once it is known, if the node has one.
    pub database: OnceLock<Arc<Postgres>>,
    /// What became of the connections to other nodes.
    pub peers: Arc<PeerLog>,
    /// The metrics of this node.
    pub metrics: Arc<Metrics>,
    /// The protocol versions that this node speaks with others.
    pub versions: Spoken,
    /// The port of this node's API. A node that is added without a port is expected at the same one.
    pub api_port: Port,
    /// Who may do what.
    pub security: Arc<Security>,
}

/// The context of a request.
pub type Shared = Arc<Context>;

/// How one version of a list is called, and the list; None if the caller has that version.
pub(crate) type TaggedStatements = (String, Option<ReadonlyStatements>);

impl Context {
    /// The node's part in its cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unavailable`] while the node is starting, [`ErrorCode::PreconditionFailed`] if it is not part of a
    /// cluster.
    pub fn cluster(&self) -> Result<&Cluster, ApiError> {
        self.cluster.get().ok_or_else(|| {
            if self.member.get() != Some(&false) {
                return ApiError::new(ErrorCode::Unavailable, "this node is starting");
            }
            let reason = "this node is not part of a cluster yet: bootstrap one, or join one";
            ApiError::new(ErrorCode::PreconditionFailed, reason)
        })
    }

    /// The settings of the running database of this node.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::PreconditionFailed`] if the node has no database, [`ErrorCode::Unavailable`] if that does not answer.
    pub async fn database_settings(&self) -> Result<DbConfig, ApiError> {
        self.cluster()?;
        let none = || ApiError::new(ErrorCode::PreconditionFailed, "this node manages no database");
        let settings = self.database.get().ok_or_else(none)?.settings().await;
        settings.map_err(|error| {
            let reason = report::chain(&error);
            ApiError::new(ErrorCode::Unavailable, format!("the database of this node does not answer: {reason}"))
        })
    }

    /// Cluster events, oldest first: none before the node is part of a cluster.
    pub async fn events(&self, after: Option<LogIndex>, limit: u32, wait: Duration) -> Vec<Event> {
        match self.cluster.get() {
            Some(cluster) => cluster.events(after, limit as usize, wait).await,
            None => Vec::new(),
        }
    }

    /// The statements that do not write, unless the caller has that list according to its header `if-none-match`. Waits
    /// up to `wait` for another list than that.
    ///
    /// # Errors
    ///
    /// The node is not part of a cluster, or the cluster has no list.
    pub(crate) async fn readonly(&self, if_none_match: &str, wait: Duration) -> Result<TaggedStatements, ApiError> {
        let cluster = self.cluster()?;
        let tag = Tag::of(cluster.identity().cluster);
        let (generation, statements) = match tag.generation(if_none_match) {
            Some(known) if !wait.is_zero() => cluster.readonly_after(known, wait).await?,
            known => cluster.readonly(known)?,
        };
        Ok((tag.text(generation), statements))
    }

    /// The status of this node if it meets a load balancer's check, for a standby within `lag`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotServing`], also if the node is not part of a cluster yet.
    pub fn check(&self, check: Check, lag: Option<Bytes>) -> Result<NodeStatus, ApiError> {
        let cluster = self.cluster().map_err(|error| unmet(error.body().message.clone()))?;
        let status = own_status(cluster).map_err(|error| unmet(report::chain(&error)))?;
        let leader = cluster.leader().map_err(|error| report::chain(&error));
        let seen = Seen { leader, node: cluster.own_node(), admits: cluster.admits(), status };
        check::judge(check, lag, &seen).map_err(|reason| unmet(reason).with_leader(seen.leader.ok()))?;
        // The lease may have ended meanwhile, and another node may have been promoted.
        if check == Check::Primary {
            cluster.is_leader().map_err(|error| unmet(report::chain(&error)))?;
        }
        Ok(seen.status)
    }

    /// The status of this node if it is alive; None while there is nothing to say of it: it is starting, or was removed
    /// from its cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotServing`] if its consensus has stopped.
    pub fn alive(&self) -> Result<Option<NodeStatus>, ApiError> {
        match self.cluster.get().map(own_status) {
            None => Ok(None),
            Some(Err(error @ ClusterError::Unavailable(_))) => Err(unmet(report::chain(&error))),
            Some(status) => Ok(status.ok()),
        }
    }

    /// This node and its cluster; None if it is not part of one.
    pub fn identity(&self) -> Option<Identity> {
        self.cluster.get().map(Cluster::identity)
    }

    /// Answers a request of another node.
    pub(crate) fn serve(
        &self,
        from: NodeId,
        request: PeerRequest,
    ) -> futures::future::BoxFuture<'static, PeerResponse> {
        match self.cluster.get() {
            Some(cluster) => cluster.serve(from, request),
            None => {
                let refused = PeerResponse::Failed("this node is not part of a cluster".into());
                Box::pin(std::future::ready(refused))
            }
        }
    }
}

fn own_status(cluster: &Cluster) -> Result<NodeStatus, ClusterError> {
    let mut status = cluster.status()?;
    let gone = || ClusterError::Unavailable("this node has no status of its own".into());
    status.nodes.remove(&status.node).ok_or_else(gone)
}

/// That a check is not met, and why.
fn unmet(reason: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::NotServing, reason)
}
