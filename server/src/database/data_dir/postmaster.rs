//! Which postmaster runs on the data directory, and the lock files of a dead one.

use std::path::PathBuf;
use std::sync::Mutex;

use qluster_consensus::model::Port;

use super::programs::Programs;
use crate::database::error::Result;
use crate::os::files::remove_file;
use crate::os::lock::lock;
use crate::os::{postmaster, process};

/// The postmaster of a data directory.
pub(crate) struct Postmaster {
    data_dir: PathBuf,
    programs: Programs,
    /// The postmaster that was started last. Its process id file comes later.
    spawned: Mutex<Option<i32>>,
}

impl Postmaster {
    pub(super) fn new(data_dir: PathBuf, programs: Programs) -> Self {
        Self { data_dir, programs, spawned: Mutex::default() }
    }

    /// The process id of the running postmaster.
    pub(crate) fn pid(&self) -> Option<i32> {
        let spawned = *lock(&self.spawned);
        spawned.filter(|&pid| process::is_alive(pid)).or_else(|| postmaster::postmaster(&self.data_dir))
    }

    /// Whether this postmaster has written its process id file.
    pub(crate) fn has_pid_file(&self, pid: i32) -> bool {
        postmaster::postmaster(&self.data_dir) == Some(pid)
    }

    /// Whether the postmaster has no socket yet.
    pub(crate) fn is_just_started(&self) -> bool {
        let text = std::fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        postmaster::PidFile::parse(&text).is_none_or(|file| file.socket_dir.is_none())
    }

    /// Notes that this postmaster was started.
    pub(crate) fn spawned(&self, pid: i32) {
        *lock(&self.spawned) = Some(pid);
    }

    /// Notes that no postmaster runs.
    pub(crate) fn ended(&self) {
        *lock(&self.spawned) = None;
    }

    /// Notes that a process was reaped: its id may belong to another process from now on.
    pub(crate) fn reaped(&self, pid: i32) {
        lock(&self.spawned).take_if(|spawned| *spawned == pid);
    }

    /// The processes of the database.
    pub(crate) fn processes(&self) -> Vec<i32> {
        postmaster::all_of(&self.data_dir, &self.programs.on_data())
    }

    /// Whether nothing of the database runs.
    pub(crate) fn is_gone(&self) -> bool {
        self.pid().is_none() && self.processes().is_empty()
    }

    /// Removes the lock files of a dead postmaster, in the data directory and in `socket_dirs`. PostgreSQL takes a zombie for
    /// alive, and also another process of its account that got the same process id.
    pub(super) fn remove_stale_locks(&self, socket_dirs: impl FnOnce() -> Vec<PathBuf>, port: Port) -> Result<()> {
        if !self.is_gone() {
            return Ok(());
        }
        remove_file(&self.data_dir.join("postmaster.pid"))?;
        for dir in socket_dirs() {
            let lock = dir.join(format!(".s.PGSQL.{port}.lock"));
            let text = std::fs::read_to_string(&lock).unwrap_or_default();
            let holder = text.lines().nth(1).map(PathBuf::from);
            if holder.is_some_and(|holder| holder.canonicalize().is_ok_and(|holder| holder == self.data_dir)) {
                remove_file(&lock)?;
            }
        }
        Ok(())
    }
}
