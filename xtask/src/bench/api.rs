//! The requests that poolers and operators repeat, compared with hyper alone that returns the same body.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::Load;
use super::table::Row;
use crate::cluster::beside::Beside;
use crate::cluster::{Cluster, ports};
use crate::http;
use crate::wait::{Look, until};

/// The number of connections that a busy load balancer keeps open.
const CONNECTIONS: u32 = 16;
/// The requests, and the names of their figures.
const ASKED: [(&str, &str, &str); 2] = [
    ("/is-leader", "GET /is-leader", "GET /is-leader, to hyper alone"),
    ("/map", "GET /map", "GET /map, to hyper alone"),
];

/// Loads the leader and the bare server in turn, `rounds` times.
pub(super) fn measure(cluster: &Cluster, bare: &Path, rounds: u32) -> Result<Vec<Row>> {
    let leader = cluster.leader().context("no node says that it leads")?;
    let ours = cluster.nodes()[leader].api();
    let mut rows = Vec::new();
    for (path, figure, ratio) in ASKED {
        let (theirs, _bare) = serve(cluster, bare, &http::get(ours, path)?.body)?;
        let (mut rates, mut ratios) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let ask = |at| Load { at, path, body: None, connections: CONNECTIONS }.run();
            let (ours, theirs) = (ask(ours)?.per_second, ask(theirs)?.per_second);
            println!("{figure}, round {round}: {ours:.0}/s, hyper alone {theirs:.0}/s");
            rates.push(ours);
            ratios.push(ours / theirs);
        }
        rows.push(Row { figure, unit: "1/s", samples: rates });
        rows.push(Row { figure: ratio, unit: "x", samples: ratios });
    }
    Ok(rows)
}

/// Starts the bare server, which answers with this body, and returns its address.
fn serve(cluster: &Cluster, bare: &Path, body: &str) -> Result<(SocketAddrV4, Beside)> {
    let [at] = ports::local()?;
    let mut command = Command::new(bare);
    command.arg(at.to_string()).arg(body);
    let running = Beside::start(cluster, "bare", command)?;
    until("hyper alone answers", Duration::from_secs(10), Duration::from_millis(20), || {
        Ok(match http::get(at, "/") {
            Ok(_) => Look::Done(()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })?;
    Ok((at, running))
}
