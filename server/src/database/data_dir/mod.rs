//! The data directory of a database, and what belongs to it on this host. All of it blocks, and nothing of it starts
//! PostgreSQL.
//!
//! - `marks`: durable notes on the past of the database. `staging`: putting a new data directory in the place of the old.
//! - `settings_files`, `settings`: PostgreSQL's configuration files, and the text of `qluster.conf`. `packaged`: the
//!   configuration that a package keeps elsewhere.
//! - `access_files`: the files that say who may connect. `passwords`: the password of the replication role.
//! - `postmaster`: which postmaster runs. `control_file`: the control file, timelines and WAL. `log`: PostgreSQL's log.
//! - `programs`: where PostgreSQL's programs are.
//!
//! It uses `os`, `formats` and `database::error`.

mod access_files;
mod control_file;
mod log;
mod marks;
mod packaged;
mod passwords;
mod postmaster;
mod programs;
mod settings;
mod settings_files;
pub(crate) mod staging;

use std::path::{Path, PathBuf};

use self::access_files::AccessFiles;
use self::control_file::ControlFile;
use self::log::ServerLog;
use self::marks::Marks;
pub use self::passwords::Passwords;
use self::passwords::ReplicationPassword;
use self::postmaster::Postmaster;
pub(crate) use self::programs::Programs;
pub(crate) use self::settings::Own;
use self::settings_files::SettingsFiles;
use self::staging::Contents;
use super::error::{Error, Result};
use crate::formats::directions::Directions;
use crate::formats::hba::Access;
use crate::os::disk;
use crate::os::files::{Files, remove_file};

/// PostgreSQL starts as a standby if this file is in its data directory.
const STANDBY_SIGNAL: &str = "standby.signal";

/// The data directory of a database, and what belongs to it on this host.
pub(crate) struct DataDir {
    /// The directory, as the kernel names it (a canonical path).
    pub(crate) path: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) files: Files,
    pub(crate) own: Own,
    /// The superusers that the daemon may connect as.
    pub(crate) superusers: Vec<String>,
    pub(crate) passwords: ReplicationPassword,
    pub(crate) marks: Marks,
    pub(crate) settings: SettingsFiles,
    pub(crate) access: AccessFiles,
    pub(crate) postmaster: Postmaster,
    pub(crate) control: ControlFile,
    pub(crate) log: ServerLog,
}

impl DataDir {
    /// Reads the durable notes, and what the database was told last. The directories exist.
    pub(crate) fn new(
        path: PathBuf,
        run_dir: PathBuf,
        programs: Programs,
        files: Files,
        own: Own,
        passwords: Option<Passwords>,
    ) -> Result<Self> {
        let mut superusers = vec!["postgres".to_owned()];
        if files.accounts.database.name != "postgres" {
            superusers.push(files.accounts.database.name.clone());
        }
        Ok(Self {
            marks: Marks::new(run_dir.clone(), files.clone()),
            settings: SettingsFiles::new(path.clone(), files.clone())?,
            access: AccessFiles::new(&path, &run_dir, &files, &own, &superusers, passwords.is_some()),
            passwords: ReplicationPassword::new(passwords, own.passfile.clone(), files.clone()),
            postmaster: Postmaster::new(path.clone(), programs.clone()),
            control: ControlFile::new(path.clone(), programs.clone(), files.clone()),
            log: ServerLog::new(&run_dir, files.clone()),
            path,
            run_dir,
            programs,
            files,
            own,
            superusers,
        })
    }

    /// Whether there is a whole database.
    pub(crate) fn contents(&self) -> Result<Contents> {
        staging::look(&self.path)
    }

    /// Gets everything ready for PostgreSQL to start as a standby with these directions. No process of it runs.
    pub(crate) fn prepare(&self, directions: &Directions) -> Result<()> {
        staging::finish(&self.path)?;
        if self.contents()? == Contents::Nothing {
            return Err(Error::Unfit(format!("there is no database in {}", self.path.display())));
        }
        self.files.make_dir(&self.run_dir, 0o750)?;
        self.remove_stale_locks()?;
        self.note_strayed()?;
        self.marks.forget_sighting();
        self.settings.forget_floors();
        self.settings.include()?;
        self.write_settings(directions)?;
        self.settings.write_main()?;
        // A standby has no clients that could see too much.
        self.access.write(Some(Access::Open))?;
        self.passwords.write_passfile()?;
        self.create_standby_signal()
    }

    /// Notes durably if the database was a primary when it ended, although it was told to be a standby. No process of it
    /// runs. A database that was told to lead, and did, has no past to forget any more. A copy has the control file of the
    /// database that it was copied from until it has been started.
    pub(crate) fn note_strayed(&self) -> Result<()> {
        // If that cannot be read, nothing is known about what it was told.
        let Some(told) = self.settings.told()? else { return Ok(()) };
        let leads = matches!(told, Directions::Leads(_));
        if !self.marks.may_have_strayed(leads) || self.path.join("backup_label").exists() {
            return Ok(());
        }
        if !self.control.read()?.was_primary() {
            return Ok(());
        }
        if leads { self.marks.forget_past() } else { self.marks.note_strayed() }
    }

    /// Writes the settings that carry out the directions. Returns the stamp of this text, which no other has.
    pub(crate) fn write_settings(&self, directions: &Directions) -> Result<String> {
        // If the size cannot be read, as little WAL as possible is kept.
        let disk = disk::space(&self.path.join("pg_wal")).map_or(0, |space| space.size);
        let (stamp, text) = self.settings.render(&self.own, directions, disk, || Ok(self.control.read()?.floors))?;
        if matches!(directions, Directions::Leads(_)) {
            self.marks.forget_standby()?;
        }
        self.settings.write(directions, &text)?;
        Ok(stamp)
    }

    /// Makes each start of PostgreSQL that of a standby. A running PostgreSQL, primary or not, does not read this file.
    pub(crate) fn create_standby_signal(&self) -> Result<()> {
        remove_file(&self.path.join("recovery.signal"))?;
        let path = self.path.join(STANDBY_SIGNAL);
        if path.exists() {
            return Ok(());
        }
        self.files.write(&path, "", 0o600)?;
        Ok(())
    }

    /// Allows a single-user server to start, which pg_rewind may run.
    pub(crate) fn remove_standby_signal(&self) -> Result<()> {
        remove_file(&self.path.join(STANDBY_SIGNAL))?;
        remove_file(&self.path.join("recovery.signal"))?;
        self.remove_stale_locks()
    }

    fn remove_stale_locks(&self) -> Result<()> {
        let dirs = || {
            let users = self.settings.users();
            let theirs = users.get("unix_socket_directories").map_or("", String::as_str);
            let mut dirs: Vec<_> = theirs.split(',').map(|dir| dir.trim().trim_matches('"').into()).collect();
            dirs.push(self.own.socket_dir.clone());
            dirs
        };
        self.postmaster.remove_stale_locks(dirs, self.own.port)
    }
}

/// Refuses a data directory whose owner is not the account of PostgreSQL.
pub(crate) fn check_owner(path: &Path, files: &Files) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(path).map_err(crate::os::Error::file("open", path))?;
    let account = &files.accounts.database;
    if about.uid() == account.uid {
        return Ok(());
    }
    Err(Error::Unfit(format!(
        "{} belongs to uid {}, PostgreSQL runs as `{}` (uid {})",
        path.display(),
        about.uid(),
        account.name,
        account.uid
    )))
}
