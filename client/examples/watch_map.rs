//! Prints the cluster's map whenever the map changes, until you interrupt the program.
//!
//!     cargo run -p qluster-client --example watch_map -- http://10.0.0.1:8080 http://10.0.0.2:8080

use futures::StreamExt;
use qluster_client::ClusterClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = ClusterClient::new(std::env::args().skip(1))?;
    let mut maps = cluster.watch_map();
    while let Some(map) = maps.next().await {
        // An error says that no node answers for now. The watch goes on.
        let map = match map {
            Ok(map) => map,
            Err(error) => {
                eprintln!("{error}");
                continue;
            }
        };
        println!("index {}, term {}", map.index, map.term);
        for node in map.nodes.values() {
            let leads = if map.leader == Some(node.id) { ", leads" } else { "" };
            println!("  node {} at {}: {}, {:?}{leads}", node.id, node.api_address(), node.role, node.state);
        }
    }
    Ok(())
}
