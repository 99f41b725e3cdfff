//! The Raft core: openraft with its settings made from ours, which can be rebuilt while the node runs.
//!
//! openraft's settings are fixed when it starts, and ours can change at any time. So when a timing in the settings
//! changes, each node stops its core and starts another over the same store. Then, and only then, a leader continues in
//! its own term.

mod grants;
#[cfg(feature = "simulation")]
mod inside;
mod members;
mod serve;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{ServerState, SnapshotPolicy};
use tokio::sync::watch;
use uuid::Uuid;

use crate::env::clock::{Clock, Instant};
use crate::env::lock::lock;
use crate::env::observers::Observers;
use crate::env::random::Random;
use crate::model::{Config, LogIndex, NodeId, Term, WalPosition};
use crate::protocol::version::Version;
use crate::raft::context::Context;
use crate::raft::lease::{Contact, EarlierGrant};
use crate::raft::network::Network;
use crate::raft::state_machine::StateMachine;
use crate::raft::store::{Store, StoreError};
use crate::raft::transport::Transport;
use crate::raft::types::{Raft, TypeConfig};
use crate::raft::wire::{LogEntry, VoteRecord};

#[cfg(feature = "simulation")]
pub use self::inside::Inside;
pub(crate) use self::members::MembersChanged;

/// A snapshot is made after this many entries. As many entries before it are kept, for nodes that lag a little.
const ENTRIES_PER_SNAPSHOT: u64 = 1000;

/// How long a core may take until it shows its status after its start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A node's Raft core, and what belongs to it. Clones share it.
#[derive(Clone)]
pub(crate) struct Core(Arc<Shared>);

struct Shared {
    store: Store,
    state_machine: StateMachine,
    context: Arc<Context>,
    raft: watch::Sender<Raft>,
    /// The settings that the core was built with. A node that restarts builds it before it has applied its log.
    built_with: Mutex<Config>,
    /// Whether the core is being rebuilt now.
    rebuilding: watch::Sender<bool>,
    rebuilds: tokio::sync::Mutex<()>,
    started: Instant,
    led_before: bool,
    earlier_grant: Option<EarlierGrant>,
    /// The longest lease that this node may have granted to a leader, as it is in the store.
    longest_grant: tokio::sync::Mutex<Duration>,
    heard: watch::Sender<Option<Contact>>,
    observers: Observers,
    /// The newest term whose leader told this node that it hands over. 0 before the first.
    handed_over: AtomicU64,
    /// The snapshot that a leader is sending, with the id of its transfer.
    snapshot: Mutex<Option<(Uuid, Vec<u8>)>>,
}

/// What Raft says of who leads. It is no proof of authority: a leader that is cut off still sees itself as the leader.
/// Only a lease proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RaftStatus {
    /// The newest term that this node knows.
    pub(crate) term: Term,
    /// Who leads that term. None if this node does not know.
    pub(crate) leader: Option<NodeId>,
    /// Whether this node stands for election in that term.
    pub(crate) candidate: bool,
    /// Why this node's consensus has stopped. None while it runs.
    pub(crate) stopped: Option<String>,
}

/// Why a Raft core did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// openraft does not accept the settings.
    #[error("the settings are no valid configuration of the Raft core")]
    Config(#[from] openraft::ConfigError),
    /// The core failed.
    #[error("the Raft core of node {node} failed while {attempted}")]
    Failed {
        /// On which node.
        node: NodeId,
        /// What it was asked to do.
        attempted: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Follows [`RaftStatus`], also when the core is rebuilt.
pub(crate) struct RaftStatusChanges {
    rebuilt: watch::Receiver<Raft>,
    metrics: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
}

impl RaftStatusChanges {
    /// Waits until the status or the membership may have changed since the last call.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            _ = self.rebuilt.changed() => {}
            changed = self.metrics.changed() => {
                if changed.is_ok() {
                    self.metrics.borrow_and_update();
                    return;
                }
                // The core has ended. The next one will show more.
                let _ = self.rebuilt.changed().await;
            }
        }
        self.metrics = self.rebuilt.borrow_and_update().server_metrics();
        self.metrics.borrow_and_update();
    }
}

impl Core {
    pub(crate) async fn start(store: Store, state_machine: StateMachine, context: Context) -> Result<Self, RaftError> {
        let context = Arc::new(context);
        let config = state_machine.read(|applied| applied.state.config.clone());
        let vote = store.vote().map_err(|error| RaftError::Failed {
            node: context.id,
            attempted: "reading its vote",
            source: error.into(),
        })?;
        let led_before = vote.is_some_and(|vote| vote.committed && vote.voted_for == context.id);
        let longest_grant = store.longest_grant().map_err(|error| RaftError::Failed {
            node: context.id,
            attempted: "reading the longest lease that it has granted",
            source: error.into(),
        })?;
        let usual = Config::default().node_timeout.get();
        let length = longest_grant.unwrap_or(config.node_timeout.get().max(usual));
        // A node that restarts does not continue as the leader that it was. It may have sent entries that were not on its
        // own disk yet, and would write other entries of the same term in their place.
        let raft = build(&context, &store, &state_machine, &config, false).await?;
        let (started, me) = (context.clock.now(), context.id);
        Ok(Self(Arc::new(Shared {
            store,
            state_machine,
            context,
            raft: watch::Sender::new(raft),
            built_with: Mutex::new(config),
            rebuilding: watch::Sender::new(false),
            rebuilds: Default::default(),
            started,
            led_before,
            earlier_grant: vote.and_then(|vote| EarlierGrant::new(vote, me, started + length)),
            longest_grant: tokio::sync::Mutex::new(longest_grant.unwrap_or(usual)),
            heard: watch::Sender::new(None),
            observers: Observers::default(),
            handed_over: AtomicU64::new(0),
            snapshot: Mutex::default(),
        })))
    }

