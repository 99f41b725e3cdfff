//! PostgreSQL's configuration files: ours, and how they get their place beside the user's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::packaged::{list, packaged_config, reads};
use super::settings::{Own, Rendering, conflicts};
use crate::database::error::Result;
use crate::formats::conf;
use crate::formats::directions::Directions;
use crate::os::files::Files;
use crate::os::lock::lock;

/// The file with qluster's settings, in the data directory.
const SETTINGS: &str = "qluster.conf";

/// The file that PostgreSQL is started with, in place of `postgresql.conf`. If somebody replaces `postgresql.conf`, or
/// appends to it, that would undo our settings at the next reload. This file is in the data directory, since relative
/// paths are resolved from where it is.
const MAIN: &str = "qluster_main.conf";
const MAIN_TEXT: &str = "# Written by qluster, and overwritten. Your own settings belong into postgresql.conf.
include_if_exists = 'postgresql.conf'
include = 'qluster.conf'
";

/// The line by which programs that read `postgresql.conf` alone, such as pg_rewind, read our settings. It comes last, so
/// that our settings count.
const INCLUDE: &str = "include_if_exists = 'qluster.conf'";

/// Settings that a standby must not go below, and their least values.
pub(crate) type Floors = Vec<(&'static str, u64)>;

/// The configuration files of a data directory.
pub(crate) struct SettingsFiles {
    data_dir: PathBuf,
    files: Files,
    /// What the database was told last. It is also in `qluster.conf`.
    directions: Mutex<Directions>,
    /// The least values with which it starts as a standby. None until they were asked for.
    floors: Mutex<Option<Floors>>,
}

impl SettingsFiles {
    /// Reads what the database was told last.
    pub(super) fn new(data_dir: PathBuf, files: Files) -> Result<Self> {
        let directions = Mutex::new(Directions::Fenced);
        let settings = Self { data_dir, files, directions, floors: Mutex::default() };
        if let Some(directions) = settings.told()? {
            *lock(&settings.directions) = directions;
        }
        Ok(settings)
    }

    fn file(&self) -> PathBuf {
        self.data_dir.join(SETTINGS)
    }

    /// The configuration file that PostgreSQL is started with.
    pub(crate) fn main_file(&self) -> PathBuf {
        self.data_dir.join(MAIN)
    }

    /// Whether our settings exist: a running postmaster was started by qluster, or at least with its settings.
    pub(crate) fn exist(&self) -> bool {
        self.file().exists()
    }

    /// What the database was told last.
    pub(crate) fn directions(&self) -> Directions {
        lock(&self.directions).clone()
    }

    /// What the database was told last, as the file says. None if the file does not say it.
    pub(super) fn told(&self) -> Result<Option<Directions>> {
        Ok(Directions::parse(&self.files.read(&self.file())?.unwrap_or_default()))
    }

    /// Has the least values asked for again: the control file may have changed.
    pub(super) fn forget_floors(&self) {
        *lock(&self.floors) = None;
    }

    /// The text of `qluster.conf` for these directions, and its stamp. `disk` is the size of the filesystem with the WAL, in
    /// bytes. `floors` is called if the least values are not known yet.
    pub(super) fn render(
        &self,
        own: &Own,
        directions: &Directions,
        disk: u64,
        floors: impl FnOnce() -> Result<Floors>,
    ) -> Result<(String, String)> {
        let mut known = lock(&self.floors);
        let floors = match &mut *known {
            Some(floors) => floors,
            none => none.insert(floors()?),
        };
        let stamp = uuid::Uuid::new_v4().simple().to_string();
        let text = own.render(directions, &Rendering { users: &self.users(), floors, stamp: &stamp, disk });
        Ok((stamp, text))
    }

    /// Writes `qluster.conf` with a text that was rendered for these directions. Whoever calls this holds the turn since
    /// before the rendering: otherwise an older text could replace a newer one.
    pub(super) fn write(&self, directions: &Directions, text: &str) -> Result<()> {
        // That it may be a primary is known before it can be one. That it is none is known after.
        if matches!(directions, Directions::Leads(_)) {
            *lock(&self.directions) = directions.clone();
        }
        self.files.write(&self.file(), text, 0o600)?;
        self.strip_auto_conf(text)?;
        *lock(&self.directions) = directions.clone();
        Ok(())
    }

    /// Writes the configuration file that PostgreSQL is started with.
    pub(super) fn write_main(&self) -> Result<()> {
        self.files.write(&self.main_file(), MAIN_TEXT, 0o600)?;
        Ok(())
    }

    /// What the user has set, in any file.
    pub(super) fn users(&self) -> BTreeMap<String, String> {
        let read = reads(&self.files);
        let reader = conf::Reader { read: &read, list: &list };
        let own = self.file();
        let mut settings = reader.values(&self.data_dir.join("postgresql.conf"), &own);
        settings.extend(reader.values(&self.data_dir.join("postgresql.auto.conf"), &own));
        settings
    }

    /// Makes `postgresql.conf` include our settings last.
    pub(crate) fn include(&self) -> Result<()> {
        let path = self.data_dir.join("postgresql.conf");
        let text = match self.files.read(&path)? {
            Some(text) => text,
            None => match packaged_config(&self.data_dir, &self.files) {
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

    /// Removes from `postgresql.auto.conf`, which PostgreSQL reads after all others, what would undo our settings.
    fn strip_auto_conf(&self, rendered: &str) -> Result<()> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let Some(text) = self.files.read(&path)? else { return Ok(()) };
        let ours: BTreeMap<String, String> = rendered.lines().filter_map(conf::parse_line).collect();
        let unwanted = |name: &str, value: &str| conflicts(name, value, ours.get(name).map(String::as_str));
        self.files.write(&path, &conf::without(&text, &unwanted), 0o600)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::account::Accounts;

    #[test]
    fn our_settings_are_included_last_whatever_the_user_appends() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { accounts: Accounts::find(None).unwrap() };
        let settings = SettingsFiles::new(dir.path().to_owned(), files).unwrap();
        let path = dir.path().join("postgresql.conf");
        let included = "# The settings of qluster come last, so that they count.\ninclude_if_exists = 'qluster.conf'\n";
        std::fs::write(&path, "work_mem = '1MB'").unwrap();
        settings.include().unwrap();
        let expected = format!("work_mem = '1MB'\n{included}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        settings.include().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        std::fs::write(&path, format!("{expected}port = 1\n")).unwrap();
        settings.include().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(&format!("port = 1\n{included}")), "{text}");
        assert_eq!(text.matches("include_if_exists").count(), 1, "{text}");
    }
}
