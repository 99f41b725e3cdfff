//! What the database of this node has to do, and doing it: the loop that takes a term up, promotes, follows, demotes.
//!
//! The decision is a pure function of what is known ([`plan`](crate::plan::plan)). The loop performs the planned duty step by step; every
//! step may be repeated. It drops what it is doing when the plan changes, and when another node recruits, since that
//! concerns the same database: nothing else directs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::command::{Change, Outcome};
use crate::database::{Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, SyncRule};
use crate::durability::sync_rule;
use crate::handover;
use crate::machine::Progress;
use crate::model::{Lsn, Node, NodeId, NodeRole, Term, WalHistory, WalPosition};
use crate::plan::{View, Wanted, plan};
use crate::propose::{ProposeError, Reason, propose};
use crate::raft::{Core, RaftError, Seats};
use crate::recruit::{Choice, choose, is_majority};
use crate::store::{Duty as Record, Repair, StoreError};
use crate::transport::{PeerRequest, PeerResponse};
use crate::views::Views;

/// After a step failed, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// A primary that hands over has so long to stop: its sessions end, and its standbys get the rest of its WAL.
const STOP: Duration = Duration::from_secs(20);
/// A leader without a lease looks for one so often.
const LEASE: Duration = Duration::from_millis(5);

/// What others want of the database, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Order {
    /// The leader-to-be of a term wants a promise.
    Promise(Term, oneshot::Sender<PeerResponse>),
    /// This leader is to hand over to a node; the answer is why it could not, if so.
    HandOver(NodeId, oneshot::Sender<Result<(), String>>),
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
}

