//! Fencing, demoting, promoting and following.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{Primary, Promotion, SyncRule};
use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::error::{Error, Result};
use super::hba::Access;
use super::session::{self, PATIENCE, Session, To, cell, one, within};
use super::settings::{Directions, ROLE};
use super::{Postgres, drift, process};

/// Between two looks at what takes milliseconds.
pub(super) const STEP: Duration = Duration::from_millis(3);

/// How often the checkpoint after a promotion is tried, which may find all connections taken, and after what time.
const CHECKPOINTS: u32 = 10;
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(2);

/// The event that a standby which has reached the end of its WAL, and has no receiver, waits in.
pub(super) const AT_END: &str = "RecoveryRetrieveRetryInterval";

/// A standby that still has other directions after this time may not be able to load ours.
const UNLOADED: Duration = Duration::from_millis(500);

impl Postgres {
    pub(super) async fn do_fence(&self, deadline: Duration) -> Result<Lsn> {
        let begun = Instant::now();
        // Before the turn: whatever holds it, a primary has to end in time.
        if self.may_be_primary(deadline / 2).await {
            self.held.store(true, Ordering::SeqCst);
            self.end(deadline.saturating_sub(begun.elapsed())).await?;
        }
        let turn = self.turn().await;
        if self.home.pid().is_none() {
            self.start(&turn, Directions::Fenced).await?;
        } else {
            self.direct(&turn, Directions::Fenced, Some(Access::Open)).await?;
        }
        self.held.store(false, Ordering::SeqCst);
        let session = self.answering().await?;
        let lsn = self.end_of_wal(&session).await?;
        self.observe().await;
        Ok(lsn)
    }

    pub(super) async fn do_demote(&self, deadline: Duration) -> Result<()> {
        let begun = Instant::now();
        if self.may_be_primary(deadline / 2).await {
            self.held.store(true, Ordering::SeqCst);
            self.end(deadline.saturating_sub(begun.elapsed())).await?;
        }
        Ok(())
    }

    /// Whether PostgreSQL runs and is, or is becoming, a primary. Whoever does not answer in time may be one, other
    /// than one that is starting: it is started as a standby only.
    pub(super) async fn may_be_primary(&self, patience: Duration) -> bool {
        if self.home.pid().is_none() && self.home.processes().is_empty() {
            return false;
        }
        // Also while a promotion is on its way.
        if matches!(self.home.directions(), Directions::Leads(_)) {
            return true;
        }
        let ask = async { self.session().await?.report(patience).await };
        match tokio::time::timeout(patience, ask).await {
            Ok(Ok(report)) if report.in_recovery => false,
            Ok(Ok(_)) => {
                self.home.see_primary();
                true
            }
            Ok(Err(error)) => session::is_starting(&error).is_none() && !self.is_just_started(),
            Err(_) => true,
        }
    }

    /// Whether the postmaster has no socket yet.
    fn is_just_started(&self) -> bool {
        let path = self.home.data_dir.join("postmaster.pid");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        process::PidFile::parse(&text).is_none_or(|file| file.socket_dir.is_none())
    }

