//! The command line, used as an operator does, against a cluster of three nodes with databases.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cargo::{self, Programs};
use crate::cluster::Cluster;
use crate::install;
use crate::wait::{Look, until};

/// For what usually takes a second or two.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

/// Exit codes, as `qluster --help` lists them.
const WRONG: i32 = 2;
const NO_ANSWER: i32 = 4;
const NOBODY_TO_ASK: i32 = 7;

/// Runs the story.
pub(crate) fn run() -> Result<()> {
    let bin_dir = install::postgresql()?;
    let Programs { server, cli } = cargo::build_programs(false)?;
    Cluster::with(&server, &bin_dir, None, |cluster| {
        let qluster = Qluster::new(&cli, cluster)?;
        looks_around(&qluster).context("an operator looks around")?;
        changes_settings(&qluster).context("an operator changes settings")?;
        changes_nodes(&qluster).context("an operator changes nodes")?;
        hands_over(&qluster).context("an operator hands over")?;
        sees_a_failover(&qluster, cluster).context("the leader is killed")?;
        cluster.stop();
        let refused = qluster.run(&["status", "--timeout", "1s"])?;
        refused.expect(NO_ANSWER, "hint: is qluster-server running there?")?;
        println!("the command line does what it says, from `status` to a failover");
        Ok(())
    })
}

/// The program, with the addresses of the cluster.
struct Qluster {
    cli: std::path::PathBuf,
    addresses: String,
    path: std::ffi::OsString,
}

/// A finished run of the program.
struct Ran {
    line: String,
    code: Option<i32>,
    out: String,
    error: String,
}

impl Qluster {
    fn new(cli: &Path, cluster: &Cluster) -> Result<Self> {
        let urls: Vec<_> = cluster.nodes().iter().map(|node| node.url()).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        // For psql.
        let dirs = std::iter::once(cluster.bin_dir().to_owned()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(dirs).context("putting PostgreSQL's programs on the PATH")?;
        Ok(Self { cli: cli.to_owned(), addresses: urls.join(","), path })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cli);
        let mine = |name: &std::ffi::OsString| {
            let name = name.as_encoded_bytes();
            name.starts_with(b"QLUSTER_") || name.starts_with(b"PG")
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| mine(name)) {
            command.env_remove(name);
        }
        command.env("QLUSTER_ADDRESS", &self.addresses).env("PATH", &self.path).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let line = format!("qluster {}", arguments.join(" "));
        let output = self.command(arguments).output().with_context(|| format!("starting {}", self.cli.display()))?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).with_context(|| format!("reading what `{line}` says"));
        let (out, error) = (text(output.stdout)?, text(output.stderr)?);
        Ok(Ran { code: output.status.code(), out, error, line })
    }

    /// Its output. Fails if the program does.
    fn says(&self, arguments: &[&str]) -> Result<String> {
        let ran = self.run(arguments)?;
        ensure!(ran.code == Some(0), "{ran}");
        Ok(ran.out)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let out = self.says(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&out).with_context(|| format!("expected JSON, got {out:?}"))
    }

    /// Waits until `wanted` holds for the status, and returns that.
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        until(what, LIMIT, INTERVAL, || {
            let status = self.json(&["status"])?;
            Ok(if wanted(&status) { Look::Done(status) } else { Look::NotYet(status.to_string()) })
        })
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, code, out, error } = self;
        write!(f, "`{line}` ended with {code:?}; it said: {out}{error}")
    }
}

impl Ran {
    fn expect(&self, code: i32, error: &str) -> Result<()> {
        ensure!(self.code == Some(code) && self.error.contains(error), "expected {code} and `{error}`, got {self}");
        Ok(())
    }
}

