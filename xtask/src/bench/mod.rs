//! Figures that the project holds itself to: how long a failover keeps writers waiting, and what an idle agent costs.

mod idle;
pub(crate) mod table;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::cluster::failover::{kill_leader, rejoin};
use crate::cluster::writer::Writer;
use crate::{cargo, install};
use table::Row;

/// Measures an idle cluster, then kills its leading node `rounds` times, and prints a table.
pub(crate) fn run(rounds: u32) -> Result<()> {
    let bin_dir = install::postgresql()?;
    let server = cargo::build_server(true)?;
    let rows = Cluster::with(&server, &bin_dir, None, |cluster| {
        let mut rows = idle::measure(cluster)?;
        rows.extend(failovers(cluster, rounds)?);
        Ok(rows)
    })?;
    print!("\n{}", table::render(&rows));
    Ok(())
}

/// The same nodes all along: each kill hits whoever leads by then.
fn failovers(cluster: &mut Cluster, rounds: u32) -> Result<Vec<Row>> {
    let writer = Writer::start(cluster)?;
    let (mut gaps, mut elected) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let failover = kill_leader(cluster, &writer).with_context(|| format!("round {round}"))?;
        println!("round {round}: write gap {:.3} s", failover.gap.as_secs_f64());
        gaps.push(failover.gap.as_secs_f64());
        elected.push(failover.elected.as_secs_f64());
        rejoin(cluster, failover.killed, &writer).with_context(|| format!("round {round}"))?;
    }
    Ok(vec![
        Row { figure: "write gap, kill -9 of the leading node", unit: "s", samples: gaps },
        Row { figure: "kill -9 of it to /is-leader 200 elsewhere", unit: "s", samples: elected },
    ])
}
