//! The database module over real PostgreSQL: `apt-get install postgresql-15` (or newer) provides it.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qluster_consensus::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use qluster_consensus::model::{Lsn, NodeId, Port, Term};
use qluster_server::database::{DatabaseConfig, Passwords, Postgres};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for databases. Whatever runs in it is killed when this is dropped.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The account of PostgreSQL has to get through it.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn processes(&self) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let works_here =
            |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(self.0.path()));
        pids.filter(works_here).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        while let pids = self.processes()
            && !pids.is_empty()
        {
            pids.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// An agent's database part, and the loop that watches it.
struct Node {
    config: DatabaseConfig,
    postgres: Arc<Postgres>,
    run: Option<JoinHandle<()>>,
}

impl Node {
    /// A node whose database is not there yet.
    async fn new(ground: &Ground, id: u64) -> Self {
        Self::open(Self::config(ground, id)).await
    }

    fn config(ground: &Ground, id: u64) -> DatabaseConfig {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        DatabaseConfig {
            node: NodeId(id),
            ip: Ipv4Addr::LOCALHOST.into(),
            port: Port::new(port).unwrap(),
            data_dir: ground.0.path().join(format!("node-{id}/data")),
            bin_dir: None,
            os_user: None,
            programs: Default::default(),
            run_dir: ground.0.path().join(format!("node-{id}/run")),
            replication_passwords: None,
        }
    }

    async fn open(config: DatabaseConfig) -> Self {
        let postgres = Postgres::open(config.clone()).await.expect("apt-get install postgresql-15 provides PostgreSQL");
        Self { config, postgres, run: None }
    }

    /// The same database under another agent, the first being gone.
    async fn reopened(mut self) -> Self {
        if let Some(run) = self.run.take() {
            run.abort();
        }
        Self::open(self.config.clone()).await
    }

    fn watched(mut self) -> Self {
        self.run = Some(tokio::spawn(self.postgres.clone().run()));
        self
    }

    /// A node with a database that is led in `term`.
    async fn primary(ground: &Ground, id: u64, term: u64) -> (Self, Promotion) {
        let node = Self::new(ground, id).await;
        node.postgres.initialize().await.unwrap();
        let node = node.watched();
        let end = node.postgres.fence(DEADLINE).await.unwrap();
        let promotion = node.promote(term).await;
        assert_eq!(promotion.start, end);
        (node, promotion)
    }

    /// Promotes it, and lets clients in.
    async fn promote(&self, term: u64) -> Promotion {
        let promotion = self.postgres.promote(rule(term, &[], 0)).await.unwrap();
        let begun = Instant::now();
        self.postgres.admit().await.unwrap();
        timed("admit", begun, promotion)
    }

    fn as_primary(&self, term: u64, promotion: Promotion) -> Primary {
        let DatabaseConfig { node, ip, port, .. } = self.config;
        Primary { node, term: Term(term), ip, port, timeline: promotion.timeline }
    }

    /// `Arc` has a method of the same name.
    async fn copy_from(&self, primary: Primary) -> Result<(), DatabaseError> {
        Database::copy_from(self.postgres.as_ref(), primary).await
    }

    /// Waits for a status.
    async fn until(&self, what: &str, wanted: impl Fn(&DatabaseStatus) -> bool) -> DatabaseStatus {
        let mut status = self.postgres.status();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status))).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => {
                let log = std::fs::read_to_string(self.config.run_dir.join("postgresql.log")).unwrap_or_default();
                panic!(
                    "node {} does not become {what}: {:?}\n{log}",
                    self.config.node,
                    *self.postgres.status().borrow()
                )
            }
        }
    }

    async fn streaming(&self) -> DatabaseStatus {
        self.until("streaming", |status| status.role == DatabaseRole::Standby && status.streaming).await
    }

    async fn connect(&self) -> Client {
        connect(self.config.ip, self.config.port).await
    }

    async fn execute(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.unwrap();
    }

    async fn rows(&self) -> i64 {
        self.connect().await.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0)
    }

    /// Waits until the table has so many rows here.
    async fn has_rows(&self, count: i64) {
        let begun = Instant::now();
        while self.rows().await != count {
            assert!(begun.elapsed() < PATIENCE, "node {} has {} rows", self.config.node, self.rows().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            run.abort();
        }
    }
}

async fn connect(ip: IpAddr, port: Port) -> Client {
    try_connect(ip, port).await.unwrap()
}

async fn try_connect(ip: IpAddr, port: Port) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host={ip} port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn rule(term: u64, nodes: &[u64], count: usize) -> SyncRule {
    let standbys = nodes.iter().map(|&node| NodeId(node)).collect::<BTreeSet<_>>();
    SyncRule { term: Term(term), standbys, count }
}

