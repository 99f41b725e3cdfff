//! What an agent does to the model of its database: each order takes its time, and may be dropped at any point of it.

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::env::clock::Clock;
use qluster_consensus::model::{Lsn, NodeId};
use qluster_consensus::protocol::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use rand::Rng;
use tokio::sync::watch;

use crate::database::Db;
use crate::world::{Shared, World, lock};

/// An agent's hand on the database of its node.
pub struct Directed {
    pub id: NodeId,
    pub world: Shared,
    pub clock: Clock,
}

type Done<'a, T> = BoxFuture<'a, Result<T, DatabaseError>>;

/// Between two looks at what is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

fn unfit(attempted: &str, reason: impl Into<String>) -> DatabaseError {
    DatabaseError::Unfit { attempted: attempted.into(), reason: reason.into() }
}

impl Directed {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Does something to the database, and lets the agent know how it is then.
    fn on<T>(&self, what: &str, act: impl FnOnce(&mut Db) -> T) -> T {
        let now = self.clock.now();
        let mut world = self.world();
        let world = &mut *world;
        world.history.note((now, self.id.0, what));
        world.history.say(now, || format!("database {}: {what}", self.id));
        let db = world.databases.get_mut(&self.id).unwrap();
        let result = act(db);
        db.tell();
        result
    }

    /// Something takes its time, and longer while the processes of the database are stopped.
    async fn takes(&self, least: u64, most: u64) {
        let time = {
            let mut world = self.world();
            let slow = if world.random.random_range(0..20) == 0 { 10 } else { 1 };
            world.random.random_range(least..=most) * slow
        };
        tokio::time::sleep(Duration::from_millis(time)).await;
        while self.look_at(|db| db.is_frozen(self.clock.now())) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn look_at<T>(&self, look: impl FnOnce(&Db) -> T) -> T {
        look(&self.world().databases[&self.id])
    }

    /// Whether the primary can be reached and still is the one of that term.
    fn reaches(&self, primary: &Primary) -> bool {
        let world = self.world();
        world.databases.get(&primary.node).is_some_and(|db| {
            db.role == DatabaseRole::Primary
                && !db.is_frozen(self.clock.now())
                && world.net.connects(self.id, primary.node)
        })
    }

    /// A primary is killed at the deadline at the latest, frozen or not.
    async fn kill(&self, deadline: Duration) {
        let stopped = self.takes(1, 20);
        let _ = tokio::time::timeout(deadline, stopped).await;
        let now = self.clock.now();
        let mut world = self.world();
        let world = &mut *world;
        let db = world.databases.get_mut(&self.id).unwrap();
        if db.role == DatabaseRole::Primary {
            db.crash(&mut world.random);
            db.tell();
            world.history.note((now, self.id.0, "killed"));
            world.history.say(now, || format!("database {}: the primary is stopped", self.id));
        }
    }

    /// Gets what is lacking until the database is consistent.
    async fn until_consistent(&self, primary: &Primary) -> Result<(), DatabaseError> {
        loop {
            self.takes(2, 10).await;
            if !self.reaches(primary) {
                return Err(unfit("copy the primary's WAL", "it is away"));
            }
            let mut world = self.world();
            let world = &mut *world;
            let theirs = world.databases[&primary.node].wal.clone();
            let db = world.databases.get_mut(&self.id).unwrap();
            let (have, goal) = (db.wal.len(), db.torn.unwrap_or(0));
            if theirs.len() < goal || theirs.get(..have) != Some(&db.wal[..]) {
                return Err(DatabaseError::Hopeless {
                    attempted: "copy the primary's WAL".into(),
                    reason: "it is not the same primary any more".into(),
                });
            }
            let to = (have + world.random.random_range(1..20)).min(theirs.len());
            db.wal.extend_from_slice(&theirs[have..to]);
            db.flushed = db.wal.len();
            if db.wal.len() < goal {
                continue;
            }
            db.torn = None;
            db.stand_by();
            db.follow(primary.node, primary.term);
            db.tell();
            break;
        }
        // It follows, and its agent does not know yet that all went well.
        self.takes(1, 10).await;
        Ok(())
    }
}

impl Database for Directed {
    fn status(&self) -> watch::Receiver<DatabaseStatus> {
        self.world().databases[&self.id].status()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        async { self.look_at(Db::tell) }.boxed()
    }

