//! Changes of the leader by hand.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Cluster, ClusterError};
use crate::model::{Leader, Node, NodeId, NodeRole};
use crate::primary::hand_over;
use crate::primary::supervisor::Order;
use crate::protocol::state::State;
use crate::raft::transport::{PeerRequest, PeerResponse};

/// How often a node is asked whether it is fit.
const FITNESS_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the database of a node that leads by an operator's override may take to come up as a standby.
const FENCE_TIME: Duration = Duration::from_secs(20);

impl Cluster {
    /// Makes `target` the leader, and returns it once it leads. `actor` is who wants that, for the log.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotLeader`] or [`ClusterError::NoLeader`] if this node does not lead; [`ClusterError::Precondition`] if
    /// the target is not fit or could not take over; [`ClusterError::Unavailable`] if this node is stopping.
    pub async fn switch_over(&self, target: NodeId, actor: &str) -> Result<Leader, ClusterError> {
        let leader = self.authority().await?;
        if leader.id == target {
            return Ok(leader);
        }
        let node = self.member(target)?;
        self.fit_to_lead(&node).await?;
        let Ok(_one) = self.0.switchover.try_lock() else {
            return Err(ClusterError::Precondition("another change of the leader is under way".into()));
        };
        tracing::info!(%target, actor, "leadership is handed over");
        let (answer, handed_over) = oneshot::channel();
        let gone = || ClusterError::Unavailable("this node is stopping".into());
        self.0.orders.send(Order::HandOver(target, answer)).await.map_err(|_| gone())?;
        handed_over
            .await
            .map_err(|_| gone())?
            .map_err(|reason| ClusterError::Precondition(format!("node {target} could not take over: {reason}")))?;
        let config = self.0.core.config();
        // The new leader fences, promotes and announces itself. If it cannot, another election follows.
        let patience = config.node_timeout.get() * 2 + config.leader_voting_timeout.get() * 2;
        let announced = |state: &State| state.lead.is_some_and(|lead| lead.term > leader.term);
        self.wait_for(patience, announced).await?;
        match self.leader()? {
            now if now.id == target => Ok(now),
            other => Err(ClusterError::Precondition(format!(
                "node {target} could not take over: node {} leads instead",
                other.id
            ))),
        }
    }

    /// Waits up to `leader-voting-timeout` until a node is fit to lead: it may just have begun to follow.
    async fn fit_to_lead(&self, node: &Node) -> Result<(), ClusterError> {
        let core = &self.0.core;
        let databases = self.0.local.database.is_some();
        let deadline = core.clock().now() + core.config().leader_voting_timeout.get();
        loop {
            let report = hand_over::ask(core, node).await;
            let Some(reason) = hand_over::unfit(node, report.as_ref(), databases) else { return Ok(()) };
            if !node.votes() || node.role != NodeRole::Voter || core.clock().now() >= deadline {
                return Err(ClusterError::Precondition(reason));
            }
            tokio::time::sleep(FITNESS_POLL_INTERVAL).await;
        }
    }

    /// Makes `target` the leader although acknowledged commits may be lost by it. It is for a cluster that nobody can lead
    /// otherwise, since the nodes that may have more are gone or not fit. This is the one operation that can lose data, and
    /// is refused while a leader's database serves.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Precondition`] if that is so, or the target cannot lead; [`ClusterError::NoLeader`] if nobody leads after
    /// a while.
    pub async fn lead_with_loss(&self, target: NodeId, actor: &str) -> Result<Leader, ClusterError> {
        self.check_member()?;
        let node = self.member(target)?;
        if node.role != NodeRole::Voter || !node.votes() {
            return Err(ClusterError::Precondition(format!(
                "node {target} is a {} that is {}: only a voter that is up can lead",
                node.role, node.state
            )));
        }
        if let Some(leader) = self.serving_leader() {
            return Err(ClusterError::Precondition(format!(
                "node {leader} leads, and its database serves, so no commit has to be given up: ask for the change of \
                 the leader without accept-data-loss"
            )));
        }
        let before = self.read(|state| state.lead.map(|lead| lead.term));
        tracing::warn!(%target, actor, "is to lead although commits may be lost");
        let request = PeerRequest::Force { actor: actor.to_owned() };
        let refused = |reason: String| ClusterError::Precondition(format!("node {target} cannot lead: {reason}"));
        if target == self.0.identity.node {
            self.force(actor).await.map_err(refused)?;
        } else {
            match self.0.core.transport().call(target, node.api_address(), request, self.time_limit()).await {
                Ok(PeerResponse::Done) => {}
                Ok(PeerResponse::Failed(reason)) => return Err(refused(reason)),
                Ok(other) => return Err(refused(format!("it answered {other:?}"))),
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        let led = |state: &State| state.lead.is_some_and(|lead| lead.node == target && Some(lead.term) > before);
        self.wait_for(2 * self.time_limit() + FENCE_TIME, led).await?;
        match self.leader()? {
            leader if leader.id == target => Ok(leader),
            other => Err(refused(format!("node {} leads instead", other.id))),
        }
    }

    /// The leader whose database was promoted, if this node knows of one.
    pub(super) fn serving_leader(&self) -> Option<NodeId> {
        let promoted = self.read(|state| state.promoted.as_ref().map(|promoted| promoted.term));
        self.known_leader().filter(|leader| promoted == Some(leader.term)).map(|leader| leader.id)
    }

    /// Takes an operator's word that this node may lead, and has it elected.
    pub(super) async fn force(&self, actor: &str) -> Result<(), String> {
        if let Some(leader) = self.serving_leader() {
            return Err(format!("node {leader} leads, and its database serves"));
        }
        let (answer, taken) = oneshot::channel();
        let gone = || "it is stopping".to_owned();
        self.0.orders.send(Order::Force(actor.to_owned(), answer)).await.map_err(|_| gone())?;
        taken.await.map_err(|_| gone())??;
        let core = &self.0.core;
        let me = core.id();
        let Some(elected) = core.raft_status().leader.filter(|&elected| elected != me) else {
            core.stand_at_once();
            return Ok(());
        };
        let Ok(elected) = self.member(elected) else { return Ok(()) };
        match core.transport().call(elected.id, elected.api_address(), PeerRequest::Yield, self.time_limit()).await {
            Ok(PeerResponse::Failed(reason)) => Err(format!("node {} was elected: {reason}", elected.id)),
            // If it is gone, an election follows. The operator can ask the winner again.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
