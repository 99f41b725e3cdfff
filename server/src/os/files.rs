//! Files in directories that belong to the account of PostgreSQL. The daemon that reads and writes them may be root.
//!
//! That account could put a link where root reads or writes. So links are not followed, and nothing is read that the
//! account itself could not read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::account::Accounts;
use super::error::{Error, Result};
use crate::report;

/// Reads and writes files of the account of PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) accounts: Accounts,
}

impl Files {
    /// Replaces a file by `text` atomically and durably. Returns whether the content changed.
    pub(crate) fn write(&self, path: &Path, text: &str, mode: u32) -> Result<bool> {
        if self.read(path)?.as_deref() == Some(text) {
            return Ok(false);
        }
        self.replace(path, text.as_bytes(), mode)?;
        Ok(true)
    }

    fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".qluster-tmp");
        let temporary = path.with_file_name(name);
        remove_file(&temporary)?;
        let failed = |action| Error::file(action, &temporary);
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
        let mut file = options.open(&temporary).map_err(failed("create"))?;
        let mut fill = || {
            file.write_all(bytes).map_err(failed("write"))?;
            self.give(&file, mode).map_err(failed("give away"))?;
            file.sync_all().map_err(failed("sync"))?;
            std::fs::rename(&temporary, path).map_err(Error::file("replace", path))
        };
        if let Err(error) = fill() {
            // On a full disk, half a file must not use up the rest of the space.
            if let Err(left) = remove_file(&temporary) {
                tracing::warn!(error = report::chain(&left), "a temporary file could not be removed");
            }
            return Err(error);
        }
        sync_parent(path)
    }

    /// Empties a file of the account if it has more than `limit` bytes, and keeps the last `limit` bytes in `aside`. Others
    /// may have the file open: it stays the same file. It is also emptied if there is no space to keep anything.
    pub(crate) fn put_aside(&self, path: &Path, aside: &Path, limit: u64) -> Result<()> {
        let options = OpenOptions::new().read(true).write(true).custom_flags(no_link()).clone();
        let mut file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("open", path)(error)),
        };
        let about = file.metadata().map_err(Error::file("read", path))?;
        let account = &self.accounts.database;
        if self.accounts.drops && about.uid() != account.uid {
            return Err(Error::Unfit(format!("{} does not belong to `{}`", path.display(), account.name)));
        }
        if !about.is_file() || about.len() <= limit {
            return Ok(());
        }
        let last = ending(&mut file, limit).map_err(Error::file("read", path));
        let kept = last.and_then(|last| self.replace(aside, &last, 0o640));
        file.set_len(0).map_err(Error::file("empty", path))?;
        kept
    }

    /// The text of a file that the account may read. None if there is no such file.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let about = file.metadata().map_err(Error::file("read", path))?;
        let account = &self.accounts.database;
        let readable = (about.uid() == account.uid && about.mode() & 0o400 != 0)
            || (about.gid() == account.gid && about.mode() & 0o040 != 0)
            || about.mode() & 0o004 != 0;
        if self.accounts.drops && !readable {
            return Err(Error::Unfit(format!("{} is not readable by `{}`", path.display(), account.name)));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::file("read", path))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Opens a file for appending, and gives it to the account.
    pub(crate) fn append(&self, path: &Path) -> Result<File> {
        let options = OpenOptions::new().append(true).create(true).mode(0o600).clone();
        let file = options.clone().custom_flags(no_link()).open(path).map_err(Error::file("open", path))?;
        self.give(&file, 0o640).map_err(Error::file("give away", path))?;
        Ok(file)
    }

    /// Creates a directory for the account, and missing directories above it. Does nothing if it exists.
    pub(crate) fn make_dir(&self, path: &Path, mode: u32) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        std::fs::create_dir(path).map_err(Error::file("create", path))?;
        let dir = File::open(path).map_err(Error::file("open", path))?;
        self.give(&dir, mode).map_err(Error::file("give away", path))
    }

    fn give(&self, file: &File, mode: u32) -> std::io::Result<()> {
        if self.accounts.drops {
            let account = &self.accounts.database;
            fchown(file, Some(account.uid), Some(account.gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// Removes a file. It is no error if there is none.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file or a whole directory. Of a link, the link itself is removed and not its target.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path).map_err(Error::file("remove", path)),
        Ok(_) => remove_file(path),
        Err(_) => Ok(()),
    }
}

/// The paths in a directory.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(Error::file("read", dir))).collect()
}

/// Makes creations, renames and removals in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file("sync", dir))
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// The length in bytes of a file that others write. 0 if there is none.
pub(crate) fn length(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

/// The last `limit` bytes of a file that others write, as text. Empty if it cannot be read.
pub(crate) fn tail(path: &Path, limit: u64) -> String {
    let read = || ending(&mut OpenOptions::new().read(true).custom_flags(no_link()).open(path)?, limit);
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn ending(file: &mut File, limit: u64) -> std::io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The flag that makes opening a link fail.
fn no_link() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_put_aside_unless_it_is_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { accounts: Accounts::find(None).unwrap() };
        let (log, aside, link) = (dir.path().join("log"), dir.path().join("log.1"), dir.path().join("link"));
        files.put_aside(&log, &aside, 4).unwrap();
        let mut open = files.append(&log).unwrap();
        open.write_all(b"1234").unwrap();
        files.put_aside(&log, &aside, 4).unwrap();
        assert!(!aside.exists());
        open.write_all(b"5678").unwrap();
        files.put_aside(&log, &aside, 4).unwrap();
        open.write_all(b"9").unwrap();
        assert_eq!((std::fs::read(&aside).unwrap(), std::fs::read(&log).unwrap()), (b"5678".to_vec(), b"9".to_vec()));

        std::os::unix::fs::symlink(&log, &link).unwrap();
        assert!(files.put_aside(&link, &aside, 0).is_err());
        assert_eq!(tail(&link, 9), "");
        // If nothing can be kept, the file is emptied nevertheless, and no temporary file is left.
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(files.put_aside(&log, &dir.path().join("taken"), 0).is_err());
        assert_eq!(std::fs::read(&log).unwrap(), b"");
        assert!(!dir.path().join("taken.qluster-tmp").exists());
    }
}
