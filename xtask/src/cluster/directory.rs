//! The directory in which the nodes of a cluster keep their files.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A directory. A temporary one is removed when this is dropped.
pub(crate) struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    /// The directory `keep`, which must be absent or empty, or a temporary one that is named after `what`.
    pub(crate) fn create(what: &str, keep: Option<&Path>) -> Result<Self> {
        let name = || format!("qluster-{what}-{}", std::process::id());
        let path = keep.map_or_else(|| std::env::temp_dir().join(name()), Path::to_owned);
        if std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("the directory {} is not empty: choose another with --keep DIR", path.display());
        }
        std::fs::create_dir_all(&path).with_context(|| format!("creating the directory {}", path.display()))?;
        let this = Self { path: path.canonicalize()?, temporary: keep.is_none() };
        set_mode(&this.path)?;
        if rustix::process::geteuid().is_root() {
            enterable(&this.path)?;
        }
        Ok(this)
    }

    /// Keeps the directory, even if it is a temporary one.
    pub(crate) fn keep(&mut self) {
        self.temporary = false;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            // Not by `eprintln!`, which may panic: this also runs in a panic.
            let _ = writeln!(std::io::stderr(), "removing {}: {error}", self.path.display());
        }
    }
}

/// Lets other users in, whatever the umask is: PostgreSQL does not run as root, and has its data below.
pub(crate) fn set_mode(dir: &Path) -> Result<()> {
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).with_context(|| format!("letting others into {}", dir.display()))
}

/// Fails if a directory above keeps out the user that PostgreSQL runs as.
fn enterable(dir: &Path) -> Result<()> {
    for above in dir.ancestors() {
        let mode = above.metadata().with_context(|| format!("looking at {}", above.display()))?.permissions().mode();
        if mode & 0o001 == 0 {
            bail!(
                "PostgreSQL runs as user `postgres`, who may not enter {}: choose another directory with --keep DIR or \
                 TMPDIR",
                above.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_ends_and_a_kept_one_stays() {
        let temporary = Directory::create("test", None).unwrap();
        let kept_path = temporary.path().join("kept");
        let kept = Directory::create("test", Some(&kept_path)).unwrap();
        drop(kept);
        assert!(kept_path.exists());
        let error = Directory::create("test", Some(temporary.path())).err().unwrap().to_string();
        assert!(error.contains("is not empty"), "{error}");
        let path = temporary.path().to_owned();
        drop(temporary);
        assert!(!path.exists());
    }
}
