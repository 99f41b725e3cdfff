//! Three nodes on this machine, to try out or to be checked.

mod check;
mod status;

use std::path::Path;

use anyhow::Result;

use crate::args::Demo;
use crate::cargo::{self, Programs};
use crate::cluster::{Cluster, Node};
use crate::interrupt::Interrupted;
use crate::{install, postgres};

/// Runs the demo until Ctrl-C, or the unattended check.
pub(crate) fn run(options: &Demo) -> Result<()> {
    let bin_dir = install::postgresql()?;
    let Programs { server, cli } = cargo::build_programs(options.release)?;
    let keep = options.keep.as_deref();
    match options.check {
        Some(rounds) => Cluster::with(&server, &bin_dir, keep, |cluster| check::run(cluster, rounds)),
        None => match Cluster::with(&server, &bin_dir, keep, |cluster| show(cluster, &cli)) {
            // Ctrl-C is the usual end.
            Err(error) if error.is::<Interrupted>() => {
                println!("\nstopped");
                Ok(())
            }
            ended => ended,
        },
    }
}

fn show(cluster: &Cluster, cli: &Path) -> Result<()> {
    println!("{}", welcome(cluster, cli));
    status::show(cluster)
}

/// What a person can paste into another terminal.
fn welcome(cluster: &Cluster, cli: &Path) -> String {
    let lines = |line: fn(&Node) -> String| cluster.nodes().iter().map(line).collect::<Vec<_>>().join("\n");
    let urls = cluster.nodes().iter().map(Node::url).collect::<Vec<_>>();
    let commands = ["status", "watch", "switchover", "connect", "events --follow", "--help"];
    format!(
        "\nThree nodes run. Their data and logs are in {}\n\nREST API, and a status page for your browser:\n{}\n\nDatabases:\n{}\n\nTry:\n{}\n{}\n{}\n",
        cluster.dir().display(),
        lines(|node| format!("  node {}  {}", node.number, node.url())),
        lines(|node| format!("  psql \"{}\"", postgres::conninfo(node.db()))),
        format_args!("  export QLUSTER_ADDRESS={} PATH=\"{}:$PATH\"", urls.join(","), directory(cli).display()),
        commands.map(|command| format!("  qluster {command}")).join("\n"),
        format_args!("  curl -s {}/map", urls[0]),
    ) + &format!("\nLogs:\n{}\n", lines(|node| format!("  {}", node.log().display())))
        + "\nCtrl-C stops everything.\n"
}

fn directory(program: &Path) -> &Path {
    program.parent().unwrap_or(program)
}
