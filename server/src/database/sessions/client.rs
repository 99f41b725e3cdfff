//! Connecting to PostgreSQL, asking it, and what its errors mean.

use std::path::Path;
use std::time::Duration;

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::Primary;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::database::error::{Error, Result};
use crate::formats::{self, ROLE};

/// How long to wait for an answer that normally takes milliseconds.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits for an answer, and not longer than `timeout`.
pub(crate) async fn within<T>(
    timeout: Duration,
    attempted: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer.map_err(|source| Error::Query { attempted, source }),
        Err(_) => Err(Error::Unanswered { attempted, within: timeout }),
    }
}

/// What PostgreSQL said if it refused a connection because it is starting, or not consistent yet. Otherwise None.
pub(crate) fn is_starting(error: &Error) -> Option<String> {
    let Error::Query { source, .. } = error else { return None };
    let said = source.as_db_error().filter(|said| said.code().code() == "57P03")?;
    Some(match said.detail() {
        Some(detail) => format!("{} ({detail})", said.message()),
        None => said.message().into(),
    })
}

/// Whether a connection was refused because there are too many connections.
pub(crate) fn is_crowded(error: &Error) -> bool {
    let Error::Query { source, .. } = error else { return false };
    source.as_db_error().is_some_and(|said| said.code().code() == "53300")
}

/// Whether a connection was refused because its password is wrong or missing.
pub(crate) fn is_wrong_password(error: &Error) -> bool {
    let Error::Query { source, .. } = error else { return false };
    source.as_db_error().is_some_and(|said| said.code().code() == "28P01")
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    /// Anything that the daemon has to do, as a superuser.
    Act,
    /// Looking into this database, as the replication role. It is no superuser, but a member of `pg_read_all_stats`.
    Look(&'a str),
    /// Seeing the settings that any session has, as a superuser.
    Plain,
}

/// Connects to the database of this node by the unix socket.
///
/// Commits of the daemon wait for no standby: they must work while the sync rule cannot be met.
pub(crate) async fn connect_own(socket_dir: &Path, port: u16, user: &str, to: To<'_>) -> Result<Client> {
    let mut config = Config::new();
    let database = if let To::Look(database) = to { database } else { "postgres" };
    config.host_path(socket_dir).port(port).user(user).dbname(database).application_name("qluster");
    config.connect_timeout(QUERY_TIMEOUT);
    match to {
        To::Act => config.options(
            "-c synchronous_commit=local -c default_transaction_read_only=off -c statement_timeout=0 \
             -c lock_timeout=0 -c search_path=pg_catalog -c log_statement=none -c log_min_duration_statement=-1 \
             -c pg_stat_statements.track=none",
        ),
        To::Look(_) => {
            config.options("-c default_transaction_read_only=on -c statement_timeout=5s -c lock_timeout=100ms")
        }
        To::Plain => &mut config,
    };
    connect(config, "connect to the database").await
}

/// Connects to a primary as the replication role.
pub(crate) async fn connect_primary(primary: &Primary, password: Option<&str>) -> Result<Client> {
    let mut config = Config::new();
    config.host(primary.ip.to_string()).port(primary.port.get()).user(ROLE).dbname("postgres");
    config.application_name("qluster").connect_timeout(QUERY_TIMEOUT);
    if let Some(password) = password {
        config.password(password);
    }
    connect(config, "connect to the primary").await
}

async fn connect(config: Config, attempted: &'static str) -> Result<Client> {
    let (client, connection) = within(QUERY_TIMEOUT, attempted, config.connect(NoTls)).await?;
    tokio::spawn(async move {
        // The user of the client gets the error.
        let _ = connection.await;
    });
    Ok(client)
}

/// The only row of an answer.
pub(crate) async fn one(client: &Client, timeout: Duration, attempted: &'static str, sql: &str) -> Result<Row> {
    within(timeout, attempted, client.query_one(sql, &[])).await
}

/// A value of a row.
pub(crate) fn cell<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|source| Error::Query { attempted: "read an answer", source })
}

/// An LSN in a row, as text.
pub(crate) fn lsn(row: &Row, index: usize) -> Result<Option<Lsn>> {
    let text: Option<String> = cell(row, index)?;
    let odd = |text: String| formats::Error { what: "LSN", text };
    Ok(text.map(|text| text.parse().map_err(odd)).transpose()?)
}
