//! Single processes: their state, their children and sockets, signals, and waiting for an end.
//!
//! A zombie counts as dead: it holds nothing and serves nobody, and it may take seconds until its parent reaps it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::{Error, Result};

/// Whether a process is alive and has `dir` as its working directory. False for a zombie, and for another process that
/// got the same id.
///
/// The directory itself is compared, not its name: a postmaster that an earlier daemon started may see other mounts, as
/// under systemd, and then the directory may have another name here.
pub(crate) fn works_in(pid: i32, dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let which = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let cwd = PathBuf::from(format!("/proc/{pid}/cwd"));
    is_alive(pid) && which(&cwd).is_some_and(|cwd| which(dir) == Some(cwd))
}

/// Whether a process is alive. A zombie is not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(state(&stat), Some('Z' | 'X') | None)
}

/// The state in a `/proc/…/stat`. It follows the command, which may contain spaces and parentheses.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// How often a process has gone to sleep by itself (voluntary context switches). None if that cannot be read.
pub(crate) fn sleeps(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// The children of a process, zombies included.
///
/// All processes are searched, since the kernel's own list of children may lack some while others end.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |child: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        parent(&stat) == Some(pid)
    };
    pids.filter(is_child).collect()
}

/// The parent in a `/proc/…/stat`. It follows the state.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The sockets that a process has open, by the kernel's names for them. A process that is gone has none.
pub(crate) fn sockets(pid: i32) -> Result<BTreeSet<PathBuf>> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    let gone = |error: &std::io::Error| {
        error.kind() == std::io::ErrorKind::NotFound
            || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
    };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        // Reading that of a zombie fails, too.
        Err(error) if gone(&error) || !is_alive(pid) => return Ok(BTreeSet::new()),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Ok(targets.filter(|target| target.to_str().is_some_and(|target| target.starts_with("socket:"))).collect())
}

/// Sends a signal. It is no error if the process is gone.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    let Some(target) = Pid::from_raw(pid).filter(|_| pid > 1) else { return Ok(()) };
    match rustix::process::kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(source) => Err(Error::Signal { pid, source: source.into() }),
    }
}

/// Waits until a process has ended.
pub(crate) async fn ended(pid: i32) {
    // Without pidfds, or without free descriptors, slow polling is good enough.
    if let Some(target) = Pid::from_raw(pid)
        && let Ok(descriptor) = rustix::process::pidfd_open(target, PidfdFlags::NONBLOCK)
        && let Ok(descriptor) = readable(descriptor)
        && is_alive(pid)
    {
        let _ = descriptor.readable().await;
        return;
    }
    while is_alive(pid) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Registers a descriptor to wait for. The function is deprecated since a descriptor may be closed meanwhile. An owned one
/// cannot. The successor of the function needs `unsafe`.
#[allow(deprecated)]
fn readable(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_works_in_a_directory_by_whatever_name_and_not_in_one_that_took_its_place() {
        let ground = tempfile::tempdir().unwrap();
        let (dir, name) = (ground.path().join("data"), ground.path().join("name"));
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(&dir, &name).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(&dir).spawn().unwrap();
        let pid = child.id() as i32;
        assert!(works_in(pid, &dir) && works_in(pid, &name) && !works_in(pid, ground.path()));
        std::fs::rename(&dir, ground.path().join("old")).unwrap();
        std::fs::create_dir(&dir).unwrap();
        assert!(!works_in(pid, &dir));
        child.kill().unwrap();
        while is_alive(pid) {
            std::thread::yield_now();
        }
        assert!(!works_in(pid, &ground.path().join("old")), "a zombie");
        child.wait().unwrap();
    }

    #[test]
    fn the_state_is_read_behind_any_command_name() {
        for (stat, expected) in
            [("1 (postgres) S 0 1", Some('S')), ("1 (a) R) Z (b) Z 0", Some('Z')), ("1 (postgres", None), ("", None)]
        {
            assert_eq!(state(stat), expected, "{stat}");
        }
    }

    #[test]
    fn the_parent_is_read_behind_any_command_name() {
        for (stat, expected) in [("7 (postgres) S 12 1", Some(12)), ("7 (a) S 3 (b) Z 4 0", Some(4)), ("7 (a", None)] {
            assert_eq!(parent(stat), expected, "{stat}");
        }
    }

    #[test]
    fn children_and_their_sockets_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(children(own).contains(&pid) && !children(pid).contains(&own));
        let before = sockets(own).unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(sockets(own).unwrap().difference(&before).count() >= 1);
        drop(socket);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(sockets(pid).unwrap().is_empty());
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while is_alive(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        signal(pid, Signal::KILL).unwrap();
        tokio::time::timeout(Duration::from_secs(5), ended(pid)).await.unwrap();
        child.wait().unwrap();
    }
}
