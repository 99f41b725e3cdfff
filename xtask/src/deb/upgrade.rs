//! A rolling upgrade: the nodes of a cluster under load get another package, one after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{NEWER, Root};
use crate::cargo::root as workspace;
use crate::cluster::writer::{Ack, Writer};
use crate::cluster::{Cluster, Directory, NODES, Place, ports};
use crate::wait::{Look, until};
use crate::{http, install, interrupt, process};

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(50);
/// Rows to write between two steps.
const ROWS: usize = 50;

/// Runs the upgrade. If that is not possible here, it prints why.
pub(super) fn run(before: &Path, after: &Path, keep: Option<&Path>) -> Result<()> {
    let bin_dir = install::postgresql()?;
    interrupt::watch()?;
    let dir = Directory::create("upgrade", keep)?;
    // They are not below `dir`, because they are removed after it.
    let installed = Directory::create("roots", None)?;
    let mut roots = Vec::new();
    for number in 1..=NODES {
        let Some(root) = Root::create(&installed.path().join(number.to_string()))? else {
            println!("no cluster is upgraded: overlay file systems are not permitted here");
            return Ok(());
        };
        root.install(before)?;
        roots.push(root);
    }
    let free = ports::free(2 * NODES)?;
    let unit = std::fs::read_to_string(workspace().join("packaging/qluster.service")).context("reading the unit")?;
    let place = |(ports, root): (&[u16], &Root)| {
        let mut place = Place::new(std::net::Ipv4Addr::LOCALHOST, ports[0], ports[1]);
        place.launcher = launcher(&unit)?;
        place.env = vec![NEWER];
        place.program = Some(root.at("/usr/bin/qluster-server"));
        anyhow::Ok(place)
    };
    let places = free.chunks(2).zip(&roots).map(place).collect::<Result<_>>()?;
    // This path is not used: each place has a program of its own.
    let cluster = Cluster::new(Path::new("qluster-server"), &bin_dir, dir, places)?;
    cluster.attend(|cluster| {
        cluster.bootstrap()?;
        (1..NODES).try_for_each(|index| cluster.join(index))?;
        roll(cluster, &roots, before, after)
    })
}

/// The command that runs the daemon with the restrictions of the unit, as far as that is possible without systemd.
fn launcher(unit: &str) -> Result<Vec<String>> {
    let value = |name: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.with_context(|| format!("the unit has no `{name}`"))
    };
    let capabilities = value("CapabilityBoundingSet")?.split_whitespace();
    let capabilities = capabilities.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    let bounds = format!("--bounding-set=-all{}", capabilities.collect::<String>());
    let command = ["nice", "-n", value("Nice")?, "setpriv", "--no-new-privs", &bounds, "--"];
    Ok(command.map(str::to_owned).into())
}

fn roll(cluster: &mut Cluster, roots: &[Root], before: &Path, after: &Path) -> Result<()> {
    let leader = cluster.leader().context("no node says that it leads")?;
    println!("three nodes stream; node {} leads; each gets the next package", leader + 1);
    // While one standby restarts, the lease depends on the other alone. A busy machine must not end it.
    let patient = r#"{"node-timeout": "5s", "leader-voting-timeout": "5s"}"#;
    let answer = http::ask("POST", cluster.nodes()[leader].api(), "/config", patient, LIMIT)?;
    ensure!(answer.status == 200, "the settings were refused with {}: {}", answer.status, answer.body.trim());
    let elected = events(cluster, "leader-elected")?.len();
    let writer = Writer::start(cluster)?;
    let standbys: Vec<usize> = (0..NODES).filter(|&index| index != leader).collect();
    for &index in &standbys {
        upgrade(cluster, &roots[index], index, after, &writer)?;
        let now = until("a node says that it leads", LIMIT, INTERVAL, || {
            Ok(cluster.leader().map_or_else(|| Look::NotYet("none does".into()), Look::Done))
        })?;
        ensure!(now == leader, "the upgrade of a standby has changed the leader");
    }
    ensure!(events(cluster, "version-raised")?.is_empty(), "a newer version is in use before all nodes know it");

    // The only change of the leader, and a planned one.
    let successor = standbys[0];
    let body = http::ask("POST", cluster.nodes()[leader].api(), &format!("/leader?node={}", successor + 1), "", LIMIT)?;
    ensure!(body.status < 300, "the switchover was refused with {}: {}", body.status, body.body.trim());
    let (last, first) = writer.wait_switch(leader, LIMIT)?;
    cluster.wait_member(leader, NODES - 1)?;
    upgrade(cluster, &roots[leader], leader, after, &writer)?;

    until("all nodes know that a newer version is in use", LIMIT, INTERVAL, || {
        let raised = events(cluster, "version-raised")?.len();
        Ok(if raised == 1 { Look::Done(()) } else { Look::NotYet(format!("{raised} events")) })
    })?;
    writer.wait_rows(ROWS, LIMIT)?;
    let leader = cluster.leader().context("at the end: no node says that it leads")?;
    ensure!(leader == successor, "node {} leads at the end, which nobody asked for", leader + 1);
    let changes = events(cluster, "leader-elected")?.len() - elected;
    ensure!(changes == 1, "leaders were elected {changes} times; only the switchover was expected");
    let rows = writer.check_nothing_lost(cluster, leader)?;
    refuse_the_older(cluster, &roots[standbys[1]], standbys[1], before)?;
    println!(
        "upgrade check: {rows} rows acknowledged, 0 lost; one planned change of the leader, after which writers waited \
         for {:.2} s, otherwise for {:.2} s at most; PostgreSQL ran through",
        (first.at - last.at).as_secs_f64(),
        longest_pause(&writer.acks(), &first).as_secs_f64()
    );
    Ok(())
}

