//! Histories with a plot: faults that come in the order in which they hurt a certain rule, since by chance they seldom do.
//! Time, the order of letters and who plays which part are still the seed's. Without a broken rule, a plot does not get to
//! its end: what it waits for does not come, and then all faults are over.

mod scenes;

use std::time::Duration;

use qluster_consensus::model::{NodeId, NodeRole, Term};
use qluster_consensus::protocol::database::DatabaseRole;
use rand::Rng;

use crate::clients::Order;
use crate::database::Db;
use crate::faults;
use crate::network::Spoilt;
use crate::world::{Simulation, lock};

/// What a history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// A primary whose agent was away is recruited, and a standby streams from it that is not.
    Deposed,
    /// A standby follows a new term, and gets nothing of its WAL.
    Unreached,
    /// A standby that has promised restarts, while the earlier primary serves on.
    Forgetful,
    /// A primary is promoted whose WAL nobody else has, and dies.
    Tail,
    /// A primary dies whose WAL is the longest, and comes back when another has acknowledged more.
    Longest,
    /// A database is being rewound as its agent restarts, and its primary dies.
    Torn,
    /// A witness and a database are all voters, and another database becomes one that lags.
    Growth,
    /// Two of five lose their votes, which hold what two of the others lack.
    Shrink,
    /// A standby without an agent reconnects to a primary that was promoted again.
    Namesake,
    /// A leader is cut off as it hands over.
    Farewell,
    /// A voter restarts that has promised not to vote, and another stands.
    Revenant,
    /// A node learns from others that it was removed, and one that does not know stands.
    Expelled,
    /// A node is elected while its own vote is being taken.
    Outsider,
    /// A primary whose agent was away is elected again, after another was, whom nobody followed.
    Interlude,
    /// Somebody promotes a standby by hand, which then has more WAL than the primary, and the primary dies.
    Usurper,
}

pub const PLOTS: [Plot; 15] = [
    Plot::Deposed,
    Plot::Unreached,
    Plot::Forgetful,
    Plot::Tail,
    Plot::Longest,
    Plot::Torn,
    Plot::Growth,
    Plot::Shrink,
    Plot::Namesake,
    Plot::Farewell,
    Plot::Revenant,
    Plot::Expelled,
    Plot::Outsider,
    Plot::Interlude,
    Plot::Usurper,
];

impl Plot {
    /// The voters that it begins with: databases and witnesses.
    pub fn cast(self) -> (usize, usize) {
        match self {
            Self::Growth => (1, 1),
            Self::Torn => (2, 1),
            Self::Shrink | Self::Expelled => (5, 0),
            Self::Outsider => (4, 0),
            _ => (3, 0),
        }
    }

    /// Whether databases must outlive their agents.
    pub fn without_guards(self) -> bool {
        matches!(self, Self::Deposed | Self::Forgetful | Self::Interlude)
    }
}

/// A part of a plot: what it waits for, for how long, and what happens then.
#[derive(Clone, Copy)]
struct Scene {
    until: fn(&Stage, &Simulation) -> bool,
    /// In milliseconds. Where the time is over, so is the plot.
    patience: u64,
    act: fn(&mut Stage, &mut Simulation),
}

const fn scene(until: fn(&Stage, &Simulation) -> bool, patience: u64, act: fn(&mut Stage, &mut Simulation)) -> Scene {
    Scene { until, patience, act }
}

/// Who plays which part, and how far the plot is.
pub struct Stage {
    scenes: &'static [Scene],
    next: usize,
    /// When the present scene has begun, and how long it waits in any case.
    since: Duration,
    pause: Duration,
    over: bool,
    /// Who led when the plot began, and the term.
    leader: NodeId,
    term: u64,
    /// The others, in an order of chance; plots move those to the front that get a part.
    others: Vec<NodeId>,
    /// How many appends were acknowledged.
    acknowledged: u64,
}

