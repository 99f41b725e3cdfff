//! The operations that change the cluster.

use std::net::IpAddr;
use std::time::Duration;

use super::ClusterClient;
use super::asking::{SWITCH_OVER, attempt};
use super::nodes::{address_of, beside};
use crate::Error;
use crate::error::AfterChange;
use crate::generated;
use crate::model::{Config, ConfigUpdate, Leader, Node, NodeId, NodeRole, Port};

impl ClusterClient {
    /// Changes the settings that `update` has. Returns all settings.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors); [`Error::Refused`] if a setting is not valid.
    pub async fn update_config(&self, update: &ConfigUpdate) -> Result<Config, Error> {
        self.change("POST /config", |node| async move { node.config_post().body(update.clone()).send().await }).await
    }

    /// Hands the leadership over to `node`, as planned: a switchover. Returns once `node` leads.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors); [`Error::Refused`] if `node` is not fit to lead.
    pub async fn switch_over(&self, node: NodeId) -> Result<Leader, Error> {
        let target = node;
        let leader =
            self.change(SWITCH_OVER, |node| async move { node.leader_post().node(target).send().await }).await?;
        let mut nodes = self.nodes();
        nodes.leader = nodes.leader.take().map(|old| address_of(&leader, &old));
        drop(nodes);
        Ok(leader)
    }

    /// Makes `node` the leader although acknowledged commits may be lost. Use it only if nobody can lead otherwise.
    /// Asks `node` itself, once.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors); [`Error::Refused`] if another node can lead.
    pub async fn switch_over_with_loss(&self, node: NodeId) -> Result<Leader, Error> {
        let operation = SWITCH_OVER;
        let (map, teller) =
            self.read("GET /map", Duration::ZERO, |node| async move { node.map().send().await }).await?;
        // If there is no such node, any other node says so.
        let address = map.nodes.get(&node).map_or(teller.clone(), |node| beside(node.api_address(), &teller));
        let target = node;
        let send = |node: generated::Client| async move {
            node.leader_post().node(target).accept_data_loss(true).send().await
        };
        let within = self.inner.deadline;
        let leader = attempt(&self.inner.changes, &address, within, &send).await.map_err(|cause| {
            let (after, address) = (cause.after_change(), address.clone());
            match after {
                // The node answers that nobody leads only after it was allowed to lead with loss, so it may still do
                // it.
                _ if cause.is_no_leader() => Error::Unconfirmed { operation, address, cause: cause.into() },
                AfterChange::Unconfirmed => Error::Unconfirmed { operation, address, cause: cause.into() },
                AfterChange::Elsewhere => {
                    Error::Deadline { operation, address, within, attempts: 1, cause: cause.into() }
                }
                _ => Error::Refused { operation, address, cause: cause.into() },
            }
        })?;
        self.nodes().leader = Some(address_of(&leader, &address));
        Ok(leader)
    }

    /// Adds a node as a listener. A host that runs `qluster-server join` does this by itself.
    ///
    /// ```no_run
    /// use qluster_client::model::{NodeRole, Port};
    ///
    /// # async fn example(cluster: qluster_client::ClusterClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let node = cluster.add_node("10.0.0.4".parse()?, NodeRole::Voter, Port::new(8080)).await?;
    /// println!("it is node {}", node.id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `role` is the role that it gets when it is [enrolled](Self::upgrade_node). `api_port` defaults to the leader's.
    /// Returns the new node with its id.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors).
    pub async fn add_node(&self, ip: IpAddr, role: NodeRole, api_port: Option<Port>) -> Result<Node, Error> {
        self.change("POST /node", |node| async move {
            let request = node.node_add().ip(ip).role(role);
            match api_port {
                Some(port) => request.api_port(port).send().await,
                None => request.send().await,
            }
        })
        .await
    }

    /// Enrolls a node: gives a listener the role that it was added for, or brings back a node that was declared down.
    /// The API calls this an upgrade. Returns the node with its new role.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors); [`Error::Refused`] if the node is not ready for the role.
    pub async fn upgrade_node(&self, node: NodeId, db_port: Port, api_port: Port) -> Result<Node, Error> {
        let id = node;
        self.change("PATCH /node/{node}", |node| async move {
            node.node_upgrade().node(id).db_port(db_port).api_port(api_port).send().await
        })
        .await
    }

    /// Removes a node for good: its id is never used again. Returns the node as it was.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors).
    pub async fn remove_node(&self, node: NodeId) -> Result<Node, Error> {
        let id = node;
        self.change("DELETE /node/{node}", |node| async move { node.node_remove().node(id).send().await }).await
    }

    /// Declares that the database of a node has problems: until the node is [enrolled](Self::upgrade_node)
    /// again, it has no vote and poolers do not read from it. Returns the node with its new state.
    ///
    /// # Errors
    ///
    /// As for [every change](Self#errors).
    pub async fn node_down(&self, node: NodeId) -> Result<Node, Error> {
        let id = node;
        self.change("POST /node-down/{node}", |node| async move { node.node_down().node(id).send().await }).await
    }
}
