//! A node: a daemon that was started here, and the database that it manages.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::Map;
use super::directory::set_mode;
use super::disk::Disk;
use crate::{http, postgres, process};

/// How long a killed process may take to be dead. It takes longer only if it hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How many lines of each log are shown if something fails.
const TAIL: usize = 25;

/// The file that holds the secret.
const SECRET: &str = "peer-secret";

/// The environment variable that says how much the daemon logs.
const LOG: &str = "QLUSTER_LOG";

/// The program of the database server.
const POSTGRES: &str = "postgres";

/// The addresses of a node, and what is special about how it runs.
pub(crate) struct Place {
    ip: Ipv4Addr,
    api_port: u16,
    db_port: u16,
    /// The words before the daemon's command: none, or a command that runs it in a network of its own.
    pub(crate) launcher: Vec<String>,
    /// The program of this node, if it does not run the same as the others.
    pub(crate) program: Option<PathBuf>,
    /// Variables that are added to its environment.
    pub(crate) env: Vec<(&'static str, &'static str)>,
    /// The secret by which nodes recognise each other, if they have one.
    pub(crate) secret: Option<&'static str>,
    /// The size of its own file system in MiB, if it has one.
    pub(crate) disk: Option<u32>,
}

impl Place {
    /// A place in the network of this process.
    pub(crate) fn new(ip: Ipv4Addr, api_port: u16, db_port: u16) -> Self {
        Self { ip, api_port, db_port, launcher: Vec::new(), program: None, env: Vec::new(), secret: None, disk: None }
    }
}

/// A node of the cluster.
pub(crate) struct Node {
    /// 1 for the first node. Its id in the cluster may differ.
    pub(crate) number: usize,
    place: Place,
    /// All files of the node are below this directory.
    dir: PathBuf,
    disk: Option<Disk>,
    server: PathBuf,
    bin_dir: PathBuf,
    daemon: Option<Child>,
}

