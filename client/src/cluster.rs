//! The client of a cluster as a whole.
//!
//! # Layout
//!
//! - `builder`: the settings of a client.
//! - `nodes`: the nodes that it knows, and which one it asks first.
//! - `asking`: what it does if a node does not answer, or does not lead.
//! - `changes`: the operations that change the cluster.
//! - `watch`: streams of the map and of the events.

mod asking;
mod builder;
mod changes;
mod nodes;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::StatusCode;
use reqwest::header::ETAG;

use crate::generated::{self, types::DbConfig};
use crate::model::{self, ClusterInfo, ClusterMap, ClusterStatus, Config, Event, Leader, LogIndex, ReadonlyStatements};
use crate::{Cause, Error};
use asking::{Backoff, attempt};
pub use builder::ClusterClientBuilder;
use nodes::{Nodes, address_of, parse};

/// A cluster, known by the addresses of some of its nodes.
///
/// A read is tried at one node after the other until the deadline; the node that answered last is asked first.
///
/// A change goes to the leader. If the node that was asked does not lead, the client asks the leader that the node
/// names. If there is no leader, the client waits for one until the deadline. A change is repeated only if it is
/// certain that it was not made; otherwise the error is [`Error::Unconfirmed`].
///
/// The client learns the addresses of further nodes from each map that it receives. It sends its token to them as well.
///
/// Clones share the addresses that were learned.
///
/// # Errors
///
/// Every operation can fail with [`Error::Refused`], if a node refused it, and with [`Error::Deadline`], if no node
/// answered in time. A change can also fail with [`Error::Unconfirmed`]. The methods name these errors only if they
/// have more to say about them.
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
    /// Opens a connection for each request. A kept connection shows only after a request was sent that the node has
    /// restarted, and then it is not known whether the request arrived.
    changes: reqwest::Client,
    nodes: Mutex<Nodes>,
}

impl fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClient").field("nodes", &*self.nodes()).finish_non_exhaustive()
    }
}

impl ClusterClient {
    /// A client of the cluster that has nodes at these addresses, such as `http://10.0.0.1:8080`, with default
    /// settings.
    ///
    /// # Errors
    ///
    /// [`Error::NoAddress`] if there is no address, [`Error::Address`] if one is not valid, and [`Error::Setup`] if the
    /// HTTP client cannot be set up.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder(addresses).build()
    }

    /// A builder for a client of the cluster that has nodes at these addresses.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> ClusterClientBuilder {
        ClusterClientBuilder::new(addresses.into_iter().map(Into::into).collect())
    }

    /// All addresses that are known now, in the order in which the client would ask them.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes().candidates()
    }

    /// A client of the node at `address`, with every operation exactly as in `openapi.yaml`. It repeats nothing and has
    /// no time limits.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] if the address is not valid.
    pub fn at(&self, address: &str) -> Result<generated::Client, Error> {
        Ok(generated::Client::new_with_client(&parse(address)?, self.inner.reads.clone()))
    }

    /// The leader. If there is none, waits for one until the deadline.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] if nobody leads until then, or if no node answers.
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

    /// Whether the node at `address` leads. The answer is also false if the node knows no leader, or is not part of a
    /// cluster.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors); no other node is asked.
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

    /// The cluster's map, as one of the nodes knows it now.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
    pub async fn map(&self) -> Result<ClusterMap, Error> {
        self.ask_map(None).await
    }

    /// The cluster's map as soon as its index is higher than `index`, or the present map after `wait`.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
    pub async fn map_after(&self, index: LogIndex, wait: model::Duration) -> Result<ClusterMap, Error> {
        self.ask_map(Some((index, wait))).await
    }

    /// The cluster's map as the node at `address` knows it.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors); no other node is asked.
    pub async fn map_at(&self, address: &str) -> Result<ClusterMap, Error> {
        let map = self.read_at("GET /map", address, |node| async move { node.map().send().await }).await?;
        self.nodes().meet(&map, address);
        Ok(map)
    }

    /// The status of all nodes as the node at `address` knows it: databases, positions in the WAL, lag in bytes.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors); no other node is asked.
    pub async fn status_at(&self, address: &str) -> Result<ClusterStatus, Error> {
        self.read_at("GET /status", address, |node| async move { node.status().send().await }).await
    }

    /// What a node that was added needs in order to start.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
    pub async fn info(&self) -> Result<ClusterInfo, Error> {
        Ok(self.read("GET /info", Duration::ZERO, |node| async move { node.info().send().await }).await?.0)
    }

    /// The cluster's settings.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
    pub async fn config(&self) -> Result<Config, Error> {
        Ok(self.read("GET /config", Duration::ZERO, |node| async move { node.config_get().send().await }).await?.0)
    }

    /// The settings of the running database of the node at `address` that differ from PostgreSQL's defaults.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors); no other node is asked.
    pub async fn db_config(&self, address: &str) -> Result<DbConfig, Error> {
        self.read_at("GET /db-config", address, |node| async move { node.db_config().send().await }).await
    }

    /// The hashes of the statements that do not write, by database.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
    pub async fn readonly_statements(&self) -> Result<ReadonlyStatements, Error> {
        let answer =
            self.read("GET /sql/readonly", Duration::ZERO, |node| async move { node.sql_readonly().send().await });
        Ok(answer.await?.0)
    }

    /// The hashes of the statements that do not write, with their ETag, as soon as they differ from those with the ETag
    /// `known`; `None` if they do not differ within `wait`. The leader is asked, once.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
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

    /// Events of the cluster and of the connections between nodes, as the node at `address` knows them. The text is for
    /// people: each event is a line, and the newest is the last.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors); no other node is asked.
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

    /// At most `limit` events of the cluster, by default 1000, oldest first. Without `after` they are the newest
    /// events; with `after`, the oldest after that log index.
    ///
    /// # Errors
    ///
    /// As for [every operation](Self#errors).
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
        // A panic elsewhere cannot leave it half changed, because each statement changes it as a whole.
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
