//! The store over reopening, foreign and damaged files, failing disks and power cuts.

#[path = "../support/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::executor::block_on;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;
use qluster_consensus::model::{Lsn, NodeId, Term, WalHistory, WalStart};
use qluster_consensus::raft::store::{DatabaseRecord, Identity, Repair, Store, StoreError};
use qluster_consensus::raft::types::TypeConfig;
use qluster_consensus::raft::wire::SnapshotMetadata;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::{Database, TableDefinition};
use uuid::Uuid;

use self::disk::{Fails, FakeDisk, Handle};

type Entry = EntryOf<TypeConfig>;
type LogId = LogIdOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: Vote::new_committed(term, NodeId(0)).leader_id.to_committed(), index }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry::new_blank(log_id(term, index))
}

fn log(store: &Store) -> Vec<LogId> {
    let entries = block_on(store.clone().try_get_log_entries(..)).unwrap();
    entries.into_iter().map(|entry| entry.log_id).collect()
}

fn identity() -> Identity {
    Identity { cluster: Uuid::from_u128(7), node: NodeId(3) }
}

fn record(promise: u64) -> DatabaseRecord {
    let history = WalHistory(vec![WalStart { term: Term(1), lsn: Lsn(100) }]);
    DatabaseRecord { promise: Term(promise), history, repair: Some(Repair::Rewind) }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

#[tokio::test]
async fn what_was_written_is_there_when_the_store_is_opened_again() {
    let (_directory, path) = place();
    let meta = SnapshotMetadata { last: Some(log_id(1, 3).into()), ..Default::default() };
    let mut store = Store::create(&path).unwrap();
    assert_eq!(store.identity().unwrap(), None);
    assert_eq!(store.database_record().unwrap(), DatabaseRecord::default());
    assert!(!store.removed().unwrap());
    assert!(store.snapshot().unwrap().is_none());
    store.set_identity(&identity()).unwrap();
    store.set_database_record(&record(4)).unwrap();
    store.set_removed(true).unwrap();
    store.save_vote(&Vote::new_committed(2, NodeId(1))).await.unwrap();
    store.blocking_append((1..=9).map(|index| entry(1, index))).await.unwrap();
    store.set_snapshot(&meta, b"old").unwrap();
    store.set_snapshot(&meta, b"new").unwrap();
    store.purge(log_id(1, 3)).await.unwrap();
    store.truncate_after(Some(log_id(1, 7))).await.unwrap();
    store.blocking_append([entry(2, 8)]).await.unwrap();
    store.save_committed(Some(log_id(1, 6))).await.unwrap();
    assert!(store.last_commit() > std::time::Duration::ZERO && store.slowest_commit() >= store.last_commit());
    drop(store);

    for _ in 0..2 {
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.identity().unwrap(), Some(identity()));
        assert_eq!(store.database_record().unwrap(), record(4));
        assert!(store.removed().unwrap());
        assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new_committed(2, NodeId(1))));
        assert_eq!(log(&store), [log_id(1, 4), log_id(1, 5), log_id(1, 6), log_id(1, 7), log_id(2, 8)]);
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 3)), Some(log_id(2, 8))));
        assert_eq!(store.snapshot().unwrap(), Some((meta.clone(), b"new".to_vec())));
        // An orderly end keeps even what was waiting for another write.
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 6)));
    }
}

#[tokio::test]
async fn an_identity_is_set_once() {
    let (_directory, path) = place();
    let store = Store::create(&path).unwrap();
    store.set_identity(&identity()).unwrap();
    store.set_identity(&identity()).unwrap();
    let other = Identity { node: NodeId(4), ..identity() };
    let error = store.set_identity(&other).unwrap_err();
    assert!(error.to_string().starts_with("the store belongs to node 3 of the cluster 0000"), "{error}");
    assert_eq!(store.identity().unwrap(), Some(identity()));
}

#[tokio::test]
async fn a_log_is_purged_beyond_its_end_and_goes_on_after_that() {
    let (_directory, path) = place();
    let mut store = Store::create(&path).unwrap();
    store.blocking_append((0..5).map(|index| entry(1, index))).await.unwrap();
    store.purge(log_id(2, 20)).await.unwrap();
    assert_eq!(log(&store), []);
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(2, 20)), Some(log_id(2, 20))));
    store.blocking_append([entry(2, 21)]).await.unwrap();
    assert_eq!(log(&store), [log_id(2, 21)]);
}

