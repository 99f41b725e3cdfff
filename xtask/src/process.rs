//! Processes as the kernel reports them: which run in a directory, whether they are alive, what they use.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

/// The programs of a node. Others that happen to work in its directory, a shell for example, do not belong to it.
const PROGRAMS: [&str; 8] = [
    "qluster-server",
    "qluster-server-faults",
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_ctl",
    "pg_rewind",
    "pg_controldata",
];

/// The kernel reports processor time in hundredths of a second on all machines that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Resident memory in KiB, and the same with each shared page divided among its users.
    pub(crate) rss: u64,
    pub(crate) pss: u64,
    /// Processor time used so far.
    pub(crate) cpu: Duration,
}

/// The living processes of a node that keeps all its files below `dir`: its daemon, which leads the process group
/// `daemon` if it was started here; what the daemon runs; and its database, which leaves that group but works in its data
/// directory. Because pid files are not used, orphans are found too, and no process that got the pid of another.
pub(crate) fn of_node(dir: &Path, daemon: Option<u32>) -> Vec<u32> {
    let dir = dir.canonicalize().ok();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_its_own = |&pid: &u32| {
        let Some(stat) = stat(pid) else { return false };
        let in_group = daemon.is_some_and(|daemon| group(&stat) == Some(daemon));
        is_running(&stat) && (in_group || dir.as_ref().is_some_and(|dir| works_in(pid, dir)))
    };
    pids.filter(is_its_own).collect()
}

/// Whether it runs one of a node's programs and works below `dir`.
fn works_in(pid: u32, dir: &Path) -> bool {
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
    cwd.is_ok_and(|cwd| cwd.starts_with(dir)) && program(pid).is_some_and(|name| PROGRAMS.contains(&name.as_str()))
}

/// The file name of the program that a process runs.
pub(crate) fn program(pid: u32) -> Option<String> {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // The kernel adds this suffix after a rebuild has replaced the program.
    Some(exe.file_name()?.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
}

/// Whether a process is alive. A zombie is not, even if nobody has reaped it yet.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| is_running(&stat))
}

fn is_running(stat: &str) -> bool {
    fields(stat).next().is_some_and(|state| !matches!(state, "Z" | "X"))
}

/// The process group in a `/proc/PID/stat`.
fn group(stat: &str) -> Option<u32> {
    fields(stat).nth(2)?.parse().ok()
}

fn stat(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// Sends a signal. It is no failure if the process has ended already.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Waits until none of `pids` is alive, `limit` at most. Returns those that still are.
pub(crate) fn wait_dead(mut pids: Vec<u32>, limit: Duration) -> Vec<u32> {
    let start = Instant::now();
    loop {
        pids.retain(|&pid| is_alive(pid));
        if pids.is_empty() || start.elapsed() >= limit {
            return pids;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a process uses at the moment.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let read = |name| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    };
    let (rss, pss) = memory(&read("smaps_rollup")?)?;
    Ok(Usage { rss, pss, cpu: cpu(&read("stat")?)? })
}

/// The niceness of a process.
pub(crate) fn niceness(pid: u32) -> Result<i32> {
    let stat = stat(pid).with_context(|| format!("there is no process {pid}"))?;
    let nice = fields(&stat).nth(16).and_then(|field| field.parse().ok());
    nice.with_context(|| format!("expected the fields of /proc/PID/stat (man 5 proc), got {stat:?}"))
}

/// The fields of `/proc/PID/stat` from the state on. The name before it may contain anything, spaces and brackets too.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

fn cpu(stat: &str) -> Result<Duration> {
    let ticks: Vec<u64> = fields(stat).skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, system] => Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND)),
        _ => bail!("expected the fields of /proc/PID/stat (man 5 proc), got {stat:?}"),
    }
}

/// RSS and PSS in KiB of a `/proc/PID/smaps_rollup`.
fn memory(smaps: &str) -> Result<(u64, u64)> {
    let value = |name: &str| {
        let line = smaps.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("expected a line `{name}: N kB` in smaps_rollup, got {smaps:?}"))
    };
    Ok((value("Rss")?, value("Pss")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    const STAT: &str = "4711 (tricky) name) S 1 4712 4711 0 -1 4194560 900 0 0 0 123 45 0 0 20 0 5 0 100 0 0";

    #[test]
    fn state_and_group_are_read_past_any_name() {
        assert!(is_running(STAT));
        assert!(!is_running(&STAT.replace(" S ", " Z ")));
        assert_eq!(group(STAT), Some(4712));
    }

    #[test]
    fn processor_time_is_read_past_any_name() {
        assert_eq!(cpu(STAT).unwrap(), Duration::from_millis(1680));
        assert!(cpu("4711 (short) S 1").is_err());
    }

    #[test]
    fn memory_is_read() {
        let smaps = "55e0-7ffc ---p 0 00:00 0 [rollup]\nRss:               12340 kB\nPss:                6789 kB\n\
                     Pss_Dirty:          1000 kB\n";
        assert_eq!(memory(smaps).unwrap(), (12340, 6789));
        assert!(memory("Rss: 1 kB\n").unwrap_err().to_string().contains("`Pss: N kB`"));
    }

    #[test]
    fn a_zombie_is_dead_and_a_killed_process_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        assert!(is_alive(child.id()));
        assert_eq!(of_node(Path::new("/absent"), Some(child.id())), [child.id()]);
        signal(child.id(), Signal::KILL);
        // Not reaped yet: a zombie.
        assert_eq!(wait_dead(vec![child.id()], Duration::from_secs(5)), Vec::<u32>::new());
        assert_eq!(of_node(Path::new("/absent"), Some(child.id())), Vec::<u32>::new());
        child.wait().unwrap();
    }

    #[test]
    fn this_process_uses_something_and_belongs_to_no_node() {
        let me = std::process::id();
        assert!(usage(me).unwrap().rss > 0);
        assert!(!of_node(Path::new("/"), None).contains(&me));
    }
}
