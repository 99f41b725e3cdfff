//! A store as the first version writes it, with one value of each kind in it. Later programs must read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership};
use uuid::Uuid;

use super::{DatabaseRecord, Identity, Repair, Store};
use crate::model::{
    ConfigUpdate, Duration, LogIndex, Lsn, Node, NodeId, NodeRole, NodeState, Port, StatementHash, Term, WalHistory,
    WalStart,
};
use crate::protocol::command::{Change, Command};
use crate::protocol::peer::Peer;
use crate::protocol::readonly::{ReadonlyChange, ReadonlyUpdate};
use crate::protocol::state::State;
use crate::protocol::version::{Spoken, Version, Versions};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Entry, LogId, Vote};
use crate::raft::wire::{PlacedMembership, SnapshotMetadata};

/// If this variable is `1`, the file is written again. Never do that once a release has written such files: then a change
/// becomes a variant of its own, or a new version, and gets another file beside this one.
const UPDATE: &str = "QLUSTER_UPDATE_FIXTURES";

const PURGED: u64 = 2;

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-1.redb")
}

fn node(id: u64) -> Node {
    Node {
        id: NodeId(id),
        ip: [127, 0, 0, 1].into(),
        db_port: Port::new(5432),
        api_port: Port::new(8080).unwrap(),
        role: NodeRole::Voter,
        upgrade_to: NodeRole::Witness,
        state: NodeState::Down,
        reason: Some("maintenance".into()),
    }
}

fn history() -> WalHistory {
    WalHistory(vec![WalStart { term: Term(1), lsn: Lsn(100) }, WalStart { term: Term(3), lsn: Lsn(1 << 40) }])
}

/// One of each.
fn changes() -> Vec<Change> {
    let (id, port, term) = (NodeId(2), Port::new(8081).unwrap(), Term(1));
    let update = ConfigUpdate {
        node_timeout: Some(Duration::from_millis(2000)),
        quorum_replication: Some(false),
        replication_factor: Some(2),
        ..Default::default()
    };
    let statements = |database: &str, added: &[u64], withdrawn: &[u64]| ReadonlyUpdate::Statements {
        database: database.into(),
        version: "1".into(),
        postgresql: 15,
        basis: "00ff".into(),
        added: added.iter().copied().map(StatementHash).collect(),
        withdrawn: withdrawn.iter().copied().map(StatementHash).collect(),
    };
    let readonly = |generation, what| Change::Readonly(ReadonlyChange { term, generation, what });
    let add = |role| Change::AddNode { ip: "::1".parse().unwrap(), api_port: port, role };
    vec![
        Change::Create { cluster: Uuid::from_u128(7), node: node(1) },
        add(NodeRole::Voter),
        add(NodeRole::Replica),
        Change::UpgradeNode { node: id, db_port: port, api_port: port },
        Change::Lead { node: NodeId(1), term, lossy: false },
        Change::Promoted { node: NodeId(1), term, timeline: 2, history: history() },
        Change::Held { voters: BTreeSet::from([NodeId(1)]), void: 0 },
        Change::SetConfig(update),
        Change::Reach { node: id, reachable: false },
        Change::DownNode { node: id },
        Change::RemoveNode { node: id },
        Change::NobodyLeads { node: id },
        readonly(1, statements("postgres", &[1, u64::MAX], &[])),
        readonly(2, statements("postgres", &[2], &[1])),
        readonly(3, statements("gone", &[3], &[])),
        readonly(4, ReadonlyUpdate::Forgotten { database: "gone".into() }),
        readonly(5, ReadonlyUpdate::Reason(Some("a test".into()))),
        Change::RaiseVersion { version: Version(1) },
    ]
}

fn log_id(index: u64) -> LogId {
    LogId { leader_id: vote().leader_id.to_committed(), index }
}

fn vote() -> Vote {
    Vote::new_committed(1, NodeId(1))
}

fn membership() -> Membership<NodeId, Peer> {
    let peers = BTreeMap::from([1, 2].map(|id| (NodeId(id), Peer { address: ([127, 0, 0, 1], 8080).into() })));
    Membership::new(vec![BTreeSet::from([NodeId(1)])], peers).unwrap()
}

/// All kinds of entries, the first of index 1.
fn entries() -> Vec<Entry> {
    let command = |(change, number)| {
        EntryPayload::Normal(Command {
            id: Uuid::from_u128(number),
            time: "2026-01-31T12:00:00Z".into(),
            actor: "operator".into(),
            cause: "a test".into(),
            change,
        })
    };
    let payloads = [EntryPayload::Blank, EntryPayload::Membership(membership())];
    let payloads = payloads.into_iter().chain(changes().into_iter().zip(1..).map(command));
    payloads.zip(1..).map(|(payload, index)| Entry::new(log_id(index), payload)).collect()
}

/// The state after all of that.
fn state() -> State {
    let mut state = State::default();
    for entry in entries() {
        if let EntryPayload::Normal(command) = entry.payload {
            state.apply(LogIndex(entry.log_id.index), Term(1), command);
        }
    }
    state
}

fn meta() -> SnapshotMetadata {
    let membership = PlacedMembership { position: Some(log_id(2).into()), membership: (&membership()).into() };
    let last = entries().last().map(|entry| entry.log_id.into());
    SnapshotMetadata { last, membership, ..Default::default() }
}

fn identity() -> Identity {
    Identity { cluster: Uuid::from_u128(7), node: NodeId(1) }
}

fn record() -> DatabaseRecord {
    DatabaseRecord { promise: Term(4), history: history(), repair: Some(Repair::Rewind) }
}

async fn write(path: &Path) {
    let mut store = Store::create(path).unwrap();
    store.set_identity(&identity()).unwrap();
    store.set_database_record(&record()).unwrap();
    store.set_removed(true).unwrap();
    store.save_vote(&vote()).await.unwrap();
    store.blocking_append(entries()).await.unwrap();
    store.save_committed(Some(log_id(5))).await.unwrap();
    store.set_snapshot(&meta(), &postcard::to_stdvec(&state()).unwrap()).unwrap();
    store.purge(log_id(PURGED)).await.unwrap();
    // Durable with all before it.
    store.set_removed(false).unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_version_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        write(&path).await;
        std::fs::copy(&path, file()).unwrap();
    } else {
        std::fs::copy(file(), &path).unwrap();
    }
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.identity().unwrap(), Some(identity()));
    assert_eq!(store.database_record().unwrap(), record());
    assert!(!store.removed().unwrap());
    assert_eq!(store.read_vote().await.unwrap(), Some(vote()));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(5)));
    let log = store.get_log_state().await.unwrap();
    assert_eq!((log.last_purged_log_id, log.last_log_id), (Some(log_id(PURGED)), meta().last.map(Into::into)));
    let stored = store.try_get_log_entries(..).await.unwrap();
    assert_eq!(stored, entries()[PURGED as usize..]);
    let state_machine = StateMachine::new(store, Spoken::new(Versions::KNOWN)).unwrap();
    state_machine.read(|applied| {
        assert_eq!(applied.state, state());
        assert_eq!((applied.last, &applied.membership), (meta().last, &meta().membership));
    });
}