#[tokio::test]
async fn an_append_that_would_leave_a_hole_is_refused() {
    let (_directory, path) = place();
    let mut store = Store::create(&path).unwrap();
    store.blocking_append([entry(1, 1)]).await.unwrap();
    for entries in [vec![entry(1, 3)], vec![entry(1, 1)], vec![entry(1, 2), entry(1, 4)]] {
        let error = store.append(entries, IOFlushed::noop()).await.unwrap_err().to_string();
        assert!(error.contains("does not continue the log"), "{error}");
    }
    assert_eq!(log(&store), [log_id(1, 1)]);
}

#[test]
fn a_store_is_neither_made_up_nor_overwritten() {
    let (_directory, path) = place();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!path.exists());
    drop(Store::create(&path).unwrap());
    let error = Store::create(&path).unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    Store::open(&path).unwrap();
}

#[test]
fn what_an_interrupted_creation_left_is_in_nobodys_way() {
    let (directory, path) = place();
    std::fs::write(directory.path().join("store.unfinished"), "half").unwrap();
    drop(Store::create(&path).unwrap());
    Store::open(&path).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_store_is_opened_by_one_at_a_time() {
    let (_directory, path) = place();
    let first = Store::create(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("the store {} is in use by another process", path.display()));
    drop(first);
    Store::open(&path).unwrap();
}

fn redb_file(path: &Path, table: &str, key: &str, value: &[u8]) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(TableDefinition::<&str, &[u8]>::new(table)).unwrap().insert(key, value).unwrap();
    writing.commit().unwrap();
}

