//! The demo unattended: the leading node is killed, and no acknowledged row may be lost.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::failover::{Failover, kill_leader, rejoin};
use crate::cluster::writer::Writer;
use crate::cluster::{Cluster, NODES};

/// Rows to write at the end.
const LAST_ROWS: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);

/// Kills the leading node `rounds` times, and brings it back each time.
pub(crate) fn run(cluster: &mut Cluster, rounds: u32) -> Result<()> {
    println!("three nodes stream; data and logs are in {}", cluster.dir().display());
    let writer = Writer::start(cluster)?;
    for round in 1..=rounds {
        let failover = kill_leader(cluster, &writer).with_context(|| format!("round {round}"))?;
        println!("round {round}: {}", summary(&failover));
        let took = rejoin(cluster, failover.killed, &writer).with_context(|| format!("round {round}"))?;
        println!("round {round}: node {} is back and streams after {}", failover.killed + 1, seconds(took));
    }
    writer.wait_rows(LAST_ROWS, LIMIT)?;
    let leader = cluster.leader().context("at the end: no node says that it leads")?;
    let rows = writer.check_nothing_lost(cluster, leader)?;
    println!("demo check: {rows} rows acknowledged, 0 lost, in {rounds} kills of the leading node of {NODES}");
    Ok(())
}

fn summary(failover: &Failover) -> String {
    let Failover { killed, leader, elected, written, gap, rows } = failover;
    format!(
        "node {} killed; node {} leads after {}, writes after {} (gap of {}); all {rows} acknowledged rows are there",
        killed + 1,
        leader + 1,
        seconds(*elected),
        seconds(*written),
        seconds(*gap)
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_is_summed_up_in_a_line() {
        let time = Duration::from_millis;
        let failover =
            Failover { killed: 0, leader: 2, elected: time(1234), written: time(1300), gap: time(1310), rows: 5 };
        assert_eq!(
            summary(&failover),
            "node 1 killed; node 3 leads after 1.23 s, writes after 1.30 s (gap of 1.31 s); all 5 acknowledged rows \
             are there"
        );
    }
}
