//! Fencing and demoting.

use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use rustix::process::Signal;

use super::{AT_END_OF_WAL, CHECK_PERIOD};
use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, is_starting, within};
use crate::database::sessions::report::{self, Session};
use crate::database::sessions::settings::check_files;
use crate::formats::directions::Directions;
use crate::formats::hba::Access;
use crate::os::process;

/// A standby that has not loaded new directions after this time may be unable to load them.
const USUAL_LOAD_TIME: Duration = Duration::from_millis(500);

/// How often the startup process must go to sleep after it was woken, until it is certain that it has read all WAL.
const SLEEPS: u64 = 3;

impl Postgres {
    pub(crate) async fn do_fence(&self, deadline: Duration) -> Result<Lsn> {
        let begun = Instant::now();
        // Before it waits for the turn: whoever holds that, a primary has to end in time.
        if self.may_be_primary(deadline / 2).await {
            self.restart_hold.hold();
            self.end(deadline.saturating_sub(begun.elapsed())).await?;
        }
        let turn = self.turn().await;
        if self.data_dir.postmaster.pid().is_none() {
            self.start(&turn, Directions::Fenced).await?;
        } else {
            self.direct(&turn, Directions::Fenced, Some(Access::Open)).await?;
        }
        self.restart_hold.release();
        let session = self.answering().await?;
        let lsn = self.end_of_wal(&session).await?;
        self.observe().await;
        Ok(lsn)
    }

    pub(crate) async fn do_demote(&self, deadline: Duration) -> Result<()> {
        let begun = Instant::now();
        if self.may_be_primary(deadline / 2).await {
            self.restart_hold.hold();
            self.end(deadline.saturating_sub(begun.elapsed())).await?;
        }
        Ok(())
    }

    /// Whether PostgreSQL runs and is, or is becoming, a primary. If it does not answer within `timeout`, it may be one, unless
    /// it is starting: it is only started as a standby.
    pub(super) async fn may_be_primary(&self, timeout: Duration) -> bool {
        if self.data_dir.postmaster.is_gone() {
            return false;
        }
        // This is so during a promotion, too.
        if self.may_lead() {
            return true;
        }
        let ask = async { self.sessions.session().await?.report(timeout).await };
        match tokio::time::timeout(timeout, ask).await {
            Ok(Ok(report)) if report.in_recovery => false,
            Ok(Ok(_)) => {
                self.data_dir.marks.see_primary();
                true
            }
            Ok(Err(error)) => is_starting(&error).is_none() && !self.data_dir.postmaster.is_just_started(),
            Err(_) => true,
        }
    }

    /// Waits until a standby that follows nobody has replayed all its WAL. Returns the end of the WAL.
    ///
    /// A replay that stands still proves nothing: it may be about to read on. `pg_last_wal_receive_lsn()` proves nothing: it
    /// counts a record that was received in part. The startup process also falls asleep because its WAL receiver ended,
    /// without having read what the receiver wrote last. So the startup process is woken. If it finds nothing and goes to
    /// sleep again, it has read everything. It is woken a few times, since it may have been about to sleep at first.
    async fn end_of_wal(&self, session: &Session) -> Result<Lsn> {
        let mut since: Option<(Lsn, i32, u64)> = None;
        let mut look_at = Instant::now() + USUAL_LOAD_TIME;
        loop {
            let now = report::recovery(&session.client).await?;
            if !now.conninfo.is_empty() && Instant::now() > look_at {
                check_files(&session.client).await?;
                look_at = Instant::now() + USUAL_LOAD_TIME;
            }
            if !now.in_recovery {
                return Err(Error::Unfit("it is a primary without having been told to be one".into()));
            }
            if now.pause {
                let resume = session.client.batch_execute("SELECT pg_wal_replay_resume()");
                within(QUERY_TIMEOUT, "resume its replay", resume).await?;
            }
            if let Some(receiver) = now.idle_receiver
                && now.conninfo.is_empty()
            {
                // PostgreSQL leaves this receiver there for ever if it follows nobody. If it follows another primary later,
                // the receiver would continue: over its connection to the old primary, under its old name.
                process::signal(receiver, Signal::TERM)?;
            }
            let waits = now.wait.as_deref() == Some(AT_END_OF_WAL) && now.receivers == 0 && now.conninfo.is_empty();
            let sleeps = now.startup.and_then(process::sleeps);
            match (now.replayed, now.startup, sleeps) {
                (Some(end), Some(startup), Some(sleeps)) if waits => {
                    match since {
                        Some((lsn, same, first)) if lsn == end && same == startup => {
                            if sleeps >= first + SLEEPS {
                                return Ok(end);
                            }
                        }
                        _ => since = Some((end, startup, sleeps)),
                    }
                    process::signal(startup, Signal::HUP)?;
                }
                // It reads or replays. If it reports another end, the count begins again.
                (_, Some(_), _) if now.receivers == 0 => {}
                _ => since = None,
            }
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }
}
