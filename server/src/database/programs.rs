//! PostgreSQL's programs: where they are, and running them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::error::{Error, Result};

/// How much of what a program said is kept for an error message.
const TAIL: usize = 2000;

/// PostgreSQL's programs on this host.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// Where they are.
    dir: PathBuf,
    /// Names of those that a fork has renamed.
    renamed: BTreeMap<String, String>,
}

impl Programs {
    /// Finds the programs in `dir`, or where they usually are: of `wanted`, the version that a data directory has,
    /// otherwise the newest.
    pub(super) fn find(dir: Option<&Path>, renamed: &BTreeMap<String, String>, wanted: Option<u32>) -> Result<Self> {
        let server = renamed.get("postgres").map_or("postgres", String::as_str);
        let candidates = match dir {
            Some(dir) => vec![dir.to_owned()],
            None => usual_dirs(wanted),
        };
        let Some(dir) = candidates.iter().find(|dir| dir.join(server).is_file()) else {
            let hint = "install it or set `bin-dir`";
            let places: Vec<String> = candidates.iter().map(|dir| dir.display().to_string()).collect();
            return Err(Error::Unfit(format!("there is no PostgreSQL in {}: {hint}", places.join(", "))));
        };
        let program = dir.join(server);
        let output = std::process::Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|source| Error::Spawn { program: program.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        check_version(&text, wanted)?;
        Ok(Self { dir: dir.clone(), renamed: renamed.clone() })
    }

    /// The path of a program, by PostgreSQL's own name for it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(self.renamed.get(name).map_or(name, String::as_str))
    }

    /// Those that work on a data directory, by the names that they are known by, and as the kernel names them.
    pub(super) fn on_data(&self) -> Vec<PathBuf> {
        let names = ["postgres", "initdb", "pg_rewind", "pg_basebackup"];
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in names.map(|name| self.path(name)) {
            // A link may have another name than what it leads to.
            let canonical = path.canonicalize().ok().filter(|canonical| canonical.file_name() != path.file_name());
            paths.extend(canonical);
            paths.push(path);
        }
        paths
    }
}

/// Where PostgreSQL is installed by the usual packages, and then the path.
fn usual_dirs(wanted: Option<u32>) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = Vec::new();
    for (root, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|name| name.parse().ok());
            versions.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    versions.sort_by(|one, other| other.cmp(one));
    // A data directory is opened by its own version only; the sort is stable.
    versions.sort_by_key(|(version, _)| wanted.is_some_and(|wanted| wanted != *version));
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions.into_iter().map(|(_, dir)| dir).chain(std::env::split_paths(&path)).collect()
}

/// Refuses what is too old or does not fit the data directory. Forks count their versions in their own way, so only
/// PostgreSQL's own are judged.
fn check_version(text: &str, wanted: Option<u32>) -> Result<()> {
    if !text.contains("(PostgreSQL)") {
        return Ok(());
    }
    let version = major_version(text).ok_or_else(|| Error::Odd { what: "version of PostgreSQL", text: text.into() })?;
    if version < 13 {
        return Err(Error::Unfit(format!("PostgreSQL {version} is too old: 13 is the least that is supported")));
    }
    match wanted {
        Some(wanted) if wanted != version => Err(Error::Unfit(format!(
            "the data directory is of PostgreSQL {wanted}, its programs here are of {version}: set `bin-dir`"
        ))),
        _ => Ok(()),
    }
}

/// The major version of `postgres (PostgreSQL) 15.4 (Debian …)` and the like.
fn major_version(text: &str) -> Option<u32> {
    let numbers = text.split_whitespace().filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let digits = |word: &str| word.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    numbers.filter_map(digits).next()
}

/// A program that runs, and that is killed with all that it started when this is dropped.
pub(super) struct Running {
    name: String,
    child: Child,
    group: Option<rustix::process::Pid>,
}

impl Running {
    fn kill(&self) {
        // Of a reaped child the id is None, and its group may be another's by now.
        if let (Some(_), Some(group)) = (self.child.id(), self.group) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end and answers with its standard output. Each line that it says on standard error is shown
/// to `line`. Dropping the future kills it.
pub(super) async fn run(command: Command, name: &str, line: impl FnMut(&str)) -> Result<String> {
    run_until(command, name, line, std::future::pending()).await
}

/// The same. Once `stop` is ready it is killed, and all that it has said by then is still shown to `line`.
pub(super) async fn run_until(
    mut command: Command,
    name: &str,
    line: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> Result<String> {
    let program = || PathBuf::from(name);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| Error::Spawn { program: program(), source })?;
    let group = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut running = Running { name: name.into(), child, group };
    let mut outputs = pin!(async { tokio::join!(all(stdout), tail(stderr, line)) });
    let (output, said) = tokio::select! {
        outputs = &mut outputs => outputs,
        () = stop => {
            running.kill();
            outputs.await
        }
    };
    let status = running.child.wait().await.map_err(|source| Error::Spawn { program: program(), source })?;
    if status.success() {
        return Ok(output);
    }
    let output = if said.trim().is_empty() { output } else { said };
    Err(Error::Program { program: running.name.clone(), status, output: output.trim().replace('\n', "; ") })
}

async fn all(stdout: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stdout) = stdout {
        // What was read before an error is all that can be had.
        let _ = stdout.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Shows each line to `line`, and answers with the last ones.
async fn tail(stderr: Option<impl AsyncRead + Unpin>, mut line: impl FnMut(&str)) -> String {
    let mut last = String::new();
    let Some(stderr) = stderr else { return last };
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes).await, Ok(read) if read > 0) {
        let text = String::from_utf8_lossy(&bytes);
        line(text.trim_end());
        last.push_str(&text);
        last = ending(&last, TAIL).to_owned();
        bytes.clear();
    }
    last
}

/// At most the last `limit` bytes of a text.
pub(super) fn ending(text: &str, limit: usize) -> &str {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_version_is_read_or_not(text in "(postgres \\(PostgreSQL\\) )?[0-9]{0,12}[.0-9a-z]{0,9}|\\PC{0,20}", wanted: Option<u32>) {
            let _ = (major_version(&text), check_version(&text, wanted));
            let _ = ending(&text, 5);
        }
    }

    #[test]
    fn the_major_version_is_read_from_what_servers_say() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.4 (Debian 15.4-1.pgdg120+1)", Some(15)),
            ("postgres (PostgreSQL) 17devel", Some(17)),
            ("postgres (PostgreSQL) 9.6.24", Some(9)),
            ("qhb (QHB) 1.5.2", Some(1)),
            ("", None),
            ("postgres", None),
        ] {
            assert_eq!(major_version(text), expected, "{text}");
        }
    }

    #[test]
    fn programs_that_do_not_fit_the_data_are_refused() {
        assert!(check_version("postgres (PostgreSQL) 15.4", Some(15)).is_ok());
        assert!(check_version("postgres (PostgreSQL) 15.4", None).is_ok());
        assert!(check_version("qhb (QHB) 1.5.2", Some(15)).is_ok());
        assert!(check_version("postgres (PostgreSQL) 15.4", Some(14)).is_err());
        assert!(check_version("postgres (PostgreSQL) 12.1", None).is_err());
    }

    #[test]
    fn the_ending_of_a_text_does_not_cut_a_character() {
        assert_eq!(ending("ööö", 3), "ö");
        assert_eq!(ending("abc", 10), "abc");
    }
}
