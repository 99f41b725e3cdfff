//! The redb file: how it is opened and checked, and what is read from it and written to it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::raft::wire::{LogEntry, LogPosition, SnapshotMetadata, VoteRecord};

/// The version of the file's layout.
pub(super) const FORMAT: u32 = 1;

/// The size of redb's cache, in bytes. The store is small, its log is short, and the newest entries are in memory.
const CACHE_BYTES: usize = 4 << 20;

pub(super) const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const SNAPSHOT: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshot");
pub(super) const SNAPSHOT_META: &str = "meta";
pub(super) const SNAPSHOT_DATA: &str = "data";

/// A key of the table of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Format,
    Identity,
    DatabaseRecord,
    Removed,
    LongestGrant,
    Vote,
    Committed,
    Purged,
}

impl Fact {
    pub(super) fn key(self) -> &'static str {
        match self {
            Fact::Format => "format",
            Fact::Identity => "identity",
            Fact::DatabaseRecord => "duty",
            Fact::Removed => "removed",
            Fact::LongestGrant => "promised",
            Fact::Vote => "vote",
            Fact::Committed => "committed",
            Fact::Purged => "purged",
        }
    }
}

/// A change of the file, encoded.
#[derive(Debug)]
pub(super) enum Change {
    /// No change: whoever waits for it waits for all earlier writes.
    Nothing,
    Fact(Fact, Bytes),
    Vote(VoteRecord, Bytes),
    Append(Vec<(u64, Bytes)>),
    Truncate {
        from: u64,
    },
    Purge {
        upto: u64,
        purged: Bytes,
    },
    Snapshot {
        meta: Bytes,
        data: Bytes,
    },
}

impl Change {
    pub(super) fn fact<T: Serialize>(fact: Fact, value: &T) -> Result<Self, StoreError> {
        Ok(Self::Fact(fact, encode(fact.key(), value)?))
    }

    pub(super) fn vote(vote: &VoteRecord) -> Result<Self, StoreError> {
        Ok(Self::Vote(*vote, encode(Fact::Vote.key(), vote)?))
    }

    pub(super) fn purge(upto: &LogPosition) -> Result<Self, StoreError> {
        Ok(Self::Purge { upto: upto.index, purged: encode(Fact::Purged.key(), upto)? })
    }

    pub(super) fn snapshot(meta: &SnapshotMetadata, data: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::Snapshot { meta: encode("the snapshot's metadata", meta)?, data: Bytes::copy_from_slice(data) })
    }

    /// Whether it can wait until another change has to be written.
    pub(super) fn can_wait(&self) -> bool {
        matches!(self, Change::Fact(Fact::Committed, _))
    }
}

pub(super) fn encode<T: Serialize>(what: &str, value: &T) -> Result<Bytes, StoreError> {
    let encoded = postcard::to_stdvec(value)
        .map_err(|source| StoreError::Value { what: format!("write the value `{what}`"), source })?;
    Ok(encoded.into())
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, encoded: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(encoded)
        .map_err(|source| StoreError::Value { what: format!("read the value `{what}`"), source })
}

