//! The line that tells who leads and how each node is.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::interrupt;

/// Often enough to see a failover happen.
const INTERVAL: Duration = Duration::from_millis(200);

/// Tells the cluster's state whenever it changes, until interrupted. Nodes may be killed meanwhile: that is what a demo
/// is for.
pub(crate) fn show(cluster: &Cluster) -> Result<()> {
    let mut shown = String::new();
    loop {
        interrupt::check()?;
        let line = cluster.map().map_or("no node answers".into(), |map| map.to_string());
        if line != shown {
            tell(&line)?;
            shown = line;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// At a terminal in place of the line before; longer than the terminal is wide it is cut, not wrapped.
fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    match out.is_terminal() {
        true => write!(out, "\r\x1b[K\x1b[?7l{line}\x1b[?7h")?,
        false => writeln!(out, "{line}")?,
    }
    Ok(out.flush()?)
}
