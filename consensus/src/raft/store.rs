//! The durable store of a node: one redb file with Raft's log and vote, the newest snapshot, and a few facts of our own.
//!
//! # What is in the file
//!
//! All values are postcard. The types of Raft's values are those of [`wire`](crate::raft::wire).
//!
//! | table | key | value |
//! |---|---|---|
//! | `facts` | `format` | `u32`: the version of this layout, 1; a store with a newer one is refused |
//! | | `identity` | [`Identity`]: which node of which cluster this is; set once, only `recover` replaces it |
//! | | `duty` | [`DatabaseRecord`]: the promise to recruiters, the history of the database's WAL, and a repair that is needed |
//! | | `removed` | `bool`: whether this node noticed that it was removed from its cluster |
//! | | `promised` | `Duration`: the longest lease that this node may have granted to a leader; see [`Store::longest_grant`] |
//! | | `vote` | `VoteRecord`: the newest vote |
//! | | `committed` | `LogPosition`: the newest entry that is known to be committed; may lag |
//! | | `purged` | `LogPosition`: the entry up to which the log was removed, inclusive |
//! | `log` | index, `u64` | `LogEntry`; the indices are consecutive, without holes |
//! | `snapshot` | `meta` | `SnapshotMetadata` |
//! | | `data` | the bytes of the state; in a table of its own, since redb rewrites the neighbours of a value that changes |
//!
//! # The order of writes
//!
//! 1. All writes go through one queue, in the order of the calls, to one writer. It puts all waiting writes into one
//!    transaction, with one fsync. A later write is never on disk without the earlier ones.
//! 2. Readers see appended entries, truncations and purges at once, in `Log`. It knows where the log begins and ends, and
//!    keeps appended entries until the file has them. The callback of an append is called after the fsync. So do
//!    [`Store::set_database_record`] and the other methods `set_…` return after it.
//! 3. Readers see a vote and the facts only when they are durable. `save_vote` returns then.
//! 4. `purged` is written in the transaction that removes the entries. A snapshot's metadata and data share one, too.
//! 5. `committed` is written with the next write that needs an fsync anyway, or when the store is closed. To lose the
//!    newest value is harmless: a quorum confirms it again.
//! 6. openraft assumes that the log that it finds when it starts is durable. So `get_log_state` waits for all earlier
//!    writes: another Raft core may just have been shut down over this store.
//! 7. [`recover`](crate::node::recover) replaces identity, vote, log and snapshot in one transaction, while no node runs.
//! 8. If a write or fsync fails, the store is closed for good. What the file holds then is unknown, and fsync reports lost
//!    pages only once. Every later operation fails with the first cause. Only a restart reads the file again.

mod alone;
mod disk;
mod error;
#[cfg(test)]
mod fixture_test;
pub mod inspect;
#[cfg(test)]
mod power_test;
mod raft_log;
#[cfg(test)]
mod suite_test;
#[cfg(test)]
pub(crate) mod test_log;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::disk::{Change, Disk, Fact};
pub use self::error::StoreError;
use self::writer::{By, Done, Flushed, Writer};
use crate::env::lock::lock;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{NodeId, Term, WalHistory};
pub use crate::protocol::repair::Repair;
use crate::raft::wire::{LogEntry, LogPosition, SnapshotMetadata, VoteRecord};

/// The durable store of a node. Clones share it. When the last clone is dropped, it waits until everything is written,
/// and releases the file.
///
/// The methods `set_…` block until the value is on disk. On a runtime with several workers, other tasks continue meanwhile.
///
/// # Errors
///
/// Every method fails once a write has failed: see [`StoreError::Failed`].
#[derive(Clone, Debug)]
pub struct Store {
    writer: Arc<Writer>,
}

/// Which node of which cluster a store belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Identifies the cluster.
    pub cluster: Uuid,
    /// The node in it.
    pub node: NodeId,
}

/// What a node has to remember about its database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// The promise to recruiters: the node takes WAL of no primary of an earlier term than this.
    pub promise: Term,
    /// Which terms wrote the database's WAL.
    pub history: WalHistory,
    /// What the database needs before it can be used. None if it needs nothing.
    pub repair: Option<Repair>,
}