impl Stage {
    pub fn new(plot: Plot) -> Self {
        Self {
            scenes: scenes::of(plot),
            next: 0,
            since: Duration::ZERO,
            pause: Duration::ZERO,
            over: false,
            leader: NodeId(0),
            term: 0,
            others: Vec::new(),
            acknowledged: 0,
        }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Goes on where what is waited for has come.
    pub fn act(&mut self, sim: &mut Simulation) {
        faults::restarts(sim);
        if self.over {
            return;
        }
        if self.leader == NodeId(0) {
            self.begin(sim);
            return;
        }
        let waited = sim.now.saturating_sub(self.since);
        if waited < self.pause {
            return;
        }
        let Some(Scene { until, patience, act }) = self.scenes.get(self.next) else {
            self.over = true;
            return;
        };
        if until(self, sim) {
            let number = self.next;
            sim.say(|| format!("scene {number}"));
            act(self, sim);
            self.next += 1;
            self.since = sim.now;
            // Most scenes go on at once, some a little later.
            let pause = if sim.chance(3) { lock(&sim.world).random.random_range(0..60) } else { 0 };
            self.pause = Duration::from_millis(pause);
        } else if waited > self.pause + Duration::from_millis(*patience) {
            let number = self.next;
            sim.say(|| format!("scene {number} does not come"));
            self.over = true;
        }
    }

    fn begin(&mut self, sim: &Simulation) {
        let Some((leader, cluster)) = sim.leader() else { return };
        (self.leader, self.term) = (leader, cluster.inside().vote.leader_id.term);
        self.others = sim.nodes.keys().copied().filter(|&id| id != leader).collect();
        let mut world = lock(&sim.world);
        for at in (1..self.others.len()).rev() {
            self.others.swap(at, world.random.random_range(0..=at));
        }
        self.since = sim.now;
        self.pause = Duration::from_millis(world.random.random_range(100..1200));
    }

    fn other(&self, at: usize) -> NodeId {
        self.others[at]
    }

    /// Gives the first part among the others to `node`.
    fn cast(&mut self, node: NodeId) {
        let at = self.others.iter().position(|&other| other == node);
        self.others.swap(0, at.expect("one of the others"));
    }

    fn all(&self) -> Vec<NodeId> {
        std::iter::once(self.leader).chain(self.others.iter().copied()).collect()
    }

    // ---- what is waited for ----

    fn more_is_acknowledged(&self, sim: &Simulation, by: u64) -> bool {
        lock(&sim.world).oracle.acknowledged >= self.acknowledged + by
    }

    /// Who was elected in a later term than the plot knows, and in which.
    fn elected(&self, sim: &Simulation) -> Option<(NodeId, u64)> {
        sim.nodes.keys().find_map(|&id| {
            inside(sim, id).filter(|&(term, leads)| leads && term > self.term).map(|(term, _)| (id, term))
        })
    }

    fn another_leads(&self, sim: &Simulation) -> bool {
        sim.leader().is_some_and(|(_, cluster)| cluster.inside().vote.leader_id.term > self.term)
    }

    /// Whether all databases have what the leader's has.
    fn all_are_equal(&self, sim: &Simulation) -> bool {
        let world = lock(&sim.world);
        let goal = world.databases[&self.leader].wal.len();
        self.all().iter().all(|id| world.databases[id].flushed == goal)
    }

    // ---- what happens ----

    fn remember(&mut self, sim: &Simulation) {
        self.acknowledged = lock(&sim.world).oracle.acknowledged;
    }
}

/// The term of a node, and whether it leads that by Raft.
fn inside(sim: &Simulation, id: NodeId) -> Option<(u64, bool)> {
    sim.nodes[&id].with(|cluster, _| {
        let inside = cluster.inside();
        (inside.vote.leader_id.term, inside.leads)
    })
}

/// How many voters there are by the log of a node, where it is not between two sets of them.
fn voters(sim: &Simulation, id: NodeId) -> Option<Vec<NodeId>> {
    let sets = sim.nodes[&id].with(|cluster, _| cluster.inside().voters)?;
    match &sets[..] {
        [one] => Some(one.iter().copied().collect()),
        _ => None,
    }
}

fn db<T>(sim: &Simulation, id: NodeId, look: impl FnOnce(&Db) -> T) -> T {
    look(&lock(&sim.world).databases[&id])
}

/// Whether a database serves as the primary of a term after `term`.
fn promoted_after(sim: &Simulation, id: NodeId, term: u64) -> bool {
    db(sim, id, |db| db.role == DatabaseRole::Primary && db.rule.term > Term(term))
}

fn has_promised(sim: &Simulation, id: NodeId, term: u64) -> bool {
    let promise = sim.nodes[&id].with(|_, store| store.database_record().map(|record| record.promise));
    promise.is_some_and(|promise| promise.is_ok_and(|promise| promise.0 >= term))
}

const LONG: u64 = 3_600_000;

fn freeze(sim: &Simulation, id: NodeId) {
    sim.say(|| format!("database {id}: frozen"));
    lock(&sim.world).databases.get_mut(&id).unwrap().frozen = Duration::MAX;
}

fn thaw(sim: &Simulation, id: NodeId) {
    sim.say(|| format!("database {id}: goes on"));
    lock(&sim.world).databases.get_mut(&id).unwrap().frozen = Duration::ZERO;
}

fn crash_database(sim: &Simulation, id: NodeId) {
    sim.say(|| format!("database {id}: crashes"));
    let mut world = lock(&sim.world);
    let world = &mut *world;
    world.databases.get_mut(&id).unwrap().crash(&mut world.random);
}

fn stray(sim: &Simulation, id: NodeId) {
    sim.say(|| format!("database {id}: promoted by hand"));
    let mut world = lock(&sim.world);
    let world = &mut *world;
    let first = world.records + 1;
    world.records += 40;
    world.promotions += 1;
    world.databases.get_mut(&id).unwrap().stray(first..world.records + 1, world.promotions);
}

fn kill(sim: &mut Simulation, id: NodeId) {
    sim.say(|| format!("node {id}: the agent is killed"));
    faults::kill(sim, id, LONG);
}

fn cut_power(sim: &mut Simulation, id: NodeId) {
    sim.say(|| format!("node {id}: the power is cut"));
    faults::cut_power(sim, id, LONG);
}

/// The agent of a node that does not run starts after so many milliseconds.
fn start(sim: &mut Simulation, id: NodeId, after: u64) {
    let at = sim.now + Duration::from_millis(after);
    sim.nodes.get_mut(&id).unwrap().restart = Some(at);
}

fn cut_way(sim: &Simulation, from: NodeId, to: NodeId) {
    sim.say(|| format!("nothing gets from node {from} to node {to}"));
    lock(&sim.world).net.spoil(from, to, Spoilt::Cut);
}

fn cut(sim: &Simulation, one: NodeId, other: NodeId) {
    cut_way(sim, one, other);
    cut_way(sim, other, one);
}

fn cut_off(sim: &Simulation, id: NodeId) {
    for &other in sim.nodes.keys().filter(|&&other| other != id) {
        cut(sim, id, other);
    }
}

fn heal(sim: &Simulation) {
    sim.say(|| "the network is well".into());
    lock(&sim.world).net.heal();
}

/// An operator asks the leader of the beginning for something.
fn order(stage: &Stage, sim: &Simulation, order: Order) {
    sim.say(|| format!("operator: {order:?} at node {}", stage.leader));
    crate::clients::give(sim, stage.leader, order, |_| {});
}

fn nothing(_: &mut Stage, _: &mut Simulation) {}

fn at_once(_: &Stage, _: &Simulation) -> bool {
    true
}

/// Whoever leads next is checked when it is promoted, so all that a plot has to do then is to wait for that.
fn another_is_promoted(stage: &Stage, sim: &Simulation) -> bool {
    let serves = |db: &Db| db.role == DatabaseRole::Primary && db.rule.term >= Term(stage.term);
    stage.others.iter().any(|&id| db(sim, id, serves))
}

const VOTER: NodeRole = NodeRole::Voter;
