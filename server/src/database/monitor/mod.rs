//! The monitor: it keeps the status fresh, PostgreSQL running, and its settings as they were told.
//!
//! One loop: it notices the end of the postmaster at once, and asks PostgreSQL for its state every [`STATUS_PERIOD`]. It
//! starts a PostgreSQL again that ended unasked, as a standby, if it gets the turn: otherwise the operation under way does
//! what it was told.
//!
//! - `restart`: when to start PostgreSQL again. `paused_replay`: restarting a standby whose settings are too small.
//! - `settings`: what others did to qluster's settings. `password`: keeping the replication role's password up to date.
//! - `missing_wal`: why a standby does not stream.
//!
//! It uses all other parts of `database`.

mod missing_wal;
mod password;
mod paused_replay;
mod restart;
mod settings;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qluster_consensus::protocol::database::DatabaseRole;
use tokio::task::JoinHandle;

use self::restart::Backoff;
use self::settings::RuleDrift;
use super::Postgres;
use crate::os::process;

/// How often PostgreSQL is asked for its state.
const STATUS_PERIOD: Duration = Duration::from_millis(250);

/// How often files and settings are checked, in status periods.
const CHECK_EVERY: u32 = 8;

/// The shortest time between two checkpoints that are to free space on the disk.
const FREE_PERIOD: Duration = Duration::from_secs(30);

/// How often a PostgreSQL that does not run is looked at.
const STOPPED_PERIOD: Duration = Duration::from_millis(100);

impl Postgres {
    /// Keeps the status fresh and PostgreSQL running, for ever. If it does not run, it is started as a fenced standby, unless
    /// it was stopped on purpose.
    pub async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut first = true;
        let mut fast = false;
        loop {
            let mut changes = self.status.changes();
            let Some(pid) = self.data_dir.postmaster.pid() else {
                backoff.ended(Instant::now());
                if !first && !fast {
                    let _ = tokio::time::timeout(STOPPED_PERIOD, changes.changed()).await;
                }
                fast = false;
                self.restart(&mut backoff, first).await;
                first = false;
                self.observe().await;
                continue;
            };
            first = false;
            backoff.runs(Instant::now());
            tokio::select! {
                () = self.watch(pid) => {}
                () = self.watch_wal() => {}
            }
            self.status.outdate();
            self.sessions.drop_kept();
            self.observe().await;
            fast = true;
        }
    }

    /// Observes a postmaster until it ends.
    async fn watch(&self, pid: i32) {
        let mut ended = pin!(process::ended(pid));
        let mut access = None;
        let mut drift = RuleDrift::default();
        let mut freeing = Freeing::default();
        let mut count = 0;
        loop {
            tokio::select! {
                () = &mut ended => return,
                () = self.observe() => {}
            }
            if self.findings.disks.are_full() && freeing.is_due() {
                // A standby keeps WAL until its next restartpoint, with a WAL file of its own for each timeline. Restartpoints
                // come by time, or by how much was written, and not because the disk is full.
                tracing::info!("the disk is full: a checkpoint may remove WAL that is not needed");
                freeing.begin(self.checkpoint());
            }
            self.keep_rule(&mut drift).await;
            self.note_standby().await;
            if count % CHECK_EVERY == 0 {
                let changed = self.data_dir.access.changed();
                // Also the first time: the files may have changed while no daemon ran.
                if access != Some(changed) && self.reload_access().await {
                    access = Some(changed);
                }
                self.check_settings().await;
                self.check_commits().await;
                self.check_replay().await;
                self.limit_log().await;
            }
            count += 1;
            tokio::select! {
                () = &mut ended => return,
                () = tokio::time::sleep(STATUS_PERIOD) => {}
            }
        }
    }

    /// Notes, once, that PostgreSQL runs as a standby. If it is found as a primary later, without having been told to be one,
    /// somebody else has promoted it.
    async fn note_standby(&self) {
        let is_standby = self.status.role() == DatabaseRole::Standby;
        if !is_standby || self.data_dir.marks.stood_by() || self.may_lead() {
            return;
        }
        let epoch = self.status.epoch();
        let is_standby = self.sessions.report().await.is_ok_and(|report| report.in_recovery);
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        // Its directions and its postmaster have not changed since, and do not change during the turn.
        if !is_standby || self.may_lead() || self.status.epoch() != epoch {
            return;
        }
        if let Err(error) = self.blocking(&Arc::new(turn), |data_dir| data_dir.marks.note_standby()).await {
            tracing::debug!(error = error.chain(), "that PostgreSQL is a standby could not be noted");
        }
    }

    async fn limit_log(&self) {
        let data_dir = self.data_dir.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || data_dir.log.limit()).await {
            tracing::debug!(%error, "the size of PostgreSQL's log was not checked: the daemon is stopping");
        }
    }
}

/// The checkpoints that are to free space on the disk.
#[derive(Default)]
struct Freeing {
    begun: Option<Instant>,
    task: Option<JoinHandle<()>>,
}

impl Freeing {
    /// Whether another one may begin. If one takes long, others must not join it, each with a session of its own.
    fn is_due(&self) -> bool {
        self.begun.is_none_or(|begun| begun.elapsed() > FREE_PERIOD)
            && self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn begin(&mut self, task: Option<JoinHandle<()>>) {
        *self = Self { begun: Some(Instant::now()), task };
    }
}
