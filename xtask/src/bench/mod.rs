//! Figures that the project holds itself to: how long a failover keeps writers waiting, and what an idle agent costs.

mod gaps;
mod idle;
pub(crate) mod table;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::{cargo, install};

/// Measures an idle cluster, then the write gaps of `rounds` faults of each kind, and prints a table.
pub(crate) fn run(rounds: u32) -> Result<()> {
    let bin_dir = install::postgresql()?;
    let server = cargo::build_programs(true)?.server;
    let rows = Cluster::with(&server, &bin_dir, None, |cluster| {
        let mut rows = idle::measure(cluster)?;
        rows.extend(gaps::measure(cluster, rounds)?);
        Ok(rows)
    })?;
    print!("\n{}", table::render(&rows));
    Ok(())
}
