//! Whether the settings that a node starts with fit what the cluster knows of it. This is checked before the node takes
//! part in anything.

use std::path::Path;

use qluster_consensus::model::{Node, Port};

use crate::start::settings::{DatabaseSettings, Settings};

/// Why a node that the cluster knows as `member` must not start with these settings; None if it may. Until the cluster has
/// `promoted` a primary, its first database is whatever is in the data directory.
pub(crate) fn mismatch(member: &Node, promoted: bool, settings: &Settings) -> Option<String> {
    let (id, address) = (member.id, settings.api_address());
    let known = member.api_address();
    if known != address {
        // A node with a copy of another node's store would vote and lead beside that node.
        return Some(format!(
            "the store {} is that of node {id} at {known}, and not of a node at {address}: give each node its own \
             `data-dir`, and the address with which it was added",
            settings.store().display()
        ));
    }
    let port = member.db_port?;
    match &settings.database {
        // It would vote like a witness, also for nodes that lack what its database holds.
        None => Some(format!(
            "node {id} has a database in the cluster, at port {port}, and these settings name none: start it with the \
             settings that it had before"
        )),
        Some(database) => other_database(member, database, port, promoted),
    }
}

fn other_database(
    member: &Node,
    DatabaseSettings { port, data_dir, .. }: &DatabaseSettings,
    known: Port,
    promoted: bool,
) -> Option<String> {
    if *port != known {
        return Some(format!(
            "the cluster has this node's database at port {known}, and not at {port}: start it there. To use another \
             port, tell the cluster first, while the node is up: `qluster node enroll {} --db-port {port}`",
            member.id
        ));
    }
    (promoted && is_foreign(data_dir)).then(|| {
        format!(
            "{} has a database that does not belong to this cluster (it lacks qluster.conf): to replace it by a copy of \
             the cluster's database, empty that directory",
            data_dir.display()
        )
    })
}

/// Whether a data directory belongs to a cluster of qluster. A cloned database has the file as well: it is cloned, too.
pub(crate) fn is_managed(data: &Path) -> bool {
    data.join("qluster.conf").exists()
}

/// Whether there is a database that belongs to no cluster.
fn is_foreign(data: &Path) -> bool {
    data.join("PG_VERSION").exists() && !is_managed(data)
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::{NodeId, NodeRole, NodeState};

    use super::*;

    fn port(port: u16) -> Port {
        Port::new(port).unwrap()
    }

    fn member(db_port: Option<u16>) -> Node {
        Node {
            id: NodeId(3),
            ip: [127, 0, 0, 1].into(),
            db_port: db_port.map(port),
            api_port: port(8080),
            role: NodeRole::Voter,
            upgrade_to: NodeRole::Voter,
            state: NodeState::Up,
            reason: None,
        }
    }

    fn settings(api_port: u16, database: Option<(u16, &Path)>) -> Settings {
        Settings {
            ip: [127, 0, 0, 1].into(),
            api_port: port(api_port),
            data_dir: "/data".into(),
            raft_dir: "/data".into(),
            database: database.map(|(db_port, data_dir)| DatabaseSettings {
                data_dir: data_dir.into(),
                port: port(db_port),
                bin_dir: None,
                os_user: None,
                programs: Default::default(),
            }),
            watchdog: Default::default(),
            security: Default::default(),
        }
    }

    #[test]
    fn a_node_starts_as_the_cluster_knows_it_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let data = |name: &str, files: &[&str]| {
            let data = dir.path().join(name);
            std::fs::create_dir(&data).unwrap();
            files.iter().for_each(|file| std::fs::write(data.join(file), "").unwrap());
            data
        };
        let (empty, own) = (data("empty", &[]), data("own", &["PG_VERSION", "qluster.conf"]));
        let foreign = data("foreign", &["PG_VERSION"]);
        for (known, api_port, database, expected) in [
            (Some(5432), 8080, Some((5432, &own)), None),
            // The database is not cloned yet, or that was interrupted.
            (Some(5432), 8080, Some((5432, &empty)), None),
            (None, 8080, Some((5432, &foreign)), None),
            (None, 8080, None, None),
            (Some(5432), 8081, Some((5432, &own)), Some("that of node 3 at 127.0.0.1:8080, and not of a node at")),
            (Some(5432), 8080, None, Some("has a database in the cluster, at port 5432, and these settings name none")),
            (Some(5432), 8080, Some((5433, &own)), Some("at port 5432, and not at 5433")),
            (Some(5432), 8080, Some((5432, &foreign)), Some("lacks qluster.conf")),
        ] {
            let database = database.map(|(port, data): (u16, &std::path::PathBuf)| (port, data.as_path()));
            let told = mismatch(&member(known), true, &settings(api_port, database));
            match expected {
                None => assert_eq!(told, None),
                Some(expected) => assert!(told.as_ref().is_some_and(|told| told.contains(expected)), "{told:?}"),
            }
        }
        // The creation, or the adoption, of the cluster's database was interrupted.
        assert_eq!(mismatch(&member(Some(5432)), false, &settings(8080, Some((5432, foreign.as_path())))), None);
    }
}