    /// Stops the core and starts another with the present settings. Without `keep_leading`, a leader gives its term up.
    pub(crate) async fn rebuild(&self, keep_leading: bool) -> Result<(), RaftError> {
        // A task of its own: a caller that is cancelled half-way must not leave this node without a core.
        let core = self.clone();
        let rebuilding = tokio::spawn(async move { core.rebuild_now(keep_leading).await });
        rebuilding.await.unwrap_or_else(|error| Err(self.failed("being rebuilt", error)))
    }

    async fn rebuild_now(&self, keep_leading: bool) -> Result<(), RaftError> {
        let shared = &self.0;
        let _one_at_a_time = shared.rebuilds.lock().await;
        shared.rebuilding.send_replace(true);
        // If this node has given its term up, it must not resume it: it would lead without a lease, and its heartbeats
        // would keep the others from standing. Nor does it resume a term that it led before it restarted.
        let status = self.raft_status();
        let keep_leading = keep_leading && status.leader == Some(self.id()) && !self.is_given_up(status.term);
        let rebuilt = async {
            self.raft().shutdown().await.map_err(|error| self.failed("being stopped", error))?;
            let config = shared.state_machine.read(|applied| applied.state.config.clone());
            let raft = build(&shared.context, &shared.store, &shared.state_machine, &config, keep_leading).await?;
            *lock(&shared.built_with) = config;
            Ok(raft)
        };
        let raft = rebuilt.await;
        if let Ok(raft) = &raft {
            shared.raft.send_replace(raft.clone());
        }
        shared.rebuilding.send_replace(false);
        raft.map(drop)
    }

    /// The settings that the core was built with last.
    pub(crate) fn built_with(&self) -> Config {
        lock(&self.0.built_with).clone()
    }

    /// Waits until the core is not being rebuilt. Returns whether it runs and this node leads `term`.
    pub(crate) async fn resumes(&self, term: Term) -> bool {
        self.ready().await;
        let status = self.raft_status();
        status.stopped.is_none() && status.term == term && status.leader == Some(self.id())
    }

    /// Waits until the core is not being rebuilt, and returns it.
    pub(crate) async fn ready(&self) -> Raft {
        // It does not fail: the sender lives as long as `self`.
        let _ = self.0.rebuilding.subscribe().wait_for(|rebuilding| !rebuilding).await;
        self.raft()
    }

    pub(crate) async fn shutdown(&self) -> Result<(), RaftError> {
        self.ready().await.shutdown().await.map_err(|error| self.failed("being stopped", error))
    }

    pub(crate) fn raft(&self) -> Raft {
        self.0.raft.borrow().clone()
    }

    /// Follows the status from now on.
    pub(crate) fn raft_status_changes(&self) -> RaftStatusChanges {
        let mut rebuilt = self.0.raft.subscribe();
        let mut metrics = rebuilt.borrow_and_update().server_metrics();
        metrics.borrow_and_update();
        RaftStatusChanges { rebuilt, metrics }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.0.context.id
    }

    pub(crate) fn state_machine(&self) -> &StateMachine {
        &self.0.state_machine
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The newest version of the protocol that this program knows.
    pub(crate) fn newest_version(&self) -> Version {
        self.0.context.versions.now().newest
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.context.clock
    }

    pub(crate) fn random(&self) -> &Random {
        &self.0.context.random
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// Whether this node led, as far as it knew, when it was stopped last.
    pub(crate) fn led_before(&self) -> bool {
        self.0.led_before
    }

    /// Whether the newest vote of this node is for itself.
    pub(crate) fn votes_for_itself(&self) -> bool {
        self.own_vote().voted_for == self.id()
    }

    /// The newest vote of this node.
    fn own_vote(&self) -> VoteRecord {
        self.raft().server_metrics().borrow_watched().vote.into()
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.0.context.transport
    }

    pub(crate) fn config(&self) -> Config {
        self.0.state_machine.read(|applied| applied.state.config.clone())
    }

    /// Sets the WAL position that is sent with the next pre-votes.
    pub(crate) fn stand_with(&self, position: Option<WalPosition>) {
        *lock(&self.0.context.candidate) = position;
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.0.observers
    }

    /// The last entry in the log, applied or not.
    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.raft().metrics().borrow_watched().last_log_index.unwrap_or_default())
    }

