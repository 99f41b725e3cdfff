//! The log file of PostgreSQL.

use std::path::{Path, PathBuf};

use crate::os::files::{self, Files};
use crate::report;

/// The log is put aside when it is larger, in bytes.
const MAX_LOG_SIZE: u64 = 16 << 20;

/// The log file of PostgreSQL, in the run directory.
pub(crate) struct ServerLog {
    pub(crate) path: PathBuf,
    files: Files,
}

impl ServerLog {
    pub(super) fn new(run_dir: &Path, files: Files) -> Self {
        Self { path: run_dir.join("postgresql.log"), files }
    }

    /// The last lines of the log, as one line.
    pub(crate) fn tail(&self) -> String {
        let text = files::tail(&self.path, 4000);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(6)..].join("; ")
    }

    /// Puts the log aside if it is large. It is copied and emptied, since a running server keeps the file open. What the
    /// server writes between the two steps is lost.
    pub(crate) fn limit(&self) {
        if let Err(error) = self.files.put_aside(&self.path, &self.path.with_extension("log.1"), MAX_LOG_SIZE) {
            tracing::warn!(error = report::chain(&error), "the log of PostgreSQL could not be copied and emptied");
        }
    }
}
