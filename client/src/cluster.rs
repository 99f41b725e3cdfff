//! A cluster as a whole: which node to ask, and what to do when it does not answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, TryStreamExt, stream};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use tokio::time::Instant;

use crate::error::{AfterChange, AfterRead};
use crate::generated::{self, types::DbConfig};
use crate::model::{
    self, ClusterInfo, ClusterMap, ClusterStatus, Config, ConfigUpdate, Event, Leader, LogIndex, Node, NodeId,
    NodeRole, Port, ReadonlyStatements,
};
use crate::{Cause, Error};

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

type Configure = Box<dyn Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync>;

/// Settings of a [`ClusterClient`]; see [`ClusterClient::builder`].
pub struct ClusterClientBuilder {
    addresses: Vec<String>,
    token: Option<String>,
    deadline: Duration,
    attempt: Duration,
    connect: Duration,
    wait: model::Duration,
    backoff: Backoff,
    configure: Option<Configure>,
    #[cfg(feature = "tls")]
    tls: crate::tls::Tls,
}

impl ClusterClientBuilder {
    /// The credential: a token that the nodes accept, `read` or `admin`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// How long an operation is tried, all attempts together. A change is sent only while there is time left for an
    /// answer: that for an attempt, or a quarter of this where that is less. Default 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a node may take to answer a read before another is asked. A change may take until the deadline, since
    /// giving up would leave its outcome unknown. Default 3 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt = timeout;
        self
    }

    /// How long a node may take to accept a connection. Default 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// How long to pause before what failed at every node is tried again: at random between a half and the whole of
    /// `first`, and twice that each time, up to `longest`. Default 50 ms and 1 s.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { next: first, longest };
        self
    }

    /// How long a node is asked to wait for news, when watching. A node that froze is given up after this and the time
    /// for an attempt. Default 5 s; nodes take at most 5 m.
    pub fn wait(mut self, wait: model::Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Trusts nodes whose certificate is from one of these authorities, in PEM, and no others. Without it, those are
    /// trusted that the platform trusts.
    #[cfg(feature = "tls")]
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// The caller's own certificate, for nodes that want one, and its key: both in PEM, one after the other.
    #[cfg(feature = "tls")]
    pub fn identity(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(pem.into());
        self
    }

    /// Changes the HTTP clients: a proxy, for instance. It is called for each of the
    /// two: one for reads and one for changes.
    pub fn http(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    /// The client. Nothing is asked yet.
    pub fn build(self) -> Result<ClusterClient, Error> {
        let seeds = self.addresses.iter().map(|address| parse(address)).collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(Error::NoAddress);
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Token)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = || -> Result<reqwest::ClientBuilder, Error> {
            let builder = reqwest::Client::builder()
                .default_headers(headers.clone())
                .connect_timeout(self.connect)
                // Nodes do not redirect; whoever does is no node, and gets no credential passed on.
                .redirect(reqwest::redirect::Policy::none())
                // What may be repeated is decided here alone.
                .retry(reqwest::retry::never())
                // Finds out about a host that is gone while it is waited for: within four seconds.
                .tcp_keepalive(Duration::from_secs(1))
                .tcp_keepalive_interval(Duration::from_secs(1))
                .tcp_keepalive_retries(3)
                // Nodes are near; a proxy in between would hide whether a request was sent.
                .no_proxy();
            #[cfg(feature = "tls")]
            let builder = self.tls.apply(builder)?;
            Ok(match &self.configure {
                Some(configure) => configure(builder),
                None => builder,
            })
        };
        let reads = http()?.build().map_err(Error::Setup)?;
        let changes = http()?.pool_max_idle_per_host(0).build().map_err(Error::Setup)?;
        let nodes = Mutex::new(Nodes { seeds, ..Nodes::default() });
        let Self { deadline, attempt, wait, backoff, .. } = self;
        Ok(ClusterClient { inner: Arc::new(Inner { deadline, attempt, wait, backoff, reads, changes, nodes }) })
    }
}

