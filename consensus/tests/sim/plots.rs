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
    /// The voters that it begins with.
    pub fn cast(self) -> Cast {
        match self {
            Self::Growth => Cast { databases: 1, witnesses: 1 },
            Self::Torn => Cast { databases: 2, witnesses: 1 },
            Self::Shrink | Self::Expelled => Cast { databases: 5, witnesses: 0 },
            Self::Outsider => Cast { databases: 4, witnesses: 0 },
            _ => Cast { databases: 3, witnesses: 0 },
        }
    }

    /// Whether databases must outlive their agents.
    pub fn without_guards(self) -> bool {
        matches!(self, Self::Deposed | Self::Forgetful | Self::Interlude)
    }
}

/// How many voters of each kind a plot begins with.
pub struct Cast {
    pub databases: usize,
    pub witnesses: usize,
}

/// A part of a plot.
#[derive(Clone, Copy)]
struct Scene {
    /// What it waits for, in words.
    waits_for: &'static str,
    /// The same as a condition.
    until: fn(&Stage, &Simulation) -> bool,
    /// How long it waits. If that time passes, the plot is over.
    within: Duration,
    /// What happens once the condition holds.
    then: fn(&mut Stage, &mut Simulation),
}

/// A node that Raft has elected, whether or not its database is promoted.
#[derive(Clone, Copy)]
struct Elected {
    node: NodeId,
    term: u64,
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
    /// How many appends were acknowledged when the plot last looked.
    acknowledged: u64,
    /// How long a scene waits that waits for a time of chance.
    delay: Duration,
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
            delay: Duration::ZERO,
        }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Goes on if what the present scene waits for has come.
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
        let Some(Scene { waits_for, until, within, then }) = self.scenes.get(self.next) else {
            self.over = true;
            return;
        };
        if until(self, sim) {
            let number = self.next;
            sim.say(|| format!("scene {number}, which waited for this: {waits_for}"));
            then(self, sim);
            self.next += 1;
            self.since = sim.now;
            // Most scenes go on at once, some a little later.
            let pause = if sim.chance(3) { lock(&sim.world).random.random_range(0..60) } else { 0 };
            self.pause = Duration::from_millis(pause);
        } else if waited > self.pause + *within {
            let number = self.next;
            sim.say(|| format!("scene {number} does not come, which waits for this: {waits_for}"));
            self.over = true;
        }
    }

    fn begin(&mut self, sim: &Simulation) {
        let Some((leader, cluster)) = sim.leader() else { return };
        (self.leader, self.term) = (leader, cluster.inside().vote.term.0);
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
    fn elected(&self, sim: &Simulation) -> Option<Elected> {
        sim.nodes.keys().find_map(|&node| {
            let view = view(sim, node)?;
            (view.leads && view.term > self.term).then_some(Elected { node, term: view.term })
        })
    }

    fn another_leads(&self, sim: &Simulation) -> bool {
        sim.leader().is_some_and(|(_, cluster)| cluster.inside().vote.term.0 > self.term)
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

/// What a node knows of its term by Raft.
struct View {
    term: u64,
    leads: bool,
}

fn view(sim: &Simulation, id: NodeId) -> Option<View> {
    sim.nodes[&id].with(|cluster, _| {
        let inside = cluster.inside();
        View { term: inside.vote.term.0, leads: inside.leads }
    })
}

/// The voters by the log of a node. None while it is between two sets of them.
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

/// The agent of a node that does not run starts after `after` milliseconds.
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

fn another_is_promoted(stage: &Stage, sim: &Simulation) -> bool {
    let serves = |db: &Db| db.role == DatabaseRole::Primary && db.rule.term >= Term(stage.term);
    stage.others.iter().any(|&id| db(sim, id, serves))
}

const VOTER: NodeRole = NodeRole::Voter;