/// Installs the next package at a node, and restarts the daemon, as its script asks systemd to. PostgreSQL keeps
/// running.
fn upgrade(cluster: &mut Cluster, root: &Root, index: usize, package: &Path, writer: &Writer) -> Result<()> {
    let begun = Instant::now();
    let number = cluster.nodes()[index].number;
    let database = cluster.nodes()[index].postmaster().with_context(|| format!("node {number} has no database"))?;
    root.install(package)?;
    let calls = root.systemctl()?;
    ensure!(calls.iter().any(|call| call == "try-restart qluster.service"), "systemctl was called with {calls:?}");
    restart(cluster, index)?;
    cluster.wait_member(index, NODES - 1)?;
    writer.wait_rows(ROWS, LIMIT)?;
    let now = cluster.nodes()[index].postmaster();
    ensure!(now == Some(database), "PostgreSQL of node {number} was {database}, and is {now:?}");
    ensure!(process::niceness(database)? == 0, "PostgreSQL has inherited the niceness of the daemon");
    println!("node {number}: upgraded after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn restart(cluster: &mut Cluster, index: usize) -> Result<()> {
    let node = cluster.node_mut(index);
    node.signal(Signal::TERM);
    until(&format!("the daemon of node {} ends", node.number), LIMIT, INTERVAL, || {
        Ok(if node.ended().is_some() { Look::Done(()) } else { Look::NotYet("it runs".into()) })
    })?;
    node.start(&["run"])
}

/// A node that gets the package before again cannot take part, and says why: the others refuse it, or it refuses the
/// log that it has already.
fn refuse_the_older(cluster: &mut Cluster, root: &Root, index: usize, before: &Path) -> Result<()> {
    const WHY: [&str; 2] = ["knows version 1 at most", "the cluster speaks version 2"];
    root.install(before)?;
    restart(cluster, index)?;
    let node = cluster.node_mut(index);
    until(&format!("node {} says that it is too old", node.number), LIMIT, INTERVAL, || {
        let log = std::fs::read_to_string(node.log()).context("reading its log")?;
        if WHY.iter().any(|why| log.contains(why)) {
            return Ok(Look::Done(()));
        }
        match node.ended() {
            Some(status) => bail!("it ended without naming a version: {status}"),
            None => Ok(Look::NotYet("its log does not say so".into())),
        }
    })
}

/// The events of a kind, from any node that answers.
fn events(cluster: &Cluster, kind: &str) -> Result<Vec<serde_json::Value>> {
    let answers = cluster.nodes().iter().filter_map(|node| http::get(node.api(), "/events?limit=1000").ok());
    let answer = answers.into_iter().find(|answer| answer.status == 200).context("no node returns its events")?;
    let events: Vec<serde_json::Value> = serde_json::from_str(&answer.body).context("reading the events")?;
    Ok(events.into_iter().filter(|event| event["kind"] == kind).collect())
}

/// The longest time that writers waited for a row, not counting the one after the switchover.
fn longest_pause(acks: &[Ack], after_switchover: &Ack) -> Duration {
    let pauses = acks.windows(2).filter(|pair| pair[1] != *after_switchover).map(|pair| pair[1].at - pair[0].at);
    pauses.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_run_with_what_the_unit_says() {
        let unit = "[Service]\nNice=-7\nCapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE\n";
        let bounds = "--bounding-set=-all,+kill,+sys_ptrace";
        assert_eq!(launcher(unit).unwrap(), ["nice", "-n", "-7", "setpriv", "--no-new-privs", bounds, "--"]);
        assert!(launcher("Nice=1\n").unwrap_err().to_string().contains("no `CapabilityBoundingSet`"));
    }
}
