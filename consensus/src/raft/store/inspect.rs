//! Reads a store without changing it, also one that a node cannot open.
//!
//! redb repairs a file that was not closed in order, and writes to it for that. So the file is read into memory, and
//! only that copy is opened. Each value that cannot be read is reported, with the reason.

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use super::disk::{FACTS, FORMAT, Fact, LOG, SNAPSHOT, SNAPSHOT_DATA, SNAPSHOT_META};
use super::{DatabaseRecord, Identity, StoreError};
use crate::protocol::state::State;
use crate::protocol::version::{Spoken, Version, Versions};
use crate::raft::wire::{LogPayload, LogPosition, SnapshotMetadata, VoteRecord};

/// What a store holds.
#[derive(Debug, Serialize)]
pub struct Contents {
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// What is wrong with the file as a whole, a sentence each. Empty if nothing is.
    pub problems: Vec<String>,
    /// The version of the store's layout.
    pub format: Value<u32>,
    /// Which node of which cluster the store belongs to.
    pub identity: Value<Identity>,
    /// Whether the node noticed that it was removed from its cluster.
    pub removed: Value<bool>,
    /// The node's newest vote.
    pub vote: Value<VoteRecord>,
    /// The longest lease that the node may have granted to a leader. Absent if none was longer than the default of
    /// `node-timeout`.
    pub longest_grant: Value<Duration>,
    /// What the node keeps about its database.
    pub database_record: Value<DatabaseRecord>,
    /// The newest entry that the node knows to be committed. It may lag.
    pub committed: Value<LogPosition>,
    /// The entry up to which the log was removed, inclusive.
    pub purged: Value<LogPosition>,
    /// The entries of the log, in order.
    pub log: Vec<StoredEntry>,
    /// What the snapshot is of.
    pub snapshot: Value<SnapshotMetadata>,
    /// The size of the state in the snapshot, in bytes.
    pub snapshot_bytes: usize,
    /// The state in the snapshot.
    pub state: Value<State>,
}

/// A value of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<T> {
    /// The store does not have it.
    Absent,
    /// It was read.
    Read(T),
    /// It is there, and cannot be read. Why, in a sentence.
    Unreadable(String),
}

/// An entry of the log, at the index under which it is stored.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct StoredEntry {
    /// The index, counted from 0.
    pub index: u64,
    /// The entry. If its own index differs, it counts as unreadable.
    pub entry: Value<Entry>,
}

/// What is in an entry.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The term of the leader that wrote it.
    pub term: crate::model::Term,
    /// What is in it.
    pub payload: LogPayload,
}

/// Why nothing of a store can be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The node runs.
    #[error("the store {} is in use", .0.display())]
    InUse(std::path::PathBuf),
    /// The file cannot be read.
    #[error("cannot read the store {}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged, or is something else, so that none of its values can be found.
    #[error("nothing in the store can be read")]
    Store(#[source] StoreError),
}