    fn fence(&self, deadline: Duration) -> Done<'_, Lsn> {
        async move {
            match self.look_at(|db| db.role) {
                DatabaseRole::Absent | DatabaseRole::Rebuilding => {
                    return Err(unfit("fence the database", "it is not whole"));
                }
                DatabaseRole::Primary => self.kill(deadline).await,
                _ => {}
            }
            if self.look_at(|db| db.role) == DatabaseRole::Stopped {
                self.takes(20, 100).await;
            }
            self.takes(1, 10).await;
            if self.look_at(|db| !matches!(db.role, DatabaseRole::Stopped | DatabaseRole::Standby)) {
                return Err(unfit("fence the database", "it changed meanwhile"));
            }
            let end = self.look_at(|db| db.wal.len());
            self.on(&format!("is fenced, at {end}"), Db::stand_by);
            self.takes(1, 5).await;
            // It may have crashed since.
            match self.look_at(|db| db.role == DatabaseRole::Standby && db.wal.len() == end) {
                true => Ok(Lsn(end as u64)),
                false => Err(unfit("fence the database", "it went down")),
            }
        }
        .boxed()
    }

    fn demote(&self, deadline: Duration) -> Done<'_, ()> {
        async move {
            if self.look_at(|db| db.role) == DatabaseRole::Primary {
                self.kill(deadline).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn promote(&self, rule: SyncRule) -> Done<'_, Promotion> {
        async move {
            self.takes(5, 30).await;
            let now = self.clock.now();
            let promotion = {
                let mut world = self.world();
                let world = &mut *world;
                world.promotions += 1;
                let db = world.databases.get_mut(&self.id).unwrap();
                match db.role {
                    DatabaseRole::Primary => {}
                    DatabaseRole::Standby if db.follows.is_none() => {
                        world.history.note((now, self.id.0, rule.term.0, db.wal.len()));
                        world.history.say(now, || {
                            format!(
                                "database {}: promoted in term {}, at {}, {rule:?}",
                                self.id,
                                rule.term,
                                db.wal.len()
                            )
                        });
                        db.promote(rule, world.promotions);
                        // What a promotion itself writes.
                        world.records += 1;
                        let (record, start) = (world.records, db.start);
                        db.append(record, false);
                        db.start = start;
                        db.tell();
                        let promoted = world.oracle.promoted(db);
                        if promoted.is_err() {
                            for db in world.databases.values() {
                                world.history.say(now, || db.told());
                            }
                        }
                        world.check(promoted);
                    }
                    role => return Err(unfit("promote the database", format!("it is {role}"))),
                }
                let db = &world.databases[&self.id];
                Promotion { timeline: u32::try_from(db.promotion).unwrap(), start: Lsn(db.parts as u64) }
            };
            self.takes(2, 10).await;
            Ok(promotion)
        }
        .boxed()
    }

    fn set_sync_rule(&self, rule: SyncRule) -> Done<'_, ()> {
        async move {
            self.takes(1, 10).await;
            if self.look_at(|db| db.role) != DatabaseRole::Primary {
                return Err(unfit("set the sync rule", "it is no primary"));
            }
            let told = format!("the sync rule is {} of {:?} in term {}", rule.count, rule.standbys, rule.term);
            self.on(&told, |db| db.rule = rule);
            self.takes(1, 10).await;
            Ok(())
        }
        .boxed()
    }

