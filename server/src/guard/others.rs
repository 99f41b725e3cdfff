//! Guards of earlier daemons. They continue until the deadline that they know.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::error::GuardError;
use super::{COMMAND, WatchdogMode};
use crate::os::process::is_alive;

/// How long a killed process may take to end. After that, the kernel holds it.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Kills the other guards of the database in `data_dir`, and waits until they have ended and what they hold is free.
/// Returns the watchdogs that they may have left armed.
///
/// Only for a guard that has a deadline: the others know an earlier one.
pub(super) fn relieve(data_dir: &Path) -> Result<Vec<PathBuf>, GuardError> {
    let mut watchdogs = Vec::new();
    for pid in find(data_dir) {
        // It cannot be read after the process has ended.
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        watchdogs.extend(watchdog(&cmdline));
        let failed = |source| GuardError::Earlier { pid, source };
        let Some(target) = Pid::from_raw(pid) else { continue };
        match rustix::process::kill_process(target, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let begun = Instant::now();
        while is_alive(pid) {
            if begun.elapsed() > KILL_TIMEOUT {
                return Err(failed(Errno::TIMEDOUT.into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(watchdogs)
}

/// The process ids of the other guards. They are found by what they run, and not by a process id file: that could be old, or
/// belong to somebody else.
fn find(data_dir: &Path) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let me = std::process::id();
    let own = rustix::process::geteuid().as_raw();
    let place = std::env::current_dir().ok();
    let is_one = |pid: &i32| {
        let dir = Path::new("/proc").join(pid.to_string());
        let same_account = || std::fs::metadata(&dir).is_ok_and(|about| about.uid() == own);
        let same_place = || place.is_some() && std::fs::read_link(dir.join("cwd")).ok() == place;
        let same_task = || std::fs::read(dir.join("cmdline")).is_ok_and(|cmdline| is_guard(&cmdline, data_dir));
        u32::try_from(*pid) != Ok(me) && same_account() && same_place() && same_task() && is_alive(*pid)
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_one).collect()
}

/// Whether a `/proc/…/cmdline` is that of a guard of the database in `data_dir`, whatever its program is called.
fn is_guard(cmdline: &[u8], data_dir: &Path) -> bool {
    let mut words = cmdline.split(|&byte| byte == 0).skip(1);
    words.next() == Some(COMMAND.as_bytes()) && words.next().map(OsStr::from_bytes) == Some(data_dir.as_os_str())
}

/// The watchdog that a guard uses, by its `/proc/…/cmdline`. None if it uses none.
fn watchdog(cmdline: &[u8]) -> Option<PathBuf> {
    let mut words = cmdline.split(|&byte| byte == 0).skip(3);
    let mode = words.next().and_then(|mode| WatchdogMode::from_str(std::str::from_utf8(mode).ok()?, false).ok())?;
    let device = words.next().filter(|device| !device.is_empty())?;
    (mode != WatchdogMode::Off).then(|| OsStr::from_bytes(device).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_told_by_its_task() {
        for (cmdline, expected) in [
            (&b"/usr/bin/qluster-server\0guard\0/data\0off\0/dev/watchdog\0"[..], true),
            (b"qluster-server\0guard\0/data/2\0", false),
            (b"qluster-server\0run\0/data\0", false),
            (b"guard\0/data\0", false),
            (b"", false),
        ] {
            assert_eq!(is_guard(cmdline, Path::new("/data")), expected, "{}", String::from_utf8_lossy(cmdline));
        }
    }

    #[test]
    fn its_watchdog_is_told_by_what_it_was_started_with() {
        for (cmdline, expected) in [
            (&b"qluster-server\0guard\0/data\0off\0/dev/watchdog\0/bin/postgres\0"[..], None),
            (b"qluster-server\0guard\0/data\0automatic\0/dev/watchdog\0/bin/postgres\0", Some("/dev/watchdog")),
            (b"qluster-server\0guard\0/data\0required\0/dev/watchdog1\0", Some("/dev/watchdog1")),
            (b"qluster-server\0guard\0/data\0odd\0/dev/watchdog\0", None),
            (b"qluster-server\0guard\0/data\0", None),
        ] {
            assert_eq!(watchdog(cmdline).as_deref(), expected.map(Path::new), "{}", String::from_utf8_lossy(cmdline));
        }
    }
}
