//! Clients: operators who form the cluster and change it, those who change settings and read them, those who append to the
//! database.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use qluster_consensus::model::{ConfigUpdate, Node, NodeId, NodeRole, NodeState};
use qluster_consensus::node::cluster::{Cluster, ClusterError};
use qluster_consensus::protocol::database::DatabaseRole;
use rand::Rng;
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use crate::check::{Checked, Invariant, Violation};
use crate::faults::Profile;
use crate::node::Start;
use crate::world::{Simulation, api_port, db_port, lock};

/// How many writes of a setting there are. The time that the checker takes grows exponentially with them.
const WRITES: u32 = 12;
const READS: u32 = 40;
/// An operation without an answer by then counts as unanswered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

type Slot<T> = Arc<Mutex<Option<T>>>;

/// What happened to the setting, in order.
enum Event {
    Write(u64, u32),
    Wrote(u64),
    Read(u64, u32),
}

struct Write {
    client: u64,
    begun: Duration,
    outcome: Slot<Result<(), ClusterError>>,
}

/// What an operator is doing.
struct Operation {
    what: String,
    begun: Duration,
    outcome: Slot<Result<Option<Node>, ClusterError>>,
    adds: bool,
}

pub struct Clients {
    /// When the cluster had all its nodes.
    pub formed: Option<Duration>,
    databases: usize,
    witnesses: usize,
    operators: bool,
    operation: Option<Operation>,
    next: Duration,
    calm: bool,
    events: Vec<Event>,
    writes: Vec<Write>,
    written: u32,
    reads: u32,
    client: u64,
    appends: u32,
    /// How many appends were acknowledged when all was calm.
    baseline: Option<u64>,
}

impl Clients {
    pub fn new(profile: &Profile) -> Self {
        Self {
            formed: None,
            databases: profile.databases,
            witnesses: profile.witnesses,
            operators: profile.operators,
            operation: None,
            next: Duration::ZERO,
            calm: false,
            events: Vec::new(),
            writes: Vec::new(),
            written: 0,
            reads: 0,
            client: 0,
            appends: 0,
            baseline: None,
        }
    }

    /// Does what clients do in a window.
    pub fn act(&mut self, sim: &mut Simulation) {
        self.operate(sim);
        // A setting that is changed is an entry which those lack that a plot cuts off.
        if self.formed.is_some() && (self.calm || sim.profile.plot.is_none()) {
            self.set(sim);
        }
        if !sim.quiet {
            self.append(sim);
        }
    }

    /// From now on nothing is changed without need.
    pub fn calm(&mut self, _: &Simulation) {
        self.calm = true;
    }

    // ---- appends ----

    fn append(&mut self, sim: &mut Simulation) {
        let mut world = lock(&sim.world);
        let world = &mut *world;
        let now = sim.now;
        let often = if self.calm { 200 } else { 8 };
        for db in world.databases.values_mut().filter(|db| db.role == DatabaseRole::Primary && db.open) {
            if db.is_frozen(now) || world.random.random_range(0..often) > 0 || (self.appends > 400 && !self.calm) {
                continue;
            }
            self.appends += 1;
            world.records += 1;
            let end = db.append(world.records, true);
            world.history.note((now, db.id.0, end));
        }
    }

    // ---- settings ----

