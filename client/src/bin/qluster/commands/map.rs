//! The command `map`.

use qluster_client::model::ClusterMap;

use super::status::who_leads;
use crate::failure::Failure;
use crate::output::{Style, optional, plain, table};
use crate::session::Session;

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let map = session.cluster.map().await?;
    session.out.show(&map, |style| format!("{}\n\n{}", who_leads(&map), nodes(style, &map)))
}

fn nodes(style: Style, map: &ClusterMap) -> String {
    let header = ["NODE", "ROLE", "STATE", "ADDRESS", "API PORT", "DB PORT"];
    let row = |node: &qluster_client::model::Node| {
        [
            plain(node.id),
            plain(node.role),
            plain(node.state),
            plain(node.ip),
            plain(node.api_port),
            optional(node.db_port),
        ]
    };
    table(style, header, map.nodes.values().map(row))
}
