//! A database's home on this host: its directories and the files in them. All of this blocks, and starts nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use qluster_consensus::model::Lsn;
use secrecy::SecretString;

use super::conf;
use super::control::{ControlData, Timelines, first_record, history_file, place_of};
use super::disk;
use super::error::{Error, Result};
use super::files::{self, Files, remove_file};
use super::hba::{self, Access};
use super::password::Passwords;
use super::process;
use super::programs::Programs;
use super::settings::{Directions, Own, Rendering, conflicts};
use super::staging::{self, Contents};

/// What qluster writes into a data directory.
const SETTINGS: &str = "qluster.conf";
const STANDBY: &str = "standby.signal";

/// What PostgreSQL is started with in place of `postgresql.conf`: whoever replaces that, or adds to its end, would
/// undo our settings at the next reload. In the data directory, as relative paths are taken from where it is.
const MAIN: &str = "qluster_main.conf";
const MAIN_TEXT: &str = "# Written by qluster, and overwritten. Your own settings belong into postgresql.conf.
include_if_exists = 'postgresql.conf'
include = 'qluster.conf'
";

/// The line that makes whoever reads `postgresql.conf` alone, such as pg_rewind, read our settings, last so that they
/// count.
const INCLUDE: &str = "include_if_exists = 'qluster.conf'";

/// The last of the user's rules on who may connect that PostgreSQL took.
const GOOD_RULES: &str = "qluster_hba.good";

/// The log is put aside when it is larger.
const LOG_LIMIT: u64 = 16 << 20;

/// Where a database lives, and under which account.
pub(super) struct Home {
    pub(super) data_dir: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) programs: Programs,
    pub(super) files: Files,
    pub(super) own: Own,
    pub(super) superusers: Vec<String>,
    pub(super) passwords: Option<Passwords>,
    /// The password that a primary took last.
    pub(super) taken: Mutex<Option<SecretString>>,
    /// The password that was set last, and the postmaster where it was.
    pub(super) set: Mutex<Option<(i32, SecretString)>>,
    /// What the database was last told; also in `qluster.conf`.
    directions: Mutex<Directions>,
    /// Whether it is noted that the database was a standby, and that it was a primary since without being told to.
    stood_by: AtomicBool,
    strayed: AtomicBool,
    /// Whether it was seen to be such a primary since it was last started.
    seen_primary: AtomicBool,
    /// The least sizes with which it starts as a standby, once they were asked for.
    floors: Mutex<Option<Vec<(&'static str, u64)>>>,
    /// The postmaster that was started last; its pid file comes later.
    spawned: Mutex<Option<i32>>,
}

