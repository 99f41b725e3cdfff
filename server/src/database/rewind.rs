//! Rewinding a database that has diverged from its primary's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{DatabaseRole, Primary};
use tokio::process::Command;
use tokio::sync::{oneshot, watch};
use tokio_postgres::Client;

use super::control::{Timelines, history_file};
use super::error::{Error, Result};
use super::home::{Home, lock};
use super::programs;
use super::session::{PATIENCE, cell, one};
use super::settings::Directions;
use super::{Postgres, Turn};

/// What pg_rewind says last before it changes anything.
const BEGINS: &str = "need to copy";

/// More than the history of any timeline has, in bytes.
const LONGEST_HISTORY: u32 = 64 * 1024 * 1024;

/// How long the first checkpoint of a promoted primary is waited for.
const CHECKPOINT: Duration = Duration::from_secs(120);

/// What pg_rewind says, or what the primary told it, when it is not the data that it failed for.
const PASSING: [&str; 19] = [
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

/// Shows in the status that the database is being rebuilt, until it is dropped.
pub(super) struct Rebuilding<'a>(&'a Postgres);

impl<'a> Rebuilding<'a> {
    pub(super) fn begin(postgres: &'a Postgres) -> Self {
        let rebuilding = Self(postgres);
        rebuilding.show(None);
        rebuilding
    }

    /// Shows how far it is, in percent.
    pub(super) fn show(&self, percent: Option<u8>) {
        *lock(&self.0.rebuilding) = Some(percent);
        self.0.outdate();
        self.0.status.send_modify(|status| {
            status.role = DatabaseRole::Rebuilding;
            status.streaming = false;
            status.progress = percent;
        });
    }
}

impl Drop for Rebuilding<'_> {
    fn drop(&mut self) {
        *lock(&self.0.rebuilding) = None;
        self.0.outdate();
        self.0.status.send_modify(|status| {
            status.role = if self.0.home.pid().is_some() { DatabaseRole::Starting } else { DatabaseRole::Stopped };
            status.progress = None;
        });
    }
}

/// Keeps the monitor from starting PostgreSQL, until a little after it is dropped: what failed is tried again soon, and
/// data that has diverged is not to be read meanwhile.
pub(super) struct Held<'a>(&'a Postgres);

/// Longer than the pause between two tries.
const HELD: Duration = Duration::from_secs(5);

impl<'a> Held<'a> {
    pub(super) fn begin(postgres: &'a Postgres) -> Self {
        postgres.held.store(true, Ordering::SeqCst);
        Self(postgres)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *lock(&self.0.held_until) = Some(Instant::now() + HELD);
        self.0.held.store(false, Ordering::SeqCst);
    }
}

impl Postgres {
    pub(super) async fn do_rewind(&self, primary: Primary, fork: Lsn) -> Result<()> {
        let turn = self.turn().await;
        if let Some(broken) = self.home.broken() {
            return Err(Error::Hopeless(broken));
        }
        let theirs = self.timelines_of(&primary).await?;
        let rebuilding = Rebuilding::begin(self);
        let done = self.rewind_now(&turn, &primary, &theirs, fork, &rebuilding).await;
        drop(rebuilding);
        self.observe().await;
        done.map_err(|error| judged(error, self.home.broken().is_some()))
    }

