//! Putting a fault into the cluster, and ending it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::clock::Step;
use super::fault::{Fault, Kind, Victim};
use super::network::{CLIENTS, Network, address};
use super::random::Random;
use super::world::{INTERVAL, LIMIT, World};
use crate::postgres::Session;
use crate::process;
use crate::wait::{Look, until};

/// How long a killed process may take to be dead. It takes longer only if it hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The limit for a statement of a person who promotes a standby.
const STATEMENT: Duration = Duration::from_secs(5);
/// By how many seconds the clock is set wrong.
const STEPS: [i64; 3] = [15, 40, 75];

/// A fault that was put in.
pub(crate) struct Inflicted {
    pub(crate) fault: Fault,
    /// The node that it hit, if it was one.
    pub(crate) node: Option<usize>,
    undo: Undo,
}

/// How a fault is ended.
enum Undo {
    Nothing,
    Start(Vec<usize>),
    Continue(usize),
    Mend(Vec<(Ipv4Addr, Ipv4Addr)>),
    Quicken(usize),
    Steady(Flapping),
    SetClock(Step),
    Free(usize),
    Upgrade(usize),
    RemoveSpare,
    Rejoin(usize),
}

/// How long a fault lasts.
pub(crate) fn lasts(fault: Fault, random: &mut Random) -> Duration {
    let (from, to) = match fault.kind {
        Kind::FreezeAgent { long: false } | Kind::FreezeDatabase { long: false } | Kind::FreezeNode { long: false } => {
            (200, 800)
        }
        Kind::KillAgent | Kind::KillDatabase | Kind::KillNode | Kind::PowerCut => (100, 2500),
        Kind::Promote | Kind::Switchover | Kind::NodeDown | Kind::Rejoin => (500, 1500),
        Kind::AddAndRemove => (0, 500),
        _ => (1500, 3500),
    };
    random.millis(from, to)
}

/// Whether a fault lasts until another node leads.
pub(crate) fn deposes(fault: Fault) -> bool {
    let silences = matches!(
        fault.kind,
        Kind::FreezeAgent { long: true }
            | Kind::FreezeNode { long: true }
            | Kind::Isolate
            | Kind::IsolateFromAll
            | Kind::Mute
            | Kind::Deafen
    );
    fault.victim == Victim::Leader && silences
}

