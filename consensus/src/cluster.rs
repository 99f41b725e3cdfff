//! The handle on a node of a cluster that the server uses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::{EntryPayload, RaftLogReader};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clock::{Clock, Instant};
pub use crate::cluster_error::{ClusterError, StartError};
use crate::command::{Change, Outcome};
use crate::database::{Database, DatabaseRole};
use crate::durability::{log_holders, majority};
use crate::duty::{Duty, Local, Order, chain};
use crate::election::{self, Candidacy};
use crate::handover;
use crate::leader;
use crate::machine::Machine;
use crate::membership::majority_without;
use crate::model::{
    ClusterInfo, ClusterLog, ClusterMap, Config, ConfigUpdate, Event, Leader, LogIndex, Node, NodeId, NodeRole, Port,
    ReadonlyStatements, Term,
};
use crate::propose::{ProposeError, Reason, propose};
use crate::raft::{Context, Core, RaftError};
use crate::state::{Lead, State};
use crate::store::{Identity, Store};
use crate::tasks::{live_settings, own_report, until_removed, watch_removal};
use crate::transport::{NodeReport, PeerRequest, PeerResponse, Transport};
use crate::types::{Entry, Peer};
use crate::views::{self, Views, validity};

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
    note: watch::Receiver<Option<String>>,
    tasks: std::sync::Mutex<JoinSet<()>>,
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
}

impl Cluster {
    /// Makes `node` the first of a new cluster: writes its identity and the first entries of the log. Safe to repeat
    /// after it failed half-way; a node that is part of a cluster is left as it is.
    pub async fn create(parts: Parts, node: Node) -> Result<Self, StartError> {
        if parts.store.identity()?.is_none() {
            parts.store.set_identity(&Identity { cluster: Uuid::new_v4(), node: node.id })?;
        }
        let cluster = Self::start(parts).await?;
        let core = &cluster.0.core;
        let raft = core.ready().await;
        let initialized =
            raft.is_initialized().await.map_err(|error| core.failed("being asked for its state", error))?;
        if !initialized {
            let members = std::collections::BTreeMap::from([(node.id, Peer::from(&node))]);
            raft.initialize(members).await.map_err(|error| core.failed("being initialized", error))?;
        }
        let mut progress = core.machine().progress();
        while core.machine().read(|applied| applied.state.cluster.is_none()) {
            let change = Change::Create { cluster: cluster.0.identity.cluster, node: node.clone() };
            let reason = Reason::own(core, "bootstrap");
            match propose(core, change, reason, core.config().node_timeout.get()).await {
                // It was elected before, or will be soon.
                Ok(_) | Err(ProposeError::NotLeader) => {}
                Err(error) => return Err(core.failed("creating the cluster", error).into()),
            }
            let _ = tokio::time::timeout(Duration::from_millis(10), progress.changed()).await;
        }
        Ok(cluster)
    }

