//! A store with a log in it, for tests of other rooms.

use std::path::Path;

use futures::executor::block_on;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use uuid::Uuid;

use super::{Identity, Store};
use crate::env::clock::Clock;
use crate::model::{NodeId, Term};
use crate::protocol::command::{Change, Command};
use crate::raft::wire::{LogEntry, LogPayload, LogPosition, VoteRecord};

/// The position of the entry at `index`, of term 2.
pub(crate) fn position(index: u64) -> LogPosition {
    LogPosition { term: leader().term, index }
}

fn leader() -> VoteRecord {
    VoteRecord { term: Term(2), voted_for: NodeId(1), committed: true }
}

/// A new store at `path` whose log has `changes`, from index 1 on.
pub(crate) fn store_with(path: &Path, identity: &Identity, changes: impl IntoIterator<Item = Change>) -> Store {
    let store = Store::create(path).unwrap();
    store.set_identity(identity).unwrap();
    block_on(store.clone().save_vote(&leader().into())).unwrap();
    append(&store, 1, changes);
    store
}

/// Appends `changes`, the first at `index`.
pub(crate) fn append(store: &Store, index: u64, changes: impl IntoIterator<Item = Change>) {
    let entries = changes.into_iter().zip(index..).map(|(change, index)| {
        let (time, by) = (Clock::boottime().time_of_day(), "test".to_owned());
        let command = Command { id: Uuid::from_u128(index.into()), time, actor: by.clone(), cause: by, change };
        LogEntry { position: position(index), payload: LogPayload::Command(command) }.into_raft().unwrap()
    });
    block_on(store.clone().blocking_append(entries.collect::<Vec<_>>())).unwrap();
}

/// The term of the vote in `store`, and the entries before and at which its log begins and ends.
pub(crate) fn ends(store: &Store) -> (u64, Option<LogPosition>, Option<LogPosition>) {
    let vote = store.vote().unwrap().unwrap();
    let log = block_on(store.clone().get_log_state()).unwrap();
    (vote.term.0, log.last_purged_log_id.map(Into::into), log.last_log_id.map(Into::into))
}
