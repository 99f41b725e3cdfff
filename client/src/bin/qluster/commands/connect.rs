//! Runs psql at the primary.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use qluster_client::model::NodeId;
use serde::Serialize;

use super::leader::database;
use crate::failure::Failure;
use crate::session::Session;

/// The address of a database.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    node: NodeId,
    host: String,
    port: u16,
}

/// Replaces this process by psql, so that psql's output and exit code are the command's.
pub(super) async fn run(
    session: &Session,
    node: Option<NodeId>,
    print: bool,
    arguments: &[String],
) -> Result<(), Failure> {
    let (id, address) = database(session, node).await?;
    if print {
        let place = Place { node: id, host: address.ip().to_string(), port: address.port() };
        return session.out.show(&place, |_| format!("host={} port={}", place.host, place.port));
    }
    Err(become_psql(address, arguments))
}

/// Returns only if it fails. Host and port are passed in the environment, so that the user's arguments stay as they
/// are.
fn become_psql(address: SocketAddr, arguments: &[String]) -> Failure {
    let mut psql = Command::new("psql");
    // A service or a host address in the environment would lead to another server.
    psql.env("PGHOST", address.ip().to_string()).env("PGPORT", address.port().to_string());
    psql.env_remove("PGHOSTADDR").env_remove("PGSERVICE").args(arguments);
    let error = psql.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Failure::MissingProgram("psql", "install PostgreSQL's client (Debian: apt install postgresql-client)");
    }
    Failure::file("start psql", error)
}
