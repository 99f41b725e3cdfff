//! The line that shows which node leads and how each node is.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::interrupt;

/// How often the state is read: often enough to see a failover happen.
const INTERVAL: Duration = Duration::from_millis(200);

/// Prints the cluster's state whenever it changes, until interrupted. Nodes may be killed meanwhile: a demo is for
/// that.
pub(crate) fn show(cluster: &Cluster) -> Result<()> {
    let mut shown = String::new();
    loop {
        interrupt::check()?;
        let line = cluster.map().map_or("no node answers".into(), |map| map.to_string());
        if line != shown {
            print_line(&line)?;
            shown = line;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// At a terminal, it replaces the line before. A line that is wider than the terminal is cut off, not wrapped.
fn print_line(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    match out.is_terminal() {
        true => write!(out, "\r\x1b[K\x1b[?7l{line}\x1b[?7h")?,
        false => writeln!(out, "{line}")?,
    }
    Ok(out.flush()?)
}
