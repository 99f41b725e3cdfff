//! Nodes in one process: their transport can be cut, their databases are a model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::clock::Clock;
use qluster_consensus::cluster::{Cluster, Parts, StartError};
use qluster_consensus::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use qluster_consensus::model::{ConfigUpdate, Leader, Lsn, Node, NodeId, NodeRole, NodeState, Port};
use qluster_consensus::random::Random;
use qluster_consensus::store::{Identity, Store};
use qluster_consensus::transport::{PeerRequest, PeerResponse, Transport, TransportError};
use qluster_consensus::version::{Spoken, Versions};
use tokio::sync::watch;

/// Long for what takes a fraction of a second, so that only a hang runs into it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The network: who is there, and who is cut off.
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
        let directory = self.stores.entry(id).or_insert_with(|| tempfile::tempdir().unwrap());
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

    /// Waits for a leader.
    pub async fn leader(&self) -> Leader {
        let mut leader = None;
        eventually("there is a leader", || {
            let nodes = self.net.nodes.read().unwrap();
            leader = nodes.values().find_map(|node| node.is_leader().ok());
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// Waits until `count` nodes agree on the leader and the newest map.
    pub async fn settled(&self, count: usize) {
        eventually("all nodes agree", || {
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
        eventually("the store is released", || Store::open(&path).is_ok()).await;
        let cluster = Cluster::start(self.parts(id, false)).await.unwrap();
        self.net.nodes.write().unwrap().insert(id, cluster);
    }

    /// Starts a node again with another program, which knows these versions. Fails where it does not start.
    pub async fn replace(&mut self, id: NodeId, known: Versions) -> Result<(), StartError> {
        self.kill(id).await;
        self.known.insert(id, known);
        let path = self.stores[&id].path().join("store");
        eventually("the store is released", || Store::open(&path).is_ok()).await;
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
        eventually("all nodes have the settings", || {
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
        let start = Instant::now();
        loop {
            let leader = self.node(self.leader().await.id);
            let api_port = leader.map().unwrap().nodes[&id].api_port;
            match leader.upgrade_node(id, port(5000 + id.0 as u16), api_port, "test").await {
                Ok(_) => return,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the database of `id` is the primary and tells so.
    pub async fn serving(&self, id: NodeId) {
        eventually("its database is promoted", || self.database(id).serves()).await;
    }

    pub async fn following(&self, id: NodeId, primary: NodeId) {
        eventually("it follows", || {
            let status = self.database(id).status().borrow().clone();
            status.streaming && status.follows.is_some_and(|(node, _)| node == primary)
        })
        .await;
    }

    /// Writes rows through the leader until so many are acknowledged.
    pub async fn write_acknowledged(&self, rows: usize) {
        for _ in 0..rows {
            let written = self.database(self.leader().await.id).write();
            let databases = self.databases.as_ref().unwrap();
            eventually("it is acknowledged", || databases.acknowledged(&written)).await;
        }
    }
}

/// All databases: standbys copy from primaries here.
#[derive(Clone, Default)]
struct Databases(Arc<Mutex<BTreeMap<NodeId, Arc<ModelDatabase>>>>);

/// A row that was written, at whom.
pub struct Written {
    at: NodeId,
    length: usize,
}

impl Databases {
    fn of(&self, id: NodeId) -> Arc<ModelDatabase> {
        let mut all = self.0.lock().unwrap();
        all.entry(id)
            .or_insert_with(|| {
                // The first one was created; the others are clones.
                let role = if id == NodeId(1) { DatabaseRole::Standby } else { DatabaseRole::Absent };
                Arc::new(ModelDatabase {
                    all: self.clone(),
                    wal: Mutex::new(Vec::new()),
                    rule: Mutex::default(),
                    status: watch::Sender::new(DatabaseStatus::unknown(role)),
                    open: Mutex::default(),
                    kept_for: Mutex::default(),
                    deaf: Mutex::default(),
                    broken: Mutex::default(),
                    panics: Mutex::default(),
                    hangs: Mutex::default(),
                    unpromotable: Mutex::default(),
                    unrewindable: Mutex::default(),
                })
            })
            .clone()
    }

    /// Whether enough hold what was written.
    fn acknowledged(&self, written: &Written) -> bool {
        let primary = self.of(written.at);
        let rule = primary.rule.lock().unwrap().clone();
        primary.serves() && self.hold(written.at, &rule, written.length)
    }

    /// Copies what each standby lacks from the primary that it follows, and tells whether as many hold the WAL of `at` up
    /// to `end` as `rule` asks.
    fn hold(&self, at: NodeId, rule: &SyncRule, end: usize) -> bool {
        let all: Vec<_> = self.0.lock().unwrap().iter().map(|(id, database)| (*id, database.clone())).collect();
        for (_, standby) in &all {
            standby.receive();
        }
        let holds = |id: &NodeId, database: &ModelDatabase| {
            let follows = database.status.borrow().follows;
            rule.standbys.contains(id) && follows == Some((at, rule.term)) && database.end() >= end
        };
        all.iter().filter(|(id, database)| holds(id, database)).count() >= rule.count
    }
}

/// A database whose WAL is a list of rows, each with a mark of who wrote it.
pub struct ModelDatabase {
    all: Databases,
    wal: Mutex<Vec<u64>>,
    rule: Mutex<SyncRule>,
    status: watch::Sender<DatabaseStatus>,
    /// Whether clients are let in.
    open: Mutex<bool>,
    kept_for: Mutex<BTreeSet<NodeId>>,
    /// Whether it takes no WAL, though it streams.
    deaf: Mutex<bool>,
    /// Why it cannot be fenced.
    broken: Mutex<Option<String>>,
    /// Whether a rewind fails, as it does while its primary cannot be reached.
    unrewindable: Mutex<bool>,
    panics: Mutex<bool>,
    hangs: Mutex<bool>,
    unpromotable: Mutex<Option<String>>,
}

impl ModelDatabase {
    fn id(&self) -> NodeId {
        *self.all.0.lock().unwrap().iter().find(|(_, other)| std::ptr::eq(&***other, self)).unwrap().0
    }

    /// Whether it is a primary that clients are let in to.
    pub fn admits(&self) -> bool {
        self.serves() && *self.open.lock().unwrap()
    }

    /// The nodes for which it keeps WAL.
    pub fn kept_for(&self) -> BTreeSet<NodeId> {
        self.kept_for.lock().unwrap().clone()
    }

    /// Writes a row, which nobody waits for.
    pub fn insert(&self) {
        self.write();
    }

    /// The sync rule that it was told last.
    pub fn sync_rule(&self) -> SyncRule {
        self.rule.lock().unwrap().clone()
    }

    /// Takes no more WAL, or takes it again.
    pub fn set_deaf(&self, deaf: bool) {
        *self.deaf.lock().unwrap() = deaf;
    }

    /// Cannot be fenced any more.
    pub fn break_down(&self, reason: &str) {
        *self.broken.lock().unwrap() = Some(reason.to_owned());
    }

    /// Is never done with being fenced.
    pub fn hang_when_fenced(&self) {
        *self.hangs.lock().unwrap() = true;
    }

    /// Panics when it is fenced.
    pub fn panic_when_fenced(&self) {
        *self.panics.lock().unwrap() = true;
    }

    /// Cannot be promoted any more.
    pub fn refuse_promotions(&self, reason: &str) {
        *self.unpromotable.lock().unwrap() = Some(reason.to_owned());
    }

    /// Cannot be rewound, or can be again.
    pub fn set_unrewindable(&self, unrewindable: bool) {
        *self.unrewindable.lock().unwrap() = unrewindable;
    }

    /// Says that it is not fit, or that it is again.
    pub fn set_unfit(&self, reason: Option<&str>) {
        self.set(|status| status.unfit = reason.map(str::to_owned));
    }

    /// Says that its primary has no more the WAL that it needs, until it is a copy again.
    pub fn lack_wal(&self) {
        self.set(|status| (status.lacks_wal, status.streaming) = (true, false));
    }

    /// Whether its receiver streams.
    pub fn streams(&self) -> bool {
        self.status.borrow().streaming
    }

    /// Whether it lacks WAL.
    pub fn lacks_wal(&self) -> bool {
        self.status.borrow().lacks_wal
    }

    /// The rows that it holds; what `hold` writes is none.
    pub fn rows(&self) -> usize {
        self.wal.lock().unwrap().iter().filter(|mark| **mark != 0).count()
    }

    fn end(&self) -> usize {
        self.wal.lock().unwrap().len()
    }

    fn append(&self, mark: u64) -> Written {
        self.wal.lock().unwrap().push(mark);
        self.set(|_| {});
        Written { at: self.id(), length: self.end() }
    }

    pub fn role(&self) -> DatabaseRole {
        self.status.borrow().role
    }

    pub fn serves(&self) -> bool {
        self.role() == DatabaseRole::Primary
    }

    /// It stops, and comes back as a standby that follows nobody.
    pub fn crash(&self) {
        self.set(|status| {
            status.role = DatabaseRole::Standby;
            status.follows = None;
            status.streaming = false;
        });
    }

    fn write(&self) -> Written {
        self.append(rand::random::<u64>().max(1))
    }

    fn set(&self, change: impl FnOnce(&mut DatabaseStatus)) {
        let lsn = Lsn(self.end() as u64);
        self.status.send_modify(|status| {
            change(status);
            status.lsn = Some(lsn);
            status.timeline = Some(1);
        });
    }

    fn receive(&self) {
        let Some((primary, _)) = self.status.borrow().follows else { return };
        let primary = self.all.of(primary);
        if primary.serves() && !*self.deaf.lock().unwrap() {
            let theirs = primary.wal.lock().unwrap().clone();
            let mut mine = self.wal.lock().unwrap();
            assert_eq!(theirs[..mine.len()], mine[..], "a diverged standby streams");
            *mine = theirs;
            drop(mine);
            self.set(|_| {});
        }
    }

    fn follow_now(&self, primary: Primary) {
        self.set(|status| {
            status.role = DatabaseRole::Standby;
            status.follows = Some((primary.node, primary.term));
            status.streaming = true;
        });
        self.receive();
    }
}

type Done<T> = BoxFuture<'static, Result<T, DatabaseError>>;

fn done<T: Send + 'static>(value: T) -> Done<T> {
    // A database takes its time; the caller must not rely on an answer at once.
    async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(value)
    }
    .boxed()
}

impl Database for ModelDatabase {
    fn status(&self) -> watch::Receiver<DatabaseStatus> {
        self.status.subscribe()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }

    fn fence(&self, _: Duration) -> Done<Lsn> {
        assert!(!*self.panics.lock().unwrap(), "it panics, as it was told to");
        if *self.hangs.lock().unwrap() {
            return futures::future::pending().boxed();
        }
        if let Some(reason) = self.broken.lock().unwrap().clone() {
            let attempted = "fence the database".to_owned();
            return futures::future::ready(Err(DatabaseError::Unfit { attempted, reason })).boxed();
        }
        self.crash();
        done(Lsn(self.end() as u64))
    }

    fn demote(&self, _: Duration) -> Done<()> {
        self.crash();
        done(())
    }

    fn promote(&self, rule: SyncRule) -> Done<Promotion> {
        if let Some(reason) = self.unpromotable.lock().unwrap().clone() {
            let attempted = "promote the database".to_owned();
            return futures::future::ready(Err(DatabaseError::Unfit { attempted, reason })).boxed();
        }
        assert_eq!(self.role(), DatabaseRole::Standby);
        *self.rule.lock().unwrap() = rule;
        *self.open.lock().unwrap() = false;
        self.set(|status| status.role = DatabaseRole::Primary);
        done(Promotion { timeline: 1, start: Lsn(self.end() as u64) })
    }

    fn set_sync_rule(&self, rule: SyncRule) -> Done<()> {
        *self.rule.lock().unwrap() = rule;
        done(())
    }

    fn follow(&self, primary: Primary) -> Done<()> {
        self.follow_now(primary);
        done(())
    }

    fn rewind(&self, primary: Primary, _: Lsn) -> Done<()> {
        if *self.unrewindable.lock().unwrap() {
            let (attempted, reason) = ("rewind the database".to_owned(), "its primary is not reached".to_owned());
            return futures::future::ready(Err(DatabaseError::Unfit { attempted, reason })).boxed();
        }
        let theirs = self.all.of(primary.node).wal.lock().unwrap().clone();
        let mut mine = self.wal.lock().unwrap();
        let common = mine.iter().zip(&theirs).take_while(|(mine, theirs)| mine == theirs).count();
        mine.truncate(common);
        drop(mine);
        self.follow_now(primary);
        done(())
    }

    fn settle(&self, _: Primary) -> Done<()> {
        done(())
    }

    fn copy_from(&self, primary: Primary) -> Done<()> {
        *self.wal.lock().unwrap() = self.all.of(primary.node).wal.lock().unwrap().clone();
        self.set(|status| status.lacks_wal = false);
        self.follow_now(primary);
        done(())
    }

    fn hold(&self) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let written = self.append(0);
        async move {
            while !self.all.acknowledged(&written) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn flushed(&self, rule: SyncRule) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let end = self.end();
        async move {
            while !self.all.hold(self.id(), &rule, end) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn admit(&self) -> Done<()> {
        *self.open.lock().unwrap() = true;
        done(())
    }

    fn stop(&self) -> Done<Lsn> {
        let last = self.end().saturating_sub(1);
        self.set(|status| status.role = DatabaseRole::Stopped);
        done(Lsn(last as u64))
    }

    fn keep_wal(&self, standbys: BTreeMap<NodeId, Option<Lsn>>) -> Done<()> {
        *self.kept_for.lock().unwrap() = standbys.into_keys().collect();
        done(())
    }
}