impl Node {
    /// Creates a node with a directory of its own in `parent`. It does not run yet.
    pub(crate) fn new(number: usize, parent: &Path, server: PathBuf, bin_dir: PathBuf, place: Place) -> Result<Self> {
        let dir = parent.join(format!("node{number}"));
        std::fs::create_dir(&dir).with_context(|| format!("creating the directory {}", dir.display()))?;
        set_mode(&dir)?;
        if let Some(secret) = place.secret {
            let path = dir.join(SECRET);
            let file = File::options().create_new(true).write(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, secret.as_bytes()));
            written.with_context(|| format!("writing {}", path.display()))?;
        }
        let disk = place.disk.map(|size| Disk::mount(&dir.join("disk"), size)).transpose()?;
        let server = place.program.clone().unwrap_or(server);
        Ok(Self { number, place, dir, disk, server, bin_dir, daemon: None })
    }

    /// Starts the daemon with this command. Its output is appended to its log.
    pub(crate) fn start(&mut self, command: &[&str]) -> Result<()> {
        let path = self.log();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("opening the log {}", path.display()))?;
        let mut daemon = match self.place.launcher.split_first() {
            Some((program, args)) => {
                let mut launcher = Command::new(program);
                launcher.args(args).arg(&self.server);
                launcher
            }
            None => Command::new(&self.server),
        };
        // Settings of the user who runs this are not the node's, but what it logs is for that user.
        let is_setting = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"QLUSTER_") && name != LOG;
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
            daemon.env_remove(name);
        }
        daemon.envs(self.place.env.iter().copied());
        daemon.args(["--ip", &self.place.ip.to_string(), "--api-port", &self.place.api_port.to_string()]);
        daemon.args(["--db-port", &self.place.db_port.to_string()]);
        daemon.arg("--data-dir").arg(self.data_dir());
        daemon.arg("--db-data-dir").arg(self.db_dir());
        daemon.arg("--db-bin-dir").arg(&self.bin_dir);
        if self.place.secret.is_some() {
            daemon.arg("--peer-secret-file").arg(self.dir.join(SECRET));
        }
        if rustix::process::geteuid().is_root() {
            daemon.args(["--db-os-user", "postgres"]);
        }
        daemon.args(command).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // All its processes can be found by its directory and its process group. Outside of our group, it does not
        // receive the terminal's Ctrl-C: that goes to us, and we stop the nodes in order.
        daemon.current_dir(&self.dir).process_group(0);
        let doing = || format!("starting {} for node {}", self.server.display(), self.number);
        self.daemon = Some(daemon.spawn().with_context(doing)?);
        Ok(())
    }

    /// Fails if the daemon has ended.
    pub(crate) fn ensure_running(&self) -> Result<()> {
        if self.daemon().is_some_and(process::is_alive) {
            return Ok(());
        }
        bail!("the daemon of node {} has ended; its log is {}", self.number, self.log().display())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.api())
    }

    /// The address of its API.
    pub(crate) fn api(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.place.ip, self.place.api_port)
    }

    /// The address of its database.
    pub(crate) fn db(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.place.ip, self.place.db_port)
    }

    /// The file system that it has for itself.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Lets clients into its database by another line of its `pg_hba.conf`.
    pub(crate) fn admit(&self, line: &str) -> Result<()> {
        let path = self.db_dir().join("pg_hba.conf");
        let file = File::options().append(true).open(&path);
        let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
        written.with_context(|| format!("writing to {}", path.display()))
    }

    /// Removes all that it keeps, of which nothing runs any more.
    pub(crate) fn wipe(&self) -> Result<()> {
        for dir in [self.data_dir(), self.db_dir()].iter().filter(|dir| dir.exists()) {
            std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        Ok(())
    }

    /// The log of its daemon.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    fn files(&self) -> &Path {
        self.disk.as_ref().map_or(&self.dir, Disk::path)
    }

    fn data_dir(&self) -> PathBuf {
        self.files().join("data")
    }

    fn db_dir(&self) -> PathBuf {
        self.files().join("db")
    }

    /// The process id of its daemon, if one was started.
    pub(crate) fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// The process id of its database server, if one runs.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        let pid = postgres::postmaster(&self.db_dir())?;
        self.processes().contains(&pid).then_some(pid)
    }

    /// The ids of all its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        process::of_node(&self.dir, self.daemon())
    }

    /// The processes of its database server.
    pub(crate) fn database(&self) -> Vec<u32> {
        let is_server = |pid: &u32| process::program(*pid).is_some_and(|name| name == POSTGRES);
        self.processes().into_iter().filter(is_server).collect()
    }

    /// The exit status of its daemon, if that has ended.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.daemon.as_mut()?.try_wait().ok()??;
        self.daemon = None;
        Some(status)
    }

    /// Fails unless the node says that it leads; the error is its reason.
    pub(crate) fn is_leader(&self) -> Result<()> {
        self.get("/is-leader").map(|_| ())
    }

    /// Its cluster map.
    pub(crate) fn map(&self) -> Result<Map> {
        Map::parse(&self.get("/map")?)
    }

    fn get(&self, path: &str) -> Result<String> {
        let answer = http::get(self.api(), path)?;
        if answer.status != 200 {
            bail!("node {} answers {path} with {}: {}", self.number, answer.status, answer.body.trim());
        }
        Ok(answer.body)
    }

    /// Sends a signal to the daemon.
    pub(crate) fn signal(&self, signal: Signal) {
        // It was not reaped yet, so the process id is still that of the daemon, or of its zombie.
        if let Some(pid) = self.daemon() {
            process::signal(pid, signal);
        }
    }

    /// Kills the daemon, then the database server, then all their children, at once: none of them can write anything
    /// more. Returns the processes that did not die.
    pub(crate) fn kill(&mut self) -> Vec<u32> {
        let mut pids = self.processes();
        let rank = |pid: u32| (Some(pid) != self.daemon(), Some(pid) != postgres::postmaster(&self.db_dir()));
        pids.sort_by_cached_key(|&pid| rank(pid));
        for &pid in &pids {
            process::signal(pid, Signal::KILL);
        }
        // The daemon may have started another process in between. Once it is dead, it starts no more.
        process::wait_dead(self.daemon().into_iter().collect(), KILL_LIMIT);
        let late = self.processes();
        for &pid in &late {
            process::signal(pid, Signal::KILL);
        }
        let left = process::wait_dead([pids, late].concat(), KILL_LIMIT);
        if left.is_empty()
            && let Some(mut daemon) = self.daemon.take()
        {
            let _ = daemon.wait();
        }
        left
    }

    /// The ends of its logs, for a person who looks for the fault.
    pub(crate) fn log_tails(&self) -> String {
        let (run, db) = (self.data_dir().join("run"), self.db_dir());
        let logs = [&self.dir, &run, &db, &db.join("log")].map(|dir| logs_in(dir)).concat();
        let tails = logs.iter().map(|path| {
            let text = std::fs::read(path).unwrap_or_default();
            format!("--- node {}: end of {}\n{}\n", self.number, path.display(), tail(&String::from_utf8_lossy(&text)))
        });
        tails.collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if self.disk.is_some() {
            // The disk goes; its logs are kept as long as the directory.
            for log in logs_in(&self.data_dir().join("run")) {
                let _ = log.file_name().map(|name| std::fs::copy(&log, self.dir.join(name)));
            }
        }
    }
}

fn logs_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    logs.sort();
    logs
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines() {
        let text: String = (1..=30).map(|line| format!("{line}\n")).collect();
        assert_eq!(tail(&text).lines().next(), Some("6"));
        assert_eq!(tail("one\ntwo\n"), "one\ntwo");
        assert_eq!(tail(""), "");
    }
}
