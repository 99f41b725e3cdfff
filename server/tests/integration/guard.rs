//! What becomes of a primary whose agent is frozen or killed: `apt-get install postgresql-15` (or newer) provides it.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qluster_consensus::model::{Config, Leader, NodeId, Port};
use qluster_consensus::protocol::database::{Database, DatabaseRole, SyncRule};
use qluster_server::database::{DatabaseConfig, Postgres};
use rustix::process::Signal;
use serde_json::json;
use tokio_postgres::NoTls;

use crate::support::{Daemon, Ground, WAIT_DEADLINE, free_port, holds, signal, until};

/// A node with a database, and what was told it to start.
struct Node {
    daemon: Daemon,
    flags: Vec<String>,
    data: PathBuf,
    port: u16,
}

impl Node {
    fn start(ground: &Ground, name: &str, more: &[&str], command: &[&str]) -> Self {
        let (data, port) = (ground.database(name), free_port());
        let flags = ["--db-data-dir", &data, "--db-port", &port.to_string()];
        let flags: Vec<String> = flags.iter().chain(more).map(|&flag| flag.to_owned()).collect();
        let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(command.iter().copied()).collect();
        let daemon = ground.node(name, &arguments);
        Self { daemon, flags, data: data.into(), port }
    }

    /// A cluster of this node alone, as soon as its database takes writes. On most machines there is no watchdog.
    async fn primary(ground: &Ground) -> Self {
        let node = Self::start(ground, "1", &["--watchdog", "off"], &["bootstrap"]);
        node.serves().await;
        node
    }

    /// Starts the agent again.
    fn run(&mut self) {
        let arguments: Vec<&str> = self.flags.iter().map(String::as_str).chain(["run"]).collect();
        self.daemon.start(&arguments);
    }

    async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=3", self.port);
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether its database is in recovery; an error if it does not answer.
    async fn recovers(&self) -> Result<bool, tokio_postgres::Error> {
        let row = self.connect().await?.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        Ok(row.get(0))
    }

    /// Whether its database answers, and is a primary.
    async fn is_primary(&self) -> bool {
        matches!(self.recovers().await, Ok(false))
    }

    /// Waits until its database takes writes.
    async fn has_primary(&self) {
        until("its database is a primary", WAIT_DEADLINE, async || {
            let recovers = self.recovers().await;
            holds(matches!(recovers, Ok(false)), recovers)
        })
        .await;
    }

    /// Waits until it leads and its database takes writes.
    async fn serves(&self) -> Leader {
        until("it leads and is a primary", WAIT_DEADLINE, async || {
            let leads = self.daemon.until_get("/is-leader", 200).await;
            match self.recovers().await {
                Ok(false) => Ok(leads.ok()),
                other => Err(other),
            }
        })
        .await
    }

    /// Waits until no process of its database is left.
    async fn database_ends(&self) {
        until("the end of the database", WAIT_DEADLINE, async || {
            let left = self.databases();
            holds(left.is_empty(), left)
        })
        .await;
    }

    /// Waits until no guard of it is left.
    async fn guard_ends(&self) {
        until("the end of the guard", WAIT_DEADLINE, async || {
            let left = self.guards();
            holds(left.is_empty(), left)
        })
        .await;
    }

