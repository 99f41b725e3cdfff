//! A disk in memory, for redb, that forgets at a power cut what was not synced, all of it or some, and can be made to fail.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;
use rand::rngs::StdRng;
use redb::StorageBackend;

/// What is on the disk or not by itself when the power is cut while it is written, in bytes.
const SECTOR: usize = 512;

/// A disk. It outlives those who write to it: each opens a [`Handle`] of its own.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Since the last sync: new lengths, and what was written where.
    unsynced: Vec<(u64, Option<Vec<u8>>)>,
    fails: Option<Fails>,
    /// After this many writes and syncs the disk is gone, until the next handle is opened.
    left: Option<u64>,
    /// How many writes and syncs there were.
    operations: u64,
    /// Handles of before the last crash reach nothing.
    life: u64,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// Each sync.
    Sync,
    /// Each write.
    Write,
}

/// An open disk, until the process that opened it crashes.
#[derive(Debug)]
pub struct Handle {
    disk: FakeDisk,
    life: u64,
}

#[allow(dead_code)] // Not every test that shares this needs all of it.
impl FakeDisk {
    /// Opens the disk.
    pub fn handle(&self) -> Handle {
        Handle { disk: self.clone(), life: self.content().life }
    }

    /// Holds the disk up until the guard is dropped.
    pub fn hang(&self) -> impl Drop + '_ {
        struct Hanging<'a>(#[allow(dead_code)] MutexGuard<'a, Content>);
        impl Drop for Hanging<'_> {
            fn drop(&mut self) {}
        }
        Hanging(self.content())
    }

    /// From now on it fails, or works again.
    pub fn fail(&self, fails: Option<Fails>) {
        self.content().fails = fails;
    }

    /// Whether it fails.
    pub fn is_failing(&self) -> bool {
        self.content().fails.is_some()
    }

    /// The disk is gone after this many more writes and syncs.
    pub fn gone_after(&self, operations: u64) {
        self.content().left = Some(operations);
    }

    /// The disk stays, if it is not gone yet.
    pub fn stays(&self) {
        let mut content = self.content();
        content.left = content.left.filter(|&left| left == 0);
    }

    /// Whether the disk is gone.
    pub fn is_gone(&self) -> bool {
        self.content().left == Some(0)
    }

    /// How many writes and syncs there were.
    pub fn operations(&self) -> u64 {
        self.content().operations
    }

    /// The process that wrote to it is gone: what it had written stays.
    pub fn crash(&self) {
        let mut content = self.content();
        content.life += 1;
        content.left = None;
    }

    /// Writes that were not synced are on the disk or not, each sector by itself.
    pub fn cut_power(&self, random: &mut StdRng) {
        self.crash();
        let mut content = self.content();
        let mut kept = std::mem::take(&mut content.synced);
        let fate = random.random_range(0..3);
        for (offset, data) in std::mem::take(&mut content.unsynced) {
            let offset = usize::try_from(offset).unwrap();
            match data {
                None if fate > 0 => kept.resize(offset, 0),
                None => {}
                Some(data) => {
                    for (at, sector) in data.chunks(SECTOR).enumerate() {
                        if fate == 2 || (fate == 1 && random.random_bool(0.5)) {
                            put(&mut kept, offset + at * SECTOR, sector);
                        }
                    }
                }
            }
        }
        content.now.clone_from(&kept);
        content.synced = kept;
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }
}

impl Handle {
    fn content(&self) -> Result<MutexGuard<'_, Content>, io::Error> {
        let content = self.disk.content();
        if content.life != self.life || content.left == Some(0) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(content)
    }

    fn operation(&self, fails: Fails) -> Result<MutexGuard<'_, Content>, io::Error> {
        let mut content = self.content()?;
        if content.fails == Some(fails) {
            return Err(io::Error::other("the disk is on fire"));
        }
        content.operations += 1;
        content.left = content.left.map(|left| left - 1);
        if content.left == Some(0) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(content)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.content()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let content = self.content()?;
        let offset = usize::try_from(offset).unwrap();
        let from = content.now.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut content = self.operation(Fails::Write)?;
        content.now.resize(usize::try_from(len).unwrap(), 0);
        content.unsynced.push((len, None));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut content = self.operation(Fails::Sync)?;
        let content = &mut *content;
        for (offset, data) in content.unsynced.drain(..) {
            let offset = usize::try_from(offset).unwrap();
            match data {
                None => content.synced.resize(offset, 0),
                Some(data) => put(&mut content.synced, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut content = self.operation(Fails::Write)?;
        put(&mut content.now, usize::try_from(offset).unwrap(), data);
        content.unsynced.push((offset, Some(data.to_vec())));
        Ok(())
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}