impl Contents {
    /// Reads the store at `path`. The file is not changed.
    ///
    /// # Errors
    ///
    /// If a node uses the store, if the file cannot be read, or if none of its values can be found. A single value that
    /// cannot be read is no error: see [`Value::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, InspectError> {
        let bytes = read_unused(path)?;
        let (database, problems) = open(&bytes, path)?;
        let size = bytes.len() as u64;
        drop(bytes);
        let reading = caught(|| database.begin_read().map_err(|error| error.to_string()));
        let reading = reading
            .map_err(|reason| InspectError::Store(StoreError::Damaged { store: path.display().to_string(), reason }))?;
        let mut contents = Self::of(&reading, problems);
        contents.bytes = size;
        Ok(contents)
    }

    fn of(reading: &ReadTransaction, mut problems: Vec<String>) -> Self {
        let format = fact(reading, Fact::Format);
        match &format {
            Value::Read(FORMAT) => {}
            Value::Read(found) => problems.push(format!(
                "its format is {found}, and this qluster knows formats up to {FORMAT}: values may be misread"
            )),
            Value::Absent => problems.push("it does not say its format: it may be no store of qluster".into()),
            Value::Unreadable(_) => {}
        }
        let log = log(reading).unwrap_or_else(|(read, reason)| {
            problems.push(format!("its log cannot be read after {} entries: {reason}", read.len()));
            read
        });
        let data = raw(reading, SNAPSHOT_DATA);
        Self {
            bytes: 0,
            format,
            identity: fact(reading, Fact::Identity),
            removed: fact(reading, Fact::Removed),
            vote: fact(reading, Fact::Vote),
            longest_grant: fact(reading, Fact::LongestGrant),
            database_record: fact(reading, Fact::DatabaseRecord),
            committed: fact(reading, Fact::Committed),
            purged: fact(reading, Fact::Purged),
            log,
            snapshot: raw(reading, SNAPSHOT_META).and_then(|bytes| decode(&bytes)),
            snapshot_bytes: if let Value::Read(data) = &data { data.len() } else { 0 },
            state: data.and_then(|bytes| state(&bytes)),
            problems,
        }
    }

    /// Whether all of the store was read.
    pub fn is_whole(&self) -> bool {
        let all = [
            self.format.is_whole(),
            self.identity.is_whole(),
            self.removed.is_whole(),
            self.vote.is_whole(),
            self.longest_grant.is_whole(),
            self.database_record.is_whole(),
            self.committed.is_whole(),
            self.purged.is_whole(),
            self.snapshot.is_whole(),
            self.state.is_whole(),
        ];
        self.problems.is_empty() && all.iter().all(|whole| *whole) && self.log.iter().all(|at| at.entry.is_whole())
    }
}

impl<T> Value<T> {
    /// Whether it was read, or is not there.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Value::Unreadable(_))
    }

    fn and_then<U>(self, then: impl FnOnce(T) -> Result<U, String>) -> Value<U> {
        match self {
            Value::Absent => Value::Absent,
            Value::Read(value) => then(value).map_or_else(Value::Unreadable, Value::Read),
            Value::Unreadable(reason) => Value::Unreadable(reason),
        }
    }
}

/// The value itself; null if it is absent; `{"unreadable": reason}` if it cannot be read.
impl<T: Serialize> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Absent => serializer.serialize_none(),
            Value::Read(value) => value.serialize(serializer),
            Value::Unreadable(reason) => serializer.collect_map([("unreadable", reason)]),
        }
    }
}

/// The bytes of a store that no node uses. The file is locked while it is read, for milliseconds: a node that is started
/// in that time finds its store in use.
fn read_unused(path: &Path) -> Result<Vec<u8>, InspectError> {
    let failed = |source| InspectError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    // redb takes such a lock too while a database is open. A test fails should it stop doing so.
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(InspectError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Opens a copy of the file with a check of all its pages, as a node does. If that fails, opens it without the check.
fn open(bytes: &[u8], path: &Path) -> Result<(Database, Vec<String>), InspectError> {
    let refused = match open_copy(bytes, true) {
        Ok(database) => return Ok((database, Vec::new())),
        Err(reason) => reason,
    };
    match open_copy(bytes, false) {
        Ok(database) => Ok((database, vec![format!("a node cannot open it: {refused}")])),
        Err(reason) => Err(InspectError::Store(StoreError::Damaged { store: path.display().to_string(), reason })),
    }
}

fn open_copy(bytes: &[u8], check: bool) -> Result<Database, String> {
    caught(|| {
        let copy = InMemoryBackend::new();
        let filled = copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, bytes));
        filled.map_err(|error| error.to_string())?;
        let mut builder = Builder::new();
        builder.set_check_integrity_on_open(check).create_with_backend(copy).map_err(|error| error.to_string())
    })
}

/// redb may panic if the file is damaged. Here that is an error like any other.
fn caught<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("its pages make no sense".into()))
}

