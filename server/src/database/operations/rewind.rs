//! Rewinding a database that has diverged from its primary's (PostgreSQL's documentation, "pg_rewind").

use std::sync::Arc;
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::Primary;
use tokio::process::Command;
use tokio::sync::{oneshot, watch};
use tokio_postgres::Client;

use super::rebuild::{Held, Rebuilding, percent};
use crate::database::data_dir::DataDir;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, one};
use crate::database::{Postgres, Turn};
use crate::formats::directions::Directions;
use crate::formats::timelines::{Timelines, history_file};
use crate::os;
use crate::os::run;

/// A part of the last line that pg_rewind writes before it changes anything.
const LAST_BEFORE_CHANGES: &str = "need to copy";

/// More than the length of any timeline history, in bytes.
const MAX_HISTORY_LENGTH: u32 = 64 * 1024 * 1024;

/// How long to wait for the first checkpoint of a promoted primary, and how often to look for it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(120);
const CHECKPOINT_PERIOD: Duration = Duration::from_millis(50);

/// Messages of pg_rewind, or of the primary, when it did not fail because of the data. Another try may succeed.
const PASSING_FAILURES: [&str; 19] = [
    "could not connect",
    "connection to server",
    "no connection to the server",
    "connection not open",
    "server closed the connection",
    "connection has been closed",
    "terminating connection",
    "could not receive data",
    "could not send",
    "connection refused",
    "connection reset",
    "connection timed out",
    "timeout expired",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "the database system is",
    "source server must not be in recovery",
    "canceling statement",
];

impl Postgres {
    pub(crate) async fn do_rewind(&self, primary: Primary, fork: Lsn) -> Result<()> {
        let turn = self.turn().await;
        if let Some(broken) = self.data_dir.marks.broken() {
            return Err(Error::Hopeless(broken));
        }
        let theirs = self.timelines_of(&primary).await?;
        let rebuilding = Rebuilding::begin(self);
        let done = self.rewind_now(&turn, &primary, &theirs, fork, &rebuilding).await;
        drop(rebuilding);
        self.observe().await;
        done.map_err(|error| judged(error, self.data_dir.marks.broken().is_some()))
    }

    async fn rewind_now(
        &self,
        turn: &Turn,
        primary: &Primary,
        theirs: &Timelines,
        fork: Lsn,
        rebuilding: &Rebuilding<'_>,
    ) -> Result<()> {
        let _held = Held::begin(&self.restart_hold);
        self.stop_for_rebuild().await?;
        let mine = self.blocking(turn, |data_dir| data_dir.control.timelines()).await?;
        // Before pg_rewind: that may recover the database alone, and then the control file is like that of a primary.
        let known = self.blocking(turn, |data_dir| {
            data_dir.note_strayed()?;
            data_dir.marks.forget_standby()?;
            Ok((data_dir.marks.strayed(), data_dir.control.has_checkpointed()?))
        });
        let (strayed, has_checkpointed) = known.await?;
        let last_common = mine.last_common(theirs);
        if last_common.is_none_or(|(timeline, _)| timeline != mine.last()) {
            if !has_checkpointed {
                return Err(Error::Hopeless(format!(
                    "it has no checkpoint on its timeline {}, so that pg_rewind before version 16 does not see this timeline",
                    mine.last()
                )));
            }
        } else if strayed {
            // Terms do not say where it diverged. Only a timeline of its own would.
            return Err(Error::Hopeless(format!(
                "somebody else promoted it, and its timeline {} is also one of node {}",
                mine.last(),
                primary.node
            )));
        }
        // If a node is promoted that has not heard of another's promotion, both choose the same number for their timelines.
        // For pg_rewind they are one timeline: it would keep what only the first has written, and report success.
        // They may really be one timeline: a node that was promoted, and lost its lease, has noted where its term was to
        // begin, and may simply follow. About a database that somebody else promoted, terms say nothing.
        if let Some(parts) = mine.part_from(theirs).filter(|parts| strayed || *parts > fork)
            && !self.is_one(turn, primary, last_common).await?
        {
            return Err(Error::Hopeless(format!(
                "it has diverged from node {}, but its timelines do not show that: their numbers are the same up to {}",
                primary.node,
                if parts == Lsn(u64::MAX) { "the end".into() } else { parts.to_string() }
            )));
        }
        let data_dir = &self.data_dir;
        let mut command = data_dir.files.accounts.command(&data_dir.programs.path("pg_rewind"));
        command.current_dir(&data_dir.path).arg("--target-pgdata").arg(&data_dir.path).arg("--progress");
        command.arg("--source-server").arg(data_dir.own.connect(primary, &[("dbname", "postgres")]));
        self.run_rewind(turn, command, rebuilding).await?;
        let rewound = self.blocking(turn, |data_dir| data_dir.control.timelines()).await?;
        if rewound.last() > theirs.last() {
            return Err(Error::Hopeless(format!(
                "pg_rewind left it on timeline {}, that of node {} is {}",
                rewound.last(),
                primary.node,
                theirs.last()
            )));
        }
        // pg_rewind has replaced our settings by the primary's.
        self.prepare(turn, Directions::Follows(primary.clone())).await?;
        let noted = self.blocking(turn, |data_dir| {
            data_dir.marks.forget_past()?;
            data_dir.marks.end_rewind()
        });
        noted.await?;
        self.spawn()
    }

