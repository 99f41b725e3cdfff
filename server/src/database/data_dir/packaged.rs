//! The configuration that a package (Debian's) keeps outside of the data directory.

use std::path::{Path, PathBuf};

use crate::formats::conf;
use crate::os::files::{Files, entries};

/// The packaged `postgresql.conf` of a data directory. None if there is none.
pub(super) fn packaged_config(data_dir: &Path, files: &Files) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/etc/postgresql").ok()?.flatten();
    let clusters = versions.filter_map(|version| std::fs::read_dir(version.path()).ok()).flatten().flatten();
    let mut paths = clusters.map(|cluster| cluster.path().join("postgresql.conf"));
    let (read, list) = (reads(files), &list);
    paths.find(|path| {
        let settings = conf::Reader { read: &read, list }.values(path, Path::new(""));
        let dir = settings.get("data_directory").and_then(|dir| Path::new(dir).canonicalize().ok());
        dir.is_some_and(|dir| dir == data_dir)
    })
}

/// Reads a configuration file. None if it cannot be read.
pub(super) fn reads(files: &Files) -> impl Fn(&Path) -> Option<String> {
    move |path: &Path| files.read(path).ok().flatten()
}

/// The files in a directory that a configuration includes.
pub(super) fn list(dir: &Path) -> Vec<PathBuf> {
    entries(dir).unwrap_or_default()
}
