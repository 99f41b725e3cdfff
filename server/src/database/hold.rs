//! Having what a primary wrote held by its standbys.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::{SyncRule, standby_name};
use rustix::process::Signal;

use super::error::{Error, Result};
use super::session::{self, PATIENCE, Session, To, cell, one, within};
use super::settings::{Directions, NOBODY};
use super::{Postgres, process};

/// A record that takes no room, in a transaction, so that there is a commit to wait for.
const WRITE: &str = "SELECT pg_logical_emit_message(true, 'qluster', '')";

/// Between two looks at standbys, at first and at last. It grows with the wait: a failover ends with the look that finds
/// them there.
const STEP: Duration = Duration::from_millis(3);
const LONGEST_STEP: Duration = Duration::from_millis(200);

/// Who must hold a commit, by the text of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holders {
    count: usize,
    names: Vec<String>,
}

impl Holders {
    fn of(rule: &SyncRule) -> Self {
        let names = rule.standbys.iter().map(|&node| standby_name(node, rule.term));
        Self { count: rule.count, names: names.collect() }
    }

    /// Reads a value of `synchronous_standby_names` that is ours.
    fn parse(rule: &str) -> Option<Self> {
        if rule.is_empty() {
            return Some(Self { count: 0, names: Vec::new() });
        }
        let (head, names) = rule.strip_suffix(')')?.split_once('(')?;
        let count = head.split_whitespace().nth(1)?.parse().ok()?;
        let names = names.split(',').map(str::trim).filter(|&name| name != NOBODY).map(str::to_owned).collect();
        Some(Self { count, names })
    }
}

/// Ends a backend when it is dropped: one that waits for standbys does not notice that its client is gone.
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
    /// Takes no turn, as it changes nothing, and may take long.
    pub(super) async fn do_hold(&self) -> Result<()> {
        loop {
            let Directions::Leads(rule) = self.home.directions() else {
                return Err(Error::Unfit("it is no primary".into()));
            };
            let holders = Holders::parse(&rule).ok_or(Error::Odd { what: "sync rule", text: rule })?;
            let session = self.answering().await?;
            if session.report(PATIENCE).await?.in_recovery {
                return Err(Error::Unfit("it is no primary yet".into()));
            }
            // By the agent's own connection, which waits for nobody.
            within(PATIENCE, "write a record", session.client.batch_execute(WRITE)).await?;
            wait_for(&session, &holders).await?;
            if self.commits().await? {
                return Ok(());
            }
        }
    }

    /// Takes no turn either.
    pub(super) async fn do_flushed(&self, rule: SyncRule) -> Result<()> {
        let holders = Holders::of(&rule);
        let session = self.answering().await?;
        if session.report(PATIENCE).await?.in_recovery {
            return Err(Error::Unfit("it is no primary yet".into()));
        }
        wait_for(&session, &holders).await
    }

    /// Whether a commit that waits as any client's does is acknowledged at once.
    async fn commits(&self) -> Result<bool> {
        let client = match self.connect(To::Act).await {
            // Clients took all places, those for superusers too. They end.
            Err(error) if session::is_crowded(&error) => {
                tokio::time::sleep(LONGEST_STEP).await;
                return Ok(false);
            }
            client => client?,
        };
        let row = one(&client, PATIENCE, "tell its process", "SELECT pg_backend_pid()").await?;
        let _ender = Ender { pid: cell(&row, 0)?, data_dir: self.home.data_dir.clone() };
        within(PATIENCE, "set up a commit", client.batch_execute("SET synchronous_commit = on")).await?;
        match within(PATIENCE, "commit", client.batch_execute(WRITE)).await {
            Ok(()) => Ok(true),
            // A standby that was there has gone.
            Err(Error::Unanswered { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Waits until enough standbys have flushed all that is written.
async fn wait_for(session: &Session, holders: &Holders) -> Result<()> {
    if holders.count == 0 {
        return Ok(());
    }
    // What is flushed, and not the position of the next insertion, which may lie behind a header that nobody sends.
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    let row = one(&session.client, PATIENCE, "tell its position", sql).await?;
    let sql = format!(
        "SELECT count(DISTINCT application_name) FROM pg_stat_replication
          WHERE application_name = ANY ($1) AND state = 'streaming' AND flush_lsn >= '{}'",
        cell::<&str>(&row, 0)?
    );
    let look = within(PATIENCE, "look at its senders", session.client.prepare(&sql)).await?;
    let begun = Instant::now();
    loop {
        let row = within(PATIENCE, "look at its senders", session.client.query_one(&look, &[&holders.names])).await?;
        if usize::try_from(cell::<i64>(&row, 0)?).is_ok_and(|count| count >= holders.count) {
            return Ok(());
        }
        tokio::time::sleep((begun.elapsed() / 16).clamp(STEP, LONGEST_STEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_rule_is_ours_or_none(rule in "(ANY|FIRST|) ?-?[0-9]{0,21} ?\\(?[a-z_0-9, *\"]{0,30}\\)?|\\PC{0,20}") {
            if let Some(holders) = Holders::parse(&rule) {
                prop_assert!(holders.names.iter().all(|name| name != NOBODY && !name.contains(',')));
            }
        }
    }

    #[test]
    fn a_rule_tells_who_must_hold_a_commit() {
        for (rule, expected) in [
            ("", Some((0, vec![]))),
            ("ANY 2 (qluster_2_7, qluster_3_7)", Some((2, vec!["qluster_2_7", "qluster_3_7"]))),
            ("ANY 1 (qluster_nobody)", Some((1, vec![]))),
            ("FIRST 1 (qluster_nobody, qluster_nobody, qluster_2_7)", Some((1, vec!["qluster_2_7"]))),
            ("*", None),
            ("ANY (a)", None),
        ] {
            let expected =
                expected.map(|(count, names)| Holders { count, names: names.into_iter().map(str::to_owned).collect() });
            assert_eq!(Holders::parse(rule), expected, "{rule}");
        }
    }
}