fn nodes(status: &Value) -> &[Value] {
    status["nodes"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether all nodes are fit and have databases on one timeline, and two of these stream from the third, with a known
/// lag.
fn is_well(status: &Value) -> bool {
    let database = |node: &Value| {
        let database = &node["database"];
        database["lag"].is_u64() && (node["leads"] == true || database["streaming"] == true)
    };
    let mut timelines = nodes(status).iter().map(|node| &node["database"]["timeline"]);
    let first = timelines.next();
    let same = first.is_some_and(|first| first.is_u64() && timelines.all(|other| other == first));
    status["leader"].is_u64()
        && same
        && nodes(status).iter().all(|node| node["why-not-fit"].is_null() && database(node))
}

fn looks_around(qluster: &Qluster) -> Result<()> {
    let status = qluster.until("all nodes are fit", is_well)?;
    let leader = status["leader"].to_string();
    let table = qluster.says(&["status"])?;
    for expected in [format!("Node {leader} leads"), "primary".into(), "streams".into(), "WHY NOT FIT".into()] {
        ensure!(table.contains(&expected), "`{expected}` is not in {table}");
    }
    ensure!(qluster.json(&["leader"])?["id"] == status["leader"]);
    ensure!(qluster.json(&["map"])?["leader"] == status["leader"]);
    let psql = ["connect", "--", "-U", "postgres", "-XAtc", "SELECT pg_is_in_recovery(), inet_server_port()"];
    let primary = nodes(&status).iter().find(|node| node["leads"] == true).context("nobody leads")?;
    let address = primary["database-address"].as_str().context("the primary has no address")?;
    let port = address.rsplit(':').next().unwrap_or_default();
    ensure!(qluster.says(&psql)? == format!("f|{port}\n"));
    ensure!(qluster.says(&["connect", "--print"])?.contains(&format!("port={port}")));
    ensure!(qluster.says(&["db-config", "port"])?.contains(port));
    ensure!(qluster.json(&["readonly"])?.is_array());
    Ok(())
}

fn changes_settings(qluster: &Qluster) -> Result<()> {
    let changed = qluster.says(&["config", "set", "autoremove-minimum=7"])?;
    ensure!(changed == "autoremove-minimum: 3 -> 7\n", "{changed}");
    qluster.run(&["config", "set", "node-timeout=1ms"])?.expect(WRONG, "node-timeout")?;
    qluster
        .run(&["config", "set", "quorum-replication=false"])?
        .expect(NOBODY_TO_ASK, "hint: if you are sure: --yes")?;
    let mut edit = qluster.command(&["config", "edit", "--yes"]);
    edit.env("VISUAL", "sed -i 's/^autoremove-minimum: 7/autoremove-minimum: 9/'");
    ensure!(edit.status().context("editing the settings")?.success());
    ensure!(qluster.json(&["config", "get", "autoremove-minimum"])?["autoremove-minimum"] == 9);
    Ok(())
}

fn changes_nodes(qluster: &Qluster) -> Result<()> {
    let status = qluster.json(&["status"])?;
    let follower = nodes(&status).iter().find(|node| node["leads"] == false).context("nobody follows")?;
    let id = follower["id"].to_string();
    qluster.run(&["node", "down", &id])?.expect(NOBODY_TO_ASK, "loses its vote (2 with a vote are left)")?;
    ensure!(qluster.json(&["node", "down", &id, "--yes"])?["state"] == "down");
    let table = qluster.says(&["status"])?;
    ensure!(table.contains("declared down"), "{table}");
    until("the node is enrolled again", LIMIT, INTERVAL, || {
        let ran = qluster.run(&["node", "enroll", &id])?;
        Ok(if ran.code == Some(0) { Look::Done(()) } else { Look::NotYet(ran.error) })
    })?;
    let added = qluster.json(&["node", "add", "127.0.0.1", "--role", "witness", "--api-port", "1"])?;
    ensure!(added["role"] == "listener" && added["upgrade-to"] == "witness", "{added}");
    qluster.says(&["node", "remove", &added["id"].to_string(), "--yes"])?;
    qluster.until("all nodes are fit again", is_well)?;
    Ok(())
}

fn hands_over(qluster: &Qluster) -> Result<()> {
    let before = qluster.json(&["leader"])?;
    qluster.run(&["switchover"])?.expect(NOBODY_TO_ASK, "hands over to node")?;
    ensure!(qluster.json(&["leader"])? == before, "nobody had agreed to the switchover");
    let after = qluster.json(&["switchover", "--yes"])?;
    ensure!(after["id"] != before["id"] && after["term"].as_u64() > before["term"].as_u64(), "{after}");
    let elected = qluster.json(&["events", "--kind", "leader-elected"])?;
    let last = elected.as_array().and_then(|events| events.last()).context("nobody was elected")?;
    ensure!(last["node"] == after["id"] && last["term"] == after["term"], "{last}");
    let psql = ["connect", "--", "-U", "postgres", "-XAtc", "SELECT pg_is_in_recovery()"];
    until("the new primary serves", LIMIT, INTERVAL, || {
        let ran = qluster.run(&psql)?;
        Ok(if ran.out == "f\n" { Look::Done(()) } else { Look::NotYet(format!("{ran}")) })
    })?;
    qluster.until("all nodes follow", is_well)?;
    Ok(())
}

/// A process that is killed when this is dropped.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sees_a_failover(qluster: &Qluster, cluster: &mut Cluster) -> Result<()> {
    let heard = cluster.dir().join("events");
    let file = std::fs::File::create(&heard).with_context(|| format!("creating {}", heard.display()))?;
    let mut follow = qluster.command(&["events", "--follow", "--kind", "leader-elected", "--output", "json"]);
    let _following = Following(follow.stdout(file).spawn().context("following the events")?);
    let index = cluster.leader().context("nobody leads")?;
    let before = qluster.json(&["leader"])?;
    let left = cluster.node_mut(index).kill();
    ensure!(left.is_empty(), "these processes could not be killed: {left:?}");
    let status = qluster.until("another node leads, and the dead one is missed", |status| {
        let dead = nodes(status).iter().find(|node| node["id"] == before["id"]);
        status["leader"].is_u64() && status["leader"] != before["id"] && dead.is_some_and(|dead| dead["state"] != "up")
    })?;
    let table = qluster.says(&["status"])?;
    ensure!(table.contains("unreachable"), "{table}");
    until("the failover is among the events", LIMIT, INTERVAL, || {
        let text = std::fs::read_to_string(&heard).with_context(|| format!("reading {}", heard.display()))?;
        let events: Vec<Value> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let found = events.iter().any(|event| event["node"] == status["leader"] && event["term"] == status["term"]);
        Ok(if found { Look::Done(()) } else { Look::NotYet(text) })
    })?;
    let Some(code) = qluster.run(&["switchover", "--yes", &before["id"].to_string()])?.code else {
        bail!("the switchover to the dead node was ended by a signal");
    };
    ensure!(code == 3, "a switchover to the dead node ended with {code}, not with a refusal");
    Ok(())
}