    pub(crate) async fn do_settle(&self, primary: Primary) -> Result<()> {
        let _turn = self.turn().await;
        let _held = Held::begin(&self.restart_hold);
        let rebuilding = Rebuilding::begin(self);
        let done = self.streams_from(&primary).await;
        drop(rebuilding);
        self.observe().await;
        done.map_err(|error| judged(error, false))
    }

    /// Whether a timeline, which begins at some LSN, is the same here and at the primary. The first record of a timeline says
    /// when it was written, so equal first records mean one timeline. If this database does not have the record any more, it
    /// is a copy that was made later: true. If only the primary does not have it any more, nothing is known: false.
    async fn is_one(&self, turn: &Turn, primary: &Primary, timeline: Option<(u32, Lsn)>) -> Result<bool> {
        let Some((timeline, begin)) = timeline else { return Ok(false) };
        if timeline <= 1 {
            // It began when the database was created, and both are copies of that database.
            return Ok(true);
        }
        let mine = self.blocking(turn, move |data_dir| data_dir.control.wal_at(timeline, begin)).await?;
        let Some((file, offset, mine)) = mine else { return Ok(true) };
        let client = self.connect_to(primary).await?;
        let sql = format!("SELECT pg_read_binary_file('pg_wal/{file}', {offset}, {}, true)", mine.len());
        let row = one(&client, QUERY_TIMEOUT, "read the beginning of the primary's timeline", &sql).await?;
        Ok(cell::<Option<Vec<u8>>>(&row, 0)? == Some(mine))
    }

    /// Runs pg_rewind. If it ends before it has changed anything (there is nothing to do, or it failed), the data are as before,
    /// and start as a standby again. That also holds if nobody waits for the result any more, which ends pg_rewind.
    async fn run_rewind(&self, turn: &Turn, command: Command, rebuilding: &Rebuilding<'_>) -> Result<()> {
        let (data_dir, turn) = (self.data_dir.clone(), turn.clone());
        let (_waits, nobody_waits) = oneshot::channel::<()>();
        let (said, mut shown) = watch::channel(None);
        let mut rewind = tokio::spawn(async move {
            let mut begun = false;
            let line = |line: &str| {
                begun |= line.contains(LAST_BEFORE_CHANGES);
                if let Some(percent) = percent(line) {
                    said.send_replace(Some(percent));
                }
            };
            let prepared = blocking(data_dir.clone(), |data_dir| {
                data_dir.passwords.write_passfile()?;
                data_dir.remove_standby_signal()?;
                data_dir.marks.begin_rewind()
            });
            let rewound = match prepared.await {
                Ok(()) => {
                    let stop = async { drop(nobody_waits.await) };
                    run::run_until(command, "pg_rewind", line, stop).await.map_err(Error::from)
                }
                Err(error) => Err(error),
            };
            if !begun {
                let restored = blocking(data_dir, |data_dir| {
                    data_dir.create_standby_signal()?;
                    data_dir.marks.end_rewind()
                });
                restored.await?;
            }
            drop(turn);
            rewound.map(drop)
        });
        loop {
            tokio::select! {
                rewound = &mut rewind => return rewound.map_err(|_| Error::Stopping)?,
                Ok(()) = shown.changed() => rebuilding.show(*shown.borrow_and_update()),
            }
        }
    }

