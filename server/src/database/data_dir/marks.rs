//! Durable notes on the past of the database. They are empty files in the run directory:
//!
//! - `rewinding` exists while pg_rewind changes the data directory. It is not in the data directory, since pg_rewind removes
//!   there what the source lacks.
//! - `standby` exists while the database is a standby that was seen to run as one.
//! - `strayed` exists while the database has WAL that it wrote as a primary without having been told to be one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::database::error::Result;
use crate::os::files::{Files, remove_file, sync_dir};

/// The notes of a database.
pub(crate) struct Marks {
    run_dir: PathBuf,
    files: Files,
    /// Whether `standby` exists.
    stood_by: AtomicBool,
    /// Whether `strayed` exists.
    strayed: AtomicBool,
    /// Whether, since the last start, it was seen to be a primary without having been told to.
    seen_primary: AtomicBool,
}

impl Marks {
    /// Reads which notes there are.
    pub(super) fn new(run_dir: PathBuf, files: Files) -> Self {
        let exists = |name: &str| AtomicBool::new(run_dir.join(name).exists());
        let (stood_by, strayed) = (exists("standby"), exists("strayed"));
        Self { run_dir, files, stood_by, strayed, seen_primary: AtomicBool::new(false) }
    }

    fn rewind_mark(&self) -> PathBuf {
        self.run_dir.join("rewinding")
    }

    fn standby_mark(&self) -> PathBuf {
        self.run_dir.join("standby")
    }

    fn strayed_mark(&self) -> PathBuf {
        self.run_dir.join("strayed")
    }

    /// Whether the database was noted to be a standby.
    pub(crate) fn stood_by(&self) -> bool {
        self.stood_by.load(Ordering::SeqCst)
    }

    /// Notes durably that the database runs as a standby, as it was told.
    pub(crate) fn note_standby(&self) -> Result<()> {
        self.files.write(&self.standby_mark(), "", 0o600)?;
        self.stood_by.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether somebody other than qluster has promoted the database, as far as that was found when it was started.
    pub(crate) fn strayed(&self) -> bool {
        self.strayed.load(Ordering::SeqCst)
    }

    /// Whether the control file of a stopped database has to be asked if it was a primary. `leads`: it was told to be one.
    pub(super) fn may_have_strayed(&self, leads: bool) -> bool {
        let seen = self.seen_primary.load(Ordering::SeqCst);
        let unknown = !leads && !self.stood_by() && !seen;
        !(self.strayed() && !leads || unknown)
    }

    /// Notes durably that somebody other than qluster has promoted the database.
    pub(super) fn note_strayed(&self) -> Result<()> {
        tracing::warn!("PostgreSQL was a primary without having been told to: somebody else has promoted it");
        self.files.write(&self.strayed_mark(), "", 0o600)?;
        self.strayed.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Notes, until it is started again, that it runs as a primary without having been told to.
    pub(crate) fn see_primary(&self) {
        self.seen_primary.store(true, Ordering::SeqCst);
    }

    /// Forgets what `see_primary` noted.
    pub(super) fn forget_sighting(&self) {
        self.seen_primary.store(false, Ordering::SeqCst);
    }

    /// Notes that it is ordered to lead: from now on it may end as a primary without having strayed.
    pub(crate) fn forget_standby(&self) -> Result<()> {
        self.forget(&self.standby_mark(), &self.stood_by)
    }

    /// Notes that the past of the database does not matter any more: it is a new copy, was rewound, or has led.
    pub(crate) fn forget_past(&self) -> Result<()> {
        // In this order: a crash between the two must not leave what looks like a standby that strayed.
        self.forget_standby()?;
        self.forget(&self.strayed_mark(), &self.strayed)
    }

    fn forget(&self, mark: &Path, known: &AtomicBool) -> Result<()> {
        if known.load(Ordering::SeqCst) {
            remove_file(mark)?;
            sync_dir(&self.run_dir)?;
            known.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Why the data cannot be used. None if they can.
    pub(crate) fn broken(&self) -> Option<String> {
        let mark = self.rewind_mark().exists();
        mark.then(|| "a rewind was interrupted, which leaves the data unusable: it must be cloned".into())
    }

    /// Notes durably that pg_rewind is about to change the data directory.
    pub(crate) fn begin_rewind(&self) -> Result<()> {
        self.files.write(&self.rewind_mark(), "", 0o600)?;
        Ok(())
    }

    /// Notes durably that pg_rewind does not change the data directory any more, and that its data are whole.
    pub(crate) fn end_rewind(&self) -> Result<()> {
        remove_file(&self.rewind_mark())?;
        Ok(sync_dir(&self.run_dir)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::account::Accounts;

    #[test]
    fn notes_survive_and_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Marks::new(dir.path().to_owned(), Files { accounts: Accounts::find(None).unwrap() });
        let marks = open();
        assert!(!marks.stood_by() && !marks.strayed() && marks.broken().is_none());
        // Nothing is known about a database that was never seen as a standby.
        assert!(!marks.may_have_strayed(false) && marks.may_have_strayed(true));
        marks.note_standby().unwrap();
        assert!(open().stood_by() && open().may_have_strayed(false));
        marks.note_strayed().unwrap();
        marks.begin_rewind().unwrap();
        let marks = open();
        assert!(marks.strayed() && marks.broken().is_some() && !marks.may_have_strayed(false));
        marks.end_rewind().unwrap();
        marks.forget_past().unwrap();
        assert!(!open().stood_by() && !open().strayed() && open().broken().is_none());
        marks.see_primary();
        assert!(marks.may_have_strayed(false));
        marks.forget_sighting();
        assert!(!marks.may_have_strayed(false));
    }
}
