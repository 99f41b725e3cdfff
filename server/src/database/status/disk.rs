//! Whether the disks of a database are full.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::os::disk::{Space, is_apart, space};
use crate::os::lock::lock;

const MB: u64 = 1 << 20;

/// Size of a WAL file (segment), unless somebody chose another, in bytes.
const USUAL_SEGMENT: u64 = 16 * MB;

/// The largest size of a WAL file that PostgreSQL allows, in bytes.
const LARGEST_SEGMENT: u64 = 1024 * MB;

/// Which disks of a database were full at the last look: the one with the data, and the one with the WAL.
#[derive(Default)]
pub(crate) struct Disks {
    full: Mutex<[bool; 2]>,
}

impl Disks {
    /// Looks at the disks. Returns which one is full, as text. None if none is.
    pub(super) fn look(&self, data: &Path) -> Option<String> {
        let wal = data.join("pg_wal");
        let segment = segment(&wal);
        let wal = is_apart(data, &wal).then_some(wal);
        let mut full = lock(&self.full);
        let mut found = None;
        for (path, full) in [Some(data.to_owned()), wal].into_iter().zip(full.iter_mut()) {
            // If a disk cannot be looked at, others report that.
            let Some((path, space)) = path.and_then(|path| Some((path.clone(), space(&path).ok()?))) else { continue };
            *full = is_full(space, segment, *full);
            if *full && found.is_none() {
                found = Some(full_disk(path, space));
            }
        }
        found
    }

    /// Whether a disk was full at the last look.
    pub(crate) fn are_full(&self) -> bool {
        lock(&self.full).contains(&true)
    }
}

/// Whether almost no space is left for WAL whose files have `segment` bytes (None if that is not known). PostgreSQL needs
/// space for two WAL files to start after it ended for lack of space. More is not asked for: if all disks of a cluster are
/// nearly full, a node that still can lead should lead. A disk that was full must have twice as much space to count as not
/// full again. Otherwise each removed file would switch the database between fit and unfit.
fn is_full(space: Space, segment: Option<u64>, was_full: bool) -> bool {
    let least = (3 * segment.unwrap_or(USUAL_SEGMENT)).max(3 * USUAL_SEGMENT);
    space.free < if was_full { least * 2 } else { least }
}

/// The size of the WAL files in a directory, in bytes. None if there are none.
fn segment(wal: &Path) -> Option<u64> {
    let is_wal = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut files = std::fs::read_dir(wal).ok()?.flatten();
    let file = files.find(|file| file.file_name().to_str().is_some_and(is_wal))?;
    // A file that is being copied has any size.
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
            // With small files, two of them and a little more would be too little for everything else.
            (Some(1), 47, false, true),
            (Some(1), 48, false, false),
        ] {
            for size in [64, 10 << 20] {
                let (space, segment) = (Space { free: free * MB, size: size * MB }, segment.map(|size| size * MB));
                let what = format!("{free} of {size} MB, segments of {segment:?}, was full: {was_full}");
                assert_eq!(is_full(space, segment, was_full), expected, "{what}");
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
    fn it_says_which_and_how_much_is_left() {
        let space = Space { free: 12 * MB + 5, size: 1 << 40 };
        assert_eq!(full_disk("/data".into(), space), "the disk of /data is full: 12 MB left");
    }
}
