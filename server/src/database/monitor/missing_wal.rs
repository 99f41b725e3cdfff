//! Finding out why a standby does not stream, and whether its primary still has the WAL that it needs.
//!
//! If a standby was away for longer than WAL is kept for it, it tries in vain for ever, and only logs it. The same holds for a
//! standby that the primary refuses for another reason: that is shown in the words of the log.

use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::Primary;

use crate::database::Postgres;
use crate::database::error::Result;
use crate::database::operations::AT_END_OF_WAL;
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, one};
use crate::database::sessions::report;
use crate::database::status::missing_wal::{Needed, needs};
use crate::os::files;

/// How often the monitor checks whether the standby streams.
const STREAM_PERIOD: Duration = Duration::from_secs(1);

/// After this time without streaming and without progress, a standby may lack WAL. Then its primary is asked, and again each
/// time that this time has passed.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// How much of PostgreSQL's log is searched for the reason, in bytes.
const LOG_LENGTH: u64 = 16 << 10;

/// How much of the reason is shown, in characters.
const REASON_LENGTH: usize = 300;

/// The event that the startup process waits for while its WAL receiver works, or tries to.
const RECEIVES: &str = "RecoveryWalStream";

/// A standby that makes no progress.
struct Idle {
    needs: Needed,
    /// When its primary was asked last. Before that: since when it makes no progress.
    asked: Instant,
    /// The length of PostgreSQL's log at that time, in bytes.
    logged: u64,
}

impl Postgres {
    /// Finds out, for ever, why this standby does not stream.
    pub(super) async fn watch_wal(&self) {
        let mut idle: Option<Idle> = None;
        self.findings.wal.set_held_up(None);
        loop {
            tokio::time::sleep(STREAM_PERIOD).await;
            let needs = needs(&self.status.get(), self.data_dir.settings.directions());
            let now = Instant::now();
            idle = match (needs, idle) {
                (None, _) => None,
                (Some(needs), Some(idle)) if needs == idle.needs => Some(idle),
                (Some(needs), _) => {
                    // What was found belongs to the WAL that it needed before.
                    self.findings.wal.set_held_up(None);
                    Some(Idle { needs, asked: now, logged: files::length(&self.data_dir.log.path) })
                }
            };
            let Some(Idle { needs: (primary, end), asked, logged }) = &mut idle else {
                self.findings.wal.set_held_up(None);
                continue;
            };
            if now.duration_since(*asked) < IDLE_TIME {
                continue;
            }
            *asked = now;
            // If it still replays its own WAL, or its replay is held up, it needs no WAL of the primary yet.
            if !self.waits_for_wal().await.unwrap_or_default() {
                self.findings.wal.set_held_up(None);
                continue;
            }
            let gone = self.is_gone(primary, *end).await;
            let why = match &gone {
                // The primary is away, or is none any more. Or something between the two blocks this connection only.
                Err(error) => Some(format!("does not serve it: {}", error.chain())),
                Ok(true) => None,
                // For example the replication connection is refused, or the primary lacks a timeline.
                Ok(false) => Some(format!("answers, but it does not stream from it: {}", self.refusal(*logged))),
            };
            self.findings.wal.set_held_up(why.map(|why| (primary.clone(), why)));
            if let Ok(gone) = gone {
                self.findings.wal.set_gone(gone.then(|| (primary.clone(), *end)));
            }
        }
    }

    /// What PostgreSQL has logged about its WAL receiver since its log had the length `logged`; otherwise where to look.
    fn refusal(&self, logged: u64) -> String {
        let log = &self.data_dir.log.path;
        // If it is shorter now, it was put aside and began again.
        let news = files::length(log);
        let news = news.checked_sub(logged).unwrap_or(news);
        let text = files::tail(log, news.min(LOG_LENGTH));
        last_refusal(&text).unwrap_or_else(|| "PostgreSQL's log on this node says why".into())
    }