    async fn rewind_now(
        &self,
        turn: &Turn,
        primary: &Primary,
        theirs: &Timelines,
        fork: Lsn,
        rebuilding: &Rebuilding<'_>,
    ) -> Result<()> {
        let _held = Held::begin(self);
        if self.may_be_primary(PATIENCE).await {
            self.end(Duration::from_secs(5)).await?;
        } else {
            self.stop_fast().await?;
        }
        let mine = self.blocking(turn, Home::timelines).await?;
        // pg_rewind may recover it alone, which leaves what a primary leaves: what it was is to be known before.
        let known = self.blocking(turn, |home| {
            home.note_strayed()?;
            home.forget_standby()?;
            Ok((home.strayed(), home.has_checkpointed()?))
        });
        let (strayed, has_checkpointed) = known.await?;
        let last_common = mine.last_common(theirs);
        if last_common.is_none_or(|(timeline, _)| timeline != mine.last()) {
            if !has_checkpointed {
                return Err(Error::Hopeless(format!(
                    "it has no checkpoint on its timeline {}, which pg_rewind before version 16 does not see then",
                    mine.last()
                )));
            }
        } else if strayed {
            // Terms do not tell where it parts; a timeline of its own would.
            return Err(Error::Hopeless(format!(
                "somebody else promoted it, and its timeline {} is one of node {}, too",
                mine.last(),
                primary.node
            )));
        }
        // A primary whose promotion another has not heard of, and that one, when it is promoted, choose the same number. To
        // pg_rewind they are one timeline: it would leave what only the first has written, and say that all is well.
        // They may be one all the same: whoever is promoted and lost notes where that was to begin, and may follow on.
        // Of one that somebody else promoted nothing is known by terms.
        if let Some(parts) = mine.part_from(theirs).filter(|parts| strayed || *parts > fork)
            && !self.is_one(turn, primary, last_common).await?
        {
            return Err(Error::Hopeless(format!(
                "it has diverged from node {}, and its timelines do not show that: by their numbers they are the same up to {}",
                primary.node,
                if parts == Lsn(u64::MAX) { "the end".into() } else { parts.to_string() }
            )));
        }
        let home = &self.home;
        let mut command = home.files.accounts.command(&home.programs.path("pg_rewind"));
        command.current_dir(&home.data_dir).arg("--target-pgdata").arg(&home.data_dir).arg("--progress");
        command.arg("--source-server").arg(home.own.connect(primary, &[("dbname", "postgres")]));
        self.run_rewind(turn, command, rebuilding).await?;
        let rewound = self.blocking(turn, Home::timelines).await?;
        if rewound.last() > theirs.last() {
            return Err(Error::Hopeless(format!(
                "pg_rewind left it on timeline {}, that of node {} is {}",
                rewound.last(),
                primary.node,
                theirs.last()
            )));
        }
        // It has copied the primary's settings over ours.
        self.prepare(turn, Directions::Follows(primary.clone())).await?;
        self.blocking(turn, |home| home.forget_past().and_then(|()| home.mark_rewind(false))).await?;
        self.spawn()?;
        Ok(())
    }

    pub(super) async fn do_settle(&self, primary: Primary) -> Result<()> {
        let _turn = self.turn().await;
        let _held = Held::begin(self);
        let rebuilding = Rebuilding::begin(self);
        let done = self.streams_from(&primary).await;
        drop(rebuilding);
        self.observe().await;
        done.map_err(|error| judged(error, false))
    }

    /// Whether a timeline, which begins at some LSN, is the same here and at the primary: by the first record of each, which
    /// says when it was written. Where this has it no more, it is a copy that was made later on; where only the primary has
    /// it no more, that is not known, and no ground to go by.
    async fn is_one(&self, turn: &Turn, primary: &Primary, timeline: Option<(u32, Lsn)>) -> Result<bool> {
        let Some((timeline, begin)) = timeline else { return Ok(false) };
        if timeline <= 1 {
            // That of the database's creation, of which both are copies.
            return Ok(true);
        }
        let mine = self.blocking(turn, move |home| home.wal_at(timeline, begin)).await?;
        let Some((file, offset, mine)) = mine else { return Ok(true) };
        let client = self.connect_to(primary).await?;
        let sql = format!("SELECT pg_read_binary_file('pg_wal/{file}', {offset}, {}, true)", mine.len());
        let row = one(&client, PATIENCE, "read the beginning of the primary's timeline", &sql).await?;
        Ok(cell::<Option<Vec<u8>>>(&row, 0)? == Some(mine))
    }

