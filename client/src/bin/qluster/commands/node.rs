//! The commands that add, enroll, declare down and remove nodes.

use std::net::{IpAddr, SocketAddr};

use qluster_client::model::{ClusterMap, Node, NodeId, NodeRole, Port};

use crate::args::NodeCommand;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{Style, optional, plain, table};
use crate::session::{self, Session};

/// PostgreSQL's default port.
const POSTGRESQL_PORT: Port = Port::constant(5432);

pub(super) async fn run(session: &Session, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::Add { ip, role, api_port } => add(session, ip, role, api_port).await,
        NodeCommand::Enroll { node, db_port, api_port } => enroll(session, node, db_port, api_port).await,
        NodeCommand::Down { node } => down(session, node).await,
        NodeCommand::Remove { node } => remove(session, node).await,
    }
}

async fn add(session: &Session, ip: IpAddr, role: NodeRole, api_port: Option<Port>) -> Result<(), Failure> {
    let node = session.cluster.add_node(ip, role, api_port).await?;
    let next = format!(
        "Next, run this on its host. URL is the address of any other node:\n  \
         qluster-server --ip {ip} --api-port {} join URL --role {role}",
        node.api_port
    );
    session.out.show(&node, |style| format!("{}\n\n{next}", render(&node, style)))
}

async fn enroll(session: &Session, id: NodeId, db_port: Option<Port>, api_port: Option<Port>) -> Result<(), Failure> {
    let map = session.cluster.map().await?;
    let known = session::node(&map, id)?;
    let db_port = db_port.or(known.db_port).unwrap_or(POSTGRESQL_PORT);
    let node = session.cluster.upgrade_node(id, db_port, api_port.unwrap_or(known.api_port)).await?;
    session.out.show(&node, |style| render(&node, style))
}

async fn down(session: &Session, id: NodeId) -> Result<(), Failure> {
    let map = session.cluster.map().await?;
    let node = session::node(&map, id)?;
    confirm(session.yes, &before_down(&map, node)).await?;
    let node = session.cluster.node_down(id).await?;
    session.out.show(&node, |style| render(&node, style))
}

async fn remove(session: &Session, id: NodeId) -> Result<(), Failure> {
    let map = session.cluster.map().await?;
    let node = session::node(&map, id)?;
    confirm(session.yes, &before_removal(&map, node)).await?;
    let node = session.cluster.remove_node(id).await?;
    session.out.show(&node, |style| format!("{}\n\nThe node was removed.", render(&node, style)))
}

fn before_down(map: &ClusterMap, node: &Node) -> String {
    let vote = if node.votes() { format!(" loses its vote{} and", left(map, node)) } else { String::new() };
    format!("Node {}{}{vote} serves no reads until it is enrolled again.{}", node.id, place(node), hand_over(map, node))
}

fn before_removal(map: &ClusterMap, node: &Node) -> String {
    format!(
        "Node {}{} is removed for good{}: its database stops, its data stay, and its host can only come back as a new \
         node.{}",
        node.id,
        place(node),
        left(map, node),
        hand_over(map, node)
    )
}

fn place(node: &Node) -> String {
    format!(" ({} at {})", node.role, node.api_address())
}

fn left(map: &ClusterMap, node: &Node) -> String {
    let left = map.nodes.values().filter(|other| other.id != node.id && other.votes()).count();
    if node.votes() { format!(" ({left} with a vote are left)") } else { String::new() }
}

fn hand_over(map: &ClusterMap, node: &Node) -> &'static str {
    if map.leader == Some(node.id) {
        " It leads, so it hands over first: clients of the primary are disconnected, and writes wait for a moment."
    } else {
        ""
    }
}

fn render(node: &Node, style: Style) -> String {
    let Node { id, ip, db_port, api_port, role, upgrade_to, state, .. } = node;
    let at = |port: Port| SocketAddr::new(*ip, port.get());
    let becomes = (role != upgrade_to).then_some(upgrade_to);
    let row =
        [plain(id), plain(role), optional(becomes), plain(state), plain(at(*api_port)), optional(db_port.map(at))];
    table(style, ["NODE", "ROLE", "BECOMES", "STATE", "API", "DATABASE"], [row])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map() -> ClusterMap {
        let node = |id: u64, role: &str| {
            json!({"id": id, "ip": "10.0.0.1", "db-port": 5432, "api-port": 8080 + id, "role": role, "upgrade-to": role,
                "state": "up", "reason": null})
        };
        let nodes = json!({"1": node(1, "voter"), "2": node(2, "voter"), "3": node(3, "replica")});
        let config = qluster_client::model::Config::default();
        let map = json!({"leader": 1, "reason": null, "nodes": nodes, "config": config, "term": 7, "index": 42});
        serde_json::from_value(map).unwrap()
    }

    #[test]
    fn what_is_asked_says_what_happens_to_the_votes_and_to_the_leader() {
        let map = map();
        let asked = |id| before_removal(&map, &map.nodes[&NodeId(id)]);
        assert!(asked(1).starts_with("Node 1 (voter at 10.0.0.1:8081) is removed for good (1 with a vote are left): "));
        assert!(asked(1).contains("It leads, so it hands over first"));
        assert!(!asked(2).contains("It leads"));
        assert!(!asked(3).contains("with a vote are left"));
        let asked = |id| before_down(&map, &map.nodes[&NodeId(id)]);
        assert!(
            asked(2)
                .ends_with("loses its vote (1 with a vote are left) and serves no reads until it is enrolled again.")
        );
        assert!(!asked(3).contains("vote"));
    }
}
