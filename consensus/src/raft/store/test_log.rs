//! A store with a log in it, for tests of other rooms.

use std::path::Path;

use futures::executor::block_on;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::vote::RaftLeaderId;
use uuid::Uuid;

use super::{Identity, Store};
use crate::env::clock::Clock;
use crate::model::NodeId;
use crate::protocol::command::{Change, Command};
use crate::raft::types::{Entry, LogId, Vote};

/// The id of the entry at `index`, of term 2.
pub(crate) fn log_id(index: u64) -> LogId {
    LogId { leader_id: leader().leader_id.to_committed(), index }
}

fn leader() -> Vote {
    Vote::new_committed(2, NodeId(1))
}

/// A new store at `path` whose log has `changes`, from index 1 on.
pub(crate) fn store_with(path: &Path, identity: &Identity, changes: impl IntoIterator<Item = Change>) -> Store {
    let store = Store::create(path).unwrap();
    store.set_identity(identity).unwrap();
    block_on(store.clone().save_vote(&leader())).unwrap();
    append(&store, 1, changes);
    store
}

/// Appends `changes`, the first at `index`.
pub(crate) fn append(store: &Store, index: u64, changes: impl IntoIterator<Item = Change>) {
    let entries = changes.into_iter().zip(index..).map(|(change, index)| {
        let (time, by) = (Clock::boottime().time_of_day(), "test".to_owned());
        let command = Command { id: Uuid::from_u128(index.into()), time, actor: by.clone(), cause: by, change };
        Entry::new_normal(log_id(index), command)
    });
    block_on(store.clone().blocking_append(entries.collect::<Vec<_>>())).unwrap();
}

/// The term of the vote in `store`, and the entries before and at which its log begins and ends.
pub(crate) fn ends(store: &Store) -> (u64, Option<LogId>, Option<LogId>) {
    let vote = block_on(store.clone().read_vote()).unwrap().unwrap();
    let log = block_on(store.clone().get_log_state()).unwrap();
    (vote.leader_id.term, log.last_purged_log_id, log.last_log_id)
}
