//! PostgreSQL's programs, and sessions with a server by way of `psql`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where distributions put the programs that are not on the PATH: a directory a version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What psql prints after the answer to each statement; no row of ours looks like it.
const END: &str = "--end--";

/// The directory of PostgreSQL's programs, of the newest version there is.
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

/// How `psql` is told where to connect.
pub(crate) fn conninfo(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=postgres dbname=postgres")
}

/// The process id of the server that runs on a data directory, by its pid file.
pub(crate) fn postmaster(data_dir: &Path) -> Option<u32> {
    std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

/// A connection. A `psql` that stays, fed statement by statement: it starts in 15 ms and answers in less than one.
pub(crate) struct Session {
    psql: Child,
    stdin: ChildStdin,
    lines: Receiver<Line>,
}

enum Line {
    Out(String),
    Err(String),
}

impl Session {
    /// A session that connects to `port` with its first statement.
    pub(crate) fn open(bin_dir: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(bin_dir.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(format!("{} connect_timeout=2 application_name=xtask", conninfo(port)));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not of our process group: Ctrl-C is for us alone, who then end it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut psql = command.spawn().with_context(|| format!("starting {}/psql", bin_dir.display()))?;
        let (sender, lines) = channel();
        forward(psql.stdout.take(), sender.clone(), Line::Out);
        forward(psql.stderr.take(), sender, Line::Err);
        let stdin = psql.stdin.take().context("psql has no standard input")?;
        Ok(Self { psql, stdin, lines })
    }

    /// Runs one statement, and answers with its rows, columns separated by `|`. After an error the session is of no use
    /// any more, and what became of the statement is not known.
    ///
    /// The limit ends the wait, not the statement: one that waits for replication, when cancelled, commits without.
    pub(crate) fn query(&mut self, sql: &str, limit: Duration) -> Result<Vec<String>> {
        let doing = || format!("running {sql:?} with psql");
        let written = self.stdin.write_all(format!("{sql};\n\\echo {END}\n").as_bytes());
        let mut rows = Vec::new();
        let mut complaints = Vec::new();
        loop {
            match self.lines.recv_timeout(limit) {
                Ok(Line::Out(line)) if line == END => return Ok(rows),
                Ok(Line::Out(line)) => rows.push(line),
                Ok(Line::Err(line)) => complaints.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(anyhow::anyhow!("no answer within {} s", limit.as_secs_f64())).with_context(doing);
                }
                Err(RecvTimeoutError::Disconnected) if complaints.is_empty() => {
                    written.with_context(doing)?;
                    return Err(anyhow::anyhow!("psql ended without a word")).with_context(doing);
                }
                Err(RecvTimeoutError::Disconnected) => bail!("{}: {}", doing(), complaints.join(" ")),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// Reads on in a thread of its own, so that whoever waits for a line can stop waiting.
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
        let mut session = Session::open(&bin_dir, free).unwrap();
        let error = session.query("SELECT 1", Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("SELECT 1") && error.contains("Connection refused"), "{error}");
    }
}
