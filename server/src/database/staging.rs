//! Putting a new data directory in the place of an old one, so that a kill at any line loses nothing that is whole.
//!
//! The new one grows inside of the data directory, which may be a mount point or a link, or in a directory where
//! nothing else may be created. Three names tell how far it is:
//!
//! 1. `qluster.new.*`: grows, and is thrown away when it is found. What is around it is the old data, still whole.
//! 2. `qluster.ready`: is complete. What is around it is old, and is removed.
//! 3. `qluster.install`: nothing old is left. Its files move up, `PG_VERSION` last, without which a directory is none
//!    of PostgreSQL.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::files::{entries, remove, sync_dir};

const NEW: &str = "qluster.new.";
const READY: &str = "qluster.ready";
const INSTALL: &str = "qluster.install";
const VERSION: &str = "PG_VERSION";

/// What a data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing, or nothing that is whole.
    Nothing,
    /// A database of this major version of PostgreSQL; of a fork that counts otherwise, none.
    Database(Option<u32>),
}

/// Looks what is in a data directory, and refuses one that is somebody else's. Changes nothing.
pub(super) fn look(data_dir: &Path) -> Result<Contents> {
    if !data_dir.exists() {
        return Ok(Contents::Nothing);
    }
    match std::fs::read_to_string(data_dir.join(VERSION)) {
        Ok(text) => return Ok(Contents::Database(text.trim().parse().ok())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::file("read", &data_dir.join(VERSION))(error)),
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

/// Finishes an installation that was interrupted, and throws away what never became complete.
pub(super) fn finish(data_dir: &Path) -> Result<()> {
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
        std::fs::rename(&ready, &install).map_err(Error::file("rename", &ready))?;
        sync_dir(data_dir)?;
    }
    if install.is_dir() {
        let mut paths = entries(&install)?;
        paths.sort_by_key(|path| path.ends_with(VERSION));
        for path in paths {
            if path.ends_with(VERSION) {
                // All the others must be there, durably, before this one says so.
                sync_dir(data_dir)?;
            }
            let to = data_dir.join(path.file_name().unwrap_or_default());
            std::fs::rename(&path, &to).map_err(Error::file("move", &path))?;
        }
        remove(&install)?;
        sync_dir(data_dir)?;
    }
    Ok(())
}

/// A name for a new data directory to grow at. It is never used again, so that a program which outlived an earlier
/// agent writes into nothing that is new.
pub(super) fn new_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(format!("{NEW}{}", uuid::Uuid::new_v4().simple()))
}

/// Puts what grew at `new` in the place of what is around it.
pub(super) fn install(data_dir: &Path, new: &Path) -> Result<()> {
    let ready = data_dir.join(READY);
    std::fs::rename(new, &ready).map_err(Error::file("rename", new))?;
    sync_dir(data_dir)?;
    finish(data_dir)
}

/// Removes a database and leaves only what is not its own. `PG_VERSION` goes first: what is left is none.
pub(super) fn clear(data_dir: &Path) -> Result<()> {
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
