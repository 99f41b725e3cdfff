//! Taking a term up: recruiting a majority of the voters, and becoming the announced leader.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use super::serve::is_ours;
use super::{STRAYED, Supervisor, SupervisorError, chain};
use crate::env::clock::Instant;
use crate::env::observers::{BOOTSTRAP, FAILOVER, HANDOVER, RESUMED};
use crate::model::{Node, NodeId, Term};
use crate::primary::hand_over;
use crate::primary::recruit::Recruiting;
use crate::protocol::choice::Promise;
use crate::protocol::command::Change;
use crate::protocol::state::{Lead, Promoted};
use crate::protocol::take_lead::{Override, Recruitment, Step, goes_on, next_step, refuses_override};
use crate::raft::core::Core;

/// After how many node time-outs without a leader the cluster's log says why nobody leads.
const TOLD_AFTER_NODE_TIMEOUTS: u32 = 3;

/// Since when an elected node waits to become the announced leader.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    term: Term,
    since: Instant,
    /// Whether the cluster was told why.
    told: bool,
}

/// What is known in one try to take a term up.
struct Try {
    core: Core,
    term: Term,
    voters: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, Node>,
    lead: Option<Lead>,
    promoted: Option<Promoted>,
    promises: BTreeMap<NodeId, Promise>,
    goes_on: bool,
    begun: Instant,
}

impl Try {
    fn new(core: Core, term: Term, serves: bool) -> Self {
        let voters = core.voters();
        let (nodes, lead, promoted) = core.state_machine().read(|applied| {
            let state = &applied.state;
            (state.nodes.clone(), state.lead, state.promoted.clone())
        });
        let (goes_on, begun) = (goes_on(core.id(), serves, lead), core.clock().now());
        Self { core, term, voters, nodes, lead, promoted, promises: BTreeMap::new(), goes_on, begun }
    }

    /// What is known while the own database is being fenced.
    fn while_fencing(&self) -> Recruitment<'_> {
        Recruitment {
            me: self.core.id(),
            voters: &self.voters,
            nodes: &self.nodes,
            lead: self.lead,
            promoted: self.promoted.as_ref(),
            promises: &self.promises,
            goes_on: self.goes_on,
            fencing: true,
            astray: false,
            overridden: false,
            asking: true,
            tried: self.core.clock().now().saturating_sub(self.begun),
            waited: Duration::ZERO,
            voting_timeout: self.core.config().leader_voting_timeout.get(),
        }
    }

    /// Waits for the own promise, and takes those of the others meanwhile. Fails if the own database is not waited for any
    /// longer.
    async fn await_own(
        &mut self,
        own: impl Future<Output = Result<Promise, SupervisorError>>,
        others: &mut Recruiting,
    ) -> Result<Promise, SupervisorError> {
        let mut own = pin!(own);
        loop {
            let Step::AwaitOwn(limit) = next_step(&self.while_fencing()) else {
                return Err(SupervisorError::Refused("its database is still being fenced".into()));
            };
            let over = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                own = &mut own => return own,
                () = over => {}
                Some((node, promise)) = others.next() => drop(self.promises.insert(node, promise)),
            }
        }
    }

    /// Who has promised, for people.
    fn promised(&self) -> String {
        format!("{} of {} voters", self.promises.len(), self.voters[0].len())
    }
}

impl Supervisor {
    /// Takes an operator's word that this node may lead although others may have more.
    pub(super) fn accept_override(&mut self, actor: String) -> Result<(), SupervisorError> {
        let repair = self.record.borrow().repair;
        if let Some(reason) = refuses_override(self.local.status().as_ref(), repair) {
            return Err(SupervisorError::Refused(reason));
        }
        self.keep(|record| record.repair = None)?;
        let lead = self.core.state_machine().read(|applied| applied.state.lead);
        self.overridden = Some(Override::new(actor, self.core.clock().now(), lead));
        Ok(())
    }

    /// The operator whose override counts now, if there is one.
    pub(super) fn overridden_by(&self) -> Option<String> {
        let lead = self.core.state_machine().read(|applied| applied.state.lead);
        self.overridden.as_ref()?.actor(self.core.clock().now(), lead).map(str::to_owned)
    }

