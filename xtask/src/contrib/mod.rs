//! What is in `contrib/`, tried on a cluster of three.

mod metrics;
mod poolers;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::{cargo, install};

/// Tries the configurations of balancers and poolers in a failover, and what is read of the nodes afterwards.
pub(crate) fn run() -> Result<()> {
    let bin_dir = install::postgresql()?;
    let (haproxy, pgbouncer) = (install::tool("haproxy", "haproxy")?, install::tool("pgbouncer", "pgbouncer")?);
    metrics::check_rules()?;
    let server = cargo::build_programs(false)?.server;
    Cluster::with(&server, &bin_dir, None, |cluster| {
        poolers::fail_over(cluster, haproxy, pgbouncer)?;
        metrics::check(cluster)
    })
}
