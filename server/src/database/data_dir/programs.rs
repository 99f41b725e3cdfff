//! Where PostgreSQL's programs are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::database::error::{Error, Result};
use crate::formats;
use crate::os;

/// PostgreSQL's programs on this host.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The directory that they are in.
    dir: PathBuf,
    /// The names of programs that a fork has renamed, by PostgreSQL's names.
    renamed: BTreeMap<String, String>,
}

impl Programs {
    /// Finds the programs in `dir`, or in the usual places. There it prefers `wanted`, the version of the data directory,
    /// and otherwise the newest version.
    ///
    /// # Errors
    ///
    /// If there are none, or if their version is too old or not that of the data directory.
    pub(crate) fn find(dir: Option<&Path>, renamed: &BTreeMap<String, String>, wanted: Option<u32>) -> Result<Self> {
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
            .map_err(|source| os::Error::Spawn { program: program.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        check_version(&text, wanted)?;
        Ok(Self { dir: dir.clone(), renamed: renamed.clone() })
    }

    /// The path of a program, by PostgreSQL's own name for it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(self.renamed.get(name).map_or(name, String::as_str))
    }

    /// The programs that work on a data directory: under their usual names, and under the names that the kernel uses.
    pub(crate) fn on_data(&self) -> Vec<PathBuf> {
        let names = ["postgres", "initdb", "pg_rewind", "pg_basebackup"];
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in names.map(|name| self.path(name)) {
            // A link and its target may have different names.
            let canonical = path.canonicalize().ok().filter(|canonical| canonical.file_name() != path.file_name());
            paths.extend(canonical);
            paths.push(path);
        }
        paths
    }
}

/// The directories where packages install PostgreSQL, and then those of `PATH`.
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
    // Only its own version opens a data directory. The sort is stable.
    versions.sort_by_key(|(version, _)| wanted.is_some_and(|wanted| wanted != *version));
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions.into_iter().map(|(_, dir)| dir).chain(std::env::split_paths(&path)).collect()
}

/// Refuses a version that is too old, or not that of the data directory. Forks count their versions differently, so only
/// PostgreSQL's own versions are checked.
fn check_version(text: &str, wanted: Option<u32>) -> Result<()> {
    if !text.contains("(PostgreSQL)") {
        return Ok(());
    }
    let version =
        major_version(text).ok_or_else(|| formats::Error { what: "version of PostgreSQL", text: text.into() })?;
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

/// The major version in a text such as `postgres (PostgreSQL) 15.4 (Debian …)`.
fn major_version(text: &str) -> Option<u32> {
    let numbers = text.split_whitespace().filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let digits = |word: &str| word.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    numbers.filter_map(digits).next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_version_is_read_or_not(text in "(postgres \\(PostgreSQL\\) )?[0-9]{0,12}[.0-9a-z]{0,9}|\\PC{0,20}", wanted: Option<u32>) {
            let _ = (major_version(&text), check_version(&text, wanted));
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
}
