//! psql, where the primary is.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use qluster_client::model::NodeId;
use serde::Serialize;

use super::leader::database;
use crate::failure::Failure;
use crate::session::Session;

/// Where a database is.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    node: NodeId,
    host: String,
    port: u16,
}

/// Becomes psql: what that answers, and its exit code, are its own.
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

/// Comes back only where it fails. Host and port are in the environment, so that options of the user's stay whole.
fn become_psql(address: SocketAddr, arguments: &[String]) -> Failure {
    let mut psql = Command::new("psql");
    // A service or an address of the environment would lead elsewhere.
    psql.env("PGHOST", address.ip().to_string()).env("PGPORT", address.port().to_string());
    psql.env_remove("PGHOSTADDR").env_remove("PGSERVICE").args(arguments);
    let error = psql.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Failure::MissingProgram("psql", "install PostgreSQL's client (Debian: apt install postgresql-client)");
    }
    Failure::file("start psql", error)
}