    fn set(&mut self, sim: &mut Simulation) {
        let now = sim.now;
        for write in std::mem::take(&mut self.writes) {
            let outcome = lock(&write.outcome).take();
            match outcome {
                None if now > write.begun + ANSWER_TIMEOUT => {}
                None => self.writes.push(write),
                Some(Ok(())) => self.events.push(Event::Wrote(write.client)),
                // It may still be applied.
                Some(Err(
                    ClusterError::Unconfirmed(_) | ClusterError::Unavailable(_) | ClusterError::Internal { .. },
                )) => {}
                Some(Err(error)) => {
                    sim.say(|| format!("client {}: nothing was set: {error}", write.client));
                    let at =
                        self.events.iter().position(|event| matches!(event, Event::Write(c, _) if *c == write.client));
                    self.events.remove(at.unwrap());
                }
            }
        }
        if self.written < WRITES && self.writes.len() < 3 && !self.calm && sim.chance(60) {
            let ids: Vec<_> = sim.nodes.keys().copied().collect();
            let node = match sim.leader() {
                Some((leader, _)) if sim.chance(2) => leader,
                _ => sim.one_of(&ids).unwrap(),
            };
            self.written += 1;
            self.client += 1;
            let (client, value) = (self.client, 100 + self.written);
            let outcome = Slot::default();
            let slot = outcome.clone();
            let spawned = sim.nodes[&node].spawn(|cluster| async move {
                let update = ConfigUpdate { autoremove_minimum: Some(value), ..ConfigUpdate::default() };
                let set = cluster.set_config(update, "client").await;
                *lock(&slot) = Some(set.map(drop));
            });
            if spawned {
                sim.say(|| format!("client {client}: sets {value} at node {node}"));
                self.events.push(Event::Write(client, value));
                self.writes.push(Write { client, begun: now, outcome });
            }
        }
        if self.reads < READS && sim.chance(if self.calm { 100 } else { 30 }) {
            let read = sim.leader().and_then(|(leader, _)| {
                sim.nodes[&leader].with(|cluster, _| cluster.config().ok().map(|config| config.autoremove_minimum))
            });
            if let Some(value) = read.flatten() {
                self.reads += 1;
                self.client += 1;
                self.events.push(Event::Read(self.client, value));
            }
        }
    }

    /// Whether what the clients saw of the setting could have happened one after the other.
    pub fn check(&self) -> Checked {
        let mut tester = LinearizabilityTester::new(Register(3u32));
        for event in &self.events {
            let noted = match event {
                Event::Write(client, value) => tester.on_invoke(*client, RegisterOp::Write(*value)).map(drop),
                Event::Wrote(client) => tester.on_return(*client, RegisterRet::WriteOk).map(drop),
                Event::Read(client, value) => {
                    tester.on_invret(*client, RegisterOp::Read, RegisterRet::ReadOk(*value)).map(drop)
                }
            };
            noted.expect("a history that makes sense");
        }
        if tester.is_consistent() {
            return Ok(());
        }
        let told = self.events.iter().map(|event| match event {
            Event::Write(client, value) => format!("{client} sets {value}"),
            Event::Wrote(client) => format!("{client} is told so"),
            Event::Read(_, value) => format!("{value} is read"),
        });
        Err(Violation::new(Invariant::SettingsAreLinearizable, told.collect::<Vec<_>>().join(", ")))
    }

    // ---- operators ----

