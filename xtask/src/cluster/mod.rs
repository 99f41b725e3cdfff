//! Nodes on this machine. They end with the program that started them, however that ends.

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

/// How many nodes there are on loopback: the fewest that survive the loss of one.
pub(crate) const NODES: usize = 3;

/// How long a slow machine may take to create a database or to clone one.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a node may take to end when it is asked to. PostgreSQL's fast shutdown writes out dirty pages first.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How often to check something that takes seconds.
const INTERVAL: Duration = Duration::from_millis(100);
/// The limit for a statement that waits for no other node.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(10);

/// Running nodes. When this is dropped, their processes are stopped and their files removed.
pub(crate) struct Cluster {
    // Dropped in this order: nodes write into the directory until they are stopped.
    nodes: Vec<Node>,
    dir: Directory,
    bin_dir: PathBuf,
}

impl Cluster {
    /// Runs `work` with a cluster of three streaming nodes, whose files are in `keep` if that is given. If it fails,
    /// the ends of the nodes' logs are printed. Afterwards no process of the nodes is left.
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

    /// Creates nodes at these places. None runs yet.
    pub(crate) fn new(server: &Path, bin_dir: &Path, dir: Directory, places: Vec<Place>) -> Result<Self> {
        let nodes = places
            .into_iter()
            .zip(1..)
            .map(|(place, number)| Node::new(number, dir.path(), server.to_owned(), bin_dir.to_owned(), place));
        Ok(Self { nodes: nodes.collect::<Result<_>>()?, dir, bin_dir: bin_dir.to_owned() })
    }

    /// Runs `work`, and ends the cluster. If it fails, the ends of the nodes' logs are printed.
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

    /// The directory of data and logs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps data and logs, so that a person can look at them.
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

    /// The newest map that any node has.
    pub(crate) fn map(&self) -> Option<Map> {
        self.nodes.iter().filter_map(|node| node.map().ok()).max_by_key(|map| (map.term, map.index))
    }

    /// The index of the node that says that it leads.
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

    /// Starts the first node, which creates the cluster.
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

    /// Starts the node `index`, which joins through the first. All nodes with a lower index have joined already.
    pub(crate) fn join(&mut self, index: usize) -> Result<()> {
        println!("node {}: joining, cloning the database", index + 1);
        let first = self.nodes[0].url();
        self.nodes[index].start(&["join", &first])?;
        self.wait_member(index, index)
    }

    /// Waits until the leader has the node `index` as a voter that is up, that node sees the leader, and `standbys`
    /// databases stream from the database of the leader. The leader may change meanwhile.
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

    /// Fails if a node is not a full member; the error says what is missing.
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

    /// Ends all nodes: first it asks them to end, then it kills them. Returns the processes that are left, which are
    /// none unless they hang in the kernel.
    pub(crate) fn stop(&mut self) -> Vec<u32> {
        for node in &self.nodes {
            // A frozen process receives no other signal.
            node.processes().iter().for_each(|&pid| process::signal(pid, Signal::CONT));
            node.signal(Signal::TERM);
        }
        process::wait_dead(self.nodes.iter().filter_map(Node::daemon).collect(), STOP_LIMIT);
        // `pg_ctl stop -m fast` sends SIGINT, too. All get it at once, because a primary waits until its standbys have
        // all WAL.
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
        // The macros that print are not used here: they panic if the output is closed, and this also runs in a panic.
        let left = self.stop();
        if !left.is_empty() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "these processes could not be killed: {left:?}");
        }
    }
}