/// A value of the table of facts.
fn fact<T: DeserializeOwned>(reading: &ReadTransaction, fact: Fact) -> Value<T> {
    stored(|| {
        let facts = reading.open_table(FACTS).map_err(|error| error.to_string())?;
        let value = facts.get(fact.key()).map_err(|error| error.to_string())?;
        Ok(value.map(|value| value.value().to_vec()))
    })
    .and_then(|bytes| decode(&bytes))
}

/// A value of the table of the snapshot.
fn raw(reading: &ReadTransaction, key: &str) -> Value<Vec<u8>> {
    stored(|| {
        let snapshot = reading.open_table(SNAPSHOT).map_err(|error| error.to_string())?;
        let value = snapshot.get(key).map_err(|error| error.to_string())?;
        Ok(value.map(|value| value.value().to_vec()))
    })
}

fn stored(read: impl FnOnce() -> Result<Option<Vec<u8>>, String>) -> Value<Vec<u8>> {
    match caught(read) {
        Ok(Some(bytes)) => Value::Read(bytes),
        Ok(None) => Value::Absent,
        Err(reason) => Value::Unreadable(reason),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, more)) => Err(format!("{} of its {} bytes are not understood", more.len(), bytes.len())),
        Err(error) => Err(format!("its {} bytes are not understood: {error}", bytes.len())),
    }
}

/// The state in a snapshot. If its version is not known, nothing else of it can be read.
fn state(bytes: &[u8]) -> Result<State, String> {
    let (version, _): (Version, _) = postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
    Spoken::new(Versions::KNOWN).check(version).map_err(|error| error.to_string())?;
    decode(bytes)
}

/// The entries of the log. If they cannot be read to the end: those that were read, and the reason.
fn log(reading: &ReadTransaction) -> Result<Vec<StoredEntry>, (Vec<StoredEntry>, String)> {
    let mut entries = Vec::new();
    let read = caught(|| {
        let log = reading.open_table(LOG).map_err(|error| error.to_string())?;
        for entry in log.iter().map_err(|error| error.to_string())? {
            let (index, entry) = entry.map_err(|error| error.to_string())?;
            let (index, entry) = (index.value(), decode_entry(index.value(), entry.value()));
            entries.push(StoredEntry { index, entry: entry.map_or_else(Value::Unreadable, Value::Read) });
        }
        Ok(())
    });
    match read {
        Ok(()) => Ok(entries),
        Err(reason) => Err((entries, reason)),
    }
}

