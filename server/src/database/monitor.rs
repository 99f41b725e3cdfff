//! Keeping the status fresh, and PostgreSQL running.
//!
//! One loop: the end of the postmaster is noticed at once, its state asked for every [`POLL`]. A PostgreSQL that ended
//! unasked is started again, as a standby, by whoever has the turn: an operation under way does what it was told.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus};
use tokio::task::JoinHandle;

use super::Postgres;
use super::drift::Drift;
use super::error::{Error, Result};
use super::home::lock;
use super::process;
use super::session::{self, PATIENCE, Report};
use super::settings::Directions;
use super::staging::Contents;

/// Between two questions to PostgreSQL.
const POLL: Duration = Duration::from_millis(250);

/// Between two looks at the user's files, in polls.
const ACCESS: u32 = 8;

/// Between two checkpoints that are to free the disk, at least.
const FREE: Duration = Duration::from_secs(30);

/// Who ran for this long is not one that keeps dying.
const STABLE: Duration = Duration::from_secs(60);

/// The longest pause between two starts.
const LONGEST: Duration = Duration::from_secs(30);

/// Between two looks at what does not run.
const IDLE: Duration = Duration::from_millis(100);

/// When to start again what ended.
#[derive(Debug, Default)]
struct Backoff {
    /// Before the start after the next early end.
    pause: Duration,
    /// Since when it runs.
    started: Option<Instant>,
    /// When it may be started again.
    until: Option<Instant>,
}

impl Backoff {
    /// Takes note that it does not run: after a long life it may be started at once, after ever more short ones ever
    /// later. An end counts once.
    fn ended(&mut self, now: Instant) {
        let Some(started) = self.started.take() else { return };
        let young = now.duration_since(started) < STABLE;
        self.until = Some(now + if young { self.pause } else { Duration::ZERO });
        self.pause = if young { (self.pause * 2).clamp(Duration::from_millis(500), LONGEST) } else { Duration::ZERO };
    }

    /// How long to wait before the next start.
    fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

impl Postgres {
    /// Keeps the status fresh and PostgreSQL running, for ever. What does not run is started as a fenced standby,
    /// unless it was stopped on purpose.
    pub async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut first = true;
        let mut fast = false;
        loop {
            let mut changes = self.epoch.subscribe();
            let Some(pid) = self.home.pid() else {
                backoff.ended(Instant::now());
                if !first && !fast {
                    let _ = tokio::time::timeout(IDLE, changes.changed()).await;
                }
                fast = false;
                self.restart(&mut backoff, first).await;
                first = false;
                self.observe().await;
                continue;
            };
            first = false;
            backoff.started.get_or_insert_with(Instant::now);
            tokio::select! {
                () = self.watch(pid) => {}
                () = self.watch_wal() => {}
            }
            self.outdate();
            self.drop_session();
            self.observe().await;
            fast = true;
        }
    }

