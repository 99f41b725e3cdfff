//! Killing the leading node under load, and bringing it back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::writer::{RETRY_INTERVAL, TABLE, Writer};
use super::{Cluster, INTERVAL, NODES, READ_LIMIT};
use crate::wait::{Look, until};

/// Another node leads within this time, with much to spare: with the default settings it takes about a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Rows to write before a kill, so that there is something to lose.
const ROWS: usize = 200;

/// How a failover went.
pub(crate) struct Failover {
    /// Indices of the node killed and of the one that leads now.
    pub(crate) killed: usize,
    pub(crate) leader: usize,
    /// From the kill until that node answered `/is-leader` with 200.
    pub(crate) elected: Duration,
    /// From the kill until the new leader acknowledged its first row.
    pub(crate) written: Duration,
    /// From the last row that was acknowledged before the kill to that first one.
    pub(crate) gap: Duration,
    /// Acknowledged rows, all of them found at the new leader.
    pub(crate) rows: usize,
}

/// Kills the daemon and the database of the leading node while `writer` writes. No acknowledged row may be lost.
pub(crate) fn kill_leader(cluster: &mut Cluster, writer: &Writer) -> Result<Failover> {
    writer.wait_rows(ROWS, LIMIT)?;
    let killed = cluster.leader().context("looking for a node to kill: none says that it leads")?;
    let kill = Instant::now();
    // The measurement begins before the first signal, and includes the wait for the end of the killed node.
    let left = cluster.node_mut(killed).kill();
    if !left.is_empty() {
        bail!("killing node {}: processes {left:?} did not die", killed + 1);
    }
    let leader = until("another node leads", LIMIT, RETRY_INTERVAL, || {
        Ok(match cluster.leader() {
            Some(leader) => Look::Done(leader),
            None => Look::NotYet(cluster.map().map_or("no node answers".into(), |map| map.to_string())),
        })
    })?;
    let elected = kill.elapsed();
    let (last, first) = writer.wait_switch(killed, LIMIT)?;
    let rows = writer.check_nothing_lost(cluster, first.node)?;
    Ok(Failover { killed, leader, elected, written: first.at - kill, gap: first.at - last.at, rows })
}

/// Starts a killed node again, and waits until it is a full member.
pub(crate) fn rejoin_alone(cluster: &mut Cluster, node: usize) -> Result<()> {
    cluster.node_mut(node).start(&["run"])?;
    cluster.wait_member(node, NODES - 1)
}

/// Starts a killed node again, and waits until it is a full member and a row that is written now can be read from it.
/// Returns how long that took.
pub(crate) fn rejoin(cluster: &mut Cluster, node: usize, writer: &Writer) -> Result<Duration> {
    let start = Instant::now();
    rejoin_alone(cluster, node)?;
    writer.wait_rows(1, LIMIT)?;
    let newest = writer.acks().last().map_or(0, |ack| ack.row);
    let number = cluster.nodes()[node].number;
    let mut session = cluster.session(node)?;
    until(&format!("row {newest} is readable at node {number}"), LIMIT, INTERVAL, || {
        let found = session.query(&format!("SELECT max(row) FROM {TABLE}"), READ_LIMIT);
        let found = found.with_context(|| format!("at node {number}"))?.concat();
        Ok(match found.parse::<i64>() {
            Ok(row) if row >= newest => Look::Done(()),
            _ => Look::NotYet(format!("the newest row there is `{found}`")),
        })
    })?;
    Ok(start.elapsed())
}
