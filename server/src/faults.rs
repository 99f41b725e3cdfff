//! Switches for tests that inject faults into real clusters. They exist in `qluster-server-faults` only: no program that
//! is shipped has the feature `faults`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use qluster_consensus::model::{Lsn, NodeId};
use qluster_consensus::protocol::database::{
    Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, Promotion, SyncRule,
};
use qluster_consensus::protocol::version::{Version, Versions};
use tokio::sync::watch;

use crate::database::Postgres;

/// Set to a number: the program knows versions up to that one. The versions that do not exist yet are the same as the
/// newest real one. So the program stands in for one of a later release.
const NEWEST_VERSION: &str = "QLUSTER_FAULT_NEWEST_VERSION";

/// The versions that the program knows.
pub(crate) fn known_versions() -> Versions {
    let newest = std::env::var(NEWEST_VERSION).ok().and_then(|newest| newest.parse().ok());
    Versions { newest: newest.map_or(Versions::KNOWN.newest, Version), ..Versions::KNOWN }
}

/// Set to `1`: no database is fenced. A test must find the commits that the cluster loses because of that.
const NO_FENCE: &str = "QLUSTER_FAULT_NO_FENCE";

/// Whether fences, and with them the guard, are off.
pub(crate) fn no_fence() -> bool {
    std::env::var_os(NO_FENCE).is_some_and(|value| value == "1")
}

/// The database as consensus directs it.
pub(crate) fn database(postgres: Arc<Postgres>) -> Arc<dyn Database> {
    if no_fence() { Arc::new(Unfenced(postgres)) } else { postgres }
}

/// A database that reports that it is fenced, but goes on as before: a standby receives, a primary serves.
struct Unfenced(Arc<Postgres>);

type Done<'a, T> = BoxFuture<'a, Result<T, DatabaseError>>;

impl Database for Unfenced {
    fn status(&self) -> watch::Receiver<DatabaseStatus> {
        self.0.status()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        self.0.look()
    }

    fn fence(&self, deadline: Duration) -> Done<'_, Lsn> {
        let status = self.0.status().borrow().clone();
        match status.lsn.filter(|_| status.role == DatabaseRole::Standby) {
            Some(lsn) => Box::pin(std::future::ready(Ok(lsn))),
            None => self.0.fence(deadline),
        }
    }

    fn demote(&self, _: Duration) -> Done<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn promote(&self, rule: SyncRule) -> Done<'_, Promotion> {
        Box::pin(async move {
            // PostgreSQL's own condition: a standby that receives WAL cannot be promoted.
            self.0.fence(Duration::from_secs(1)).await?;
            self.0.promote(rule).await
        })
    }

    fn set_sync_rule(&self, rule: SyncRule) -> Done<'_, ()> {
        self.0.set_sync_rule(rule)
    }

    fn flushed(&self, rule: SyncRule) -> Done<'_, ()> {
        self.0.flushed(rule)
    }

    fn hold(&self) -> Done<'_, ()> {
        self.0.hold()
    }

    fn admit(&self) -> Done<'_, ()> {
        self.0.admit()
    }

    fn follow(&self, primary: Primary) -> Done<'_, ()> {
        self.0.follow(primary)
    }

    fn rewind(&self, primary: Primary, fork: Lsn) -> Done<'_, ()> {
        self.0.rewind(primary, fork)
    }

    fn settle(&self, primary: Primary) -> Done<'_, ()> {
        self.0.settle(primary)
    }

    fn copy_from(&self, primary: Primary) -> Done<'_, ()> {
        self.0.copy_from(primary)
    }

    fn stop(&self) -> Done<'_, Lsn> {
        self.0.stop()
    }

    fn keep_wal(&self, standbys: BTreeMap<NodeId, Option<Lsn>>) -> Done<'_, ()> {
        self.0.keep_wal(standbys)
    }
}
