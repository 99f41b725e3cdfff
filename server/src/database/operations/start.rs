//! Starting PostgreSQL, and reaching it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::database::error::{Error, Result};
use crate::database::sessions::client::is_starting;
use crate::database::sessions::report::Session;
use crate::database::{Postgres, Turn};
use crate::formats::directions::Directions;
use crate::os;
use crate::os::files::Files;
use crate::os::process;

/// The longest path of a unix socket, in bytes (`sockaddr_un`).
const MAX_SOCKET_PATH: usize = 107;

/// How long a standby may take to become consistent before its caller hears that it is not.
const CONSISTENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what is left of an earlier postmaster may take to end.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between two tries to reach a starting PostgreSQL: the first one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The directory of the socket: `run_dir`, or a short one if the path of the socket would be too long.
pub(crate) fn socket_dir(run_dir: &Path, files: &Files) -> Result<PathBuf> {
    let fits = |dir: &Path| dir.join(".s.PGSQL.65535").as_os_str().len() <= MAX_SOCKET_PATH;
    if fits(run_dir) {
        return Ok(run_dir.to_owned());
    }
    let digest = Sha256::digest(run_dir.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dir = Path::new("/tmp").join(format!("qluster-{name}"));
    if !dir.is_dir() {
        files.make_dir(&dir, 0o700)?;
    }
    // Anybody can create it there. It must belong to the account of PostgreSQL, and nobody else may write to it.
    let about = std::fs::symlink_metadata(&dir).map_err(os::Error::file("look at", &dir))?;
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
    /// Starts PostgreSQL as a standby with these directions, and does not wait until it answers. Does nothing if it runs.
    pub(crate) async fn start(&self, turn: &Turn, directions: Directions) -> Result<()> {
        if self.data_dir.postmaster.pid().is_some() {
            return Ok(());
        }
        if let Some(broken) = self.data_dir.marks.broken() {
            return Err(Error::Unfit(broken));
        }
        self.prepare(turn, directions).await?;
        self.spawn()
    }

    /// Gets everything ready for a start. First it ends what is left of an earlier postmaster: backends that outlived it
    /// keep its memory, and programs of an earlier daemon may still change the data directory.
    pub(crate) async fn prepare(&self, turn: &Turn, directions: Directions) -> Result<()> {
        self.end(LEFTOVERS_TIMEOUT).await?;
        self.blocking(turn, move |data_dir| data_dir.prepare(&directions)).await?;
        if self.data_dir.marks.strayed() && !self.may_lead() {
            // Shown at once: nobody may take the result of an earlier look for the present status.
            self.status.outdate();
            self.status.modify(|status| status.strayed = true);
        }
        Ok(())
    }

    /// Starts what was prepared.
    ///
    /// It runs the server itself and not pg_ctl. So its process id is known at once, and it is reaped at once.
    pub(crate) fn spawn(&self) -> Result<()> {
        let data_dir = &self.data_dir;
        let program = data_dir.programs.path("postgres");
        let log = data_dir.files.append(&data_dir.log.path)?;
        let errors = log.try_clone().map_err(os::Error::file("open", &data_dir.log.path))?;
        let mut command = data_dir.files.accounts.command(&program);
        command.arg("-D").arg(&data_dir.path).current_dir(&data_dir.path).stdout(log).stderr(errors);
        let mut config_file = std::ffi::OsString::from("config_file=");
        config_file.push(data_dir.settings.main_file());
        command.arg("-c").arg(config_file);
        let mut child = command.spawn().map_err(|source| os::Error::Spawn { program, source })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::Ended { log: data_dir.log.tail() })?;
        data_dir.postmaster.spawned(pid);
        self.status.outdate();
        // PostgreSQL continues when the daemon ends. Until then the daemon reaps it.
        let data_dir = data_dir.clone();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(_) => data_dir.postmaster.reaped(pid),
                Err(error) => tracing::warn!(pid, %error, "PostgreSQL could not be waited for"),
            }
        });
        tracing::info!(pid, "started PostgreSQL as a standby");
        Ok(())
    }

    /// Makes the running PostgreSQL read its configuration.
    ///
    /// The signal for it would kill a server that has not set up its signals yet. It has set them up when it writes its
    /// process id file.
    pub(crate) async fn reload(&self) -> Result<()> {
        while let Some(pid) = self.data_dir.postmaster.pid() {
            if self.data_dir.postmaster.has_pid_file(pid) {
                return Ok(process::signal(pid, Signal::HUP)?);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until a started PostgreSQL answers.
    pub(crate) async fn answering(&self) -> Result<Arc<Session>> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.sessions.session().await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if self.data_dir.postmaster.pid().is_none() {
                return Err(Error::Ended { log: self.data_dir.log.tail() });
            }
            if begun.elapsed() > CONSISTENT_TIMEOUT {
                return Err(match is_starting(&error) {
                    Some(said) => Error::Unfit(format!("it is not consistent yet: {said}")),
                    None => error,
                });
            }
            // Each try writes a line into PostgreSQL's log.
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST_PAUSE);
        }
    }
}
