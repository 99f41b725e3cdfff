//! What the daemons use while the cluster is idle.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::table::Row;
use crate::cluster::{Cluster, Node};
use crate::process::{self, Usage};
use crate::wait::pause;

/// After this time, the work that follows a start is done.
const SETTLE: Duration = Duration::from_secs(5);
/// Long enough that a processor time in hundredths of a second is exact to 0.05 %.
const WINDOW: Duration = Duration::from_secs(20);

/// Memory and processor time of all daemons, one sample for each node.
pub(crate) fn measure(cluster: &Cluster) -> Result<Vec<Row>> {
    println!("measuring the idle daemons for {} s", (SETTLE + WINDOW).as_secs());
    pause(SETTLE)?;
    let (start, before) = (Instant::now(), usages(cluster)?);
    pause(WINDOW)?;
    let (window, after) = (start.elapsed(), usages(cluster)?);
    let cpu = before.iter().zip(&after).map(|(before, after)| percent(after.cpu - before.cpu, window));
    let mebibytes = |of: fn(&Usage) -> u64| after.iter().map(|usage| of(usage) as f64 / 1024.0).collect();
    Ok(vec![
        Row { figure: "memory of an idle daemon, RSS", unit: "MiB", samples: mebibytes(|usage| usage.rss) },
        Row { figure: "memory of an idle daemon, PSS", unit: "MiB", samples: mebibytes(|usage| usage.pss) },
        Row { figure: "processor time of an idle daemon", unit: "% of a core", samples: cpu.collect() },
    ])
}

fn usages(cluster: &Cluster) -> Result<Vec<Usage>> {
    let pids = cluster.nodes().iter().filter_map(Node::daemon);
    pids.map(|pid| process::usage(pid).context("measuring a daemon")).collect()
}

fn percent(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64() * 100.0
}
