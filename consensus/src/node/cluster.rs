//! The handle on a node of a cluster that the server uses.

mod lead;
mod members;
mod report;
mod role;
mod serve;
mod vitals;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

pub use self::vitals::Vitals;
use crate::env::clock::{Clock, Instant};
use crate::env::lock::lock;
pub use crate::env::observers::CAUSES;
use crate::env::random::Random;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{
    ClusterInfo, ClusterLog, ClusterMap, ClusterStatus, Config, Event, Leader, LogIndex, Node, NodeId, NodeRole,
    ReadonlyStatements, Term,
};
pub use crate::node::error::{ClusterError, StartError};
use crate::node::leader;
use crate::node::tasks::{keep_wal, live_settings, own_report, until_removed, watch_removal};
use crate::node::upkeep;
use crate::primary::local::Local;
use crate::primary::supervisor::{Order, Supervisor};
use crate::protocol::command::Change;
use crate::protocol::database::{Database, DatabaseRole};
use crate::protocol::peer::Peer;
use crate::protocol::quorum::majority;
use crate::protocol::readonly::{Readonly, ReadonlyChange};
use crate::protocol::state::{Lead, State};
use crate::protocol::version::Spoken;
use crate::raft::context::Context;
use crate::raft::core::{Core, RaftError};
use crate::raft::election::{self, Candidacy};
pub use crate::raft::lease::Lease;
use crate::raft::propose::{Reason, propose};
use crate::raft::state_machine::StateMachine;
use crate::raft::store::{Identity, Store};
use crate::raft::transport::{NodeReport, Transport};
use crate::raft::views::{self, Views, validity};
use crate::raft::wire::LogEntry;

/// At most so many entries are told by [`Cluster::info`], the newest.
const LOGS_TOLD: u64 = 1000;

/// A node of a cluster: what it knows, and what can be asked of it. Clones share it.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    core: Core,
    identity: Identity,
    views: Views,
    local: Local,
    orders: mpsc::Sender<Order>,
    removed: watch::Sender<bool>,
    tasks: std::sync::Mutex<JoinSet<()>>,
    /// What a task of these said that panicked.
    panicked: OnceLock<String>,
    /// One change of the leader by hand at a time.
    switchover: tokio::sync::Mutex<()>,
}

/// What a node needs to take part in its cluster.
pub struct Parts {
    /// Its store, with its identity in it.
    pub store: Store,
    /// Carries what it says to the others.
    pub transport: Arc<dyn Transport>,
    /// The database beside it, where there is one.
    pub database: Option<Arc<dyn Database>>,
    /// The clock for its leases.
    pub clock: Clock,
    /// The chance that its elections and the ids of its commands come from.
    pub random: Random,
    /// What it speaks; the transport tells the others.
    pub versions: Spoken,
}

/// The node that `store` belongs to, as the cluster has it by what is committed there, and whether that cluster had a
/// primary yet; none where that is not known. It follows what that says of `versions`.
pub fn known_member(store: &Store, versions: &Spoken) -> Result<Option<(Node, bool)>, StartError> {
    let Some(identity) = store.identity()? else { return Ok(None) };
    let mut state = StateMachine::committed(store, versions)?;
    let promoted = state.promoted.is_some();
    Ok(state.nodes.remove(&identity.node).map(|node| (node, promoted)))
}

impl Cluster {
    /// Makes `node` the first of a new cluster: writes its identity and the first entries of the log. Safe to repeat
    /// after it failed half-way; a node that is part of a cluster is left as it is.
    pub async fn create(parts: Parts, node: Node) -> Result<Self, StartError> {
        if parts.store.identity()?.is_none() {
            parts.store.set_identity(&Identity { cluster: parts.random.uuid(), node: node.id })?;
        }
        let cluster = Self::start(parts).await?;
        if *cluster.0.removed.borrow() {
            return Ok(cluster);
        }
        let core = &cluster.0.core;
        let raft = core.ready().await;
        let initialized =
            raft.is_initialized().await.map_err(|error| core.failed("being asked for its state", error))?;
        if !initialized {
            let members = std::collections::BTreeMap::from([(node.id, Peer::from(&node))]);
            raft.initialize(members).await.map_err(|error| core.failed("being initialized", error))?;
        }
        let mut progress = core.state_machine().progress();
        while core.state_machine().read(|applied| applied.state.cluster.is_none()) {
            let change = Change::Create { cluster: cluster.0.identity.cluster, node: node.clone() };
            let reason = Reason::own(core, "bootstrap");
            // It will be elected soon, where it is not; and what was not confirmed in time may be applied yet: a second one
            // is refused then.
            let proposed = propose(core, change, reason, core.config().node_timeout.get()).await;
            if let (Err(error), Some(_)) = (proposed, core.raft_status().stopped) {
                return Err(core.failed("creating the cluster", error).into());
            }
            let _ = tokio::time::timeout(Duration::from_millis(10), progress.changed()).await;
        }
        Ok(cluster)
    }

