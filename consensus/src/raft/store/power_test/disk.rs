//! A disk in memory. It records every operation, so that the power can be cut at each, and fails on demand.

use std::io;
use std::sync::{Arc, Mutex};

use rand::Rng;
use rand::rngs::StdRng;
use redb::StorageBackend;

use crate::env::lock::lock;

/// The size of a sector, in bytes. A disk promises to write a sector completely or not at all. The tests tear one anyway.
const SECTOR_BYTES: usize = 512;

/// Something that was done to the disk.
#[derive(Clone, Debug)]
pub enum Op {
    SetLen(u64),
    Write(u64, Vec<u8>),
    Sync,
}

/// A disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    done: Vec<Op>,
    /// The number of the operation that fails, and whether all after it do.
    fails: Option<(usize, Failure)>,
    /// Operations since the failure.
    after: usize,
    /// How many reads succeed until they fail.
    reads: Option<usize>,
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure {
    pub kind: io::ErrorKind,
    /// Whether it fails from then on, and not only once.
    pub stays: bool,
}

/// What becomes of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Lost,
    Kept,
    /// Only the one with this number is kept.
    Only(usize),
    /// Only the one with this number is lost.
    Without(usize),
    /// All but a part of the last, which is torn.
    Torn,
    /// Each sector by itself.
    Sectors,
}

impl Disk {
    /// A disk with this content.
    pub fn holding(content: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Content { now: content, ..Content::default() })))
    }

    /// The operation with the number `at` fails.
    pub fn fail(&self, at: usize, failure: Failure) {
        lock(&self.0).fails = Some((at, failure));
    }

    /// What was done to it so far.
    pub fn done(&self) -> Vec<Op> {
        lock(&self.0).done.clone()
    }

    /// How much was done to it so far.
    pub fn count(&self) -> usize {
        lock(&self.0).done.len()
    }

    /// How much was done, or tried, after the first failure.
    pub fn after_failure(&self) -> usize {
        lock(&self.0).after
    }

    /// Reads fail after `after` of them.
    pub fn fail_read(&self, after: usize) {
        lock(&self.0).reads = Some(after);
    }

    /// No operation is done until the guard is dropped.
    pub fn hold(&self) -> impl Drop + use<'_> {
        lock(&self.0)
    }

    fn change(&self, op: Op) -> Result<(), io::Error> {
        let mut content = lock(&self.0);
        let at = content.done.len();
        if let Some((first, Failure { kind, stays })) = content.fails
            && at >= first
        {
            content.after += usize::from(at > first);
            if at == first || stays {
                // It counts as an operation, so that the failure happens once, but it changes nothing.
                content.done.push(Op::Write(0, Vec::new()));
                return Err(io::Error::new(kind, "the disk is on fire"));
            }
        }
        apply(&mut content.now, &op);
        content.done.push(op);
        Ok(())
    }
}

fn apply(content: &mut Vec<u8>, op: &Op) {
    match op {
        Op::SetLen(len) => content.resize(usize::try_from(*len).unwrap(), 0),
        Op::Write(offset, data) => write(content, usize::try_from(*offset).unwrap(), data),
        Op::Sync => {}
    }
}

fn write(content: &mut Vec<u8>, start: usize, data: &[u8]) {
    let end = start + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

/// What a disk is after `ops`, of which nothing was synced, by the fate of each.
pub fn after_cut(synced: &[u8], ops: &[Op], fate: Fate, random: &mut StdRng) -> Vec<u8> {
    let mut content = synced.to_vec();
    for (number, op) in ops.iter().enumerate() {
        let last = number + 1 == ops.len();
        match (fate, op) {
            (Fate::Lost, _) => {}
            (Fate::Only(which), _) if which != number => {}
            (Fate::Without(which), _) if which == number => {}
            (Fate::Torn, Op::Write(offset, data)) if last => {
                let kept = random.random_range(0..data.len().max(1));
                write(&mut content, usize::try_from(*offset).unwrap(), &data[..kept]);
            }
            (Fate::Sectors, Op::Write(offset, data)) => {
                for (at, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    if random.random_bool(0.5) {
                        write(&mut content, usize::try_from(*offset).unwrap() + at * SECTOR_BYTES, sector);
                    }
                }
            }
            (Fate::Sectors, Op::SetLen(_)) if random.random_bool(0.5) => {}
            _ => apply(&mut content, op),
        }
    }
    content
}

/// What is certainly on a disk after `ops`, and the operations that may be lost.
pub fn settled(start: &[u8], ops: &[Op]) -> (Vec<u8>, Vec<Op>) {
    let synced = ops.iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
    let mut content = start.to_vec();
    ops[..synced].iter().for_each(|op| apply(&mut content, op));
    (content, ops[synced..].to_vec())
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(lock(&self.0).now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let mut content = lock(&self.0);
        match &mut content.reads {
            Some(0) => return Err(io::Error::other("the disk is on fire")),
            Some(reads) => *reads -= 1,
            None => {}
        }
        let offset = usize::try_from(offset).unwrap();
        let from = content.now.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.change(Op::SetLen(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.change(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.change(Op::Write(offset, data.to_vec()))
    }
}