/// The log as readers see it: its bounds, and the entries that are not yet in the file.
#[derive(Debug, Default)]
struct Log {
    /// The index of the first entry. It means nothing if there is no entry.
    first: u64,
    /// The last entry. None if there is none.
    last: Option<LogPosition>,
    purged: Option<LogPosition>,
    committed: Option<LogPosition>,
    /// The newest vote that is durable.
    vote: Option<VoteRecord>,
    /// It is set by the first request, before it is durable, so that two requests cannot both be the first.
    identity: Option<Identity>,
    /// The encoded entries that are not in the file yet, each with the number of its write. They are the log's end.
    tail: BTreeMap<u64, (u64, Bytes)>,
}

impl Store {
    /// Opens the store at `path`.
    ///
    /// # Errors
    ///
    /// If there is none ([`Store::create`] makes one), if another process uses it, or if it is damaged, of a newer program,
    /// or no store at all.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::new(Disk::open(path)?, By::Thread)
    }

    /// Creates a store at `path`. The file appears under its name only when it is complete.
    ///
    /// # Errors
    ///
    /// If something is at `path` already, or if the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        Self::new(Disk::create(path)?, By::Thread)
    }

    /// Opens the store on `backend`, or creates it there if that is empty.
    pub fn with_backend(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        Self::new(Disk::with_backend(backend)?, By::Thread)
    }

    /// Like [`Store::with_backend`], but writes on the caller's thread, so that a simulation on one thread is repeatable.
    pub fn with_backend_in_line(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        Self::new(Disk::with_backend(backend)?, By::Caller(None))
    }

    /// Like [`Store::with_backend_in_line`], but each write first waits for the time that `delay` returns, as it would wait
    /// for a disk, in a task of the runtime. The methods `set_…` do not wait.
    pub fn with_backend_delayed(
        backend: impl redb::StorageBackend,
        delay: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Self::new(Disk::with_backend(backend)?, By::Caller(Some(Box::new(delay))))
    }

    fn new(disk: Disk, by: By) -> Result<Self, StoreError> {
        let (first, last) = disk.bounds()?;
        let purged: Option<LogPosition> = disk.fact(Fact::Purged)?;
        let log = Log {
            first,
            last,
            purged,
            committed: disk.fact(Fact::Committed)?,
            vote: if sabotage::is(Sabotage::ForgetVote) { None } else { disk.fact(Fact::Vote)? },
            identity: disk.fact(Fact::Identity)?,
            tail: BTreeMap::new(),
        };
        Ok(Self { writer: Arc::new(Writer::new(disk, log, by)?) })
    }

    /// Which node of which cluster this is. None before that was set.
    pub fn identity(&self) -> Result<Option<Identity>, StoreError> {
        self.writer.disk()?.fact(Fact::Identity)
    }

    /// Sets which node of which cluster this is, durably.
    ///
    /// # Errors
    ///
    /// If the store belongs to another node: the identity may be set again to the same value only.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let (reply, receiver) = mpsc::channel();
        {
            let mut log = lock(&self.writer.shared.log);
            match log.identity {
                Some(stored) if stored != *identity => {
                    return Err(StoreError::OtherIdentity { stored, given: *identity });
                }
                _ => log.identity = Some(*identity),
            }
            self.writer.enqueue(Change::fact(Fact::Identity, identity)?, Done::Blocked(reply))?;
        }
        self.writer.block(&receiver)
    }

    /// What this node has to remember about its database. The default before that was set.
    pub fn database_record(&self) -> Result<DatabaseRecord, StoreError> {
        Ok(self.writer.disk()?.fact(Fact::DatabaseRecord)?.unwrap_or_default())
    }

    /// Replaces the record of the database, durably.
    pub fn set_database_record(&self, record: &DatabaseRecord) -> Result<(), StoreError> {
        self.set(Change::fact(Fact::DatabaseRecord, record)?)
    }

    /// Whether this node noticed that it was removed from its cluster.
    pub fn removed(&self) -> Result<bool, StoreError> {
        Ok(self.writer.disk()?.fact(Fact::Removed)?.unwrap_or_default())
    }

    /// Notes, durably, whether this node was removed from its cluster.
    pub fn set_removed(&self, removed: bool) -> Result<(), StoreError> {
        self.set(Change::fact(Fact::Removed, &removed)?)
    }

    /// The longest lease that this node may have granted to a leader before it was started: for that long it votes for
    /// nobody else. None if no grant was longer than the default of `node-timeout`, or if the program that wrote the
    /// store did not keep it.
    pub fn longest_grant(&self) -> Result<Option<Duration>, StoreError> {
        self.writer.disk()?.fact(Fact::LongestGrant)
    }

    /// Replaces the longest grant, durably, before a longer one is given.
    pub(crate) async fn raise_longest_grant(&self, length: Duration) -> Result<(), StoreError> {
        self.write(Change::fact(Fact::LongestGrant, &length)?).await
    }

    /// Replaces the longest grant once it is over. Nobody waits for this: without it, this node waits longer than it has
    /// to when it starts.
    pub(crate) fn lower_longest_grant(&self, length: Duration) -> Result<(), StoreError> {
        {
            let _order = lock(&self.writer.shared.log);
            self.writer.enqueue(Change::fact(Fact::LongestGrant, &length)?, Done::Nobody)?;
        }
        self.writer.in_line();
        Ok(())
    }

    /// The newest vote that is durable.
    pub(crate) fn vote(&self) -> Result<Option<VoteRecord>, StoreError> {
        self.writer.check()?;
        Ok(lock(&self.writer.shared.log).vote)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Result<Option<(SnapshotMetadata, Vec<u8>)>, StoreError> {
        self.writer.disk()?.snapshot()
    }

    /// Replaces the snapshot, durably and at once.
    pub fn set_snapshot(&self, meta: &SnapshotMetadata, data: &[u8]) -> Result<(), StoreError> {
        self.set(Change::snapshot(meta, data)?)
    }

    /// The entries from `first` on that are known to be committed.
    pub(crate) fn committed_entries(&self, first: u64) -> Result<Vec<LogEntry>, StoreError> {
        let committed = lock(&self.writer.shared.log).committed;
        self.entries(first..committed.map_or(0, |committed| committed.index.saturating_add(1)), usize::MAX)
    }

    /// How long the newest write to the disk took, with its fsync. Zero before the first.
    pub fn last_commit(&self) -> Duration {
        self.writer.shared.timing.last()
    }

    /// How long the slowest write to the disk took, with its fsync, since the store was opened.
    pub fn slowest_commit(&self) -> Duration {
        self.writer.shared.timing.slowest()
    }

    /// Sets a hook that is called with the time that each write to the disk takes. The writer calls it, so it must not
    /// block. A second hook is ignored.
    pub fn observe(&self, hook: impl Fn(Duration) + Send + Sync + 'static) {
        self.writer.shared.timing.observe(hook);
    }

    fn set(&self, change: Change) -> Result<(), StoreError> {
        let (reply, receiver) = mpsc::channel();
        {
            let _order = lock(&self.writer.shared.log);
            self.writer.enqueue(change, Done::Blocked(reply))?;
        }
        self.writer.block(&receiver)
    }

    async fn write(&self, change: Change) -> Result<(), StoreError> {
        let reply = {
            let _order = lock(&self.writer.shared.log);
            self.writer.send(change)?
        };
        self.writer.written(reply).await
    }

    /// The entries of `range` that are in the log, without holes. If they have more than `limit` bytes, only the first of
    /// them, but at least one.
    pub(crate) fn entries(&self, range: Range<u64>, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let disk = self.writer.disk()?;
        // The state of the log and the view of the file are of the same instant.
        let (range, reading, tail) = {
            let log = lock(&self.writer.shared.log);
            let Some(last) = log.last else { return Ok(Vec::new()) };
            let range = range.start.max(log.first)..range.end.min(last.index.saturating_add(1));
            if range.is_empty() {
                return Ok(Vec::new());
            }
            let tail: Vec<_> =
                log.tail.range(range.clone()).map(|(index, (_, entry))| (*index, entry.clone())).collect();
            let stored = range.start..tail.first().map_or(range.end, |(index, _)| *index);
            let reading = if stored.is_empty() { None } else { Some((disk.begin_read()?, stored)) };
            (range, reading, tail)
        };
        let mut entries = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0).min(1024));
        let mut size = 0;
        let mut take = |index: u64, encoded: &[u8]| {
            let expected = range.start + entries.len() as u64;
            if index != expected {
                return Err(StoreError::Hole { index: expected });
            }
            if !entries.is_empty() && size + encoded.len() > limit {
                return Ok(false);
            }
            size += encoded.len();
            entries.push(disk::decode("an entry of the log", encoded)?);
            Ok(true)
        };
        let mut more = true;
        if let Some((reading, stored)) = reading {
            let end = stored.end;
            let mut next = stored.start;
            more = disk::for_each_entry(&reading, stored, |index, encoded| {
                next = index + 1;
                take(index, encoded)
            })?;
            if more && next != end {
                return Err(StoreError::Hole { index: next });
            }
        }
        for (index, encoded) in tail {
            more = more && take(index, &encoded)?;
        }
        Ok(entries)
    }

    /// Appends `entries`. They can be read when this returns, and are durable when `flushed` is called.
    fn append_entries(&self, entries: &[LogEntry], flushed: Flushed) -> Result<(), StoreError> {
        let encoded: Vec<(LogPosition, Bytes)> = entries
            .iter()
            .map(|entry| Ok((entry.position, disk::encode("an entry of the log", entry)?)))
            .collect::<Result<_, StoreError>>()?;
        {
            let mut log = lock(&self.writer.shared.log);
            for (at, (id, _)) in encoded.iter().enumerate() {
                let before = if at == 0 { log.last.or(log.purged) } else { Some(encoded[at - 1].0) };
                if before.is_some_and(|before| Some(id.index) != before.index.checked_add(1)) {
                    return Err(StoreError::Gap { last: before.map(|id| id.index), given: id.index });
                }
            }
            let change = Change::Append(encoded.iter().map(|(id, entry)| (id.index, entry.clone())).collect());
            let done = if sabotage::is(Sabotage::AcknowledgeBeforeFsync) {
                flushed(Ok(()));
                Done::Nobody
            } else {
                Done::Flushed(flushed)
            };
            let number = self.writer.enqueue(change, done)?;
            if let (Some((first, _)), Some((last, _))) = (encoded.first(), encoded.last()) {
                if log.last.is_none() {
                    log.first = first.index;
                }
                log.last = Some(*last);
            }
            log.tail.extend(encoded.into_iter().map(|(id, entry)| (id.index, (number, entry))));
        }
        self.writer.in_line();
        Ok(())
    }

    /// Removes the entries after `keep`, or all of them if it is none.
    fn truncate(&self, keep: Option<LogPosition>) -> Result<(), StoreError> {
        {
            let mut log = lock(&self.writer.shared.log);
            let end = keep.map_or(0, |keep| keep.index.saturating_add(1));
            if log.last.is_none_or(|last| last.index < end) {
                self.writer.check()?;
                return Ok(());
            }
            self.writer.enqueue(Change::Truncate { from: end }, Done::Nobody)?;
            log.tail.split_off(&end);
            log.last = keep.filter(|keep| keep.index >= log.first);
        }
        self.writer.in_line();
        Ok(())
    }

    /// Removes the entries up to `upto`, inclusive.
    fn purge_entries(&self, upto: LogPosition) -> Result<(), StoreError> {
        {
            let mut log = lock(&self.writer.shared.log);
            if log.purged.is_some_and(|purged| upto.index <= purged.index) {
                self.writer.check()?;
                return Ok(());
            }
            self.writer.enqueue(Change::purge(&upto)?, Done::Nobody)?;
            log.purged = Some(upto);
            if log.last.is_some_and(|last| last.index <= upto.index) {
                log.last = None;
                log.tail.clear();
            } else {
                let first = log.first.max(upto.index.saturating_add(1));
                log.first = first;
                log.tail = log.tail.split_off(&first);
            }
        }
        self.writer.in_line();
        Ok(())
    }
}