    /// The timelines of the primary, after its first checkpoint since its promotion. pg_rewind takes the last timeline from the
    /// control file: before that checkpoint it would find the one before, and nothing to do.
    async fn timelines_of(&self, primary: &Primary) -> Result<Timelines> {
        let client = self.check_identity(primary).await?;
        let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
        let begun = Instant::now();
        loop {
            let row = one(&client, QUERY_TIMEOUT, "look at the primary's checkpoint", sql).await?;
            let timeline = u32::try_from(cell::<i32>(&row, 0)?).unwrap_or_default();
            if timeline >= primary.timeline {
                return history_of(&client, timeline).await;
            }
            if begun.elapsed() > CHECKPOINT_TIMEOUT {
                return Err(Error::Unfit(format!("node {} has not checkpointed since its promotion", primary.node)));
            }
            tokio::time::sleep(CHECKPOINT_PERIOD).await;
        }
    }
}

/// A timeline of a primary with its ancestors, by its history file. The first timeline has no such file.
async fn history_of(client: &Client, timeline: u32) -> Result<Timelines> {
    if timeline <= 1 {
        return Ok(Timelines::parse(timeline, "")?);
    }
    // By the same function as pg_rewind: so the replication role may call it.
    let sql = format!(
        "SELECT convert_from(pg_read_binary_file('pg_wal/{}', 0, {MAX_HISTORY_LENGTH}, true), 'UTF8')",
        history_file(timeline)
    );
    let row = one(client, QUERY_TIMEOUT, "read the history of the primary's timeline", &sql).await?;
    let text: Option<String> = cell(&row, 0)?;
    let missing = || Error::Unfit(format!("the primary lacks {}", history_file(timeline)));
    Ok(Timelines::parse(timeline, &text.ok_or_else(missing)?)?)
}

async fn blocking(data_dir: Arc<DataDir>, work: impl FnOnce(&DataDir) -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(move || work(&data_dir)).await.map_err(|_| Error::Stopping)?
}

/// A failure of a rewind, as its caller has to take it. `broken`: pg_rewind had changed the data by then. A reason that
/// pg_rewind gave before it changed anything (WAL that is gone, no common ancestor, no checksums) will be there the next time,
/// too, unless it was the connection to the primary. A database that was rewound and ended would end the next time, too.
fn judged(error: Error, broken: bool) -> Error {
    match error {
        error if broken => Error::Hopeless(error.chain()),
        Error::Os(os::Error::Program { ref output, status, .. }) if status.code().is_some() && !is_passing(output) => {
            Error::Hopeless(error.chain())
        }
        Error::Ended { .. } => Error::Hopeless(error.chain()),
        error => error,
    }
}

fn is_passing(output: &str) -> bool {
    let output = output.to_ascii_lowercase();
    PASSING_FAILURES.iter().any(|said| output.contains(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rewind_that_cannot_work_is_hopeless() {
        use std::os::unix::process::ExitStatusExt;
        let said = |output: &str, status| {
            let (program, status) = ("pg_rewind".into(), std::process::ExitStatus::from_raw(status));
            Error::Os(os::Error::Program { program, status, output: output.into() })
        };
        let (failed, killed) = (1 << 8, 9);
        let unanswered = || Error::Unanswered { attempted: "answer", within: QUERY_TIMEOUT };
        for (error, broken, expected) in [
            (said("could not find common ancestor of the source and target cluster's timelines", failed), false, true),
            (said("could not open file \"/x/pg_wal/000000010000000000000003\": No such file", failed), false, true),
            (said("target server needs to use either data checksums or \"wal_log_hints = on\"", failed), false, true),
            (said("connection to server at \"::1\", port 1 failed: Connection refused", failed), false, false),
            (said("could not connect to server: FATAL:  sorry, too many clients already", failed), false, false),
            (said("FATAL:  the database system is shutting down", failed), false, false),
            (said("FATAL:  terminating connection due to administrator command", failed), false, false),
            (said("source server must not be in recovery mode", failed), false, false),
            (said("", killed), false, false),
            // It had changed the data.
            (said("server closed the connection unexpectedly", failed), true, true),
            (said("", killed), true, true),
            (unanswered(), true, true),
            (unanswered(), false, false),
            (Error::Unfit("node 1 has not checkpointed since its promotion".into()), false, false),
            (Error::Ended { log: "PANIC".into() }, false, true),
        ] {
            let text = error.chain();
            assert_eq!(matches!(judged(error, broken), Error::Hopeless(_)), expected, "{text}, broken: {broken}");
        }
    }
}
