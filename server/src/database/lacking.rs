//! Whether a standby's primary still has the WAL that the standby needs.
//!
//! A standby that was away for longer than WAL is kept for it tries in vain for ever, and says so in its log alone. So does
//! one that is refused for another reason, which is told as the log has it.

use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus, Primary};

use super::Postgres;
use super::error::Result;
use super::files;
use super::home::lock;
use super::replication::AT_END;
use super::session::{self, PATIENCE, cell, one};
use super::settings::Directions;

/// Between two looks at whether it streams.
const LOOK: Duration = Duration::from_secs(1);

/// A standby that has not streamed for so long, and stands still, may lack something. Its primary is asked as often.
const IDLE: Duration = Duration::from_secs(5);

/// How much of PostgreSQL's log is searched for the reason, in bytes.
const LOG_LENGTH: u64 = 16 << 10;

/// How much of it is told, in characters.
const SAID_LENGTH: usize = 300;

/// The event that the startup process waits in whose receiver is at work, or tries to be.
const RECEIVES: &str = "RecoveryWalStream";

/// Which WAL is gone: at which primary, from where on.
pub(super) type Gone = (Primary, Lsn);

/// A standby that stands still.
struct Idle {
    needs: Gone,
    /// When its primary was asked, or it began.
    asked: Instant,
    /// How long PostgreSQL's log was when it began.
    logged: u64,
}

impl Postgres {
    /// Asks the primary for the WAL that a standby needs which does not stream; ends never.
    pub(super) async fn watch_wal(&self) {
        let mut idle: Option<Idle> = None;
        *lock(&self.held_up) = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let needs = needs(&self.status.borrow(), self.home.directions());
            let now = Instant::now();
            idle = match (needs, idle) {
                (None, _) => None,
                (Some(needs), Some(idle)) if needs == idle.needs => Some(idle),
                (Some(needs), _) => {
                    // What was found belongs to where it stood before.
                    *lock(&self.held_up) = None;
                    Some(Idle { needs, asked: now, logged: files::length(&self.home.log_file()) })
                }
            };
            let Some(Idle { needs: (primary, end), asked, logged }) = &mut idle else {
                *lock(&self.held_up) = None;
                continue;
            };
            if now.duration_since(*asked) < IDLE {
                continue;
            }
            *asked = now;
            // One that replays what it has itself, or whose replay is held up, needs nothing yet, whatever the primary has.
            if !self.waits_for_wal().await.unwrap_or_default() {
                *lock(&self.held_up) = None;
                continue;
            }
            let gone = self.is_gone(primary, *end).await;
            let why = match &gone {
                // It is away, or none any more; or something between the two lets one port through and not the other.
                Err(error) => Some(format!("does not serve it: {}", error.chain())),
                Ok(true) => None,
                // Such as a replication connection that is refused, or a timeline that the primary lacks.
                Ok(false) => Some(format!("answers, but it does not stream from it: {}", self.refusal(*logged))),
            };
            *lock(&self.held_up) = why.map(|why| (primary.clone(), why));
            if let Ok(gone) = gone {
                *lock(&self.gone) = gone.then(|| (primary.clone(), *end));
            }
        }
    }

    /// What PostgreSQL has said of its receiver since its log was so long, or where to look for it.
    fn refusal(&self, logged: u64) -> String {
        let log = self.home.log_file();
        // Where it is shorter now, it has begun anew.
        let news = files::length(&log);
        let news = news.checked_sub(logged).unwrap_or(news);
        let text = files::tail(&log, news.min(LOG_LENGTH));
        last_refusal(&text).unwrap_or_else(|| "PostgreSQL's log on this node says why".into())
    }

    async fn waits_for_wal(&self) -> Result<bool> {
        let waits = session::recovery(&self.session().await?.client).await?.wait;
        Ok(waits.is_some_and(|event| event == AT_END || event == RECEIVES))
    }

    /// Whether this standby waits for WAL from `end` on that `primary` once had and has no more.
    async fn is_gone(&self, primary: &Primary, end: Lsn) -> Result<bool> {
        let client = self.check_identity(primary).await?;
        // The name of the file that has `end` itself; what is asked for ends there. Any timeline's file counts: those that
        // have the same WAL are removed together.
        let sql = format!(
            "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 9) COLLATE \"C\" > wanted.file
                    AND NOT EXISTS (SELECT FROM pg_ls_dir('pg_wal', true, false) AS name
                                     WHERE length(name) = 24 AND substr(name, 9) = wanted.file)
               FROM (SELECT substr(pg_walfile_name('{}'::pg_lsn), 9) AS file) wanted",
            Lsn(end.0 + 1)
        );
        cell(&one(&client, PATIENCE, "look for WAL", &sql).await?, 0)
    }

    /// Shows in the status why WAL does not come, where that is still so.
    pub(super) fn show_gone(&self, status: &mut DatabaseStatus) {
        let needs = needs(status, self.home.directions());
        let held_up = lock(&self.held_up).clone();
        status.hindrance = held_up
            .filter(|(of, _)| needs.as_ref().is_some_and(|(primary, _)| primary == of))
            .map(|(primary, why)| format!("the database of node {}, which it follows, {why}", primary.node));
        let gone = lock(&self.gone).clone();
        let Some((primary, _)) = gone.filter(|gone| needs.as_ref() == Some(gone)) else { return };
        status.lacks_wal = true;
        status.unfit = Some(format!("node {} has no more the WAL that it needs: it must be cloned", primary.node));
    }
}

