//! PostgreSQL's programs, and sessions with a server through `psql`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where distributions put the programs that are not on the PATH, in one directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What psql prints after the answer to each statement. No row of ours looks like it.
const END: &str = "--end--";

/// The directory of PostgreSQL's programs. If there are several versions, it is that of the newest.
pub(crate) fn bin_dir() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, dir)| is_whole(dir))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions.pop().map(|(_, dir)| dir).or_else(|| std::env::split_paths(&path).find(|dir| is_whole(dir)))
}

fn is_whole(dir: &Path) -> bool {
    ["postgres", "initdb", "pg_basebackup", "psql"].iter().all(|program| dir.join(program).exists())
}

/// Connection parameters for `psql`.
pub(crate) fn conninfo(at: SocketAddrV4) -> String {
    format!("host={} port={} user=postgres dbname=postgres", at.ip(), at.port())
}

/// Ends connections whose other side has vanished silently: no statement waits for it for ever.
const KEEPALIVES: &str = "connect_timeout=2 keepalives_idle=2 keepalives_interval=1 keepalives_count=3 \
                        tcp_user_timeout=5000";

/// The warning of PostgreSQL when it stops waiting for standbys. The commit may then be on the primary alone.
const UNREPLICATED: &str = "might not have been replicated";

/// The process id of the server on a data directory, from its pid file.
pub(crate) fn postmaster(data_dir: &Path) -> Option<u32> {
    std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

/// A connection: a `psql` that keeps running and gets one statement after the other. It starts in 15 ms and answers in
/// less than one.
pub(crate) struct Session {
    psql: Child,
    stdin: ChildStdin,
    lines: Receiver<Line>,
    /// What has come so far of the answer that is waited for.
    rows: Vec<String>,
    complaints: Vec<String>,
}

enum Line {
    Out(String),
    Err(String),
}

impl Session {
    /// A session with the server at an address.
    pub(crate) fn open(bin_dir: &Path, at: SocketAddrV4) -> Result<Self> {
        let mut command = Command::new(bin_dir.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(format!("{} {KEEPALIVES} application_name=xtask", conninfo(at)));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Outside of our process group: Ctrl-C goes to us alone, and we end it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut psql = command.spawn().with_context(|| format!("starting {}/psql", bin_dir.display()))?;
        let (sender, lines) = channel();
        forward(psql.stdout.take(), sender.clone(), Line::Out);
        forward(psql.stderr.take(), sender, Line::Err);
        let stdin = psql.stdin.take().context("psql has no standard input")?;
        Ok(Self { psql, stdin, lines, rows: Vec::new(), complaints: Vec::new() })
    }

    /// Runs one statement and returns its rows, with columns separated by `|`. After an error the session must not be
    /// used again, and it is unknown whether the statement took effect.
    ///
    /// The limit ends the wait, not the statement: if a statement that waits for replication is cancelled, it commits
    /// without.
    pub(crate) fn query(&mut self, sql: &str, limit: Duration) -> Result<Vec<String>> {
        let doing = || format!("running {sql:?} with psql");
        // If this fails, psql has ended. What it complained of comes with the answer and says more.
        let sent = self.send(sql);
        match self.answer(limit).with_context(doing)? {
            Some(rows) => Ok(rows),
            None => {
                sent.with_context(doing)?;
                Err(anyhow::anyhow!("no answer within {} s", limit.as_secs_f64())).with_context(doing)
            }
        }
    }

    /// Sends one statement. [`Self::answer`] returns its answer.
    pub(crate) fn send(&mut self, sql: &str) -> std::io::Result<()> {
        (self.rows, self.complaints) = (Vec::new(), Vec::new());
        self.stdin.write_all(format!("{sql};\n\\echo {END}\n").as_bytes())
    }

    /// The answer to the statement that was sent. None if it has not come within the limit; it can be asked for again.
    pub(crate) fn answer(&mut self, limit: Duration) -> Result<Option<Vec<String>>> {
        let start = Instant::now();
        loop {
            match self.lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(Line::Out(line)) if line == END => break,
                Ok(Line::Out(line)) => self.rows.push(line),
                Ok(Line::Err(line)) => self.complaints.push(line),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) if self.complaints.is_empty() => bail!("psql ended without a word"),
                Err(RecvTimeoutError::Disconnected) => bail!("{}", self.complaints.join(" ")),
            }
        }
        match self.complaints.iter().any(|line| line.contains(UNREPLICATED)) {
            true => bail!("{}", self.complaints.join(" ")),
            false => Ok(Some(std::mem::take(&mut self.rows))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// Reads in a thread of its own, so that a reader of lines can stop waiting.
fn forward(from: Option<impl Read + Send + 'static>, to: Sender<Line>, kind: fn(String) -> Line) {
    let Some(from) = from else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(kind(line)).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn the_server_is_the_first_line_of_its_pid_file() {
        let dir = std::env::temp_dir().join(format!("xtask-postmaster-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(postmaster(&dir), None);
        std::fs::write(dir.join("postmaster.pid"), "4711\n/data\n").unwrap();
        assert_eq!(postmaster(&dir), Some(4711));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_session_with_nobody_fails_with_what_psql_says() {
        // Without PostgreSQL there is nothing to try; `cargo xtask test` installs it first.
        let Some(bin_dir) = bin_dir() else { return };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut session = Session::open(&bin_dir, SocketAddrV4::new(Ipv4Addr::LOCALHOST, free)).unwrap();
        let error = session.query("SELECT 1", Duration::from_secs(5)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("SELECT 1") && error.contains("Connection refused"), "{error}");
    }
}
