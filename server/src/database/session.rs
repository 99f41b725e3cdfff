//! Asking PostgreSQL: the agent's connection to its own, and to a primary's.

use std::path::Path;
use std::time::Duration;

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::Primary;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::error::{Error, Result};
use super::settings::ROLE;
use crate::database::{DbConfig, DbSetting};

/// How long an answer is waited for that takes no time.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What a database says of itself.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) in_recovery: bool,
    pub(super) lsn: Option<Lsn>,
    pub(super) replayed: Option<Lsn>,
    pub(super) timeline: Option<u32>,
    /// The connection string of a receiver that streams.
    pub(super) streams_with: Option<String>,
}

/// What a standby that is being fenced says of itself.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    pub(super) in_recovery: bool,
    pub(super) replayed: Option<Lsn>,
    pub(super) conninfo: String,
    pub(super) receivers: i64,
    pub(super) startup: Option<i32>,
    pub(super) wait: Option<String>,
    pub(super) pause: bool,
    /// A receiver that has come to the end of a timeline, and waits to be told to go on.
    pub(super) idle_receiver: Option<i32>,
}

const REPORT: &str = "
    SELECT r.recovery,
           (CASE WHEN r.recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                 ELSE pg_current_wal_lsn() END)::text,
           pg_last_wal_replay_lsn()::text,
           CASE WHEN r.recovery
                THEN greatest(c.timeline_id, m.min_recovery_end_timeline, w.received_tli)::text
                ELSE pg_walfile_name(pg_current_wal_lsn()) END,
           CASE WHEN w.status = 'streaming' THEN w.conninfo END
      FROM (SELECT pg_is_in_recovery() AS recovery) r, pg_control_checkpoint() c, pg_control_recovery() m
      LEFT JOIN pg_stat_get_wal_receiver() w ON true";

const RECOVERY: &str = "
    SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
           current_setting('primary_conninfo'),
           count(*) FILTER (WHERE backend_type = 'walreceiver'),
           max(pid) FILTER (WHERE backend_type = 'startup'),
           max(wait_event) FILTER (WHERE backend_type = 'startup'),
           CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
           max(pid) FILTER (WHERE backend_type = 'walreceiver' AND wait_event = 'WalReceiverWaitStart')
      FROM pg_stat_activity";

const SETTINGS: &str = "
    SELECT name, setting, unit, source, pending_restart
      FROM pg_settings
     WHERE (setting IS DISTINCT FROM boot_val OR pending_restart) AND source NOT IN ('client', 'session')
     ORDER BY name";

/// The agent's kept connection to its own database.
pub(super) struct Session {
    pub(super) client: Client,
    /// Prepared, since it is asked several times a second.
    report: Statement,
}

impl Session {
    pub(super) async fn new(client: Client) -> Result<Self> {
        let report = within(PATIENCE, "prepare a statement", client.prepare(REPORT)).await?;
        Ok(Self { client, report })
    }

    /// What the database is and does now.
    pub(super) async fn report(&self, patience: Duration) -> Result<Report> {
        let row = within(patience, "report its state", self.client.query_one(&self.report, &[])).await?;
        let in_recovery: bool = cell(&row, 0)?;
        let timeline: Option<String> = cell(&row, 3)?;
        let timeline = match in_recovery {
            true => timeline.and_then(|timeline| timeline.parse().ok()),
            false => timeline.as_deref().and_then(super::control::timeline_of_file),
        };
        Ok(Report { in_recovery, lsn: lsn(&row, 1)?, replayed: lsn(&row, 2)?, timeline, streams_with: cell(&row, 4)? })
    }
}

/// Waits for an answer, and not for long.
pub(super) async fn within<T>(
    within: Duration,
    attempted: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(within, answer).await {
        Ok(answer) => answer.map_err(|source| Error::Query { attempted, source }),
        Err(_) => Err(Error::Unanswered { attempted, within }),
    }
}

/// Whether a connection was refused because PostgreSQL is starting (or not yet consistent), and what it said.
pub(super) fn is_starting(error: &Error) -> Option<String> {
    let Error::Query { source, .. } = error else { return None };
    let said = source.as_db_error().filter(|said| said.code().code() == "57P03")?;
    Some(match said.detail() {
        Some(detail) => format!("{} ({detail})", said.message()),
        None => said.message().into(),
    })
}

/// Whether a connection was refused because there are too many.
pub(super) fn is_crowded(error: &Error) -> bool {
    let Error::Query { source, .. } = error else { return false };
    source.as_db_error().is_some_and(|said| said.code().code() == "53300")
}

/// Whether a connection was refused for its password, or for having none.
pub(super) fn is_wrong_password(error: &Error) -> bool {
    let Error::Query { source, .. } = error else { return false };
    source.as_db_error().is_some_and(|said| said.code().code() == "28P01")
}

/// Connects to the database of this node, as a superuser by the unix socket.
/// What a connection is for.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Whatever the agent has to do.
    Act,
    /// A look into a database, as the role that standbys have, which is in `pg_read_all_stats` and no superuser.
    Look(&'a str),
    /// Seeing the settings that any session has.
    Plain,
}

