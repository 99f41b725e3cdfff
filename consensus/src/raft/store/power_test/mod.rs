//! The store over power cuts and failures at each write and sync of a workload.
//!
//! The workload has every kind of write in it. It runs once, on a disk that records every operation. Then the power is cut
//! at each of these operations, and what was not synced is lost, kept, or kept in part. A store that is opened on such a
//! disk must hold a state that the workload passed: not before the last acknowledged one, and not after the last asked for.

mod disk;
mod workload;

use std::io::ErrorKind;

use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::disk::{Disk, Failure, Fate, Op, after_cut, settled};
use self::workload::{Course, Kept, Step, go_through, workload};
use super::{Store, StoreError};
use crate::protocol::version::{Spoken, Versions};
use crate::raft::state_machine::StateMachine;
use crate::raft::wire::LogPosition;

/// How the store writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writes {
    /// Each in a transaction of its own, on the caller's thread.
    InLine,
    /// By its writer, several in a transaction.
    Together,
}

fn open(disk: &Disk, writes: Writes) -> Result<Store, StoreError> {
    match writes {
        Writes::InLine => Store::with_backend_in_line(disk.clone()),
        Writes::Together => Store::with_backend(disk.clone()),
    }
}

/// A workload that was done to its end.
struct Recorded {
    course: Course,
    ops: Vec<Op>,
    /// How many operations the creation of the store took.
    created: usize,
}

async fn record(writes: Writes) -> Recorded {
    record_steps(&workload(), writes).await
}

async fn record_steps(steps: &[Step], writes: Writes) -> Recorded {
    let disk = Disk::default();
    let store = open(&disk, writes).unwrap();
    let created = disk.count();
    let course = go_through(&store, &disk, steps, writes == Writes::Together).await;
    assert_eq!(course.error, None);
    assert_eq!(Kept::of(&store).await.unwrap(), *course.states.last().unwrap());
    drop(store);
    Recorded { course, ops: disk.done(), created }
}