    /// Runs pg_rewind. Where it ends before it has changed anything, since there is nothing to do or it failed, the data is
    /// as it was, and is a standby's again; also where nobody waits for it any more, which ends it.
    async fn run_rewind(&self, turn: &Turn, command: Command, rebuilding: &Rebuilding<'_>) -> Result<()> {
        let (home, turn) = (self.home.clone(), turn.clone());
        let (_waits, nobody_waits) = oneshot::channel::<()>();
        let (said, mut shown) = watch::channel(None);
        let mut rewind = tokio::spawn(async move {
            let mut begun = false;
            let line = |line: &str| {
                begun |= line.contains(BEGINS);
                if let Some(percent) = percent(line) {
                    said.send_replace(Some(percent));
                }
            };
            let prepared = blocking(home.clone(), |home| {
                home.write_passfile()?;
                home.unmark_standby()?;
                home.mark_rewind(true)
            });
            let rewound = match prepared.await {
                Ok(()) => programs::run_until(command, "pg_rewind", line, async { drop(nobody_waits.await) }).await,
                Err(error) => Err(error),
            };
            if !begun {
                let restored = blocking(home, |home| {
                    home.mark_standby()?;
                    home.mark_rewind(false)
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

    /// The timelines of the primary, once it has checkpointed since its promotion: pg_rewind takes the last from the
    /// control file, and until then finds the one before, and nothing to do.
    async fn timelines_of(&self, primary: &Primary) -> Result<Timelines> {
        let client = self.check_identity(primary).await?;
        let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
        let begun = Instant::now();
        loop {
            let row = one(&client, PATIENCE, "look at the primary's checkpoint", sql).await?;
            let timeline = u32::try_from(cell::<i32>(&row, 0)?).unwrap_or_default();
            if timeline >= primary.timeline {
                return history_of(&client, timeline).await;
            }
            if begun.elapsed() > CHECKPOINT {
                return Err(Error::Unfit(format!("node {} has not checkpointed since its promotion", primary.node)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a started standby is consistent and streams from `primary`.
    pub(super) async fn streams_from(&self, primary: &Primary) -> Result<()> {
        let mut looked = Instant::now();
        loop {
            if self.home.pid().is_none() {
                return Err(Error::Ended { log: self.home.log_tail() });
            }
            if let Ok(session) = self.session().await
                && let Ok(report) = session.report(PATIENCE).await
                && report.streams_with.is_some_and(|conninfo| self.names(&conninfo, primary))
            {
                return Ok(());
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                let log = self.home.log_tail();
                if log.contains("has already been removed") {
                    return Err(Error::Hopeless(format!(
                        "node {} has no more the WAL that this needs: {log}",
                        primary.node
                    )));
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether a receiver with this connection string follows `primary`, in its term.
    pub(super) fn names(&self, conninfo: &str, primary: &Primary) -> bool {
        let name = qluster_consensus::protocol::database::standby_name(self.home.own.node, primary.term);
        let value = |word: &str| Some(word.strip_prefix("application_name=")?.trim_matches('\'').to_owned());
        // As it was set, quoted, after the receiver was asked to go on in another timeline.
        conninfo.split_whitespace().filter_map(value).any(|value| value == name)
    }
}

/// The timelines that led to the one of a primary, by its history file; the first has none.
async fn history_of(client: &Client, timeline: u32) -> Result<Timelines> {
    if timeline <= 1 {
        return Timelines::parse(timeline, "");
    }
    // As pg_rewind reads files, so that whoever may rewind may do this.
    let sql = format!(
        "SELECT convert_from(pg_read_binary_file('pg_wal/{}', 0, {LONGEST_HISTORY}, true), 'UTF8')",
        history_file(timeline)
    );
    let row = one(client, PATIENCE, "read the history of the primary's timeline", &sql).await?;
    let text: Option<String> = cell(&row, 0)?;
    let missing = || Error::Unfit(format!("the primary lacks {}", history_file(timeline)));
    Timelines::parse(timeline, &text.ok_or_else(missing)?)
}

async fn blocking(home: Arc<Home>, work: impl FnOnce(&Home) -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(move || work(&home)).await.map_err(|_| Error::Stopping)?
}

/// A failure of a rewind as its caller is to take it; `broken`: it had changed the data by then. What pg_rewind itself
/// gave as a reason before it began (WAL that is gone, no common ancestor, no checksums) stays one, unless it was the
/// way to the primary. A database that has been rewound and does not run on would not the next time either.
fn judged(error: Error, broken: bool) -> Error {
    match error {
        error if broken => Error::Hopeless(error.chain()),
        Error::Program { ref output, status, .. } if status.code().is_some() && !is_passing(output) => {
            Error::Hopeless(error.chain())
        }
        Error::Ended { .. } => Error::Hopeless(error.chain()),
        error => error,
    }
}

fn is_passing(output: &str) -> bool {
    let output = output.to_ascii_lowercase();
    PASSING.iter().any(|said| output.contains(said))
}

/// The percentage in a line that pg_rewind or pg_basebackup says: `123/456 kB (26%) copied`.
pub(super) fn percent(line: &str) -> Option<u8> {
    let before = &line[..line.find("%)")?];
    let number = &before[before.rfind('(')? + 1..];
    number.trim().parse::<u8>().ok().map(|percent| percent.min(100))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_rewind_that_cannot_work_is_hopeless() {
        use std::os::unix::process::ExitStatusExt;
        let said = |output: &str, status| Error::Program {
            program: "pg_rewind".into(),
            status: std::process::ExitStatus::from_raw(status),
            output: output.into(),
        };
        let (failed, killed) = (1 << 8, 9);
        let unanswered = || Error::Unanswered { attempted: "answer", within: PATIENCE };
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
            // It had begun.
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

    #[test]
    fn percentages_are_read_from_what_the_programs_say() {
        for (line, expected) in [
            ("30480/30480 kB (100%), 1/1 tablespace", Some(100)),
            ("    0/30480 kB (0%), 0/1 tablespace (/x/base/1)", Some(0)),
            ("  12345/ 67890 kB (18%) copied", Some(18)),
            ("1/1 kB (108%)", Some(100)),
            ("pg_basebackup: checkpoint completed", None),
            ("%)", None),
            ("(x%)", None),
        ] {
            assert_eq!(percent(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "(\\PC|%\\)|\\(){0,20}") {
            let _ = percent(&line);
        }
    }
}
