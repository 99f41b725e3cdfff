//! How long writers wait if the leader is lost, or its database alone, or the leader changes by plan.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::table::Row;
use crate::cluster::failover::{kill_leader, rejoin};
use crate::cluster::writer::{Ack, Writer};
use crate::cluster::{Cluster, NODES};
use crate::{http, process};

/// Rows to write before and after an event, so that it happens in the midst of writing.
const ROWS: usize = 200;
/// Much longer than any gap.
const LIMIT: Duration = Duration::from_secs(60);
/// Settings by which a node counts as gone after it was silent for a third of a second.
const FAST: &str = r#"{"node-timeout": "300ms", "heartbeat-interval": "60ms", "pre-voting-timeout": "150ms",
    "leader-voting-timeout": "300ms"}"#;

/// Measures each event `rounds` times in the same cluster. Each fault hits the node that leads by then.
pub(crate) fn measure(cluster: &mut Cluster, rounds: u32) -> Result<Vec<Row>> {
    let writer = Writer::start(cluster)?;
    let mut rows = Vec::new();
    let gap = |figure, samples| Row { figure, unit: "s", samples };
    let crashes = repeat("PostgreSQL alone", rounds, || crash_database(cluster, &writer))?;
    rows.push(gap("write gap, kill -9 of PostgreSQL alone", crashes));
    let switches = repeat("switchover", rounds, || switch_over(cluster, &writer))?;
    rows.push(gap("write gap, planned switchover", switches));
    let kills = repeat("kill", rounds, || kill(cluster, &writer))?;
    rows.push(gap("write gap, kill -9 of the leading node", kills));
    set(cluster, FAST)?;
    let kills = repeat("kill, node-timeout 300ms", rounds, || kill(cluster, &writer))?;
    rows.push(gap("the same at node-timeout 300ms", kills));
    Ok(rows)
}

fn repeat(what: &str, rounds: u32, mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    for round in 1..=rounds {
        let gap = once().with_context(|| format!("{what}, round {round}"))?.as_secs_f64();
        println!("{what}, round {round}: write gap {gap:.3} s");
        samples.push(gap);
    }
    Ok(samples)
}

fn kill(cluster: &mut Cluster, writer: &Writer) -> Result<Duration> {
    let failover = kill_leader(cluster, writer)?;
    rejoin(cluster, failover.killed, writer)?;
    Ok(failover.gap)
}

fn crash_database(cluster: &mut Cluster, writer: &Writer) -> Result<Duration> {
    around(cluster, writer, |cluster, leader| {
        for pid in cluster.nodes()[leader].database() {
            process::signal(pid, Signal::KILL);
        }
        Ok(())
    })
}

fn switch_over(cluster: &mut Cluster, writer: &Writer) -> Result<Duration> {
    around(cluster, writer, |cluster, leader| {
        let target = (leader + 1) % NODES;
        let target = cluster.nodes()[target].map()?.member(cluster.nodes()[target].api()).map(|member| member.id);
        let target = target.context("the target is not in its own map")?;
        ask(cluster, leader, &format!("/leader?node={target}"), "")
    })
}

/// The longest time between two acknowledged rows, around something that is done to the leader.
fn around(cluster: &mut Cluster, writer: &Writer, act: impl FnOnce(&Cluster, usize) -> Result<()>) -> Result<Duration> {
    writer.wait_rows(ROWS, LIMIT)?;
    let leader = cluster.leader().context("no node says that it leads")?;
    let begun = Instant::now();
    act(cluster, leader)?;
    // Some of these rows are from before the fault was noticed. The writer must write some afterwards.
    writer.wait_rows(ROWS, LIMIT)?;
    for node in 0..NODES {
        cluster.wait_member(node, NODES - 1)?;
    }
    writer.wait_rows(1, LIMIT)?;
    let acks = writer.acks();
    let leader = cluster.leader().context("no node says that it leads")?;
    writer.check_nothing_lost(cluster, leader)?;
    longest(&acks, begun).context("no row was acknowledged")
}

/// The longest time between two consecutive rows, of which the second is after `since`.
fn longest(acks: &[Ack], since: Instant) -> Option<Duration> {
    acks.windows(2).filter(|pair| pair[1].at > since).map(|pair| pair[1].at - pair[0].at).max()
}

fn set(cluster: &Cluster, settings: &str) -> Result<()> {
    let leader = cluster.leader().context("no node says that it leads")?;
    ask(cluster, leader, "/config", settings)
}

fn ask(cluster: &Cluster, node: usize, path: &str, body: &str) -> Result<()> {
    let answer = http::ask("POST", cluster.nodes()[node].api(), path, body, LIMIT)?;
    if answer.status != 200 {
        bail!("POST {path} was answered with {}: {}", answer.status, answer.body.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_from_the_row_before() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let acks: Vec<Ack> = [0, 400, 410, 700, 705]
            .iter()
            .zip(1..)
            .map(|(&millis, row)| Ack { row, at: at(millis), node: 0 })
            .collect();
        assert_eq!(longest(&acks, at(405)), Some(Duration::from_millis(290)));
        assert_eq!(longest(&acks, at(100)), Some(Duration::from_millis(400)));
        assert_eq!(longest(&acks, at(800)), None);
    }
}
