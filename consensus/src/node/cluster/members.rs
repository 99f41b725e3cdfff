//! Changes of settings and members.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Cluster, ClusterError, internal};
use crate::model::{Config, ConfigUpdate, Node, NodeId, NodeRole, Port};
use crate::node::leader;
use crate::primary::hand_over;
use crate::protocol::command::{Change, Outcome};
use crate::protocol::database::DatabaseRole;
use crate::protocol::membership::majority_without;
use crate::protocol::quorum::log_holders;
use crate::raft::propose::{ProposeError, Reason, propose};
use crate::raft::transport::{NodeReport, PeerRequest, PeerResponse};

/// How many bytes of WAL a standby may lack when its node is enrolled: it gets as much in a moment.
const CAUGHT_UP_WAL_BYTES: u64 = 64 << 20;

impl Cluster {
    /// Changes settings, and returns all of them.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Invalid`] if a setting breaks a rule; else as [`Cluster::add_node`].
    pub async fn set_config(&self, update: ConfigUpdate, actor: &str) -> Result<Config, ClusterError> {
        // Before it is asked who leads: what is malformed is so at every node.
        let voters = self.read(|state| state.voters().count());
        self.check_member()?;
        self.config()?.updated(&update, voters).map_err(ClusterError::Invalid)?;
        self.authority().await?;
        if update == ConfigUpdate::default() {
            return self.config();
        }
        let cause = format!("settings changed: {}", given(&update));
        self.change(Change::SetConfig(update), Reason::new(actor, cause)).await?;
        self.config()
    }

    /// Adds a node, as a listener that is enrolled as a `role` later.
    ///
    /// # Errors
    ///
    /// - [`ClusterError::NotLeader`] or [`ClusterError::NoLeader`] if this node does not lead;
    /// - [`ClusterError::Precondition`] or [`ClusterError::Invalid`] if the cluster or the node is not in a state that allows
    ///   the change;
    /// - [`ClusterError::Superseded`] if leadership moved on, and nothing was applied;
    /// - [`ClusterError::Unconfirmed`] if it was not confirmed in time: it may have taken effect, or still do.
    pub async fn add_node(
        &self,
        ip: IpAddr,
        api_port: Port,
        role: NodeRole,
        actor: &str,
    ) -> Result<Node, ClusterError> {
        self.authority().await?;
        // A host that asks again and again, as one may that has lost its disks, must not fill the log.
        let taken = self.read(|state| state.taken(ip, api_port));
        if let Some(reason) = taken {
            return Err(ClusterError::Precondition(reason));
        }
        let reason = Reason::new(actor, format!("added to become a {role}"));
        let node = self.change_node(Change::AddNode { ip, api_port, role }, reason).await?;
        self.member_once(&node, |node, members, _| members.contains(&node)).await?;
        Ok(node)
    }

    /// Enrolls a listener in its role, or brings a node back that was declared down. Both ports are those of the node.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Precondition`] if it does not answer, or is not caught up; else as [`Cluster::add_node`].
    pub async fn upgrade_node(
        &self,
        id: NodeId,
        db_port: Port,
        api_port: Port,
        actor: &str,
    ) -> Result<Node, ClusterError> {
        self.authority().await?;
        let node = self.member(id)?;
        let report = self.fresh_report(id);
        self.check_upgrade(&node, report.as_ref())?;
        let role = node.upgrade_to;
        let reason = Reason::new(actor, format!("enrolled as a {role}"));
        let node = self.change_node(Change::UpgradeNode { node: id, db_port, api_port }, reason).await?;
        self.member_once(&node, |node, _, voters| voters.contains(&node) == role.votes()).await?;
        Ok(node)
    }

    /// Brings a node back that was declared down, with the ports that it had.
    pub(super) async fn bring_back(&self, id: NodeId) -> Result<Node, ClusterError> {
        let node = self.member(id)?;
        let db_port = node.db_port.unwrap_or(node.api_port);
        self.upgrade_node(id, db_port, node.api_port, &format!("node {id}")).await
    }