impl Local {
    pub(crate) fn status(&self) -> Option<DatabaseStatus> {
        self.database.as_ref().map(|database| database.status().borrow().clone())
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
            return Some(format!("its database needs a {repair:?}"));
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

/// The loop and what it needs.
pub(crate) struct Duty {
    core: Core,
    local: Local,
    /// Taken by the loop.
    inputs: Option<Inputs>,
    record: watch::Sender<Record>,
    views: Views,
    /// The sync rule that is in force.
    rule: Option<SyncRule>,
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
        note: watch::Sender<Option<String>>,
    ) -> Result<Self, StoreError> {
        let record = watch::Sender::new(core.store().duty()?);
        let local = Local { database, record: record.subscribe(), may_serve: Arc::default() };
        let status = local.database.as_ref().map(|database| database.status());
        let (progress, seats) = (core.machine().progress(), core.seats());
        let inputs =
            Inputs { core: core.clone(), local: local.clone(), removed, progress, seats, status, changed: true };
        Ok(Self { core, local, inputs: Some(inputs), record, views, rule: None, fenced: None, failed: None, note })
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
            self.note.send_if_modified(|known| {
                *known != note && {
                    *known = note;
                    true
                }
            });
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
                    Ok(position) => PeerResponse::Promise(position),
                    Err(error) => PeerResponse::Failed(chain(&error)),
                };
                let _ = answer.send(promise);
            }
            Order::HandOver(target, answer) => {
                let _ = answer.send(self.hand_over(target).await.map_err(|error| chain(&error)));
            }
        }
    }

    /// Hands leadership to `target`. A primary is stopped in good order first, so that its standbys have all of its WAL
    /// and none of them is behind it; where the target cannot take over, this node is led again by the usual way.
    async fn hand_over(&mut self, target: NodeId) -> Result<(), DutyError> {
        if let Some(database) = self.database()
            && database.status().borrow().role == DatabaseRole::Primary
        {
            self.rule = None;
            // Until it has stopped it serves, and may do so only under the lease.
            tokio::select! {
                stopped = database.stop() => stopped.map(drop)?,
                () = self.lease_is_over() => return Err(DutyError::Refused("the lease was about to end".into())),
                () = tokio::time::sleep(STOP) => {
                    return Err(DutyError::Refused(format!("the database did not stop within {STOP:?}")));
                }
            }
        }
        Ok(handover::transfer(&self.core, target).await?)
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
    async fn promise(&mut self, term: Term) -> Result<Option<WalPosition>, DutyError> {
        let newest = self.core().seat().term;
        if term < newest {
            return Err(DutyError::Refused(format!("term {term} is over: the newest is {newest}")));
        }
        if let Some(reason) = self.local.refuses(term) {
            return Err(DutyError::Refused(reason));
        }
        let Some(database) = self.database() else { return Ok(None) };
        // A primary is stopped before anything else: a disk that hangs must not hold that up.
        let lsn = self.fence(&database).await?;
        self.keep(|record| record.promise = term)?;
        self.fenced = Some((term, lsn));
        Ok(Some(self.record.borrow().history.position(lsn)))
    }

    /// Makes the database a standby that follows nobody, and tells where its WAL ends.
    async fn fence(&mut self, database: &Arc<dyn Database>) -> Result<Lsn, DutyError> {
        self.rule = None;
        self.fenced = None;
        let fenced = tokio::time::timeout(STOP, database.fence(self.core.config().fencing_deadline())).await;
        let lsn = fenced.map_err(|_| DutyError::Refused(format!("the database was not fenced within {STOP:?}")))??;
        self.local.may_serve.store(false, Ordering::Relaxed);
        Ok(lsn)
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
        let others: BTreeSet<_> = voters.iter().flatten().filter(|&&voter| voter != me).collect();
        let mut asked: JoinSet<_> = others
            .into_iter()
            .filter_map(|voter| nodes.get(voter))
            .map(|node| recruit(core.clone(), node.clone(), term))
            .collect();
        // A primary that is elected again, nobody else having led in between, goes on serving.
        let serves = self.local.status().is_some_and(|status| status.role == DatabaseRole::Primary);
        let goes_on = serves && last_lead.is_none_or(|lead| lead.node == me);
        if goes_on {
            self.keep(|record| record.promise = term)?;
            promises.insert(me, self.local.position());
        } else {
            match self.promise(term).await {
                Ok(position) => drop(promises.insert(me, position)),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "this node was elected and cannot lead itself");
                    self.note.send_replace(Some(error));
                }
            }
        }
        while !is_majority(&voters, |voter| promises.contains_key(&voter)) {
            match asked.join_next().await {
                Some(Ok((node, position))) => drop(promises.insert(node, position)),
                Some(Err(error)) => tracing::error!(%error, "recruiting a voter ended"),
                None => return Err(DutyError::Refused("no majority of the voters can be asked".into())),
            }
        }
        let may_lead = |node: NodeId| nodes.get(&node).is_some_and(|node| node.votes() && node.role == NodeRole::Voter);
        match choose(me, &promises, may_lead) {
            // Whoever goes on serving has all WAL that its standbys have, though its last look at it is older.
            choice if goes_on || choice == Choice::Me => {
                let cause = format!("elected in term {term}, by {} of {} voters", promises.len(), voters[0].len());
                self.write(Change::Lead { node: me, term }, cause).await
            }
            Choice::Other(node) => {
                tracing::info!(%node, %term, "leadership goes to the node with the furthest database");
                Ok(handover::transfer(&core, node).await?)
            }
            Choice::Me | Choice::Nobody => Err(DutyError::Refused("none of the voters that answer may lead".into())),
        }
    }

    /// Is the primary of `term`. A database that cannot be promoted is not tried for ever: others may be fit.
    async fn lead(&mut self, term: Term) -> Result<(), DutyError> {
        let result = self.serve_term(term).await;
        match &result {
            Ok(()) => self.failed = None,
            Err(_) if self.failed == Some(term) => {
                tracing::warn!(%term, "the database could not be promoted twice: leadership is given up");
                self.failed = None;
                self.give_up().await?;
            }
            Err(_) => self.failed = Some(term),
        }
        result
    }

    /// Promotes, announces, and keeps the sync rule.
    async fn serve_term(&mut self, term: Term) -> Result<(), DutyError> {
        let Some(database) = self.database() else { return Ok(()) };
        let core = self.core().clone();
        let me = core.id();
        let status = database.status().borrow().clone();
        let serves = status.role == DatabaseRole::Primary;
        let (rule, announced) = core.machine().read(|applied| {
            let state = &applied.state;
            let announced =
                state.promoted.as_ref().is_some_and(|promoted| promoted.node == me && promoted.term == term);
            // Voters of Raft that are to be none any more still count: the rule is lowered after the membership.
            let voting = core.voters().into_iter().flatten().collect::<BTreeSet<_>>();
            let voters = state.nodes.values().filter(|node| node.votes() || voting.contains(&node.id));
            (sync_rule(&state.config, voters, me, term), announced)
        });
        if announced {
            if !serves {
                // The term's promotion is spent: whoever follows this primary may have what this database lost.
                tracing::warn!(%term, "the database of the leader is down: leadership is given up");
                return self.give_up().await;
            }
            if self.rule.as_ref() != Some(&rule) {
                database.set_sync_rule(rule.clone()).await?;
                self.rule = Some(rule);
            }
            return Ok(());
        }
        let begun = self.record.borrow().history.0.last().copied().filter(|start| start.term == term);
        if serves {
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
        self.rule = Some(rule);
        let history = self.record.borrow().history.clone();
        let cause = format!("its database was promoted, on timeline {timeline}");
        self.write(Change::Promoted { node: me, term, timeline, history }, cause).await
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
        let repair = self.record.borrow().repair;
        if repair.is_none() && status.follows == Some((primary.node, primary.term)) {
            return Ok(());
        }
        self.fenced = None;
        let repair = match repair {
            Some(repair) => repair,
            None => {
                let end = self.fence(&database).await?;
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
        if repair == Repair::Rewind
            && let Err(error) = database.rewind(primary.clone()).await
        {
            tracing::warn!(error = chain(&error), "the rewind failed: clones anew");
            self.keep(|record| record.repair = Some(Repair::Clone))?;
        } else if repair == Repair::Rewind {
            return self.rebuilt(history);
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

/// Asks a voter for its promise until it gives one.
async fn recruit(core: Core, node: Node, term: Term) -> (NodeId, Option<WalPosition>) {
    loop {
        let config = core.config();
        // A primary has to be stopped first, and comes up as a standby.
        let patience = config.node_timeout.get().max(Duration::from_secs(5));
        let request = PeerRequest::Recruit { term };
        match core.transport().call(node.id, node.api_address(), request, patience).await {
            Ok(PeerResponse::Promise(position)) => return (node.id, position),
            Ok(PeerResponse::Failed(reason)) => tracing::debug!(node = %node.id, reason, "does not promise"),
            Ok(other) => tracing::warn!(node = %node.id, ?other, "an answer that does not fit the question"),
            Err(error) => tracing::debug!(%error, "cannot be recruited"),
        }
        tokio::time::sleep(config.heartbeat_interval.get()).await;
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