    /// Starts the node whose identity is in the store.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts { store, transport, database, clock } = parts;
        let identity = store.identity()?.ok_or(StartError::NoIdentity)?;
        let removed = watch::Sender::new(store.removed()?);
        let machine = Machine::new(store.clone())?;
        let context = Context {
            id: identity.node,
            transport,
            clock,
            leases: Default::default(),
            candidate: Default::default(),
            removed: removed.clone(),
            stand: Arc::default(),
        };
        let stand = context.stand.clone();
        let core = Core::start(store, machine, context).await?;
        let (views, note) = (Views::default(), watch::Sender::new(None));
        let duty = Duty::new(core.clone(), database, views.clone(), removed.subscribe(), note.clone())?;
        let (orders, ordered) = mpsc::channel(16);
        let inner = Arc::new(Inner {
            core,
            identity,
            views,
            local: duty.local(),
            orders,
            removed,
            note: note.subscribe(),
            tasks: Default::default(),
            switchover: Default::default(),
        });
        let cluster = Self(inner);
        cluster.spawn(duty.run(ordered));
        cluster.spawn_tasks(stand);
        Ok(cluster)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        crate::raft::lock(&self.0.tasks).spawn(task);
    }

    fn spawn_tasks(&self, stand: Arc<Notify>) {
        let inner = &self.0;
        let core = inner.core.clone();
        let local = inner.local.clone();
        let me = core.clone();
        let candidacy = move || {
            let role = me.machine().read(|applied| applied.state.nodes.get(&me.id()).map(|node| node.role));
            let last = local.unfit().is_some() || role == Some(NodeRole::Witness);
            Candidacy { position: local.position(), last }
        };
        self.spawn(until_removed(inner.removed.subscribe(), election::run(core.clone(), candidacy, stand)));
        let (me, local, seen) = (core.clone(), inner.local.clone(), inner.views.clone());
        let report = move || own_report(&me, &local, &seen);
        self.spawn(until_removed(inner.removed.subscribe(), views::run(core.clone(), inner.views.clone(), report)));
        self.spawn(until_removed(
            inner.removed.subscribe(),
            leader::run(core.clone(), inner.views.clone(), inner.orders.clone()),
        ));
        self.spawn(live_settings(core.clone()));
        self.spawn(watch_removal(core, inner.removed.clone()));
    }

    /// Stops consensus on this node. The database goes on as it is.
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        let mut tasks = std::mem::take(&mut *crate::raft::lock(&self.0.tasks));
        tasks.shutdown().await;
        self.0.core.shutdown().await
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
        let core = &self.0.core;
        let seat = core.seat();
        if seat.leader == Some(core.id()) { core.lease_end(seat.term) } else { None }
    }

    /// The map as this node knows it.
    pub fn map(&self) -> Result<ClusterMap, ClusterError> {
        self.check_member()?;
        let leader = self.known_leader().map(|leader| leader.id);
        let reason = leader.is_none().then(|| self.why_no_leader());
        let term = self.0.core.seat().term;
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
        let (state, last) = core.machine().read(|applied| (applied.state.clone(), applied.last));
        let applied = last.map_or(0, |last| last.index);
        let internal = |source: std::io::Error| ClusterError::Internal {
            attempted: "reading the cluster's log",
            source: Box::new(source),
        };
        let first = applied.saturating_sub(LOGS_TOLD - 1);
        let entries = core.store().clone().try_get_log_entries(first..=applied).await.map_err(internal)?;
        let compacted = entries.first().is_none_or(|entry| entry.log_id.index > 0);
        let term = core.seat().term;
        let logs = if compacted {
            let payload = serde_json::to_value(&state).map_err(|error| internal(error.into()))?;
            let term = last.map_or(Term(0), |last| Term(last.committed_leader_id().term));
            vec![ClusterLog { index: LogIndex(applied), term, payload: [("snapshot".into(), payload)].into() }]
        } else {
            entries.into_iter().map(told).collect::<Result<_, _>>().map_err(|error| internal(error.into()))?
        };
        let cluster_id = self.0.identity.cluster;
        Ok(ClusterInfo { cluster_id, term, applied_index: LogIndex(applied), config: state.config, logs })
    }

    /// The statements that do not write.
    pub fn readonly(&self) -> Result<ReadonlyStatements, ClusterError> {
        self.check_member()?;
        Ok(self.read(|state| state.readonly.clone()))
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

    /// The newest report of each other node, and the own one.
    pub fn reports(&self) -> Vec<NodeReport> {
        let (core, views) = (&self.0.core, &self.0.views);
        let (now, age) = (core.clock().now(), validity(core));
        let nodes: Vec<_> = self.read(|state| state.nodes.keys().copied().collect());
        let others = nodes.into_iter().filter_map(|node| views.fresh(node, now, age));
        others.chain([own_report(core, &self.0.local, views)]).collect()
    }

    // ---- what is changed ----

    /// Changes settings, and returns all of them.
    pub async fn set_config(&self, update: ConfigUpdate, actor: &str) -> Result<Config, ClusterError> {
        // Told apart before leadership is: what is malformed is so at every node.
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

    /// Adds a node, as a listener that becomes `role` when it is upgraded.
    pub async fn add_node(
        &self,
        ip: IpAddr,
        api_port: Port,
        role: NodeRole,
        actor: &str,
    ) -> Result<Node, ClusterError> {
        let reason = Reason::new(actor, format!("added to become a {role}"));
        let node = self.change_node(Change::AddNode { ip, api_port, role }, reason).await?;
        self.member_once(&node, |node, members, _| members.contains(&node)).await?;
        Ok(node)
    }

    /// Upgrades a node to its role, or brings it back after it was declared down.
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
        let reason = Reason::new(actor, format!("upgraded to {role}"));
        let node = self.change_node(Change::UpgradeNode { node: id, db_port, api_port }, reason).await?;
        self.member_once(&node, |node, _, voters| voters.contains(&node) == role.votes()).await?;
        Ok(node)
    }

    /// Declares a node down: it has no vote until it is upgraded again.
    pub async fn down_node(&self, id: NodeId, actor: &str) -> Result<Node, ClusterError> {
        self.authority().await?;
        self.check_rest(id)?;
        if id == self.0.identity.node {
            return self.leave(false).await;
        }
        let reason = Reason::new(actor, "declared down: its database has problems");
        let node = self.change_node(Change::DownNode { node: id }, reason).await?;
        self.member_once(&node, |node, _, voters| !voters.contains(&node)).await?;
        Ok(node)
    }

    /// Removes a node for good.
    pub async fn remove_node(&self, id: NodeId, actor: &str) -> Result<Node, ClusterError> {
        self.authority().await?;
        self.check_rest(id)?;
        if id == self.0.identity.node {
            return self.leave(true).await;
        }
        if self.member(id)?.votes() {
            // Its vote goes first: it stops as soon as it learns that it is removed.
            let reason = Reason::new(actor, "declared down, to be removed");
            let node = self.change_node(Change::DownNode { node: id }, reason).await?;
            self.member_once(&node, |node, _, voters| !voters.contains(&node)).await?;
        }
        let node = self.change_node(Change::RemoveNode { node: id }, Reason::new(actor, "removed")).await?;
        self.member_once(&node, |node, members, _| !members.contains(&node)).await?;
        Ok(node)
    }

    /// Makes `target` the leader, and returns it once it leads.
    pub async fn switch_over(&self, target: NodeId, actor: &str) -> Result<Leader, ClusterError> {
        let leader = self.authority().await?;
        if leader.id == target {
            return Ok(leader);
        }
        let node = self.member(target)?;
        let databases = self.0.local.database.is_some();
        if let Some(reason) = handover::unfit(&node, self.fresh_report(target).as_ref(), databases) {
            return Err(ClusterError::Precondition(reason));
        }
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
        // The new leader fences, promotes and announces itself; where it cannot, another election follows.
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

    /// Serves a request of node `from`. The request is in line when this returns.
    pub fn serve(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'static, PeerResponse> {
        let inner = self.0.clone();
        if self.read(|state| state.was_removed(from)) {
            return Box::pin(std::future::ready(PeerResponse::Removed));
        }
        if *inner.removed.borrow() {
            let reason = "this node was removed from the cluster";
            return Box::pin(std::future::ready(PeerResponse::Failed(reason.into())));
        }
        Box::pin(async move {
            let core = &inner.core;
            match request {
                PeerRequest::Append(request) => core.append(request).await,
                PeerRequest::Vote(request) => core.vote(request).await,
                PeerRequest::PreVote { request, position } => {
                    let better = position.is_some_and(|theirs| {
                        inner.local.unfit().is_none() && inner.local.position().is_some_and(|mine| mine > theirs)
                    });
                    if better && !core.promised_to_a_leader() {
                        core.stand_at_once();
                        return core.reject();
                    }
                    core.pre_vote(request).await
                }
                PeerRequest::Transfer(request) => core.transfer(request).await,
                PeerRequest::Snapshot(chunk) => core.snapshot(chunk).await,
                PeerRequest::Recruit { term } => {
                    if let Some(reason) = inner.local.refuses(term) {
                        return PeerResponse::Failed(reason);
                    }
                    let (answer, promised) = oneshot::channel();
                    let gone = || PeerResponse::Failed("this node is stopping".into());
                    if inner.orders.send(Order::Promise(term, answer)).await.is_err() {
                        return gone();
                    }
                    promised.await.unwrap_or_else(|_| gone())
                }
                PeerRequest::Leave { remove } => {
                    let cluster = Cluster(inner.clone());
                    let actor = format!("node {from}");
                    let left = match remove {
                        true => cluster.remove_node(from, &actor).await,
                        false => cluster.down_node(from, &actor).await,
                    };
                    match left {
                        Ok(node) => PeerResponse::Left(Box::new(node)),
                        Err(error @ ClusterError::Unconfirmed(_)) => PeerResponse::Unconfirmed(chain(&error)),
                        Err(error) => PeerResponse::Failed(chain(&error)),
                    }
                }
                PeerRequest::Report(report) => {
                    inner.views.note(*report, core.clock().now());
                    PeerResponse::Report(Box::new(own_report(core, &inner.local, &inner.views)))
                }
            }
        })
    }

    // ---- how ----

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.0.core.machine().read(|applied| look(&applied.state))
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
        if let Some(reason) = self.0.core.seat().stopped {
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
        let seat = core.seat();
        let now = core.clock().now();
        let lead = self.read(|state| state.lead)?;
        if seat.leader != Some(lead.node) || lead.term != seat.term {
            return None;
        }
        let holds = if lead.node == core.id() {
            core.lease_end(lead.term).is_some_and(|end| now < end)
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
        let seat = core.seat();
        let (now, age) = (core.clock().now(), validity(core));
        let seen = self.0.views.seen(now, age);
        let voters: BTreeSet<NodeId> = core.voters().into_iter().flatten().collect();
        let answering = voters.iter().filter(|&&voter| voter == core.id() || seen.contains(&voter)).count();
        let mut reason = if answering < majority(voters.len()) {
            format!("no majority: of {} voters, this node reaches {answering}, itself included", voters.len())
        } else if seat.leader == Some(core.id()) {
            format!("this node was elected in term {} and is taking up its lead", seat.term)
        } else if let Some(leader) = seat.leader {
            format!("node {leader} leads term {} and does not answer, or is still taking up its lead", seat.term)
        } else {
            format!("an election is under way in term {}", seat.term)
        };
        if let Some(note) = self.0.note.borrow().as_deref() {
            reason.push_str(&format!("; this node: {note}"));
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
                    Err(ClusterError::NoLeader(_)) if core.seat().leader == Some(core.id()) => {
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

    /// Writes a change, and waits until as many voters hold it as the replication factor says. The node that it
    /// concerned is returned where it concerned one.
    async fn change(&self, change: Change, reason: Reason) -> Result<Option<Node>, ClusterError> {
        self.authority().await?;
        let core = &self.0.core;
        let patience = self.patience();
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
        let index = core.machine().progress().borrow().index;
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
            let mut seats = core.seats();
            loop {
                let (members, voters) = core.membership();
                if voters.len() == 1 && goal(node.id, &members, &voters[0]) {
                    return;
                }
                // A membership that is committed shows a little after the seat.
                let _ = tokio::time::timeout(Duration::from_millis(10), seats.changed()).await;
            }
        };
        tokio::time::timeout(self.patience(), reached).await.map_err(|_| {
            ClusterError::Unconfirmed(format!(
                "the change of node {} is written, but the members have not taken it over within {:?}",
                node.id,
                self.patience()
            ))
        })
    }

    async fn wait_for(&self, wait: Duration, goal: impl Fn(&State) -> bool) -> Result<(), ClusterError> {
        self.check_member()?;
        let mut progress = self.0.core.machine().progress();
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

    fn check_upgrade(&self, node: &Node, report: Option<&NodeReport>) -> Result<(), ClusterError> {
        let refused = |reason: String| Err(ClusterError::Precondition(reason));
        let id = node.id;
        if id == self.0.identity.node {
            return Ok(());
        }
        let Some(report) = report else { return refused(format!("node {id} does not answer")) };
        let applied = self.0.core.machine().progress().borrow().index;
        if report.applied.0 + leader::LAG < applied.0 {
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
        match &status.unfit {
            Some(reason) => refused(format!("the database of node {id} is not fit: {reason}")),
            None => Ok(()),
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

    /// This leader is to lose its vote: it hands over first, and asks its successor.
    async fn leave(&self, remove: bool) -> Result<Node, ClusterError> {
        let inner = &self.0;
        let none =
            || ClusterError::Precondition("this node leads, and no other voter is fit to take over from it".into());
        let target = handover::best_target(&inner.core, &inner.views).ok_or_else(none)?;
        let leader = self.switch_over(target, "the cluster").await?;
        let address = SocketAddr::new(leader.ip, leader.api_port.get());
        let request = PeerRequest::Leave { remove };
        let unconfirmed = |reason: String| {
            ClusterError::Unconfirmed(format!(
                "node {} leads now, and this node asked it to be let go: {reason}",
                leader.id
            ))
        };
        match inner.core.transport().call(leader.id, address, request, 2 * self.patience()).await {
            Ok(PeerResponse::Left(node)) => Ok(*node),
            // It was removed before the answer came.
            Ok(PeerResponse::Removed) if remove => self.member(inner.identity.node),
            Ok(PeerResponse::Failed(reason)) => Err(ClusterError::Precondition(reason)),
            Ok(PeerResponse::Unconfirmed(reason)) => Err(unconfirmed(reason)),
            Ok(other) => Err(unconfirmed(format!("{other:?}"))),
            Err(error) => Err(unconfirmed(error.to_string())),
        }
    }
}

/// An entry of the log, as the API tells it.
fn told(entry: Entry) -> Result<ClusterLog, serde_json::Error> {
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => ("blank", serde_json::Value::Null),
        EntryPayload::Normal(command) => ("command", serde_json::to_value(command)?),
        EntryPayload::Membership(membership) => ("membership", serde_json::to_value(membership)?),
    };
    Ok(ClusterLog {
        index: LogIndex(entry.log_id.index),
        term: Term(entry.log_id.committed_leader_id().term),
        payload: [(kind.to_owned(), payload)].into(),
    })
}

/// The settings that are given, as text.
fn given(update: &ConfigUpdate) -> String {
    let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(update) else { return String::new() };
    let given = settings.iter().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}

fn internal<E: std::error::Error + Send + Sync + 'static>(attempted: &'static str) -> impl Fn(E) -> ClusterError {
    move |source| ClusterError::Internal { attempted, source: Box::new(source) }
}
