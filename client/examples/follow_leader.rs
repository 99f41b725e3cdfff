//! Writes to the leader's PostgreSQL every second. After a failover it continues at the new leader.
//!
//!     cargo run -p qluster-client --example follow_leader -- "user=app password=secret dbname=app" \
//!         http://10.0.0.1:8080 http://10.0.0.2:8080

use std::error::Error;
use std::time::Duration;

use futures::{Stream, StreamExt};
use qluster_client::ClusterClient;
use qluster_client::model::{ClusterMap, Leader};
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let database: tokio_postgres::Config = arguments.next().unwrap_or_default().parse()?;
    let cluster = ClusterClient::new(arguments)?;
    let mut maps = cluster.watch_map();
    loop {
        // If there is no leader, this waits for one.
        let leader = match cluster.leader().await {
            Ok(leader) => leader,
            Err(error) => {
                eprintln!("{error}");
                continue;
            }
        };
        println!("node {} leads in term {}", leader.id, leader.term);
        tokio::select! {
            Err(error) = write(&database, &leader) => eprintln!("{error}"),
            // A frozen leader closes no connection, but the map shows that another node took its place.
            () = replaced(&mut maps, &leader) => eprintln!("node {} no longer leads", leader.id),
        }
        // The database may be gone before the cluster knows it.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Writes until a statement fails.
async fn write(database: &tokio_postgres::Config, leader: &Leader) -> Result<(), Box<dyn Error>> {
    let port = leader.db_port.ok_or("the cluster has no database")?;
    let mut database = database.clone();
    let (client, connection) = database.host(leader.ip.to_string()).port(port.get()).connect(NoTls).await?;
    // The task ends with the client. Its errors are those of the client's calls.
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE IF NOT EXISTS follow_leader (at timestamptz NOT NULL)").await?;
    loop {
        let row = client.query_one("INSERT INTO follow_leader VALUES (now()) RETURNING at::text", &[]).await?;
        println!("written at {}", row.get::<_, &str>(0));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Returns once a map shows that `leader` no longer leads. Maps of earlier terms do not count.
async fn replaced(maps: &mut (impl Stream<Item = Result<ClusterMap, qluster_client::Error>> + Unpin), leader: &Leader) {
    while let Some(map) = maps.next().await {
        if map.is_ok_and(|map| map.term >= leader.term && map.leader != Some(leader.id)) {
            return;
        }
    }
    std::future::pending().await
}