#[test]
fn a_foreign_file_is_refused_with_the_reason() {
    let (_directory, path) = place();
    let cases: [(&str, &dyn Fn()); 7] = [
        ("it is empty", &|| std::fs::write(&path, "").unwrap()),
        ("", &|| std::fs::write(&path, "a text").unwrap()),
        ("", &|| std::fs::write(&path, [7; 100_000]).unwrap()),
        ("Table 'facts' does not exist", &|| redb_file(&path, "other", "key", b"value")),
        ("it does not say its format", &|| redb_file(&path, "facts", "key", b"value")),
        ("its format cannot be read", &|| redb_file(&path, "facts", "format", b"\xff")),
        ("has the format 2, of a newer qluster", &|| redb_file(&path, "facts", "format", &[2])),
    ];
    for (reason, make) in cases {
        make();
        let error = Store::open(&path).unwrap_err();
        println!("{error}");
        assert!(error.to_string().contains(reason), "{error}, not {reason}");
        assert!(matches!(error, StoreError::Foreign { .. } | StoreError::Newer { .. }), "{error:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_is_no_file_is_refused_with_its_path() {
    let (directory, path) = place();
    let error = Store::open(directory.path()).unwrap_err().to_string();
    assert_eq!(error, format!("{} is not a store of qluster: it is not a file", directory.path().display()));
    // What nothing is ever written to would be waited for, or never end.
    for device in ["/dev/zero", "/dev/full"] {
        assert!(Store::open(Path::new(device)).unwrap_err().to_string().contains("it is not a file"), "{device}");
    }
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert_eq!(error, format!("cannot open the store {}", path.display()));
    let error = Store::create(&path).unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    let beneath = path.with_file_name("file");
    std::fs::write(&beneath, "a text").unwrap();
    let error = Store::open(&beneath.join("store")).unwrap_err().to_string();
    assert_eq!(error, format!("cannot open the store {}", beneath.join("store").display()));
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_whole() {
    let (_directory, path) = place();
    let mut store = Store::create(&path).unwrap();
    for index in 0..200 {
        store.append([entry(1, index)], IOFlushed::noop()).await.unwrap();
    }
    let expected = log(&store);
    drop(store);
    let whole = std::fs::read(&path).unwrap();

    for percent in [0, 1, 5, 20, 50, 80, 99] {
        let size = (whole.len() * percent / 100).max(1);
        std::fs::write(&path, &whole[..size]).unwrap();
        let error = Store::open(&path).unwrap_err();
        println!("{size} of {}: {error}", whole.len());
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Foreign { .. }), "{error:?}");
    }
    // A wrong bit is found if it matters. If it does not, the log is as it was.
    let mut random = StdRng::seed_from_u64(1);
    let mut refused = 0;
    for _ in 0..100 {
        let mut file = whole.clone();
        let at = random.random_range(0..file.len() / 4096) * 4096;
        file[at..at + 64].fill(0xA5);
        std::fs::write(&path, &file).unwrap();
        match Store::open(&path) {
            Ok(store) => assert_eq!(log(&store), expected),
            Err(_) => refused += 1,
        }
    }
    println!("{refused} of 100 damaged files refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[allow(clippy::await_holding_lock)]
async fn a_write_that_waits_for_the_disk_does_not_hold_up_the_runtime() {
    let disk = FakeDisk::default();
    let store = Store::with_backend(disk.handle()).unwrap();
    let hanging = disk.hang();
    let write =
        tokio::spawn(async move { store.set_database_record(&record(1)).map(|()| store.database_record().unwrap()) });
    for _ in 0..10 {
        tokio::spawn(tokio::time::sleep(std::time::Duration::from_millis(2))).await.unwrap();
    }
    assert!(!write.is_finished());
    drop(hanging);
    assert_eq!(write.await.unwrap().unwrap(), record(1));
}

#[tokio::test]
async fn a_failed_write_closes_the_store_for_good() {
    for fails in [Fails::Sync, Fails::Write] {
        for in_line in [false, true] {
            let disk = FakeDisk::default();
            let open = if in_line { Store::with_backend_in_line } else { Store::with_backend };
            let mut store = open(disk.handle()).unwrap();
            store.blocking_append([entry(1, 1)]).await.unwrap();
            disk.fail(Some(fails));
            let error = store.blocking_append([entry(1, 2)]).await.unwrap_err().to_string();
            assert!(error.contains("the disk is on fire"), "{error}");
            // The disk works again, but what it holds is not known.
            disk.fail(None);
            let mut said = vec![
                store.save_vote(&Vote::new(1, NodeId(1))).await.unwrap_err().to_string(),
                store.append([entry(1, 3)], IOFlushed::noop()).await.unwrap_err().to_string(),
                store.save_committed(Some(log_id(1, 1))).await.unwrap_err().to_string(),
                store.truncate_after(None).await.unwrap_err().to_string(),
                store.purge(log_id(1, 1)).await.unwrap_err().to_string(),
                store.read_vote().await.unwrap_err().to_string(),
                store.get_log_state().await.unwrap_err().to_string(),
                store.try_get_log_entries(0..2).await.unwrap_err().to_string(),
            ];
            for error in [
                store.set_database_record(&record(1)).unwrap_err(),
                store.set_identity(&identity()).unwrap_err(),
                store.snapshot().map(|_| ()).unwrap_err(),
                store.database_record().map(|_| ()).unwrap_err(),
            ] {
                assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
                said.push(error.to_string());
            }
            for error in said {
                assert!(error.contains("closed until the node is restarted") && error.contains("on fire"), "{error}");
            }
            // A restart finds what was acknowledged.
            drop(store);
            disk.cut_power(&mut StdRng::seed_from_u64(1));
            assert_eq!(log(&open(disk.handle()).unwrap())[0], log_id(1, 1));
        }
    }
}

/// What a store was asked to keep: the state after each request, and how many of the requests are acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    log: BTreeMap<u64, LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    record: DatabaseRecord,
    snapshot: Option<(SnapshotMetadata, Vec<u8>)>,
}

fn found(store: &Store) -> Expected {
    let mut reader = store.clone();
    Expected {
        log: log(store).into_iter().map(|id| (id.index, id)).collect(),
        purged: block_on(reader.get_log_state()).unwrap().last_purged_log_id,
        vote: block_on(reader.read_vote()).unwrap(),
        record: store.database_record().unwrap(),
        snapshot: store.snapshot().unwrap(),
    }
}

/// After a power cut the store is as it was after some request, which is the last acknowledged one or a later one.
async fn survive_power_cuts(seed: u64, open: impl Fn(Handle) -> Result<Store, StoreError>) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = FakeDisk::default();
    let mut expected = Expected::default();
    let mut term = 1;
    for _ in 0..6 {
        let mut store = open(disk.handle()).unwrap();
        assert_eq!(found(&store), expected, "seed {seed}");
        let mut states = vec![expected.clone()];
        let mut waiting = Vec::new();
        let acknowledged = Arc::new(AtomicU64::new(0));
        for step in 1..=random.random_range(0..15) {
            let now = &mut expected;
            let end = now.log.last_key_value().map(|(index, _)| *index).or(now.purged.map(|id| id.index));
            match random.random_range(0..10) {
                0..4 => {
                    let first = end.map_or(0, |end| end + 1);
                    let entries: Vec<_> =
                        (first..first + random.random_range(1..8)).map(|at| entry(term, at)).collect();
                    now.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.log_id)));
                    let (flushed, receiver) = TypeConfig::oneshot();
                    store.append(entries, IOFlushed::signal(flushed)).await.unwrap();
                    assert_eq!(log(&store), now.log.values().copied().collect::<Vec<_>>(), "readable at the return");
                    let acknowledged = acknowledged.clone();
                    waiting.push(tokio::spawn(async move {
                        if receiver.await.is_ok_and(|result| result.is_ok()) {
                            acknowledged.fetch_max(step, Ordering::SeqCst);
                        }
                    }));
                }
                4..6 => {
                    term += 1;
                    let vote = Vote::new(term, NodeId(1));
                    now.vote = Some(vote);
                    store.save_vote(&vote).await.unwrap();
                    acknowledged.fetch_max(step, Ordering::SeqCst);
                }
                6 => {
                    now.record = record(term + step);
                    store.set_database_record(&now.record).unwrap();
                    acknowledged.fetch_max(step, Ordering::SeqCst);
                }
                7 => {
                    let ids: Vec<_> = now.log.values().copied().collect();
                    let keep = ids.get(random.random_range(0..=ids.len())).copied();
                    let keep = keep.or(now.purged);
                    now.log.retain(|index, _| keep.is_some_and(|keep| *index <= keep.index));
                    store.truncate_after(keep).await.unwrap();
                    assert_eq!(log(&store), now.log.values().copied().collect::<Vec<_>>(), "truncated at the return");
                }
                8 => {
                    let Some(id) = now.log.values().nth(now.log.len() / 2).copied() else {
                        states.push(now.clone());
                        continue;
                    };
                    now.purged = Some(id);
                    now.log.retain(|index, _| *index > id.index);
                    store.purge(id).await.unwrap();
                    assert_eq!(log(&store), now.log.values().copied().collect::<Vec<_>>(), "purged at the return");
                }
                _ => {
                    let data = vec![u8::try_from(step).unwrap(); random.random_range(0..20_000)];
                    let meta = SnapshotMetadata { last: now.purged.map(Into::into), ..Default::default() };
                    now.snapshot = Some((meta.clone(), data.clone()));
                    store.set_snapshot(&meta, &data).unwrap();
                    acknowledged.fetch_max(step, Ordering::SeqCst);
                }
            }
            states.push(expected.clone());
            if random.random_bool(0.3) {
                tokio::task::yield_now().await;
            }
        }
        // What the callback says after this instant does not count.
        let acknowledged = usize::try_from(acknowledged.load(Ordering::SeqCst)).unwrap();
        disk.cut_power(&mut random);
        for task in waiting {
            task.await.unwrap();
        }
        drop(store);
        let store = open(disk.handle()).unwrap();
        let state = found(&store);
        let survived = states.iter().rposition(|candidate| *candidate == state);
        assert!(survived.is_some(), "seed {seed}: {state:?} never was; last was {expected:?}");
        assert!(survived >= Some(acknowledged), "seed {seed}: step {survived:?}, but {acknowledged} was acknowledged");
        expected = state;
        drop(store);
        disk.cut_power(&mut random);
    }
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        survive_power_cuts(seed, Store::with_backend).await;
        survive_power_cuts(seed, Store::with_backend_in_line).await;
    }
}
