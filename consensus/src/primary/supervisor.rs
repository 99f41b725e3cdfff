//! What the database of this node has to do, and doing it: the loop that takes a term up, promotes, follows, demotes.
//!
//! The decision is a pure function of what is known ([`plan`](crate::protocol::plan::plan)). The loop performs the planned duty
//! step by step; every step may be repeated. It drops what it is doing when the plan changes, and when another node
//! recruits, since that concerns the same database: nothing else directs it.

mod serve;
mod take_lead;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::take_lead::{Accepted, Waits};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Lsn, NodeId, Term, WalHistory, WalPosition};
use crate::primary::hand_over;
use crate::primary::local::{InForce, Local};
use crate::protocol::choice::Promise;
use crate::protocol::command::{Change, Outcome};
use crate::protocol::database::{Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary};
use crate::protocol::plan::{View, Wanted, plan};
use crate::protocol::state::Promoted;
use crate::raft::core::{Core, RaftError, RaftStatusChanges};
use crate::raft::propose::{ProposeError, Reason, propose};
use crate::raft::state_machine::{Applied, Progress};
use crate::raft::store::{DatabaseRecord as Record, Repair, StoreError};
use crate::raft::transport::PeerResponse;
use crate::raft::views::Views;

/// After a step failed, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// A primary that hands over has so long to stop: its sessions end, and its standbys get the rest of its WAL.
const STOP: Duration = Duration::from_secs(20);
/// A leader without a lease looks for one so often.
const LEASE: Duration = Duration::from_millis(5);

/// Why a database counts for nothing that somebody else promoted.
const STRAYED: &str = "its database was promoted by somebody else than qluster: it has to be rewound";