    async fn waits_for_wal(&self) -> Result<bool> {
        let waits = report::recovery(&self.sessions.session().await?.client).await?.wait;
        Ok(waits.is_some_and(|event| event == AT_END_OF_WAL || event == RECEIVES))
    }

    /// Whether `primary` had the WAL from `end` on, which this standby waits for, and does not have it any more.
    async fn is_gone(&self, primary: &Primary, end: Lsn) -> Result<bool> {
        let client = self.check_identity(primary).await?;
        // The standby asks for the file with the byte after `end`. A file of any timeline counts: files with the same WAL are
        // removed together.
        let sql = format!(
            "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 9) COLLATE \"C\" > wanted.file
                    AND NOT EXISTS (SELECT FROM pg_ls_dir('pg_wal', true, false) AS name
                                     WHERE length(name) = 24 AND substr(name, 9) = wanted.file)
               FROM (SELECT substr(pg_walfile_name('{}'::pg_lsn), 9) AS file) wanted",
            Lsn(end.0 + 1)
        );
        cell(&one(&client, QUERY_TIMEOUT, "look for WAL", &sql).await?, 0)
    }
}

/// The messages of a WAL receiver that ends since its primary does not serve it, and those of a startup process that cannot
/// continue on a timeline. Other messages may be about clients. In other languages than English, no message is known.
const REFUSALS: [&str; 10] = [
    "could not connect to the primary server",
    "streaming replication receiver",
    "could not start WAL streaming",
    "could not receive data from WAL stream",
    "could not receive database system identifier",
    "could not receive timeline history",
    "database system identifier differs",
    "highest timeline",
    "new timeline",
    "terminating walreceiver due to timeout",
];

/// The last of these messages in PostgreSQL's log.
fn last_refusal(log: &str) -> Option<String> {
    let said = |line: &str| {
        // A continuation line begins with a tab. It may be a client's statement.
        let (before, said) = line.split_once("FATAL:  ").or_else(|| line.split_once("LOG:  "))?;
        let own = !before.starts_with('\t') && !before.contains(":  ");
        let known = own && REFUSALS.iter().any(|refusal| said.starts_with(refusal));
        known.then(|| said.chars().filter(|char| !char.is_control()).take(REASON_LENGTH).collect())
    };
    log.lines().rev().find_map(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_a_receiver_is_found_among_those_of_sessions() {
        let refused = "could not start WAL streaming: ERROR:  requested starting point 0/5 is ahead";
        let forked = "new timeline 3 forked off current database system timeline 2 before current recovery point 0/5";
        for (log, expected) in [
            (
                format!("12:00 [7] FATAL:  could not connect to the primary server: x\n12:01 [8] FATAL:  {refused}\n"),
                refused,
            ),
            (format!("12:00 [7] FATAL:  {refused}\r\n12:01 [8] LOG:  {forked}"), forked),
            (
                format!("12:00 [7] FATAL:  {refused}\n12:01 [8] LOG:  replication terminated by primary server\n"),
                refused,
            ),
            (format!("12:00 [7] FATAL:  {refused}\n12:01 [9] FATAL:  role \"primary\" does not exist\n"), refused),
            (format!("12:00 [7] FATAL:  {refused}\n12:01 [9] STATEMENT:  SELECT 'FATAL:  {forked}'\n"), refused),
            (format!("12:00 [7] FATAL:  {refused}\n\tFATAL:  {forked}\n"), refused),
        ] {
            assert_eq!(last_refusal(&log).as_deref(), Some(expected), "{log}");
        }
        for log in [
            "",
            "12:00 [9] FATAL:  role \"app\" does not exist\n",
            "12:00 [7] FATAL:  terminating walreceiver process due to administrator command\n",
        ] {
            assert_eq!(last_refusal(log), None, "{log}");
        }
        let long = format!("FATAL:  {}{}", REFUSALS[0], "ä\u{1b}".repeat(1000));
        assert_eq!(last_refusal(&long).unwrap().chars().count(), REASON_LENGTH);
    }
}