/// The open file.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(StoreError::File { what: "open the store", path: path.to_owned(), source }),
            Ok(file) => {
                let foreign =
                    |reason: &str| StoreError::Foreign { store: path.display().to_string(), reason: reason.into() };
                if !file.is_file() {
                    return Err(foreign("it is not a file"));
                }
                if file.len() == 0 {
                    return Err(foreign("it is empty"));
                }
            }
        }
        let disk = open_database(&path.display().to_string(), |builder| builder.open(path))?;
        disk.check_format(&path.display().to_string())?;
        Ok(disk)
    }

    /// Creates the store beside its place, and then gives it its name. So a crash leaves a complete store or none.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let failed = |what| move |source| StoreError::File { what, path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("create the store")(source)),
            Ok(_) => return Err(StoreError::Exists { path: path.to_owned() }),
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove what an interrupted creation left of the store")(error));
            }
            _ => {}
        }
        let disk = open_database(&path.display().to_string(), |builder| builder.create(&unfinished))?;
        disk.initialize()?;
        // A link, since a rename would replace a file that has appeared at the place meanwhile.
        fs::hard_link(&unfinished, path).map_err(failed("create the store"))?;
        fs::remove_file(&unfinished).map_err(failed("name the new store"))?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write the directory of"))?;
        Ok(disk)
    }

    pub(super) fn with_backend(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        const NAME: &str = "on the given backend";
        let disk = open_database(NAME, |builder| builder.create_with_backend(backend))?;
        let reading = disk.begin_read()?;
        let empty = reading.list_tables().map_err(StoreError::database("read"))?.next().is_none();
        drop(reading);
        if empty {
            disk.initialize()?;
        }
        disk.check_format(NAME)?;
        Ok(disk)
    }

    fn initialize(&self) -> Result<(), StoreError> {
        self.write(&[Change::fact(Fact::Format, &FORMAT)?])
    }

    fn check_format(&self, store: &str) -> Result<(), StoreError> {
        let foreign = |reason: String| StoreError::Foreign { store: store.into(), reason };
        let reading = self.begin_read()?;
        let facts = match reading.open_table(FACTS) {
            Ok(facts) => facts,
            Err(TableError::Storage(error)) => return Err(StoreError::database("read")(error)),
            Err(error) => return Err(foreign(error.to_string())),
        };
        let format = facts.get(Fact::Format.key()).map_err(StoreError::database("read"))?;
        let found: u32 = match format.as_ref().map(|format| postcard::from_bytes(format.value())) {
            Some(Ok(found)) => found,
            Some(Err(_)) => return Err(foreign("its format cannot be read".into())),
            None => return Err(foreign("it does not say its format".into())),
        };
        match found {
            FORMAT => {}
            0 => return Err(foreign("its format is 0".into())),
            _ => return Err(StoreError::Newer { store: store.into(), found, known: FORMAT }),
        }
        let missing = reading.open_table(LOG).err().or_else(|| reading.open_table(SNAPSHOT).err());
        match missing {
            Some(missing) => Err(StoreError::Damaged { store: store.into(), reason: missing.to_string() }),
            None => Ok(()),
        }
    }

    /// A view of the file as it is now.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(StoreError::database("read"))
    }

    pub(super) fn fact<T: DeserializeOwned>(&self, fact: Fact) -> Result<Option<T>, StoreError> {
        let facts = self.begin_read()?.open_table(FACTS).map_err(StoreError::database("read"))?;
        let value = facts.get(fact.key()).map_err(StoreError::database("read"))?;
        value.map(|value| decode(fact.key(), value.value())).transpose()
    }

    pub(super) fn snapshot(&self) -> Result<Option<(SnapshotMetadata, Vec<u8>)>, StoreError> {
        let snapshot = self.begin_read()?.open_table(SNAPSHOT).map_err(StoreError::database("read"))?;
        let meta = snapshot.get(SNAPSHOT_META).map_err(StoreError::database("read"))?;
        let data = snapshot.get(SNAPSHOT_DATA).map_err(StoreError::database("read"))?;
        let (Some(meta), Some(data)) = (meta, data) else { return Ok(None) };
        Ok(Some((decode("the snapshot's metadata", meta.value())?, data.value().to_vec())))
    }

    /// The index of the first entry of the log, and the position of the last.
    pub(super) fn bounds(&self) -> Result<(u64, Option<LogPosition>), StoreError> {
        let log = self.begin_read()?.open_table(LOG).map_err(StoreError::database("read"))?;
        let first = log.first().map_err(StoreError::database("read"))?.map_or(0, |(index, _)| index.value());
        let Some((index, entry)) = log.last().map_err(StoreError::database("read"))? else { return Ok((first, None)) };
        let entry: LogEntry = decode("an entry of the log", entry.value())?;
        if entry.position.index != index.value() {
            return Err(StoreError::Hole { index: index.value() });
        }
        Ok((first, Some(entry.position)))
    }

    /// Makes `changes`, in order, in one transaction. It is on disk when this returns.
    pub(super) fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let writing = self.database.begin_write().map_err(StoreError::database("write to"))?;
        apply(&writing, changes).map_err(StoreError::database("write to"))?;
        // The fsync happens here: by default, a commit is durable at once.
        writing.commit().map_err(StoreError::database("commit to"))
    }
}

/// Opens a database. An error is one of our own, which says what is wrong with the file.
fn open_database(
    store: &str,
    open: impl FnOnce(&mut Builder) -> Result<Database, DatabaseError>,
) -> Result<Disk, StoreError> {
    let mut builder = Builder::new();
    // The check reads the whole file, which is small. Without it, redb trusts a file that was closed in order.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let store = store.to_owned();
    let damaged = |reason: String| StoreError::Damaged { store: store.clone(), reason };
    // redb may still panic if the file is damaged.
    let opened = catch_unwind(AssertUnwindSafe(|| open(&mut builder)));
    let error = match opened {
        Ok(Ok(database)) => return Ok(Disk { database }),
        Ok(Err(error)) => error,
        Err(_) => return Err(damaged("its pages make no sense".into())),
    };
    Err(match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse { store },
        DatabaseError::UpgradeRequired(format) => {
            StoreError::Foreign { store, reason: format!("it is a redb file of format {format}") }
        }
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Foreign { store, reason: error.to_string() }
        }
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            damaged("it ends too early".into())
        }
        DatabaseError::Storage(redb::StorageError::Io(source)) => {
            StoreError::File { what: "open the store", path: store.into(), source }
        }
        DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => damaged(reason),
        error => StoreError::database("open")(error),
    })
}

fn apply(writing: &WriteTransaction, changes: &[Change]) -> Result<(), redb::Error> {
    let mut facts = writing.open_table(FACTS)?;
    let mut log = writing.open_table(LOG)?;
    let mut snapshot = writing.open_table(SNAPSHOT)?;
    for change in changes {
        match change {
            Change::Nothing => {}
            Change::Fact(fact, value) => drop(facts.insert(fact.key(), value.as_ref())?),
            Change::Vote(_, value) => drop(facts.insert(Fact::Vote.key(), value.as_ref())?),
            Change::Append(entries) => {
                for (index, entry) in entries {
                    log.insert(index, entry.as_ref())?;
                }
            }
            Change::Truncate { from } => log.retain_in(*from.., |_, _| false)?,
            Change::Purge { upto, purged } => {
                facts.insert(Fact::Purged.key(), purged.as_ref())?;
                log.retain_in(..=*upto, |_, _| false)?;
            }
            Change::Snapshot { meta, data } => {
                snapshot.insert(SNAPSHOT_META, meta.as_ref())?;
                snapshot.insert(SNAPSHOT_DATA, data.as_ref())?;
            }
        }
    }
    Ok(())
}

/// Calls `take` with each stored entry of `range` until it returns false. Returns whether it never did.
pub(super) fn for_each_entry(
    reading: &ReadTransaction,
    range: Range<u64>,
    mut take: impl FnMut(u64, &[u8]) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let log = reading.open_table(LOG).map_err(StoreError::database("read"))?;
    for entry in log.range(range).map_err(StoreError::database("read"))? {
        let (index, entry) = entry.map_err(StoreError::database("read"))?;
        if !take(index.value(), entry.value())? {
            return Ok(false);
        }
    }
    Ok(true)
}
