//! Waiting until standbys have flushed what a primary wrote.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::SyncRule;
use rustix::process::Signal;

use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, To, cell, is_crowded, one, within};
use crate::database::sessions::report::Session;
use crate::formats;
use crate::formats::directions::Directions;
use crate::formats::sync_names::Holders;
use crate::os::process;

/// Writes an empty record in a transaction, so that there is a commit to wait for.
const WRITE: &str = "SELECT pg_logical_emit_message(true, 'qluster', '')";

/// The pause between two checks of the standbys: the shortest and the longest. It grows with the wait: a failover ends with
/// the check that finds them.
const SHORTEST_PAUSE: Duration = Duration::from_millis(3);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Ends a backend when this is dropped: a backend that waits for standbys does not notice that its client is gone.
struct Ender {
    pid: i32,
    data_dir: PathBuf,
}

impl Drop for Ender {
    fn drop(&mut self) {
        if process::works_in(self.pid, &self.data_dir) {
            let _ = process::signal(self.pid, Signal::TERM);
        }
    }
}

impl Postgres {
    /// Needs no turn: it changes nothing, and may take long.
    pub(crate) async fn do_hold(&self) -> Result<()> {
        loop {
            let Directions::Leads(rule) = self.data_dir.settings.directions() else {
                return Err(Error::Unfit("it is no primary".into()));
            };
            let holders = Holders::parse(&rule).ok_or(formats::Error { what: "sync rule", text: rule })?;
            let session = self.answering().await?;
            if session.report(QUERY_TIMEOUT).await?.in_recovery {
                return Err(Error::Unfit("it is no primary yet".into()));
            }
            // By the daemon's connection, whose commits wait for nobody.
            within(QUERY_TIMEOUT, "write a record", session.client.batch_execute(WRITE)).await?;
            wait_for(&session, &holders).await?;
            if self.commits().await? {
                return Ok(());
            }
        }
    }

    /// Needs no turn either.
    pub(crate) async fn do_flushed(&self, rule: SyncRule) -> Result<()> {
        let holders = Holders::of(&rule);
        let session = self.answering().await?;
        if session.report(QUERY_TIMEOUT).await?.in_recovery {
            return Err(Error::Unfit("it is no primary yet".into()));
        }
        wait_for(&session, &holders).await
    }

    /// Whether a commit that waits like any client's is acknowledged at once.
    async fn commits(&self) -> Result<bool> {
        let client = match self.sessions.connect(To::Act).await {
            // Clients use all connections, also those for superusers. They will end.
            Err(error) if is_crowded(&error) => {
                tokio::time::sleep(LONGEST_PAUSE).await;
                return Ok(false);
            }
            client => client?,
        };
        let row = one(&client, QUERY_TIMEOUT, "tell its process", "SELECT pg_backend_pid()").await?;
        let _ender = Ender { pid: cell(&row, 0)?, data_dir: self.data_dir.path.clone() };
        within(QUERY_TIMEOUT, "set up a commit", client.batch_execute("SET synchronous_commit = on")).await?;
        match within(QUERY_TIMEOUT, "commit", client.batch_execute(WRITE)).await {
            Ok(()) => Ok(true),
            // A standby is gone that was there.
            Err(Error::Unanswered { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Waits until enough standbys have flushed everything that is written now.
async fn wait_for(session: &Session, holders: &Holders) -> Result<()> {
    if holders.count == 0 {
        return Ok(());
    }
    // The flush position, and not the insert position: that may be after a page header that no walsender sends.
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    let row = one(&session.client, QUERY_TIMEOUT, "tell its position", sql).await?;
    let sql = format!(
        "SELECT count(DISTINCT application_name) FROM pg_stat_replication
          WHERE application_name = ANY ($1) AND state = 'streaming' AND flush_lsn >= '{}'",
        cell::<&str>(&row, 0)?
    );
    let count = within(QUERY_TIMEOUT, "look at its senders", session.client.prepare(&sql)).await?;
    let begun = Instant::now();
    loop {
        let row =
            within(QUERY_TIMEOUT, "look at its senders", session.client.query_one(&count, &[&holders.names])).await?;
        if usize::try_from(cell::<i64>(&row, 0)?).is_ok_and(|count| count >= holders.count) {
            return Ok(());
        }
        tokio::time::sleep((begun.elapsed() / 16).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
    }
}