    pub(crate) fn raft_status(&self) -> RaftStatus {
        let raft = self.0.raft.borrow();
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let rebuilding = *self.0.rebuilding.borrow();
        let running = raft.metrics();
        let running = running.borrow_watched();
        let stopped = running.running_state.as_ref().err().filter(|_| !rebuilding).map(ToString::to_string);
        RaftStatus {
            term: Term(metrics.vote.leader_id().term),
            leader: metrics.current_leader.filter(|_| stopped.is_none()),
            candidate: metrics.state == ServerState::Candidate,
            stopped,
        }
    }

    /// The voters: one set, or two in a joint membership.
    pub(crate) fn voters(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.0.raft.borrow().server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().clone()
    }

    /// The members, and the voters among them: one set, or two in a joint membership. Only the committed membership counts.
    pub(crate) fn membership(&self) -> (BTreeSet<NodeId>, Vec<BTreeSet<NodeId>>) {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.committed_membership_config.membership();
        (membership.nodes().map(|(id, _)| *id).collect(), membership.get_joint_config().clone())
    }

    /// The entries of the log in this range, without those that were removed after a snapshot.
    pub(crate) fn entries(&self, range: RangeInclusive<u64>) -> Result<Vec<LogEntry>, StoreError> {
        self.store().entries(*range.start()..range.end().saturating_add(1), usize::MAX)
    }

    /// Waits until `needed` voters, this leader among them, hold the log up to `index`.
    pub(crate) async fn held_by(&self, index: LogIndex, needed: usize) {
        let mut metrics = self.raft().metrics();
        loop {
            let voters = self.voters();
            let holders = {
                let metrics = metrics.borrow_and_update();
                let matched = metrics.replication.as_ref();
                let holds = |voter: NodeId| {
                    let matched = matched.and_then(|matched| matched.get(&voter)).copied().flatten();
                    voter == self.id() || matched.is_some_and(|matched| matched.index >= index.0)
                };
                voters.iter().flatten().collect::<BTreeSet<_>>().into_iter().filter(|&&voter| holds(voter)).count()
            };
            if holders >= needed {
                return;
            }
            if metrics.changed().await.is_err() {
                // The core was rebuilt.
                metrics = self.raft().metrics();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Makes this node stand for election at once, if it may.
    pub(crate) fn stand_at_once(&self) {
        self.0.context.stand.notify_one();
    }

    /// Notes that a peer said that this node was removed from the cluster.
    pub(crate) fn note_removal(&self) {
        self.0.context.removed.send_if_modified(|removed| !std::mem::replace(removed, true));
    }

    pub(crate) fn failed(
        &self,
        attempted: &'static str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> RaftError {
        RaftError::Failed { node: self.id(), attempted, source: Box::new(error) }
    }
}

async fn build(
    context: &Arc<Context>,
    store: &Store,
    state_machine: &StateMachine,
    config: &Config,
    keep_leading: bool,
) -> Result<Raft, RaftError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RaftError::Failed {
        node: context.id,
        attempted: "starting",
        source,
    };
    let vote = store.vote().map_err(|error| failed(error.into()))?;
    let network = Network::new(context.clone(), config.replication_retry_interval.get());
    let raft =
        Raft::new(context.id, Arc::new(settings(config, keep_leading)?), network, store.clone(), state_machine.clone())
            .await
            .map_err(|error| failed(error.into()))?;
    // A core that has just started shows an empty status for an instant. A primary that believed it would be demoted.
    if let Some(vote) = vote {
        let leads = vote.committed && vote.voted_for == context.id && keep_leading;
        let mut metrics = raft.server_metrics();
        let told = async {
            loop {
                let told = metrics.borrow_and_update().clone();
                if told.vote.leader_id().term >= vote.term.0 && (!leads || told.state == ServerState::Leader)
                    || metrics.changed().await.is_err()
                {
                    return;
                }
            }
        };
        tokio::time::timeout(STARTUP_TIMEOUT, told).await.map_err(|error| failed(error.into()))?;
    }
    Ok(raft)
}

/// openraft's settings, made from ours. Its election timer stays off: `election.rs` decides when this node stands.
fn settings(config: &Config, keep_leading: bool) -> Result<openraft::Config, openraft::ConfigError> {
    let node_timeout = config.node_timeout.as_millis();
    openraft::Config {
        cluster_name: "qluster".into(),
        heartbeat_interval: config.heartbeat_interval.as_millis(),
        // openraft's own lease is the maximum, for leaders and for followers.
        election_timeout_min: node_timeout - 1,
        election_timeout_max: node_timeout,
        enable_elect: false,
        enable_leader_restore: Some(keep_leading),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: ENTRIES_PER_SNAPSHOT,
        replication_lag_threshold: 2 * ENTRIES_PER_SNAPSHOT,
        install_snapshot_timeout: Duration::from_secs(60).as_millis() as u64,
        ..openraft::Config::default()
    }
    .validate()
}