/// What the receiver ends with where its primary does not serve it, and what the startup process says of a timeline that
/// it cannot go on to. Other messages may tell of clients; in another language than English, none is known.
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

/// The last of these in PostgreSQL's log.
fn last_refusal(log: &str) -> Option<String> {
    let said = |line: &str| {
        // A continued line begins with a tab: it may be a client's statement.
        let (before, said) = line.split_once("FATAL:  ").or_else(|| line.split_once("LOG:  "))?;
        let own = !before.starts_with('\t') && !before.contains(":  ");
        let known = own && REFUSALS.iter().any(|refusal| said.starts_with(refusal));
        known.then(|| said.chars().filter(|char| !char.is_control()).take(SAID_LENGTH).collect())
    };
    log.lines().rev().find_map(said)
}

/// From where on a standby needs WAL that does not stream, and whose.
fn needs(status: &DatabaseStatus, directions: Directions) -> Option<Gone> {
    match directions {
        Directions::Follows(primary) if status.role == DatabaseRole::Standby && !status.streaming => {
            Some((primary, status.lsn?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qluster_consensus::model::{NodeId, Port, Term};

    #[test]
    fn the_last_end_of_a_receiver_is_found_between_those_of_sessions() {
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
        assert_eq!(last_refusal(&long).unwrap().chars().count(), SAID_LENGTH);
    }

    #[test]
    fn only_a_standby_that_follows_and_does_not_stream_needs_wal() {
        let port = Port::new(5432).unwrap();
        let primary = Primary { node: NodeId(1), term: Term(2), ip: [127, 0, 0, 1].into(), port, timeline: 3 };
        let follows = || Directions::Follows(primary.clone());
        for (role, streaming, lsn, directions, expected) in [
            (DatabaseRole::Standby, false, Some(7), follows(), Some(7)),
            (DatabaseRole::Standby, false, None, follows(), None),
            (DatabaseRole::Standby, true, Some(7), follows(), None),
            (DatabaseRole::Standby, false, Some(7), Directions::Fenced, None),
            (DatabaseRole::Primary, false, Some(7), Directions::Leads(String::new()), None),
            (DatabaseRole::Rebuilding, false, Some(7), follows(), None),
        ] {
            let status = DatabaseStatus { streaming, lsn: lsn.map(Lsn), ..DatabaseStatus::unknown(role) };
            let expected = expected.map(|lsn| (primary.clone(), Lsn(lsn)));
            assert_eq!(needs(&status, directions), expected, "{status:?}");
        }
    }
}
