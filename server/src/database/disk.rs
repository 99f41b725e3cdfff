//! Whether there is room left on the disks of a database.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Postgres;
use super::error::{Error, Result};
use super::home::lock;

const MB: u64 = 1 << 20;

/// The room on a filesystem, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// What an ordinary account, such as PostgreSQL's, may still take.
    pub(super) free: u64,
    pub(super) size: u64,
}

/// The room on the filesystem that has `path`.
pub(super) fn space(path: &Path) -> Result<Space> {
    let about = rustix::fs::statvfs(path).map_err(|error| Error::file("look at", path)(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Ok(Space { free: bytes(about.f_bavail), size: bytes(about.f_blocks) })
}

/// Whether two directories are on different filesystems, by a link or a mount.
fn is_apart(one: &Path, other: &Path) -> bool {
    let device = |path| std::fs::metadata(path).map(|about| about.dev()).ok();
    device(one) != device(other)
}

impl Space {
    /// Whether there is almost nothing left. PostgreSQL needs two segments of WAL to come up again after it ended for
    /// lack of room. One that was full must have twice as much to be so no more, or it would be in and out of service
    /// with each file that is removed.
    fn is_full(self, was_full: bool) -> bool {
        let least = (self.size / 100).clamp(32 * MB, 256 * MB);
        self.free < if was_full { least * 2 } else { least }
    }
}

impl Postgres {
    /// Which disk is full, where one is.
    pub(super) fn disk_is_full(&self) -> Option<String> {
        let data = &self.home.data_dir;
        let wal = data.join("pg_wal");
        let wal = is_apart(data, &wal).then_some(wal);
        let mut full = lock(&self.full);
        let mut found = None;
        for (path, full) in [Some(data.clone()), wal].into_iter().zip(full.iter_mut()) {
            // What cannot be looked at is for others to tell.
            let Some((path, space)) = path.and_then(|path| Some((path.clone(), space(&path).ok()?))) else { continue };
            *full = space.is_full(*full);
            if *full && found.is_none() {
                found = Some(full_disk(path, space));
            }
        }
        found
    }
}

fn full_disk(path: PathBuf, space: Space) -> String {
    format!("the disk of {} is full: {} MB left", path.display(), space.free / MB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_before_it_is_and_until_there_is_room_again() {
        for (size, free, was_full, expected) in [
            (1 << 10, 33, false, false),
            (1 << 10, 31, false, true),
            (1 << 10, 33, true, true),
            (1 << 10, 64, true, false),
            (10 << 10, 101, false, true),
            (10 << 10, 103, false, false),
            (10 << 10, 103, true, true),
            (10 << 10, 206, true, false),
            (1 << 20, 255, false, true),
            (1 << 20, 256, false, false),
            (1 << 20, 511, true, true),
            (1 << 20, 512, true, false),
            // A tiny one is always full.
            (16, 16, false, true),
        ] {
            let space = Space { free: free * MB, size: size * MB };
            assert_eq!(space.is_full(was_full), expected, "{free} of {size} MB, was full: {was_full}");
        }
    }

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

    #[test]
    fn it_says_which_and_how_much_is_left() {
        let space = Space { free: 12 * MB + 5, size: 1 << 40 };
        assert_eq!(full_disk("/data".into(), space), "the disk of /data is full: 12 MB left");
    }
}
