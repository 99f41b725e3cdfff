//! Three nodes on this machine, to look at or to be checked.

mod check;
mod status;

use anyhow::Result;

use crate::args::Demo;
use crate::cluster::{Cluster, Node};
use crate::interrupt::Interrupted;
use crate::{cargo, install, postgres};

/// Runs the demo until Ctrl-C, or the unattended check.
pub(crate) fn run(options: &Demo) -> Result<()> {
    let bin_dir = install::postgresql()?;
    let server = cargo::build_server(options.release)?;
    let keep = options.keep.as_deref();
    match options.check {
        Some(rounds) => Cluster::with(&server, &bin_dir, keep, |cluster| check::run(cluster, rounds)),
        None => match Cluster::with(&server, &bin_dir, keep, |cluster| show(cluster)) {
            // The way in which it is meant to end.
            Err(error) if error.is::<Interrupted>() => {
                println!("\nstopped");
                Ok(())
            }
            ended => ended,
        },
    }
}

fn show(cluster: &Cluster) -> Result<()> {
    println!("{}", welcome(cluster));
    status::show(cluster)
}

/// What to paste into another terminal.
fn welcome(cluster: &Cluster) -> String {
    let lines = |line: fn(&Node) -> String| cluster.nodes().iter().map(line).collect::<Vec<_>>().join("\n");
    let first = cluster.nodes()[0].url();
    format!(
        "\nThree nodes run. Their data and logs are in {}\n\nREST API, and a status page for your browser:\n{}\n\nDatabases:\n{}\n\nTry:\n{}\n",
        cluster.dir().display(),
        lines(|node| format!("  node {}  {}", node.number, node.url())),
        lines(|node| format!("  psql \"{}\"", postgres::conninfo(node.db()))),
        ["leader", "map", "events", "rpc"].map(|path| format!("  curl -s {first}/{path}")).join("\n"),
    ) + &format!("  curl -s -X POST '{first}/leader?node=2'   # hands leadership to node 2\n")
        + &format!("\nLogs:\n{}\n", lines(|node| format!("  {}", node.log().display())))
        + "\nCtrl-C stops everything.\n"
}
