//! The cluster's own log, compared with etcd, which other projects use: how fast it is written, and how long it is not
//! while a killed leader is replaced.

use std::net::SocketAddrV4;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::etcd::{Etcd, PUT};
use super::load::{Load, Rate};
use super::table::Row;
use crate::cluster::Cluster;
use crate::cluster::failover::rejoin_alone;
use crate::http;

/// A write to the cluster's log that changes nothing.
const SET: (&str, &str) = ("/config", r#"{"autoremove-minimum": 3}"#);

/// A write that takes longer is sent again, to all nodes.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// The time between two attempts at a node.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// Another leader is elected within this time, with much to spare.
const LIMIT: Duration = Duration::from_secs(60);

/// The number of writers, and the names of the figures.
const LOADS: [(u32, [&str; 3]); 2] = [
    (1, ["commits of the cluster's log, 1 writer", "1 writer, to etcd", "1 writer, 99th percentile, to etcd"]),
    (32, ["commits of the cluster's log, 32 writers", "32 writers, to etcd", "32 writers, 99th percentile, to etcd"]),
];

/// Writes to both in turn, `rounds` times, and kills the leader of each as often.
pub(super) fn measure(cluster: &mut Cluster, rounds: u32) -> Result<Vec<Row>> {
    let mut etcd = Etcd::start(cluster)?;
    let mut rows = Vec::new();
    for (connections, [figure, to_etcd, p99_to_etcd]) in LOADS {
        let ours = cluster.nodes()[cluster.leader().context("no node says that it leads")?].api();
        let theirs = etcd.clients()[etcd.wait()?];
        let (mut rates, mut ratios, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            let write = |at, (path, body)| Load { at, path, body: Some(body), connections }.run();
            let (ours, theirs) = (write(ours, SET)?, write(theirs, PUT)?);
            println!("{figure}, round {round}: {}; etcd {}", shown(ours), shown(theirs));
            rates.push(ours.per_second);
            ratios.push(ours.per_second / theirs.per_second);
            p99s.push(ours.p99.as_secs_f64() / theirs.p99.as_secs_f64());
        }
        rows.push(Row { figure, unit: "1/s", samples: rates });
        rows.push(Row { figure: to_etcd, unit: "x", samples: ratios });
        rows.push(Row { figure: p99_to_etcd, unit: "x", samples: p99s });
    }
    rows.extend(kills(cluster, &mut etcd, rounds)?);
    Ok(rows)
}

fn shown(rate: Rate) -> String {
    format!("{:.0}/s, 99 % within {:.1} ms", rate.per_second, rate.p99.as_secs_f64() * 1000.0)
}

/// The time from the kill of the leader, daemon and database, to the next committed write.
fn kills(cluster: &mut Cluster, etcd: &mut Etcd, rounds: u32) -> Result<Vec<Row>> {
    let (mut gaps, mut ratios) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let leader = cluster.leader().context("no node says that it leads")?;
        let nodes = cluster.nodes().iter().map(|node| node.api()).collect();
        let ours = until_written(nodes, leader, SET, || match cluster.node_mut(leader).kill() {
            left if left.is_empty() => Ok(()),
            left => bail!("killing node {}: processes {left:?} did not die", leader + 1),
        })?;
        rejoin_alone(cluster, leader)?;

        let leader = etcd.wait()?;
        let theirs = until_written(etcd.clients().to_vec(), leader, PUT, || {
            etcd.kill(leader);
            Ok(())
        })?;
        etcd.start_node(cluster, leader)?;
        etcd.wait()?;

        println!("leader killed, round {round}: {:.3} s; etcd {:.3} s", ours.as_secs_f64(), theirs.as_secs_f64());
        gaps.push(ours.as_secs_f64());
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
    }
    Ok(vec![
        Row { figure: "leader killed to the next commit of the log", unit: "s", samples: gaps },
        Row { figure: "leader killed, to etcd", unit: "x", samples: ratios },
    ])
}

/// Kills a node, and then writes at all other nodes at once, until one says that the write is committed. Returns the
/// time from before the kill until then.
fn until_written(
    mut nodes: Vec<SocketAddrV4>,
    killed: usize,
    (path, body): (&str, &str),
    kill: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    nodes.remove(killed);
    let begun = Instant::now();
    // The killed node commits nothing that is sent from here on.
    kill()?;
    let committed = OnceLock::new();
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                while committed.get().is_none() && begun.elapsed() < LIMIT {
                    match http::ask("POST", *node, path, body, WRITE_TIMEOUT) {
                        Ok(answer) if answer.status == 200 => drop(committed.set(begun.elapsed())),
                        _ => std::thread::sleep(RETRY_INTERVAL),
                    }
                }
            });
        }
    });
    committed.into_inner().with_context(|| format!("no write was committed within {} s of a kill", LIMIT.as_secs()))
}
