//! Space on disks, and which directories are on which.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::{Error, Result};

/// The space on a filesystem, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// What an ordinary account, such as PostgreSQL's, may still use.
    pub(crate) free: u64,
    pub(crate) size: u64,
}

/// The space on the filesystem that holds `path`.
pub(crate) fn space(path: &Path) -> Result<Space> {
    let about = rustix::fs::statvfs(path).map_err(|error| Error::file("look at", path)(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Ok(Space { free: bytes(about.f_bavail), size: bytes(about.f_blocks) })
}

/// Whether two directories are on different filesystems, by a link or a mount.
pub(crate) fn is_apart(one: &Path, other: &Path) -> bool {
    let device = |path| std::fs::metadata(path).map(|about| about.dev()).ok();
    device(one) != device(other)
}

/// Whether a directory in `dir` is a mount point. A link to another filesystem is not.
pub(crate) fn is_mount(dir: &Path, path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir()) && is_apart(dir, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_disk_is_known_by_a_link_and_by_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let (linked, near) = (dir.path().join("linked"), dir.path().join("near"));
        std::os::unix::fs::symlink("/proc", &linked).unwrap();
        std::os::unix::fs::symlink(dir.path(), &near).unwrap();
        for (one, other, expected) in [
            (dir.path(), linked.as_path(), true),
            (Path::new("/"), Path::new("/proc"), true),
            (dir.path(), near.as_path(), false),
            (dir.path(), dir.path(), false),
        ] {
            assert_eq!(is_apart(one, other), expected, "{one:?} {other:?}");
        }
    }
}
