//! The databases of the nodes: lists of rows, and who copies from whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::model::{Lsn, NodeId};
use qluster_consensus::protocol::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use tokio::sync::watch;

/// All databases: standbys copy from primaries here.
#[derive(Clone, Default)]
pub struct Databases(Arc<Mutex<BTreeMap<NodeId, Arc<ModelDatabase>>>>);

/// A row that was written, at whom.
pub struct Written {
    at: NodeId,
    length: usize,
}

impl Databases {
    pub fn of(&self, id: NodeId) -> Arc<ModelDatabase> {
        let mut all = self.0.lock().unwrap();
        all.entry(id)
            .or_insert_with(|| {
                // The first one was created; the others are clones.
                let role = if id == NodeId(1) { DatabaseRole::Standby } else { DatabaseRole::Absent };
                Arc::new(ModelDatabase {
                    all: self.clone(),
                    wal: Mutex::new(Vec::new()),
                    rule: Mutex::default(),
                    status: watch::Sender::new(DatabaseStatus::unknown(role)),
                    open: Mutex::default(),
                    kept_for: Mutex::default(),
                    deaf: Mutex::default(),
                    broken: Mutex::default(),
                    panics: Mutex::default(),
                    hangs: Mutex::default(),
                    unpromotable: Mutex::default(),
                    off: Mutex::default(),
                    parts: Mutex::default(),
                    unrewindable: Mutex::default(),
                })
            })
            .clone()
    }

    /// Whether enough hold what was written.
    pub fn acknowledged(&self, written: &Written) -> bool {
        let primary = self.of(written.at);
        let rule = primary.rule.lock().unwrap().clone();
        primary.serves() && self.hold(written.at, &rule, written.length)
    }

    /// Copies what each standby lacks from the primary that it follows, and tells whether as many hold the WAL of `at` up
    /// to `end` as `rule` asks.
    fn hold(&self, at: NodeId, rule: &SyncRule, end: usize) -> bool {
        let all: Vec<_> = self.0.lock().unwrap().iter().map(|(id, database)| (*id, database.clone())).collect();
        for (_, standby) in &all {
            standby.receive();
        }
        let holds = |id: &NodeId, database: &ModelDatabase| {
            let follows = database.status.borrow().follows;
            rule.standbys.contains(id) && follows == Some((at, rule.term)) && database.end() >= end
        };
        all.iter().filter(|(id, database)| holds(id, database)).count() >= rule.count
    }
}

/// A database whose WAL is a list of rows, each with a mark of who wrote it.
pub struct ModelDatabase {
    all: Databases,
    wal: Mutex<Vec<u64>>,
    rule: Mutex<SyncRule>,
    status: watch::Sender<DatabaseStatus>,
    /// Whether clients are let in.
    open: Mutex<bool>,
    kept_for: Mutex<BTreeSet<NodeId>>,
    /// Whether it takes no WAL, though it streams.
    deaf: Mutex<bool>,
    /// Why it cannot be fenced.
    broken: Mutex<Option<String>>,
    /// Whether a rewind fails, as it does while its primary cannot be reached.
    unrewindable: Mutex<bool>,
    panics: Mutex<bool>,
    hangs: Mutex<bool>,
    unpromotable: Mutex<Option<String>>,
    /// Whether it cannot follow as it is, until it was rewound.
    off: Mutex<bool>,
    /// Where it ended when somebody else promoted it.
    parts: Mutex<Option<usize>>,
}

impl ModelDatabase {
    fn id(&self) -> NodeId {
        *self.all.0.lock().unwrap().iter().find(|(_, other)| std::ptr::eq(&***other, self)).unwrap().0
    }

    /// Whether it is a primary that clients are let in to.
    pub fn admits(&self) -> bool {
        self.serves() && *self.open.lock().unwrap()
    }

    /// The nodes for which it keeps WAL.
    pub fn kept_for(&self) -> BTreeSet<NodeId> {
        self.kept_for.lock().unwrap().clone()
    }

    /// Writes a row, which nobody waits for.
    pub fn insert(&self) {
        self.write();
    }

    /// The sync rule that it was told last.
    pub fn sync_rule(&self) -> SyncRule {
        self.rule.lock().unwrap().clone()
    }

