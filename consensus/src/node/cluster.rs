//! The handle on a node of a cluster that the server uses.

mod known_leader;
mod members;
mod queries;
mod report;
mod role;
mod serve;
mod switchover;
mod vitals;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

pub use self::vitals::Vitals;
use crate::env::clock::Clock;
use crate::env::lock::lock;
pub use crate::env::observers::CAUSES;
use crate::env::random::Random;
use crate::model::{Node, NodeId, NodeRole};
pub use crate::node::error::{ClusterError, StartError};
use crate::node::fitness;
use crate::node::leader;
use crate::node::tasks::{keep_wal, live_settings, own_report, until_removed, watch_removal};
use crate::primary::local::Local;
use crate::primary::supervisor::{Order, Supervisor};
use crate::protocol::command::Change;
use crate::protocol::database::{Database, DatabaseRole};
use crate::protocol::peer::Peer;
use crate::protocol::state::State;
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
    /// What one of these tasks said when it panicked.
    panicked: OnceLock<String>,
    /// Held by a change of the leader by hand: one at a time.
    switchover: tokio::sync::Mutex<()>,
}

/// What a node needs to take part in its cluster.
pub struct Parts {
    /// Its store, with its identity in it.
    pub store: Store,
    /// Carries what it says to the others.
    pub transport: Arc<dyn Transport>,
    /// The database beside it; None if there is none.
    pub database: Option<Arc<dyn Database>>,
    /// The clock for its leases.
    pub clock: Clock,
    /// The chance that its elections and the ids of its commands come from.
    pub random: Random,
    /// What it speaks; the transport tells the others.
    pub versions: Spoken,
}

/// The node that `store` belongs to, as the entries that are committed there have it, and whether its cluster has had a
/// primary yet; None if the node is no member by them. From then on `versions` are those that its cluster speaks.
///
/// # Errors
///
/// Fails if the store cannot be read, or is of a version that this program does not know.
pub fn known_member(store: &Store, versions: &Spoken) -> Result<Option<(Node, bool)>, StartError> {
    let Some(identity) = store.identity()? else { return Ok(None) };
    let mut state = StateMachine::committed(store, versions)?;
    let promoted = state.promoted.is_some();
    Ok(state.nodes.remove(&identity.node).map(|node| (node, promoted)))
}

impl Cluster {
    /// Makes `node` the first of a new cluster: writes its identity and the first entries of the log. It is safe to repeat
    /// after it failed half-way. A node that is part of a cluster is left as it is.
    ///
    /// # Errors
    ///
    /// Fails if the store or the Raft core does.
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
            // If it does not lead yet, it will soon. A change that was not confirmed in time may still be applied: then a
            // second one is refused.
            let proposed = propose(core, change, reason, core.config().node_timeout.get()).await;
            if let (Err(error), Some(_)) = (proposed, core.raft_status().stopped) {
                return Err(core.failed("creating the cluster", error).into());
            }
            let _ = tokio::time::timeout(Duration::from_millis(10), progress.changed()).await;
        }
        Ok(cluster)
    }

    /// Starts the node whose identity is in the store.
    ///
    /// # Errors
    ///
    /// [`StartError::NoIdentity`] if the store has none; else if the store or the Raft core fails.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts { store, transport, database, clock, random, versions } = parts;
        let identity = store.identity()?.ok_or(StartError::NoIdentity)?;
        let removed = watch::Sender::new(store.removed()?);
        let machine = StateMachine::new(store.clone(), versions.clone())?;
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
        let started = Core::start(store, machine, context).await;
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
        // The task belongs to the cluster, so it must not keep the cluster alive.
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
        self.spawn(until_removed(inner.removed.subscribe(), fitness::run(core.clone(), inner.local.clone(), ask)));
        self.spawn(until_removed(inner.removed.subscribe(), role::tell(Arc::downgrade(inner))));
        self.spawn(live_settings(core.clone()));
        self.spawn(watch_removal(core, inner.removed.clone()));
    }

    /// Stops consensus on this node. The database goes on as it is.
    ///
    /// # Errors
    ///
    /// Fails if the Raft core does not stop.
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
        self.0.core.shutdown().await
    }

    /// Why consensus on this node has ended though nobody stopped it; None if it runs. Usually its store failed. It runs
    /// again only once the node is started again. For a node that was removed this is None: its consensus has ended for good.
    pub fn stopped(&self) -> Option<String> {
        if *self.0.removed.borrow() {
            return None;
        }
        let mut tasks = lock(&self.0.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                // Without one of its tasks a node would neither lead nor follow, and not say so.
                self.0.panicked.get_or_init(|| error.to_string());
            }
        }
        self.0.core.raft_status().stopped.or_else(|| self.0.panicked.get().cloned())
    }

    /// This node and its cluster.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Whether this node was removed from its cluster. The receiver can be waited on.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.0.removed.subscribe()
    }

    /// The voters of the committed membership.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.0.core.membership().1.into_iter().flatten().collect()
    }

    /// This node as a member of its cluster; None if it is none.
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

    /// How long a change is waited for.
    fn time_limit(&self) -> Duration {
        let config = self.0.core.config();
        config.node_timeout.get() + config.pre_voting_timeout.get() + config.leader_voting_timeout.get()
    }
}

fn internal<E: std::error::Error + Send + Sync + 'static>(attempted: &'static str) -> impl Fn(E) -> ClusterError {
    move |source| ClusterError::Internal { attempted, source: Box::new(source) }
}
