//! Keeping the status fresh, and PostgreSQL running.
//!
//! One loop: the end of the postmaster is noticed at once, its state asked for every [`POLL`]. A PostgreSQL that ended
//! unasked is started again, as a standby, by whoever has the turn: an operation under way does what it was told.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qluster_consensus::database::{DatabaseRole, DatabaseStatus};

use super::Postgres;
use super::drift::Drift;
use super::error::Error;
use super::home::lock;
use super::process;
use super::session::{self, PATIENCE, Report};
use super::settings::Directions;
use super::staging::Contents;

/// Between two questions to PostgreSQL.
const POLL: Duration = Duration::from_millis(250);

/// Between two looks at the user's files, in polls.
const ACCESS: u32 = 8;

/// Who ran for this long is not one that keeps dying.
const STABLE: Duration = Duration::from_secs(60);

/// The longest pause between two starts.
const LONGEST: Duration = Duration::from_secs(30);

/// When to start again what ended.
#[derive(Debug)]
struct Backoff {
    pause: Duration,
    started: Option<Instant>,
}

impl Backoff {
    /// How long to wait before the next start: not at all after a long life.
    fn next(&mut self, now: Instant) -> Duration {
        let young = self.started.is_some_and(|started| now.duration_since(started) < STABLE);
        let pause = if young { self.pause } else { Duration::ZERO };
        self.pause = if young { (self.pause * 2).clamp(Duration::from_millis(500), LONGEST) } else { Duration::ZERO };
        pause
    }
}

impl Postgres {
    /// Keeps the status fresh and PostgreSQL running, for ever. What does not run is started as a fenced standby,
    /// unless it was stopped on purpose.
    pub async fn run(self: Arc<Self>) {
        let mut backoff = Backoff { pause: Duration::ZERO, started: None };
        let mut first = true;
        let mut fast = false;
        loop {
            let Some(pid) = self.home.pid() else {
                if !first && !fast {
                    tokio::time::sleep(Duration::from_millis(100)).await;
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
            self.epoch.fetch_add(1, Ordering::SeqCst);
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
        let mut count = 0;
        loop {
            tokio::select! {
                () = &mut ended => return,
                () = self.observe() => {}
            }
            self.keep_rule(&mut drift).await;
            if count % ACCESS == 0 {
                let changed = self.home.access_changed();
                // Also at first: they may have changed while no agent ran.
                if access != Some(changed) && self.reload_access().await {
                    access = Some(changed);
                }
                self.look_at_settings().await;
            }
            count += 1;
            tokio::select! {
                () = &mut ended => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Starts PostgreSQL where it ended unasked, or never ran.
    async fn restart(&self, backoff: &mut Backoff, first: bool) {
        let wanted = || !self.held.load(Ordering::SeqCst) && matches!(self.home.contents(), Ok(Contents::Database(_)));
        if !wanted() || self.home.broken().is_some() {
            backoff.started = None;
            return;
        }
        if !first {
            let pause = backoff.next(Instant::now());
            if !pause.is_zero() {
                let log = self.home.log_tail();
                *lock(&self.trouble) = Some(format!("PostgreSQL keeps ending: {log}"));
                self.observe().await;
                tokio::time::sleep(pause).await;
            }
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

    /// Looks what the database is and does now, and publishes it, unless something changed it meanwhile.
    pub(super) async fn observe(&self) {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let seen = self.look().await;
        self.status.send_if_modified(|status| {
            if self.epoch.load(Ordering::SeqCst) != epoch || *status == seen {
                return false;
            }
            *status = seen;
            true
        });
    }

    async fn look(&self) -> DatabaseStatus {
        let mut status = self.look_at_it().await;
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
        let asked = async { self.session().await?.report(PATIENCE).await };
        match asked.await {
            Ok(report) => {
                *lock(&self.trouble) = None;
                self.running(report)
            }
            Err(error) => self.silent(&error),
        }
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
            DatabaseRole::Standby | DatabaseRole::Primary if stuck => known,
            _ => DatabaseRole::Starting,
        };
        let mut status = DatabaseStatus::unknown(role);
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
        let mut backoff = Backoff { pause: Duration::ZERO, started: Some(now) };
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next(now).as_millis()).collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(backoff.next(now + STABLE), Duration::ZERO);
    }
}