    fn hold(&self) -> Done<'_, ()> {
        async move {
            self.takes(1, 3).await;
            let end = {
                let mut world = self.world();
                let world = &mut *world;
                let db = world.databases.get_mut(&self.id).unwrap();
                if db.role != DatabaseRole::Primary {
                    return Err(unfit("write to the database", "it is no primary"));
                }
                world.records += 1;
                db.append(world.records, false)
            };
            loop {
                match self.look_at(|db| (db.role == DatabaseRole::Primary).then(|| db.held(&db.rule))) {
                    Some(held) if held >= end => return Ok(()),
                    Some(_) => tokio::time::sleep(POLL_INTERVAL).await,
                    None => return Err(unfit("wait for a write", "the database went down")),
                }
            }
        }
        .boxed()
    }

    fn flushed(&self, rule: SyncRule) -> Done<'_, ()> {
        async move {
            let end = self.look_at(|db| db.wal.len());
            loop {
                match self.look_at(|db| (db.role == DatabaseRole::Primary).then(|| db.held(&rule))) {
                    Some(held) if held >= end => return Ok(()),
                    Some(_) => tokio::time::sleep(POLL_INTERVAL).await,
                    None => return Err(unfit("wait for the standbys", "the database went down")),
                }
            }
        }
        .boxed()
    }

    fn admit(&self) -> Done<'_, ()> {
        async move {
            self.takes(1, 5).await;
            let now = self.clock.now();
            let mut world = self.world();
            let world = &mut *world;
            let db = world.databases.get_mut(&self.id).unwrap();
            if db.role != DatabaseRole::Primary {
                return Err(unfit("let clients in", "it is no primary"));
            }
            db.open = true;
            world.history.note((now, self.id.0, "open"));
            world.history.say(now, || format!("database {}: clients are let in", self.id));
            // Readers see all that was there before this promotion.
            for (at, record) in db.wal[..db.start].iter().enumerate() {
                world.oracle.tell(record.id, at + 1, db.rule.term);
            }
            Ok(())
        }
        .boxed()
    }

    fn follow(&self, primary: Primary) -> Done<'_, ()> {
        async move {
            self.takes(1, 10).await;
            if self.look_at(|db| db.role) != DatabaseRole::Standby {
                return Err(unfit("follow the primary", "it is no standby"));
            }
            let told = format!("follows node {} in term {}", primary.node, primary.term);
            self.on(&told, |db| db.follow(primary.node, primary.term));
            Ok(())
        }
        .boxed()
    }

    fn rewind(&self, primary: Primary, _: Lsn) -> Done<'_, ()> {
        async move {
            if self.look_at(|db| db.torn.is_some()) {
                return Err(DatabaseError::Hopeless {
                    attempted: "rewind the database".into(),
                    reason: "an earlier rewind did not get to its end".into(),
                });
            }
            if self.look_at(|db| db.role) == DatabaseRole::Primary {
                return Err(unfit("rewind the database", "it is a primary"));
            }
            self.takes(5, 30).await;
            if !self.reaches(&primary) {
                return Err(unfit("rewind the database", "the primary is away"));
            }
            {
                let now = self.clock.now();
                let mut world = self.world();
                let theirs = world.databases.remove(&primary.node).unwrap();
                let db = world.databases.get_mut(&self.id).unwrap();
                let common = db.common(&theirs);
                db.end();
                db.wal.truncate(common);
                db.flushed = db.wal.len();
                db.torn = Some(theirs.wal.len());
                db.strayed = false;
                db.role = DatabaseRole::Rebuilding;
                db.tell();
                world.databases.insert(primary.node, theirs);
                world.history.note((now, self.id.0, common));
                world.history.say(now, || format!("database {}: rewinds to {common}", self.id));
            }
            Ok(())
        }
        .boxed()
    }

    fn settle(&self, primary: Primary) -> Done<'_, ()> {
        async move { self.until_consistent(&primary).await }.boxed()
    }

    fn copy_from(&self, primary: Primary) -> Done<'_, ()> {
        async move {
            if !self.reaches(&primary) {
                return Err(unfit("clone the primary", "it is away"));
            }
            let goal = self.world().databases[&primary.node].wal.len();
            self.on("is cloned", |db| {
                db.end();
                db.wal.clear();
                db.flushed = 0;
                db.torn = Some(goal);
                db.strayed = false;
                db.role = DatabaseRole::Rebuilding;
            });
            self.takes(10, 60).await;
            self.until_consistent(&primary).await
        }
        .boxed()
    }

    fn stop(&self) -> Done<'_, Lsn> {
        async move {
            self.takes(1, 10).await;
            let role = self.look_at(|db| db.role);
            if role == DatabaseRole::Primary {
                let end = {
                    let mut world = self.world();
                    let world = &mut *world;
                    world.records += 1;
                    let db = world.databases.get_mut(&self.id).unwrap();
                    db.open = false;
                    let end = db.append(world.records, false);
                    db.flushed = end;
                    end
                };
                // The standbys that stream get all of it.
                while self.look_at(|db| db.role == DatabaseRole::Primary && !db.all_sent()) {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                if self.look_at(|db| db.role) == DatabaseRole::Primary {
                    self.on("is stopped in good order", Db::end);
                }
                return Ok(Lsn(end as u64 - 1));
            }
            let end = self.look_at(|db| db.wal.len());
            if role == DatabaseRole::Standby {
                self.on("is stopped", |db| {
                    db.flushed = db.wal.len();
                    db.end();
                });
            }
            Ok(Lsn((end as u64).saturating_sub(1)))
        }
        .boxed()
    }

    fn keep_wal(&self, _: BTreeMap<NodeId, Option<Lsn>>) -> Done<'_, ()> {
        futures::future::ready(Ok(())).boxed()
    }
}
