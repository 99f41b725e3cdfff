//! Sends statements that do not write to the standbys, and all others to the primary. It continues after a failover.
//!
//!     cargo run -p qluster-client --features readonly --example split_reads -- \
//!         "user=app password=secret dbname=app" http://10.0.0.1:8080 http://10.0.0.2:8080

use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use qluster_client::model::{ClusterMap, Node, NodeState};
use qluster_client::{ClusterClient, ReadonlySet};
use tokio_postgres::{Client, Config, NoTls};

/// The number of connections to the primary, and to all standbys together.
const POOL_CONNECTIONS: usize = 4;

/// Statements of an application.
const STATEMENTS: [&str; 3] = [
    "INSERT INTO split_reads VALUES (now())",
    "SELECT count(*) FROM split_reads WHERE at > now() - interval '1 minute'",
    "SELECT max(at) FROM split_reads",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let database: Config = arguments.next().unwrap_or_default().parse()?;
    let name = database.get_dbname().or(database.get_user()).unwrap_or("postgres").to_owned();
    let cluster = ClusterClient::new(arguments)?;
    let readonly = ReadonlySet::watch(&cluster);
    let mut maps = cluster.watch_map();
    let mut map = None;
    loop {
        match map.take() {
            Some(known) => match serve(&database, &name, &readonly, &known, &mut maps).await {
                Ok(newer) => map = newer,
                Err(error) => {
                    eprintln!("{error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    map = cluster.map().await.ok();
                }
            },
            None => {
                map = maps.next().await.transpose().unwrap_or_else(|error| {
                    eprintln!("{error}");
                    None
                })
            }
        }
    }
}

/// Runs the statements at the servers of a map, until one fails or there is a newer map.
async fn serve(
    database: &Config,
    name: &str,
    readonly: &ReadonlySet,
    map: &ClusterMap,
    maps: &mut (impl futures::Stream<Item = Result<ClusterMap, qluster_client::Error>> + Unpin),
) -> Result<Option<ClusterMap>, Box<dyn Error>> {
    let leads = |node: &&Node| map.leader == Some(node.id);
    let follows = |node: &&Node| !leads(node) && node.state == NodeState::Up && node.role.has_database();
    let primary = Pool::open(database, map.nodes.values().filter(leads)).await?;
    primary.run("CREATE TABLE IF NOT EXISTS split_reads (at timestamptz NOT NULL)", 0).await?;
    let standbys = Pool::open(database, map.nodes.values().filter(follows)).await.ok();
    println!("{} leads", map.leader.map_or("nobody".into(), |leader| format!("node {leader}")));
    for turn in 0.. {
        for sql in STATEMENTS {
            let pool = standbys.as_ref().filter(|_| readonly.contains(name, sql)).unwrap_or(&primary);
            println!("{sql}: at port {}", pool.run(sql, turn).await?);
        }
        tokio::select! {
            newer = maps.next() => return Ok(newer.transpose()?),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
    Ok(None)
}

/// Connections that are used in turn.
struct Pool(Vec<(Client, u16)>);

impl Pool {
    async fn open(database: &Config, nodes: impl Iterator<Item = &Node>) -> Result<Self, Box<dyn Error>> {
        let mut clients = Vec::new();
        let nodes: Vec<_> = nodes.filter_map(|node| Some((node.ip, node.db_port?.get()))).collect();
        for &(ip, port) in nodes.iter().cycle().take(if nodes.is_empty() { 0 } else { POOL_CONNECTIONS }) {
            let mut database = database.clone();
            database.host(ip.to_string()).port(port).connect_timeout(Duration::from_secs(2));
            let (client, connection) = database.connect(NoTls).await?;
            // The task ends with the client. Its errors are those of the client's calls.
            tokio::spawn(connection);
            clients.push((client, port));
        }
        if clients.is_empty() { Err("there is no such server now".into()) } else { Ok(Self(clients)) }
    }

    /// Runs a statement, and returns the port of the server that ran it.
    async fn run(&self, sql: &str, turn: usize) -> Result<u16, Box<dyn Error>> {
        let (client, port) = &self.0[turn % self.0.len()];
        // A frozen server closes no connection.
        tokio::time::timeout(Duration::from_secs(5), client.batch_execute(sql)).await??;
        Ok(*port)
    }
}
