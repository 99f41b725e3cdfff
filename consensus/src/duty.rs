//! What the database of this node has to do, and doing it: the loop that takes a term up, promotes, follows, demotes.
//!
//! The decision is a pure function of what is known ([`plan`](crate::plan::plan)). The loop performs the planned duty step by step; every
//! step may be repeated. It drops what it is doing when the plan changes, and when another node recruits, since that
//! concerns the same database: nothing else directs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Instant;
use crate::command::{Change, Outcome};
use crate::database::{Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, SyncRule};
use crate::handover;
use crate::machine::Progress;
use crate::model::{Lsn, NodeId, NodeRole, Term, WalHistory, WalPosition};
use crate::plan::{View, Wanted, plan};
use crate::propose::{ProposeError, Reason, propose};
use crate::raft::{Core, RaftError, Seats, lock};
use crate::recruit::{Choice, Recruiting, choose, is_majority};
use crate::rule;
use crate::state::Lead;
use crate::store::{Duty as Record, Repair, StoreError};
use crate::transport::{PeerResponse, Promise};
use crate::views::Views;

/// After a step failed, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// A primary that hands over has so long to stop: its sessions end, and its standbys get the rest of its WAL.
const STOP: Duration = Duration::from_secs(20);
/// After so many node time-outs without a leader the cluster is told why.
const PATIENCE: u32 = 3;
/// A leader without a lease looks for one so often.
const LEASE: Duration = Duration::from_millis(5);
/// A voter whose database has to be stopped and started before it promises takes so long.
const FENCED: Duration = Duration::from_secs(5);
/// An operator's word that commits may be lost counts for so long: by then the node is elected, or cannot be.
const WORD: Duration = Duration::from_secs(30);

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

/// The sync rule of the local primary, as far as it is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// The rule under which every commit is acknowledged; none where this node has no primary that serves.
    pub(crate) rule: Option<SyncRule>,
    /// Whether all that was ever acknowledged is held under it.
    pub(crate) held: bool,
    /// The rule of those who are left once a voter is gone that is to go, where all that was ever acknowledged is held
    /// as that asks.
    pub(crate) rest: Option<SyncRule>,
}

impl InForce {
    fn new(rule: SyncRule) -> Self {
        Self { rule: Some(rule), ..Self::default() }
    }
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

/// The local database, as the other parts of this node see it.
#[derive(Clone)]
pub(crate) struct Local {
    pub(crate) database: Option<Arc<dyn Database>>,
    record: watch::Receiver<Record>,
    /// Whether its promotion was begun and it was not fenced since.
    may_serve: Arc<AtomicBool>,
    /// The sync rule of the primary that it is.
    pub(crate) in_force: watch::Receiver<InForce>,
    /// The node that this leader is just giving a vote, and its term.
    joining: Arc<Mutex<Option<(Term, NodeId)>>>,
    /// What hinders this node, for people.
    pub(crate) note: watch::Receiver<Option<String>>,
}

impl Local {
    pub(crate) fn status(&self) -> Option<DatabaseStatus> {
        self.database.as_ref().map(|database| database.status().borrow().clone())
    }

    /// The node that this leader of `term` is just giving a vote: its sync rule must not be lowered meanwhile.
    pub(crate) fn joining(&self, term: Term) -> Option<NodeId> {
        lock(&self.joining).filter(|(known, _)| *known == term).map(|(_, node)| node)
    }

    pub(crate) fn set_joining(&self, joining: Option<(Term, NodeId)>) {
        *lock(&self.joining) = joining;
    }

    /// How far the database is, where that can be told: not while it is rebuilt.
    pub(crate) fn position(&self) -> Option<WalPosition> {
        let lsn = self.status()?.lsn?;
        let record = self.record.borrow();
        record.repair.is_none().then(|| record.history.position(lsn))
    }

    /// Why this node cannot promise anything to the leader-to-be of `term`, where that is known beforehand: asking it
    /// would only disturb what it is doing.
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