    /// Waits until a standby that was told to follow nobody has replayed all that it has, and answers with its end.
    ///
    /// Neither a replay that stands still nor `pg_last_wal_receive_lsn()` tells: the first may be about to read on,
    /// the second counts a record that was received in part. The startup process also falls asleep because its receiver
    /// ended, without having looked at what that wrote last. So it is woken: it has read to the end when it finds
    /// nothing and goes to sleep again. It is woken a few times, as it may have been just about to sleep.
    async fn end_of_wal(&self, session: &Session) -> Result<Lsn> {
        let mut since: Option<(Lsn, i32, u64)> = None;
        let mut look_at = Instant::now() + UNLOADED;
        loop {
            let now = session::recovery(&session.client).await?;
            if !now.conninfo.is_empty() && Instant::now() > look_at {
                drift::check(&session.client).await?;
                look_at = Instant::now() + UNLOADED;
            }
            if !now.in_recovery {
                return Err(Error::Unfit("it is a primary, which it was not told to be".into()));
            }
            if now.pause {
                let resume = session.client.batch_execute("SELECT pg_wal_replay_resume()");
                within(PATIENCE, "resume its replay", resume).await?;
            }
            if let Some(receiver) = now.idle_receiver
                && now.conninfo.is_empty()
            {
                // PostgreSQL leaves it there for ever where it is to follow nobody, and has it go on where it is to follow
                // another: over its connection to the primary of before, under its name of then.
                process::signal(receiver, Signal::TERM)?;
            }
            let waits = now.wait.as_deref() == Some(AT_END) && now.receivers == 0 && now.conninfo.is_empty();
            let sleeps = now.startup.and_then(process::sleeps);
            match (now.replayed, now.startup, sleeps) {
                (Some(end), Some(startup), Some(sleeps)) if waits => {
                    match since {
                        Some((lsn, same, first)) if lsn == end && same == startup => {
                            if sleeps >= first + 3 {
                                return Ok(end);
                            }
                        }
                        _ => since = Some((end, startup, sleeps)),
                    }
                    process::signal(startup, Signal::HUP)?;
                }
                // It reads or replays; once it shows another end, the count begins anew.
                (_, Some(_), _) if now.receivers == 0 => {}
                _ => since = None,
            }
            tokio::time::sleep(STEP).await;
        }
    }

    pub(super) async fn do_promote(&self, rule: SyncRule) -> Result<Promotion> {
        let turn = self.turn().await;
        if self.home.pid().is_none() {
            return Err(Error::Unfit("it does not run".into()));
        }
        let _guarded = self.guarded().await?;
        let session = self.answering().await?;
        if session.report(PATIENCE).await?.in_recovery {
            if let Directions::Follows(primary) = self.home.directions() {
                return Err(Error::Unfit(format!("it follows node {}: it must be fenced first", primary.node)));
            }
            let (shut, ()) = tokio::join!(self.shut_out(&turn, &session, &rule), self.slots_for(&session, &rule));
            shut?;
            within(PATIENCE, "promote it", session.client.batch_execute("SELECT pg_promote(false)")).await?;
            while session.report(PATIENCE).await.is_ok_and(|report| report.in_recovery) {
                tokio::time::sleep(STEP).await;
            }
        } else {
            self.change_rule(&turn, &session, &rule).await?;
        }
        let report = session.report(PATIENCE).await?;
        let timeline = match report.timeline {
            Some(timeline) if !report.in_recovery => timeline,
            _ => return Err(Error::Odd { what: "report of a promoted database", text: format!("{report:?}") }),
        };
        let start = self.blocking(&turn, move |home| {
            // Whoever starts it next, even unasked, starts a standby.
            home.mark_standby()?;
            let past = home.past_of(timeline)?;
            Ok(if home.strayed() { past.begin_of_parent() } else { past.begin_of_last() })
        });
        let start = start.await?;
        self.create_role(&session).await?;
        self.checkpoint();
        self.outdate();
        self.observe().await;
        tracing::info!(timeline, %start, "promoted PostgreSQL");
        Ok(Promotion { timeline, start })
    }

