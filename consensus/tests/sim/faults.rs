//! What goes wrong, and when.

use std::time::Duration;

use qluster_consensus::model::NodeId;
use qluster_consensus::protocol::database::DatabaseRole;
use rand::Rng;
use rand::rngs::StdRng;

use crate::disk::Fails;
use crate::network::{Spoilt, split};
use crate::plots::{Cast, PLOTS, Plot};
use crate::world::{Simulation, lock};

/// What kind of history a seed makes.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The nodes that there are to be.
    pub databases: usize,
    pub witnesses: usize,
    /// Faults come before the cluster has formed, too.
    pub early: bool,
    /// Guards end the primaries of agents that do not.
    pub guards: bool,
    /// Operators change members and leaders.
    pub operators: bool,
    /// Faults come as this plot says, and not by chance.
    pub plot: Option<Plot>,
    /// How often each kind of fault comes.
    weights: Vec<(Fault, u32)>,
    /// The mean time between two faults, in milliseconds.
    pause: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    KillAgent,
    CutPower,
    CutAllPower,
    CutPowerInWrite,
    PauseAgent,
    PauseMachine,
    FreezeDatabase,
    CrashDatabase,
    UnfitDatabase,
    Partition,
    Isolate,
    OneWay,
    Slow,
    Lossy,
    FailDisk,
    Heal,
}

use Fault::*;

/// Kinds of faults that make up the profiles.
const PROFILES: [&[(Fault, u32)]; 8] = [
    &[(KillAgent, 3), (CutPower, 3), (CutAllPower, 1), (CutPowerInWrite, 2), (CrashDatabase, 3), (Heal, 1)],
    &[(Partition, 3), (Isolate, 4), (OneWay, 4), (Slow, 2), (Lossy, 1), (Heal, 4)],
    &[(PauseAgent, 5), (PauseMachine, 2), (FreezeDatabase, 2), (Isolate, 2), (CrashDatabase, 2), (Heal, 2)],
    &[(CrashDatabase, 5), (CutPower, 2), (FreezeDatabase, 2), (UnfitDatabase, 1), (Isolate, 2), (Heal, 2)],
    &[(CutPowerInWrite, 4), (CutAllPower, 2), (FailDisk, 2), (KillAgent, 2), (Isolate, 1), (Heal, 1)],
    &[(Slow, 5), (Isolate, 3), (OneWay, 3), (PauseAgent, 2), (Heal, 3)],
    &[(PauseAgent, 4), (KillAgent, 2), (CutPower, 2), (Isolate, 3), (CrashDatabase, 3), (Slow, 2), (Heal, 3)],
    &[
        (KillAgent, 2),
        (CutPower, 2),
        (CutAllPower, 1),
        (CutPowerInWrite, 2),
        (PauseAgent, 2),
        (PauseMachine, 1),
        (FreezeDatabase, 1),
        (CrashDatabase, 2),
        (UnfitDatabase, 1),
        (Partition, 2),
        (Isolate, 2),
        (OneWay, 2),
        (Slow, 2),
        (Lossy, 1),
        (FailDisk, 1),
        (Heal, 4),
    ],
];

impl Profile {
    pub fn new(seed: u64, random: &mut StdRng) -> Self {
        let (databases, witnesses) = match random.random_range(0..10) {
            0..=4 => (3, 0),
            5 => (2, 1),
            6 => (4, 0),
            7 => (5, 0),
            8 => (3, 2),
            _ => (random.random_range(2..=5), random.random_range(0..=2)),
        };
        let number = usize::try_from(seed / 2).unwrap_or(0);
        let by_chance = Self {
            databases,
            witnesses: witnesses.min(databases),
            early: random.random_range(0..4) == 0,
            guards: random.random_range(0..3) > 0,
            operators: random.random_range(0..2) == 0,
            plot: None,
            weights: PROFILES[number % PROFILES.len()].to_vec(),
            pause: [150, 400, 800, 1500][random.random_range(0..4)],
        };
        if !seed.is_multiple_of(2) {
            return by_chance;
        }
        let plot = PLOTS[number % PLOTS.len()];
        let Cast { databases, witnesses } = plot.cast();
        let guards = by_chance.guards && !plot.without_guards();
        Self { databases, witnesses, early: false, guards, operators: false, plot: Some(plot), ..by_chance }
    }
}

pub struct Faults {
    next: Duration,
    heal: Option<Duration>,
    weights: Vec<(Fault, u32)>,
    pause: u64,
    ill: Vec<(NodeId, Duration)>,
}

impl Faults {
    pub fn new(profile: &Profile) -> Self {
        let (weights, pause) = (profile.weights.clone(), profile.pause);
        Self { next: Duration::ZERO, heal: None, weights, pause, ill: Vec::new() }
    }