    fn operate(&mut self, sim: &mut Simulation) {
        if let Some(operation) = &self.operation {
            let outcome = lock(&operation.outcome).take();
            if outcome.is_none() && sim.now < operation.begun + ANSWER_TIMEOUT {
                return;
            }
            sim.say(|| match &outcome {
                Some(Ok(_)) => format!("operator: done: {}", operation.what),
                Some(Err(error)) => format!("operator: could not {}: {error}", operation.what),
                None => format!("operator: no answer: {}", operation.what),
            });
            if let Some(Ok(Some(node))) = outcome
                && operation.adds
            {
                let new = lock(&sim.world).oracle.new_id(node.id);
                lock(&sim.world).check(new);
            }
            self.operation = None;
            let pause = lock(&sim.world).random.random_range(1..if self.formed.is_some() { 400 } else { 30 });
            self.next = sim.now + Duration::from_millis(pause);
        }
        if sim.now < self.next {
            return;
        }
        let Some((leader, cluster)) = sim.leader() else { return };
        let nodes = cluster.state(|state| state.nodes.clone());
        for (id, node) in &nodes {
            if !sim.nodes.contains_key(id) {
                let cluster = cluster.identity().cluster;
                sim.say(|| format!("node {id}: joins"));
                sim.add(*id, DatabaseRole::Absent, Start::Join(cluster, node.upgrade_to));
            }
        }
        for node in sim.nodes.values_mut() {
            if node.id.0 < next_of(&cluster) && !nodes.contains_key(&node.id) {
                node.removed = true;
            }
        }
        let wanted = |role: NodeRole| nodes.values().filter(|node| node.upgrade_to == role).count();
        let voters = nodes.values().filter(|node| node.votes()).count();
        let well = nodes.values().all(|node| node.role == node.upgrade_to && node.state != NodeState::Down);
        if wanted(NodeRole::Voter) < self.databases {
            return self.order(sim, leader, Order::Add(NodeRole::Voter));
        }
        let down = nodes.values().find(|node| node.state == NodeState::Down);
        let waits = |node: &&Node| node.state == NodeState::Down || node.role != node.upgrade_to;
        // Databases first: without them, a witness may be one too many.
        let next = nodes.values().filter(waits).min_by_key(|node| node.upgrade_to == NodeRole::Witness);
        if let Some(node) = next.filter(|_| self.calm) {
            return self.order(sim, leader, Order::Upgrade(node.id));
        }
        if let Some(node) = nodes.values().find(|node| node.role == NodeRole::Listener && node.upgrade_to != node.role)
            && !sim.no_upgrades
            && (self.calm || self.formed.is_none() || sim.chance(20))
        {
            return self.order(sim, leader, Order::Upgrade(node.id));
        }
        if wanted(NodeRole::Witness) < self.witnesses {
            return self.order(sim, leader, Order::Add(NodeRole::Witness));
        }
        if let Some(node) = down
            && !sim.no_upgrades
            && sim.chance(50)
        {
            return self.order(sim, leader, Order::Upgrade(node.id));
        }
        if well && self.formed.is_none() && voters == self.databases + self.witnesses {
            self.formed = Some(sim.now);
            sim.say(|| format!("the cluster has formed: {voters} voters"));
        }
        if !self.operators || self.calm || self.formed.is_none() || !sim.chance(100) {
            return;
        }
        let ids: Vec<_> = nodes.keys().copied().collect();
        let Some(id) = sim.one_of(&ids) else { return };
        let order = match lock(&sim.world).random.random_range(0..4) {
            0 => Order::Down(id),
            1 => Order::Remove(id),
            _ => Order::Lead(id),
        };
        self.order(sim, leader, order);
    }

    fn order(&mut self, sim: &Simulation, at: NodeId, order: Order) {
        let outcome = Slot::default();
        let slot = outcome.clone();
        if give(sim, at, order, move |done| *lock(&slot) = Some(done)) {
            let what = format!("{order:?} at node {at}");
            let adds = matches!(order, Order::Add(_));
            self.operation = Some(Operation { what, begun: sim.now, outcome, adds });
        }
    }

    // ---- in the end ----

    /// What is not as it must be once all is calm.
    pub fn missing(&mut self, sim: &Simulation) -> Option<Violation> {
        let missing = |invariant, how: String| Some(Violation::new(invariant, how));
        let Some((leader, cluster)) = sim.leader() else {
            if without_enough_databases(sim) {
                return None;
            }
            let reasons = sim.nodes.values().filter(|node| !node.removed).map(|node| {
                let reason = node.with(|cluster, _| cluster.leader().err().map(|error| error.to_string()));
                format!("; node {}: {}", node.id, reason.flatten().unwrap_or_else(|| "(does not run)".into()))
            });
            return missing(Invariant::LeaderInTheEnd, format!("nobody leads{}", reasons.collect::<String>()));
        };
        let nodes = cluster.state(|state| state.nodes.clone());
        let applied = cluster.inside().applied;
        for node in nodes.values() {
            let id = node.id;
            if node.role != node.upgrade_to || node.state != NodeState::Up {
                return missing(
                    Invariant::AllCaughtUpInTheEnd,
                    format!("node {id} is {} and {}", node.role, node.state),
                );
            }
            let theirs = sim.nodes.get(&id).and_then(|node| node.with(|cluster, _| cluster.inside()));
            if theirs.as_ref().is_none_or(|theirs| theirs.applied != applied) {
                return missing(
                    Invariant::AllCaughtUpInTheEnd,
                    format!("node {id} is not caught up with node {leader}: {theirs:?}"),
                );
            }
        }
        let world = lock(&sim.world);
        let primary = &world.databases[&leader];
        if primary.role != DatabaseRole::Primary || !primary.open {
            return missing(
                Invariant::AllFollowInTheEnd,
                format!("the database of the leader {leader} is {}, open: {}", primary.role, primary.open),
            );
        }
        for node in nodes.values().filter(|node| node.id != leader && node.role.has_database()) {
            let db = &world.databases[&node.id];
            if !db.streaming() || db.follows.map(|(node, _)| node) != Some(leader) || !db.is_prefix_of(primary) {
                return missing(
                    Invariant::AllFollowInTheEnd,
                    format!("the database of node {} is {} and does not follow node {leader}", node.id, db.role),
                );
            }
        }
        let acknowledged = world.oracle.acknowledged;
        let baseline = *self.baseline.get_or_insert(acknowledged);
        if acknowledged == baseline {
            return missing(Invariant::CommitsInTheEnd, "no append is acknowledged any more".into());
        }
        None
    }
}

