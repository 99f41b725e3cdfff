//! Stopping PostgreSQL.

use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus};
use rustix::process::Signal;

use super::{CHECK_PERIOD, END_TIMEOUT};
use crate::database::Postgres;
use crate::database::data_dir::staging::Contents;
use crate::database::error::{Error, Result};
use crate::formats::control::ControlData;
use crate::os::{postmaster, process};

/// How long a fast shutdown, which writes and sends everything, may take before an immediate one follows.
const FAST_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

impl Postgres {
    /// Ends all processes of the database by the demote ladder.
    pub(crate) async fn end(&self, deadline: Duration) -> Result<()> {
        let data_dir = &self.data_dir;
        if data_dir.postmaster.is_gone() {
            return Ok(());
        }
        self.status.outdate();
        let begun = Instant::now();
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            postmaster::end_at(&data_dir.path, &data_dir.programs.on_data(), left).await?;
            // The monitor may have begun to start a postmaster meanwhile, which has its working directory a little later
            // only. If this said that all ended, another node would be promoted.
            let Some(pid) = data_dir.postmaster.pid() else { break };
            if left.is_zero() {
                return Err(Error::Unfit(format!("process {pid} of the database is still there")));
            }
            tokio::time::sleep(CHECK_PERIOD).await;
        }
        self.ended();
        Ok(())
    }

    /// Stops PostgreSQL by a fast shutdown: everything is written, and sent to the standbys that are connected.
    pub(crate) async fn stop_fast(&self) -> Result<()> {
        if let Some(pid) = self.data_dir.postmaster.pid() {
            process::signal(pid, Signal::INT)?;
            if tokio::time::timeout(FAST_SHUTDOWN_TIMEOUT, process::ended(pid)).await.is_err() {
                tracing::warn!(pid, "PostgreSQL does not stop: it is stopped immediately");
            }
        }
        self.end(END_TIMEOUT).await?;
        self.ended();
        Ok(())
    }

    /// Notes that no process of the database is left.
    fn ended(&self) {
        self.data_dir.postmaster.ended();
        self.sessions.drop_kept();
        self.status.outdate();
        self.status.modify(|status| {
            if !matches!(status.role, DatabaseRole::Absent | DatabaseRole::Rebuilding) {
                *status = DatabaseStatus::unknown(DatabaseRole::Stopped);
            }
        });
    }

    /// Keeps PostgreSQL from being started, until an operation starts it.
    pub fn rest(&self) {
        self.restart_hold.hold();
    }

    pub(crate) async fn do_stop(&self) -> Result<Lsn> {
        self.restart_hold.hold();
        let turn = self.turn().await;
        let ran = self.data_dir.postmaster.pid().is_some();
        // Sessions still work during this checkpoint. During the shutdown, which checkpoints again, none does.
        if let Ok(session) = self.sessions.session().await
            && let Err(error) = session.client.batch_execute("CHECKPOINT").await
        {
            tracing::debug!(%error, "no checkpoint before the shutdown");
        }
        self.stop_fast().await?;
        self.observe().await;
        let last = self.blocking(&turn, |data_dir| match data_dir.contents()? {
            Contents::Nothing => Ok(None),
            Contents::Database(_) => data_dir.control.read().map(Some),
        });
        match last.await? {
            // A database that does not exist has written nothing.
            None => Ok(Lsn(0)),
            Some(control) => last_record(&control, ran),
        }
    }
}

/// Where the last record begins that a stopped database wrote as a primary. `ran`: it was stopped just now.
///
/// If it did not end in good order, nobody knows. Then the greatest LSN is returned, so that no standby's position is beyond
/// it. If it was stopped just now, that is an error.
fn last_record(control: &ControlData, ran: bool) -> Result<Lsn> {
    match (control.state.as_str(), control.checkpoint) {
        ("shut down" | "shut down in recovery", Some(checkpoint)) => Ok(checkpoint),
        (state, _) if ran => Err(Error::Unfit(format!("it did not stop in good order: it is `{state}`"))),
        _ => Ok(Lsn(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_that_was_shut_down_knows_its_last_record() {
        for (state, ran, expected) in [
            ("shut down", true, Some(7)),
            ("shut down", false, Some(7)),
            ("shut down in recovery", true, Some(7)),
            ("in production", true, None),
            ("in production", false, Some(u64::MAX)),
            ("in archive recovery", true, None),
        ] {
            let control = ControlData { state: state.into(), checkpoint: Some(Lsn(7)), ..Default::default() };
            assert_eq!(last_record(&control, ran).ok(), expected.map(Lsn), "{state} {ran}");
        }
    }
}