/// Puts a fault into the cluster.
pub(crate) fn inflict(world: &mut World, fault: Fault) -> Result<Inflicted> {
    let leader = world.leader().map(|(leader, _)| leader);
    let others: Vec<usize> = (0..world.members).filter(|&node| Some(node) != leader).collect();
    let node = match fault.victim {
        Victim::Leader => leader.filter(|&leader| leader < world.members).or_else(|| world.random.choose(&others)),
        Victim::Standby => world.random.choose(&others),
        Victim::Cluster => None,
    };
    let whom = node.map_or(String::new(), |node| format!(" (node {})", node + 1));
    world.journal.note(format!("fault: {fault}{whom}"));
    let victim = node.unwrap_or(0);
    let rest: Vec<usize> = (0..=world.members).filter(|&other| other != victim).collect();
    let undo = match fault.kind {
        Kind::KillAgent => {
            let daemon: Vec<u32> = world.cluster.nodes()[victim].daemon().into_iter().collect();
            kill(&daemon)?;
            // It is reaped here, so that it does not count as ended by itself.
            let _ = world.cluster.node_mut(victim).ended();
            Undo::Start(vec![victim])
        }
        Kind::KillDatabase => {
            kill(&world.cluster.nodes()[victim].database())?;
            Undo::Nothing
        }
        Kind::KillNode => {
            kill_node(world, victim)?;
            Undo::Start(vec![victim])
        }
        Kind::PowerCut => {
            let running: Vec<usize> =
                (0..=world.members).filter(|&node| world.cluster.nodes()[node].daemon().is_some()).collect();
            let all: Vec<u32> = running.iter().flat_map(|&node| world.cluster.nodes()[node].processes()).collect();
            all.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
            running.iter().try_for_each(|&node| kill_node(world, node))?;
            Undo::Start(running)
        }
        Kind::FreezeAgent { .. } => {
            world.cluster.nodes()[victim].signal(Signal::STOP);
            Undo::Continue(victim)
        }
        Kind::FreezeDatabase { .. } => {
            freeze(|| world.cluster.nodes()[victim].database());
            Undo::Continue(victim)
        }
        Kind::FreezeNode { .. } => {
            freeze(|| world.cluster.nodes()[victim].processes());
            Undo::Continue(victim)
        }
        Kind::Isolate => {
            let alone = minority(world, victim);
            cut(world, pairs(&alone, &rest, true, true))?
        }
        Kind::IsolateFromAll => {
            let alone = minority(world, victim);
            let mut ways = pairs(&alone, &rest, true, true);
            for node in alone {
                ways.extend([(address(node), CLIENTS), (CLIENTS, address(node))]);
            }
            cut(world, ways)?
        }
        Kind::Mute => cut(world, pairs(&[victim], &rest, true, false))?,
        Kind::Deafen => cut(world, pairs(&[victim], &rest, false, true))?,
        Kind::IsolateEach => {
            let nodes = 0..=world.members;
            let ways = nodes.clone().flat_map(|from| nodes.clone().map(move |to| (from, to)));
            let ways = ways.filter(|(from, to)| from != to).map(|(from, to)| (address(from), address(to)));
            cut(world, ways.collect())?
        }
        Kind::Slow => {
            world.network.slow(victim)?;
            Undo::Quicken(victim)
        }
        Kind::Lossy => {
            let mut ways = pairs(&[victim], &rest, true, true);
            ways.extend([(address(victim), CLIENTS), (CLIENTS, address(victim))]);
            let random = Random::new(world.random.next());
            Undo::Steady(Flapping::start(world.network.clone(), ways, random))
        }
        Kind::ClockForward | Kind::ClockBack => {
            let seconds = world.random.choose(&STEPS).unwrap_or_default();
            Undo::SetClock(Step::by(if fault.kind == Kind::ClockBack { -seconds } else { seconds })?)
        }
        Kind::FullDisk => {
            world.cluster.nodes()[victim].disk().context("the node has no disk of its own")?.fill()?;
            Undo::Free(victim)
        }
        Kind::Promote => {
            promote(world, victim);
            Undo::Nothing
        }
        Kind::Switchover => {
            if let Some((id, _)) = world.random.choose(&others).and_then(|to| world.member(to).ok()?) {
                attempt(world, "POST", &format!("/leader?node={id}"));
            }
            Undo::Nothing
        }
        Kind::NodeDown => {
            if let Ok(Some((id, _))) = world.member(victim) {
                attempt(world, "POST", &format!("/node-down/{id}"));
            }
            Undo::Upgrade(victim)
        }
        Kind::AddAndRemove => {
            let spare = world.members;
            join(world, spare)?;
            Undo::RemoveSpare
        }
        Kind::Rejoin => {
            if let Ok(Some((id, _))) = world.member(victim) {
                attempt(world, "DELETE", &format!("/node/{id}"));
            }
            Undo::Rejoin(victim)
        }
    };
    Ok(Inflicted { fault, node, undo })
}

impl Inflicted {
    /// The rank of its end among faults that end together: it ends after those whose end it needs. Bringing a node back
    /// takes a cluster that works, and the spare node needs all others.
    pub(crate) fn ends(&self) -> u8 {
        match self.undo {
            Undo::RemoveSpare => 2,
            Undo::Upgrade(_) | Undo::Rejoin(_) => 1,
            _ => 0,
        }
    }

