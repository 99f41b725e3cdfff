//! Taking the database out of service: for a recruiter, for a new leader, or since the lease ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{STOP_TIME, STRAYED, Supervisor, SupervisorError};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Lsn, Term, WalPosition};
use crate::protocol::choice::Promise;
use crate::protocol::database::{Database, DatabaseRole};
use crate::protocol::repair::is_astray;
use crate::protocol::sync_rule::InForce;
use crate::raft::state_machine::Applied;
use crate::raft::store::{Repair, StoreError};

impl Supervisor {
    /// Promises the leader-to-be of `term` to take WAL of no earlier primary, and tells how far the database is. The
    /// database is fenced before the answer, so what it tells stays true.
    pub(super) async fn promise(&mut self, term: Term) -> Result<Promise, SupervisorError> {
        let newest = self.core.raft_status().term;
        if term < newest {
            return Err(SupervisorError::Refused(format!("term {term} is over: the newest is {newest}")));
        }
        if let Some(reason) = self.local.refuses(term) {
            return Err(SupervisorError::Refused(reason));
        }
        let Some(database) = self.database() else {
            let me = self.core.id();
            let lacks = |applied: &Applied| applied.state.nodes.get(&me).is_some_and(|node| node.db_port.is_some());
            if self.core.state_machine().read(lacks) {
                // What it holds would not be counted, and might be what only it holds.
                return Err(SupervisorError::Refused(
                    "it has a database in the cluster, and was started without".into(),
                ));
            }
            return Ok(Promise { position: None, unfit: None });
        };
        // A primary is stopped before anything else: a disk that hangs must not hold that up.
        let status = database.status().borrow().clone();
        let unfenced = sabotage::is(Sabotage::PromiseWithoutFence) && status.role == DatabaseRole::Standby
            || sabotage::is(Sabotage::PromiseAsPrimary) && status.role == DatabaseRole::Primary;
        let lsn = match status.lsn.filter(|_| unfenced) {
            Some(lsn) => lsn,
            None => self.fence(&database).await?,
        };
        if self.note_stray(&database)? {
            return Err(SupervisorError::Refused(STRAYED.into()));
        }
        self.keep(|record| record.promise = term)?;
        self.fenced = Some((term, lsn)).filter(|_| !unfenced);
        let reached = if sabotage::is(Sabotage::TermBeforeWal) { Lsn(u64::MAX) } else { lsn };
        let term = self.record.borrow().history.position(reached).term;
        let position = Some(WalPosition { term, lsn });
        Ok(Promise { position, unfit: self.local.unfit() })
    }

    /// Stops serving, and comes back as a standby that follows nobody yet.
    pub(super) async fn demote(&mut self) -> Result<(), SupervisorError> {
        let Some(database) = self.database() else { return Ok(()) };
        let raft = self.core.raft_status();
        tracing::warn!(term = %raft.term, leader = ?raft.leader, "the primary is demoted");
        let deadline = self.core.config().fencing_deadline();
        let of_lease = self.core.lease(raft.term).map(|lease| lease.fencing_deadline());
        database.demote(of_lease.map_or(deadline, |of_lease| of_lease.min(deadline))).await?;
        self.fence(&database).await.map(drop)
    }

    /// Makes the database a standby that follows nobody, and tells where its WAL ends.
    pub(super) async fn fence(&mut self, database: &Arc<dyn Database>) -> Result<Lsn, SupervisorError> {
        self.serves_no_more();
        self.fenced = None;
        let fenced = tokio::time::timeout(STOP_TIME, database.fence(self.core.config().fencing_deadline())).await;
        let lsn = fenced
            .map_err(|_| SupervisorError::Refused(format!("the database was not fenced within {STOP_TIME:?}")))??;
        self.local.may_serve.store(false, Ordering::Relaxed);
        Ok(lsn)
    }

    /// Where the WAL of the database ends: as it was fenced for `term`, if it was and has followed nobody since; else it is
    /// fenced now.
    pub(super) async fn fenced_for(
        &mut self,
        term: Term,
        database: &Arc<dyn Database>,
        role: DatabaseRole,
    ) -> Result<Lsn, SupervisorError> {
        match self.fenced.take() {
            Some((fenced, end)) if fenced == term && role == DatabaseRole::Standby => Ok(end),
            _ => self.fence(database).await,
        }
    }

    /// Whether the database counts for nothing, since somebody else promoted it; notes durably that it has to be rewound. An
    /// operator's override has it count all the same.
    pub(super) fn note_stray(&mut self, database: &Arc<dyn Database>) -> Result<bool, StoreError> {
        if !self.is_astray(database) || self.overridden_by().is_some() {
            return Ok(false);
        }
        if self.record.borrow().repair.is_none() {
            tracing::warn!("{STRAYED}");
            self.keep(|record| record.repair = Some(Repair::Rewind))?;
        }
        Ok(true)
    }

    /// Whether the database was promoted by somebody else, and others could have more.
    pub(super) fn is_astray(&self, database: &Arc<dyn Database>) -> bool {
        let (core, voters) = (&self.core, self.core.voters());
        let strayed = database.status().borrow().strayed;
        core.state_machine().read(|applied| is_astray(strayed, core.id(), &voters, &applied.state.nodes))
    }

    /// Forgets what was proven of the sync rule, and that clients were let in.
    pub(super) fn serves_no_more(&mut self) {
        self.in_force.send_replace(InForce::default());
        self.local.admitted.store(false, Ordering::Relaxed);
    }
}