    /// Checkpoints (a standby: makes a restartpoint) without keeping anybody waiting: with much memory that takes long. Nobody
    /// depends on it but a rewind, which looks for itself, and what waits for room on the disk. The task goes on by itself.
    pub(super) fn checkpoint(&self) -> Option<JoinHandle<()>> {
        let own = &self.home.own;
        let (dir, port) = (own.socket_dir.clone(), own.port.get());
        let user = self.superuser.get().cloned()?;
        Some(tokio::spawn(async move {
            let checkpoint = async || {
                let client = session::connect_own(&dir, port, &user, To::Act).await?;
                let done = client.batch_execute("CHECKPOINT").await;
                done.map_err(|source| Error::Query { attempted: "checkpoint", source })
            };
            // Without it the next one of PostgreSQL's own is waited for, which rewinds wait for in vain. Another postmaster
            // at this place, should this one have ended meanwhile, is not harmed by a restartpoint.
            for _ in 0..CHECKPOINTS {
                match checkpoint().await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(error = error.chain(), "a checkpoint failed"),
                }
                tokio::time::sleep(BETWEEN_CHECKPOINTS).await;
            }
        }))
    }

    /// Creates the role that standbys connect as, with what pg_rewind needs, or brings it up to date.
    async fn create_role(&self, session: &Session) -> Result<()> {
        let mut sql = format!(
            "DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                 CREATE ROLE {ROLE} LOGIN REPLICATION;
               ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}' AND rolcanlogin AND rolreplication) THEN
                 ALTER ROLE {ROLE} LOGIN REPLICATION;
               END IF;
               IF NOT pg_has_role('{ROLE}', 'pg_read_all_settings', 'member') THEN
                 GRANT pg_read_all_settings TO {ROLE};
               END IF;
               IF NOT pg_has_role('{ROLE}', 'pg_read_all_stats', 'member') THEN
                 GRANT pg_read_all_stats TO {ROLE};
               END IF;\n"
        );
        for function in [
            "pg_ls_dir(text,boolean,boolean)",
            "pg_stat_file(text,boolean)",
            "pg_read_binary_file(text)",
            "pg_read_binary_file(text,bigint,bigint,boolean)",
        ] {
            sql += &format!(
                "IF NOT has_function_privilege('{ROLE}', 'pg_catalog.{function}', 'execute') THEN
                   GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {ROLE};
                 END IF;\n"
            );
        }
        sql += "END $$;";
        within(Duration::from_secs(10), "create the replication role", session.client.batch_execute(&sql)).await?;
        self.set_first_password(session).await
    }

    pub(super) async fn do_follow(&self, primary: Primary) -> Result<()> {
        let turn = self.turn().await;
        if self.home.pid().is_none() {
            return Err(Error::Unfit("it does not run".into()));
        }
        if self.may_be_primary(PATIENCE).await {
            return Err(Error::Unfit("it is, or may be, a primary: it must be fenced first".into()));
        }
        // One that does not answer yet is not known to be on another.
        if let Ok(session) = self.session().await
            && let Ok(Some(timeline)) = session.report(PATIENCE).await.map(|report| report.timeline)
            && timeline > primary.timeline
        {
            let Primary { node, timeline: theirs, .. } = primary;
            return Err(Error::Hopeless(format!("its WAL is on timeline {timeline}, that of node {node} on {theirs}")));
        }
        self.direct(&turn, Directions::Follows(primary.clone()), Some(Access::Open)).await?;
        self.held.store(false, Ordering::SeqCst);
        // The receiver refuses another database as well, each time that it connects; it just does not tell people.
        let short = Duration::from_millis(500);
        match tokio::time::timeout(short, self.check_identity(&primary)).await {
            Ok(Err(error @ Error::Unfit(_))) => {
                self.direct(&turn, Directions::Fenced, Some(Access::Open)).await?;
                return Err(error);
            }
            // It may take another password than the primary before.
            Ok(Ok(_)) => self.blocking(&turn, |home| home.write_passfile()).await?,
            _ => {}
        }
        self.observe().await;
        Ok(())
    }

    /// Connects to a primary, and refuses one that is no copy of the same database.
    pub(super) async fn check_identity(&self, primary: &Primary) -> Result<tokio_postgres::Client> {
        let own = self.system_identifier().await?;
        let client = self.connect_to(primary).await?;
        let sql = "SELECT system_identifier::text FROM pg_control_system()";
        let row = one(&client, PATIENCE, "identify the primary", sql).await?;
        let theirs: String = cell(&row, 0)?;
        if own == theirs {
            return Ok(client);
        }
        let node = primary.node;
        Err(Error::Unfit(format!("the database of node {node} is another one: {theirs}, this one is {own}")))
    }
}