    /// Does what is due.
    pub fn act(&mut self, sim: &mut Simulation) {
        if self.heal.is_some_and(|heal| sim.now >= heal) {
            self.heal = None;
            lock(&sim.world).net.heal();
            sim.say(|| "the network is well".into());
        }
        self.cure(sim, false);
        restarts(sim);
        if sim.now < self.next {
            return;
        }
        let (pause, at) = {
            let mut world = lock(&sim.world);
            let all: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
            (world.random.random_range(1..=2 * self.pause), world.random.random_range(0..all))
        };
        if self.next > Duration::ZERO {
            let mut left = at;
            for &(fault, weight) in &self.weights {
                if left < weight {
                    self.inflict(sim, fault);
                    break;
                }
                left -= weight;
            }
        }
        self.next = sim.now + Duration::from_millis(pause);
    }

    /// Nothing is wrong any more.
    pub fn end(&mut self, sim: &mut Simulation) {
        lock(&sim.world).net.heal();
        for node in sim.nodes.values() {
            node.disk.stays();
        }
        self.cure(sim, true);
        for node in sim.nodes.values_mut() {
            if node.paused.is_some() {
                node.paused = Some(sim.now);
            }
            if node.agent.is_none() && !node.removed {
                node.restart = Some(sim.now);
            }
        }
        for db in lock(&sim.world).databases.values_mut() {
            db.frozen = Duration::ZERO;
            db.unfit = None;
        }
        restarts(sim);
    }

    /// Disks that fail are replaced, and their agents started again; databases are fit again.
    fn cure(&mut self, sim: &mut Simulation, all: bool) {
        let now = sim.now;
        let due: Vec<_> = self.ill.extract_if(.., |(_, until)| all || *until <= now).collect();
        for (id, _) in due {
            lock(&sim.world).databases.get_mut(&id).unwrap().unfit = None;
            let node = sim.nodes.get_mut(&id).unwrap();
            if node.disk.is_failing() {
                node.disk.fail(None);
                node.kill();
                node.restart = Some(now);
                sim.say(|| format!("node {id}: its disk works again, the agent is started"));
            }
        }
        let gone: Vec<_> = sim.nodes.values().filter(|node| node.disk.is_gone()).map(|node| node.id).collect();
        for id in gone {
            sim.say(|| format!("node {id}: the power is cut in a write"));
            cut_power(sim, id, 1500);
        }
    }

