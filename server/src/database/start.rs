//! Starting PostgreSQL, reaching it, and stopping it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::control::ControlData;
use super::error::{Error, Result};
use super::files::Files;
use super::home::lock;
use super::process;
use super::session::{self, Session, To};
use super::settings::{Directions, ROLE};
use super::staging::Contents;
use super::{Postgres, Turn};

/// How long a path of a unix socket may be.
const SOCKET_PATH: usize = 107;

/// How long a stop that lets everything be written may take before it is an immediate one.
const FAST_STOP: Duration = Duration::from_secs(60);

/// How long a standby may take to become consistent before its caller is told that it is not.
const CONSISTENT: Duration = Duration::from_secs(10);

/// Between two tries to reach a starting PostgreSQL, at first and at last.
const STEP: Duration = Duration::from_millis(5);
const LONGEST_STEP: Duration = Duration::from_millis(100);

/// Where the socket goes: into `run_dir`, or where its path would be too long, into a short one.
pub(super) fn socket_dir(run_dir: &Path, files: &Files) -> Result<PathBuf> {
    let fits = |dir: &Path| dir.join(".s.PGSQL.65535").as_os_str().len() <= SOCKET_PATH;
    if fits(run_dir) {
        return Ok(run_dir.to_owned());
    }
    let digest = Sha256::digest(run_dir.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dir = Path::new("/tmp").join(format!("qluster-{name}"));
    if !dir.is_dir() {
        files.make_dir(&dir, 0o700)?;
    }
    // Anybody can create it: it must be ours, and nobody else's to write to.
    let about = std::fs::symlink_metadata(&dir).map_err(Error::file("look at", &dir))?;
    let ours = about.is_dir() && about.uid() == files.accounts.database.uid;
    if !ours || about.permissions().mode() & 0o077 != 0 {
        return Err(Error::Unfit(format!(
            "{} belongs to somebody else: choose a shorter run directory",
            dir.display()
        )));
    }
    Ok(dir)
}

impl Postgres {
    /// Starts PostgreSQL as a standby with these directions, and does not wait for it to answer.
    pub(super) async fn start(&self, turn: &Turn, directions: Directions) -> Result<i32> {
        if let Some(pid) = self.home.pid() {
            return Ok(pid);
        }
        if let Some(broken) = self.home.broken() {
            return Err(Error::Unfit(broken));
        }
        self.prepare(turn, directions).await?;
        self.spawn()
    }

    /// Gets everything ready for a start. What is left of an earlier postmaster is ended: backends that outlived it
    /// keep its memory, and programs of an earlier agent may still change the data directory.
    pub(super) async fn prepare(&self, turn: &Turn, directions: Directions) -> Result<()> {
        self.end(Duration::from_secs(2)).await?;
        self.blocking(turn, move |home| home.prepare(&directions)).await?;
        if self.home.strayed() && !self.may_lead() {
            // Before anybody takes what an earlier look found for what it is.
            self.outdate();
            self.status.send_modify(|status| status.strayed = true);
        }
        Ok(())
    }

    /// Starts what was prepared.
    ///
    /// The server itself and not pg_ctl, so that its process id is known at once, and it is reaped at once.
    pub(super) fn spawn(&self) -> Result<i32> {
        let home = &self.home;
        let program = home.programs.path("postgres");
        let log = home.files.append(&home.log_file())?;
        let errors = log.try_clone().map_err(Error::file("open", &home.log_file()))?;
        let mut command = home.files.accounts.command(&program);
        command.arg("-D").arg(&home.data_dir).current_dir(&home.data_dir).stdout(log).stderr(errors);
        let mut config_file = std::ffi::OsString::from("config_file=");
        config_file.push(home.main_file());
        command.arg("-c").arg(config_file);
        let mut child = command.spawn().map_err(|source| Error::Spawn { program, source })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::Ended { log: home.log_tail() })?;
        home.set_spawned(Some(pid));
        self.outdate();
        // It lives on when the agent ends; until then it is reaped.
        let home = home.clone();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(_) => home.reaped(pid),
                Err(error) => tracing::warn!(pid, %error, "PostgreSQL could not be waited for"),
            }
        });
        tracing::info!(pid, "started PostgreSQL as a standby");
        Ok(pid)
    }

    /// Makes the running PostgreSQL read its configuration.
    ///
    /// To a server that has not yet set up its signals, which it has once it writes its pid file, this one is deadly.
    pub(super) async fn reload(&self) -> Result<()> {
        while let Some(pid) = self.home.pid() {
            if process::postmaster(&self.home.data_dir) == Some(pid) {
                return process::signal(pid, Signal::HUP);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The kept connection, made anew where it was lost.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let kept = lock(&self.session).clone();
        if let Some(session) = kept.filter(|session| !session.client.is_closed()) {
            return Ok(session);
        }
        let session = Arc::new(Session::new(self.connect(To::Act).await?).await?);
        *lock(&self.session) = Some(session.clone());
        Ok(session)
    }

    /// Lets go of the kept connection, where it answers no more.
    pub(super) fn drop_session(&self) {
        *lock(&self.session) = None;
    }

    /// A new connection to look into a database, as a role with few rights.
    pub(crate) async fn connect_to_look(&self, database: &str) -> Result<Client> {
        let own = &self.home.own;
        session::connect_own(&own.socket_dir, own.port.get(), ROLE, To::Look(database)).await
    }

    /// A new connection.
    pub(super) async fn connect(&self, to: To<'_>) -> Result<Client> {
        let own = &self.home.own;
        let port = own.port.get();
        if let Some(user) = self.superuser.get() {
            return session::connect_own(&own.socket_dir, port, user, to).await;
        }
        let mut failed = None;
        for user in &self.home.superusers {
            match session::connect_own(&own.socket_dir, port, user, to).await {
                Ok(client) => {
                    // Another may have found it meanwhile.
                    let _ = self.superuser.set(user.clone());
                    return Ok(client);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::Unfit("there is no superuser to connect as".into())))
    }

    /// Waits until a started PostgreSQL answers.
    pub(super) async fn answering(&self) -> Result<Arc<Session>> {
        let begun = Instant::now();
        let mut step = STEP;
        loop {
            let error = match self.session().await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if self.home.pid().is_none() {
                return Err(Error::Ended { log: self.home.log_tail() });
            }
            if begun.elapsed() > CONSISTENT {
                return Err(match session::is_starting(&error) {
                    Some(said) => Error::Unfit(format!("it is not consistent yet: {said}")),
                    None => error,
                });
            }
            // Each try is a line in its log.
            tokio::time::sleep(step).await;
            step = (step * 5 / 4).min(LONGEST_STEP);
        }
    }

    /// The demote ladder.
    pub(super) async fn end(&self, deadline: Duration) -> Result<()> {
        let home = &self.home;
        if home.pid().is_none() && home.processes().is_empty() {
            return Ok(());
        }
        self.outdate();
        let begun = Instant::now();
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            process::end_at(&home.data_dir, &home.programs.on_data(), left).await?;
            // The monitor may have begun to start one meanwhile, which is told by its directory a little later only.
            // Whoever is told that all ended has another one promoted.
            let Some(pid) = home.pid() else { break };
            if left.is_zero() {
                return Err(Error::Unfit(format!("process {pid} of the database is still there")));
            }
            tokio::time::sleep(STEP).await;
        }
        self.ended();
        Ok(())
    }

    /// Stops PostgreSQL so that all is written, and sent to the standbys that are connected.
    pub(super) async fn stop_fast(&self) -> Result<()> {
        if let Some(pid) = self.home.pid() {
            process::signal(pid, Signal::INT)?;
            if tokio::time::timeout(FAST_STOP, process::ended(pid)).await.is_err() {
                tracing::warn!(pid, "PostgreSQL does not stop: it is stopped immediately");
            }
        }
        self.end(Duration::from_secs(5)).await?;
        self.ended();
        Ok(())
    }

    /// Takes note that no process of the database is left.
    fn ended(&self) {
        self.home.set_spawned(None);
        self.drop_session();
        self.outdate();
        self.status.send_modify(|status| {
            if !matches!(status.role, DatabaseRole::Absent | DatabaseRole::Rebuilding) {
                *status = DatabaseStatus::unknown(DatabaseRole::Stopped);
            }
        });
    }

    /// Keeps PostgreSQL from being started, until an operation starts it.
    pub fn rest(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    pub(super) async fn do_stop(&self) -> Result<Lsn> {
        self.held.store(true, Ordering::SeqCst);
        let turn = self.turn().await;
        let ran = self.home.pid().is_some();
        // What is checkpointed while sessions still work is not left for the shutdown, during which nobody does.
        if let Ok(session) = self.session().await
            && let Err(error) = session.client.batch_execute("CHECKPOINT").await
        {
            tracing::debug!(%error, "no checkpoint before the shutdown");
        }
        self.stop_fast().await?;
        self.observe().await;
        let last = self.blocking(&turn, |home| match home.contents()? {
            Contents::Nothing => Ok(None),
            Contents::Database(_) => home.control().map(Some),
        });
        match last.await? {
            // What does not exist has written nothing.
            None => Ok(Lsn(0)),
            Some(control) => last_record(&control, ran),
        }
    }
}

/// Where the last record begins that a stopped database wrote as a primary; `ran`: it was stopped just now.
///
/// Of one that did not end in good order nobody knows, so no standby's position is beyond the answer; whoever has just
/// stopped it is told.
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
