//! Nodes in one process: their transport can be cut, their databases are a model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::env::clock::Clock;
use qluster_consensus::env::random::Random;
use qluster_consensus::model::{ConfigUpdate, Leader, Node, NodeId, NodeRole, NodeState, Port};
use qluster_consensus::node::cluster::{Cluster, Parts, StartError};
use qluster_consensus::protocol::database::Database;
use qluster_consensus::protocol::version::{Spoken, Versions};
use qluster_consensus::raft::store::{Identity, Store};
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, Transport, TransportError};

use super::model::{Databases, ModelDatabase};
use crate::support::{WAIT_DEADLINE, holds, until};

pub fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

/// The network: which nodes run, and which are cut off.
#[derive(Default)]
struct Net {
    nodes: RwLock<BTreeMap<NodeId, Cluster>>,
    isolated: Mutex<BTreeSet<NodeId>>,
    /// What those speak that were started.
    speak: Mutex<BTreeMap<NodeId, Spoken>>,
    /// Kinds of requests that get lost.
    lost: Mutex<BTreeSet<Kind>>,
    /// What was sent.
    sent: Mutex<Vec<Kind>>,
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Heartbeat,
    Entries,
    PreVote,
    Vote,
    Other,
}

impl Kind {
    fn of(request: &PeerRequest) -> Self {
        match request {
            PeerRequest::Append(append) if append.entries.is_empty() => Kind::Heartbeat,
            PeerRequest::Append(_) => Kind::Entries,
            PeerRequest::PreVote { .. } => Kind::PreVote,
            PeerRequest::Vote(_) => Kind::Vote,
            _ => Kind::Other,
        }
    }
}

/// A node's end of it.
struct Line {
    me: NodeId,
    net: Arc<Net>,
}

impl Transport for Line {
    fn call(
        &self,
        to: NodeId,
        address: SocketAddr,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let kind = Kind::of(&request);
        self.net.sent.lock().unwrap().push(kind);
        if self.net.lost.lock().unwrap().contains(&kind) {
            let late = TransportError::Timeout { node: to, address, timeout };
            return tokio::time::sleep(timeout).map(|()| Err(late)).boxed();
        }
        // As the greeting does.
        let speaks = |id| self.net.speak.lock().unwrap().get(&id).map(Spoken::now);
        if let (Some(mine), Some(theirs)) = (speaks(self.me), speaks(to))
            && let Err(unmet) = mine.meet(theirs)
        {
            let reason = unmet.to_string();
            return futures::future::ready(Err(TransportError::Unreachable { node: to, address, reason })).boxed();
        }
        // Not held any longer: what is served may call others before this returns.
        let isolated = self.net.isolated.lock().unwrap().clone();
        let cut = isolated.contains(&self.me) || isolated.contains(&to);
        let target = self.net.nodes.read().unwrap().get(&to).cloned().filter(|_| !cut);
        let Some(target) = target else {
            let reason = "cut off".to_owned();
            return futures::future::ready(Err(TransportError::Unreachable { node: to, address, reason })).boxed();
        };
        let mut served = target.serve(self.me, request);
        // As on a wire, requests are taken in order although their answers are not. A first poll that ran out of the
        // runtime's budget would take no place in line.
        let first = tokio::task::unconstrained(&mut served).now_or_never();
        async move {
            let answer = async {
                match first {
                    Some(answer) => answer,
                    None => served.await,
                }
            };
            let late = TransportError::Timeout { node: to, address, timeout };
            tokio::time::timeout(timeout, answer).await.map_err(|_| late)
        }
        .boxed()
    }

    fn forget(&self, _: NodeId) {}
}

/// In memory if the system has such a place: nothing here looks at durability, and a disk that is busy with something else
/// costs the leader its short lease.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A cluster in this process.
pub struct Harness {
    net: Arc<Net>,
    stores: BTreeMap<NodeId, tempfile::TempDir>,
    databases: Option<Databases>,
    /// What nodes know whose program is not the usual one.
    known: BTreeMap<NodeId, Versions>,
    /// Nodes that are started without a database.
    pub bare: BTreeSet<NodeId>,
}

/// What each node knows, and what its database is.
impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.net.nodes.read().unwrap();
        let known = nodes.iter().map(|(id, node)| {
            let database = self.databases.as_ref().map(|databases| databases.of(*id).status().borrow().clone());
            (*id, (node.map(), database))
        });
        f.debug_map().entries(known).finish()
    }
}

