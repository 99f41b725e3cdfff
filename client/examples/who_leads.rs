//! Prints the leader of a cluster and the address of its PostgreSQL.
//!
//!     cargo run -p qluster-client --example who_leads -- http://10.0.0.1:8080 http://10.0.0.2:8080

use qluster_client::ClusterClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = ClusterClient::new(std::env::args().skip(1))?;
    let leader = cluster.leader().await?;
    print!("node {} leads in term {}: its API is at {}, port {}", leader.id, leader.term, leader.ip, leader.api_port);
    match leader.db_port {
        Some(port) => println!(", PostgreSQL on port {port}"),
        None => println!(", and there is no database"),
    }
    Ok(())
}
