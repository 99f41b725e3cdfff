//! The primary supervisor: the loop that directs the database of this node. It takes the lead of a term, promotes, follows and demotes.
//!
//! What there is to do is a pure function of what is known ([`plan`](crate::protocol::plan::plan)). The loop carries it out
//! step by step; every step may be repeated. It drops what it is doing when the plan changes, and when another node
//! recruits, since that concerns the same database: nothing else directs it.

mod fence;
mod follow;
mod inputs;
mod serve;
mod step_down;
mod take_lead;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::inputs::Inputs;
use self::take_lead::Waits;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Lsn, NodeId, Term};
use crate::primary::local::Local;
use crate::protocol::command::{Change, Outcome};
use crate::protocol::database::{Database, DatabaseError};
use crate::protocol::plan::Task;
use crate::protocol::sync_rule::InForce;
use crate::protocol::take_lead::Override;
use crate::raft::core::{Core, RaftError};
use crate::raft::propose::{ProposeError, Reason, propose};
use crate::raft::store::{DatabaseRecord as Record, StoreError};
use crate::raft::transport::PeerResponse;
use crate::raft::views::Views;

/// After this time a step that failed is tried again.
const STEP_RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long a primary that hands over, or is fenced, may take to stop: its sessions end, and its standbys get the rest of
/// its WAL.
const STOP_TIME: Duration = Duration::from_secs(20);

/// Why the WAL of a database that somebody else promoted does not count, for people.
const STRAYED: &str = "its database was promoted by somebody else than qluster: it has to be rewound";

