//! The files in `contrib/`, tried on a cluster of three nodes.

mod metrics;
mod poolers;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::{cargo, install};

/// Tries the configurations of load balancers and poolers in a failover, and then the metrics of the nodes.
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