    /// Waits until it has one guard, and not that of `before`.
    async fn guard_other_than(&self, before: i32) {
        // One listing for all: a guard that was killed may be gone by the next.
        until("another guard in place of the first", WAIT_DEADLINE, async || {
            let guards = self.guards();
            holds(matches!(guards[..], [other] if other != before), guards)
        })
        .await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.daemon.dir.join("log")).unwrap()
    }

    fn postmaster(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        self.databases().contains(&pid).then_some(pid)
    }

    /// The processes of its database.
    fn databases(&self) -> Vec<i32> {
        let is_postgres = |pid: &i32| {
            let link = |name| std::fs::read_link(format!("/proc/{pid}/{name}"));
            link("exe").is_ok_and(|exe| exe.ends_with("postgres")) && link("cwd").is_ok_and(|cwd| cwd == self.data)
        };
        processes().filter(is_postgres).collect()
    }

    /// Its guards.
    fn guards(&self) -> Vec<i32> {
        let is_guard = |pid: &i32| {
            let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = cmdline.split(|&byte| byte == 0).collect();
            words.get(1) == Some(&&b"guard"[..]) && words.get(2) == Some(&self.data.as_os_str().as_encoded_bytes())
        };
        processes().filter(is_guard).collect()
    }

    fn guard(&self) -> i32 {
        let guards = self.guards();
        assert_eq!(guards.len(), 1, "{guards:?}");
        guards[0]
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

async fn node_timeout(node: &Node, text: &str) -> Duration {
    let answer = until("the setting is confirmed", WAIT_DEADLINE, async || {
        let answer = node.daemon.configure(json!({"node-timeout": text})).await;
        // It may be confirmed only once Raft counts a vote that the map names already.
        if answer.status != 420 { Ok(answer) } else { Err(answer) }
    })
    .await;
    node.serves().await;
    answer.ok::<Config>().node_timeout.get()
}

#[tokio::test]
async fn a_frozen_agent_leaves_no_primary_and_leads_again_when_it_goes_on() {
    let ground = Ground::new();
    let node = Node::primary(&ground).await;
    let (before, guard) = (node.serves().await, node.guard());
    node.connect().await.unwrap().batch_execute("CREATE TABLE t (id int)").await.unwrap();
    // What is sent to the agent's group or session does not reach it.
    let pid = rustix::process::Pid::from_raw(guard);
    assert_eq!(rustix::process::getsid(pid).ok(), pid);

    node.daemon.signal(Signal::STOP);
    node.database_ends().await;
    assert!(node.connect().await.is_err());

    node.daemon.signal(Signal::CONT);
    node.has_primary().await;
    let after = node.serves().await;
    assert!(after.term > before.term, "{after:?} {before:?}");
    node.connect().await.unwrap().batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(node.guard(), guard, "it lives on");
}

#[tokio::test]
async fn a_killed_agent_that_is_back_within_its_lease_finds_its_primary() {
    let ground = Ground::new();
    let mut node = Node::primary(&ground).await;
    let lease = node_timeout(&node, "3s").await;
    let (mut leader, postmaster, guard) = (node.serves().await, node.postmaster(), node.guard());
    // A session that is cut off would notice it.
    let session = node.connect().await.unwrap();

    for _ in 0..2 {
        node.daemon.kill();
        node.run();
        // It was elected again.
        let again = node.serves().await;
        assert!(again.id == leader.id && again.term > leader.term, "{again:?} {leader:?}");
        leader = again;
        node.guard_other_than(guard).await;
    }
    // The guards of earlier agents would have acted by the end of the lease; that they do not cannot be waited for.
    tokio::time::sleep(lease + lease / 2).await;
    assert_eq!(node.serves().await, leader);
    assert_eq!(node.postmaster(), postmaster);
    session.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    node.guard();
}

#[tokio::test]
async fn a_killed_agent_leaves_no_primary_and_no_guard() {
    let ground = Ground::new();
    let mut node = Node::primary(&ground).await;
    node.daemon.kill();
    assert!(!node.databases().is_empty());
    node.database_ends().await;
    node.guard_ends().await;

    // It comes back by itself.
    node.run();
    let before = node.serves().await;
    node_timeout(&node, "5s").await;

    // An agent that ends in good order leaves its primary for as long as it leads.
    assert!(node.daemon.terminate().await.0.success());
    assert!(!node.databases().is_empty(), "{before:?}");
    node.database_ends().await;
    node.guard_ends().await;
}

#[tokio::test]
async fn a_guard_that_is_killed_or_stuck_is_replaced() {
    let ground = Ground::new();
    let node = Node::primary(&ground).await;
    node_timeout(&node, "3s").await;
    let (leader, postmaster) = (node.serves().await, node.postmaster());
    for kind in [Signal::KILL, Signal::STOP] {
        let guard = node.guard();
        signal(guard, kind);
        node.guard_other_than(guard).await;
    }
    assert_eq!((node.serves().await, node.postmaster()), (leader, postmaster));

    // It knows until when the database may serve.
    node.daemon.signal(Signal::STOP);
    node.database_ends().await;
}

#[tokio::test]
async fn the_standby_of_a_killed_agent_goes_on() {
    let ground = Ground::new();
    let one = Node::primary(&ground).await;
    let mut two = Node::start(&ground, "2", &["--watchdog", "off"], &["join", &one.daemon.url("")]);
    two.daemon.until("two voters", |map| map.nodes.values().filter(|node| node.votes()).count() == 2).await;
    let postmaster = two.postmaster();
    let guard = two.guard();
    two.daemon.kill();
    until("the end of its guard", WAIT_DEADLINE, async || {
        let guards = two.guards();
        holds(!guards.contains(&guard), guards)
    })
    .await;
    assert!(postmaster.is_some());
    assert_eq!(two.postmaster(), postmaster);
}

#[tokio::test]
async fn an_agent_that_comes_back_without_a_majority_does_not_prolong_the_lease() {
    let ground = Ground::new();
    let mut one = Node::primary(&ground).await;
    let mut two = Node::start(&ground, "2", &["--watchdog", "off"], &["join", &one.daemon.url("")]);
    two.daemon.until("two voters", |map| map.nodes.values().filter(|node| node.votes()).count() == 2).await;
    node_timeout(&one, "3s").await;
    one.serves().await;
    let postmaster = one.postmaster();
    let before = one.log().len();
    two.daemon.kill();
    one.daemon.kill();
    one.run();
    until("the end of the primary", WAIT_DEADLINE, async || {
        let now = one.postmaster();
        holds(now != postmaster, now)
    })
    .await;
    // The new agent itself may wait for its majority a little longer.
    let log = until("the word of the guard", WAIT_DEADLINE, async || {
        let log = one.log().split_off(before);
        if log.contains("the guard has ended the primary") { Ok(log) } else { Err(log) }
    })
    .await;
    assert!(!log.contains("the primary is demoted"), "{log}");
}

#[tokio::test]
async fn nothing_is_promoted_without_a_guard() {
    let ground = Ground::new();
    let dir = PathBuf::from(ground.database("alone"));
    let config = DatabaseConfig {
        node: NodeId(1),
        ip: [127, 0, 0, 1].into(),
        port: Port::new(free_port()).unwrap(),
        data_dir: dir.clone(),
        bin_dir: None,
        os_user: None,
        programs: Default::default(),
        run_dir: dir.with_file_name("run"),
        replication_passwords: None,
    };
    let postgres = Postgres::open(config).await.unwrap();
    postgres.guarded_with(Default::default());
    postgres.initialize().await.unwrap();
    postgres.fence(Duration::from_secs(2)).await.unwrap();
    let error = postgres.promote(SyncRule::default()).await.unwrap_err().to_string();
    assert!(error.contains("the guard process was not ready"), "{error}");
    assert_eq!(postgres.status().borrow().role, DatabaseRole::Standby);
    assert!(!postgres.may_lead());
}

/// A FIFO in place of a watchdog.
struct Watchdog {
    path: PathBuf,
    reader: Option<std::fs::File>,
}

impl Watchdog {
    fn new(dir: &Path) -> Self {
        let path = dir.join("watchdog");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        Self { path, reader: None }
    }

    /// It can be used from now on.
    fn open(&mut self) {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().try_into().unwrap();
        self.reader = Some(std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&self.path).unwrap());
    }

    /// What was written to it since the last look.
    fn written(&self) -> String {
        let mut bytes = [0; 4096];
        let read = self.reader.as_ref().unwrap().read(&mut bytes).unwrap_or(0);
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    }

    /// Waits until it is kicked.
    async fn kicked(&self) {
        until("a kick", WAIT_DEADLINE, async || {
            let written = self.written();
            holds(written.contains('k'), written)
        })
        .await;
    }

    /// Waits for the last word, and returns all that was written up to then.
    async fn last_word(&self) -> String {
        let mut all = String::new();
        until("the last word", WAIT_DEADLINE, async || {
            all += &self.written();
            if all.contains('V') { Ok(all.clone()) } else { Err(all.clone()) }
        })
        .await
    }
}

