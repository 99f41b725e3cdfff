//! A cluster as a whole.
//!
//! # Layout
//!
//! - `builder`: what a client is told before it asks.
//! - `nodes`: the nodes that it knows, and whom it asks first.
//! - `asking`: what it does when a node does not answer, or is not the one to ask.
//! - `watch`: streams of what changes.

mod asking;
mod builder;
mod nodes;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::StatusCode;
use reqwest::header::ETAG;

use crate::error::AfterChange;
use crate::generated::{self, types::DbConfig};
use crate::model::{
    self, ClusterInfo, ClusterMap, ClusterStatus, Config, ConfigUpdate, Event, Leader, LogIndex, Node, NodeId,
    NodeRole, Port, ReadonlyStatements,
};
use crate::{Cause, Error};
use asking::{Backoff, SWITCH_OVER, attempt};
pub use builder::ClusterClientBuilder;
use nodes::{Nodes, address_of, beside, parse};

/// A cluster, known by the addresses of some of its nodes.
///
/// Reads are tried at one node after the other, the one that answered last first, until the deadline. Changes go to
/// the leader: where the node asked is not the leader, the one that it names is asked; where there is no leader, the
/// client waits for one, until the deadline. A change is repeated only where it is certain that it was not made;
/// otherwise the outcome is [`Error::Unconfirmed`].
///
/// Further addresses are learned from every map that passes through. The credential is sent to those as well.
///
/// Clones share what was learned.
#[derive(Clone)]
pub struct ClusterClient {
    inner: Arc<Inner>,
}

struct Inner {
    deadline: Duration,
    attempt: Duration,
    wait: model::Duration,
    backoff: Backoff,
    reads: reqwest::Client,
    /// Opens a connection for each request: on one that is kept, a node's restart shows only after a request was
    /// sent, and then nobody knows whether it arrived.
    changes: reqwest::Client,
    nodes: Mutex<Nodes>,
}

impl fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClient").field("nodes", &*self.nodes()).finish_non_exhaustive()
    }
}