/// Locks, also after a panic of another holder: each value here is whole at all times.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Home {
    pub(super) fn new(
        data_dir: PathBuf,
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
        let home = Self {
            data_dir,
            run_dir,
            programs,
            files,
            own,
            superusers,
            passwords,
            taken: Mutex::new(None),
            set: Mutex::new(None),
            directions: Mutex::new(Directions::Fenced),
            stood_by: AtomicBool::new(false),
            strayed: AtomicBool::new(false),
            seen_primary: AtomicBool::new(false),
            floors: Mutex::new(None),
            spawned: Mutex::new(None),
        };
        let settings = home.files.read(&home.settings_file())?;
        if let Some(directions) = settings.as_deref().and_then(Directions::parse) {
            *lock(&home.directions) = directions;
        }
        home.stood_by.store(home.standby_mark().exists(), Ordering::SeqCst);
        home.strayed.store(home.strayed_mark().exists(), Ordering::SeqCst);
        Ok(home)
    }

    fn settings_file(&self) -> PathBuf {
        self.data_dir.join(SETTINGS)
    }

    /// The configuration file that PostgreSQL is started with.
    pub(super) fn main_file(&self) -> PathBuf {
        self.data_dir.join(MAIN)
    }

    /// The log of PostgreSQL.
    pub(super) fn log_file(&self) -> PathBuf {
        self.run_dir.join("postgresql.log")
    }

    /// The user's rules on who may connect that PostgreSQL did not take.
    fn refused_rules(&self) -> PathBuf {
        self.run_dir.join("pg_hba.refused")
    }

    /// Exists while pg_rewind changes the data directory. Not inside of it: pg_rewind removes what the source lacks.
    fn rewind_mark(&self) -> PathBuf {
        self.run_dir.join("rewinding")
    }

    /// Exists while the database is a standby that was seen to run as one.
    fn standby_mark(&self) -> PathBuf {
        self.run_dir.join("standby")
    }

    /// Exists while the database has WAL that it wrote as a primary which it was not told to be.
    fn strayed_mark(&self) -> PathBuf {
        self.run_dir.join("strayed")
    }

    /// Whether it is noted that the database was seen to run as a standby.
    pub(super) fn stood_by(&self) -> bool {
        self.stood_by.load(Ordering::SeqCst)
    }

    /// Takes durable note that the database runs as a standby, which it is told to be.
    pub(super) fn note_standby(&self) -> Result<()> {
        self.files.write(&self.standby_mark(), "", 0o600)?;
        self.stood_by.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether somebody else than qluster has promoted the database, as far as that was found when it started.
    pub(super) fn strayed(&self) -> bool {
        self.strayed.load(Ordering::SeqCst)
    }

    /// Takes durable note where a database that is not to lead was a primary, by its control file, when it ended. Nothing
    /// of it runs. One that was told to lead, and did, has nothing behind it any more; a copy has the control file of the
    /// database that it was copied from until it has started.
    pub(super) fn note_strayed(&self) -> Result<()> {
        let seen = self.seen_primary.load(Ordering::SeqCst);
        let text = self.files.read(&self.settings_file())?.unwrap_or_default();
        // Where that cannot be read, nothing is known of what it was told.
        let Some(told) = Directions::parse(&text) else { return Ok(()) };
        let leads = matches!(told, Directions::Leads(_));
        let unknown = !leads && !self.stood_by() && !seen;
        if self.strayed() && !leads || unknown || self.data_dir.join("backup_label").exists() {
            return Ok(());
        }
        if !self.control()?.was_primary() {
            return Ok(());
        }
        if leads {
            return self.forget_past();
        }
        tracing::warn!("PostgreSQL was a primary that it was not told to be: somebody else has promoted it");
        self.files.write(&self.strayed_mark(), "", 0o600)?;
        self.strayed.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Takes note that it runs as a primary, and was not told to.
    pub(super) fn see_primary(&self) {
        self.seen_primary.store(true, Ordering::SeqCst);
    }

    /// Takes note that it is to lead: what ends as a primary from now on did as it was told.
    pub(super) fn forget_standby(&self) -> Result<()> {
        self.forget(&self.standby_mark(), &self.stood_by)
    }

    fn forget(&self, mark: &Path, known: &AtomicBool) -> Result<()> {
        if known.load(Ordering::SeqCst) {
            remove_file(mark)?;
            files::sync_dir(&self.run_dir)?;
            known.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Takes note that what the database was before does not matter any more: it is another, or was rewound, or has led.
    pub(super) fn forget_past(&self) -> Result<()> {
        // A crash in between must not leave what looks like a standby that strayed.
        self.forget_standby()?;
        self.forget(&self.strayed_mark(), &self.strayed)
    }

    /// Whether there is a database, whole.
    pub(super) fn contents(&self) -> Result<Contents> {
        staging::look(&self.data_dir)
    }

    /// What the database was last told.
    pub(super) fn directions(&self) -> Directions {
        lock(&self.directions).clone()
    }

    /// The running postmaster.
    pub(super) fn pid(&self) -> Option<i32> {
        let spawned = *lock(&self.spawned);
        spawned.filter(|&pid| process::is_alive(pid)).or_else(|| process::postmaster(&self.data_dir))
    }

    pub(super) fn set_spawned(&self, pid: Option<i32>) {
        *lock(&self.spawned) = pid;
    }

    /// Takes note that a process was reaped: its id may be another's from now on.
    pub(super) fn reaped(&self, pid: i32) {
        lock(&self.spawned).take_if(|spawned| *spawned == pid);
    }

    /// Whether a running postmaster is one that qluster started, or was started with its settings.
    pub(super) fn has_settings(&self) -> bool {
        self.settings_file().exists()
    }

    /// The processes of the database.
    pub(super) fn processes(&self) -> Vec<i32> {
        process::all_of(&self.data_dir, &self.programs.on_data())
    }

    /// Why the data cannot be used, where that is so.
    pub(super) fn broken(&self) -> Option<String> {
        let mark = self.rewind_mark().exists();
        mark.then(|| "a rewind was interrupted, which leaves the data unusable: it must be cloned".into())
    }

    /// Says durably, before it begins, that the data directory is being changed by pg_rewind; or that it is no more.
    pub(super) fn mark_rewind(&self, begins: bool) -> Result<()> {
        if begins {
            self.files.write(&self.rewind_mark(), "", 0o600)?;
        } else {
            remove_file(&self.rewind_mark())?;
            files::sync_dir(&self.run_dir)?;
        }
        Ok(())
    }

    /// The end of PostgreSQL's log, in one line.
    pub(super) fn log_tail(&self) -> String {
        let text = files::tail(&self.log_file(), 4000);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(6)..].join("; ")
    }

    /// Asks pg_controldata.
    pub(super) fn control(&self) -> Result<ControlData> {
        let program = self.programs.path("pg_controldata");
        let mut command = self.files.accounts.command(&program);
        command.arg("-D").arg(&self.data_dir).env("LC_ALL", "C");
        let output = command.as_std_mut().output();
        let output = output.map_err(|source| Error::Spawn { program: program.clone(), source })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Program { program: "pg_controldata".into(), status: output.status, output: text });
        }
        ControlData::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// The timelines that led to the one that the WAL of this database ends on. Nothing of it runs.
    pub(super) fn timelines(&self) -> Result<Timelines> {
        let control = self.control()?;
        self.past_of(control.timeline.max(control.recovers_on).unwrap_or(1))
    }

    /// Whether the last checkpoint is on the timeline that the WAL of this database ends on.
    pub(super) fn has_checkpointed(&self) -> Result<bool> {
        let control = self.control()?;
        Ok(control.timeline >= control.recovers_on)
    }

    /// The first record of a timeline that begins at `begin`: in which file of `pg_wal`, at which offset, and as it is
    /// there. None where that is not there any more.
    pub(super) fn wal_at(&self, timeline: u32, begin: Lsn) -> Result<Option<(String, u64, Vec<u8>)>> {
        let Some(segment) = self.control()?.segment else { return Ok(None) };
        let (file, offset) = place_of(timeline, begin, segment);
        let (offset, length) = first_record(offset);
        let mut bytes = vec![0; length];
        let read = std::fs::File::open(self.data_dir.join("pg_wal").join(&file))
            .and_then(|wal| std::os::unix::fs::FileExt::read_at(&wal, &mut bytes, offset));
        match read {
            Ok(count) => bytes.truncate(count),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", &self.data_dir.join("pg_wal").join(&file))(error)),
        }
        Ok(Some((file, offset, bytes)))
    }

    /// The timelines that led to one of this database.
    pub(super) fn past_of(&self, timeline: u32) -> Result<Timelines> {
        if timeline <= 1 {
            return Timelines::parse(timeline, "");
        }
        let path = self.data_dir.join("pg_wal").join(history_file(timeline));
        // pg_rewind would not find it either.
        let missing = || Error::Hopeless(format!("{} is missing", path.display()));
        Timelines::parse(timeline, &self.files.read(&path)?.ok_or_else(missing)?)
    }

    /// Gets everything ready for PostgreSQL to start as a standby with these directions. Nothing of it runs.
    pub(super) fn prepare(&self, directions: &Directions) -> Result<()> {
        staging::finish(&self.data_dir)?;
        if self.contents()? == Contents::Nothing {
            return Err(Error::Unfit(format!("there is no database in {}", self.data_dir.display())));
        }
        self.files.make_dir(&self.run_dir, 0o750)?;
        self.remove_stale_locks()?;
        self.note_strayed()?;
        self.seen_primary.store(false, Ordering::SeqCst);
        *lock(&self.floors) = None;
        self.include_settings()?;
        self.write_settings(directions)?;
        self.files.write(&self.main_file(), MAIN_TEXT, 0o600)?;
        // A standby has no clients that could see too much.
        self.write_access(Some(Access::Open))?;
        self.write_passfile()?;
        self.mark_standby()
    }

    /// Puts the log of PostgreSQL aside where it is large. It is copied and emptied, since a server that runs keeps the file
    /// open; what that says between the two is lost.
    pub(super) fn limit_log(&self) {
        let log = self.log_file();
        if let Err(error) = self.files.put_aside(&log, &log.with_extension("log.1"), LOG_LIMIT) {
            tracing::warn!(error = error.chain(), "the log of PostgreSQL could not be put aside");
        }
    }

    /// Makes any start of PostgreSQL that of a standby. A running one, primary or not, does not look at this file.
    pub(super) fn mark_standby(&self) -> Result<()> {
        remove_file(&self.data_dir.join("recovery.signal"))?;
        let path = self.data_dir.join(STANDBY);
        if path.exists() {
            return Ok(());
        }
        self.files.write(&path, "", 0o600)?;
        Ok(())
    }

    /// Lets a single-user server, which pg_rewind may run, start.
    pub(super) fn unmark_standby(&self) -> Result<()> {
        remove_file(&self.data_dir.join(STANDBY))?;
        remove_file(&self.data_dir.join("recovery.signal"))?;
        self.remove_stale_locks()
    }

    /// Removes the lock files of a postmaster that is dead. PostgreSQL takes one that is a zombie for alive, and one
    /// whose process id was given to another process of its account as well.
    fn remove_stale_locks(&self) -> Result<()> {
        if self.pid().is_some() || !self.processes().is_empty() {
            return Ok(());
        }
        remove_file(&self.data_dir.join("postmaster.pid"))?;
        let users = self.users_settings();
        let theirs = users.get("unix_socket_directories").map_or("", String::as_str);
        let dirs = theirs.split(',').map(|dir| PathBuf::from(dir.trim().trim_matches('"')));
        for dir in dirs.chain([self.own.socket_dir.clone()]) {
            let lock = dir.join(format!(".s.PGSQL.{}.lock", self.own.port));
            let text = std::fs::read_to_string(&lock).unwrap_or_default();
            let holder = text.lines().nth(1).map(PathBuf::from);
            if holder.is_some_and(|holder| holder.canonicalize().is_ok_and(|holder| holder == self.data_dir)) {
                remove_file(&lock)?;
            }
        }
        Ok(())
    }

    /// Writes the settings that make PostgreSQL do what it is told, and answers with the stamp by which they are told
    /// from any that were written before.
    pub(super) fn write_settings(&self, directions: &Directions) -> Result<String> {
        let mut floors = lock(&self.floors);
        let floors = match &mut *floors {
            Some(floors) => floors,
            none => none.insert(self.control()?.floors),
        };
        let stamp = uuid::Uuid::new_v4().simple().to_string();
        let rendering = Rendering {
            users: &self.users_settings(),
            floors,
            stamp: &stamp,
            // Where that cannot be told, the least.
            disk: disk::space(&self.data_dir.join("pg_wal")).map_or(0, |space| space.size),
        };
        let text = self.own.render(directions, &rendering);
        // That it may be a primary is known before it can be one, that it is none after.
        if matches!(directions, Directions::Leads(_)) {
            self.forget_standby()?;
            *lock(&self.directions) = directions.clone();
        }
        self.files.write(&self.settings_file(), &text, 0o600)?;
        self.strip_auto_conf(&text)?;
        *lock(&self.directions) = directions.clone();
        Ok(stamp)
    }

    /// What the user set, anywhere.
    fn users_settings(&self) -> BTreeMap<String, String> {
        let read = |path: &Path| self.files.read(path).ok().flatten();
        let own = self.settings_file();
        let mut settings = conf::values(&self.data_dir.join("postgresql.conf"), &own, &read);
        settings.extend(conf::values(&self.data_dir.join("postgresql.auto.conf"), &own, &read));
        settings
    }

    /// Makes `postgresql.conf` include our settings last.
    pub(super) fn include_settings(&self) -> Result<()> {
        let path = self.data_dir.join("postgresql.conf");
        let text = match self.files.read(&path)? {
            Some(text) => text,
            None => match self.packaged_config() {
                Some(packaged) => format!("include_if_exists = {}\n", conf::quote(&packaged.to_string_lossy())),
                None => String::new(),
            },
        };
        let is_include = |line: &str| conf::parse_line(line) == conf::parse_line(INCLUDE);
        let mut settings = text.lines().rev().filter(|line| conf::parse_line(line).is_some());
        if settings.next().is_some_and(is_include) {
            return Ok(());
        }
        let mut text = conf::without(&text, &|name, value| name == "include_if_exists" && value == SETTINGS);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("# The settings of qluster come last, so that they count.\n{INCLUDE}\n");
        self.files.write(&path, &text, 0o600)?;
        Ok(())
    }

    /// The configuration that a package (Debian's) keeps outside of the data directory.
    fn packaged_config(&self) -> Option<PathBuf> {
        let versions = std::fs::read_dir("/etc/postgresql").ok()?.flatten();
        let clusters = versions.filter_map(|version| std::fs::read_dir(version.path()).ok()).flatten().flatten();
        let mut paths = clusters.map(|cluster| cluster.path().join("postgresql.conf"));
        paths.find(|path| {
            let settings = conf::values(path, Path::new(""), &|path| self.files.read(path).ok().flatten());
            let dir = settings.get("data_directory").and_then(|dir| Path::new(dir).canonicalize().ok());
            dir.is_some_and(|dir| dir == self.data_dir)
        })
    }

    /// Takes out of `postgresql.auto.conf`, which is read after all others, what would undo our settings.
    fn strip_auto_conf(&self, rendered: &str) -> Result<()> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let Some(text) = self.files.read(&path)? else { return Ok(()) };
        let ours: BTreeMap<String, String> = rendered.lines().filter_map(conf::parse_line).collect();
        let unwanted = |name: &str, value: &str| conflicts(name, value, ours.get(name).map(String::as_str));
        self.files.write(&path, &conf::without(&text, &unwanted), 0o600)?;
        Ok(())
    }

    /// Whether the file that says who may connect lets clients in.
    pub(super) fn access(&self) -> Result<Access> {
        Ok(Access::parse(&self.files.read(&self.own.hba_file)?.unwrap_or_default()))
    }

    /// Writes the files that say who may connect, in their present form unless another is given, and tells whether they
    /// changed.
    pub(super) fn write_access(&self, access: Option<Access>) -> Result<bool> {
        let access = access.map_or_else(|| self.access(), Ok)?;
        let superusers: Vec<&str> = self.superusers.iter().map(String::as_str).collect();
        let accounts = &self.files.accounts;
        let mut names = vec![accounts.agent.as_str()];
        if accounts.database.name != accounts.agent {
            names.push(&accounts.database.name);
        }
        let hba = hba::hba(&superusers, self.passwords.is_some(), access, &self.users_rules()?);
        let ident = hba::ident(&accounts.agent, &names, &superusers, &self.users_access("pg_ident.conf")?);
        let changed = self.files.write(&self.own.hba_file, &hba, 0o600)?;
        Ok(self.files.write(&self.own.ident_file, &ident, 0o600)? || changed)
    }

    /// The user's `pg_hba.conf`; where PostgreSQL refused that as it is now, the last one that it took.
    fn users_rules(&self) -> Result<String> {
        let rules = self.users_access("pg_hba.conf")?;
        if self.files.read(&self.refused_rules())?.as_ref() == Some(&rules)
            && let Some(good) = self.files.read(&self.data_dir.join(GOOD_RULES))?
        {
            return Ok(good);
        }
        Ok(rules)
    }

    /// Keeps the user's rules, as they were written last: PostgreSQL takes them.
    pub(super) fn keep_rules(&self) -> Result<()> {
        let hba = self.files.read(&self.own.hba_file)?.unwrap_or_default();
        if let Some(rules) = hba::users_part(&hba) {
            self.files.write(&self.data_dir.join(GOOD_RULES), rules, 0o600)?;
        }
        Ok(())
    }

    /// Takes note that PostgreSQL does not take the user's rules, as they were written last, and tells whether others
    /// are kept, to be written next.
    pub(super) fn refuse_rules(&self) -> Result<bool> {
        let hba = self.files.read(&self.own.hba_file)?.unwrap_or_default();
        let good = self.files.read(&self.data_dir.join(GOOD_RULES))?;
        let Some(rules) = hba::users_part(&hba) else { return Ok(false) };
        self.files.write(&self.refused_rules(), rules, 0o600)?;
        Ok(good.is_some_and(|good| good != rules))
    }

    /// The user's file of this name: in the data directory, or beside the packaged configuration.
    fn users_access(&self, name: &str) -> Result<String> {
        if let Some(text) = self.files.read(&self.data_dir.join(name))? {
            return Ok(text);
        }
        let packaged = self.packaged_config().map(|path| path.with_file_name(name));
        Ok(packaged.map(|path| self.files.read(&path)).transpose()?.flatten().unwrap_or_default())
    }

    /// When the user's files that say who may connect were last changed.
    pub(super) fn access_changed(&self) -> [Option<std::time::SystemTime>; 2] {
        ["pg_hba.conf", "pg_ident.conf"]
            .map(|name| std::fs::metadata(self.data_dir.join(name)).and_then(|about| about.modified()).ok())
    }
}
