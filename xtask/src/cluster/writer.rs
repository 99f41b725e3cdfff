//! A client that inserts row after row through the leader, and records when each was acknowledged.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Cluster;
use crate::http;
use crate::postgres::Session;
use crate::wait::{Look, until};

/// The table that it writes to.
pub(crate) const TABLE: &str = "qluster_demo";

/// The time between two attempts to find the leader. A measured gap is exact to this.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// The limit for an insert, which waits for other nodes. It is longer than any failover, so that the record shows the
/// true gap.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// A row that the cluster acknowledged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ack {
    pub(crate) row: i64,
    pub(crate) at: Instant,
    /// The index of the node through which it was written.
    pub(crate) node: usize,
}

/// The client. It writes until this is dropped.
pub(crate) struct Writer {
    table: &'static str,
    stop: Arc<AtomicBool>,
    acks: Arc<Mutex<Vec<Ack>>>,
    thread: Option<JoinHandle<()>>,
}

/// What the client's thread needs to know of the cluster.
struct Targets {
    bin_dir: PathBuf,
    /// The addresses of API and database of each node.
    nodes: Vec<(SocketAddrV4, SocketAddrV4)>,
    /// The address of a proxy to the leader's database. None if the client looks for the leader itself.
    through: Option<SocketAddrV4>,
    table: &'static str,
}

impl Writer {
    /// Creates the table in the leader's database and begins to write.
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        Self::begin(cluster, TABLE, None)
    }

    /// The same with another table, through a load balancer or a pooler. All rows count as written through the first
    /// node.
    pub(crate) fn through(cluster: &Cluster, table: &'static str, address: SocketAddrV4) -> Result<Self> {
        Self::begin(cluster, table, Some(address))
    }

    fn begin(cluster: &Cluster, table: &'static str, through: Option<SocketAddrV4>) -> Result<Self> {
        let leader = cluster.leader().context("creating the table: no node says that it leads")?;
        let create = format!("CREATE TABLE {table} (row bigint PRIMARY KEY)");
        cluster.session(leader)?.query(&create, WRITE_LIMIT)?;
        let nodes = cluster.nodes().iter().map(|node| (node.api(), node.db())).collect();
        let targets = Targets { bin_dir: cluster.bin_dir.clone(), nodes, through, table };
        let (stop, acks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = std::thread::spawn({
            let (stop, acks) = (stop.clone(), acks.clone());
            move || write(&targets, &stop, &acks)
        });
        Ok(Self { table, stop, acks, thread: Some(thread) })
    }

    /// All rows that were acknowledged so far, in order.
    pub(crate) fn acks(&self) -> Vec<Ack> {
        lock(&self.acks).clone()
    }

    /// Waits until `count` more rows are acknowledged.
    pub(crate) fn wait_rows(&self, count: usize, limit: Duration) -> Result<()> {
        let before = self.acks().len();
        until(&format!("{count} more rows are acknowledged"), limit, RETRY_INTERVAL, || {
            let new = lock(&self.acks).len() - before;
            Ok(if new >= count { Look::Done(()) } else { Look::NotYet(format!("{new} rows")) })
        })
    }

    /// Waits for the first row that is acknowledged through another node than `old`. Returns the row before it, and
    /// that row.
    pub(crate) fn wait_switch(&self, old: usize, limit: Duration) -> Result<(Ack, Ack)> {
        until("a row is acknowledged by another node", limit, RETRY_INTERVAL, || {
            Ok(match switch(&lock(&self.acks), old) {
                Some(acks) => Look::Done(acks),
                None => Look::NotYet("none".into()),
            })
        })
    }

    /// Fails if the database of a node lacks a row that was acknowledged before this call. Returns how many there are.
    pub(crate) fn check_nothing_lost(&self, cluster: &Cluster, node: usize) -> Result<usize> {
        let acks = self.acks();
        let rows = cluster.read(node, &format!("SELECT row FROM {} ORDER BY row", self.table))?;
        let rows: Vec<i64> = rows.iter().filter_map(|row| row.parse().ok()).collect();
        let lost = missing(&acks, &rows);
        if !lost.is_empty() {
            let (count, some) = (lost.len(), &lost[..lost.len().min(20)]);
            let number = cluster.nodes()[node].number;
            bail!("{count} of {} acknowledged rows are not at node {number}: {some:?}…", acks.len());
        }
        Ok(acks.len())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread ends after the next answer. If a write hangs, it ends with the server that it waits for.
        drop(self.thread.take());
    }
}

/// If another holder panics, it leaves whole entries behind, so the record is still valid.
fn lock(acks: &Mutex<Vec<Ack>>) -> MutexGuard<'_, Vec<Ack>> {
    acks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes until `stop` is set. After an error it is unknown whether the row was written, so the next row has another
/// number.
fn write(targets: &Targets, stop: &AtomicBool, acks: &Mutex<Vec<Ack>>) {
    let mut session: Option<(usize, Session)> = None;
    let mut row = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some((node, open)) = &mut session else {
            session = connect(targets);
            if session.is_none() {
                std::thread::sleep(RETRY_INTERVAL);
            }
            continue;
        };
        row += 1;
        match open.query(&format!("INSERT INTO {} VALUES ({row})", targets.table), WRITE_LIMIT) {
            Ok(_) => lock(acks).push(Ack { row, at: Instant::now(), node: *node }),
            Err(_) => session = None,
        }
    }
}

fn connect(Targets { bin_dir, nodes, through, .. }: &Targets) -> Option<(usize, Session)> {
    let leads = |api| http::get(api, "/is-leader").is_ok_and(|answer| answer.status == 200);
    let (node, address) = match through {
        Some(address) => (0, *address),
        None => nodes.iter().map(|&(_, db)| db).enumerate().find(|&(node, _)| leads(nodes[node].0))?,
    };
    let mut session = Session::open(Path::new(bin_dir), address).ok()?;
    // This connects, so that no row is lost to a server that is still starting.
    session.query("SELECT 1", super::READ_LIMIT).ok()?;
    Some((node, session))
}

/// The last row through `old`, and the first after it, which is through another node.
fn switch(acks: &[Ack], old: usize) -> Option<(Ack, Ack)> {
    let last = acks.iter().rposition(|ack| ack.node == old)?;
    Some((acks[last], *acks.get(last + 1)?))
}

/// The acknowledged rows that are not among `rows`, which are in ascending order.
fn missing(acks: &[Ack], rows: &[i64]) -> Vec<i64> {
    acks.iter().map(|ack| ack.row).filter(|row| rows.binary_search(row).is_err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(nodes: &[usize]) -> Vec<Ack> {
        let at = Instant::now();
        nodes.iter().zip(1..).map(|(&node, row)| Ack { row, at, node }).collect()
    }

    #[test]
    fn the_switch_is_where_rows_go_through_another_node() {
        let rows = |nodes: &[usize], old| switch(&acks(nodes), old).map(|(last, first)| (last.row, first.row));
        assert_eq!(rows(&[0, 0, 1, 1], 0), Some((2, 3)));
        assert_eq!(rows(&[0, 1, 0, 0, 2], 0), Some((4, 5)));
        assert_eq!(rows(&[0, 0], 0), None);
        assert_eq!(rows(&[1, 1], 0), None);
    }

    #[test]
    fn rows_that_were_never_acknowledged_may_be_there_but_the_others_must() {
        assert_eq!(missing(&acks(&[0, 0, 0]), &[1, 2, 3, 4]), Vec::<i64>::new());
        assert_eq!(missing(&acks(&[0, 0, 0]), &[2, 4]), [1, 3]);
    }
}
