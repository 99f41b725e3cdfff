//! The simulated world, and its steps: letters arrive, each agent runs for an instant, the databases go on, clients and
//! faults do what they do, and all is checked.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qluster_consensus::env::sabotage::{self, Sabotage};
use qluster_consensus::model::{Node, NodeId, NodeRole, NodeState, Port};
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::database::DatabaseRole;
use qluster_consensus::raft::transport::TransportError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::{Checked, Invariant, Oracle, Violation};
use crate::clients::Clients;
use crate::database::{self, Db};
use crate::faults::{Faults, Profile};
use crate::history::History;
use crate::network::{Content, Letter, Net, kind};
use crate::node::{Delivery, Nodes, SimNode, Start};
use crate::plots::Stage;

/// How long each agent runs by itself. Nothing that one sends reaches another sooner.
pub const WINDOW: Duration = Duration::from_millis(5);
/// Faults end after about this time.
const FAULTY: Duration = Duration::from_secs(12);
/// Then all must be well within this time.
const RECOVERY: Duration = Duration::from_secs(60);

pub type Shared = Arc<Mutex<World>>;

/// What all nodes share.
pub struct World {
    pub random: StdRng,
    pub history: History,
    pub net: Net,
    pub databases: BTreeMap<NodeId, Db>,
    pub oracle: Oracle,
    /// How many promotions there were, and how many records of WAL.
    pub promotions: u64,
    pub records: u64,
    violation: Option<Violation>,
}