impl fmt::Debug for ClusterClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClientBuilder").field("addresses", &self.addresses).finish_non_exhaustive()
    }
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
        ClusterClientBuilder {
            addresses: addresses.into_iter().map(Into::into).collect(),
            token: None,
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(3),
            connect: Duration::from_secs(1),
            wait: model::Duration::from_millis(5_000),
            backoff: Backoff { next: Duration::from_millis(50), longest: Duration::from_secs(1) },
            configure: None,
            #[cfg(feature = "tls")]
            tls: crate::tls::Tls::default(),
        }
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
        self.read_at("GET /map", address, |node| async move { node.map().send().await }).await
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
            self.change("POST /leader", |node| async move { node.leader_post().node(target).send().await }).await?;
        let mut nodes = self.nodes();
        nodes.leader = nodes.leader.take().map(|old| address_of(&leader, &old));
        drop(nodes);
        Ok(leader)
    }

    /// Makes `node` the leader although acknowledged commits may be lost by it: only where nobody can lead otherwise.
    /// Asks that node itself, once.
    pub async fn switch_over_with_loss(&self, node: NodeId) -> Result<Leader, Error> {
        let operation = "POST /leader";
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
    /// `role` is what it becomes when it is upgraded. `api_port` defaults to that of the leader. Answers with the new node,
    /// its id included.
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

    /// Makes a listener what it was added for, or brings a node back that was declared down.
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

    /// Declares that the database of a node has problems: until the node is upgraded again it has no vote and is no
    /// replica for poolers.
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

    /// The cluster's map, now and whenever it changes: each newer than the one before it.
    ///
    /// It goes on at another node when one fails, and after an error: an `Err` says that no node had an answer. It ends
    /// only where the credential is refused, or something else that does not change by itself.
    pub fn watch_map(&self) -> impl Stream<Item = Result<ClusterMap, Error>> + Send + Unpin + use<> {
        let client = self.clone();
        let wait = client.inner.wait;
        self.watch(
            None,
            move |after| {
                let client = client.clone();
                async move { client.ask_map(after.map(|index| (index, wait))).await }
            },
            |map| Some(map.index),
        )
    }

    /// The cluster's events after the log index `after`, oldest first: those that there are, and each as it happens.
    /// Errors are as in [`watch_map`](Self::watch_map).
    pub fn watch_events(&self, after: LogIndex) -> impl Stream<Item = Result<Event, Error>> + Send + Unpin + use<> {
        let client = self.clone();
        let wait = client.inner.wait;
        let batches = self.watch(
            Some(after),
            move |after| {
                let client = client.clone();
                async move { client.ask_events(after, None, Some(wait)).await }
            },
            |events: &Vec<Event>| events.last().map(|event| event.index),
        );
        batches.map_ok(|events| stream::iter(events.into_iter().map(Ok))).try_flatten()
    }

    /// Asks again and again, each time for what is newer than the newest so far.
    fn watch<T, F, Fut>(
        &self,
        after: Option<LogIndex>,
        ask: F,
        newest: fn(&T) -> Option<LogIndex>,
    ) -> impl Stream<Item = Result<T, Error>> + Send + Unpin + use<T, F, Fut>
    where
        T: Send + 'static,
        F: Fn(Option<LogIndex>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let client = self.clone();
        let state = Some((after, client.inner.backoff, ask));
        Box::pin(stream::unfold(state, move |state| {
            let client = client.clone();
            async move {
                let (mut after, mut backoff, ask) = state?;
                loop {
                    let asked = Instant::now();
                    match ask(after).await {
                        Ok(answer) if newest(&answer).is_some_and(|index| after.is_none_or(|after| index > after)) => {
                            after = newest(&answer);
                            return Some((Ok(answer), Some((after, client.inner.backoff, ask))));
                        }
                        Ok(_) => {
                            // Nothing new: or a node that is cut off from the cluster, and will never say more.
                            client.nodes().ask_another_first();
                            if asked.elapsed() < client.inner.wait.get() / 2 {
                                // It did not wait. Do not turn that into a storm of requests.
                                tokio::time::sleep(backoff.next()).await;
                            }
                        }
                        Err(error) => {
                            if error.cause().is_none_or(|cause| cause.after_read() == AfterRead::Refused) {
                                return Some((Err(error), None));
                            }
                            tokio::time::sleep(backoff.next()).await;
                            return Some((Err(error), Some((after, backoff, ask))));
                        }
                    }
                }
            }
        }))
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

    /// A read that one node is asked, once.
    async fn read_at<T, F, Fut>(&self, operation: &'static str, address: &str, send: F) -> Result<T, Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let address = parse(address)?;
        let within = self.inner.attempt;
        attempt(&self.inner.reads, &address, within, &send).await.map_err(|cause| match cause {
            Cause::Answer { .. } | Cause::Request(_) => Error::Refused { operation, address, cause: cause.into() },
            _ => Error::Deadline { operation, address, within, attempts: 1, cause: cause.into() },
        })
    }

    /// A read that any node may answer, with the address of the node that did. `wait` is for how long the node is
    /// asked to wait.
    async fn read<T, F, Fut>(&self, operation: &'static str, wait: Duration, send: F) -> Result<(T, String), Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let mut tries = Tries::new(operation, self.inner.deadline + wait, self.inner.backoff);
        self.read_within(&mut tries, self.inner.attempt + wait, send).await
    }

    async fn read_within<T, F, Fut>(&self, tries: &mut Tries, within: Duration, send: F) -> Result<(T, String), Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        loop {
            let candidates = self.nodes().candidates();
            let mut worth_it = false;
            let mut last = None;
            for address in candidates {
                if last.is_some() && tries.left().is_zero() {
                    // Those that were not asked may have answered.
                    worth_it = true;
                    break;
                }
                tries.attempts += 1;
                match attempt(&self.inner.reads, &address, within.min(tries.left()), &send).await {
                    Ok(answer) => {
                        self.nodes().good = Some(address.clone());
                        return Ok((answer, address));
                    }
                    Err(cause) => {
                        let after = cause.after_read();
                        if after == AfterRead::Refused {
                            return Err(tries.refused(address, cause));
                        }
                        worth_it |= after == AfterRead::Elsewhere;
                        last = Some((address, cause));
                    }
                }
            }
            let Some((address, cause)) = last else { return Err(Error::NoAddress) };
            if !worth_it {
                return Err(tries.refused(address, cause));
            }
            if !tries.pause().await {
                return Err(tries.exhausted(address, cause));
            }
        }
    }

    /// A change, which the leader makes. Only a node that is said to lead is asked: asking any node would leave the
    /// outcome unknown where that node does not answer.
    async fn change<T, F, Fut>(&self, operation: &'static str, send: F) -> Result<T, Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        // A change that is sent as the time runs out would have an outcome that nobody knows.
        let reserve = self.inner.attempt.min(self.inner.deadline / 4);
        let mut tries = Tries::new(operation, self.inner.deadline, self.inner.backoff);
        tries.deadline -= reserve;
        let mut followed = false;
        loop {
            let known = self.nodes().leader.clone();
            let address = match known {
                Some(address) => address,
                None => {
                    let find = |node: generated::Client| async move { node.leader_get().send().await };
                    let (leader, teller) = self.read_within(&mut tries, self.inner.attempt, find).await?;
                    address_of(&leader, &teller)
                }
            };
            tries.attempts += 1;
            let cause = match attempt(&self.inner.changes, &address, tries.left() + reserve, &send).await {
                Ok(answer) => {
                    let mut nodes = self.nodes();
                    nodes.good = Some(address.clone());
                    nodes.leader = Some(address);
                    return Ok(answer);
                }
                Err(cause) => cause,
            };
            let next = match cause.after_change() {
                AfterChange::Refused => return Err(tries.refused(address, cause)),
                AfterChange::Unconfirmed => {
                    return Err(Error::Unconfirmed { operation, address, cause: cause.into() });
                }
                AfterChange::Follow(Some(leader)) => {
                    let next = address_of(leader, &address);
                    if next == address && matches!(cause, Cause::Answer { status: 412, .. }) {
                        return Err(tries.refused(address, cause));
                    }
                    Some(next)
                }
                AfterChange::Follow(None) | AfterChange::Wait | AfterChange::Elsewhere => None,
            };
            // During an election nodes may name each other, or one that is gone: a hint is followed at once only
            // where the one before was not.
            let pause = followed || next.as_ref().is_none_or(|next| *next == address);
            followed = !pause;
            self.nodes().leader = next;
            let in_time = if pause { tries.pause().await } else { !tries.left().is_zero() };
            if !in_time {
                return Err(tries.exhausted(address, cause));
            }
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        // What it holds is whole after each statement.
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempts at one operation.
struct Tries {
    operation: &'static str,
    within: Duration,
    /// After this, none is begun.
    deadline: Instant,
    backoff: Backoff,
    attempts: u32,
}

impl Tries {
    fn new(operation: &'static str, within: Duration, backoff: Backoff) -> Self {
        Self { operation, within, deadline: Instant::now() + within, backoff, attempts: 0 }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Pauses, unless that would take until the deadline.
    async fn pause(&mut self) -> bool {
        let pause = self.backoff.next();
        let in_time = pause < self.left();
        if in_time {
            tokio::time::sleep(pause).await;
        }
        in_time
    }

    fn refused(&self, address: String, cause: Cause) -> Error {
        Error::Refused { operation: self.operation, address, cause: cause.into() }
    }

    fn exhausted(&self, address: String, cause: Cause) -> Error {
        let Self { operation, within, attempts, .. } = *self;
        Error::Deadline { operation, address, within, attempts, cause: cause.into() }
    }
}

type Answer<T> = Result<generated::ResponseValue<T>, generated::Error<model::Error>>;

async fn attempt<T, F, Fut>(http: &reqwest::Client, address: &str, within: Duration, send: &F) -> Result<T, Cause>
where
    F: Fn(generated::Client) -> Fut,
    Fut: Future<Output = Answer<T>>,
{
    let node = generated::Client::new_with_client(address, http.clone());
    match tokio::time::timeout(within, send(node)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Cause::Timeout(within)),
    }
}

/// The nodes that are known, by the addresses of their APIs.
#[derive(Debug, Default)]
struct Nodes {
    /// Those that the client was given.
    seeds: Vec<String>,
    /// Those of the last map.
    learned: Vec<String>,
    /// The one that answered last.
    good: Option<String>,
    /// The one that led when last heard of.
    leader: Option<String>,
}

impl Nodes {
    /// Whom to ask, in this order.
    fn candidates(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for address in self.good.iter().chain(&self.leader).chain(&self.seeds).chain(&self.learned) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    /// Another node than the one that answered last is to be asked first; every node gets its turn.
    fn ask_another_first(&mut self) {
        let mut all: Vec<&String> = self.seeds.iter().collect();
        all.extend(self.learned.iter().filter(|address| !self.seeds.contains(address)));
        let last = all.iter().position(|known| Some(*known) == self.good.as_ref());
        let next = last.map_or(0, |last| (last + 1) % all.len());
        self.good = all.get(next).map(|address| (*address).clone());
    }

    /// Takes over the nodes of a map that the node at `teller` answered with.
    fn learn(&mut self, map: &ClusterMap, teller: &str) {
        self.learned = map.nodes.values().map(|node| beside(node.api_address(), teller)).collect();
        let leader = map.leader.and_then(|leader| map.nodes.get(&leader));
        self.leader = leader.map(|leader| beside(leader.api_address(), teller));
    }
}

/// Where the leader that `teller` named is.
fn address_of(leader: &Leader, teller: &str) -> String {
    beside(SocketAddr::new(leader.ip, leader.api_port.get()), teller)
}

/// The address of a node that the node at `teller` told of: nodes of a cluster agree on whether they speak TLS.
fn beside(address: SocketAddr, teller: &str) -> String {
    let scheme = teller.split_once("://").map_or("http", |(scheme, _)| scheme);
    format!("{scheme}://{address}")
}

/// An address as it is compared and as the generated client takes it: with a scheme, without a slash at its end.
fn parse(address: &str) -> Result<String, Error> {
    let wrong = |reason: String| Error::Address { address: address.into(), reason };
    let text = if address.contains("://") { address.into() } else { format!("http://{address}") };
    let url = Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
    match url.scheme() {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(wrong("`https` needs the feature `tls`".into())),
        other => return Err(wrong(format!("expected `http` or `https`, got `{other}`"))),
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("expected nothing after the path".into()));
    }
    Ok(url.as_str().trim_end_matches('/').into())
}

/// Pauses that grow, at random so that clients which failed together do not come back together.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_to_one_form() {
        for (given, expected) in [
            ("10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://10.0.0.1:8080/", "http://10.0.0.1:8080"),
            ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
            ("http://node-1:8080/qluster/", "http://node-1:8080/qluster"),
        ] {
            assert_eq!(parse(given).unwrap(), expected);
        }
        for given in ["", "http://", "ftp://10.0.0.1", "http://10.0.0.1:port", "http://10.0.0.1/?node=1"] {
            assert!(matches!(parse(given), Err(Error::Address { .. })), "{given}");
        }
        assert_eq!(parse("https://10.0.0.1:8080").is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn a_node_told_of_is_reached_as_its_teller_was() {
        let address: SocketAddr = "[2001:db8::1]:8080".parse().unwrap();
        assert_eq!(beside(address, "https://node-1:8080"), "https://[2001:db8::1]:8080");
    }

    #[test]
    fn every_node_has_its_turn_and_the_last_that_answered_goes_first() {
        let node = |name: &str| name.to_owned();
        let (seeds, learned) = (vec![node("a"), node("b")], vec![node("b"), node("c")]);
        let mut nodes = Nodes { seeds, learned, ..Nodes::default() };
        assert_eq!(nodes.candidates(), ["a", "b", "c"]);
        nodes.good = Some(node("b"));
        assert_eq!(nodes.candidates(), ["b", "a", "c"]);
        for expected in ["c", "a", "b"] {
            nodes.ask_another_first();
            assert_eq!(nodes.candidates()[0], expected);
        }
        nodes.good = Some(node("gone"));
        nodes.ask_another_first();
        assert_eq!(nodes.candidates(), ["a", "b", "c"]);
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_differ() {
        let mut backoff = Backoff { next: Duration::from_millis(100), longest: Duration::from_millis(350) };
        for expected in [100, 200, 350, 350] {
            let pause = backoff.next();
            assert!((expected / 2..=expected).contains(&pause.as_millis()), "{pause:?}");
        }
    }
}