/// What others want of the database, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Order {
    /// The leader-to-be of a term wants a promise.
    Promise(Term, oneshot::Sender<PeerResponse>),
    /// This leader is to hand over to a node; the answer is why it could not, if so.
    HandOver(NodeId, oneshot::Sender<Result<(), String>>),
    /// This node is to lead although others may have more: an operator, who is named, has accepted that. The answer is
    /// why it could not, if so.
    Force(String, oneshot::Sender<Result<(), String>>),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DutyError {
    #[error("the database did not do what it was told")]
    Database(#[from] DatabaseError),
    #[error("this node's store did not keep what it must")]
    Store(#[from] StoreError),
    #[error("the Raft core did not do what it was told")]
    Raft(#[from] RaftError),
    #[error("it could not be written to the cluster's log")]
    Propose(#[from] ProposeError),
    #[error("{0}")]
    Refused(String),
}

/// What the plan is made from, and what tells that it may have changed.
struct Inputs {
    core: Core,
    local: Local,
    removed: watch::Receiver<bool>,
    progress: watch::Receiver<Progress>,
    raft_changes: RaftStatusChanges,
    status: Option<watch::Receiver<DatabaseStatus>>,
    /// Whether something has changed since the last look at it.
    changed: bool,
}

impl Inputs {
    fn view(&self) -> View {
        let core = &self.core;
        let (raft, config, now) = (core.raft_status(), core.config(), core.clock().now());
        let (member, keeps, lead, promoted, primary) = core.state_machine().read(|applied| {
            let state = &applied.state;
            let keeps = state.nodes.get(&core.id()).is_none_or(|node| node.upgrade_to.has_database());
            let primary = state.promoted.as_ref().and_then(|promoted| state.nodes.get(&promoted.node)).cloned();
            (state.nodes.contains_key(&core.id()), keeps, state.lead, state.promoted.clone(), primary)
        });
        let (promoted, primary) = match (promoted, lead) {
            (Some(promoted), Some(lead)) if sabotage::is(Sabotage::FollowUnannounced) => (
                Some(Promoted { node: lead.node, term: lead.term, ..promoted }),
                core.state_machine().read(|applied| applied.state.nodes.get(&lead.node).cloned()),
            ),
            (promoted, _) => (promoted, primary),
        };
        // What is there beside a node that is to have none is not its own.
        let status = self.local.status().filter(|_| keeps);
        View {
            me: core.id(),
            now,
            grace: core.started() + config.node_timeout.get(),
            removed: *self.removed.borrow(),
            term: raft.term,
            member,
            leading: raft.leader == Some(core.id()),
            resumes: core.led_before() && core.votes_for_itself(),
            fence_at: core.lease(raft.term).map(|lease| lease.fence_at),
            lead,
            promoted,
            primary,
            promise: self.local.record.borrow().promise,
            applied: core.state_machine().progress().borrow().term,
            may_serve: self.local.may_serve.load(Ordering::Relaxed),
            strayed: status.as_ref().is_some_and(|status| status.strayed),
            database: status.map(|status| status.role),
        }
    }

    fn wanted(&self) -> Wanted {
        plan(&self.view())
    }

    /// Waits until something happened that the plan may depend on, or time alone may have changed it.
    async fn changed(&mut self) {
        let view = self.view();
        let lease = view.fence_at.map(|fence_at| fence_at.saturating_sub(view.now)).filter(|left| !left.is_zero());
        let wake = match lease {
            Some(left) if view.leading => left,
            // A lease comes with the next answer of a peer.
            None if view.leading => LEASE,
            None if view.resumes && view.now < view.grace => LEASE,
            _ => RETRY,
        };
        let status = async {
            match &mut self.status {
                Some(status) => status.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wake) => {}
            _ = self.progress.changed() => {}
            () = self.raft_changes.changed() => {}
            _ = self.removed.changed() => {}
            _ = status => {}
        }
        self.changed = true;
    }

    /// Waits until something else than `wanted` is to do.
    async fn differs(&mut self, wanted: &Wanted) {
        while self.wanted() == *wanted {
            self.changed().await;
        }
    }
}

/// The loop and what it needs.
pub(crate) struct Duty {
    core: Core,
    local: Local,
    /// Taken by the loop.
    inputs: Option<Inputs>,
    record: watch::Sender<Record>,
    views: Views,
    in_force: watch::Sender<InForce>,
    /// That somebody has accepted that commits are lost where this node leads.
    accepted: Option<Accepted>,
    /// Since when this node, elected, tries to take its lead up.
    waits: Option<Waits>,
    /// Where the WAL of the database ends, as long as it is fenced on behalf of that term.
    fenced: Option<(Term, Lsn)>,
    /// The term in which this leader could not serve when it tried last.
    failed: Option<Term>,
    /// The term that this node leads by an operator's word.
    lossy: Option<Term>,
    /// What hinders this node, for people.
    note: watch::Sender<Option<String>>,
}

impl Duty {
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
        let status = local.database.as_ref().map(|database| database.status());
        let (progress, raft_changes) = (core.state_machine().progress(), core.raft_status_changes());
        let inputs =
            Inputs { core: core.clone(), local: local.clone(), removed, progress, raft_changes, status, changed: true };
        Ok(Self {
            core,
            local,
            inputs: Some(inputs),
            record,
            views,
            in_force,
            accepted: None,
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

    /// Performs what there is to do; ends when nobody can recruit any more.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let Some(mut inputs) = self.inputs.take() else { return };
        let mut told = Wanted::Rest;
        // One that fails again in the same way does not fill the log.
        let mut warned: Option<String> = None;
        loop {
            inputs.changed = false;
            let wanted = inputs.wanted();
            if wanted != told {
                tracing::debug!(?wanted, "what this node has to do");
                told = wanted.clone();
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
                result = self.step(&wanted) => result,
                () = inputs.differs(&wanted) => continue,
            };
            let failed = result.is_err();
            let note = result.err().map(|error| chain(&error));
            if let Some(error) = note.as_ref().filter(|_| warned != note) {
                tracing::warn!(error, "this node could not do what it has to");
            }
            warned.clone_from(&note);
            self.tell(note);
            if inputs.changed && !failed {
                continue;
            }
            let pause = async {
                match failed {
                    true => drop(tokio::time::timeout(RETRY, inputs.differs(&wanted)).await),
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
        // Whoever is gone meanwhile asks again, if it still wants it.
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
                let _ = answer.send(self.accept_loss(actor).map_err(|error| chain(&error)));
            }
        }
    }

    /// Hands leadership to `target`. A primary is stopped in good order first, so that its standbys have all of its WAL;
    /// where the target has not, or cannot take over, this node is led again by the usual way.
    async fn hand_over(&mut self, target: NodeId) -> Result<(), DutyError> {
        if let Some(database) = self.database()
            && database.status().borrow().role == DatabaseRole::Primary
        {
            self.serves_no_more();
            // Until it has stopped it serves, and may do so only under the lease.
            let last = tokio::select! {
                stopped = database.stop() => stopped?,
                () = self.lease_is_over() => return Err(DutyError::Refused("the lease was about to end".into())),
                () = tokio::time::sleep(STOP) => {
                    return Err(DutyError::Refused(format!("the database did not stop within {STOP:?}")));
                }
            };
            self.wait_for_wal(target, last).await?;
        }
        Ok(hand_over::transfer(&self.core, target).await?)
    }

    /// Waits until the WAL of `target` has passed the last record that this primary wrote, which was on its way when it
    /// stopped.
    async fn wait_for_wal(&self, target: NodeId, last: Lsn) -> Result<(), DutyError> {
        let core = &self.core;
        let node = core.state_machine().read(|applied| applied.state.nodes.get(&target).cloned());
        let node = node.ok_or_else(|| DutyError::Refused(format!("node {target} is not part of the cluster")))?;
        let patience = core.config().leader_voting_timeout.get();
        let passed = async {
            loop {
                let report = hand_over::ask(core, &node).await;
                let end = report.and_then(|report| report.database?.lsn);
                if end.is_some_and(|end| end > last) {
                    return;
                }
                tokio::time::sleep(LEASE).await;
            }
        };
        tokio::time::timeout(patience, passed).await.map_err(|_| {
            DutyError::Refused(format!(
                "node {target} did not get the last of the WAL, up to {last}, within {patience:?}"
            ))
        })
    }

    /// Waits until the database has to be fenced, since the lease of this leader is about to end.
    async fn lease_is_over(&self) {
        loop {
            let now = self.core.clock().now();
            let fence_at = self.core.lease(self.core.raft_status().term).map_or(now, |lease| lease.fence_at);
            let left = fence_at.saturating_sub(now);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    async fn step(&mut self, wanted: &Wanted) -> Result<(), DutyError> {
        match wanted {
            Wanted::Rest => Ok(()),
            Wanted::TakeLead(term) => self.take_lead(*term).await,
            Wanted::Lead(term) => self.lead(*term).await,
            Wanted::Demote => self.demote().await,
            Wanted::Follow(primary, history) => self.follow(primary, history).await,
            Wanted::Stop => match self.database() {
                Some(database) => Ok(database.stop().await.map(drop)?),
                None => Ok(()),
            },
        }
    }

    fn core(&self) -> &Core {
        &self.core
    }

    fn database(&self) -> Option<Arc<dyn Database>> {
        self.local.database.clone()
    }

    /// Makes a change of what this node keeps durable before it counts.
    fn keep(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), StoreError> {
        let mut record = self.record.borrow().clone();
        change(&mut record);
        if record != *self.record.borrow() {
            self.core().store().set_database_record(&record)?;
            self.record.send_replace(record);
        }
        Ok(())
    }

    /// Promises the leader-to-be of `term` to take WAL of no earlier primary, and tells how far the database is. It is
    /// fenced before the answer, so what it tells stays true.
    async fn promise(&mut self, term: Term) -> Result<Promise, DutyError> {
        let newest = self.core().raft_status().term;
        if term < newest {
            return Err(DutyError::Refused(format!("term {term} is over: the newest is {newest}")));
        }
        if let Some(reason) = self.local.refuses(term) {
            return Err(DutyError::Refused(reason));
        }
        let Some(database) = self.database() else {
            let me = self.core().id();
            let lacks = |applied: &Applied| applied.state.nodes.get(&me).is_some_and(|node| node.db_port.is_some());
            if self.core().state_machine().read(lacks) {
                // What it holds would not be counted, and might be what only it holds.
                return Err(DutyError::Refused("it has a database in the cluster, and was started without".into()));
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
        if self.strays(&database)? {
            return Err(DutyError::Refused(STRAYED.into()));
        }
        self.keep(|record| record.promise = term)?;
        self.fenced = Some((term, lsn)).filter(|_| !unfenced);
        let reached = if sabotage::is(Sabotage::TermBeforeWal) { Lsn(u64::MAX) } else { lsn };
        let term = self.record.borrow().history.position(reached).term;
        let position = Some(WalPosition { term, lsn });
        Ok(Promise { position, unfit: self.local.unfit() })
    }

    /// Makes the database a standby that follows nobody, and tells where its WAL ends.
    async fn fence(&mut self, database: &Arc<dyn Database>) -> Result<Lsn, DutyError> {
        self.serves_no_more();
        self.fenced = None;
        let fenced = tokio::time::timeout(STOP, database.fence(self.core.config().fencing_deadline())).await;
        let lsn = fenced.map_err(|_| DutyError::Refused(format!("the database was not fenced within {STOP:?}")))??;
        self.local.may_serve.store(false, Ordering::Relaxed);
        Ok(lsn)
    }

    /// Whether the database was promoted by somebody else. What it wrote then looks like WAL of the term before: it would
    /// outdo what that term's primary has acknowledged. So it counts for nothing until it is rewound, which is noted, unless
    /// there is nobody else who could have more, or an operator has accepted what is lost.
    fn strays(&mut self, database: &Arc<dyn Database>) -> Result<bool, StoreError> {
        if !self.is_astray(database) || self.loss_is_accepted().is_some() {
            return Ok(false);
        }
        if self.record.borrow().repair.is_none() {
            tracing::warn!("{STRAYED}");
            self.keep(|record| record.repair = Some(Repair::Rewind))?;
        }
        Ok(true)
    }

    /// Whether the database was promoted by somebody else, and others could have more.
    fn is_astray(&self, database: &Arc<dyn Database>) -> bool {
        let strayed = database.status().borrow().strayed && !sabotage::is(Sabotage::CountStrayed);
        strayed && !self.is_the_only_holder()
    }

    /// Whether no other voter has a database.
    fn is_the_only_holder(&self) -> bool {
        let (core, voters) = (self.core(), self.core().voters());
        core.state_machine().read(|applied| {
            let holds = |id: &NodeId| applied.state.nodes.get(id).is_none_or(|node| node.role.has_database());
            voters.iter().flatten().all(|id| *id == core.id() || !holds(id))
        })
    }

    /// Nothing is known any more of a sync rule that is in force here, or of clients that were let in.
    fn serves_no_more(&mut self) {
        self.in_force.send_replace(InForce::default());
        self.local.admitted.store(false, Ordering::Relaxed);
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

    /// Stops serving, and comes back as a standby that follows nobody yet.
    async fn demote(&mut self) -> Result<(), DutyError> {
        let Some(database) = self.database() else { return Ok(()) };
        let raft = self.core().raft_status();
        tracing::warn!(term = %raft.term, leader = ?raft.leader, "the primary is demoted");
        let deadline = self.core.config().fencing_deadline();
        let of_lease = self.core.lease(raft.term).map(|lease| lease.fencing_deadline());
        database.demote(of_lease.map_or(deadline, |of_lease| of_lease.min(deadline))).await?;
        self.fence(&database).await.map(drop)
    }

    /// Follows `primary`, whose WAL history is `history`: at once where the own WAL is a prefix, else after a rewind,
    /// else as a new clone. What has to be rebuilt is noted before the first byte changes.
    async fn follow(&mut self, primary: &Primary, history: &WalHistory) -> Result<(), DutyError> {
        let Some(database) = self.database() else { return Ok(()) };
        let status = database.status().borrow().clone();
        if status.role == DatabaseRole::Absent {
            self.keep(|record| record.repair = Some(Repair::Clone))?;
        }
        let follows = status.follows == Some((primary.node, primary.term));
        if follows && status.lacks_wal && self.record.borrow().repair.is_none() {
            tracing::warn!(primary = %primary.node, "the primary has no more the WAL that this database needs");
            self.keep(|record| record.repair = Some(Repair::Clone))?;
        }
        self.strays(&database)?;
        let repair = self.record.borrow().repair;
        if repair.is_none() && follows {
            return Ok(());
        }
        let fenced = self.fenced.take();
        let repair = match repair {
            Some(repair) => repair,
            None => {
                let end = match fenced {
                    // It was fenced for this very primary's recruiting, and has followed nobody since.
                    Some((term, end)) if term == primary.term && status.role == DatabaseRole::Standby => end,
                    _ => self.fence(&database).await?,
                };
                let parted = self.record.borrow().history.is_prefix_of(end, history);
                match parted {
                    _ if self.strays(&database)? => Repair::Rewind,
                    Ok(()) => {
                        let before = self.record.borrow().history.clone();
                        self.keep(|record| record.history = before.following(end, history))?;
                        tracing::info!(primary = %primary.node, term = %primary.term, from = %end, "follows");
                        match database.follow(primary.clone()).await {
                            Err(error @ DatabaseError::Hopeless { .. }) => {
                                tracing::warn!(error = chain(&error), "it cannot follow as it is: rewinds");
                                self.keep(|record| (record.history, record.repair) = (before, Some(Repair::Rewind)))?;
                                Repair::Rewind
                            }
                            done => return Ok(done?),
                        }
                    }
                    Err(_) if sabotage::is(Sabotage::FollowDiverged) => {
                        return Ok(database.follow(primary.clone()).await?);
                    }
                    Err(fork) => {
                        tracing::warn!(primary = %primary.node, %end, %fork, "the database has diverged: rewinds");
                        self.keep(|record| record.repair = Some(Repair::Rewind))?;
                        Repair::Rewind
                    }
                }
            }
        };
        if repair == Repair::Rewind {
            // Where the two do not part any more, all of it is this primary's, too.
            let fork = self.record.borrow().history.is_prefix_of(Lsn(u64::MAX), history).err();
            let rewound = match database.rewind(primary.clone(), fork.unwrap_or(Lsn(u64::MAX))).await {
                Ok(()) => {
                    // Where it parts from the next primary, should this one be lost, is told by this one's history.
                    self.keep(|record| record.history = history.clone())?;
                    database.settle(primary.clone()).await
                }
                failed => failed,
            };
            match rewound {
                Ok(()) => return self.rebuilt(history),
                Err(error @ DatabaseError::Hopeless { .. }) => {
                    tracing::warn!(error = chain(&error), "the rewind cannot work: clones anew");
                    self.keep(|record| record.repair = Some(Repair::Clone))?;
                }
                // What passes, such as a primary that is away, is not worth a clone.
                Err(error) => return Err(error.into()),
            }
        }
        tracing::info!(primary = %primary.node, term = %primary.term, "clones");
        database.copy_from(primary.clone()).await?;
        self.rebuilt(history)
    }

    /// The database is a copy of a primary with this history.
    fn rebuilt(&mut self, history: &WalHistory) -> Result<(), DutyError> {
        Ok(self.keep(|record| {
            record.history = history.clone();
            record.repair = None;
        })?)
    }

    /// Hands leadership to another node, or gives the term up and stands again.
    async fn give_up(&mut self) -> Result<(), DutyError> {
        let core = self.core().clone();
        // The standbys of a primary that is gone stream no more, and are fit all the same.
        if let Some(target) = hand_over::best_target(&core, &self.views, None)
            && hand_over::transfer(&core, target).await.is_ok()
        {
            return Ok(());
        }
        Ok(hand_over::give_up_term(&core).await?)
    }

    async fn write(&self, change: Change, cause: String) -> Result<(), DutyError> {
        let core = self.core();
        let patience = core.config().leader_voting_timeout.get().max(core.config().node_timeout.get());
        match propose(core, change, Reason::own(core, cause), patience).await? {
            Outcome::Done | Outcome::Node(_) => Ok(()),
            Outcome::Refused(reason) | Outcome::Invalid(reason) => Err(DutyError::Refused(reason)),
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