    /// Takes no more WAL, or takes it again.
    pub fn set_deaf(&self, deaf: bool) {
        *self.deaf.lock().unwrap() = deaf;
    }

    /// Cannot be fenced any more.
    pub fn break_down(&self, reason: &str) {
        *self.broken.lock().unwrap() = Some(reason.to_owned());
    }

    /// Is never done with being fenced.
    pub fn hang_when_fenced(&self) {
        *self.hangs.lock().unwrap() = true;
    }

    /// Panics when it is fenced.
    pub fn panic_when_fenced(&self) {
        *self.panics.lock().unwrap() = true;
    }

    /// Cannot be promoted any more.
    pub fn refuse_promotions(&self, reason: &str) {
        *self.unpromotable.lock().unwrap() = Some(reason.to_owned());
    }

    /// Cannot be rewound, or can be again.
    pub fn set_unrewindable(&self, unrewindable: bool) {
        *self.unrewindable.lock().unwrap() = unrewindable;
    }

    /// Says that it is not fit, or that it is again.
    pub fn set_unfit(&self, reason: Option<&str>) {
        self.set(|status| status.unfit = reason.map(str::to_owned));
    }

    /// Says that its primary has no more the WAL that it needs, until it is a copy again.
    pub fn lack_wal(&self) {
        self.set(|status| (status.lacks_wal, status.streaming) = (true, false));
    }

    /// Cannot follow as it is, until it was rewound.
    pub fn go_off(&self) {
        *self.off.lock().unwrap() = true;
    }

    /// Whether it still cannot.
    pub fn is_off(&self) -> bool {
        *self.off.lock().unwrap()
    }

    /// Somebody else promotes it, and it writes `rows` rows.
    pub fn stray(&self, rows: u64) {
        *self.parts.lock().unwrap() = Some(self.end());
        self.wal.lock().unwrap().extend((0..rows).map(|_| rand::random::<u64>().max(1)));
        self.set(|status| {
            (status.role, status.strayed) = (DatabaseRole::Primary, true);
            (status.follows, status.streaming) = (None, false);
        });
    }

    /// Whether its receiver streams.
    pub fn streams(&self) -> bool {
        self.status.borrow().streaming
    }

    /// Whether it lacks WAL.
    pub fn lacks_wal(&self) -> bool {
        self.status.borrow().lacks_wal
    }

    /// How many rows it holds. What `hold` writes does not count.
    pub fn rows(&self) -> usize {
        self.wal.lock().unwrap().iter().filter(|mark| **mark != 0).count()
    }

    fn end(&self) -> usize {
        self.wal.lock().unwrap().len()
    }

    fn append(&self, mark: u64) -> Written {
        self.wal.lock().unwrap().push(mark);
        self.set(|_| {});
        Written { at: self.id(), length: self.end() }
    }

    pub fn role(&self) -> DatabaseRole {
        self.status.borrow().role
    }

    pub fn serves(&self) -> bool {
        self.role() == DatabaseRole::Primary
    }

    /// It stops, and comes back as a standby that follows nobody.
    pub fn crash(&self) {
        self.set(|status| {
            status.role = DatabaseRole::Standby;
            status.follows = None;
            status.streaming = false;
        });
    }

    pub fn write(&self) -> Written {
        self.append(rand::random::<u64>().max(1))
    }

    fn set(&self, change: impl FnOnce(&mut DatabaseStatus)) {
        let lsn = Lsn(self.end() as u64);
        self.status.send_modify(|status| {
            change(status);
            status.lsn = Some(lsn);
            status.timeline = Some(1);
        });
    }

    fn receive(&self) {
        let Some((primary, _)) = self.status.borrow().follows else { return };
        let primary = self.all.of(primary);
        if primary.serves() && !*self.deaf.lock().unwrap() {
            let theirs = primary.wal.lock().unwrap().clone();
            let mut mine = self.wal.lock().unwrap();
            assert_eq!(theirs[..mine.len()], mine[..], "a diverged standby streams");
            *mine = theirs;
            drop(mine);
            self.set(|_| {});
        }
    }

    fn follow_now(&self, primary: Primary) {
        self.set(|status| {
            status.role = DatabaseRole::Standby;
            status.follows = Some((primary.node, primary.term));
            status.streaming = true;
        });
        self.receive();
    }
}

