//! A node: the agent, which is the real consensus in a runtime of its own, and its disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use qluster_consensus::env::clock::Clock;
use qluster_consensus::env::random::Random;
use qluster_consensus::model::{Node, NodeId, NodeRole};
use qluster_consensus::node::cluster::{Cluster, Parts};
use qluster_consensus::protocol::database::Database;
use qluster_consensus::protocol::version::{Spoken, Versions};
use qluster_consensus::raft::store::{Identity, Store};
use rand::Rng;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::Instant;
use uuid::Uuid;

use crate::directed::Directed;
use crate::disk::FakeDisk;
use crate::network::{Content, Letter, Line};
use crate::world::{Shared, lock};

/// A request that has arrived.
pub struct Delivery {
    pub from: NodeId,
    pub ticket: u64,
    pub request: qluster_consensus::raft::transport::PeerRequest,
}

/// A node of the simulation. Its machine stays, while agents come and go.
pub struct SimNode {
    pub id: NodeId,
    pub disk: FakeDisk,
    pub origin: Start,
    pub agent: Option<Agent>,
    /// When the agent is started again, if it does not run.
    pub restart: Option<Duration>,
    /// Until when the agent is stopped (SIGSTOP), or the machine is.
    pub paused: Option<Duration>,
    /// Until when its guard lets the database serve.
    pub lease: Option<Duration>,
    /// Whether this agent has told the guard.
    pub told: bool,
    /// The power is off.
    pub off: bool,
    pub removed: bool,
}

/// An agent that runs.
pub struct Agent {
    runtime: Runtime,
    begun: Duration,
    base: Instant,
    inbox: UnboundedSender<Delivery>,
    started: Arc<Mutex<Started>>,
}

#[derive(Default)]
struct Started {
    cluster: Option<(Cluster, Store)>,
    failed: Option<String>,
}

/// How an agent is started; the same way each time, since that is safe.
#[derive(Clone)]
pub enum Start {
    Create(Box<Node>),
    Join(Uuid, NodeRole),
}

impl SimNode {
    pub fn new(id: NodeId, origin: Start) -> Self {
        let disk = FakeDisk::default();
        Self {
            id,
            disk,
            origin,
            agent: None,
            restart: None,
            paused: None,
            lease: None,
            told: false,
            off: false,
            removed: false,
        }
    }

