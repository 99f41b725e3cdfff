//! The processes of a data directory: which there are, and ending them.
//!
//! A process belongs to a data directory if that is its working directory and if its program has one of the names that
//! PostgreSQL's programs have here. The working directory is the data directory for the postmaster, its backends, a
//! single-user server and the programs that the daemon runs on it. So backends that outlive their postmaster are found,
//! too. The path of the program does not count: an upgrade may move the programs while they run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::error::{Error, Result};
use super::process::{children, signal, works_in};

/// How often processes that are about to end are checked.
const CHECK_PERIOD: Duration = Duration::from_millis(5);

/// The content of a `postmaster.pid` (PostgreSQL's documentation, "Database File Layout").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// The process id. A single-user server writes it as a negative number.
    pub(crate) pid: i32,
    /// The port, once it is written.
    pub(crate) port: Option<u16>,
    /// The first directory of its sockets, once it is written.
    pub(crate) socket_dir: Option<PathBuf>,
}

impl PidFile {
    /// Reads the text of the file. A starting postmaster may have written only a part of it. None without a process id.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next()?.parse().ok()?;
        let mut lines = lines.skip(2);
        let port = lines.next().and_then(|line| line.parse().ok());
        let socket_dir = lines.next().filter(|line| !line.is_empty()).map(PathBuf::from);
        Some(Self { pid, port, socket_dir })
    }
}

/// The running postmaster of a data directory, by its `postmaster.pid`.
pub(crate) fn postmaster(data_dir: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = PidFile::parse(&text)?.pid;
    (pid > 0 && works_in(pid, data_dir)).then_some(pid)
}

/// The processes that work in `data_dir` (a canonical path) and whose program has the name of one of `programs`; and the
/// postmaster with its children, whatever their programs are called. An administrator's shell in that directory does not
/// count.
pub(crate) fn all_of(data_dir: &Path, programs: &[PathBuf]) -> Vec<i32> {
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
    // The kernel names a program so that an upgrade has replaced.
    let path = exe.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map_or(exe, Path::new);
    path.file_name().is_some_and(|name| programs.iter().any(|program| program.file_name() == Some(name)))
}

/// The demote ladder: an immediate shutdown first (SIGQUIT), then SIGKILL early enough that no process is left when
/// `deadline`, counted from now, has passed.
///
/// Backends get the signals directly, too: a postmaster that is stopped or stuck passes nothing on.
///
/// # Errors
///
/// If a process cannot be signalled, or if SIGKILL did not end one: then it hangs in the kernel.
pub(crate) async fn end_at(data_dir: &Path, programs: &[PathBuf], deadline: Duration) -> Result<()> {
    let begun = Instant::now();
    let kill_at = deadline * 3 / 4;
    let postmaster = postmaster(data_dir);
    let mut left = all_of(data_dir, programs);
    signal_all(&left, postmaster, Signal::QUIT)?;
    let mut killed = false;
    loop {
        left.retain(|&pid| works_in(pid, data_dir));
        if left.is_empty() {
            // A backend may have been forked meanwhile.
            left = all_of(data_dir, programs);
            if left.is_empty() {
                return Ok(());
            }
            signal_all(&left, postmaster, if killed { Signal::KILL } else { Signal::QUIT })?;
        }
        if begun.elapsed() >= kill_at && !killed {
            killed = true;
            left = all_of(data_dir, programs);
            signal_all(&left, postmaster, Signal::KILL)?;
        }
        // A process that survives SIGKILL hangs in the kernel. It serves nobody until it wakes up, and then it dies.
        if begun.elapsed() >= deadline * 2 + Duration::from_secs(10) {
            return Err(Error::Unfit(format!("processes {left:?} did not end by SIGKILL")));
        }
        tokio::time::sleep(CHECK_PERIOD).await;
    }
}

/// Signals the postmaster first, so that it stops forking, then the others.
fn signal_all(pids: &[i32], postmaster: Option<i32>, kind: Signal) -> Result<()> {
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
}