impl Harness {
    pub async fn without_databases(nodes: usize) -> Self {
        Self::start(nodes, None).await
    }

    pub async fn with_databases(nodes: usize) -> Self {
        Self::start(nodes, Some(Databases::default())).await
    }

    async fn start(nodes: usize, databases: Option<Databases>) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let mut harness = Self {
            net: Arc::default(),
            stores: BTreeMap::new(),
            databases,
            known: BTreeMap::new(),
            bare: BTreeSet::new(),
        };
        let id = NodeId(1);
        let node = Node {
            id,
            ip: [127, 0, 0, 1].into(),
            db_port: harness.databases.is_some().then(|| port(5001)),
            api_port: port(8001),
            role: NodeRole::Voter,
            upgrade_to: NodeRole::Voter,
            state: NodeState::Up,
            reason: None,
        };
        let cluster = Cluster::create(harness.parts(id, true), node).await.unwrap();
        harness.net.nodes.write().unwrap().insert(id, cluster);
        // Fast, and slow enough for a loaded machine.
        let timing = serde_json::json!({
            "node-timeout": "600ms", "heartbeat-interval": "60ms", "pre-voting-timeout": "300ms",
            "leader-voting-timeout": "600ms", "replication-retry-interval": "100ms"
        });
        let timing: ConfigUpdate = serde_json::from_value(timing).unwrap();
        harness.leader().await;
        harness.node(id).set_config(timing, "test").await.unwrap();
        for _ in 1..nodes {
            let id = harness.add(NodeRole::Voter).await;
            harness.upgrade(id).await;
        }
        harness.settled(nodes).await;
        harness
    }

    fn parts(&mut self, id: NodeId, create: bool) -> Parts {
        let directory = self.stores.entry(id).or_insert_with(directory);
        let path = directory.path().join("store");
        let store = if create { Store::create(&path) } else { Store::open(&path) }.unwrap();
        let databases = self.databases.as_ref().filter(|_| !self.bare.contains(&id));
        let database = databases.map(|databases| databases.of(id) as Arc<dyn Database>);
        let transport = Arc::new(Line { me: id, net: self.net.clone() });
        let versions = Spoken::new(self.known.get(&id).copied().unwrap_or(Versions::KNOWN));
        self.net.speak.lock().unwrap().insert(id, versions.clone());
        Parts { store, transport, database, clock: Clock::boottime(), random: Random::from_os(), versions }
    }

    pub fn node(&self, id: NodeId) -> Cluster {
        self.net.nodes.read().unwrap()[&id].clone()
    }

    pub fn database(&self, id: NodeId) -> Arc<ModelDatabase> {
        self.databases.as_ref().unwrap().of(id)
    }

    /// Those that claim to lead, at one instant: who claims it before and after the others were asked.
    pub fn claimants(&self) -> Vec<NodeId> {
        let nodes = self.net.nodes.read().unwrap();
        let claims = |id: &NodeId| nodes[id].is_leader().ok().map(|leader| leader.term);
        let first: Vec<_> = nodes.keys().map(|id| (*id, claims(id))).collect();
        first.into_iter().filter(|(id, term)| term.is_some() && claims(id) == *term).map(|(id, _)| id).collect()
    }

    /// Waits until `condition` holds. If it does not, the test fails and shows the state of all nodes.
    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        until(what, WAIT_DEADLINE, async || holds(condition(), self)).await;
    }

    /// Waits for a leader.
    pub async fn leader(&self) -> Leader {
        until("there is a leader", WAIT_DEADLINE, async || {
            let nodes = self.net.nodes.read().unwrap();
            nodes.values().find_map(|node| node.is_leader().ok()).ok_or(self)
        })
        .await
    }

    /// Waits until `count` nodes agree on the leader and the newest map.
    pub async fn settled(&self, count: usize) {
        self.until("all nodes agree", || {
            let nodes: Vec<_> = self.net.nodes.read().unwrap().values().cloned().collect();
            let maps: Vec<_> = nodes.iter().filter_map(|node| node.map().ok()).collect();
            maps.len() == count
                && maps.iter().all(|map| map.leader.is_some() && *map == maps[0])
                && maps[0].nodes.values().all(|node| node.state == NodeState::Up)
        })
        .await;
    }

    pub async fn kill(&mut self, id: NodeId) {
        let node = self.net.nodes.write().unwrap().remove(&id).unwrap();
        node.shutdown().await.unwrap();
    }

    pub async fn kill_with_database(&mut self, id: NodeId) {
        self.database(id).crash();
        self.kill(id).await;
        self.database(id).crash();
    }

    pub async fn restart(&mut self, id: NodeId) {
        let path = self.stores[&id].path().join("store");
        self.until("the store is released", || Store::open(&path).is_ok()).await;
        let cluster = Cluster::start(self.parts(id, false)).await.unwrap();
        self.net.nodes.write().unwrap().insert(id, cluster);
    }

    /// Starts a node again with another program, which knows these versions. Fails if it does not start.
    pub async fn replace(&mut self, id: NodeId, known: Versions) -> Result<(), StartError> {
        self.kill(id).await;
        self.known.insert(id, known);
        let path = self.stores[&id].path().join("store");
        self.until("the store is released", || Store::open(&path).is_ok()).await;
        let cluster = Cluster::start(self.parts(id, false)).await?;
        self.net.nodes.write().unwrap().insert(id, cluster);
        Ok(())
    }

    pub fn isolate(&self, id: NodeId) {
        self.net.isolated.lock().unwrap().insert(id);
    }

    pub fn heal(&self) {
        self.net.isolated.lock().unwrap().clear();
    }

    /// From now on requests of these kinds get lost.
    pub fn lose(&self, kinds: &[Kind]) {
        *self.net.lost.lock().unwrap() = kinds.iter().copied().collect();
    }

    /// How many requests of this kind were sent so far.
    pub fn sent(&self, kind: Kind) -> usize {
        self.net.sent.lock().unwrap().iter().filter(|sent| **sent == kind).count()
    }

    /// What the nodes send in the next `time`.
    pub async fn sent_within(&self, time: Duration) -> Vec<Kind> {
        self.net.sent.lock().unwrap().clear();
        tokio::time::sleep(time).await;
        let sent = self.net.sent.lock().unwrap();
        sent.clone()
    }

    /// Changes settings, at the leader.
    pub async fn set(&self, settings: serde_json::Value) {
        let leader = self.leader().await;
        let update = serde_json::from_value(settings).unwrap();
        let config = self.node(leader.id).set_config(update, "test").await.unwrap();
        let nodes: Vec<_> = self.net.nodes.read().unwrap().values().cloned().collect();
        self.until("all nodes have the settings", || {
            nodes.iter().all(|node| node.config().is_ok_and(|now| now == config))
        })
        .await;
    }

    /// Adds a node and starts it.
    pub async fn add(&mut self, role: NodeRole) -> NodeId {
        let leader = self.leader().await;
        let next = 8001 + self.stores.len() as u16;
        let node = self.node(leader.id).add_node([127, 0, 0, 1].into(), port(next), role, "test").await.unwrap();
        if !role.has_database() {
            self.bare.insert(node.id);
        }
        let parts = self.parts(node.id, true);
        let cluster = self.node(leader.id).identity().cluster;
        parts.store.set_identity(&Identity { cluster, node: node.id }).unwrap();
        let cluster = Cluster::start(parts).await.unwrap();
        self.net.nodes.write().unwrap().insert(node.id, cluster);
        node.id
    }

    /// Upgrades a node as soon as it is fit for it.
    pub async fn upgrade(&self, id: NodeId) {
        until(&format!("node {id} is upgraded"), WAIT_DEADLINE, async || {
            let leader = self.node(self.leader().await.id);
            let api_port = leader.map().unwrap().nodes[&id].api_port;
            leader.upgrade_node(id, port(5000 + id.0 as u16), api_port, "test").await
        })
        .await;
    }

    /// Waits until the database of `id` is the primary and tells so.
    pub async fn serving(&self, id: NodeId) {
        self.until("its database is promoted", || self.database(id).serves()).await;
    }

    pub async fn following(&self, id: NodeId, primary: NodeId) {
        self.until("it follows", || {
            let status = self.database(id).status().borrow().clone();
            status.streaming && status.follows.is_some_and(|(node, _)| node == primary)
        })
        .await;
    }

    /// Writes rows through the leader until `rows` of them are acknowledged.
    pub async fn write_acknowledged(&self, rows: usize) {
        for _ in 0..rows {
            let written = self.database(self.leader().await.id).write();
            let databases = self.databases.as_ref().unwrap();
            self.until("it is acknowledged", || databases.acknowledged(&written)).await;
        }
    }
}