    fn inflict(&mut self, sim: &mut Simulation, fault: Fault) {
        let ids: Vec<_> = sim.nodes.values().filter(|node| !node.removed).map(|node| node.id).collect();
        let leader = sim.leader().map(|(id, _)| id);
        let id = match leader {
            Some(leader) if sim.chance(2) => leader,
            _ => sim.one_of(&ids).unwrap(),
        };
        let long = self.time(sim);
        let now = sim.now;
        lock(&sim.world).history.note((now, fault, id.0));
        match fault {
            KillAgent => {
                sim.say(|| format!("node {id}: the agent is killed"));
                kill(sim, id, long);
            }
            CutPower => {
                sim.say(|| format!("node {id}: the power is cut"));
                cut_power(sim, id, long);
            }
            CutAllPower => {
                sim.say(|| "the power is cut at most nodes".into());
                let spared = sim.chance(2).then_some(id);
                for &id in ids.iter().filter(|&&id| Some(id) != spared) {
                    cut_power(sim, id, long);
                }
            }
            CutPowerInWrite => {
                let operations = lock(&sim.world).random.random_range(1..30);
                sim.say(|| format!("node {id}: the power will be cut at write {operations} from now"));
                sim.nodes[&id].disk.gone_after(operations);
            }
            PauseAgent | PauseMachine => {
                let until = now + Duration::from_millis(long);
                sim.say(|| format!("node {id}: {fault:?} for {long} ms"));
                let node = sim.nodes.get_mut(&id).unwrap();
                if node.agent.is_some() {
                    node.paused = Some(until);
                }
                if fault == PauseMachine {
                    lock(&sim.world).databases.get_mut(&id).unwrap().frozen = until;
                }
            }
            FreezeDatabase => {
                sim.say(|| format!("database {id}: frozen for {long} ms"));
                lock(&sim.world).databases.get_mut(&id).unwrap().frozen = now + Duration::from_millis(long);
            }
            CrashDatabase => {
                sim.say(|| format!("database {id}: crashes"));
                let mut world = lock(&sim.world);
                let world = &mut *world;
                world.databases.get_mut(&id).unwrap().crash(&mut world.random);
            }
            UnfitDatabase => {
                sim.say(|| format!("database {id}: not fit for {long} ms"));
                lock(&sim.world).databases.get_mut(&id).unwrap().unfit = Some("its disk is full");
                self.ill.push((id, now + Duration::from_millis(long)));
            }
            FailDisk => {
                let fails = if sim.chance(2) { Fails::Sync } else { Fails::Write };
                sim.say(|| format!("node {id}: its disk fails ({fails:?})"));
                sim.nodes[&id].disk.fail(Some(fails));
                self.ill.push((id, now + Duration::from_millis(long)));
            }
            Partition => {
                let mut world = lock(&sim.world);
                let world = &mut *world;
                let (one, other) = split(&ids, &mut world.random);
                for &a in &one {
                    for &b in &other {
                        world.net.spoil(a, b, Spoilt::Cut);
                        world.net.spoil(b, a, Spoilt::Cut);
                    }
                }
                world.history.say(now, || format!("the network is cut between {one:?} and {other:?}"));
                self.heal = Some(now + Duration::from_millis(long));
            }
            Isolate => {
                let mut world = lock(&sim.world);
                for &other in ids.iter().filter(|&&other| other != id) {
                    world.net.spoil(id, other, Spoilt::Cut);
                    world.net.spoil(other, id, Spoilt::Cut);
                }
                world.history.say(now, || format!("node {id}: cut off"));
                self.heal = Some(now + Duration::from_millis(long));
            }
            OneWay => {
                let outwards = sim.chance(2);
                let other = sim.one_of(&ids).unwrap();
                let all = sim.chance(2);
                let mut world = lock(&sim.world);
                for &other in ids.iter().filter(|&&peer| peer != id && (all || peer == other)) {
                    let (from, to) = if outwards { (id, other) } else { (other, id) };
                    world.net.spoil(from, to, Spoilt::Cut);
                    world.history.say(now, || format!("nothing gets from node {from} to node {to}"));
                }
                self.heal = Some(now + Duration::from_millis(long));
            }
            Slow | Lossy => {
                let inwards = sim.chance(2);
                let mut world = lock(&sim.world);
                let world = &mut *world;
                let spoilt = match fault {
                    Slow => Spoilt::Slow(world.random.random_range(20..480)),
                    _ => Spoilt::Lossy(world.random.random_range(5..50)),
                };
                for &other in ids.iter().filter(|&&other| other != id) {
                    let (from, to) = if inwards { (other, id) } else { (id, other) };
                    world.net.spoil(from, to, spoilt);
                }
                let way = if inwards { "to" } else { "from" };
                world.history.say(now, || format!("what goes {way} node {id} is spoilt: {spoilt:?}"));
                self.heal = Some(now + Duration::from_millis(2 * long));
            }
            Heal => {
                lock(&sim.world).net.heal();
                sim.say(|| "the network is well".into());
            }
        }
    }

    /// How long something lasts, in milliseconds: most often about as long as it takes to notice it.
    fn time(&self, sim: &Simulation) -> u64 {
        let mut world = lock(&sim.world);
        match world.random.random_range(0..4) {
            0 => world.random.random_range(10..300),
            1 | 2 => world.random.random_range(300..2500),
            _ => world.random.random_range(1500..5000),
        }
    }
}

/// The agent ends; its database goes on.
pub fn kill(sim: &mut Simulation, id: NodeId, restart: u64) {
    let node = sim.nodes.get_mut(&id).unwrap();
    if node.off {
        return;
    }
    node.kill();
    node.restart = Some(sim.now + Duration::from_millis(restart));
}

/// All on the machine ends, and what was not synced is lost.
pub fn cut_power(sim: &mut Simulation, id: NodeId, restart: u64) {
    let node = sim.nodes.get_mut(&id).unwrap();
    node.kill();
    node.off = true;
    node.restart = Some(sim.now + Duration::from_millis(restart));
    let mut world = lock(&sim.world);
    let world = &mut *world;
    node.disk.fail(None);
    node.disk.cut_power(&mut world.random);
    let db = world.databases.get_mut(&id).unwrap();
    db.crash(&mut world.random);
    db.frozen = Duration::ZERO;
}

/// Starts the agents that are to be started by now.
pub fn restarts(sim: &mut Simulation) {
    let due: Vec<_> = sim
        .nodes
        .values()
        .filter(|node| node.agent.is_none() && node.restart.is_some_and(|at| at <= sim.now))
        .map(|node| node.id)
        .collect();
    for id in due {
        {
            let mut world = lock(&sim.world);
            world.oracle.restarts(id);
            let now = sim.now;
            world.history.say(now, || format!("node {id}: the agent starts"));
            let db = world.databases.get_mut(&id).unwrap();
            if db.role == DatabaseRole::Rebuilding {
                // What rebuilt it was a child of the agent.
                db.end();
            }
            db.tell();
        }
        let world = sim.world.clone();
        let now = sim.now;
        let node = sim.nodes.get_mut(&id).unwrap();
        let origin = node.origin.clone();
        node.start(&world, now, origin);
    }
}
