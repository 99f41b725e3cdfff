//! The processes of a database: which there are, waiting for them to end, and ending them.
//!
//! They are told by their working directory, which is the data directory for the postmaster, its backends, a single-user
//! server and the programs that the agent runs on it, and by the name of their program. So backends that outlive their
//! postmaster are found as well. Not by its path: an upgrade may move the programs while they run. A zombie is dead: it
//! holds nothing and serves nobody, and who reaps it may take seconds.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::{Error, Result};

/// Between two looks at processes that are about to end.
const STEP: Duration = Duration::from_millis(5);

/// What a `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    /// The process; a single-user server writes it negative.
    pub(super) pid: i32,
    /// Its port, once it has one.
    pub(super) port: Option<u16>,
    /// The first directory of its sockets.
    pub(super) socket_dir: Option<PathBuf>,
}

impl PidFile {
    /// Reads it; a file that a starting postmaster has written in part is read as far as it goes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next()?.parse().ok()?;
        let mut lines = lines.skip(2);
        let port = lines.next().and_then(|line| line.parse().ok());
        let socket_dir = lines.next().filter(|line| !line.is_empty()).map(PathBuf::from);
        Some(Self { pid, port, socket_dir })
    }
}

/// The running postmaster of a data directory.
pub(super) fn postmaster(data_dir: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = PidFile::parse(&text)?.pid;
    (pid > 0 && works_in(pid, data_dir)).then_some(pid)
}

/// Whether a process is alive and works in `dir`. Neither is so for a zombie, nor for another that got its id.
///
/// The directory itself is compared, not its name: a postmaster that an earlier agent started may see other mounts, as
/// under systemd, and then its name may be another one here.
pub(super) fn works_in(pid: i32, dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let which = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let cwd = PathBuf::from(format!("/proc/{pid}/cwd"));
    is_alive(pid) && which(&cwd).is_some_and(|cwd| which(dir) == Some(cwd))
}

/// Whether a process runs. A zombie does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(state(&stat), Some('Z' | 'X') | None)
}

/// The state in a `/proc/…/stat`: what follows the command, which may itself hold spaces and parentheses.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The processes that work in `data_dir` (canonical) and run a program with the name of one of `programs`, and the
/// postmaster with its children, by whatever name. Others may work there, too: an administrator's.
pub(super) fn all_of(data_dir: &Path, programs: &[PathBuf]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let postmaster = postmaster(data_dir);
    let family: Vec<i32> = postmaster.map_or(Vec::new(), |pid| [vec![pid], children(pid)].concat());
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let runs_one = || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| is_named(&exe, programs));
        family.contains(pid) || runs_one()
    };
    pids.filter(|&pid| works_in(pid, data_dir)).filter(is_one).collect()
}

/// Whether a `/proc/…/exe` has the name of one of `programs`.
fn is_named(exe: &Path, programs: &[PathBuf]) -> bool {
    // So reads a program that was replaced by an upgrade.
    let path = exe.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map_or(exe, Path::new);
    path.file_name().is_some_and(|name| programs.iter().any(|program| program.file_name() == Some(name)))
}

/// How often a process has gone to sleep by itself.
pub(super) fn sleeps(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// The children of a process, zombies too.
///
/// Of all processes, since the kernel's own list of them may lack some while others end.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |child: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        parent(&stat) == Some(pid)
    };
    pids.filter(is_child).collect()
}

/// The parent in a `/proc/…/stat`: what follows the state.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The sockets that a process has open, by the names that the kernel gives them. One that is gone has none.
pub(super) fn sockets(pid: i32) -> Result<BTreeSet<PathBuf>> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    let gone = |error: &std::io::Error| {
        error.kind() == std::io::ErrorKind::NotFound
            || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
    };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        // So does a zombie's.
        Err(error) if gone(&error) || !is_alive(pid) => return Ok(BTreeSet::new()),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Ok(targets.filter(|target| target.to_str().is_some_and(|target| target.starts_with("socket:"))).collect())
}

/// Sends a signal; that the process is gone is no error.
pub(super) fn signal(pid: i32, signal: Signal) -> Result<()> {
    let Some(target) = Pid::from_raw(pid).filter(|_| pid > 1) else { return Ok(()) };
    match rustix::process::kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(source) => Err(Error::Signal { pid, source: source.into() }),
    }
}

