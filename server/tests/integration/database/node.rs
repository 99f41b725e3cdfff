//! A database under direction, and what is asked of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use qluster_consensus::model::{NodeId, Port, Term};
use qluster_consensus::protocol::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use qluster_server::database::{DatabaseConfig, Postgres};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::free_port;
pub(super) use crate::support::{Ground, holds, signal, until};

/// What an operation of the database part may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// Long for what takes some seconds, such as a copy of a database, so that only a hang runs into it.
pub(super) const WAIT_DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

/// An agent's database part, and the loop that watches it.
pub(super) struct Node {
    pub(super) config: DatabaseConfig,
    pub(super) postgres: Arc<Postgres>,
    pub(super) run: Option<JoinHandle<()>>,
}

impl Node {
    /// A node whose database is not there yet.
    pub(super) async fn new(ground: &Ground, id: u64) -> Self {
        Self::open(Self::config(ground, id)).await
    }

    pub(super) fn config(ground: &Ground, id: u64) -> DatabaseConfig {
        DatabaseConfig {
            node: NodeId(id),
            ip: Ipv4Addr::LOCALHOST.into(),
            port: Port::new(free_port()).unwrap(),
            data_dir: ground.path().join(format!("node-{id}/data")),
            bin_dir: None,
            os_user: None,
            programs: Default::default(),
            run_dir: ground.path().join(format!("node-{id}/run")),
            replication_passwords: None,
        }
    }

    pub(super) async fn open(config: DatabaseConfig) -> Self {
        let postgres = Postgres::open(config.clone()).await.expect("apt-get install postgresql-15 provides PostgreSQL");
        Self { config, postgres, run: None }
    }

    /// The same database under another agent, the first being gone.
    pub(super) async fn reopened(mut self) -> Self {
        if let Some(run) = self.run.take() {
            run.abort();
        }
        Self::open(self.config.clone()).await
    }

    pub(super) fn watched(mut self) -> Self {
        self.run = Some(tokio::spawn(self.postgres.clone().run()));
        self
    }

    /// A node with a database that is led in `term`.
    pub(super) async fn primary(ground: &Ground, id: u64, term: u64) -> (Self, Promotion) {
        let node = Self::new(ground, id).await;
        node.postgres.initialize().await.unwrap();
        let node = node.watched();
        let end = node.postgres.fence(DEADLINE).await.unwrap();
        let promotion = node.promote(term).await;
        assert_eq!(promotion.start, end);
        (node, promotion)
    }

    /// Promotes it, and lets clients in.
    pub(super) async fn promote(&self, term: u64) -> Promotion {
        let promotion = self.postgres.promote(rule(term, &[], 0)).await.unwrap();
        let begun = Instant::now();
        self.postgres.admit().await.unwrap();
        timed("admit", begun, promotion)
    }

    pub(super) fn as_primary(&self, term: u64, promotion: Promotion) -> Primary {
        let DatabaseConfig { node, ip, port, .. } = self.config;
        Primary { node, term: Term(term), ip, port, timeline: promotion.timeline }
    }

    /// `Arc` has a method of the same name.
    pub(super) async fn copy_from(&self, primary: Primary) -> Result<(), DatabaseError> {
        Database::copy_from(self.postgres.as_ref(), primary).await?;
        self.streaming().await;
        Ok(())
    }

    /// Waits for a status.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&DatabaseStatus) -> bool) -> DatabaseStatus {
        // A status may pass by quickly, so each is looked at.
        let mut status = self.postgres.status();
        let found = tokio::time::timeout(WAIT_DEADLINE, status.wait_for(|status| wanted(status))).await;
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

    pub(super) async fn streaming(&self) -> DatabaseStatus {
        self.until("streaming", |status| status.role == DatabaseRole::Standby && status.streaming).await
    }

    pub(super) async fn connect(&self) -> Client {
        connect(self.config.ip, self.config.port).await
    }

    pub(super) async fn execute(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.unwrap();
    }

    pub(super) async fn rows(&self) -> i64 {
        self.connect().await.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0)
    }

    /// Waits until the table has `count` rows here.
    pub(super) async fn has_rows(&self, count: i64) {
        let node = self.config.node;
        until(&format!("node {node} has {count} rows"), WAIT_DEADLINE, async || {
            let rows = self.rows().await;
            holds(rows == count, rows)
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            run.abort();
        }
    }
}

pub(super) async fn connect(ip: IpAddr, port: Port) -> Client {
    try_connect(ip, port).await.unwrap()
}

pub(super) async fn try_connect(ip: IpAddr, port: Port) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host={ip} port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(super) fn rule(term: u64, nodes: &[u64], count: usize) -> SyncRule {
    let standbys = nodes.iter().map(|&node| NodeId(node)).collect::<BTreeSet<_>>();
    SyncRule { term: Term(term), standbys, count }
}

/// The number that a query answers with.
pub(super) async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Asks until a query answers with this number.
pub(super) async fn until_number(client: &Client, sql: &str, wanted: i64) {
    until(&format!("{sql} is {wanted}"), WAIT_DEADLINE, async || {
        let found = number(client, sql).await;
        holds(found == wanted, found)
    })
    .await;
}

pub(super) const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

pub(super) fn timed<T>(what: &str, begun: Instant, value: T) -> T {
    println!("{what}: {:?}", begun.elapsed());
    value
}

/// Waits until writers have counted `count` rows that were acknowledged to them.
pub(super) async fn until_acknowledged(acknowledged: &AtomicI64, count: i64) {
    until(&format!("{count} rows are acknowledged"), WAIT_DEADLINE, async || {
        let rows = acknowledged.load(Ordering::SeqCst);
        holds(rows >= count, rows)
    })
    .await;
}

/// The names in a directory.
pub(super) fn entries_of(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