/// Gives an order to a node, if its agent runs, and passes the result to `answer`.
pub fn give(
    sim: &Simulation,
    at: NodeId,
    order: Order,
    answer: impl FnOnce(Result<Option<Node>, ClusterError>) + Send + 'static,
) -> bool {
    let next = sim.nodes.keys().next_back().map_or(1, |id| id.0 + 1);
    sim.nodes[&at].spawn(|cluster| async move {
        let done = match order {
            Order::Add(role) => {
                let port = api_port(NodeId(next));
                cluster.add_node([127, 0, 0, 1].into(), port, role, "operator").await.map(Some)
            }
            Order::Upgrade(id) => {
                let port = cluster.state(|state| state.nodes.get(&id).map(|node| node.api_port));
                let port = port.unwrap_or(api_port(id));
                cluster.upgrade_node(id, db_port(id), port, "operator").await.map(Some)
            }
            Order::Down(id) => cluster.down_node(id, "as it pleases", "operator").await.map(Some),
            Order::Remove(id) => cluster.remove_node(id, "operator").await.map(Some),
            Order::Lead(id) => cluster.switch_over(id, "operator").await.map(|_| None),
        };
        answer(done);
    })
}

/// Whether the databases that need no repair, and the witnesses, are no majority of the voters: those that do cannot be
/// repaired without a primary, and only an operator's word can end that.
fn without_enough_databases(sim: &Simulation) -> bool {
    let looked = sim.nodes.values().filter(|node| !node.removed).filter_map(|node| {
        let look = node.with(|cluster, store| {
            (cluster.inside(), store.database_record().is_ok_and(|record| record.repair.is_none()))
        });
        Some((node.id, look?))
    });
    let looked: Vec<_> = looked.collect();
    let absent = |id| lock(&sim.world).databases.get(&id).is_some_and(|db| db.role == DatabaseRole::Absent);
    let witness = |id| {
        let role = |cluster: &Cluster| cluster.state(|state| state.nodes.get(&id).map(|node| node.role));
        sim.nodes.values().any(|node| node.with(|cluster, _| role(cluster)).flatten() == Some(NodeRole::Witness))
    };
    let whole: Vec<_> =
        looked.iter().filter(|(id, (_, whole))| (*whole && !absent(*id)) || witness(*id)).map(|(id, _)| *id).collect();
    // Whoever was elected knows the voters; one that was removed may have others in its log.
    let elected = looked.iter().filter(|(_, (inside, _))| inside.leads);
    let elected = elected.max_by_key(|(_, (inside, _))| inside.vote.term.0);
    elected.is_some_and(|(_, (inside, _))| {
        inside.voters.iter().any(|set| set.iter().filter(|id| whole.contains(id)).count() <= set.len() / 2)
    })
}

fn next_of(cluster: &Cluster) -> u64 {
    cluster.state(|state| state.next_node)
}

/// What an operator wants of a leader.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Add(NodeRole),
    Upgrade(NodeId),
    Down(NodeId),
    Remove(NodeId),
    Lead(NodeId),
}