/// Connects to the database of this node by the unix socket, as a superuser unless it is to look.
///
/// What the agent writes waits for no standby: it must work while the sync rule cannot be met.
pub(super) async fn connect_own(socket_dir: &Path, port: u16, user: &str, to: To<'_>) -> Result<Client> {
    let mut config = Config::new();
    let database = if let To::Look(database) = to { database } else { "postgres" };
    config.host_path(socket_dir).port(port).user(user).dbname(database).application_name("qluster");
    config.connect_timeout(PATIENCE);
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

/// Connects to a primary's, as the replication role.
pub(super) async fn connect_primary(primary: &Primary, password: Option<&str>) -> Result<Client> {
    let mut config = Config::new();
    config.host(primary.ip.to_string()).port(primary.port.get()).user(ROLE).dbname("postgres");
    config.application_name("qluster").connect_timeout(PATIENCE);
    if let Some(password) = password {
        config.password(password);
    }
    connect(config, "connect to the primary").await
}

async fn connect(config: Config, attempted: &'static str) -> Result<Client> {
    let (client, connection) = within(PATIENCE, attempted, config.connect(NoTls)).await?;
    tokio::spawn(async move {
        // Whoever uses the client hears of the error.
        let _ = connection.await;
    });
    Ok(client)
}

/// How far the recovery of a standby is.
pub(super) async fn recovery(client: &Client) -> Result<Recovery> {
    let row = one(client, PATIENCE, "report its recovery", RECOVERY).await?;
    Ok(Recovery {
        in_recovery: cell(&row, 0)?,
        replayed: lsn(&row, 1)?,
        conninfo: cell::<Option<String>>(&row, 2)?.unwrap_or_default(),
        receivers: cell(&row, 3)?,
        startup: cell(&row, 4)?,
        wait: cell(&row, 5)?,
        pause: cell(&row, 6)?,
        idle_receiver: cell(&row, 7)?,
    })
}

/// The one row of an answer.
pub(super) async fn one(client: &Client, patience: Duration, attempted: &'static str, sql: &str) -> Result<Row> {
    within(patience, attempted, client.query_one(sql, &[])).await
}

/// A value of a row.
pub(super) fn cell<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|source| Error::Query { attempted: "read an answer", source })
}

pub(super) fn lsn(row: &Row, index: usize) -> Result<Option<Lsn>> {
    let text: Option<String> = cell(row, index)?;
    let odd = |text: String| Error::Odd { what: "LSN", text };
    text.map(|text| text.parse().map_err(odd)).transpose()
}

/// The settings of a database as it runs.
pub(super) async fn settings(client: &Client) -> Result<DbConfig> {
    let attempted = "report its settings";
    let about = "SELECT current_setting('server_version'), system_identifier::text FROM pg_control_system()";
    let row = one(client, PATIENCE, attempted, about).await?;
    let rows = within(PATIENCE, attempted, client.query(SETTINGS, &[])).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = cell(row, 0)?;
        let value: Option<String> = cell(row, 1)?;
        found.push(DbSetting {
            value: masked(&name, value.as_deref().unwrap_or_default()),
            name,
            unit: cell(row, 2)?,
            source: cell(row, 3)?,
            pending_restart: cell(row, 4)?,
        });
    }
    Ok(DbConfig { version: cell(&row, 0)?, system_identifier: cell(&row, 1)?, settings: found })
}

/// A setting's value without the secrets that it may hold.
fn masked(name: &str, value: &str) -> String {
    const MASK: &str = "********";
    if name == "ssl_passphrase_command" && !value.is_empty() {
        return MASK.into();
    }
    let lower = value.to_ascii_lowercase();
    let mut result = String::new();
    let mut from = 0;
    while let Some((start, length)) = ["password=", "secret=", "token=", "key=", "passwd="]
        .iter()
        .filter_map(|key| lower[from..].find(key).map(|at| (from + at, key.len())))
        .min()
    {
        let start = start + length;
        let rest = &value[start..];
        // A quoted secret may hold spaces, and escaped quotes.
        let end = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => end_of_quoted(rest, quote),
            _ => rest.find([' ', '&', '\'', '"']).unwrap_or(rest.len()),
        };
        result += &value[from..start];
        result += MASK;
        from = start + end;
    }
    result + &value[from..]
}

fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (name, value, expected) in [
            ("primary_conninfo", "host=a password=s3cret user=b", "host=a password=******** user=b"),
            ("primary_conninfo", "password='s3 \\' cret' user=b", "password=******** user=b"),
            ("archive_command", "AWS_SECRET=x PASSWORD=y cp", "AWS_SECRET=******** PASSWORD=******** cp"),
            ("ssl_passphrase_command", "echo geheim", "********"),
            ("ssl_passphrase_command", "", ""),
            ("password_encryption", "md5", "md5"),
        ] {
            assert_eq!(masked(name, value), expected);
        }
    }

    proptest! {
        #[test]
        fn any_value_is_masked_without_a_panic(value in "(\\PC|password=|'){0,30}") {
            let _ = masked("x", &value);
        }

        #[test]
        fn a_word_after_password_never_shows(secret in "[A-Z]{6,12}") {
            let value = format!("a password={secret} b");
            prop_assert!(!masked("x", &value).contains(&secret));
        }
    }
}