#[tokio::test]
async fn a_required_watchdog_is_armed_before_the_promotion_and_until_the_last_process_is_gone() {
    let ground = Ground::new();
    let dir = PathBuf::from(ground.database("1"));
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let mut watchdog = Watchdog::new(dir.parent().unwrap());
    let flags = ["--watchdog", "required", "--watchdog-device", watchdog.path.to_str().unwrap()];
    let node = Node::start(&ground, "1", &flags, &["bootstrap"]);

    // Nobody reads the FIFO, so it cannot be opened: there is no primary, and the log says why.
    let refused = "promote the database: the watchdog";
    until("a refusal", WAIT_DEADLINE, async || {
        let log = node.log();
        holds(log.contains(refused) && log.contains("cannot be opened"), log)
    })
    .await;
    assert!(!node.is_primary().await && !node.databases().is_empty());

    watchdog.open();
    node.serves().await;
    assert!(watchdog.written().starts_with('k'));
    watchdog.kicked().await;

    // The end of the lease: no kick follows, and the last word is said when nobody is left who might serve.
    node.daemon.signal(Signal::STOP);
    let written = watchdog.last_word().await;
    assert!(node.databases().is_empty());
    assert!(written.ends_with('V'), "{written}");

    // It comes back with its watchdog.
    node.daemon.signal(Signal::CONT);
    watchdog.kicked().await;
    node.serves().await;

    // Where nobody is left to end the database, the watchdog goes off.
    drop(watchdog.written());
    node.daemon.signal(Signal::STOP);
    signal(node.guard(), Signal::KILL);
    node.guard_ends().await;
    assert!(!watchdog.written().contains('V'));
    assert!(node.is_primary().await);
}