impl World {
    /// Keeps the first violation.
    pub fn check(&mut self, checked: Checked) {
        if let Err(violation) = checked {
            self.violation.get_or_insert(violation);
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of a seed.
pub struct Outcome {
    pub seed: u64,
    pub digest: u64,
    pub steps: u64,
    pub simulated: Duration,
    pub acknowledged: u64,
    pub promotions: u64,
    pub violation: Option<Violation>,
    pub lines: Vec<String>,
}

/// Runs the history of a seed, with lines for people if that is asked for.
pub fn run(seed: u64, bent: Option<Sabotage>, with_lines: bool) -> Outcome {
    sabotage::choose(bent);
    qluster_consensus::raft::runtime::seed(seed);
    crate::bent(bent.is_some());
    let mut simulation = Simulation::new(seed, with_lines);
    // What panics outside of a task of an agent is caught here.
    let history = AssertUnwindSafe(|| simulation.history());
    let violation = match std::panic::catch_unwind(history) {
        Ok(history) => history.err(),
        Err(_) => crate::panicked().err(),
    };
    for node in simulation.nodes.values_mut() {
        node.kill();
    }
    sabotage::choose(None);
    let world = lock(&simulation.world);
    Outcome {
        seed,
        digest: world.history.digest(),
        steps: world.history.steps,
        simulated: simulation.now,
        acknowledged: world.oracle.acknowledged,
        promotions: world.promotions,
        violation,
        lines: world.history.lines(std::env::var("SIM_LINES").map_or(60, |lines| lines.parse().unwrap())),
    }
}

pub struct Simulation {
    pub world: Shared,
    pub nodes: Nodes,
    pub now: Duration,
    pub profile: Profile,
    /// Who said at the last look that it leads.
    leads: Option<NodeId>,
    /// Clients append nothing.
    pub quiet: bool,
    /// Operators upgrade no node.
    pub no_upgrades: bool,
    clients: Option<Clients>,
    faults: Option<Faults>,
}

pub fn api_port(id: NodeId) -> Port {
    Port::new(8000 + u16::try_from(id.0).unwrap()).unwrap()
}

pub fn db_port(id: NodeId) -> Port {
    Port::new(5000 + u16::try_from(id.0).unwrap()).unwrap()
}

impl Simulation {
    fn new(seed: u64, with_lines: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let profile = Profile::new(seed, &mut random);
        let world = World {
            random,
            history: History::new(with_lines),
            net: Net::default(),
            databases: BTreeMap::new(),
            oracle: Oracle::default(),
            promotions: 0,
            records: 0,
            violation: None,
        };
        let mut simulation = Self {
            world: Arc::new(Mutex::new(world)),
            nodes: Nodes::new(),
            // Long after the machines were started.
            now: Duration::from_secs(1000),
            clients: Some(Clients::new(&profile)),
            faults: Some(Faults::new(&profile)),
            profile,
            leads: None,
            quiet: false,
            no_upgrades: false,
        };
        let id = NodeId(1);
        let node = Node {
            id,
            ip: [127, 0, 0, 1].into(),
            db_port: Some(db_port(id)),
            api_port: api_port(id),
            role: NodeRole::Voter,
            upgrade_to: NodeRole::Voter,
            state: NodeState::Up,
            reason: None,
        };
        simulation.add(id, DatabaseRole::Standby, Start::Create(Box::new(node)));
        simulation
    }

    /// A new machine, with an agent on it.
    pub fn add(&mut self, id: NodeId, role: DatabaseRole, start: Start) {
        lock(&self.world).databases.insert(id, Db::new(id, role));
        let mut node = SimNode::new(id, start.clone());
        node.start(&self.world, self.now, start);
        self.nodes.insert(id, node);
    }

    pub fn say(&self, line: impl FnOnce() -> String) {
        lock(&self.world).history.say(self.now, line);
    }

    pub fn chance(&self, one_in: u32) -> bool {
        lock(&self.world).random.random_range(0..one_in) == 0
    }

    /// One of these, by chance.
    pub fn one_of<T: Copy>(&self, these: &[T]) -> Option<T> {
        let at = (!these.is_empty()).then(|| lock(&self.world).random.random_range(0..these.len()))?;
        these.get(at).copied()
    }

    /// The node that says that it leads, if there is one.
    pub fn leader(&self) -> Option<(NodeId, Cluster)> {
        let id = self.leads?;
        self.nodes[&id].with(|cluster, _| cluster.is_leader().is_ok().then(|| (id, cluster.clone())))?
    }

    fn history(&mut self) -> Checked {
        let begun = self.now;
        let mut clients = self.clients.take().unwrap();
        let mut faults = self.faults.take().unwrap();
        let mut stage = self.profile.plot.map(Stage::new);
        // The cluster must be able to form.
        let mut quiet = false;
        loop {
            let formed = clients.formed;
            let over = stage.as_ref().is_some_and(Stage::is_over);
            if over || formed.is_some_and(|formed| self.now > formed + FAULTY) {
                break;
            }
            if self.now > begun + RECOVERY {
                return Err(Violation::new(Invariant::LeaderInTheEnd, "the cluster does not form"));
            }
            if let Some(stage) = &mut stage {
                match formed {
                    Some(_) => stage.act(self),
                    None => crate::faults::restarts(self),
                }
            } else if formed.is_some() || (self.profile.early && self.now < begun + FAULTY) {
                faults.act(self);
            } else if self.profile.early && !quiet {
                quiet = true;
                faults.end(self);
            } else {
                crate::faults::restarts(self);
            }
            clients.act(self);
            self.step()?;
        }
        self.say(|| "all faults are over".into());
        faults.end(self);
        (self.quiet, self.no_upgrades) = (false, false);
        clients.calm(self);
        let healed = self.now;
        loop {
            crate::faults::restarts(self);
            clients.act(self);
            self.step()?;
            let missing = clients.missing(self);
            match missing {
                None => break,
                Some(violation) if self.now > healed + RECOVERY => return Err(violation),
                Some(_) => {}
            }
        }
        clients.check()?;
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            let world = self.world.clone();
            let checked = self.nodes[&id].with(|_, store| lock(&world).oracle.log(id, store));
            checked.unwrap_or(Ok(()))?;
        }
        self.found()
    }

    /// One window.
    fn step(&mut self) -> Checked {
        self.deliver();
        let end = self.now + WINDOW;
        for node in self.nodes.values_mut() {
            node.run(self.now, end);
        }
        self.now = end;
        self.guards();
        let acknowledged = {
            let mut world = lock(&self.world);
            let world = &mut *world;
            database::go_on(&mut world.databases, &world.net, &mut world.random, self.now)?
        };
        for (at, end, record) in acknowledged {
            let mut world = lock(&self.world);
            let term = world.databases[&at].rule.term;
            world.oracle.tell(record, end, term);
            world.oracle.acknowledged += 1;
            world.history.note((self.now, at.0, end, record));
            world.history.say(self.now, || format!("an append is acknowledged at node {at}"));
        }
        self.look()?;
        self.found()
    }

    fn found(&self) -> Checked {
        let mut world = lock(&self.world);
        let found = world.oracle.found.take();
        match world.violation.take().or(found) {
            Some(violation) => Err(violation),
            None => crate::panicked(),
        }
    }

    /// Letters that have arrived are handed over.
    fn deliver(&mut self) {
        let arrived = lock(&self.world).net.arrived(self.now);
        for Letter { from, to, ticket, content } in arrived {
            match content {
                Content::Request(request) => {
                    lock(&self.world).history.note((self.now, from.0, to.0, kind(&request)));
                    let Some(node) = self.nodes.get(&to) else { continue };
                    let delivery = Delivery { from, ticket, request: *request };
                    if node.off || node.deliver(delivery) {
                        continue;
                    }
                    // Nobody listens there.
                    let mut world = lock(&self.world);
                    let world = &mut *world;
                    let Some(address) = world.net.address_asked(ticket) else { continue };
                    let reason = "nobody listens".to_owned();
                    let answer = Err(TransportError::Unreachable { node: to, address, reason });
                    let letter = Letter { from: to, to: from, ticket, content: Content::Answer(Box::new(answer)) };
                    world.net.send(self.now, &mut world.random, letter);
                }
                Content::Answer(answer) => {
                    let mut world = lock(&self.world);
                    world.history.note((self.now, from.0, to.0, ticket));
                    let waiting = world.net.take_waiting(ticket);
                    drop(world);
                    if let Some(waiting) = waiting {
                        let _ = waiting.answer.send(*answer);
                    }
                }
            }
        }
    }

    /// What runs beside the agents: each guard ends a primary whose lease is over, if its agent does not.
    fn guards(&mut self) {
        let mut world = lock(&self.world);
        let world = &mut *world;
        for node in self.nodes.values_mut() {
            if let Some(lease) = node.with(|cluster, _| cluster.lease_end()).flatten() {
                node.lease = Some(lease);
                node.told = true;
            }
            // An agent that has come back relieves the guard once it has a lease of its own.
            if self.profile.guards
                && !(node.runs() && node.told)
                && let Some(db) = world.databases.get_mut(&node.id)
                && db.role == DatabaseRole::Primary
                && node.lease.is_none_or(|lease| self.now > lease)
            {
                db.crash(&mut world.random);
                world.history.note((self.now, node.id.0, "guard"));
                world.history.say(self.now, || format!("guard {}: ends the primary", node.id));
            }
        }
    }

    /// Checks what must hold at any instant.
    fn look(&mut self) -> Checked {
        let mut leaders = Vec::new();
        let mut serving = Vec::new();
        for (&id, node) in &self.nodes {
            // No agent starts on a disk that fails. It is tried again on one that works.
            if let Some(error) = node.failed().filter(|_| !node.disk.is_failing() && !node.disk.is_gone()) {
                return Err(Violation::new(Invariant::StoresOpen, format!("node {id} does not start: {error}")));
            }
            let looked = node.with(|cluster, store| {
                let inside = cluster.inside();
                let before = lock(&self.world).oracle.leads.len();
                lock(&self.world).oracle.look(id, self.now, cluster, store, &inside)?;
                let mut world = lock(&self.world);
                if world.oracle.leads.len() > before {
                    let lead = world.oracle.leads.last_key_value().map(|(term, node)| (*term, *node));
                    world.history.note(lead);
                    world.history.say(self.now, || format!("the log says who leads: {lead:?} (term, node)"));
                }
                drop(world);
                Ok::<_, Violation>(cluster.is_leader().ok().map(|leader| (id, leader.term)))
            });
            match looked {
                Some(Ok(Some(leader))) => leaders.push(leader),
                Some(looked) => drop(looked?),
                None => {}
            }
            let world = lock(&self.world);
            if let Some(db) = world.databases.get(&id)
                && db.role == DatabaseRole::Primary
                && db.open
                && node.runs()
                && !db.is_frozen(self.now)
            {
                serving.push((id, db.rule.term));
            }
        }
        self.leads = leaders.first().map(|(id, _)| *id);
        if leaders.len() > 1 {
            return Err(Violation::new(
                Invariant::OneLeaderAtATime,
                format!("nodes say at once that they lead: {leaders:?} (node, term)"),
            ));
        }
        // Where no guard ends it, the primary of an agent that was killed goes on until another is started.
        if serving.len() > 1 && self.profile.guards {
            return Err(Violation::new(
                Invariant::OnePrimaryServes,
                format!("primaries whose agents run serve at once: {serving:?} (node, term)"),
            ));
        }
        if let Some((id, _)) = leaders.first() {
            let world = lock(&self.world);
            if let Some(db) = world.databases.get(id).filter(|db| db.role == DatabaseRole::Primary && db.open) {
                world.oracle.has_all(db)?;
            }
        }
        Ok(())
    }
}
