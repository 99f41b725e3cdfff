//! The status of the database: what it is and does now, as consensus and people see it.
//!
//! Observing is level-triggered: each look asks for everything again. Whatever changes the database *outdates* the looks
//! that began before it, so that no old status is published after the change.
//!
//! - `published`: the status that was published last. `findings`: what the monitor and operations found, and what a look
//!   cannot see by itself.
//! - `disk`: full disks. `missing_wal`: why a standby does not stream.
//!
//! It uses `sessions`, `data_dir`, `os`, `formats` and `database::error`.

mod disk;
mod findings;
pub(crate) mod missing_wal;
mod published;

use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus, Primary, standby_name};

pub(crate) use self::findings::Findings;
pub(crate) use self::published::Published;
use super::Postgres;
use super::data_dir::staging::Contents;
use super::error::Error;
use super::sessions::client::{is_crowded, is_starting};
use super::sessions::report::Report;
use crate::formats::directions::Directions;

impl Postgres {
    /// Looks what the database is and does now, and publishes it, unless something changed the database meanwhile.
    pub(crate) async fn observe(&self) {
        let epoch = self.status.epoch();
        let seen = self.see().await;
        self.status.publish(epoch, seen);
    }

    /// Whether the database is, or may be, a primary: it was told to be one, and was not fenced after that.
    pub fn may_lead(&self) -> bool {
        matches!(self.data_dir.settings.directions(), Directions::Leads(_))
    }

    async fn see(&self) -> DatabaseStatus {
        let mut status = self.see_process().await;
        // Once it is ordered to lead, the WAL that it wrote counts.
        status.strayed |= self.data_dir.marks.strayed() && !self.may_lead();
        let has_data = !matches!(status.role, DatabaseRole::Absent | DatabaseRole::Rebuilding);
        // This reason replaces others: they may be consequences of the full disk.
        if let Some(full) = self.findings.disks.look(&self.data_dir.path)
            && has_data
        {
            status.unfit = Some(full);
        }
        status
    }

    async fn see_process(&self) -> DatabaseStatus {
        if let Some(progress) = self.findings.rebuilding() {
            let mut status = DatabaseStatus::unknown(DatabaseRole::Rebuilding);
            status.progress = progress;
            return status;
        }
        if self.data_dir.postmaster.pid().is_none() {
            return self.not_running();
        }
        let kept = self.sessions.is_kept();
        let to_lead = self.may_lead();
        let mut asked = self.sessions.report().await;
        if kept && matches!(&asked, Err(Error::Query { .. })) {
            // Somebody may have ended the daemon's session, and not PostgreSQL.
            self.sessions.drop_kept();
            asked = self.sessions.report().await;
        }
        match asked {
            Ok(report) => {
                self.findings.set_trouble(None);
                let strays = !report.in_recovery && !to_lead && !self.may_lead();
                DatabaseStatus { strayed: strays, ..self.running(report) }
            }
            Err(error) => self.silent(&error),
        }
    }

    fn not_running(&self) -> DatabaseStatus {
        let (role, unfit) = match self.data_dir.contents() {
            Ok(Contents::Nothing) => (DatabaseRole::Absent, None),
            Ok(Contents::Database(_)) => {
                (DatabaseRole::Stopped, self.data_dir.marks.broken().or_else(|| self.findings.trouble()))
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
        if let (true, directions) = (report.in_recovery, self.data_dir.settings.directions()) {
            // For a primary this is only logged: it goes on serving with the settings that it has loaded.
            status.unfit = self.findings.faulty();
            status.replayed = report.replayed;
            let primary = directions.primary();
            status.follows = primary.map(|primary| (primary.node, primary.term));
            status.streaming = match (primary, report.streams_with) {
                (Some(primary), Some(conninfo)) => self.is_receiver_of(&conninfo, primary),
                _ => false,
            };
            self.findings.wal.show(&mut status, directions);
        }
        status
    }

    /// It runs, and did not answer.
    fn silent(&self, error: &Error) -> DatabaseStatus {
        let starting = is_starting(error);
        let known = self.status.role();
        let stuck = matches!(error, Error::Unanswered { .. });
        if stuck {
            self.sessions.drop_kept();
        }
        let role = match known {
            DatabaseRole::Standby | DatabaseRole::Primary if stuck || is_crowded(error) => known,
            _ => DatabaseRole::Starting,
        };
        let mut status = DatabaseStatus::unknown(role);
        if role == DatabaseRole::Standby && is_crowded(error) {
            // It is well, and was told whom to follow.
            let directions = self.data_dir.settings.directions();
            status.follows = directions.primary().map(|primary| (primary.node, primary.term));
        }
        status.unfit = Some(starting.or_else(|| self.findings.trouble()).unwrap_or_else(|| error.chain()));
        status
    }

    /// Whether a WAL receiver with this connection string follows `primary`, in its term.
    pub(crate) fn is_receiver_of(&self, conninfo: &str, primary: &Primary) -> bool {
        let name = standby_name(self.data_dir.own.node, primary.term);
        let value = |word: &str| Some(word.strip_prefix("application_name=")?.trim_matches('\'').to_owned());
        // After a receiver was told to go on in another timeline, the string is as it was set, with quotes.
        conninfo.split_whitespace().filter_map(value).any(|value| value == name)
    }
}