    /// Why the database could not lead, where that is so.
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

/// What the plan is made from, and what tells that it may have changed.
struct Inputs {
    core: Core,
    local: Local,
    removed: watch::Receiver<bool>,
    progress: watch::Receiver<Progress>,
    seats: Seats,
    status: Option<watch::Receiver<DatabaseStatus>>,
    /// Whether something has changed since the last look at it.
    changed: bool,
}

impl Inputs {
    fn view(&self) -> View {
        let core = &self.core;
        let (seat, config, now) = (core.seat(), core.config(), core.clock().now());
        let (member, lead, promoted, primary) = core.machine().read(|applied| {
            let state = &applied.state;
            let primary = state.promoted.as_ref().and_then(|promoted| state.nodes.get(&promoted.node)).cloned();
            (state.nodes.contains_key(&core.id()), state.lead, state.promoted.clone(), primary)
        });
        View {
            me: core.id(),
            now,
            grace: core.started() + config.node_timeout.get(),
            removed: *self.removed.borrow(),
            term: seat.term,
            member,
            leading: seat.leader == Some(core.id()),
            fence_at: core.lease_end(seat.term).map(|end| end.saturating_sub(config.fencing_deadline())),
            lead,
            promoted,
            primary,
            promise: self.local.record.borrow().promise,
            applied: core.machine().progress().borrow().term,
            may_serve: self.local.may_serve.load(Ordering::Relaxed),
            database: self.local.status().map(|status| status.role),
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
            () = self.seats.changed() => {}
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

/// An operator's word that this node may lead although others may have more.
#[derive(Clone)]
struct Accepted {
    actor: String,
    until: Instant,
    /// Who had led last: once another does, there is nothing to accept any more.
    lead: Option<Lead>,
}

/// An elected node that is not the announced leader yet.
#[derive(Clone, Copy)]
struct Waits {
    term: Term,
    since: Instant,
    /// Whether the cluster was told why.
    told: bool,
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
    /// Whether clients are let in.
    admitted: bool,
    /// That somebody has accepted that commits are lost where this node leads.
    accepted: Option<Accepted>,
    /// Since when this node, elected, tries to take its lead up.
    waits: Option<Waits>,
    /// Where the WAL of the database ends, as long as it is fenced on behalf of that term.
    fenced: Option<(Term, Lsn)>,
    /// The term in which this leader could not serve when it tried last.
    failed: Option<Term>,
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
        let record = watch::Sender::new(core.store().duty()?);
        let in_force = watch::Sender::new(InForce::default());
        let local = Local {
            database,
            record: record.subscribe(),
            may_serve: Arc::default(),
            in_force: in_force.subscribe(),
            joining: Arc::default(),
            note: note.subscribe(),
        };
        let status = local.database.as_ref().map(|database| database.status());
        let (progress, seats) = (core.machine().progress(), core.seats());
        let inputs =
            Inputs { core: core.clone(), local: local.clone(), removed, progress, seats, status, changed: true };
        Ok(Self {
            core,
            local,
            inputs: Some(inputs),
            record,
            views,
            in_force,
            admitted: false,
            accepted: None,
            waits: None,
            fenced: None,
            failed: None,
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
            if let Some(error) = &note {
                tracing::warn!(error, "this node could not do what it has to");
            }
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

    /// Takes an operator's word that this node may lead although others may have more. A rewind that was not begun is
    /// not needed any more: what the database has is what counts.
    fn accept_loss(&mut self, actor: String) -> Result<(), DutyError> {
        let Some(status) = self.local.status() else {
            return Err(DutyError::Refused("it has no database".into()));
        };
        if self.record.borrow().repair == Some(Repair::Clone) {
            return Err(DutyError::Refused(
                "its database needs a clone: there is nothing that it could lead with".into(),
            ));
        }
        if status.role != DatabaseRole::Standby || status.unfit.is_some() {
            let unfit = status.unfit.map(|reason| format!(": {reason}")).unwrap_or_default();
            return Err(DutyError::Refused(format!("its database is {}{unfit}", status.role)));
        }
        self.keep(|record| record.repair = None)?;
        let lead = self.core.machine().read(|applied| applied.state.lead);
        self.accepted = Some(Accepted { actor, until: self.core.clock().now() + WORD, lead });
        Ok(())
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
        Ok(handover::transfer(&self.core, target).await?)
    }

    /// Waits until the WAL of `target` has passed the last record that this primary wrote, which was on its way when it
    /// stopped.
    async fn wait_for_wal(&self, target: NodeId, last: Lsn) -> Result<(), DutyError> {
        let core = &self.core;
        let node = core.machine().read(|applied| applied.state.nodes.get(&target).cloned());
        let node = node.ok_or_else(|| DutyError::Refused(format!("node {target} is not part of the cluster")))?;
        let patience = core.config().leader_voting_timeout.get();
        let passed = async {
            loop {
                let report = handover::ask(core, &node).await;
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
            let (now, fencing) = (self.core.clock().now(), self.core.config().fencing_deadline());
            let end = self.core.lease_end(self.core.seat().term).unwrap_or_default();
            let left = end.saturating_sub(now + fencing);
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
            self.core().store().set_duty(&record)?;
            self.record.send_replace(record);
        }
        Ok(())
    }

    /// Promises the leader-to-be of `term` to take WAL of no earlier primary, and tells how far the database is. It is
    /// fenced before the answer, so what it tells stays true.
    async fn promise(&mut self, term: Term) -> Result<Promise, DutyError> {
        let newest = self.core().seat().term;
        if term < newest {
            return Err(DutyError::Refused(format!("term {term} is over: the newest is {newest}")));
        }
        if let Some(reason) = self.local.refuses(term) {
            return Err(DutyError::Refused(reason));
        }
        let Some(database) = self.database() else { return Ok(Promise { position: None, unfit: None }) };
        // A primary is stopped before anything else: a disk that hangs must not hold that up.
        let lsn = self.fence(&database).await?;
        self.keep(|record| record.promise = term)?;
        self.fenced = Some((term, lsn));
        let position = Some(self.record.borrow().history.position(lsn));
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

    /// Nothing is known any more of a sync rule that is in force here, or of clients that were let in.
    fn serves_no_more(&mut self) {
        self.in_force.send_replace(InForce::default());
        self.admitted = false;
    }

    /// Recruits a majority of the voters and becomes the announced leader of `term`, or hands leadership to the node
    /// with the furthest database.
    async fn take_lead(&mut self, term: Term) -> Result<(), DutyError> {
        let core = self.core().clone();
        let me = core.id();
        let voters = core.voters();
        let nodes = core.machine().read(|applied| applied.state.nodes.clone());
        let last_lead = core.machine().read(|applied| applied.state.lead);
        let mut promises = BTreeMap::new();

        // Asked while the own database is fenced; whoever is still being asked when this ends is asked no more.
        let others = voters.iter().flatten().filter(|&&voter| voter != me).collect::<BTreeSet<_>>();
        let mut recruiting = Recruiting::begin(&core, others.into_iter().filter_map(|voter| nodes.get(voter)), term);
        // A primary that is elected again, nobody else having led in between, goes on serving.
        let serves = self.local.status().is_some_and(|status| status.role == DatabaseRole::Primary);
        let goes_on = serves && last_lead.is_none_or(|lead| lead.node == me);
        if goes_on {
            self.keep(|record| record.promise = term)?;
            promises.insert(me, Promise { position: self.local.position(), unfit: None });
        } else {
            match self.promise(term).await {
                Ok(promise) => drop(promises.insert(me, promise)),
                Err(error) => recruiting.refused(me, chain(&error)),
            }
        }
        while !is_majority(&voters, |voter| promises.contains_key(&voter)) {
            let waited = self.waits_since(term);
            // Whoever has more and is slow to be fenced is waited for.
            if waited >= FENCED.max(core.config().leader_voting_timeout.get())
                && promises.contains_key(&me)
                && let Some(actor) = self.loss_is_accepted()
            {
                return self.lead_with_loss(term, actor, promises.len(), voters[0].len()).await;
            }
            let why = recruiting.why();
            let reason = format!(
                "elected in term {term}, with the promises of {} of {} voters: {why}",
                promises.len(),
                voters[0].len()
            );
            self.tell_nobody_leads(term, reason.clone()).await?;
            if !promises.contains_key(&me) && waited >= RETRY {
                // The own database may be fit by now.
                return Err(DutyError::Refused(reason));
            }
            let heartbeat = core.config().heartbeat_interval.get();
            match tokio::time::timeout(heartbeat, recruiting.next()).await {
                Ok(Some((node, promise))) => drop(promises.insert(node, promise)),
                Ok(None) => tokio::time::sleep(heartbeat).await,
                Err(_) => {}
            }
        }
        let may_lead = |node: NodeId| nodes.get(&node).is_some_and(|node| node.votes() && node.role == NodeRole::Voter);
        let mut choice = choose(me, &promises, may_lead);
        while !goes_on && matches!(choice, Choice::Unfit(..) | Choice::Nobody) {
            // Another may have as much, and be fit.
            let left = core.config().leader_voting_timeout.get().saturating_sub(self.waits_since(term));
            let Ok(Some((node, promise))) = tokio::time::timeout(left, recruiting.next()).await else { break };
            promises.insert(node, promise);
            choice = choose(me, &promises, may_lead);
        }
        // Whoever goes on serving has all WAL that its standbys have, though its last look at it is older.
        if goes_on || choice == Choice::Me {
            let cause = format!("elected in term {term}, by {} of {} voters", promises.len(), voters[0].len());
            self.write(Change::Lead { node: me, term, lossy: false }, cause).await?;
            self.accepted = None;
            return Ok(());
        }
        let reason = match choice {
            Choice::Other(node) => {
                tracing::info!(%node, %term, "leadership goes to the node with the furthest database");
                return Ok(handover::transfer(&core, node).await?);
            }
            Choice::Unfit(node, reason) => {
                format!("elected in term {term}; node {node} has the furthest database, which is not fit: {reason}")
            }
            Choice::Me | Choice::Nobody => {
                format!("elected in term {term}; none of the voters that answer may lead: {}", recruiting.why())
            }
        };
        if promises.contains_key(&me)
            && let Some(actor) = self.loss_is_accepted()
        {
            return self.lead_with_loss(term, actor, promises.len(), voters[0].len()).await;
        }
        self.tell_nobody_leads(term, reason.clone()).await?;
        Err(DutyError::Refused(reason))
    }

    /// For how long this node has been trying to take the lead of `term`.
    fn waits_since(&mut self, term: Term) -> Duration {
        let now = self.core.clock().now();
        match self.waits {
            Some(Waits { term: known, since, .. }) if known == term => now.saturating_sub(since),
            _ => {
                self.waits = Some(Waits { term, since: now, told: false });
                Duration::ZERO
            }
        }
    }

    /// Tells people why nobody leads; after a while the cluster, too, once a term.
    async fn tell_nobody_leads(&mut self, term: Term, reason: String) -> Result<(), DutyError> {
        let late = self.waits_since(term) >= PATIENCE * self.core.config().node_timeout.get();
        self.tell(Some(reason.clone()));
        if late && let Some(waits) = self.waits.as_mut().filter(|waits| !waits.told) {
            waits.told = true;
            self.write(Change::NobodyLeads { node: self.core.id() }, reason).await?;
        }
        Ok(())
    }

    /// Who has accepted that commits may be lost where this node leads, if somebody has.
    fn loss_is_accepted(&self) -> Option<String> {
        let Accepted { actor, until, lead } = self.accepted.as_ref()?;
        let last = self.core.machine().read(|applied| applied.state.lead);
        (self.core.clock().now() < *until && last == *lead).then(|| actor.clone())
    }

    /// Becomes the announced leader of `term` although others may have acknowledged commits that this node lacks.
    async fn lead_with_loss(
        &mut self,
        term: Term,
        actor: String,
        promised: usize,
        voters: usize,
    ) -> Result<(), DutyError> {
        let cause = format!(
            "acknowledged commits may be lost by this, which {actor} has accepted: elected in term {term}, with the \
             promises of {promised} of {voters} voters"
        );
        tracing::warn!(cause, "leads");
        self.write(Change::Lead { node: self.core.id(), term, lossy: true }, cause).await?;
        self.accepted = None;
        Ok(())
    }

    /// Is the primary of `term`. A database that cannot be promoted is not tried for ever: others may be fit.
    async fn lead(&mut self, term: Term) -> Result<(), DutyError> {
        let result = self.serve_term(term).await;
        match &result {
            Ok(()) => self.failed = None,
            // Whoever was promoted serves, however slowly; that it is not fit is for its node to find.
            Err(_) if self.is_announced(term) => {}
            Err(_) if self.failed == Some(term) => {
                tracing::warn!(%term, "the database could not be promoted twice: leadership is given up");
                self.failed = None;
                self.give_up().await?;
            }
            Err(_) => self.failed = Some(term),
        }
        result
    }

    /// Whether the cluster knows that the database of this node was promoted in `term`.
    fn is_announced(&self, term: Term) -> bool {
        self.core.machine().read(|applied| {
            let promoted = applied.state.promoted.as_ref();
            promoted.is_some_and(|promoted| promoted.node == self.core.id() && promoted.term == term)
        })
    }

    /// Promotes, announces, keeps the sync rule, and lets clients in.
    async fn serve_term(&mut self, term: Term) -> Result<(), DutyError> {
        let Some(database) = self.database() else { return Ok(()) };
        let core = self.core().clone();
        let me = core.id();
        let status = database.status().borrow().clone();
        let serves = status.role == DatabaseRole::Primary;
        if self.is_announced(term) {
            return self.serve(&database, term).await;
        }
        let rule = rule::wanted(&core, &self.local, term);
        let begun = self.record.borrow().history.0.last().copied().filter(|start| start.term == term);
        if serves {
            self.in_force.send_replace(InForce::default());
            database.set_sync_rule(rule.clone()).await?;
        } else {
            let end = match self.fenced.take() {
                Some((fenced, end)) if fenced == term && status.role == DatabaseRole::Standby => end,
                _ => self.fence(&database).await?,
            };
            if begun.is_some_and(|start| start.lsn < end) {
                tracing::warn!(%term, "the database was promoted in this term and went down: leadership is given up");
                return self.give_up().await;
            }
            self.keep(|record| record.history = record.history.before(term).promoted(term, end))?;
        }
        let timeline = if serves && begun.is_none() {
            // It goes on serving under a new term, with its WAL and its timeline as they are.
            status.timeline.ok_or_else(|| DutyError::Refused("the primary does not tell its timeline".into()))?
        } else {
            // Promoting what is promoted already tells what came of it.
            self.local.may_serve.store(true, Ordering::Relaxed);
            let promotion = database.promote(rule.clone()).await?;
            self.keep(|record| record.history = record.history.before(term).promoted(term, promotion.start))?;
            promotion.timeline
        };
        self.in_force.send_replace(InForce::new(rule));
        let history = self.record.borrow().history.clone();
        let cause = format!("its database was promoted, on timeline {timeline}");
        self.write(Change::Promoted { node: me, term, timeline, history }, cause).await
    }

    /// Keeps the sync rule of the announced primary as the voters ask, and lets clients in once the term's first write
    /// is held under it: before that it is not known what of earlier terms will last (Raft paper, figure 8), so nobody is
    /// told of it.
    async fn serve(&mut self, database: &Arc<dyn Database>, term: Term) -> Result<(), DutyError> {
        let (core, local) = (self.core().clone(), self.local.clone());
        let mut progress = core.machine().progress();
        let mut seats = core.seats();
        let mut status = database.status();
        loop {
            progress.borrow_and_update();
            if status.borrow_and_update().role != DatabaseRole::Primary {
                // The term's promotion is spent: whoever follows this primary may have what its database lost.
                tracing::warn!(%term, "the database of the leader is down: leadership is given up");
                return self.give_up().await;
            }
            let rule = rule::wanted(&core, &local, term);
            if self.in_force.borrow().rule.as_ref() != Some(&rule) {
                self.in_force.send_replace(InForce::default());
                database.set_sync_rule(rule.clone()).await?;
                self.in_force.send_replace(InForce::new(rule.clone()));
            }
            if self.in_force.borrow().held {
                if !self.admitted {
                    database.admit().await?;
                    self.admitted = true;
                    tracing::info!(%term, "clients are let in");
                }
                return Ok(());
            }
            self.tell(waits(&rule, self.admitted));
            let rest = rule::of_the_rest(&core, &local, term);
            let unproven = rest.clone().filter(|_| self.in_force.borrow().rest != rest);
            let changed = async {
                while rule::wanted(&core, &local, term) == rule
                    && rule::of_the_rest(&core, &local, term) == rest
                    && status.borrow_and_update().role == DatabaseRole::Primary
                {
                    tokio::select! {
                        _ = progress.changed() => {}
                        () = seats.changed() => {}
                        _ = status.changed() => {}
                        // A membership that is committed shows a little after its entry is applied.
                        () = tokio::time::sleep(core.config().heartbeat_interval.get()) => {}
                    }
                }
            };
            let held_by_rest = async {
                match unproven {
                    Some(rest) => database.flushed(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                held = database.hold() => {
                    held?;
                    self.in_force.send_modify(|in_force| in_force.held = true);
                }
                held = held_by_rest => {
                    held?;
                    self.in_force.send_modify(|in_force| in_force.rest = rest);
                }
            }
        }
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
        let seat = self.core().seat();
        tracing::warn!(term = %seat.term, leader = ?seat.leader, "the primary is demoted");
        database.demote(self.core.config().fencing_deadline()).await?;
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
                    Ok(()) => {
                        self.keep(|record| record.history = record.history.following(end, history))?;
                        tracing::info!(primary = %primary.node, term = %primary.term, from = %end, "follows");
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
            match database.rewind(primary.clone()).await {
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
        if let Some(target) = handover::best_target(&core, &self.views)
            && handover::transfer(&core, target).await.is_ok()
        {
            return Ok(());
        }
        Ok(handover::give_up_term(&core).await?)
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

/// What a primary waits for whose rule is not known to be met, for people.
fn waits(rule: &SyncRule, admitted: bool) -> Option<String> {
    let names = rule.standbys.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
    let until = if admitted { "commits are acknowledged" } else { "clients are let in" };
    (rule.count > 0).then(|| format!("waits for {} of the nodes {names} to follow before {until}", rule.count))
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
