//! The local database, as the other parts of this node see it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::env::lock::lock;
use crate::model::{NodeId, Term, WalPosition};
use crate::protocol::database::{Database, DatabaseRole, DatabaseStatus};
use crate::protocol::sync_rule::InForce;
use crate::raft::store::DatabaseRecord as Record;

/// The local database, as the other parts of this node see it.
#[derive(Clone)]
pub(crate) struct Local {
    pub(crate) database: Option<Arc<dyn Database>>,
    pub(super) record: watch::Receiver<Record>,
    /// Whether its promotion was begun and it was not fenced since.
    pub(super) may_serve: Arc<AtomicBool>,
    /// Whether clients are let in to the primary that it is.
    pub(crate) admitted: Arc<AtomicBool>,
    /// The sync rule of the primary that it is.
    pub(crate) in_force: watch::Receiver<InForce>,
    /// The node that this leader is giving a vote just now, and its term.
    joining: Arc<Mutex<Option<(Term, NodeId)>>>,
    /// What hinders this node, for people.
    pub(crate) note: watch::Receiver<Option<String>>,
}

impl Local {
    pub(super) fn new(
        database: Option<Arc<dyn Database>>,
        record: watch::Receiver<Record>,
        in_force: watch::Receiver<InForce>,
        note: watch::Receiver<Option<String>>,
    ) -> Self {
        let (may_serve, admitted, joining) = Default::default();
        Self { database, record, may_serve, admitted, in_force, joining, note }
    }

    pub(crate) fn status(&self) -> Option<DatabaseStatus> {
        self.database.as_ref().map(|database| database.status().borrow().clone())
    }

    /// The node that this leader of `term` is giving a vote just now: its sync rule must not be lowered meanwhile.
    pub(crate) fn joining(&self, term: Term) -> Option<NodeId> {
        lock(&self.joining).filter(|(known, _)| *known == term).map(|(_, node)| node)
    }

    pub(crate) fn set_joining(&self, joining: Option<(Term, NodeId)>) {
        *lock(&self.joining) = joining;
    }

    /// How far the database is; None if it cannot be told, such as while it is rebuilt.
    pub(crate) fn position(&self) -> Option<WalPosition> {
        let lsn = self.status()?.lsn?;
        let record = self.record.borrow();
        record.repair.is_none().then(|| record.history.position(lsn))
    }

    /// Why this node cannot promise anything to the leader-to-be of `term`; None if that is not known before it tries. To ask
    /// the supervisor then would only disturb what it is doing.
    pub(crate) fn refuses(&self, term: Term) -> Option<String> {
        let status = self.status()?;
        let record = self.record.borrow();
        if record.promise > term {
            return Some(format!("term {term} is over: this node has promised for {}", record.promise));
        }
        if let Some(repair) = record.repair {
            return Some(format!("its database needs a {repair}"));
        }
        (status.role == DatabaseRole::Absent).then(|| "it has no database yet".into())
    }

    /// Why the database could not lead; None if it could.
    pub(crate) fn unfit(&self) -> Option<String> {
        let status = self.status()?;
        if self.record.borrow().repair.is_some() {
            return Some("its database has to be rewound or cloned".into());
        }
        match status.role {
            DatabaseRole::Standby | DatabaseRole::Primary => status.unfit,
            role => Some(status.unfit.unwrap_or_else(|| format!("its database is {role}"))),
        }
    }
}