#[tokio::test]
async fn a_watchdog_is_disarmed_where_its_guard_is_replaced_by_one_without_or_terminated() {
    let ground = Ground::new();
    let dir = PathBuf::from(ground.database("1"));
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let mut watchdog = Watchdog::new(dir.parent().unwrap());
    watchdog.open();
    let flags = ["--watchdog", "required", "--watchdog-device", watchdog.path.to_str().unwrap()];
    let mut node = Node::start(&ground, "1", &flags, &["bootstrap"]);
    node.serves().await;
    watchdog.kicked().await;

    // The cluster serves on, without it.
    node_timeout(&node, "5s").await;
    let (before, required) = (node.serves().await, node.flags.clone());
    node.flags = required.iter().map(|flag| if flag == "required" { "off".into() } else { flag.clone() }).collect();
    node.daemon.kill();
    node.run();
    until("the last word", WAIT_DEADLINE, async || {
        let written = watchdog.written();
        holds(written.ends_with('V'), written)
    })
    .await;
    let after = node.serves().await;
    assert!(after.id == before.id && after.term > before.term, "{after:?} {before:?}");

    node.flags = required;
    node.daemon.kill();
    node.run();
    watchdog.kicked().await;
    node.serves().await;

    // Whoever stops all processes does not have the machine reset.
    node.daemon.kill();
    drop(watchdog.written());
    for guard in node.guards() {
        signal(guard, Signal::TERM);
    }
    watchdog.last_word().await;
    assert!(node.databases().is_empty());
    node.guard_ends().await;
}

#[tokio::test]
async fn an_absent_watchdog_is_done_without_unless_it_is_required() {
    let ground = Ground::new();
    let absent = ground.database("absent");
    let node = Node::start(&ground, "1", &["--watchdog-device", &absent], &["bootstrap"]);
    node.serves().await;
    let log = std::fs::read_to_string(node.daemon.dir.join("log")).unwrap();
    assert_eq!(log.matches("no watchdog is used").count(), 1, "{log}");
}
