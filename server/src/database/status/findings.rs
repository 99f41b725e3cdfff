//! What the monitor and operations found out, for looks at the database to show.

use std::sync::Mutex;

use super::disk::Disks;
use super::missing_wal::MissingWal;
use crate::os::lock::lock;

/// What looks at the database cannot see by themselves.
#[derive(Default)]
pub(crate) struct Findings {
    /// Whether it is being rebuilt, and how far that is, in percent.
    rebuilding: Mutex<Option<Option<u8>>>,
    /// Why it does not run.
    trouble: Mutex<Option<String>>,
    /// Why PostgreSQL would not load any settings.
    faulty: Mutex<Option<String>>,
    /// Which settings make commits not wait as the sync rule says.
    unprotected: Mutex<Option<String>>,
    /// Why a standby does not stream.
    pub(crate) wal: MissingWal,
    /// Which disks are full.
    pub(crate) disks: Disks,
}

impl Findings {
    /// How far a rebuild is, in percent, if that is known. None if none is under way.
    pub(crate) fn rebuilding(&self) -> Option<Option<u8>> {
        *lock(&self.rebuilding)
    }

    /// Notes how far a rebuild is, or that none is under way.
    pub(crate) fn set_rebuilding(&self, progress: Option<Option<u8>>) {
        *lock(&self.rebuilding) = progress;
    }

    /// Why the database does not run, as the monitor found.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Notes why the database does not run, or that nothing is known against it.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// Why PostgreSQL would not load any settings.
    pub(crate) fn faulty(&self) -> Option<String> {
        lock(&self.faulty).clone()
    }

    /// Notes why PostgreSQL would not load any settings. Returns what was known before.
    pub(crate) fn set_faulty(&self, faulty: Option<String>) -> Option<String> {
        std::mem::replace(&mut *lock(&self.faulty), faulty)
    }

    /// Notes which settings make commits not wait. Returns what was known before.
    pub(crate) fn set_unprotected(&self, unprotected: Option<String>) -> Option<String> {
        std::mem::replace(&mut *lock(&self.unprotected), unprotected)
    }
}