/// Opens a store on what is left on a disk. It has to hold one of the `possible` states. Returns which, and what the
/// opening did to the disk.
fn reopened(
    content: Vec<u8>,
    course: &Course,
    possible: std::ops::RangeInclusive<usize>,
    what: &str,
) -> (usize, Vec<Op>, Store) {
    let disk = Disk::holding(content);
    let store = Store::with_backend_in_line(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let kept = block_on(Kept::of(&store)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let ops = disk.done();
    let found = possible.clone().rev().find(|at| course.states[*at] == kept);
    let found = found.unwrap_or_else(|| {
        let elsewhere = course.states.iter().rposition(|state| *state == kept);
        panic!("{what}: states {possible:?} are possible, and it is {elsewhere:?}: {kept:?}")
    });
    // The log goes on where the snapshot ends, and the state is made of both.
    let applied = StateMachine::new(store.clone(), Spoken::new(Versions::KNOWN)).unwrap().read(|applied| applied.last);
    assert_eq!(applied, kept.snapshot.as_ref().and_then(|(meta, _)| meta.last), "{what}");
    assert!(
        kept.purged.map(LogPosition::from) <= applied,
        "{what}: purged up to {:?}, applied {applied:?}",
        kept.purged
    );
    (found, ops, store)
}

/// What can become of `count` writes that were not synced, of which the last was under way.
fn fates(count: usize) -> Vec<Fate> {
    let mut fates = vec![Fate::Lost, Fate::Kept];
    if count > 1 {
        fates.extend((0..count).flat_map(|which| [Fate::Only(which), Fate::Without(which)]));
    }
    if count > 0 {
        fates.extend([Fate::Torn, Fate::Sectors, Fate::Sectors]);
    }
    fates
}

/// Cuts the power at each operation of a workload, and at each of the openings that follow.
fn cut_everywhere(writes: Writes) {
    let Recorded { course, ops, created } = block_on(record(writes));
    let mut random = StdRng::seed_from_u64(1);
    let mut cuts = 0;
    for done in created..=ops.len() {
        let (synced, pending) = settled(&[], &ops[..done]);
        let possible = course.possible(done);
        for fate in fates(pending.len()) {
            let what = format!("cut at {done} of {} with {fate:?} of {} writes", ops.len(), pending.len());
            let content = after_cut(&synced, &pending, fate, &mut random);
            let (found, opening, store) = reopened(content.clone(), &course, possible.clone(), &what);
            // It can be written again.
            store.set_removed(true).unwrap_or_else(|error| panic!("{what}: {error}"));
            cuts += 1;
            // A node that opened it may have told others what is there, so another cut must not take it away. If only
            // the process was killed, its writes were there, but not durable yet.
            let (shown, _) = match fate {
                Fate::Kept => settled(&synced, &[pending.clone(), opening.clone()].concat()),
                _ => settled(&content, &opening),
            };
            reopened(shown, &course, found..=found, &format!("{what}, and again when it was open"));
            if fate == Fate::Torn {
                for half in 0..opening.len() {
                    let (synced, pending) = settled(&content, &opening[..half]);
                    let content = after_cut(&synced, &pending, Fate::Sectors, &mut random);
                    reopened(
                        content,
                        &course,
                        possible.clone(),
                        &format!("{what}, and again at {half} of the opening"),
                    );
                    cuts += 1;
                }
            }
        }
    }
    println!("{writes:?}: {cuts} cuts at {} operations", ops.len());
}

#[test]
fn a_cut_at_any_write_or_sync_loses_nothing_and_leaves_nothing_half() {
    cut_everywhere(Writes::InLine);
}

#[test]
fn neither_does_one_where_writes_share_a_transaction() {
    cut_everywhere(Writes::Together);
}

/// Lets each operation of a workload fail. The store reports it, closes, and does nothing more to the disk, which may have
/// lost earlier writes.
fn fail_everywhere(writes: Writes, failure: Failure) {
    let Recorded { ops, created, .. } = block_on(record(writes));
    let mut closed = 0;
    for at in 0..ops.len() {
        let what = format!("{failure:?} at {at} of {}", ops.len());
        let disk = Disk::default();
        disk.fail(at, failure);
        let store = match open(&disk, writes) {
            Ok(store) => store,
            Err(error) => {
                assert!(at < created && chain(&error).contains("on fire"), "{what}: {error}");
                continue;
            }
        };
        let course = block_on(go_through(&store, &disk, &workload(), writes == Writes::Together));
        if let Some(said) = &course.error {
            closed += 1;
            assert!(said.contains("closed until the node is restarted") && said.contains("on fire"), "{what}: {said}");
            let others = [
                store.set_removed(true).unwrap_err(),
                store.set_database_record(&Default::default()).unwrap_err(),
                block_on(Kept::of(&store)).unwrap_err(),
            ];
            others.iter().for_each(|error| assert!(error.to_string().contains("on fire"), "{what}: {error}"));
            assert_eq!(disk.after_failure(), 0, "{what}: it was written to again");
        }
        drop(store);
        if course.error.is_some() {
            assert_eq!(disk.after_failure(), 0, "{what}: it was written to at the end");
        }
        let done = disk.done();
        let (synced, pending) = settled(&[], &done);
        for fate in [Fate::Lost, Fate::Kept] {
            let content = after_cut(&synced, &pending, fate, &mut StdRng::seed_from_u64(1));
            reopened(content, &course, course.possible(done.len()), &format!("{what}, {fate:?}"));
        }
    }
    println!("{writes:?}, {failure:?}: {closed} of {} failures closed the store", ops.len());
    assert!(closed > ops.len() / 2);
}

#[test]
fn a_write_or_sync_that_fails_once_closes_the_store_and_what_was_acknowledged_is_there() {
    fail_everywhere(Writes::InLine, Failure { kind: ErrorKind::Other, stays: false });
}

#[test]
fn so_does_a_disk_that_is_full_from_then_on() {
    fail_everywhere(Writes::Together, Failure { kind: ErrorKind::StorageFull, stays: true });
}

#[test]
fn an_opening_that_fails_half_way_says_so_and_spoils_nothing() {
    let Recorded { course, ops, created } = block_on(record(Writes::InLine));
    let mut random = StdRng::seed_from_u64(2);
    for done in (created..=ops.len()).step_by(10) {
        let (synced, pending) = settled(&[], &ops[..done]);
        let content = after_cut(&synced, &pending, Fate::Sectors, &mut random);
        for at in 0..20 {
            for read in [false, true] {
                let disk = Disk::holding(content.clone());
                match read {
                    false => disk.fail(at, Failure { kind: ErrorKind::Other, stays: true }),
                    true => disk.fail_read(at),
                }
                if let Err(error) = open(&disk, Writes::InLine) {
                    assert!(chain(&error).contains("on fire"), "{}", chain(&error));
                }
                let what = format!("an opening that failed at {at}, cut at {done}");
                let (left, pending) = settled(&content, &disk.done());
                reopened(left.clone(), &course, course.possible(done), &what);
                let left = after_cut(&left, &pending, Fate::Sectors, &mut random);
                reopened(left, &course, course.possible(done), &what);
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}: ")).collect()
}

/// Opens a file that is damaged somewhere. It is refused, or all of it is as it was.
fn refused_or_whole(content: Vec<u8>, kept: &Kept, what: &str) -> bool {
    let looked = std::panic::catch_unwind(|| match open(&Disk::holding(content), Writes::InLine) {
        Ok(store) => block_on(Kept::of(&store)).map(Some),
        Err(error) => {
            let refused = matches!(error, StoreError::Damaged { .. } | StoreError::Foreign { .. });
            assert!(refused || matches!(error, StoreError::Newer { .. }), "{what}: {}", chain(&error));
            Ok(None)
        }
    });
    match looked.unwrap_or_else(|_| panic!("{what}: it panicked")).unwrap_or_else(|error| panic!("{what}: {error}")) {
        Some(found) => {
            assert_eq!(found, *kept, "{what}");
            false
        }
        None => true,
    }
}

#[test]
fn a_file_with_wrong_bits_or_too_few_is_refused_or_whole() {
    // The part of the workload in which the log is long.
    let steps = &workload()[..13];
    let Recorded { course, ops, .. } = block_on(record_steps(steps, Writes::InLine));
    let (whole, _) = settled(&[], &ops);
    let kept = course.states.last().unwrap();
    assert!(kept.log.len() > 10 && kept.snapshot.is_some());
    let (mut refused, mut tried) = (0, 0);
    for at in (0..4096).step_by(3).chain((4096..whole.len()).step_by(499)) {
        let mut content = whole.clone();
        content[at] ^= 1 << (at % 8);
        refused += usize::from(refused_or_whole(content, kept, &format!("bit {} of byte {at}", at % 8)));
        tried += 1;
    }
    println!("{} bytes: {refused} of {tried} wrong bits refused", whole.len());
    assert!(refused > 50);
    for size in (1..whole.len()).step_by(4001) {
        assert!(refused_or_whole(whole[..size].to_vec(), kept, &format!("{size} of {} bytes", whole.len())));
    }
}