/// Waits until a process has ended.
pub(super) async fn ended(pid: i32) {
    // Where there are no pidfds, or no more descriptors, a slow look is good enough.
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

/// Registers a descriptor to wait for. The function is deprecated for descriptors that can be closed meanwhile, which one
/// that is owned cannot; its successor needs `unsafe`.
#[allow(deprecated)]
fn readable(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// The demote ladder: an immediate stop, and SIGKILL in time for nobody to be left at `deadline`.
///
/// Backends get the signal from here too: a postmaster that is stopped or stuck passes nothing on.
pub(super) async fn end_at(data_dir: &Path, programs: &[PathBuf], deadline: Duration) -> Result<()> {
    let begun = Instant::now();
    let kill_at = deadline * 3 / 4;
    let postmaster = postmaster(data_dir);
    let mut left = all_of(data_dir, programs);
    each(&left, postmaster, Signal::QUIT)?;
    let mut killed = false;
    loop {
        left.retain(|&pid| works_in(pid, data_dir));
        if left.is_empty() {
            // A backend may have been forked since.
            left = all_of(data_dir, programs);
            if left.is_empty() {
                return Ok(());
            }
            each(&left, postmaster, if killed { Signal::KILL } else { Signal::QUIT })?;
        }
        if begun.elapsed() >= kill_at && !killed {
            killed = true;
            left = all_of(data_dir, programs);
            each(&left, postmaster, Signal::KILL)?;
        }
        // A process that not even SIGKILL ends hangs in the kernel, and serves nobody until it wakes up to die.
        if begun.elapsed() >= deadline * 2 + Duration::from_secs(10) {
            return Err(Error::Unfit(format!("processes {left:?} did not end by SIGKILL")));
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Signals the postmaster first, so that it forks no more, then the others.
fn each(pids: &[i32], postmaster: Option<i32>, kind: Signal) -> Result<()> {
    if let Some(postmaster) = postmaster.filter(|postmaster| pids.contains(postmaster)) {
        signal(postmaster, kind)?;
    }
    for &pid in pids.iter().filter(|&&pid| Some(pid) != postmaster) {
        signal(pid, kind)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_pid_file_or_none(text in "(-?[0-9]{0,12}|/[a-z ]{0,9}|\\PC{0,9}|\0)(\r?\n\\PC{0,9}){0,9}") {
            if let Some(file) = PidFile::parse(&text) {
                prop_assert!(text.trim_start().starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')));
                prop_assert!(file.socket_dir.is_none_or(|dir| !dir.as_os_str().is_empty()));
            }
            let _ = state(&text);
        }
    }

    #[test]
    fn a_pid_file_is_read_whole_or_in_part() {
        let whole = "4711\n/var/lib/pg\n1700000000\n5433\n/run/qluster\n127.0.0.1\n  123 0\nready   \n";
        let expected = PidFile { pid: 4711, port: Some(5433), socket_dir: Some("/run/qluster".into()) };
        assert_eq!(PidFile::parse(whole), Some(expected));
        for (text, pid) in [("4711", Some(4711)), ("-5\n/x\n", Some(-5)), ("", None), ("x\n", None), ("\0\n", None)] {
            assert_eq!(PidFile::parse(text).map(|file| file.pid), pid, "{text:?}");
        }
    }

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
    fn a_program_is_told_by_its_name_wherever_it_is_by_now() {
        let programs: Vec<PathBuf> = vec!["/opt/pg/bin/postgres".into(), "/opt/pg/bin/pg_rewind".into()];
        for (exe, expected) in [
            ("/opt/pg/bin/postgres", true),
            ("/opt/pg-15.4/bin/postgres", true),
            ("/opt/pg-15.4/bin/postgres (deleted)", true),
            ("/usr/bin/pg_rewind", true),
            ("/usr/bin/psql", false),
            ("/opt/postgres/psql", false),
            ("/", false),
        ] {
            assert_eq!(is_named(Path::new(exe), &programs), expected, "{exe}");
        }
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
            std::thread::sleep(STEP);
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