    /// Ends the fault.
    pub(crate) fn end(self, world: &mut World) -> Result<()> {
        world.journal.note(format!("ends: {}", self.fault));
        match self.undo {
            Undo::Nothing => Ok(()),
            Undo::Start(nodes) => nodes.into_iter().try_for_each(|node| {
                match world.cluster.nodes()[node].ensure_running() {
                    // Another fault has started it.
                    Ok(()) => Ok(()),
                    Err(_) => world.start(node),
                }
            }),
            Undo::Continue(node) => {
                let pids = world.cluster.nodes()[node].processes();
                pids.iter().for_each(|&pid| process::signal(pid, Signal::CONT));
                Ok(())
            }
            Undo::Mend(ways) => ways.iter().try_for_each(|&(from, to)| world.network.mend(from, to)),
            Undo::Quicken(node) => world.network.quicken(node),
            Undo::Steady(flapping) => flapping.end(),
            Undo::SetClock(step) => {
                drop(step);
                Ok(())
            }
            Undo::Free(node) => world.cluster.nodes()[node].disk().map_or(Ok(()), |disk| disk.free()),
            Undo::Upgrade(node) => upgrade(world, node),
            Undo::RemoveSpare => {
                let spare = world.members;
                until(&format!("node {} has joined", spare + 1), LIMIT, INTERVAL, || {
                    (0..=spare).try_for_each(|node| world.supervise(node))?;
                    Ok(match world.cluster.look_at_member(spare, spare) {
                        Ok(()) => Look::Done(()),
                        Err(missing) => Look::NotYet(format!("{missing:#}")),
                    })
                })?;
                world.journal.note(format!("node {} has joined", spare + 1));
                remove(world, spare)
            }
            Undo::Rejoin(node) => {
                remove(world, node)?;
                join(world, node)
            }
        }
    }
}

/// Does once what an operator would do. Its effect is checked later.
fn attempt(world: &World, method: &str, path: &str) {
    if let Err(error) = world.ask_leader(method, path, "") {
        world.journal.note(format!("{method} {path}: {error:#}"));
    }
}

/// Promotes a database as a person would who knows PostgreSQL and not the cluster, and writes to it until it is
/// stopped. Its commits do not wait for standbys: they would wait for ever.
fn promote(world: &World, node: usize) {
    let (bin_dir, at) = (world.cluster.bin_dir(), world.cluster.nodes()[node].db());
    let promoted = Session::open(bin_dir, at).and_then(|mut session| {
        session.query("SELECT pg_promote()", STATEMENT)?;
        session.query("SET synchronous_commit = local", STATEMENT)?;
        session.query("CREATE TABLE strayed AS SELECT generate_series(1, 20000)", STATEMENT)
    });
    if let Err(error) = promoted {
        world.journal.note(format!("promoting node {}: {error:#}", node + 1));
    }
}

fn join(world: &mut World, node: usize) -> Result<()> {
    let leader = world.leader().map(|(leader, _)| leader).filter(|&leader| leader != node);
    let url = world.cluster.nodes()[leader.unwrap_or(usize::from(node == 0))].url();
    world.command(node, &["join", &url]);
    world.start(node)
}

