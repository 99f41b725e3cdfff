//! `contrib/poolers`: a failover behind HAProxy, PgBouncer and libpq.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::beside::Beside;
use crate::cluster::failover::rejoin_alone;
use crate::cluster::writer::Writer;
use crate::cluster::{Cluster, READ_LIMIT, ports};
use crate::postgres::Session;
use crate::wait::{Look, until};
use crate::{cargo, http};

/// The directory of the configurations.
const CONFIGURATIONS: &str = "contrib/poolers";
/// Rows to write before and after the failover.
const ROWS: usize = 50;
/// A failover takes seconds. HAProxy and PgBouncer take about one more.
const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(50);

/// The checks of a node, and whether its primary and its standbys pass them.
const CHECKS: [(&str, bool, bool); 8] = [
    ("/primary", true, false),
    ("/replica", false, true),
    ("/replica?lag=1GB", false, true),
    ("/read-only", true, true),
    ("/read-only?lag=1073741824", true, true),
    ("/health", true, true),
    ("/liveness", true, true),
    ("/readiness?lag=1GB", true, true),
];

/// Kills the leading node of a cluster behind these programs, and brings it back.
pub(super) fn fail_over(cluster: &mut Cluster, haproxy: Command, pgbouncer: Command) -> Result<()> {
    let leader = cluster.leader().context("no node says that it leads")?;
    for (path, primary, standby) in CHECKS {
        for index in 0..cluster.nodes().len() {
            wait_check(cluster, index, path, if index == leader { primary } else { standby })?;
        }
    }
    let [writes, reads, pooled] = ports::local()?;
    let _haproxy = self::haproxy(cluster, haproxy, writes, reads)?;
    let _pgbouncer = self::pgbouncer(cluster, pgbouncer, writes, pooled)?;
    for (address, recovers) in [(writes, "f"), (reads, "t"), (pooled, "f")] {
        wait_session(cluster, address, recovers)?;
    }
    let mut idle = Session::open(cluster.bin_dir(), pooled)?;
    idle.query("SELECT 1", READ_LIMIT)?;
    libpq(cluster)?;
    let writers = [
        ("HAProxy", Writer::through(cluster, "qluster_haproxy", writes)?),
        ("PgBouncer", Writer::through(cluster, "qluster_pgbouncer", pooled)?),
    ];
    writers.iter().try_for_each(|(_, writer)| writer.wait_rows(ROWS, LIMIT))?;

    let left = cluster.node_mut(leader).kill();
    if !left.is_empty() {
        bail!("killing node {}: processes {left:?} did not die", leader + 1);
    }
    // What is acknowledged from now on was acknowledged by another node.
    let dead = Instant::now();
    for (name, writer) in &writers {
        let first = until(&format!("{name} leads to the new primary"), LIMIT, INTERVAL, || {
            let first = writer.acks().into_iter().find(|ack| ack.at > dead);
            Ok(first.map_or(Look::NotYet("no row is acknowledged".into()), Look::Done))
        })?;
        writer.wait_rows(ROWS, LIMIT)?;
        println!("{name}: the first row after {:.2} s", (first.at - dead).as_secs_f64());
    }
    let next = cluster.leader().context("after the failover no node says that it leads")?;
    for (name, writer) in &writers {
        let rows = writer.check_nothing_lost(cluster, next).with_context(|| format!("through {name}"))?;
        println!("{name}: {rows} rows acknowledged, 0 lost");
    }
    let answer = idle.query("SELECT pg_is_in_recovery()", LIMIT).context("in a session that was idle meanwhile")?;
    if answer != ["f"] {
        bail!("a session of PgBouncer that was idle meanwhile is with a standby: {answer:?}");
    }
    wait_session(cluster, reads, "t")?;
    libpq(cluster)?;
    drop(writers);
    rejoin_alone(cluster, leader)?;
    wait_check(cluster, leader, "/replica?lag=16MB", true)?;
    wait_check(cluster, leader, "/primary", false)
}

/// Waits until a node passes a check, or fails it, by each of the methods that load balancers use.
fn wait_check(cluster: &Cluster, index: usize, path: &str, met: bool) -> Result<()> {
    let at = cluster.nodes()[index].api();
    let expected = if met { 200 } else { 503 };
    for method in ["GET", "HEAD", "OPTIONS"] {
        until(&format!("{method} {path} of node {} is {expected}", index + 1), LIMIT, INTERVAL, || {
            Ok(match http::ask(method, at, path, "", http::TIMEOUT) {
                Ok(answer) if answer.status == expected => Look::Done(()),
                other => Look::NotYet(format!("{other:?}")),
            })
        })?;
    }
    Ok(())
}

