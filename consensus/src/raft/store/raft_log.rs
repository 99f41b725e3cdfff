//! The store as openraft sees it: the log and the vote.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};

use super::disk::{Change, Fact};
use super::writer::Done;
use super::{Store, StoreError};
use crate::env::lock::lock;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::raft::wire::{LogEntry, LogPosition};

/// How much of the log is read at once for a peer, in bytes. It stays in memory until the peer has acknowledged it.
const PIECE_BYTES: usize = 1 << 20;

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        to_raft(self.entries(half_open(&range), usize::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        to_raft(self.entries(start..end, PIECE_BYTES)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote()?.map(Into::into))
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.write(Change::Nothing).await?;
        let log = lock(&self.writer.shared.log);
        let (purged, last) = (log.purged, log.last.or(log.purged));
        Ok(LogState { last_purged_log_id: purged.map(Into::into), last_log_id: last.map(Into::into) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.write(Change::vote(&(*vote).into())?).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed.map(LogPosition::from) else { return Ok(self.writer.check()?) };
        let mut log = lock(&self.writer.shared.log);
        self.writer.enqueue(Change::fact(Fact::Committed, &committed)?, Done::Nobody)?;
        log.committed = Some(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.writer.check()?;
        Ok(lock(&self.writer.shared.log).committed.map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <TypeConfig as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(Into::into).collect();
        let flushed = |result: Result<(), StoreError>| callback.io_completed(result.map_err(Into::into));
        Ok(self.append_entries(&entries, Box::new(flushed))?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        Ok(self.truncate(last_log_id.map(Into::into))?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Ok(self.purge_entries(log_id.into())?)
    }
}

fn to_raft(entries: Vec<LogEntry>) -> Result<Vec<Entry>, io::Error> {
    entries.into_iter().map(|entry| entry.into_raft().map_err(io::Error::other)).collect()
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