/// What others want of the database, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Order {
    /// The leader-to-be of a term wants a promise.
    Promise(Term, oneshot::Sender<PeerResponse>),
    /// This leader is to hand over to a node; the answer is why it could not, if so.
    HandOver(NodeId, oneshot::Sender<Result<(), String>>),
    /// This node is to lead although others may have more: the operator named here has accepted that. The answer is why it
    /// cannot, if so.
    Force(String, oneshot::Sender<Result<(), String>>),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    #[error("the database could not carry out the order")]
    Database(#[from] DatabaseError),
    #[error("this node's store could not be written")]
    Store(#[from] StoreError),
    #[error("the Raft core could not carry out the order")]
    Raft(#[from] RaftError),
    #[error("it could not be written to the cluster's log")]
    Propose(#[from] ProposeError),
    #[error("{0}")]
    Refused(String),
}

/// The supervisor of this node's database: the loop and what it needs.
pub(crate) struct Supervisor {
    core: Core,
    local: Local,
    /// Taken by the loop.
    inputs: Option<Inputs>,
    record: watch::Sender<Record>,
    views: Views,
    in_force: watch::Sender<InForce>,
    /// An operator's word that this node may lead although commits are lost.
    overridden: Option<Override>,
    /// Since when this node, elected, waits to take its lead up.
    waits: Option<Waits>,
    /// Where the WAL of the database ends, while it is fenced for that term.
    fenced: Option<(Term, Lsn)>,
    /// The term in which this leader could not serve when it tried last.
    failed: Option<Term>,
    /// The term that this node leads by an operator's override.
    lossy: Option<Term>,
    /// What hinders this node, for people.
    note: watch::Sender<Option<String>>,
}

impl Supervisor {
    pub(crate) fn new(
        core: Core,
        database: Option<Arc<dyn Database>>,
        views: Views,
        removed: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let note = watch::Sender::new(None);
        let mut record = core.store().database_record()?;
        if sabotage::is(Sabotage::ForgetPromise) {
            record.promise = Term(0);
        }
        if sabotage::is(Sabotage::ForgetRepair) {
            record.repair = None;
        }
        let record = watch::Sender::new(record);
        let in_force = watch::Sender::new(InForce::default());
        let local = Local::new(database, record.subscribe(), in_force.subscribe(), note.subscribe());
        let inputs = Inputs::new(core.clone(), local.clone(), removed);
        Ok(Self {
            core,
            local,
            inputs: Some(inputs),
            record,
            views,
            in_force,
            overridden: None,
            waits: None,
            fenced: None,
            failed: None,
            lossy: None,
            note,
        })
    }

    pub(crate) fn local(&self) -> Local {
        self.local.clone()
    }

    /// Does what there is to do; ends when the channel of `orders` is closed.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let Some(mut inputs) = self.inputs.take() else { return };
        let mut told = Task::Wait;
        // One that fails again in the same way does not fill the log.
        let mut warned: Option<String> = None;
        loop {
            inputs.changed = false;
            let task = inputs.task();
            if task != told {
                tracing::debug!(?task, "what this node has to do");
                told = task.clone();
            }
            let result = tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => {
                        self.obey(order).await;
                        continue;
                    }
                    None => return,
                },
                result = self.step(&task) => result,
                () = inputs.differs(&task) => continue,
            };
            let failed = result.is_err();
            let note = result.err().map(|error| chain(&error));
            if let Some(error) = note.as_ref().filter(|_| warned != note) {
                tracing::warn!(error, "a step failed and is tried again");
            }
            warned.clone_from(&note);
            self.tell(note);
            if inputs.changed && !failed {
                continue;
            }
            let pause = async {
                match failed {
                    true => drop(tokio::time::timeout(STEP_RETRY_DELAY, inputs.differs(&task)).await),
                    false => inputs.changed().await,
                }
            };
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = pause => {}
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        // A recruiter that is gone meanwhile asks again, if it still wants the promise.
        match order {
            Order::Promise(_, answer) if answer.is_closed() => {}
            Order::Promise(term, answer) => {
                let promise = match self.promise(term).await {
                    Ok(promise) => PeerResponse::Promise(promise),
                    Err(error) => PeerResponse::Failed(chain(&error)),
                };
                let _ = answer.send(promise);
            }
            Order::HandOver(target, answer) => {
                let _ = answer.send(self.hand_over(target).await.map_err(|error| chain(&error)));
            }
            Order::Force(actor, answer) => {
                let _ = answer.send(self.accept_override(actor).map_err(|error| chain(&error)));
            }
        }
    }

    async fn step(&mut self, task: &Task) -> Result<(), SupervisorError> {
        match task {
            Task::Wait => Ok(()),
            Task::TakeLead(term) => self.take_lead(*term).await,
            Task::Lead(term) => self.lead(*term).await,
            Task::Demote => self.demote().await,
            Task::Follow(primary, history) => self.follow(primary, history).await,
            Task::Stop => match self.database() {
                Some(database) => Ok(database.stop().await.map(drop)?),
                None => Ok(()),
            },
        }
    }

    fn database(&self) -> Option<Arc<dyn Database>> {
        self.local.database.clone()
    }

    /// Changes what this node keeps of its database. The change is durable before it counts.
    fn keep(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), StoreError> {
        let mut record = self.record.borrow().clone();
        change(&mut record);
        if record != *self.record.borrow() {
            self.core.store().set_database_record(&record)?;
            self.record.send_replace(record);
        }
        Ok(())
    }

    /// Tells people what hinders this node, or that nothing does.
    fn tell(&self, note: Option<String>) {
        self.note.send_if_modified(|known| {
            *known != note && {
                *known = note;
                true
            }
        });
    }

    /// Writes a change to the cluster's log, with its cause, and waits until it is applied.
    async fn write(&self, change: Change, cause: String) -> Result<(), SupervisorError> {
        let core = &self.core;
        let limit = core.config().leader_voting_timeout.get().max(core.config().node_timeout.get());
        match propose(core, change, Reason::own(core, cause), limit).await? {
            Outcome::Done | Outcome::Node(_) => Ok(()),
            Outcome::Refused(reason) | Outcome::Invalid(reason) => Err(SupervisorError::Refused(reason)),
        }
    }
}

/// An error with all its causes, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