type Done<T> = BoxFuture<'static, Result<T, DatabaseError>>;

fn done<T: Send + 'static>(value: T) -> Done<T> {
    // A database takes its time; the caller must not rely on an answer at once.
    async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(value)
    }
    .boxed()
}

impl Database for ModelDatabase {
    fn status(&self) -> watch::Receiver<DatabaseStatus> {
        self.status.subscribe()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }

    fn fence(&self, _: Duration) -> Done<Lsn> {
        assert!(!*self.panics.lock().unwrap(), "it panics, as it was told to");
        if *self.hangs.lock().unwrap() {
            return futures::future::pending().boxed();
        }
        if let Some(reason) = self.broken.lock().unwrap().clone() {
            let attempted = "fence the database".to_owned();
            return futures::future::ready(Err(DatabaseError::Unfit { attempted, reason })).boxed();
        }
        self.crash();
        done(Lsn(self.end() as u64))
    }

    fn demote(&self, _: Duration) -> Done<()> {
        self.crash();
        done(())
    }

    fn promote(&self, rule: SyncRule) -> Done<Promotion> {
        if let Some(reason) = self.unpromotable.lock().unwrap().clone() {
            let attempted = "promote the database".to_owned();
            return futures::future::ready(Err(DatabaseError::Unfit { attempted, reason })).boxed();
        }
        assert_eq!(self.role(), DatabaseRole::Standby);
        *self.rule.lock().unwrap() = rule;
        *self.open.lock().unwrap() = false;
        self.set(|status| (status.role, status.strayed) = (DatabaseRole::Primary, false));
        let start = self.parts.lock().unwrap().take().unwrap_or(self.end());
        done(Promotion { timeline: 1, start: Lsn(start as u64) })
    }

    fn set_sync_rule(&self, rule: SyncRule) -> Done<()> {
        *self.rule.lock().unwrap() = rule;
        done(())
    }

    fn follow(&self, primary: Primary) -> Done<()> {
        if self.is_off() {
            let (attempted, reason) = ("follow".to_owned(), "it is on a timeline of its own".to_owned());
            return futures::future::ready(Err(DatabaseError::Hopeless { attempted, reason })).boxed();
        }
        self.follow_now(primary);
        done(())
    }

    fn rewind(&self, primary: Primary, _: Lsn) -> Done<()> {
        if *self.unrewindable.lock().unwrap() {
            let (attempted, reason) = ("rewind the database".to_owned(), "its primary is not reached".to_owned());
            return futures::future::ready(Err(DatabaseError::Unfit { attempted, reason })).boxed();
        }
        let theirs = self.all.of(primary.node).wal.lock().unwrap().clone();
        let mut mine = self.wal.lock().unwrap();
        let common = mine.iter().zip(&theirs).take_while(|(mine, theirs)| mine == theirs).count();
        mine.truncate(common);
        drop(mine);
        self.set(|status| status.strayed = false);
        *self.off.lock().unwrap() = false;
        *self.parts.lock().unwrap() = None;
        self.follow_now(primary);
        done(())
    }

    fn settle(&self, _: Primary) -> Done<()> {
        done(())
    }

    fn copy_from(&self, primary: Primary) -> Done<()> {
        *self.wal.lock().unwrap() = self.all.of(primary.node).wal.lock().unwrap().clone();
        self.set(|status| (status.lacks_wal, status.strayed) = (false, false));
        *self.parts.lock().unwrap() = None;
        self.follow_now(primary);
        done(())
    }

    fn hold(&self) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let written = self.append(0);
        async move {
            while !self.all.acknowledged(&written) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn flushed(&self, rule: SyncRule) -> BoxFuture<'_, Result<(), DatabaseError>> {
        let end = self.end();
        async move {
            while !self.all.hold(self.id(), &rule, end) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn admit(&self) -> Done<()> {
        *self.open.lock().unwrap() = true;
        done(())
    }

    fn stop(&self) -> Done<Lsn> {
        let last = self.end().saturating_sub(1);
        self.set(|status| status.role = DatabaseRole::Stopped);
        done(Lsn(last as u64))
    }

    fn keep_wal(&self, standbys: BTreeMap<NodeId, Option<Lsn>>) -> Done<()> {
        *self.kept_for.lock().unwrap() = standbys.into_keys().collect();
        done(())
    }
}