/// Waits until sessions with an address reach a primary or a standby, which is one that recovers.
fn wait_session(cluster: &Cluster, at: SocketAddrV4, recovers: &str) -> Result<()> {
    until(&format!("a session with {at} is with a database that recovers: {recovers}"), LIMIT, INTERVAL, || {
        let answer = Session::open(cluster.bin_dir(), at)?.query("SELECT pg_is_in_recovery()", READ_LIMIT);
        Ok(match answer {
            Ok(rows) if rows == [recovers] => Look::Done(()),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
}

/// Checks that libpq finds the primary, and prefers a standby, by the service file.
fn libpq(cluster: &Cluster) -> Result<()> {
    let file = configure(cluster, "pg_service.conf", |text| {
        let nodes = cluster.nodes();
        let each =
            |part: fn(SocketAddrV4) -> String| nodes.iter().map(|node| part(node.db())).collect::<Vec<_>>().join(",");
        let text =
            replace(text, "host=10.0.0.1,10.0.0.2,10.0.0.3", &format!("host={}", each(|at| at.ip().to_string())))?;
        replace(&text, "port=5432,5432,5432", &format!("port={}", each(|at| at.port().to_string())))
    })?;
    for (service, recovers) in [("qluster", "f"), ("qluster-read", "t")] {
        until(&format!("libpq finds its way by the service {service}"), LIMIT, INTERVAL, || {
            let mut psql = Command::new(cluster.bin_dir().join("psql"));
            psql.args(["-X", "-A", "-t", "-d", &format!("service={service} user=postgres dbname=postgres")]);
            psql.args(["-c", "SELECT pg_is_in_recovery()"]).env("PGSERVICEFILE", &file).stdin(Stdio::null());
            let output = psql.output().context("running psql")?;
            let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok(if answer == recovers { Look::Done(()) } else { Look::NotYet(format!("`{answer}` {said}")) })
        })?;
    }
    Ok(())
}

/// Starts HAProxy with the configuration from `contrib`, at these addresses.
fn haproxy(cluster: &Cluster, mut haproxy: Command, writes: SocketAddrV4, reads: SocketAddrV4) -> Result<Beside> {
    let file = configure(cluster, "haproxy.cfg", |text| {
        let mut text = replace(text, "bind :5000", &format!("bind {writes}"))?;
        text = replace(&text, "bind :5001", &format!("bind {reads}"))?;
        for (node, number) in cluster.nodes().iter().zip(1..) {
            let port = format!("{} check port {}", node.db(), node.api().port());
            text = replace(&text, &format!("10.0.0.{number}:5432 check port 8080"), &port)?;
            text = replace(&text, &format!("10.0.0.{number}:5432"), &node.db().to_string())?;
        }
        Ok(text)
    })?;
    haproxy.arg("-db").arg("-f").arg(file);
    Beside::start(cluster, "haproxy", haproxy)
}

/// Starts PgBouncer with the configuration from `contrib`, at one address and in front of another.
fn pgbouncer(cluster: &Cluster, mut pgbouncer: Command, to: SocketAddrV4, at: SocketAddrV4) -> Result<Beside> {
    let file = configure(cluster, "pgbouncer.ini", |text| {
        let text = replace(text, "host=127.0.0.1 port=5000", &format!("host={} port={}", to.ip(), to.port()))?;
        let text = replace(&text, "listen_port = 6432", &format!("listen_port = {}", at.port()))?;
        // The databases of the test trust every client on this machine.
        let text = replace(&text, "auth_type = scram-sha-256", "auth_type = any")?;
        let text = replace(&text, "auth_file = /etc/pgbouncer/userlist.txt\n", "")?;
        replace(&text, "* = host", "* = user=postgres host")
    })?;
    if rustix::process::geteuid().is_root() {
        pgbouncer.args(["-u", "postgres"]);
    }
    pgbouncer.arg(file);
    Beside::start(cluster, "pgbouncer", pgbouncer)
}

/// Writes a configuration with the addresses of this cluster to the directory of its nodes, and returns its path.
fn configure(cluster: &Cluster, name: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<PathBuf> {
    let path = cargo::root().join(CONFIGURATIONS).join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let changed = change(&text).with_context(|| format!("in {}", path.display()))?;
    let path: &Path = &cluster.dir().join(name);
    std::fs::write(path, changed).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.to_owned())
}

fn replace(text: &str, what: &str, by: &str) -> Result<String> {
    match text.contains(what) {
        true => Ok(text.replace(what, by)),
        false => bail!("expected `{what}`"),
    }
}