    /// Starts the node whose identity is in the store.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts { store, transport, database, clock, random, versions } = parts;
        let identity = store.identity()?.ok_or(StartError::NoIdentity)?;
        let removed = watch::Sender::new(store.removed()?);
        let state_machine = StateMachine::new(store.clone(), versions.clone())?;
        let context = Context {
            id: identity.node,
            transport,
            clock,
            random,
            versions: versions.clone(),
            grants: Default::default(),
            candidate: Default::default(),
            removed: removed.clone(),
            stand: Arc::default(),
        };
        let stand = context.stand.clone();
        let started = Core::start(store, state_machine, context).await;
        let core = started.map_err(|error| match versions.unknown() {
            Some(unknown) => StartError::Store(unknown.into()),
            None => error.into(),
        })?;
        let views = Views::default();
        let supervisor = Supervisor::new(core.clone(), database, views.clone(), removed.subscribe())?;
        let (orders, ordered) = mpsc::channel(16);
        let inner = Arc::new(Inner {
            core,
            identity,
            views,
            local: supervisor.local(),
            orders,
            removed,
            tasks: Default::default(),
            panicked: OnceLock::new(),
            switchover: Default::default(),
        });
        let cluster = Self(inner);
        cluster.spawn(supervisor.run(ordered));
        cluster.spawn_tasks(stand);
        Ok(cluster)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0.tasks).spawn(task);
    }

    fn spawn_tasks(&self, stand: Arc<Notify>) {
        let inner = &self.0;
        let core = inner.core.clone();
        let local = inner.local.clone();
        let me = core.clone();
        let candidacy = move || {
            let role = me.state_machine().read(|applied| applied.state.nodes.get(&me.id()).map(|node| node.role));
            let last = local.unfit().is_some() || role == Some(NodeRole::Witness);
            Candidacy { position: local.position(), last }
        };
        self.spawn(until_removed(inner.removed.subscribe(), election::run(core.clone(), candidacy, stand)));
        let (me, local, seen) = (core.clone(), inner.local.clone(), inner.views.clone());
        let report = move || own_report(&me, &local, &seen);
        self.spawn(until_removed(inner.removed.subscribe(), views::run(core.clone(), inner.views.clone(), report)));
        self.spawn(until_removed(
            inner.removed.subscribe(),
            leader::run(core.clone(), inner.local.clone(), inner.views.clone(), inner.orders.clone()),
        ));
        let kept = keep_wal(core.clone(), inner.local.clone(), inner.views.clone());
        self.spawn(until_removed(inner.removed.subscribe(), kept));
        // The task is the cluster's own: it must not keep it alive.
        let cluster = Arc::downgrade(inner);
        let ask = move |ask| {
            let cluster = cluster.upgrade().map(Cluster);
            async move {
                match cluster {
                    Some(cluster) => cluster.ask_leader(ask).await,
                    None => Ok(()),
                }
            }
        };
        self.spawn(until_removed(inner.removed.subscribe(), upkeep::run(core.clone(), inner.local.clone(), ask)));
        self.spawn(until_removed(inner.removed.subscribe(), role::tell(Arc::downgrade(inner))));
        self.spawn(live_settings(core.clone()));
        self.spawn(watch_removal(core, inner.removed.clone()));
    }

    /// Stops consensus on this node. The database goes on as it is.
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
        self.0.core.shutdown().await
    }

    /// Why consensus on this node has ended though nobody stopped it, where that is so: as a rule, its store failed. It
    /// begins again with the node only. That of a node that was removed has ended for good.
    pub fn stopped(&self) -> Option<String> {
        if *self.0.removed.borrow() {
            return None;
        }
        let mut tasks = lock(&self.0.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                // Without one of them it would neither lead nor follow, and not say so.
                self.0.panicked.get_or_init(|| error.to_string());
            }
        }
        self.0.core.raft_status().stopped.or_else(|| self.0.panicked.get().cloned())
    }

    /// This node and its cluster.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Whether this node was removed from its cluster; it can be waited for.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.0.removed.subscribe()
    }

    /// The voters that are in force: those that the committed membership names.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.0.core.membership().1.into_iter().flatten().collect()
    }

    /// This node as a member of its cluster, where it is one.
    pub fn own_node(&self) -> Option<Node> {
        self.member(self.0.identity.node).ok()
    }

    /// Whether the database of this node is a primary that lets clients in. It may be a deposed one: ask
    /// [`Cluster::is_leader`], too.
    pub fn admits(&self) -> bool {
        let local = &self.0.local;
        let is_primary = local.status().is_some_and(|status| status.role == DatabaseRole::Primary);
        is_primary && local.admitted.load(Ordering::Relaxed)
    }

    // ---- what is asked ----

    /// The leader as this node knows it, where there is one: it was announced in the newest term and, if it is this
    /// node, its lease holds; if another, it was heard from within the node time-out.
    pub fn leader(&self) -> Result<Leader, ClusterError> {
        self.check_member()?;
        self.known_leader().ok_or_else(|| ClusterError::NoLeader(self.why_no_leader()))
    }

    /// The leader, where it is this node: no two nodes tell this at once.
    pub fn is_leader(&self) -> Result<Leader, ClusterError> {
        let leader = self.leader()?;
        if leader.id == self.0.identity.node { Ok(leader) } else { Err(ClusterError::NotLeader(Box::new(leader))) }
    }

    /// Until when nobody else can be elected, where this node leads, on the clock that it was started with: so long its
    /// database may serve as the primary. That may be over. None where it does not lead, no majority has promised it
    /// anything yet, or its lead is being handed over.
    pub fn lease_end(&self) -> Option<Instant> {
        self.lease().map(|lease| lease.end)
    }

    /// The same, and when the database is fenced before that.
    pub fn lease(&self) -> Option<Lease> {
        let core = &self.0.core;
        let raft = core.raft_status();
        if raft.leader == Some(core.id()) { core.lease(raft.term) } else { None }
    }

    /// The map as this node knows it.
    pub fn map(&self) -> Result<ClusterMap, ClusterError> {
        self.check_member()?;
        let leader = self.known_leader().map(|leader| leader.id);
        let reason = leader.is_none().then(|| self.why_no_leader());
        let term = self.0.core.raft_status().term;
        Ok(self.read(|state| ClusterMap {
            leader,
            reason,
            nodes: state.nodes.clone(),
            config: state.config.clone(),
            term,
            index: state.map_index,
        }))
    }

    /// The map once it is newer than `after`, or when `wait` is over.
    pub async fn map_after(&self, after: LogIndex, wait: Duration) -> Result<ClusterMap, ClusterError> {
        self.wait_for(wait, |state| state.map_index > after).await?;
        self.map()
    }

    /// The settings.
    pub fn config(&self) -> Result<Config, ClusterError> {
        self.check_member()?;
        Ok(self.0.core.config())
    }

    /// What a previously added node needs to start.
    pub async fn info(&self) -> Result<ClusterInfo, ClusterError> {
        self.check_member()?;
        let core = &self.0.core;
        let (state, last) = core.state_machine().read(|applied| (applied.state.clone(), applied.last));
        let applied = last.map_or(0, |last| last.index);
        let internal = |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Internal {
            attempted: "reading the cluster's log",
            source,
        };
        let first = applied.saturating_sub(LOGS_TOLD - 1);
        let entries = core.entries(first..=applied).map_err(|error| internal(error.into()))?;
        let compacted = entries.first().is_none_or(|entry| entry.position.index > 0);
        let term = core.raft_status().term;
        let logs = if compacted {
            let payload = serde_json::to_value(&state).map_err(|error| internal(error.into()))?;
            let term = last.map_or(Term(0), |last| last.term);
            vec![ClusterLog { index: LogIndex(applied), term, payload: [("snapshot".into(), payload)].into() }]
        } else {
            entries
                .into_iter()
                .map(LogEntry::into_api)
                .collect::<Result<_, _>>()
                .map_err(|error| internal(error.into()))?
        };
        let cluster_id = self.0.identity.cluster;
        Ok(ClusterInfo { cluster_id, term, applied_index: LogIndex(applied), config: state.config, logs })
    }

    /// The statements that do not write, with their generation: none where that is `known`.
    pub fn readonly(&self, known: Option<u64>) -> Result<(u64, Option<ReadonlyStatements>), ClusterError> {
        self.check_member()?;
        Ok(self.read(|state| {
            let generation = state.readonly.generation;
            (generation, (known != Some(generation)).then(|| state.readonly.told()))
        }))
    }

    /// The same once there is another generation than `known`, or when `wait` is over.
    pub async fn readonly_after(
        &self,
        known: u64,
        wait: Duration,
    ) -> Result<(u64, Option<ReadonlyStatements>), ClusterError> {
        self.wait_for(wait, |state| state.readonly.generation != known).await?;
        self.readonly(Some(known))
    }

    /// What is agreed on about the statements that do not write.
    pub fn agreed_readonly(&self) -> Readonly {
        self.read(|state| state.readonly.clone())
    }

    /// A part of it, without a copy of the whole.
    pub fn readonly_part<T>(&self, look: impl FnOnce(&Readonly) -> T) -> T {
        self.read(|state| look(&state.readonly))
    }

    /// Changes it. A change of another term, or that does not follow what is agreed on by then, is refused.
    pub async fn change_readonly(&self, change: ReadonlyChange, cause: &str) -> Result<(), ClusterError> {
        self.change(Change::Readonly(change), Reason::own(&self.0.core, cause)).await?;
        Ok(())
    }

    /// The newest `limit` events, or with `after` the oldest of those after it; with `wait`, waits for one.
    pub async fn events(&self, after: Option<LogIndex>, limit: usize, wait: Duration) -> Vec<Event> {
        if let Some(after) = after
            && !wait.is_zero()
        {
            let newer = |state: &State| state.events.back().is_some_and(|event| event.index > after);
            // A node that is no member has its events all the same.
            let _ = self.wait_for(wait, newer).await;
        }
        self.read(|state| match after {
            Some(after) => state.events.iter().filter(|event| event.index > after).take(limit).cloned().collect(),
            None => state.events.iter().skip(state.events.len().saturating_sub(limit)).cloned().collect(),
        })
    }

    /// How the nodes are, as this one heard of them lately.
    pub fn status(&self) -> Result<ClusterStatus, ClusterError> {
        self.check_member()?;
        let leader = self.known_leader().map(|leader| (leader.id, leader.term));
        Ok(report::status(self.0.identity.node, leader, self.reports()))
    }

    /// The newest report of each other node, and the own one.
    pub fn reports(&self) -> Vec<NodeReport> {
        let (core, views) = (&self.0.core, &self.0.views);
        let (now, age) = (core.clock().now(), validity(core));
        let nodes: Vec<_> = self.read(|state| state.nodes.keys().copied().collect());
        let others = nodes.into_iter().filter_map(|node| views.fresh(node, now, age));
        others.chain([own_report(core, &self.0.local, views)]).collect()
    }

    // ---- how ----

    #[cfg(feature = "simulation")]
    pub(crate) fn core(&self) -> &Core {
        &self.0.core
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.0.core.state_machine().read(|applied| look(&applied.state))
    }

    fn member(&self, id: NodeId) -> Result<Node, ClusterError> {
        let unknown = || ClusterError::Precondition(format!("node {id} is not part of the cluster"));
        self.read(|state| state.nodes.get(&id).cloned()).ok_or_else(unknown)
    }

    fn fresh_report(&self, id: NodeId) -> Option<NodeReport> {
        self.0.views.fresh(id, self.0.core.clock().now(), validity(&self.0.core))
    }

    /// Whether this node is part of a cluster, knows it, and its consensus runs.
    fn check_member(&self) -> Result<(), ClusterError> {
        if *self.0.removed.borrow() {
            return Err(ClusterError::Precondition("this node was removed from its cluster".into()));
        }
        if let Some(reason) = self.0.core.raft_status().stopped {
            return Err(ClusterError::Unavailable(format!("this node's consensus has stopped: {reason}")));
        }
        if self.read(|state| state.cluster.is_none()) {
            return Err(ClusterError::Precondition(
                "this node is not part of a cluster yet: it has not received the cluster's log".into(),
            ));
        }
        Ok(())
    }

    fn known_leader(&self) -> Option<Leader> {
        let core = &self.0.core;
        let raft = core.raft_status();
        let now = core.clock().now();
        let lead = self.read(|state| state.lead)?;
        if raft.leader != Some(lead.node) || lead.term != raft.term {
            return None;
        }
        let holds = if lead.node == core.id() {
            core.lease_end(lead.term).is_some_and(|end| now < end) || sabotage::is(Sabotage::LeaderWithoutLease)
        } else {
            let heard = *core.heard().borrow();
            heard.is_some_and(|heard| now < heard.at + core.config().node_timeout.get())
        };
        holds.then(|| self.leader_of(lead)).flatten()
    }

    fn leader_of(&self, lead: Lead) -> Option<Leader> {
        let node = self.read(|state| state.nodes.get(&lead.node).cloned())?;
        Some(Leader { id: node.id, term: lead.term, ip: node.ip, api_port: node.api_port, db_port: node.db_port })
    }

    fn why_no_leader(&self) -> String {
        let core = &self.0.core;
        let raft = core.raft_status();
        let (now, age) = (core.clock().now(), validity(core));
        let seen = self.0.views.seen(now, age);
        let voters: BTreeSet<NodeId> = core.voters().into_iter().flatten().collect();
        let answering = voters.iter().filter(|&&voter| voter == core.id() || seen.contains(&voter)).count();
        let mut reason = if answering < majority(voters.len()) {
            format!("no majority: of {} voters, this node reaches {answering}, itself included", voters.len())
        } else if raft.leader == Some(core.id()) {
            format!("this node was elected in term {} and is taking up its lead", raft.term)
        } else if let Some(leader) = raft.leader {
            format!("node {leader} leads term {} and does not answer, or is still taking up its lead", raft.term)
        } else {
            format!("an election is under way in term {}", raft.term)
        };
        if let Some(note) = self.0.local.note.borrow().as_deref() {
            reason.push_str(&format!("; this node: {note}"));
        }
        // Whoever was elected knows what it waits for.
        let elected = raft.leader.filter(|&elected| elected != core.id());
        let told = elected.and_then(|elected| self.0.views.fresh(elected, now, age)?.note);
        if let (Some(elected), Some(note)) = (elected, told) {
            reason.push_str(&format!("; node {elected}: {note}"));
        }
        reason
    }

    /// Waits until this node leads with authority, as it may just have been elected, and returns itself; otherwise
    /// tells who leads, or that nobody does.
    async fn authority(&self) -> Result<Leader, ClusterError> {
        let core = &self.0.core;
        let patience = core.config().leader_voting_timeout.get();
        let settled = async {
            loop {
                match self.is_leader() {
                    Err(ClusterError::NoLeader(_)) if core.raft_status().leader == Some(core.id()) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    settled => return settled,
                }
            }
        };
        tokio::time::timeout(patience, settled).await.unwrap_or_else(|_| self.is_leader())
    }

    /// For how long a change is waited for.
    fn patience(&self) -> Duration {
        let config = self.0.core.config();
        config.node_timeout.get() + config.pre_voting_timeout.get() + config.leader_voting_timeout.get()
    }

    async fn wait_for(&self, wait: Duration, goal: impl Fn(&State) -> bool) -> Result<(), ClusterError> {
        self.check_member()?;
        let mut progress = self.0.core.state_machine().progress();
        let mut removed = self.0.removed.subscribe();
        let reached = async {
            loop {
                progress.borrow_and_update();
                if self.read(&goal) || *removed.borrow_and_update() {
                    return;
                }
                tokio::select! { _ = progress.changed() => {}, _ = removed.changed() => {} }
            }
        };
        // That nothing happened in time is an answer, too.
        let _ = tokio::time::timeout(wait, reached).await;
        Ok(())
    }
}

fn internal<E: std::error::Error + Send + Sync + 'static>(attempted: &'static str) -> impl Fn(E) -> ClusterError {
    move |source| ClusterError::Internal { attempted, source: Box::new(source) }
}