fn decode_entry(index: u64, bytes: &[u8]) -> Result<Entry, String> {
    let entry: crate::raft::wire::LogEntry = decode(bytes)?;
    match entry.position {
        LogPosition { term, index: own } if own == index => Ok(Entry { term, payload: entry.payload }),
        LogPosition { index: own, .. } => Err(format!("it is entry {own}, at the place of another")),
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    const FIXTURE: &[u8] = include_bytes!("../../../tests/data/store-1.redb");

    /// The fixture at a place of its own.
    fn copy() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        std::fs::write(&path, FIXTURE).unwrap();
        (directory, path)
    }

    /// Changes a value of the store at `path`.
    fn replace<K: redb::Key + 'static>(path: &Path, table: &str, key: K::SelfType<'_>, value: &[u8]) {
        let database = Database::open(path).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(TableDefinition::<K, &[u8]>::new(table)).unwrap().insert(key, value).unwrap();
        writing.commit().unwrap();
    }

    #[test]
    fn a_store_is_read_and_left_as_it_was() {
        let (_directory, path) = copy();
        let contents = Contents::read(&path).unwrap();
        assert!(contents.is_whole(), "{contents:?}");
        assert_eq!(contents.format, Value::Read(FORMAT));
        assert_eq!(contents.log.len(), 18);
        assert!(contents.log.iter().zip(3..).all(|(entry, index)| entry.index == index));
        let Value::Read(state) = &contents.state else { panic!("{contents:?}") };
        assert_eq!(state.next_node, 4);
        assert!(std::fs::read(&path).unwrap() == FIXTURE);
    }

    #[test]
    fn a_store_that_was_not_closed_in_order_is_read_and_left_as_it_was() {
        let (_directory, path) = copy();
        let database = Database::open(&path).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(FACTS).unwrap().insert("removed", &[1_u8][..]).unwrap();
        writing.commit().unwrap();
        // A node that is killed leaves the file like this.
        let left = std::fs::read(&path).unwrap();
        drop(database);
        assert_ne!(left, std::fs::read(&path).unwrap());
        std::fs::write(&path, &left).unwrap();
        assert_eq!(Contents::read(&path).unwrap().removed, Value::Read(true));
        assert!(std::fs::read(&path).unwrap() == left);
    }

    #[test]
    fn what_cannot_be_read_is_reported_and_the_rest_is_read() {
        let (_directory, path) = copy();
        replace::<&str>(&path, "facts", "vote", &[1, 0, 1]);
        replace::<u64>(&path, "log", 7, &[1, 7, 99]);
        replace::<u64>(&path, "log", 9, &[1, 8, 0]);
        let contents = Contents::read(&path).unwrap();
        assert!(!contents.is_whole());
        assert!(matches!(&contents.vote, Value::Unreadable(why) if why.contains("not understood")), "{contents:?}");
        let at = |index: u64| &contents.log.iter().find(|entry| entry.index == index).unwrap().entry;
        assert!(matches!(at(7), Value::Unreadable(_)));
        assert_eq!(*at(9), Value::Unreadable("it is entry 8, at the place of another".into()));
        assert!(at(8).is_whole() && contents.identity.is_whole() && contents.state.is_whole());
    }

    #[test]
    fn a_store_of_a_newer_program_is_read_as_far_as_it_is_understood() {
        let (_directory, path) = copy();
        replace::<&str>(&path, "facts", "format", &[2]);
        replace::<&str>(&path, "snapshot", "data", &[2, 0, 0]);
        assert!(matches!(super::super::Store::open(&path), Err(StoreError::Newer { .. })));
        let contents = Contents::read(&path).unwrap();
        assert_eq!(contents.format, Value::Read(2));
        assert!(contents.problems[0].contains("its format is 2"), "{:?}", contents.problems);
        assert!(matches!(&contents.state, Value::Unreadable(why) if why.contains("version 2")), "{contents:?}");
        assert!(contents.identity.is_whole() && contents.log.len() == 18);
    }

    #[test]
    fn a_store_that_a_node_uses_is_refused() {
        let (_directory, path) = copy();
        let store = super::super::Store::open(&path).unwrap();
        assert!(matches!(Contents::read(&path), Err(InspectError::InUse(_))));
        drop(store);
        Contents::read(&path).unwrap();
    }

    /// Whichever bit is wrong: the values that it spoils are reported, or nothing can be read. It never panics.
    #[test]
    fn wrong_bits_are_reported_or_hurt_nothing() {
        let (directory, path) = copy();
        let mut refused = 0;
        for at in (0..FIXTURE.len()).step_by(997) {
            let mut wrong = FIXTURE.to_vec();
            wrong[at] ^= 1 << (at % 8);
            std::fs::write(&path, &wrong).unwrap();
            refused += usize::from(Contents::read(&path).is_err());
        }
        for odd in [&b""[..], b"no store", &[0; 10_000]] {
            std::fs::write(&path, odd).unwrap();
            match Contents::read(&path) {
                Err(InspectError::Store(_)) => {}
                Ok(contents) => assert!(!contents.is_whole(), "{contents:?}"),
                Err(error) => panic!("{error}"),
            }
        }
        println!("{refused} refused of {}", FIXTURE.len() / 997 + 1);
        assert!(matches!(Contents::read(&directory.path().join("nothing")), Err(InspectError::File { .. })));
    }
}