/// Removes a node from the cluster, and then all its files.
fn remove(world: &mut World, node: usize) -> Result<()> {
    until(&format!("node {} is removed", node + 1), LIMIT, INTERVAL, || {
        (0..world.members).filter(|&other| other != node).try_for_each(|other| world.supervise(other))?;
        Ok(match world.member(node) {
            Ok(None) => Look::Done(()),
            Ok(Some((id, _))) => {
                attempt(world, "DELETE", &format!("/node/{id}"));
                Look::NotYet(format!("node {id} is in the leader's map"))
            }
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })?;
    kill_node(world, node)?;
    world.cluster.nodes()[node].wipe()
}

fn upgrade(world: &mut World, node: usize) -> Result<()> {
    let db = world.cluster.nodes()[node].db().port();
    let api = world.cluster.nodes()[node].api().port();
    until(&format!("node {} is upgraded again", node + 1), LIMIT, INTERVAL, || {
        (0..world.members).try_for_each(|node| world.supervise(node))?;
        Ok(match world.member(node) {
            Ok(Some((_, true))) => Look::Done(()),
            Ok(Some((id, false))) => {
                attempt(world, "PATCH", &format!("/node/{id}?db-port={db}&api-port={api}"));
                Look::NotYet("it is not a voter that is up".into())
            }
            // Another fault has removed it, and makes it join again. All nodes must be back after that.
            Ok(None) => Look::Done(()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
}

fn kill(pids: &[u32]) -> Result<()> {
    pids.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
    let left = process::wait_dead(pids.to_vec(), KILL_LIMIT);
    if !left.is_empty() {
        bail!("processes {left:?} did not die");
    }
    Ok(())
}

fn kill_node(world: &mut World, node: usize) -> Result<()> {
    let left = world.cluster.node_mut(node).kill();
    if !left.is_empty() {
        bail!("killing node {}: processes {left:?} did not die", node + 1);
    }
    Ok(())
}

/// Stops processes, and then those that they had started before they were stopped.
fn freeze(processes: impl Fn() -> Vec<u32>) {
    for _ in 0..2 {
        processes().iter().for_each(|&pid| process::signal(pid, Signal::STOP));
    }
}

/// A node, and as many others as still leave a majority.
fn minority(world: &mut World, node: usize) -> Vec<usize> {
    let mut others: Vec<usize> = (0..world.members).filter(|&other| other != node).collect();
    world.random.shuffle(&mut others);
    let more = (world.members - 1) / 2 - 1;
    [&[node], &others[..more]].concat()
}

/// The ways between some nodes and the rest of these: out of them, into them.
fn pairs(some: &[usize], all: &[usize], out: bool, into: bool) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let rest: Vec<usize> = all.iter().filter(|node| !some.contains(node)).copied().collect();
    let mut ways = Vec::new();
    for (&from, &to) in some.iter().flat_map(|from| rest.iter().map(move |to| (from, to))) {
        ways.extend(out.then_some((address(from), address(to))));
        ways.extend(into.then_some((address(to), address(from))));
    }
    ways
}

fn cut(world: &World, ways: Vec<(Ipv4Addr, Ipv4Addr)>) -> Result<Undo> {
    ways.iter().try_for_each(|&(from, to)| world.network.cut(from, to))?;
    Ok(Undo::Mend(ways))
}

/// Paths that are cut for moments, again and again.
struct Flapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flapping {
    fn start(network: Arc<Network>, ways: Vec<(Ipv4Addr, Ipv4Addr)>, mut random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some((from, to)) = random.choose(&ways) else { break };
                    network.cut(from, to)?;
                    std::thread::sleep(random.millis(5, 150));
                    network.mend(from, to)?;
                    std::thread::sleep(random.millis(1, 30));
                }
                Ok(())
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.map_or(Ok(()), |ended| ended.unwrap_or_else(|_| bail!("the thread that drops packets panicked")))
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_are_those_between_the_two_sides() {
        let way = |from: usize, to: usize| (address(from), address(to));
        assert_eq!(pairs(&[0], &[1, 2], true, false), [way(0, 1), way(0, 2)]);
        assert_eq!(pairs(&[0], &[1, 2], false, true), [way(1, 0), way(2, 0)]);
        assert_eq!(pairs(&[0, 1], &[1, 2], true, true), [way(0, 2), way(2, 0), way(1, 2), way(2, 1)]);
    }

    #[test]
    fn only_a_leader_that_is_silent_is_waited_out() {
        let fault = |kind, victim| Fault { kind, victim };
        assert!(deposes(fault(Kind::Isolate, Victim::Leader)));
        assert!(!deposes(fault(Kind::Isolate, Victim::Standby)));
        assert!(!deposes(fault(Kind::FreezeAgent { long: false }, Victim::Leader)));
    }
}