/// The number that a query answers with.
async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Asks until a query answers with this number.
async fn until_number(client: &Client, sql: &str, wanted: i64) {
    let begun = Instant::now();
    while number(client, sql).await != wanted {
        assert!(begun.elapsed() < PATIENCE, "{sql} is {} and not {wanted}", number(client, sql).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

fn timed<T>(what: &str, begun: Instant, value: T) -> T {
    println!("{what}: {:?}", begun.elapsed());
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_fails_over_and_takes_the_old_primary_back() {
    let ground = Ground::new();

    // The first node is created, led, and written to.
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    assert_eq!(promotion.timeline, 2);
    assert_eq!(one.promote(1).await, promotion, "a promotion is repeated");
    one.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)").await;
    let status = one.until("primary", |status| status.role == DatabaseRole::Primary).await;
    assert_eq!((status.timeline, status.follows, status.streaming), (Some(2), None, false));

    // The second clones it, and streams what is written.
    let two = Node::new(&ground, 2).await;
    assert_eq!(two.postgres.status().borrow().role, DatabaseRole::Absent);
    let two = two.watched();
    let begun = Instant::now();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    timed("clone", begun, ());
    let status = two.streaming().await;
    assert_eq!((status.follows, status.timeline, status.progress), (Some((NodeId(1), Term(1))), Some(2), None));
    one.execute("INSERT INTO t SELECT generate_series(1001, 2000)").await;
    two.has_rows(2000).await;
    assert_eq!(one.postgres.system_identifier().await.unwrap(), two.postgres.system_identifier().await.unwrap());

    // The first primary is killed, comes back as a standby by itself, and is told to wait.
    kill(one.postgres.pid().unwrap());
    let end_of_one = one.postgres.fence(DEADLINE).await.unwrap();
    one.until("standby", |status| status.role == DatabaseRole::Standby && status.follows.is_none()).await;

    // The second is fenced at the end of what it has received, and promoted there.
    let received = two.postgres.status().borrow().lsn.unwrap();
    let begun = Instant::now();
    let end_of_two = timed("fence of a standby", begun, two.postgres.fence(DEADLINE).await.unwrap());
    assert!(received <= end_of_two && end_of_two <= end_of_one, "{received} {end_of_two} {end_of_one}");
    let begun = Instant::now();
    let second = timed("promote", begun, two.promote(2).await);
    assert_eq!((second.timeline, second.start), (3, end_of_two));
    two.execute("INSERT INTO t SELECT generate_series(2001, 3000)").await;

    // The first, told to follow, does.
    one.postgres.follow(two.as_primary(2, second)).await.unwrap();
    one.streaming().await;
    one.has_rows(3000).await;

    // It is led although the second still leads: what both write parts them.
    let begun = Instant::now();
    timed("fence of a streaming standby", begun, one.postgres.fence(DEADLINE).await.unwrap());
    let third = one.promote(3).await;
    one.execute("INSERT INTO t SELECT generate_series(3001, 4000)").await;
    two.execute("INSERT INTO t SELECT generate_series(5001, 5500)").await;

    // A primary that cannot be reached is no reason to clone, a rewind that was interrupted is.
    let away = Primary { port: Node::config(&ground, 9).port, ..one.as_primary(3, third) };
    let error = two.postgres.rewind(away).await.unwrap_err();
    assert!(!matches!(error, DatabaseError::Hopeless { .. }), "{error:?}");
    let mark = two.config.run_dir.join("rewinding");
    std::fs::write(&mark, "").unwrap();
    let error = two.postgres.rewind(one.as_primary(3, third)).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Hopeless { .. }), "{error:?}");
    std::fs::remove_file(&mark).unwrap();

    // The second, a primary still, is rewound.
    let begun = Instant::now();
    two.postgres.rewind(one.as_primary(3, third)).await.unwrap();
    timed("rewind", begun, ());
    let status = two.streaming().await;
    assert_eq!(status.follows, Some((NodeId(1), Term(3))));
    two.has_rows(4000).await;

    // A standby that is killed comes back and follows on.
    let killed = two.postgres.pid().unwrap();
    let begun = Instant::now();
    kill(killed);
    two.until("noticed as ended", |status| !status.streaming).await;
    timed("crash noticed", begun, ());
    two.streaming().await;
    timed("crashed standby streams", begun, ());
    assert_ne!(two.postgres.pid(), Some(killed));
    assert_eq!(two.postgres.status().borrow().follows, Some((NodeId(1), Term(3))));

    // Both outlive their agents.
    for (node, role) in [(one, DatabaseRole::Primary), (two, DatabaseRole::Standby)] {
        let pid = node.postgres.pid();
        let node = node.reopened().await.watched();
        let status = node.until("taken over", |status| status.role == role).await;
        assert_eq!((node.postgres.pid(), status.role), (pid, role));
        let follows = (role == DatabaseRole::Standby).then_some((NodeId(1), Term(3)));
        assert_eq!(status.follows, follows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_acknowledges_nothing_more() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    node.execute("CREATE TABLE t (id bigint PRIMARY KEY)").await;

    let acknowledged = Arc::new(AtomicI64::new(0));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (acknowledged, ip, port) = (acknowledged.clone(), node.config.ip, node.config.port);
            tokio::spawn(async move {
                let client = connect(ip, port).await;
                for row in 0.. {
                    let id: i64 = row * 4 + writer;
                    if client.execute("INSERT INTO t VALUES ($1)", &[&id]).await.is_err() {
                        return;
                    }
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    while acknowledged.load(Ordering::SeqCst) < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    node.postgres.demote(DEADLINE).await.unwrap();
    timed("demote under load", begun, ());
    assert!(begun.elapsed() < DEADLINE);
    assert_eq!(node.postgres.status().borrow().role, DatabaseRole::Stopped);
    assert_eq!(node.postgres.pid(), None);
    for writer in writers {
        writer.await.unwrap();
    }

    // It stays stopped until it is fenced, and then has all that was acknowledged.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.postgres.pid(), None);
    node.postgres.demote(DEADLINE).await.unwrap();
    let begun = Instant::now();
    timed("fence of a stopped one", begun, node.postgres.fence(DEADLINE).await.unwrap());
    assert!(node.rows().await >= acknowledged.load(Ordering::SeqCst));
    // A standby is not touched by it.
    let pid = node.postgres.pid();
    node.postgres.demote(DEADLINE).await.unwrap();
    assert_eq!(node.postgres.pid(), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_ended_by_the_deadline() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let client = node.connect().await;
    for pid in ground.processes() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }
    let begun = Instant::now();
    node.postgres.demote(Duration::from_millis(800)).await.unwrap();
    timed("demote of a frozen one", begun, ());
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    assert!(client.batch_execute("SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_the_standbys_of_the_rule_from_the_first_one() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.postgres.promote(rule(1, &[2], 1)).await.unwrap();
    one.postgres.admit().await.unwrap();
    let client = one.connect().await;
    let write = tokio::spawn(async move { client.batch_execute("CREATE TABLE t (id bigint)").await });

    let two = Node::new(&ground, 2).await.watched();
    assert!(!write.is_finished());
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();

    // It holds nothing for another term.
    one.postgres.set_sync_rule(rule(2, &[2], 1)).await.unwrap();
    let client = one.connect().await;
    let write = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (1)").await });
    until_number(&one.connect().await, WAITING, 1).await;
    assert!(!write.is_finished());

    // It does once it follows in that term.
    two.postgres.fence(DEADLINE).await.unwrap();
    two.postgres.follow(one.as_primary(2, promotion)).await.unwrap();
    tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();

    // A rule of nobody lets commits through.
    two.postgres.fence(DEADLINE).await.unwrap();
    one.postgres.set_sync_rule(rule(2, &[], 0)).await.unwrap();
    one.execute("INSERT INTO t VALUES (2)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_adopted_or_refused() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    let identifier = one.postgres.system_identifier().await.unwrap();
    let auto = one.config.data_dir.join("postgresql.auto.conf");
    std::fs::write(&auto, "primary_conninfo = 'host=192.0.2.1'\nwork_mem = '5MB'\nmax_connections = '123'\n").unwrap();
    one.postgres.initialize().await.unwrap();
    assert_eq!(one.postgres.system_identifier().await.unwrap(), identifier, "it is not created twice");

    // Its settings are taken over, other than those that are qluster's.
    one.postgres.fence(DEADLINE).await.unwrap();
    let found = one.postgres.settings().await.unwrap();
    assert_eq!(found.system_identifier, identifier);
    let setting = |name: &str| found.settings.iter().find(|setting| setting.name == name);
    assert_eq!(setting("work_mem").map(|setting| setting.value.as_str()), Some("5120"));
    assert_eq!(setting("max_connections").map(|setting| setting.value.as_str()), Some("123"));
    assert_eq!(setting("primary_conninfo"), None);
    assert_eq!(setting("data_checksums").map(|setting| setting.value.as_str()), Some("on"));

    // Another one is no primary for it.
    let (other, promotion) = Node::primary(&ground, 2, 1).await;
    for error in [
        one.postgres.follow(other.as_primary(1, promotion)).await.unwrap_err(),
        one.postgres.rewind(other.as_primary(1, promotion)).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("another one"), "{error}");
    }
    assert_eq!(one.postgres.status().borrow().role, DatabaseRole::Standby);

    // Stopped on purpose, it stays so.
    one.postgres.stop().await.unwrap();
    let one = one.watched();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(one.postgres.status().borrow().role, DatabaseRole::Stopped);
    let error = one.postgres.settings().await.unwrap_err();
    assert!(error.to_string().contains("connect"), "{error}");

    // A directory of somebody else is left alone.
    let mut foreign = one.config.clone();
    foreign.data_dir = ground.0.path().join("foreign");
    std::fs::create_dir(&foreign.data_dir).unwrap();
    std::fs::write(foreign.data_dir.join("thesis.txt"), "").unwrap();
    let error = Postgres::open(foreign).await.err().unwrap().to_string();
    assert!(error.contains("thesis.txt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_that_are_dropped_can_be_repeated() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t AS SELECT generate_series(1, 200000) AS id").await;
    let two = Node::new(&ground, 2).await.watched();
    let primary = one.as_primary(1, promotion);
    for wait in [1, 20, 80, 200, 400] {
        let cloned = tokio::time::timeout(Duration::from_millis(wait), two.copy_from(primary.clone()));
        let _ = cloned.await;
    }
    two.copy_from(primary.clone()).await.unwrap();
    two.has_rows(200_000).await;
    for wait in [1, 5, 10, 20, 40] {
        let _ = tokio::time::timeout(Duration::from_millis(wait), two.postgres.fence(DEADLINE)).await;
        let _ = tokio::time::timeout(Duration::from_millis(wait), two.postgres.follow(primary.clone())).await;
    }
    let end = two.postgres.fence(DEADLINE).await.unwrap();
    for wait in [1, 5, 10] {
        let rule = SyncRule { term: Term(2), ..Default::default() };
        let _ = tokio::time::timeout(Duration::from_millis(wait), two.postgres.promote(rule)).await;
    }
    assert_eq!(two.promote(2).await.start, end);
    // What was begun to be promoted is a primary to whoever fences it.
    let pid = two.postgres.pid();
    two.postgres.fence(DEADLINE).await.unwrap();
    assert_ne!(two.postgres.pid(), pid);
    let left = entries_of(&two.config.data_dir);
    assert!(left.iter().all(|name| !name.starts_with("qluster.new")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_fenced_at_the_end_of_all_that_it_has_received() {
    let ground = Ground::new();
    let (mut one, mut promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id bigint PRIMARY KEY, filler text)").await;
    let mut two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    // The primary is killed while it writes, so that the standby often ends in the midst of a record.
    for term in 1..5 {
        let standby = BTreeSet::from([two.config.node]);
        let rule = SyncRule { term: Term(term), standbys: standby, count: 1 };
        one.postgres.set_sync_rule(rule).await.unwrap();
        two.streaming().await;
        let before = one.rows().await;
        let acknowledged = Arc::new(AtomicI64::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (acknowledged, ip, port) = (acknowledged.clone(), one.config.ip, one.config.port);
                tokio::spawn(async move {
                    let client = connect(ip, port).await;
                    for row in 0.. {
                        let id = i64::try_from(term).unwrap() * 1_000_000 + row * 4 + writer;
                        let sql =
                            "INSERT INTO t SELECT $1, string_agg(random()::text, '') FROM generate_series(1, 200)";
                        if client.execute(sql, &[&id]).await.is_err() {
                            return;
                        }
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        while acknowledged.load(Ordering::SeqCst) < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // As a killed host: nobody shuts down, and nobody comes back by itself.
        let processes = one.postgres.pid().unwrap();
        one.run.take().unwrap().abort();
        kill(processes);
        for writer in writers {
            writer.await.unwrap();
        }
        let begun = Instant::now();
        let end =
            timed("fence of a standby whose primary was killed", begun, two.postgres.fence(DEADLINE).await.unwrap());
        let begun = Instant::now();
        let next = timed("promote", begun, two.promote(term + 1).await);
        assert_eq!(next.start, end);
        assert!(two.rows().await >= before + acknowledged.load(Ordering::SeqCst));

        one = one.reopened().await.watched();
        one.postgres.fence(DEADLINE).await.unwrap();
        let primary = two.as_primary(term + 1, next);
        one.postgres.rewind(primary).await.unwrap();
        one.streaming().await;
        (one, two, promotion) = (two, one, next);
    }
    assert!(promotion.timeline > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn standbys_with_a_password_give_it() {
    let ground = Ground::new();
    let nodes = [1, 2].map(|id| {
        let mut config = Node::config(&ground, id);
        config.replication_passwords = Some(Passwords::new(|| vec!["it's a \\ secret: 'ö'".into()]));
        config
    });
    let [one, two] = nodes;
    let one = Node::open(one).await.watched();
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    let two = Node::open(two).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.streaming().await;
    two.postgres.fence(DEADLINE).await.unwrap();
    let second = two.promote(2).await;
    one.postgres.rewind(two.as_primary(2, second)).await.unwrap();
    one.streaming().await;

    // It is in no setting, and nobody gets in without it.
    let settings = format!("{:?}", one.postgres.settings().await.unwrap());
    assert!(!settings.contains("secret:"), "{settings}");
    let config = format!("host=127.0.0.1 port={} user=qluster dbname=postgres password=wrong", two.config.port);
    assert!(tokio_postgres::connect(&config, NoTls).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_standbys_is_replaced_while_they_stream() {
    let ground = Ground::new();
    let known = [1, 2].map(|_| Arc::new(Mutex::new(vec!["old"])));
    let mut nodes = Vec::new();
    for (id, known) in [1, 2].into_iter().zip(&known) {
        let (mut config, known) = (Node::config(&ground, id), known.clone());
        let now = move || known.lock().unwrap().iter().map(|&password| password.into()).collect();
        config.replication_passwords = Some(Passwords::new(now));
        let node = Node::open(config).await.watched();
        tokio::spawn(node.postgres.clone().keep_password());
        nodes.push(node);
    }
    let [one, two] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.streaming().await;

    // The primary changes it first, and the standby, which knows both, finds that out when it connects anew.
    *known[1].lock().unwrap() = vec!["old", "new"];
    *known[0].lock().unwrap() = vec!["new", "old"];
    let config = format!("host=127.0.0.1 port={} user=qluster dbname=postgres password=new", one.config.port);
    let begun = Instant::now();
    while tokio_postgres::connect(&config, NoTls).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "the new password is not set");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = one.connect().await;
    let reconnects = async || {
        let pid = number(&client, "SELECT pid::bigint FROM pg_stat_replication").await;
        client.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
        let another = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND pid <> ";
        until_number(&client, &format!("{another}{pid}"), 1).await;
    };
    reconnects().await;

    // Once the old one is no more known, nothing is amiss.
    known.iter().for_each(|known| *known.lock().unwrap() = vec!["new"]);
    reconnects().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why_and_runs_once_it_can() {
    let ground = Ground::new();
    let node = Node::new(&ground, 1).await;
    node.postgres.initialize().await.unwrap();
    let settings = node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nshared_buffers = much\n")).unwrap();
    let node = node.watched();
    let why = |status: &DatabaseStatus| status.unfit.as_ref().is_some_and(|why| why.contains("shared_buffers"));
    node.until("unfit", why).await;
    std::fs::write(&settings, text).unwrap();
    node.until("fit", |status| status.role == DatabaseRole::Standby && status.unfit.is_none()).await;

    // The user's lines on who may connect are taken over as they change.
    let access = node.config.data_dir.join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();
    std::fs::write(&access, format!("host all postgres all reject\n{text}")).unwrap();
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", node.config.port);
    while tokio_postgres::connect(&config, NoTls).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_path_that_is_too_long_is_avoided() {
    let ground = Ground::new();
    let mut config = Node::config(&ground, 1);
    config.run_dir = ground.0.path().join("r".repeat(100));
    let node = Node::open(config).await;
    node.postgres.initialize().await.unwrap();
    assert!(node.postgres.fence(DEADLINE).await.unwrap() > Lsn(0));
    let dir: PathBuf = node.postgres.socket_dir().into();
    node.postgres.stop().await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_shut_out_from_before_a_promotion_until_they_are_let_in() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t AS SELECT 1 AS id").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();

    // A reader; one that is let in by the rules of before and has not said who it is; and one that comes after that one
    // was accepted.
    let reader = two.connect().await;
    let (ip, port) = (two.config.ip, two.config.port);
    let slow = tokio::net::TcpStream::connect((ip, port.get())).await.unwrap();
    let after = two.connect().await;
    let begun = Instant::now();
    let second = timed("promote with clients", begun, two.postgres.promote(rule(2, &[], 0)).await.unwrap());
    assert!(reader.batch_execute("SELECT 1").await.is_err());
    assert!(after.batch_execute("SELECT 1").await.is_err());
    let mut config = tokio_postgres::Config::new();
    config.user("postgres").dbname("postgres");
    assert!(config.connect_raw(slow, NoTls).await.is_err());
    let refused = |error: tokio_postgres::Error| {
        assert!(error.as_db_error().unwrap().message().contains("pg_hba.conf"), "{error:?}");
    };
    refused(try_connect(ip, port).await.err().unwrap());

    // So it stays under another agent, and when the user changes who may connect.
    let two = two.reopened().await.watched();
    two.until("primary", |status| status.role == DatabaseRole::Primary).await;
    std::fs::write(two.config.data_dir.join("pg_ident.conf"), "mine a b\n").unwrap();
    let taken_over = || std::fs::read_to_string(two.config.data_dir.join("qluster_ident.conf")).unwrap();
    while !taken_over().contains("mine a b") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refused(try_connect(ip, port).await.err().unwrap());

    // Standbys get in. Clients do, once they are let in, and by rules that hold.
    one.postgres.fence(DEADLINE).await.unwrap();
    assert_eq!(one.rows().await, 1, "a fenced standby has readers");
    one.postgres.rewind(two.as_primary(2, second)).await.unwrap();
    one.streaming().await;
    let access = two.config.data_dir.join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();
    std::fs::write(&access, "host everything\n").unwrap();
    std::fs::remove_file(two.config.data_dir.join("qluster_hba.good")).unwrap();
    let error = two.postgres.admit().await.unwrap_err().to_string();
    assert!(error.contains("pg_hba.conf has an error"), "{error}");
    refused(try_connect(ip, port).await.err().unwrap());
    std::fs::write(&access, text).unwrap();
    two.postgres.admit().await.unwrap();
    two.execute("INSERT INTO t VALUES (2)").await;
    one.has_rows(2).await;
    let kept = two.connect().await;
    two.postgres.admit().await.unwrap();
    kept.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_rule_is_in_force_when_it_is_set_also_where_only_its_count_changed() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let (two, three) = (Node::new(&ground, 2).await.watched(), Node::new(&ground, 3).await.watched());
    for node in [&two, &three] {
        node.copy_from(one.as_primary(1, promotion)).await.unwrap();
    }
    one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
    one.execute("INSERT INTO t VALUES (0)").await;
    let observer = one.connect().await;
    let of = "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type =";
    let receiver = number(&three.connect().await, &format!("{of} 'walreceiver'")).await.try_into().unwrap();
    let sender = format!("{of} 'walsender' AND application_name = 'qluster_2_1'");
    let sender = number(&observer, &sender).await.try_into().unwrap();
    signal(receiver, Signal::STOP);

    for row in 0..10 {
        one.postgres.set_sync_rule(rule(1, &[2, 3], 1)).await.unwrap();
        one.execute("INSERT INTO t VALUES (1)").await;
        if row == 0 {
            // It is not said to be in force while a sender has not loaded it.
            signal(sender, Signal::STOP);
            let postgres = one.postgres.clone();
            let mut set = tokio::spawn(async move { postgres.set_sync_rule(rule(1, &[2, 3], 2)).await });
            let fresh = "SELECT (current_setting('synchronous_standby_names') ~ '^[A-Z]+ 2')::int::bigint";
            until_number(&observer, fresh, 1).await;
            let early = tokio::time::timeout(Duration::from_millis(300), &mut set).await;
            signal(sender, Signal::CONT);
            assert!(early.is_err(), "a sender has not loaded it yet");
            set.await.unwrap().unwrap();
        } else {
            one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
        }
        let client = one.connect().await;
        let write = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (2)").await });
        while number(&observer, WAITING).await == 0 {
            assert!(!write.is_finished(), "acknowledged in round {row}");
        }
        // Nothing is done for a rule that is in force.
        let conf = one.config.data_dir.join("qluster.conf");
        let before = std::fs::read_to_string(&conf).unwrap();
        one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&conf).unwrap(), before);
        assert!(!write.is_finished());
        one.postgres.set_sync_rule(rule(1, &[2, 3], 1)).await.unwrap();
        // Waiters are released when a standby says something, which it does at once where there is something to write.
        one.execute("INSERT INTO t VALUES (3)").await;
        tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();
    }

    signal(receiver, Signal::CONT);
    one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
    tokio::time::timeout(PATIENCE, one.execute("INSERT INTO t VALUES (3)")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_held_before_it_is_said_to_be() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    assert!(one.postgres.hold().await.is_err(), "a standby");
    let promotion = one.postgres.promote(rule(1, &[2], 1)).await.unwrap();
    one.postgres.admit().await.unwrap();
    let observer = one.connect().await;

    // Nobody follows. What is given up leaves nothing behind.
    for wait in [5, 20, 100, 400] {
        let held = tokio::time::timeout(Duration::from_millis(wait), one.postgres.hold()).await;
        assert!(held.is_err(), "nobody holds it");
    }
    let left =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qluster' AND backend_type = 'client backend'";
    until_number(&observer, left, 1).await;
    assert_eq!(number(&observer, WAITING).await, 0);

    // It is held once somebody follows, in this term.
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(0, promotion)).await.unwrap();
    let postgres = one.postgres.clone();
    let hold = tokio::spawn(async move { postgres.hold().await });
    let streams =
        "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn = pg_current_wal_lsn()";
    until_number(&observer, streams, 1).await;
    assert!(!hold.is_finished(), "the standby of another term");
    let end = number(&observer, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await;
    two.postgres.fence(DEADLINE).await.unwrap();
    two.postgres.follow(one.as_primary(1, promotion)).await.unwrap();
    tokio::time::timeout(PATIENCE, hold).await.unwrap().unwrap().unwrap();
    assert!(two.postgres.fence(DEADLINE).await.unwrap() >= Lsn(end.try_into().unwrap()));

    // Nobody has to hold it.
    one.postgres.set_sync_rule(rule(1, &[], 0)).await.unwrap();
    one.postgres.hold().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_has_all_of_a_primary_that_stopped_once_it_is_beyond_its_last_record() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    assert_eq!(Node::new(&ground, 9).await.postgres.stop().await.unwrap(), Lsn(0), "there is none");
    one.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) AS id").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    one.execute("INSERT INTO t SELECT generate_series(1, 50000)").await;
    let written = number(&one.connect().await, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await;
    let last = one.postgres.stop().await.unwrap();
    assert!(last >= Lsn(written.try_into().unwrap()), "{last}");
    assert_eq!(one.postgres.stop().await.unwrap(), last, "it is stopped");
    assert!(two.postgres.fence(DEADLINE).await.unwrap() > last);
    // A primary that was killed does not know.
    two.promote(2).await;
    kill(two.postgres.pid().unwrap());
    two.postgres.demote(DEADLINE).await.unwrap();
    assert_eq!(two.postgres.stop().await.unwrap(), Lsn(u64::MAX));
}

/// Writes so much WAL, with checkpoints between, that a primary keeps none of before unless it has to.
async fn churn(primary: &Node) {
    for _ in 0..6 {
        primary.execute("INSERT INTO t SELECT generate_series(1, 100)").await;
        primary.execute("SELECT pg_switch_wal()").await;
        primary.execute("CHECKPOINT").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_away_finds_the_wal_that_it_lacks() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    let settings = one.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    let small = "wal_keep_size = 0\nmin_wal_size = 32MB\nmax_wal_size = 32MB\ncheckpoint_completion_target = 0\n";
    std::fs::write(&settings, format!("{text}\n{small}")).unwrap();
    let one = one.watched();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let (two, three) = (Node::new(&ground, 2).await.watched(), Node::new(&ground, 3).await.watched());
    for node in [&two, &three] {
        node.copy_from(one.as_primary(1, promotion)).await.unwrap();
    }
    let keep = async |node: &Node, standbys: &[(u64, Option<Lsn>)]| {
        let standbys: BTreeMap<_, _> = standbys.iter().map(|&(node, lsn)| (NodeId(node), lsn)).collect();
        node.postgres.keep_wal(standbys).await.unwrap();
    };
    let slots = "SELECT count(*) FROM pg_replication_slots";
    keep(&one, &[(1, None), (2, None), (3, None)]).await;
    keep(&two, &[(1, None), (2, None), (3, None)]).await;
    assert_eq!(number(&one.connect().await, slots).await, 2);
    assert_eq!(number(&two.connect().await, slots).await, 2);

    // It is away, and comes back to the same primary.
    let lsn_of = |node: &Node| node.postgres.status().borrow().lsn;
    let position = three.streaming().await.lsn;
    three.postgres.stop().await.unwrap();
    churn(&one).await;
    keep(&one, &[(2, None), (3, None)]).await;
    churn(&one).await;
    three.postgres.fence(DEADLINE).await.unwrap();
    three.postgres.follow(one.as_primary(1, promotion)).await.unwrap();
    three.streaming().await;
    three.has_rows(1200).await;

    // The slot went along with whoever streams, and WAL behind it is gone.
    let kept = "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = 'qluster_3'";
    let begun = Instant::now();
    while number(&one.connect().await, kept).await < i64::try_from(position.unwrap().0).unwrap() + (64 << 20) {
        assert!(begun.elapsed() < PATIENCE, "the slot stays behind");
        keep(&one, &[(2, None), (3, None)]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // It is away again, the primary is lost, and a standby of it has the WAL.
    let away = three.streaming().await.lsn;
    three.postgres.stop().await.unwrap();
    churn(&one).await;
    two.has_rows(1800).await;
    two.execute("CHECKPOINT").await;
    keep(&two, &[(1, lsn_of(&one)), (3, away)]).await;
    let moved = number(&two.connect().await, &kept.replace("_3", "_1")).await;
    assert!(moved > i64::try_from(position.unwrap().0).unwrap() + (64 << 20), "{moved}");
    keep(&two, &[(1, None), (3, None)]).await;
    churn(&one).await;
    two.has_rows(2400).await;
    two.execute("CHECKPOINT").await;
    one.postgres.demote(DEADLINE).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();
    let second = two.promote(2).await;
    churn(&two).await;
    for node in [&three, &one] {
        node.postgres.fence(DEADLINE).await.unwrap();
        node.postgres.follow(two.as_primary(2, second)).await.unwrap();
        node.streaming().await;
        node.has_rows(3000).await;
    }

    // Those of nodes that are gone vanish, others' slots do not.
    let client = two.connect().await;
    client.batch_execute("SELECT pg_create_physical_replication_slot('qluster_mine', true)").await.unwrap();
    keep(&two, &[(3, None)]).await;
    assert_eq!(number(&client, slots).await, 2);
    keep(&two, &[(9, None)]).await;
    assert_eq!(number(&client, &format!("{slots} WHERE slot_name IN ('qluster_9', 'qluster_mine')")).await, 2);
    assert_eq!(number(&client, slots).await, 2);

    // What is kept has bounds. One that was outrun begins anew.
    client.batch_execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    churn(&two).await;
    let lost = format!("{slots} WHERE wal_status = 'lost' AND slot_name = 'qluster_9'");
    assert_eq!(number(&client, &lost).await, 1);
    keep(&two, &[(9, None)]).await;
    assert_eq!(number(&client, &lost).await, 0);
    assert_eq!(number(&client, &format!("{slots} WHERE slot_name = 'qluster_9'")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_wal_is_gone_at_the_primary_says_so() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    let settings = one.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    let small = "wal_keep_size = 0\nmin_wal_size = 32MB\nmax_wal_size = 32MB\n";
    std::fs::write(&settings, format!("{text}\n{small}")).unwrap();
    let one = one.watched();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    assert!(!two.streaming().await.lacks_wal);
    two.postgres.stop().await.unwrap();
    churn(&one).await;
    two.postgres.fence(DEADLINE).await.unwrap();
    two.postgres.follow(one.as_primary(1, promotion)).await.unwrap();
    let status = two.until("one that lacks WAL", |status| status.lacks_wal).await;
    assert_eq!((status.role, status.streaming), (DatabaseRole::Standby, false));
    assert!(status.unfit.is_some_and(|unfit| unfit.contains("must be cloned")));

    // A clone has what it needs, and one whose primary is merely away lacks nothing.
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    assert!(!two.streaming().await.lacks_wal);
    two.has_rows(600).await;
    one.postgres.stop().await.unwrap();
    two.until("one that waits", |status| !status.streaming).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!two.postgres.status().borrow().lacks_wal);
}

fn entries_of(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_rule_that_somebody_undoes_stays_or_comes_back() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let wanted = rule(1, &[2], 1);
    node.postgres.set_sync_rule(wanted.clone()).await.unwrap();
    let client = node.connect().await;
    let in_force =
        "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting LIKE 'ANY 1 %'";
    let all = "SELECT count(*) FROM pg_settings WHERE name = 'work_mem' AND setting = '1234'";

    // The user's file, replaced by one that lacks our line, and one with a line behind that.
    let settings = node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    for (users, memory) in [
        ("synchronous_standby_names = ''\n".to_owned(), "on"),
        (format!("{text}\nsynchronous_standby_names = ''\n"), "off"),
    ] {
        std::fs::write(&settings, format!("{users}work_mem = 1234kB\nenable_seqscan = {memory}\n")).unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let loaded = format!("SELECT count(*) FROM pg_settings WHERE name = 'enable_seqscan' AND setting = '{memory}'");
        until_number(&client, &loaded, 1).await;
        assert_eq!((number(&client, in_force).await, number(&client, all).await), (1, 1), "{users}");
    }
    node.postgres.set_sync_rule(rule(1, &[2, 3], 1)).await.unwrap();
    node.postgres.set_sync_rule(wanted.clone()).await.unwrap();

    // What is read after our file is taken out again.
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = ''").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until_number(&client, in_force, 0).await;
    until_number(&client, in_force, 1).await;
    let auto = std::fs::read_to_string(node.config.data_dir.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("synchronous_standby_names"), "{auto}");
    node.postgres.set_sync_rule(wanted).await.unwrap();
    until_number(&client, in_force, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_with_an_error_give_way_to_the_last_good_ones() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let access = node.config.data_dir.join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();

    // Lines that PostgreSQL only warns of, as it has neither.
    std::fs::write(&access, format!("hostssl all nobody all reject\nhostgssenc all nobody all reject\n{text}"))
        .unwrap();
    node.postgres.fence(DEADLINE).await.unwrap();
    node.promote(2).await;

    let taken = std::fs::read_to_string(node.config.data_dir.join("qluster_hba.good")).unwrap();
    assert!(taken.starts_with("hostssl"), "{taken}");

    for seen in [false, true] {
        node.postgres.fence(DEADLINE).await.unwrap();
        node.postgres.promote(rule(3, &[], 0)).await.unwrap();
        std::fs::write(&access, format!("{text}host everything {seen}\n")).unwrap();
        if seen {
            // As the monitor does while they are closed.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        node.postgres.admit().await.unwrap();
        node.execute("SELECT 1").await;
    }
    // It also starts, under another agent.
    node.postgres.demote(DEADLINE).await.unwrap();
    let node = node.reopened().await.watched();
    node.postgres.fence(DEADLINE).await.unwrap();
    node.execute("SELECT 1").await;

    // In time the corrected ones are taken over.
    std::fs::write(&access, format!("host all postgres all reject\n{text}")).unwrap();
    while try_connect(node.config.ip, node.config.port).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_loaded_are_named() {
    let ground = Ground::new();
    let node = Node::new(&ground, 1).await;
    node.postgres.initialize().await.unwrap();
    let node = node.watched();
    node.postgres.fence(DEADLINE).await.unwrap();
    let settings = node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nwork_memm = '4MB'\n")).unwrap();

    let begun = Instant::now();
    let error = node.postgres.promote(rule(1, &[], 0)).await.unwrap_err().to_string();
    assert!(error.contains("work_memm"), "{error}");
    assert!(timed("a promotion that fails", begun, begun.elapsed()) < Duration::from_secs(3));
    let why = |status: &DatabaseStatus| status.unfit.as_ref().is_some_and(|why| why.contains("work_memm"));
    node.until("unfit", why).await;
    std::fs::write(&settings, &text).unwrap();
    node.until("fit", |status| status.role == DatabaseRole::Standby && status.unfit.is_none()).await;

    // A standby that still has its primary.
    node.postgres.fence(DEADLINE).await.unwrap();
    let primary = Promotion { timeline: 1, start: Lsn(0) };
    node.postgres.follow(node.as_primary(1, primary)).await.unwrap();
    let client = node.connect().await;
    let follows = "SELECT count(*) FROM pg_settings WHERE name = 'primary_conninfo' AND setting <> ''";
    until_number(&client, follows, 1).await;
    std::fs::write(&settings, format!("{text}\nwork_memm = '4MB'\n")).unwrap();
    let error = node.postgres.fence(DEADLINE).await.unwrap_err().to_string();
    assert!(error.contains("work_memm"), "{error}");
    std::fs::write(&settings, &text).unwrap();
    node.postgres.fence(DEADLINE).await.unwrap();

    // What takes a restart, and a value that is refused, keep nothing else from being loaded.
    std::fs::write(&settings, format!("{text}\nwork_mem = much\nshared_buffers = 256MB\n")).unwrap();
    node.promote(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_a_place_left_proves_its_commits_once_there_is_one() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    node.postgres.hold().await.unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = try_connect(node.config.ip, node.config.port).await {
        clients.push(client);
    }
    let postgres = node.postgres.clone();
    let held = tokio::spawn(async move { postgres.hold().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!held.is_finished());
    drop(clients);
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_programs_have_moved_is_ended() {
    let ground = Ground::new();
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    let installed =
        versions.map(|version| version.path().join("bin")).find(|bin| bin.join("postgres").exists()).unwrap();
    let (copy, link) = (ground.0.path().join("copy"), ground.0.path().join("bin"));
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(installed.join("postgres"), copy.join("postgres")).unwrap();
    for name in ["initdb", "pg_controldata"] {
        std::os::unix::fs::symlink(installed.join(name), copy.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    let mut config = Node::config(&ground, 1);
    config.bin_dir = Some(link.clone());
    let node = Node::open(config).await;
    node.postgres.initialize().await.unwrap();
    node.postgres.fence(DEADLINE).await.unwrap();
    node.promote(1).await;

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&installed, &link).unwrap();
    node.postgres.demote(DEADLINE).await.unwrap();
    assert_eq!((node.postgres.pid(), ground.processes()), (None, vec![]));
}
