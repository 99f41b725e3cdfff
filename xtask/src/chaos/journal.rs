//! What happened when, one line for each event, so that a failure can be explained.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// A file of lines. Each begins with the seconds since the start.
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    start: Instant,
}

impl Journal {
    /// Creates it in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let path = dir.join("chaos.log");
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let this = Self { path, file: Mutex::new(file), start: Instant::now() };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        this.note(format!(
            "begins, {:.3} s after 1970 by the clock that the logs of the nodes have",
            wall.as_secs_f64()
        ));
        Ok(this)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records an event that happens now.
    pub(crate) fn note(&self, event: impl AsRef<str>) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // The journal explains the run and is not its subject: if it cannot be written, the run continues.
        let _ = writeln!(file, "{:9.3} {}", self.start.elapsed().as_secs_f64(), event.as_ref());
    }

    /// Records an event, and prints it for the person who watches.
    pub(crate) fn tell(&self, event: impl AsRef<str>) {
        self.note(&event);
        println!("{:7.1} {}", self.start.elapsed().as_secs_f64(), event.as_ref());
    }

    /// An instant, in the format of the lines.
    pub(crate) fn offset(&self, at: Instant) -> String {
        format!("{:.3}", at.saturating_duration_since(self.start).as_secs_f64())
    }
}
