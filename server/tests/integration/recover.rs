//! A cluster that has lost its majority for good goes on from one node: `apt-get install postgresql-15` (or newer).

use std::process::{Command, Output};

use qluster_consensus::model::{ClusterInfo, ClusterMap, Event, EventKind, NodeId};
use tokio_postgres::{Client, NoTls};

use crate::support::{Daemon, Ground, WAIT_DEADLINE, be_patient, free_port, holds, until};

/// A node with a database.
struct Node {
    daemon: Daemon,
    flags: Vec<String>,
    port: u16,
}

impl Node {
    fn start(ground: &Ground, name: &str, command: &[&str]) -> Self {
        let port = free_port();
        let flags = ["--db-data-dir", &ground.database(name), "--db-port", &port.to_string(), "--watchdog", "off"];
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(command.iter().copied()).collect();
        Self { daemon: ground.node(name, &arguments), flags, port }
    }

    fn again(&mut self, command: &[&str]) {
        let arguments: Vec<&str> = self.flags.iter().map(String::as_str).chain(command.iter().copied()).collect();
        self.daemon.start(&arguments);
    }

    /// Waits until Raft counts `wanted` votes. The map says so before.
    async fn has_voters(&self, wanted: usize) {
        until(&format!("{wanted} voters in one set"), WAIT_DEADLINE, async || {
            let info: ClusterInfo = self.daemon.get("/info").await.ok();
            let newest = info.logs.iter().rev().find_map(|log| log.payload.get("membership"));
            let voters = newest.map(|membership| membership["configs"].clone()).unwrap_or_default();
            let has =
                matches!(voters.as_array().map(Vec::as_slice), Some([one]) if one.as_array().unwrap().len() == wanted);
            holds(has, voters)
        })
        .await;
    }

    /// Runs the command to its end, beside the daemon or instead of it.
    fn recover(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_qluster-server"))
            .args(["--ip", "127.0.0.1", "--api-port", &self.daemon.port.to_string()])
            .arg("--data-dir")
            .arg(self.daemon.dir.join("data"))
            .args(&self.flags)
            .arg("recover")
            .args(more)
            .output()
            .unwrap()
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=3", self.port);
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Executes it as soon as the database takes it.
    async fn execute(&self, sql: &str) {
        until(sql, WAIT_DEADLINE, async || self.connect().await?.batch_execute(sql).await).await;
    }

    /// Waits until its database has `wanted` rows.
    async fn has_rows(&self, wanted: i64) {
        let rows = async || self.connect().await?.query_one("SELECT count(*) FROM t", &[]).await;
        until(&format!("{wanted} rows"), WAIT_DEADLINE, async || {
            let rows = rows().await.map(|row| row.get::<_, i64>(0));
            holds(matches!(rows, Ok(rows) if rows == wanted), rows)
        })
        .await;
    }
}

fn voters(map: &ClusterMap) -> usize {
    map.nodes.values().filter(|node| node.votes()).count()
}

#[tokio::test]
async fn one_node_of_three_goes_on_alone_and_the_others_come_back_empty() {
    let ground = Ground::new();
    let one = Node::start(&ground, "1", &["bootstrap"]);
    one.daemon.until_get("/is-leader", 200).await;
    be_patient(&[&one.daemon]).await;
    let url = one.daemon.url("");
    let mut two = Node::start(&ground, "2", &["join", &url]);
    // Ids are given in the order in which nodes are added.
    one.daemon.until("the second is added", |map| map.nodes.len() == 2).await;
    let mut three = Node::start(&ground, "3", &["join", &url]);
    for node in [&one, &two, &three] {
        node.daemon.until("three voters", |map| voters(map) == 3).await;
        node.has_voters(3).await;
    }
    // It may have to be said twice.
    one.execute("CREATE TABLE IF NOT EXISTS t (i int PRIMARY KEY)").await;
    one.execute("INSERT INTO t VALUES (1), (2) ON CONFLICT DO NOTHING").await;
    two.has_rows(2).await;

    // While it runs, nothing is done.
    let running = two.recover(&["--others-are-gone-for-good"]);
    assert!(!running.status.success());
    assert!(String::from_utf8_lossy(&running.stderr).contains("the node is running"), "{running:?}");

    // Two nodes are lost, the primary among them. What is left cannot lead.
    let before: ClusterInfo = two.daemon.get("/info").await.ok();
    three.daemon.kill();
    let mut one = one;
    one.daemon.kill();
    two.daemon.until_get("/leader", 530).await;
    two.daemon.terminate().await;

    // It says what it would do, and does nothing until this is confirmed.
    let asked = two.recover(&[]);
    let text = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(!asked.status.success() && text.contains("would be given up: node 3, a voter"), "{asked:?}");
    assert!(String::from_utf8_lossy(&asked.stderr).contains("nothing was changed"), "{asked:?}");
    let done = two.recover(&["--others-are-gone-for-good"]);
    assert!(done.status.success(), "{done:?}");
    let again = two.recover(&["--others-are-gone-for-good"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("only member"), "{again:?}");

    // It leads alone, has its rows, and takes writes.
    two.again(&["run"]);
    two.daemon.until_get("/is-leader", 200).await;
    two.execute("INSERT INTO t VALUES (3) ON CONFLICT DO NOTHING").await;
    two.has_rows(3).await;
    let map = two.daemon.map().await;
    assert_eq!(map.nodes.keys().copied().collect::<Vec<_>>(), [NodeId(2)]);
    let after: ClusterInfo = two.daemon.get("/info").await.ok();
    assert_ne!(after.cluster_id, before.cluster_id);
    let events: Vec<Event> = two.daemon.get("/events").await.ok();
    let recovered = events.iter().find(|event| event.kind == EventKind::Recovered).unwrap();
    assert!(recovered.cause.contains(&before.cluster_id.to_string()), "{recovered:?}");
    let created = events.iter().any(|event| event.kind == EventKind::ClusterCreated);
    assert!(created, "the history of the old cluster is gone");

    // A node of the old cluster is a stranger to it, and leads nobody.
    three.again(&["run"]);
    three.daemon.until_get("/map", 200).await;
    until("it is told of the new cluster", WAIT_DEADLINE, async || {
        let told = three.daemon.get("/rpc").await.body;
        holds(told.contains(&after.cluster_id.to_string()), told)
    })
    .await;
    assert_eq!(three.daemon.get("/is-leader").await.status, 530);
    assert_eq!(two.daemon.get("/is-leader").await.status, 200);
    three.daemon.terminate().await;

    // With empty directories it joins as any other, under an id that was never used.
    let new = Node::start(&ground, "new", &["join", &two.daemon.url("")]);
    let map = new.daemon.until("two voters", |map| voters(map) == 2).await;
    assert!(map.nodes.contains_key(&NodeId(4)), "{map:?}");
    new.has_rows(3).await;
}

#[tokio::test]
async fn a_node_that_leads_alone_or_is_none_has_nothing_to_recover() {
    let ground = Ground::new();
    let mut one = Node::start(&ground, "1", &["bootstrap"]);
    one.daemon.until_get("/is-leader", 200).await;
    one.daemon.terminate().await;
    for (name, reason) in [("1", "the only member"), ("none", "there is no store")] {
        let output = Command::new(env!("CARGO_BIN_EXE_qluster-server"))
            .args(["--ip", "127.0.0.1", "--data-dir"])
            .arg(one.daemon.dir.parent().unwrap().join(name).join("data"))
            .args(["recover", "--others-are-gone-for-good"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
    }
}
