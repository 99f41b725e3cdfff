//! Putting a new data directory in the place of an old one. A kill at any line loses no whole database.
//!
//! The new data grow inside the data directory: that may be a mount point or a link, and nothing may be creatable beside
//! it. The name of the directory with the new data says how far it is:
//!
//! 1. `qluster.new.*` is incomplete, and is removed when it is found. Around it are the old data, still whole.
//! 2. `qluster.ready` is complete. The files around it are old, and are removed.
//! 3. `qluster.install` means that nothing old is left. Its files move up, `PG_VERSION` last: without this file, a directory
//!    is no data directory of PostgreSQL.

use std::path::{Path, PathBuf};

use crate::database::error::{Error, Result};
use crate::os;
use crate::os::files::{entries, remove, sync_dir};

const NEW: &str = "qluster.new.";
const READY: &str = "qluster.ready";
const INSTALL: &str = "qluster.install";
const VERSION: &str = "PG_VERSION";

/// What a data directory contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing, or nothing that is whole.
    Nothing,
    /// A database of this major version of PostgreSQL. None for a fork that counts its versions differently.
    Database(Option<u32>),
}

/// Looks what is in a data directory. Changes nothing.
///
/// # Errors
///
/// If the directory contains files, and they are no database.
pub(crate) fn look(data_dir: &Path) -> Result<Contents> {
    if !data_dir.exists() {
        return Ok(Contents::Nothing);
    }
    match std::fs::read_to_string(data_dir.join(VERSION)) {
        Ok(text) => return Ok(Contents::Database(text.trim().parse().ok())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(os::Error::file("read", &data_dir.join(VERSION))(error).into()),
    }
    let paths = entries(data_dir)?;
    if data_dir.join(READY).is_dir() || data_dir.join(INSTALL).is_dir() {
        return Ok(Contents::Nothing);
    }
    match paths.iter().find(|path| !is_ours(path) && !path.ends_with("lost+found")) {
        Some(foreign) => Err(Error::Unfit(format!(
            "{} is no data directory of PostgreSQL, and not empty: it has {}",
            data_dir.display(),
            foreign.file_name().unwrap_or_default().display()
        ))),
        None => Ok(Contents::Nothing),
    }
}

/// Finishes an interrupted installation, and removes new data that never became complete.
pub(crate) fn finish(data_dir: &Path) -> Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    for path in entries(data_dir)? {
        if name(&path).starts_with(NEW) {
            remove(&path)?;
        }
    }
    let (ready, install) = (data_dir.join(READY), data_dir.join(INSTALL));
    if ready.is_dir() {
        clear(data_dir)?;
        std::fs::rename(&ready, &install).map_err(os::Error::file("rename", &ready))?;
        sync_dir(data_dir)?;
    }
    if install.is_dir() {
        let mut paths = entries(&install)?;
        paths.sort_by_key(|path| path.ends_with(VERSION));
        for path in paths {
            if path.ends_with(VERSION) {
                // All others must be there durably before this one says so.
                sync_dir(data_dir)?;
            }
            let to = data_dir.join(path.file_name().unwrap_or_default());
            std::fs::rename(&path, &to).map_err(os::Error::file("move", &path))?;
        }
        remove(&install)?;
        sync_dir(data_dir)?;
    }
    Ok(())
}

/// The path for new data. Each call returns another one: a program that outlived an earlier daemon must not write into
/// the new data.
pub(crate) fn new_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(format!("{NEW}{}", uuid::Uuid::new_v4().simple()))
}

/// Puts the new data at `new` in the place of the old data around it.
pub(crate) fn install(data_dir: &Path, new: &Path) -> Result<()> {
    let ready = data_dir.join(READY);
    std::fs::rename(new, &ready).map_err(os::Error::file("rename", new))?;
    sync_dir(data_dir)?;
    finish(data_dir)
}

/// Removes a database, and leaves our directories and `lost+found`. `PG_VERSION` goes first: without it, the rest is no
/// database.
pub(crate) fn clear(data_dir: &Path) -> Result<()> {
    remove(&data_dir.join(VERSION))?;
    sync_dir(data_dir)?;
    for path in entries(data_dir)? {
        if !is_ours(&path) && !path.ends_with("lost+found") {
            remove(&path)?;
        }
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    let name = name(path);
    name.starts_with(NEW) || name == READY || name == INSTALL
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(dir: &Path, mark: &str) {
        std::fs::create_dir_all(dir.join("base")).unwrap();
        std::fs::write(dir.join("base/1"), mark).unwrap();
        std::fs::write(dir.join(VERSION), "15\n").unwrap();
    }

    fn mark(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("base/1")).unwrap()
    }

    #[test]
    fn a_new_database_takes_the_place_of_the_old() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), "old");
        std::fs::write(dir.path().join("only-old"), "").unwrap();
        let new = new_dir(dir.path());
        fill(&new, "new");
        install(dir.path(), &new).unwrap();
        assert_eq!(mark(dir.path()), "new");
        assert_eq!(look(dir.path()).unwrap(), Contents::Database(Some(15)));
        assert_eq!(entries(dir.path()).unwrap().len(), 2);
    }

    #[test]
    fn what_never_became_complete_is_thrown_away_and_the_old_stays() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), "old");
        fill(&new_dir(dir.path()), "new");
        finish(dir.path()).unwrap();
        assert_eq!(mark(dir.path()), "old");
        assert_eq!(entries(dir.path()).unwrap().len(), 2);
    }

    #[test]
    fn an_interrupted_installation_is_finished() {
        // Killed while the old was being removed, and killed while the new was being moved.
        for (stage, left) in [(READY, "only-old"), (INSTALL, "moved")] {
            let dir = tempfile::tempdir().unwrap();
            fill(&dir.path().join(stage), "new");
            std::fs::write(dir.path().join(left), "").unwrap();
            assert_eq!(look(dir.path()).unwrap(), Contents::Nothing);
            finish(dir.path()).unwrap();
            assert_eq!(mark(dir.path()), "new");
            assert_eq!(look(dir.path()).unwrap(), Contents::Database(Some(15)));
            assert_eq!(dir.path().join("moved").exists(), stage == INSTALL);
            assert!(!dir.path().join("only-old").exists());
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()).unwrap(), Contents::Nothing);
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        assert_eq!(look(dir.path()).unwrap(), Contents::Nothing);
        std::fs::write(dir.path().join("thesis.txt"), "").unwrap();
        assert!(look(dir.path()).unwrap_err().to_string().contains("thesis.txt"));
        assert_eq!(look(&dir.path().join("absent")).unwrap(), Contents::Nothing);
    }
}
