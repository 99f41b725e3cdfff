//! A model of the databases: WAL as records with terms, replication between them, sync rules, crashes that lose what was
//! not flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use qluster_consensus::model::{Lsn, NodeId, Term};
use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus, SyncRule, standby_name};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::check::{Invariant, Violation};
use crate::network::Net;

/// A record of WAL, which is unique, and the term of the primary that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: u64,
    pub term: Term,
}

/// A database. It outlives the agent beside it.
pub struct Db {
    pub id: NodeId,
    pub role: DatabaseRole,
    pub wal: Vec<Record>,
    /// How much of it is on disk.
    pub flushed: usize,
    /// Which node a standby has to follow, and the name that it gives itself there.
    pub follows: Option<(NodeId, Term)>,
    /// Which promotion its receiver streams from.
    streams: Option<u64>,
    /// Which promotion it serves under, as a primary; they are numbered in their order.
    pub promotion: u64,
    /// The term of that promotion, and where it began.
    pub term: Term,
    pub start: usize,
    pub rule: SyncRule,
    /// Whether clients are let in.
    pub open: bool,
    /// What each standby that streams from it has told to have flushed, and its name.
    senders: BTreeMap<NodeId, (String, usize)>,
    /// Where a copied or rewound database becomes consistent. Before that point it cannot be used.
    pub torn: Option<usize>,
    /// Its processes are stopped until then.
    pub frozen: Duration,
    /// Whether somebody else than its agent promoted it.
    pub strayed: bool,
    /// Where the WAL of its promotion's term begins: what it wrote as a stray belongs to that.
    pub parts: usize,
    /// Why it says that it is not fit.
    pub unfit: Option<&'static str>,
    /// Commits of clients that wait: the end of each in the WAL.
    waiting: Vec<(usize, u64)>,
    status: watch::Sender<DatabaseStatus>,
}

impl Db {
    pub fn new(id: NodeId, role: DatabaseRole) -> Self {
        Self {
            id,
            role,
            wal: Vec::new(),
            flushed: 0,
            follows: None,
            streams: None,
            promotion: 0,
            term: Term(0),
            start: 0,
            rule: SyncRule::default(),
            open: false,
            senders: BTreeMap::new(),
            torn: None,
            frozen: Duration::ZERO,
            strayed: false,
            parts: 0,
            unfit: None,
            waiting: Vec::new(),
            status: watch::Sender::new(DatabaseStatus::unknown(role)),
        }
    }

    pub fn status(&self) -> watch::Receiver<DatabaseStatus> {
        self.status.subscribe()
    }

    /// Lets the agent know how it is.
    pub fn tell(&self) {
        let lsn = match self.role {
            DatabaseRole::Primary => Some(Lsn(self.wal.len() as u64)),
            DatabaseRole::Standby => Some(Lsn(self.flushed as u64)),
            _ => None,
        };
        let status = DatabaseStatus {
            unfit: self.unfit.map(str::to_owned),
            lsn,
            replayed: lsn,
            timeline: lsn.map(|_| u32::try_from(self.promotion).unwrap_or(0).max(1)),
            follows: self.follows,
            streaming: self.streams.is_some(),
            strayed: self.strayed,
            ..DatabaseStatus::unknown(self.role)
        };
        self.status.send_if_modified(|known| {
            *known != status && {
                *known = status;
                true
            }
        });
    }

    /// How it is, for people.
    pub fn told(&self) -> String {
        format!(
            "database {}: {}, {} records, {} flushed, the last {:?}, follows {:?}, told of {:?}",
            self.id,
            self.role,
            self.wal.len(),
            self.flushed,
            self.wal.last(),
            self.follows,
            self.senders
        )
    }

    pub fn streaming(&self) -> bool {
        self.streams.is_some()
    }

    pub fn is_frozen(&self, now: Duration) -> bool {
        now < self.frozen
    }

    /// All processes end at once: what was not flushed may be lost.
    pub fn crash(&mut self, random: &mut StdRng) {
        if matches!(self.role, DatabaseRole::Absent | DatabaseRole::Stopped) {
            return;
        }
        let kept = random.random_range(self.flushed..=self.wal.len());
        self.wal.truncate(kept);
        self.flushed = kept;
        self.end();
    }

    /// It does not run any more.
    pub fn end(&mut self) {
        self.role = DatabaseRole::Stopped;
        self.follows = None;
        self.disconnect();
    }

    fn disconnect(&mut self) {
        self.streams = None;
        self.open = false;
        self.senders.clear();
        self.waiting.clear();
    }

    /// It runs as a standby that follows nobody; what it has received is flushed.
    pub fn stand_by(&mut self) {
        self.role = DatabaseRole::Standby;
        self.follows = None;
        self.disconnect();
        self.flushed = self.wal.len();
    }

    pub fn follow(&mut self, primary: NodeId, term: Term) {
        self.follows = Some((primary, term));
        self.streams = None;
    }

    pub fn promote(&mut self, rule: SyncRule, promotion: u64) {
        self.role = DatabaseRole::Primary;
        self.follows = None;
        if !self.strayed {
            self.parts = self.wal.len();
        }
        self.strayed = false;
        self.disconnect();
        self.flushed = self.wal.len();
        self.start = self.wal.len();
        self.term = rule.term;
        self.rule = rule;
        self.promotion = promotion;
    }

