//! Nodes on this machine, which end with the program that started them, however it ends.

pub(crate) mod beside;
mod directory;
mod disk;
pub(crate) mod failover;
mod map;
mod node;
pub(crate) mod ports;
pub(crate) mod writer;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::interrupt::{self, Interrupted};
use crate::postgres::Session;
use crate::process;
use crate::wait::{Look, until};
pub(crate) use directory::Directory;
pub(crate) use map::Map;
pub(crate) use node::{Node, Place};

/// How many nodes on loopback: the fewest that survive the loss of one.
pub(crate) const NODES: usize = 3;

/// To create a database, or to clone one, on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// To end when asked: PostgreSQL's fast shutdown writes out what is dirty first.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at something that takes seconds.
const INTERVAL: Duration = Duration::from_millis(100);
/// For a statement that waits for no other node.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(10);

/// Nodes that run. Dropped, it stops what they consist of and removes what they wrote.
pub(crate) struct Cluster {
    // Dropped in this order: nodes write into the directory until they are stopped.
    nodes: Vec<Node>,
    dir: Directory,
    bin_dir: PathBuf,
}

impl Cluster {
    /// Does `work` with a cluster of three streaming nodes, whose files are in `keep` where that is given. When it
    /// fails, the ends of the nodes' logs are shown. Afterwards nothing of them runs.
    pub(crate) fn with<T>(
        server: &Path,
        bin_dir: &Path,
        keep: Option<&Path>,
        work: impl FnOnce(&mut Cluster) -> Result<T>,
    ) -> Result<T> {
        let ports = ports::free(2 * NODES)?;
        let places = ports.chunks(2).map(|ports| Place::new(Ipv4Addr::LOCALHOST, ports[0], ports[1]));
        let cluster = Self::new(server, bin_dir, Directory::create("demo", keep)?, places.collect())?;
        cluster.attend(|cluster| {
            cluster.bootstrap()?;
            (1..NODES).try_for_each(|index| cluster.join(index))?;
            work(cluster)
        })
    }

    /// Nodes at these places, none of which runs yet.
    pub(crate) fn new(server: &Path, bin_dir: &Path, dir: Directory, places: Vec<Place>) -> Result<Self> {
        let nodes = places
            .into_iter()
            .zip(1..)
            .map(|(place, number)| Node::new(number, dir.path(), server.to_owned(), bin_dir.to_owned(), place));
        Ok(Self { nodes: nodes.collect::<Result<_>>()?, dir, bin_dir: bin_dir.to_owned() })
    }

    /// Does `work`, and ends the cluster. When it fails, the ends of the nodes' logs are shown.
    pub(crate) fn attend<T>(mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        interrupt::watch()?;
        let result = work(&mut self);
        if result.as_ref().is_err_and(|error| !error.is::<Interrupted>()) {
            for node in &self.nodes {
                eprintln!("{}", node.log_tails());
            }
        }
        result
    }

    /// Where the nodes keep data and logs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves data and logs behind, for a look afterwards.
    pub(crate) fn keep(&mut self) {
        self.dir.keep();
    }

    pub(crate) fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The newest map that any node knows.
    pub(crate) fn map(&self) -> Option<Map> {
        self.nodes.iter().filter_map(|node| node.map().ok()).max_by_key(|map| (map.term, map.index))
    }

    /// Which node says that it leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.is_leader().is_ok())
    }

    /// A new session with the database of a node.
    pub(crate) fn session(&self, index: usize) -> Result<Session> {
        Session::open(&self.bin_dir, self.nodes[index].db())
    }

    /// Runs one read-only statement at a node.
    pub(crate) fn read(&self, index: usize, sql: &str) -> Result<Vec<String>> {
        self.session(index)?.query(sql, READ_LIMIT).with_context(|| format!("at node {}", self.nodes[index].number))
    }

    /// The first node creates the cluster.
    pub(crate) fn bootstrap(&mut self) -> Result<()> {
        println!("node 1: creating the cluster and its database");
        self.nodes[0].start(&["bootstrap"])?;
        until("node 1 leads", START_LIMIT, INTERVAL, || {
            self.nodes[0].ensure_running()?;
            Ok(match self.nodes[0].is_leader() {
                Ok(()) => Look::Done(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }

    /// The node `index`, before which there are so many, joins by way of the first.
    pub(crate) fn join(&mut self, index: usize) -> Result<()> {
        println!("node {}: joining, cloning the database", index + 1);
        let first = self.nodes[0].url();
        self.nodes[index].start(&["join", &first])?;
        self.wait_member(index, index)
    }

    /// Waits until the leader, whoever that is by then, has the node `index` as a voter that is up, that node sees the
    /// leader, and `standbys` databases stream from the leader's.
    pub(crate) fn wait_member(&self, index: usize, standbys: usize) -> Result<()> {
        let node = &self.nodes[index];
        until(&format!("node {} is a voter and streams", node.number), START_LIMIT, INTERVAL, || {
            node.ensure_running()?;
            Ok(match self.look_at_member(index, standbys) {
                Ok(()) => Look::Done(()),
                Err(missing) => Look::NotYet(format!("{missing:#}")),
            })
        })
    }

    /// Succeeds where a node is a whole member; otherwise what is missing.
    pub(crate) fn look_at_member(&self, index: usize, standbys: usize) -> Result<()> {
        let node = &self.nodes[index];
        let leader = self.leader().context("no node says that it leads")?;
        let map = self.nodes[leader].map()?;
        let member = map.member(node.api());
        let member = member.with_context(|| format!("the leader's map has no node at {}", node.api()))?;
        if member.role != "voter" || member.state != "up" {
            bail!("in the leader's map: {member}");
        }
        if node.map()?.leader != map.leader {
            bail!("node {} does not see the leader", node.number);
        }
        let count = self.read(leader, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")?.concat();
        if count != standbys.to_string() {
            bail!("databases that stream from the leader's: {count}, expected {standbys}");
        }
        Ok(())
    }

    /// Ends all nodes: asks first, then kills. Which processes are left, which is none unless the kernel holds them.
    pub(crate) fn stop(&mut self) -> Vec<u32> {
        for node in &self.nodes {
            // Whoever was frozen hears nothing.
            node.processes().iter().for_each(|&pid| process::signal(pid, Signal::CONT));
            node.signal(Signal::TERM);
        }
        process::wait_dead(self.nodes.iter().filter_map(Node::agent).collect(), STOP_LIMIT);
        // SIGINT is what `pg_ctl stop -m fast` sends. To all at once: a primary waits until its standbys have the rest.
        let postmasters: Vec<u32> = self.nodes.iter().filter_map(Node::postmaster).collect();
        for &pid in &postmasters {
            process::signal(pid, Signal::INT);
        }
        process::wait_dead(postmasters, STOP_LIMIT);
        self.nodes.iter_mut().flat_map(Node::kill).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing is printed here by the macros, which panic where the output is closed: this runs in a panic, too.
        let left = self.stop();
        if !left.is_empty() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "these processes could not be killed: {left:?}");
        }
    }
}