    /// Observes a postmaster until it ends.
    async fn watch(&self, pid: i32) {
        let mut ended = pin!(process::ended(pid));
        let mut access = None;
        let mut drift = Drift::default();
        let mut freed = None;
        let mut frees: Option<JoinHandle<()>> = None;
        let mut count = 0;
        loop {
            tokio::select! {
                () = &mut ended => return,
                () = self.observe() => {}
            }
            // One that takes long must not be joined by others, each with a session of its own.
            let due = freed.is_none_or(|at: Instant| at.elapsed() > FREE)
                && frees.as_ref().is_none_or(JoinHandle::is_finished);
            if due && lock(&self.full).contains(&true) {
                // A standby keeps WAL until its next restartpoint, with a file of its own for each timeline. That comes by time
                // or by how much was written, and not because there is no room.
                tracing::info!("the disk is full: a checkpoint may remove WAL that is not needed");
                freed = Some(Instant::now());
                frees = self.checkpoint();
            }
            self.keep_rule(&mut drift).await;
            self.note_standby().await;
            if count % ACCESS == 0 {
                let changed = self.home.access_changed();
                // Also at first: they may have changed while no agent ran.
                if access != Some(changed) && self.reload_access().await {
                    access = Some(changed);
                }
                self.look_at_settings().await;
                self.look_at_commits().await;
                self.look_at_replay().await;
                self.limit_log().await;
            }
            count += 1;
            tokio::select! {
                () = &mut ended => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Takes note, once, that PostgreSQL runs as a standby. Where it is found as a primary later on and was not told to be
    /// one, somebody else has promoted it.
    async fn note_standby(&self) {
        let is_standby = self.status.borrow().role == DatabaseRole::Standby;
        if !is_standby || self.home.stood_by() || self.may_lead() {
            return;
        }
        let epoch = *self.epoch.borrow();
        let is_standby = self.ask().await.is_ok_and(|report| report.in_recovery);
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        // What it is told, and which postmaster runs, has not changed, and does not now.
        if !is_standby || self.may_lead() || *self.epoch.borrow() != epoch {
            return;
        }
        if let Err(error) = self.blocking(&Arc::new(turn), |home| home.note_standby()).await {
            tracing::debug!(error = error.chain(), "that PostgreSQL is a standby could not be noted");
        }
    }

    /// Starts PostgreSQL where it ended unasked, or never ran.
    async fn restart(&self, backoff: &mut Backoff, first: bool) {
        let held = || {
            let until = *lock(&self.held_until);
            self.held.load(Ordering::SeqCst) || until.is_some_and(|until| Instant::now() < until)
        };
        let wanted = || !held() && matches!(self.home.contents(), Ok(Contents::Database(_)));
        if !wanted() || self.home.broken().is_some() {
            *backoff = Backoff::default();
            return;
        }
        let pause = backoff.left(Instant::now());
        if !pause.is_zero() {
            let mut changes = self.epoch.subscribe();
            // Started by an operation, it is to be watched at once.
            if self.home.pid().is_none() {
                let log = self.home.log_tail();
                *lock(&self.trouble) = Some(format!("PostgreSQL keeps ending: {log}"));
                self.observe().await;
                let _ = tokio::time::timeout(pause, changes.changed()).await;
            }
            return;
        }
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        // What was decided meanwhile counts.
        if self.home.pid().is_some() || !wanted() {
            return;
        }
        let directions = match self.home.directions() {
            follows @ Directions::Follows(_) if !first => follows,
            _ => Directions::Fenced,
        };
        tracing::warn!(?directions, "PostgreSQL does not run: it is started");
        backoff.started = Some(Instant::now());
        if let Err(error) = self.start(&Arc::new(turn), directions).await {
            *lock(&self.trouble) = Some(error.chain());
            tracing::error!(error = error.chain(), "PostgreSQL could not be started");
        }
    }

    /// Takes note that something changed the database: observations that were begun before are stale, and the monitor
    /// looks again.
    pub(super) fn outdate(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Looks what the database is and does now, and publishes it, unless something changed it meanwhile.
    pub(super) async fn observe(&self) {
        let epoch = *self.epoch.borrow();
        let seen = self.look().await;
        self.status.send_if_modified(|status| {
            if *self.epoch.borrow() != epoch || *status == seen {
                return false;
            }
            *status = seen;
            true
        });
    }

    async fn look(&self) -> DatabaseStatus {
        let mut status = self.look_at_it().await;
        // What it wrote counts once it is told to lead.
        status.strayed |= self.home.strayed() && !self.may_lead();
        let has_data = !matches!(status.role, DatabaseRole::Absent | DatabaseRole::Rebuilding);
        // It comes first: whatever else is the matter may be so because of it.
        if let Some(full) = self.disk_is_full()
            && has_data
        {
            status.unfit = Some(full);
        }
        status
    }

    async fn look_at_it(&self) -> DatabaseStatus {
        let rebuilding = *lock(&self.rebuilding);
        if let Some(progress) = rebuilding {
            let mut status = DatabaseStatus::unknown(DatabaseRole::Rebuilding);
            status.progress = progress;
            return status;
        }
        if self.home.pid().is_none() {
            return self.not_running();
        }
        let kept = lock(&self.session).is_some();
        let to_lead = self.may_lead();
        let mut asked = self.ask().await;
        if kept && matches!(&asked, Err(Error::Query { .. })) {
            // Whoever ended the session of the agent did not end PostgreSQL.
            self.drop_session();
            asked = self.ask().await;
        }
        match asked {
            Ok(report) => {
                *lock(&self.trouble) = None;
                let strays = !report.in_recovery && !to_lead && !self.may_lead();
                DatabaseStatus { strayed: strays, ..self.running(report) }
            }
            Err(error) => self.silent(&error),
        }
    }

    async fn limit_log(&self) {
        let home = self.home.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || home.limit_log()).await {
            tracing::debug!(%error, "the log of PostgreSQL was not looked at: the agent is stopping");
        }
    }

    async fn ask(&self) -> Result<Report> {
        self.session().await?.report(PATIENCE).await
    }

    fn not_running(&self) -> DatabaseStatus {
        let (role, unfit) = match self.home.contents() {
            Ok(Contents::Nothing) => (DatabaseRole::Absent, None),
            Ok(Contents::Database(_)) => {
                (DatabaseRole::Stopped, self.home.broken().or_else(|| lock(&self.trouble).clone()))
            }
            Err(error) => (DatabaseRole::Stopped, Some(error.chain())),
        };
        let mut status = DatabaseStatus::unknown(role);
        status.unfit = unfit;
        status
    }

    fn running(&self, report: Report) -> DatabaseStatus {
        let role = if report.in_recovery { DatabaseRole::Standby } else { DatabaseRole::Primary };
        let mut status = DatabaseStatus::unknown(role);
        status.lsn = report.lsn;
        status.timeline = report.timeline;
        if let (true, directions) = (report.in_recovery, self.home.directions()) {
            // Of a primary it is logged: with what it has loaded it serves on.
            status.unfit = lock(&self.faulty).clone();
            status.replayed = report.replayed;
            let primary = directions.primary();
            status.follows = primary.map(|primary| (primary.node, primary.term));
            status.streaming = match (primary, report.streams_with) {
                (Some(primary), Some(conninfo)) => self.names(&conninfo, primary),
                _ => false,
            };
            self.show_gone(&mut status);
        }
        status
    }

    /// It runs and did not answer.
    fn silent(&self, error: &Error) -> DatabaseStatus {
        let starting = session::is_starting(error);
        let known = self.status.borrow().role;
        let stuck = matches!(error, Error::Unanswered { .. });
        if stuck {
            self.drop_session();
        }
        let role = match known {
            DatabaseRole::Standby | DatabaseRole::Primary if stuck || session::is_crowded(error) => known,
            _ => DatabaseRole::Starting,
        };
        let mut status = DatabaseStatus::unknown(role);
        if role == DatabaseRole::Standby && session::is_crowded(error) {
            // It is well, and told whom to follow.
            status.follows = self.home.directions().primary().map(|primary| (primary.node, primary.term));
        }
        status.unfit = Some(starting.or_else(|| lock(&self.trouble).clone()).unwrap_or_else(|| error.chain()));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_dying_is_started_ever_more_slowly() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let mut lives = |life: Duration| {
            backoff.started = Some(now);
            let end = now + life;
            backoff.ended(end);
            let pause = backoff.left(end);
            // Seen again, it is the same end.
            backoff.ended(end + pause / 2);
            assert_eq!(backoff.left(end + pause / 2), pause - pause / 2);
            pause
        };
        let pauses: Vec<u128> = (0..9).map(|_| lives(STABLE / 2).as_millis()).collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(lives(STABLE), Duration::ZERO);
    }
}
