//! Whether there is room left on the disks of a database.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Postgres;
use super::error::{Error, Result};
use super::home::lock;

const MB: u64 = 1 << 20;

/// A file of WAL, unless somebody chose another size.
const USUAL_SEGMENT: u64 = 16 * MB;

/// The largest that PostgreSQL allows.
const LARGEST_SEGMENT: u64 = 1024 * MB;

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

/// Whether a directory in `dir` is the root of another filesystem, and no link to one.
pub(super) fn is_mount(dir: &Path, path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir()) && is_apart(dir, path)
}

impl Space {
    /// Whether there is almost nothing left, of WAL whose files are of `segment` bytes, where that is known. PostgreSQL
    /// needs two of them to come up again after it ended for lack of room. More is not asked for: where all disks of a
    /// cluster are nearly full, nobody could lead who still can. One that was full must have twice as much to be so no
    /// more, or it would be in and out of service with each file that is removed.
    fn is_full(self, segment: Option<u64>, was_full: bool) -> bool {
        let least = (3 * segment.unwrap_or(USUAL_SEGMENT)).max(3 * USUAL_SEGMENT);
        self.free < if was_full { least * 2 } else { least }
    }
}

impl Postgres {
    /// Which disk is full, where one is.
    pub(super) fn disk_is_full(&self) -> Option<String> {
        let data = &self.home.data_dir;
        let wal = data.join("pg_wal");
        let segment = segment(&wal);
        let wal = is_apart(data, &wal).then_some(wal);
        let mut full = lock(&self.full);
        let mut found = None;
        for (path, full) in [Some(data.clone()), wal].into_iter().zip(full.iter_mut()) {
            // What cannot be looked at is for others to tell.
            let Some((path, space)) = path.and_then(|path| Some((path.clone(), space(&path).ok()?))) else { continue };
            *full = space.is_full(segment, *full);
            if *full && found.is_none() {
                found = Some(full_disk(path, space));
            }
        }
        found
    }
}

/// The size of the WAL files in a directory, where it has one.
fn segment(wal: &Path) -> Option<u64> {
    let is_wal = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut files = std::fs::read_dir(wal).ok()?.flatten();
    let file = files.find(|file| file.file_name().to_str().is_some_and(is_wal))?;
    // One that is just being copied is of any size.
    Some(file.metadata().ok()?.len()).filter(|size| size.is_power_of_two() && *size <= LARGEST_SEGMENT)
}

fn full_disk(path: PathBuf, space: Space) -> String {
    format!("the disk of {} is full: {} MB left", path.display(), space.free / MB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_before_it_is_and_until_there_is_room_again() {
        for (segment, free, was_full, expected) in [
            (None, 47, false, true),
            (None, 48, false, false),
            (None, 48, true, true),
            (None, 95, true, true),
            (None, 96, true, false),
            (Some(16), 47, false, true),
            (Some(16), 48, false, false),
            (Some(64), 191, false, true),
            (Some(64), 192, false, false),
            (Some(64), 383, true, true),
            (Some(64), 384, true, false),
            // With small files a little more than two of them is too little for all else.
            (Some(1), 47, false, true),
            (Some(1), 48, false, false),
        ] {
            for size in [64, 10 << 20] {
                let (space, segment) = (Space { free: free * MB, size: size * MB }, segment.map(|size| size * MB));
                let what = format!("{free} of {size} MB, segments of {segment:?}, was full: {was_full}");
                assert_eq!(space.is_full(segment, was_full), expected, "{what}");
            }
        }
    }

    #[test]
    fn the_size_of_segments_is_that_of_wal_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, size| std::fs::File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
        assert_eq!(segment(&dir.path().join("missing")), None);
        write("00000002.history", 4 * MB);
        assert_eq!(segment(dir.path()), None);
        write("000000020000000000000003", 5);
        assert_eq!(segment(dir.path()), None);
        write("000000020000000000000003", 64 * MB);
        assert_eq!(segment(dir.path()), Some(64 * MB));
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