    /// Declares a node down, for `reason`: it has no vote until it is brought back.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Precondition`] if the other voters that answer would be no majority; else as [`Cluster::add_node`].
    pub async fn down_node(&self, id: NodeId, reason: &str, actor: &str) -> Result<Node, ClusterError> {
        self.authority().await?;
        self.check_rest(id)?;
        if id == self.0.identity.node {
            return self.leave(PeerRequest::Down { reason: reason.into(), actor: actor.into() }).await;
        }
        let reason = Reason::new(actor, reason);
        let node = self.change_node(Change::DownNode { node: id }, reason).await?;
        self.member_once(&node, |node, _, voters| !voters.contains(&node)).await?;
        Ok(node)
    }

    /// Removes a node for good. A voter is declared down first.
    ///
    /// # Errors
    ///
    /// As [`Cluster::down_node`].
    pub async fn remove_node(&self, id: NodeId, actor: &str) -> Result<Node, ClusterError> {
        self.authority().await?;
        self.check_rest(id)?;
        if id == self.0.identity.node {
            return self.leave(PeerRequest::Leave { actor: actor.into() }).await;
        }
        let mut node = self.member(id)?;
        if node.votes() {
            // Its vote goes first: it stops as soon as it learns that it is removed.
            let reason = Reason::new(actor, "declared down, to be removed");
            node = self.change_node(Change::DownNode { node: id }, reason).await?;
        }
        self.member_once(&node, |node, _, voters| !voters.contains(&node)).await?;
        let node = self.change_node(Change::RemoveNode { node: id }, Reason::new(actor, "removed")).await?;
        self.member_once(&node, |node, members, _| !members.contains(&node)).await?;
        Ok(node)
    }

    /// Writes a change, and waits until as many voters hold it as the replication factor says. Returns the node that it
    /// concerned, if it did one.
    pub(super) async fn change(&self, change: Change, reason: Reason) -> Result<Option<Node>, ClusterError> {
        self.authority().await?;
        let core = &self.0.core;
        let patience = self.time_limit();
        let deadline = tokio::time::Instant::now() + patience;
        let outcome = match propose(core, change, reason, patience).await {
            Ok(outcome) => outcome,
            Err(ProposeError::NotLeader) => {
                self.is_leader()?;
                return Err(ClusterError::Superseded);
            }
            Err(ProposeError::Superseded) => return Err(ClusterError::Superseded),
            Err(error @ ProposeError::Unconfirmed(_)) => return Err(ClusterError::Unconfirmed(error.to_string())),
        };
        let changed = match outcome {
            Outcome::Refused(reason) => return Err(ClusterError::Precondition(reason)),
            Outcome::Invalid(reason) => return Err(ClusterError::Invalid(reason)),
            Outcome::Node(node) => Some(*node),
            Outcome::Done => None,
        };
        let config = core.config();
        let voters = self.read(|state| state.voters().count());
        let needed = log_holders(&config, voters);
        let index = core.state_machine().progress().borrow().index;
        tokio::time::timeout_at(deadline, core.held_by(index, needed)).await.map_err(|_| {
            ClusterError::Unconfirmed(format!(
                "the change is applied, but within {patience:?} fewer than {needed} voters held it, which \
                 replication-factor asks for"
            ))
        })?;
        Ok(changed)
    }

    /// Writes a change of a node, and returns the node as it is then.
    async fn change_node(&self, change: Change, reason: Reason) -> Result<Node, ClusterError> {
        let node = self.change(change, reason).await?;
        node.ok_or_else(|| internal("changing a node")(std::io::Error::other("the change concerned no node")))
    }

    /// Waits until Raft's membership is as `goal` says of the node, its members and voters.
    async fn member_once(
        &self,
        node: &Node,
        goal: impl Fn(NodeId, &BTreeSet<NodeId>, &BTreeSet<NodeId>) -> bool,
    ) -> Result<(), ClusterError> {
        let core = &self.0.core;
        let reached = async {
            let mut raft_changes = core.raft_status_changes();
            loop {
                let (members, voters) = core.membership();
                if voters.len() == 1 && goal(node.id, &members, &voters[0]) {
                    return;
                }
                // A committed membership is visible a little after its entry is applied.
                let _ = tokio::time::timeout(Duration::from_millis(10), raft_changes.changed()).await;
            }
        };
        tokio::time::timeout(self.time_limit(), reached).await.map_err(|_| {
            ClusterError::Unconfirmed(format!(
                "the change of node {} is written, but the members have not taken it over within {:?}",
                node.id,
                self.time_limit()
            ))
        })
    }