    /// Starts the agent.
    pub fn start(&mut self, world: &Shared, now: Duration, start: Start) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        let (seed, chance) = {
            let mut world = lock(world);
            (world.random.random::<u64>(), world.random.random::<u64>())
        };
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
        let _ = seed;
        let runtime = builder.build().unwrap();
        let entered = runtime.enter();
        let base = Instant::now();
        let clock = Clock::new(move || now + (Instant::now() - base));
        let (inbox, mut requests) = mpsc::unbounded_channel::<Delivery>();
        let started = Arc::<Mutex<Started>>::default();
        let (slot, shared, id) = (started.clone(), world.clone(), self.id);
        let disk = self.disk.handle();
        let transport = Arc::new(Line { me: id, world: world.clone(), clock: clock.clone() });
        let has_database = !matches!(start, Start::Join(_, NodeRole::Witness));
        let directed = Directed { id, world: world.clone(), clock: clock.clone() };
        let database = has_database.then(|| Arc::new(directed) as Arc<dyn Database>);
        runtime.spawn(async move {
            let parts = async {
                let delays = shared.clone();
                let delay = move || {
                    let mut world = lock(&delays);
                    let most = if world.random.random_range(0..30) == 0 { 150 } else { 6 };
                    Duration::from_millis(world.random.random_range(0..=most))
                };
                let store = Store::with_backend_delayed(disk, delay).map_err(|error| error.to_string())?;
                if let Start::Join(cluster, _) = &start {
                    let identity = Identity { cluster: *cluster, node: id };
                    store.set_identity(&identity).map_err(|error| error.to_string())?;
                }
                let random = Random::seeded(chance);
                let kept = store.clone();
                let versions = Spoken::new(Versions::KNOWN);
                let parts = Parts { store, transport, database, clock: clock.clone(), random, versions };
                let cluster = match start {
                    Start::Create(node) => Cluster::create(parts, *node).await,
                    Start::Join(..) => Cluster::start(parts).await,
                };
                cluster.map(|cluster| (cluster, kept)).map_err(|error| {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    format!("{error}: {cause:?}")
                })
            };
            let (cluster, store) = match parts.await {
                Ok((cluster, store)) => {
                    lock(&slot).cluster = Some((cluster.clone(), store.clone()));
                    (cluster, store)
                }
                Err(error) => {
                    lock(&slot).failed = Some(error);
                    return;
                }
            };
            while let Some(Delivery { from, ticket, request }) = requests.recv().await {
                let voter = cluster.clone();
                // What it knows when it is asked is what counts.
                let knows =
                    store.removed().is_ok_and(|removed| removed) || cluster.state(|state| state.was_removed(id));
                let mut served = cluster.serve(from, request);
                // Requests are taken in order although their answers are not.
                let first = tokio::task::unconstrained(&mut served).now_or_never();
                let (shared, clock) = (shared.clone(), clock.clone());
                tokio::spawn(async move {
                    let answer = match first {
                        Some(answer) => answer,
                        None => served.await,
                    };
                    let mut world = lock(&shared);
                    let world = &mut *world;
                    if let qluster_consensus::raft::transport::PeerResponse::Vote(vote) = &answer
                        && vote.granted
                    {
                        if knows {
                            world.oracle.removed_votes(id, from);
                        }
                        if let Some(asked) = world.net.vote_asked(ticket) {
                            world.oracle.vote(id, asked, &voter);
                        }
                    }
                    let letter = Letter { from: id, to: from, ticket, content: Content::Answer(Box::new(Ok(answer))) };
                    world.net.send(clock.now(), &mut world.random, letter);
                });
            }
        });
        drop(entered);
        self.agent = Some(Agent { runtime, begun: now, base, inbox, started });
        self.restart = None;
        self.paused = None;
        self.told = false;
        self.off = false;
    }

    /// The agent ends at once.
    pub fn kill(&mut self) {
        self.disk.crash();
        self.agent = None;
        self.paused = None;
    }

    /// Runs the agent up to `end`, unless it is stopped.
    pub fn run(&mut self, now: Duration, end: Duration) {
        let Some(agent) = &self.agent else { return };
        if self.paused.is_some_and(|until| now < until) {
            return;
        }
        let (base, goal) = (agent.base, end - agent.begun);
        let resumes = self.paused.take().is_some();
        agent.runtime.block_on(async move {
            if resumes {
                // For the agent no time has passed; its timers are late.
                tokio::time::advance((base + goal) - Instant::now()).await;
            }
            tokio::time::sleep_until(base + goal).await;
        });
    }

    pub fn deliver(&self, delivery: Delivery) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.inbox.send(delivery).is_ok())
    }

    /// Whether the agent runs and is not stopped.
    pub fn runs(&self) -> bool {
        self.agent.is_some() && self.paused.is_none()
    }

    /// Looks at the agent from outside, if it has started and is not stopped.
    pub fn with<T>(&self, look: impl FnOnce(&Cluster, &Store) -> T) -> Option<T> {
        let agent = self.agent.as_ref().filter(|_| self.paused.is_none())?;
        let (cluster, store) = lock(&agent.started).cluster.clone()?;
        let _entered = agent.runtime.enter();
        Some(look(&cluster, &store))
    }

    /// Starts a task in the agent.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Cluster) -> F) -> bool {
        let Some(agent) = self.agent.as_ref().filter(|_| self.paused.is_none()) else { return false };
        let Some((cluster, _)) = lock(&agent.started).cluster.clone() else { return false };
        agent.runtime.spawn(task(cluster));
        true
    }

    /// Why the agent could not be started.
    pub fn failed(&self) -> Option<String> {
        self.agent.as_ref().and_then(|agent| lock(&agent.started).failed.clone())
    }
}

/// All nodes, by their ids.
pub type Nodes = BTreeMap<NodeId, SimNode>;
