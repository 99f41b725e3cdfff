//! The figures that the project watches: how long a failover keeps writers waiting, what an idle daemon costs, and how
//! fast the API and the cluster's log are, compared with what others use.

mod api;
mod etcd;
mod gaps;
mod idle;
mod load;
mod log;
pub(crate) mod table;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::{cargo, install};

/// What can be measured, in this order, and whether it takes programs of others.
const PARTS: [(&str, bool); 4] = [("idle", false), ("api", true), ("log", true), ("gaps", false)];

/// Measures these parts, or all if none is named, `rounds` times each in one cluster, and prints a table.
pub(crate) fn run(parts: &[String], rounds: u32) -> Result<()> {
    if let Some(unknown) = parts.iter().find(|&part| !PARTS.iter().any(|(name, _)| name == part)) {
        let names = PARTS.map(|(name, _)| name).join(", ");
        bail!("there is no part `{unknown}` of the bench; there are {names}");
    }
    let wanted: Vec<_> =
        PARTS.iter().filter(|(name, _)| parts.is_empty() || parts.iter().any(|part| part == name)).collect();
    let bin_dir = install::postgresql()?;
    if wanted.iter().any(|(_, others)| *others) {
        install::tool("wrk", "wrk")?;
        install::tool("etcd", "etcd-server")?;
    }
    let server = cargo::build_programs(true)?.server;
    // It is built before there is a cluster that would wait for it.
    let bare = wanted.iter().any(|(name, _)| *name == "api").then(|| cargo::build_example("bare")).transpose()?;
    let rows = Cluster::with(&server, &bin_dir, None, |cluster| {
        let mut rows = Vec::new();
        for (name, _) in wanted {
            rows.extend(match *name {
                "idle" => idle::measure(cluster),
                "api" => api::measure(cluster, bare.as_deref().context("the example `bare` was not built")?, rounds),
                "log" => log::measure(cluster, rounds),
                _ => gaps::measure(cluster, rounds),
            }?);
        }
        Ok(rows)
    })?;
    print!("\n{}", table::render(&rows));
    Ok(())
}