    fn check_upgrade(&self, node: &Node, report: Option<&NodeReport>) -> Result<(), ClusterError> {
        let refused = |reason: String| Err(ClusterError::Precondition(reason));
        let id = node.id;
        if id == self.0.identity.node {
            return Ok(());
        }
        let Some(report) = report else { return refused(format!("node {id} does not answer")) };
        let applied = self.0.core.state_machine().progress().borrow().index;
        if report.applied.0 + leader::CAUGHT_UP_ENTRIES < applied.0 {
            return refused(format!(
                "node {id} is not caught up: it has applied {}, and the leader {applied}",
                report.applied
            ));
        }
        if !node.upgrade_to.has_database() || self.0.local.database.is_none() {
            return Ok(());
        }
        let Some(status) = &report.database else { return refused(format!("node {id} has no database")) };
        if status.role != DatabaseRole::Standby || !status.streaming {
            let progress = status.progress.map(|percent| format!(", {percent} %")).unwrap_or_default();
            return refused(format!("the database of node {id} does not stream: it is {}{progress}", status.role));
        }
        if let Some(reason) = &status.unfit {
            return refused(format!("the database of node {id} is not fit: {reason}"));
        }
        // Commits would wait until it is caught up.
        let primary = self.0.local.status().and_then(|status| status.lsn);
        match (primary, status.lsn) {
            (Some(primary), Some(standby)) if primary.0.saturating_sub(standby.0) <= CAUGHT_UP_WAL_BYTES => Ok(()),
            (Some(primary), Some(standby)) => refused(format!(
                "the database of node {id} is not caught up: it is at {standby}, and the primary at {primary}"
            )),
            _ => refused(format!("it is not known yet how far the database of node {id} is")),
        }
    }

    /// Whether the cluster goes on without the vote of node `id`.
    fn check_rest(&self, id: NodeId) -> Result<(), ClusterError> {
        let node = self.member(id)?;
        let nodes = self.read(|state| state.nodes.clone());
        if node.votes() && !majority_without(&nodes, id) {
            return Err(ClusterError::Precondition(format!(
                "without node {id} the voters that answer would be no majority"
            )));
        }
        Ok(())
    }

    /// Hands leadership over, since this leader is to lose its vote, and sends `request` to its successor.
    async fn leave(&self, request: PeerRequest) -> Result<Node, ClusterError> {
        let inner = &self.0;
        let remove = matches!(request, PeerRequest::Leave { .. });
        let none =
            || ClusterError::Precondition("this node leads, and no other voter is fit to take over from it".into());
        let streams_in = inner.local.database.is_some().then(|| inner.core.raft_status().term);
        let target = hand_over::best_target(&inner.core, &inner.views, streams_in).ok_or_else(none)?;
        let leader = self.switch_over(target, "the cluster").await?;
        let address = SocketAddr::new(leader.ip, leader.api_port.get());
        let unconfirmed = |reason: String| {
            ClusterError::Unconfirmed(format!(
                "node {} leads now, and this node asked it to be let go: {reason}",
                leader.id
            ))
        };
        match inner.core.transport().call(leader.id, address, request, 2 * self.time_limit()).await {
            Ok(PeerResponse::Changed(node)) => Ok(*node),
            // It was removed before the answer came.
            Ok(PeerResponse::Removed) if remove => self.member(inner.identity.node),
            Ok(PeerResponse::Failed(reason)) => Err(ClusterError::Precondition(reason)),
            Ok(PeerResponse::Unconfirmed(reason)) => Err(unconfirmed(reason)),
            Ok(other) => Err(unconfirmed(format!("{other:?}"))),
            Err(error) => Err(unconfirmed(error.to_string())),
        }
    }
}

/// The settings that are given, as text.
fn given(update: &ConfigUpdate) -> String {
    let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(update) else { return String::new() };
    let given = settings.iter().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}