    /// Recruits a majority of the voters and becomes the announced leader of `term`, or hands leadership to the node with
    /// the furthest database.
    pub(super) async fn take_lead(&mut self, term: Term) -> Result<(), SupervisorError> {
        let core = self.core.clone();
        let me = core.id();
        let serves = self.local.status().is_some_and(|status| is_ours(&status));
        let mut this = Try::new(core.clone(), term, serves);
        // They are asked while the own database is fenced, until this ends.
        let others = this.voters.iter().flatten().filter(|&&voter| voter != me).collect::<BTreeSet<_>>();
        let others = others.into_iter().filter_map(|voter| this.nodes.get(voter));
        let mut recruiting = Recruiting::begin(&core, others, term);
        if this.goes_on {
            self.keep(|record| record.promise = term)?;
            this.promises.insert(me, Promise { position: self.local.position(), unfit: None });
        } else {
            match this.await_own(self.promise(term), &mut recruiting).await {
                Ok(promise) => drop(this.promises.insert(me, promise)),
                Err(error) => recruiting.refused(me, chain(&error)),
            }
        }
        loop {
            let step = next_step(&self.known(&this, &recruiting));
            let reason = match step {
                Step::Lead => return self.announce(&this).await,
                Step::HandOver(node) => {
                    tracing::info!(%node, %term, "leadership goes to the node with the furthest database");
                    return Ok(hand_over::transfer(&core, node).await?);
                }
                Step::RefuseStrayed => return Err(SupervisorError::Refused(STRAYED.into())),
                Step::AwaitOwn(_) | Step::AwaitMajority | Step::TryAgain => {
                    let why = recruiting.why();
                    let reason = format!("elected in term {term}, with the promises of {}: {why}", this.promised());
                    self.tell_nobody_leads(term, reason.clone()).await?;
                    if step == Step::TryAgain {
                        return Err(SupervisorError::Refused(reason));
                    }
                    let heartbeat = core.config().heartbeat_interval.get();
                    match tokio::time::timeout(heartbeat, recruiting.next()).await {
                        Ok(Some((node, promise))) => drop(this.promises.insert(node, promise)),
                        Ok(None) => tokio::time::sleep(heartbeat).await,
                        Err(_) => {}
                    }
                    continue;
                }
                Step::AwaitFit(limit) => {
                    self.begin_to_wait(term);
                    if let Ok(Some((node, promise))) = tokio::time::timeout(limit, recruiting.next()).await {
                        this.promises.insert(node, promise);
                    }
                    continue;
                }
                Step::LeadWithLoss => None,
                Step::NobodyFit(node, reason) => Some(format!(
                    "elected in term {term}; node {node} has the furthest database, which is not fit: {reason}"
                )),
                Step::NobodyMayLead => Some(format!(
                    "elected in term {term}; none of the voters that answer may lead: {}",
                    recruiting.why()
                )),
            };
            // A promise that came just now may change that.
            if let Some((node, promise)) = recruiting.next_now() {
                this.promises.insert(node, promise);
                continue;
            }
            let Some(reason) = reason else {
                match self.overridden_by() {
                    Some(actor) => return self.announce_with_loss(&this, actor).await,
                    None => continue,
                }
            };
            self.tell_nobody_leads(term, reason.clone()).await?;
            return Err(SupervisorError::Refused(reason));
        }
    }

    /// What is known once the own database has promised, or refused.
    fn known<'a>(&self, this: &'a Try, recruiting: &Recruiting) -> Recruitment<'a> {
        Recruitment {
            fencing: false,
            astray: self.database().is_some_and(|database| self.is_astray(&database)),
            overridden: self.overridden_by().is_some(),
            asking: recruiting.is_asking(),
            waited: self.waited(this.term),
            ..this.while_fencing()
        }
    }

    /// Becomes the announced leader.
    async fn announce(&mut self, this: &Try) -> Result<(), SupervisorError> {
        let Try { term, lead: last, .. } = *this;
        let (kind, why) = self.why_it_leads(last);
        let cause = format!("elected in term {term}, by {}: {why}", this.promised());
        self.write(Change::Lead { node: self.core.id(), term, lossy: false }, cause).await?;
        self.core.observers().leaderships.led(kind);
        self.overridden = None;
        Ok(())
    }

    /// Becomes the announced leader although others may have acknowledged commits that this node lacks: `actor` has
    /// accepted that.
    async fn announce_with_loss(&mut self, this: &Try, actor: String) -> Result<(), SupervisorError> {
        let term = this.term;
        let cause = format!(
            "acknowledged commits may be lost by this, which {actor} has accepted: elected in term {term}, with the \
             promises of {}",
            this.promised()
        );
        tracing::warn!(cause, "leads");
        let last = self.core.state_machine().read(|applied| applied.state.lead);
        // It leads so even if it does not learn that the write was applied.
        self.lossy = Some(term);
        self.write(Change::Lead { node: self.core.id(), term, lossy: true }, cause).await?;
        self.core.observers().leaderships.led(self.why_it_leads(last).0);
        self.overridden = None;
        Ok(())
    }

    /// Why this node was elected after `last` had led: as a key for metrics, and as a text for people.
    fn why_it_leads(&self, last: Option<Lead>) -> (&'static str, String) {
        match last {
            None => (BOOTSTRAP, "it is the first to lead".into()),
            Some(last) if last.node == self.core.id() => (RESUMED, "it led before".into()),
            Some(last) if self.core.was_handed_over(last.term) => (HANDOVER, format!("node {} handed over", last.node)),
            Some(last) => (FAILOVER, format!("node {} was not heard any more", last.node)),
        }
    }

    /// How long this node has waited to take the lead of `term`.
    fn waited(&self, term: Term) -> Duration {
        let waits = self.waits.filter(|waits| waits.term == term);
        waits.map_or(Duration::ZERO, |waits| self.core.clock().now().saturating_sub(waits.since))
    }

    fn begin_to_wait(&mut self, term: Term) {
        if self.waits.is_none_or(|waits| waits.term != term) {
            self.waits = Some(Waits { term, since: self.core.clock().now(), told: false });
        }
    }

    /// Tells people why nobody leads; after a while the cluster, too, once a term.
    async fn tell_nobody_leads(&mut self, term: Term, reason: String) -> Result<(), SupervisorError> {
        self.begin_to_wait(term);
        let late = self.waited(term) >= TOLD_AFTER_NODE_TIMEOUTS * self.core.config().node_timeout.get();
        self.tell(Some(reason.clone()));
        if late && let Some(waits) = self.waits.as_mut().filter(|waits| !waits.told) {
            waits.told = true;
            self.write(Change::NobodyLeads { node: self.core.id() }, reason).await?;
        }
        Ok(())
    }
}