impl ClusterClient {
    /// A client of the cluster that has nodes at these addresses, such as `http://10.0.0.1:8080`.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder(addresses).build()
    }

    /// The same, with settings.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> ClusterClientBuilder {
        ClusterClientBuilder::new(addresses.into_iter().map(Into::into).collect())
    }

    /// All addresses that are known now, in the order in which they would be asked.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes().candidates()
    }

    /// The client of one node, with every operation exactly as `openapi.yaml` says. It repeats nothing and sets no
    /// time limits.
    pub fn at(&self, address: &str) -> Result<generated::Client, Error> {
        Ok(generated::Client::new_with_client(&parse(address)?, self.inner.reads.clone()))
    }

    /// The leader; waits for one until the deadline.
    ///
    /// ```no_run
    /// # async fn example(cluster: qluster_client::ClusterClient) -> Result<(), qluster_client::Error> {
    /// let leader = cluster.leader().await?;
    /// if let Some(port) = leader.db_port {
    ///     println!("postgresql://{}:{port}/postgres", leader.ip);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn leader(&self) -> Result<Leader, Error> {
        let (leader, address) =
            self.read("GET /leader", Duration::ZERO, |node| async move { node.leader_get().send().await }).await?;
        self.nodes().leader = Some(address_of(&leader, &address));
        Ok(leader)
    }

    /// Whether the node at `address` leads. A node that has no leader, or is not part of a cluster, does not.
    pub async fn is_leader(&self, address: &str) -> Result<bool, Error> {
        match self.read_at("GET /is-leader", address, |node| async move { node.is_leader().send().await }).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { cause, .. })
                if matches!(*cause, Cause::Answer { status: 412 | 417 | 530 | 531, .. }) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The cluster's map, as some node knows it now.
    pub async fn map(&self) -> Result<ClusterMap, Error> {
        self.ask_map(None).await
    }

    /// The cluster's map as soon as it is newer than `index`, or after `wait` as it is then.
    pub async fn map_after(&self, index: LogIndex, wait: model::Duration) -> Result<ClusterMap, Error> {
        self.ask_map(Some((index, wait))).await
    }

    /// The cluster's map as the node at `address` knows it.
    pub async fn map_at(&self, address: &str) -> Result<ClusterMap, Error> {
        let map = self.read_at("GET /map", address, |node| async move { node.map().send().await }).await?;
        self.nodes().meet(&map, address);
        Ok(map)
    }

    /// How the nodes are, as the node at `address` heard it: their databases, positions in the WAL, lag.
    pub async fn status_at(&self, address: &str) -> Result<ClusterStatus, Error> {
        self.read_at("GET /status", address, |node| async move { node.status().send().await }).await
    }

    /// What a previously added node needs to start.
    pub async fn info(&self) -> Result<ClusterInfo, Error> {
        Ok(self.read("GET /info", Duration::ZERO, |node| async move { node.info().send().await }).await?.0)
    }

    /// The cluster's settings.
    pub async fn config(&self) -> Result<Config, Error> {
        Ok(self.read("GET /config", Duration::ZERO, |node| async move { node.config_get().send().await }).await?.0)
    }

    /// Changes the settings that are given in `update`. Answers with all settings.
    pub async fn update_config(&self, update: &ConfigUpdate) -> Result<Config, Error> {
        self.change("POST /config", |node| async move { node.config_post().body(update.clone()).send().await }).await
    }

    /// The settings of the database of the node at `address`, as it runs.
    pub async fn db_config(&self, address: &str) -> Result<DbConfig, Error> {
        self.read_at("GET /db-config", address, |node| async move { node.db_config().send().await }).await
    }

    /// Hands the leadership over to `node`, as planned. Answers once it leads.
    pub async fn switch_over(&self, node: NodeId) -> Result<Leader, Error> {
        let target = node;
        let leader =
            self.change(SWITCH_OVER, |node| async move { node.leader_post().node(target).send().await }).await?;
        let mut nodes = self.nodes();
        nodes.leader = nodes.leader.take().map(|old| address_of(&leader, &old));
        drop(nodes);
        Ok(leader)
    }

    /// Makes `node` the leader although acknowledged commits may be lost by it: only where nobody can lead otherwise.
    /// Asks that node itself, once.
    pub async fn switch_over_with_loss(&self, node: NodeId) -> Result<Leader, Error> {
        let operation = SWITCH_OVER;
        let (map, teller) =
            self.read("GET /map", Duration::ZERO, |node| async move { node.map().send().await }).await?;
        // Of a node that is not there, any other says so.
        let address = map.nodes.get(&node).map_or(teller.clone(), |node| beside(node.api_address(), &teller));
        let target = node;
        let send = |node: generated::Client| async move {
            node.leader_post().node(target).accept_data_loss(true).send().await
        };
        let within = self.inner.deadline;
        let leader = attempt(&self.inner.changes, &address, within, &send).await.map_err(|cause| {
            let (after, address) = (cause.after_change(), address.clone());
            match after {
                // That nobody leads is its answer only once the node may lead with loss: it still may.
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

    /// Adds a node, as a listener. A host that runs `qluster-server join` does this itself.
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
    /// Returns the new node, which includes its id.
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
    pub async fn upgrade_node(&self, node: NodeId, db_port: Port, api_port: Port) -> Result<Node, Error> {
        let id = node;
        self.change("PATCH /node/{node}", |node| async move {
            node.node_upgrade().node(id).db_port(db_port).api_port(api_port).send().await
        })
        .await
    }

    /// Removes a node.
    pub async fn remove_node(&self, node: NodeId) -> Result<Node, Error> {
        let id = node;
        self.change("DELETE /node/{node}", |node| async move { node.node_remove().node(id).send().await }).await
    }

    /// Declares that the database of a node has problems: until the node is [enrolled](Self::upgrade_node)
    /// again, it has no vote and poolers do not read from it. Returns the node with its new state.
    pub async fn node_down(&self, node: NodeId) -> Result<Node, Error> {
        let id = node;
        self.change("POST /node-down/{node}", |node| async move { node.node_down().node(id).send().await }).await
    }

    /// The hashes of the statements that do not write.
    pub async fn readonly_statements(&self) -> Result<ReadonlyStatements, Error> {
        let answer =
            self.read("GET /sql/readonly", Duration::ZERO, |node| async move { node.sql_readonly().send().await });
        Ok(answer.await?.0)
    }

    /// The hashes of the statements that do not write, with their tag, as the leader knows them: once they are others
    /// than those of the tag `known`, or none where they are not within `wait`.
    pub async fn readonly_statements_after(
        &self,
        known: Option<&str>,
        wait: model::Duration,
    ) -> Result<Option<(ReadonlyStatements, String)>, Error> {
        let operation = "GET /sql/readonly";
        let find = |node: generated::Client| async move { node.leader_get().send().await };
        let (leader, teller) = self.read("GET /leader", Duration::ZERO, find).await?;
        let address = address_of(&leader, &teller);
        let within = self.inner.attempt + wait.get();
        let send = |node: generated::Client| async move {
            let mut request = node.sql_readonly().wait(wait);
            if let Some(known) = known {
                request = request.if_none_match(known);
            }
            match request.send().await {
                Ok(answer) => {
                    let (status, headers) = (answer.status(), answer.headers().clone());
                    let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
                    Ok(generated::ResponseValue::new(Some((answer.into_inner(), etag)), status, headers))
                }
                Err(generated::Error::UnexpectedResponse(answer)) if answer.status() == StatusCode::NOT_MODIFIED => {
                    Ok(generated::ResponseValue::new(None, answer.status(), answer.headers().clone()))
                }
                Err(error) => Err(error),
            }
        };
        attempt(&self.inner.reads, &address, within, &send).await.map_err(|cause| match cause {
            Cause::Answer { .. } | Cause::Request(_) => Error::Refused { operation, address, cause: cause.into() },
            _ => Error::Deadline { operation, address, within, attempts: 1, cause: cause.into() },
        })
    }

    /// Cluster and peer events of the node at `address`, for people: a line an event, newest last.
    pub async fn rpc(&self, address: &str) -> Result<String, Error> {
        self.read_at("GET /rpc", address, |node| async move {
            let answer = node.rpc().send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut body = answer.into_inner_stream();
            let mut text = Vec::new();
            while let Some(part) = body.try_next().await.map_err(generated::Error::ResponseBodyError)? {
                text.extend_from_slice(&part);
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(generated::ResponseValue::new(text, status, headers))
        })
        .await
    }

    /// Events of the cluster, oldest first: the newest, or with `after` the oldest after that index; at most `limit`,
    /// by default 1000.
    pub async fn events(&self, after: Option<LogIndex>, limit: Option<u32>) -> Result<Vec<Event>, Error> {
        self.ask_events(after, limit, None).await
    }

    async fn ask_map(&self, after: Option<(LogIndex, model::Duration)>) -> Result<ClusterMap, Error> {
        let wait = after.map_or(Duration::ZERO, |(_, wait)| wait.get());
        let answer = self.read("GET /map", wait, |node| async move {
            match after {
                Some((index, wait)) => node.map().after_index(index).wait(wait).send().await,
                None => node.map().send().await,
            }
        });
        let (map, address) = answer.await?;
        self.nodes().learn(&map, &address);
        Ok(map)
    }

    async fn ask_events(
        &self,
        after: Option<LogIndex>,
        limit: Option<u32>,
        wait: Option<model::Duration>,
    ) -> Result<Vec<Event>, Error> {
        let longest = wait.map_or(Duration::ZERO, model::Duration::get);
        let answer = self.read("GET /events", longest, |node| async move {
            let mut request = node.events();
            if let Some(after) = after {
                request = request.after_index(after);
            }
            if let Some(limit) = limit {
                request = request.limit(limit);
            }
            if let Some(wait) = wait {
                request = request.wait(wait);
            }
            request.send().await
        });
        Ok(answer.await?.0)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        // What it holds is whole after each statement.
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