    /// Somebody else than its agent promotes it, and writes these records.
    pub fn stray(&mut self, records: std::ops::Range<u64>, promotion: u64) {
        self.role = DatabaseRole::Primary;
        self.follows = None;
        self.strayed = true;
        self.parts = self.wal.len();
        self.disconnect();
        self.rule = SyncRule::default();
        self.promotion = promotion;
        self.term = self.wal.last().map_or(Term(0), |record| record.term);
        for record in records {
            self.append(record, false);
        }
        self.flushed = self.wal.len();
    }

    /// A client writes, and waits for its commit.
    pub fn append(&mut self, id: u64, waits: bool) -> usize {
        self.wal.push(Record { id, term: self.term });
        if waits {
            self.waiting.push((self.wal.len(), id));
        }
        self.wal.len()
    }

    /// Up to where its WAL is held as `rule` asks.
    pub fn held(&self, rule: &SyncRule) -> usize {
        if rule.count == 0 {
            return self.flushed;
        }
        let names: BTreeSet<_> = rule.standbys.iter().map(|&node| standby_name(node, rule.term)).collect();
        let mut held: Vec<_> =
            self.senders.values().filter(|(name, _)| names.contains(name)).map(|&(_, held)| held).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(rule.count - 1).map_or(0, |&held| held.min(self.flushed))
    }

    /// The commits that are acknowledged now.
    fn acknowledged(&mut self) -> Vec<(usize, u64)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let held = self.held(&self.rule);
        let (done, waiting) = self.waiting.iter().partition(|(end, _)| *end <= held);
        self.waiting = waiting;
        done
    }

    /// Whether all that streams from it has all of its WAL.
    pub fn all_sent(&self) -> bool {
        self.senders.values().all(|&(_, held)| held >= self.wal.len())
    }

    pub fn is_prefix_of(&self, other: &Db) -> bool {
        other.wal.len() >= self.wal.len() && other.wal[..self.wal.len()] == self.wal[..]
    }

    /// How many of its first records are those of `other`, too.
    pub fn common(&self, other: &Db) -> usize {
        self.wal.iter().zip(&other.wal).take_while(|(mine, theirs)| mine == theirs).count()
    }
}

/// All databases go on for an instant. Told are the commits that are acknowledged: at whom, the end of it, and which.
pub fn go_on(
    databases: &mut BTreeMap<NodeId, Db>,
    net: &Net,
    random: &mut StdRng,
    now: Duration,
) -> Result<Vec<(NodeId, usize, u64)>, Violation> {
    let ids: Vec<_> = databases.keys().copied().collect();
    for id in ids {
        let Some(mut db) = databases.remove(&id) else { continue };
        let moved = receive(&mut db, databases, net, random, now);
        databases.insert(id, db);
        moved?;
    }
    let streams: BTreeMap<_, _> = databases.iter().map(|(id, db)| (*id, db.streams)).collect();
    let mut acknowledged = Vec::new();
    for (id, db) in databases.iter_mut().filter(|(_, db)| db.role == DatabaseRole::Primary) {
        if db.is_frozen(now) {
            continue;
        }
        // The sender of a standby that is gone ends.
        db.senders.retain(|standby, _| streams.get(standby) == Some(&Some(db.promotion)));
        if random.random_bool(0.7) {
            db.flushed = db.wal.len();
        }
        acknowledged.extend(db.acknowledged().into_iter().map(|(end, record)| (*id, end, record)));
    }
    for db in databases.values() {
        if random.random_bool(0.7) {
            db.tell();
        }
    }
    Ok(acknowledged)
}

/// A standby takes what its primary has.
fn receive(
    db: &mut Db,
    others: &mut BTreeMap<NodeId, Db>,
    net: &Net,
    random: &mut StdRng,
    now: Duration,
) -> Result<(), Violation> {
    let Some((node, term)) = db.follows else { return Ok(()) };
    if db.is_frozen(now) {
        return Ok(());
    }
    let Some(primary) = others.get_mut(&node) else { return Ok(()) };
    let there = primary.role == DatabaseRole::Primary && net.connects(db.id, node);
    if !there || db.streams.is_some_and(|promotion| promotion != primary.promotion) {
        if db.streams.take().is_some() {
            primary.senders.remove(&db.id);
        }
        return Ok(());
    }
    if primary.is_frozen(now) {
        return Ok(());
    }
    if db.streams.is_none() {
        if !random.random_bool(0.3) {
            return Ok(());
        }
        if !db.is_prefix_of(primary) {
            // PostgreSQL refuses if the primary is not the one that it has to follow.
            return match primary.rule.term == term {
                true => Err(Violation::new(
                    Invariant::FollowersArePrefixes,
                    format!(
                        "the database of node {} is told to follow node {node} in {term}, and its WAL of {} records shares \
                         only {} with it",
                        db.id,
                        db.wal.len(),
                        db.common(primary)
                    ),
                )),
                false => Ok(()),
            };
        }
        db.streams = Some(primary.promotion);
        primary.senders.insert(db.id, (standby_name(db.id, term), db.flushed));
    }
    let slow = net.slowed(db.id, node) + net.slowed(node, db.id);
    let speed = if slow > 0 { 5.0 / (slow as f64 + 10.0) } else { 0.6 };
    let lag = primary.flushed.saturating_sub(db.wal.len());
    if lag > 0 && random.random_bool(speed) {
        let more = random.random_range(1..=lag);
        let from = db.wal.len();
        db.wal.extend_from_slice(&primary.wal[from..from + more]);
    }
    if random.random_bool(0.5) {
        db.flushed = db.wal.len();
    }
    if random.random_bool(speed)
        && let Some((_, held)) = primary.senders.get_mut(&db.id)
    {
        *held = db.flushed;
    }
    Ok(())
}
