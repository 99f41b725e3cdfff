//! Taking a term up: recruiting a majority of the voters, and becoming the announced leader.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use super::serve::is_ours;
use super::{Duty, DutyError, RETRY, STRAYED, chain};
use crate::env::clock::Instant;
use crate::env::observers::{BOOTSTRAP, FAILOVER, HANDOVER, RESUMED};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{NodeId, Term};
use crate::primary::hand_over;
use crate::primary::recruit::Recruiting;
use crate::protocol::choice::Promise;
use crate::protocol::choice::{Choice, choose, is_majority, is_whole, may_lead};
use crate::protocol::command::Change;
use crate::protocol::database::DatabaseRole;
use crate::protocol::state::Lead;
use crate::raft::store::Repair;

/// A voter whose database has to be stopped and started before it promises takes so long.
const FENCED: Duration = Duration::from_secs(5);
/// An operator's word that commits may be lost counts for so long: by then the node is elected, or cannot be.
const WORD: Duration = Duration::from_secs(30);
/// After so many node time-outs without a leader the cluster is told why.
const PATIENCE: u32 = 3;

/// An operator's word that this node may lead although others may have more.
#[derive(Clone)]
pub(super) struct Accepted {
    actor: String,
    until: Instant,
    /// Who had led last: once another does, there is nothing to accept any more.
    lead: Option<Lead>,
}

/// An elected node that is not the announced leader yet.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    term: Term,
    since: Instant,
    /// Whether the cluster was told why.
    told: bool,
}

impl Duty {
    /// Takes an operator's word that this node may lead although others may have more. A rewind that was not begun is
    /// not needed any more: what the database has is what counts.
    pub(super) fn accept_loss(&mut self, actor: String) -> Result<(), DutyError> {
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
        let lead = self.core.state_machine().read(|applied| applied.state.lead);
        self.accepted = Some(Accepted { actor, until: self.core.clock().now() + WORD, lead });
        Ok(())
    }

    /// Recruits a majority of the voters and becomes the announced leader of `term`, or hands leadership to the node
    /// with the furthest database.
    pub(super) async fn take_lead(&mut self, term: Term) -> Result<(), DutyError> {
        let core = self.core().clone();
        let me = core.id();
        let voters = core.voters();
        let nodes = core.state_machine().read(|applied| applied.state.nodes.clone());
        let (last_lead, last_promoted) =
            core.state_machine().read(|applied| (applied.state.lead, applied.state.promoted.clone()));
        let begun = core.clock().now();
        let mut promises = BTreeMap::new();

        // Asked while the own database is fenced; whoever is still being asked when this ends is asked no more.
        let others = voters.iter().flatten().filter(|&&voter| voter != me).collect::<BTreeSet<_>>();
        let mut recruiting = Recruiting::begin(&core, others.into_iter().filter_map(|voter| nodes.get(voter)), term);
        // A primary that is elected again, nobody else having led in between, goes on serving.
        let serves = self.local.status().is_some_and(|status| is_ours(&status));
        let mine = last_lead.is_none_or(|lead| lead.node == me) || sabotage::is(Sabotage::ResumeAfterAnother);
        let goes_on = serves && mine;
        if goes_on {
            self.keep(|record| record.promise = term)?;
            promises.insert(me, Promise { position: self.local.position(), unfit: None });
        }
        let may_lead = |node: NodeId| nodes.get(&node).is_some_and(may_lead);
        let is_enough = |promises: &BTreeMap<NodeId, Promise>| {
            is_majority(&voters, |voter| promises.contains_key(&voter))
                || is_whole(last_lead, last_promoted.as_ref(), promises, may_lead)
        };
        let another_can = |promises: &BTreeMap<NodeId, Promise>| {
            is_enough(promises) && matches!(choose(me, promises, may_lead), Choice::Other(_))
        };
        if !goes_on {
            let mut own = pin!(self.promise(term));
            let own = loop {
                let left = RETRY.saturating_sub(core.clock().now().saturating_sub(begun));
                tokio::select! {
                    biased;
                    own = &mut own => break own,
                    // A database that hangs is not waited for where another can lead.
                    () = tokio::time::sleep(left), if another_can(&promises) => {
                        break Err(DutyError::Refused("its database is still being fenced".into()));
                    }
                    Some((node, promise)) = recruiting.next() => drop(promises.insert(node, promise)),
                }
            };
            match own {
                Ok(promise) => drop(promises.insert(me, promise)),
                Err(error) => recruiting.refused(me, chain(&error)),
            }
        }
        while !is_enough(&promises) {
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
            if !promises.contains_key(&me) && core.clock().now().saturating_sub(begun) >= RETRY {
                // The own database may be fit by now. Each try waits as long for the others: they may be enough.
                return Err(DutyError::Refused(reason));
            }
            let heartbeat = core.config().heartbeat_interval.get();
            match tokio::time::timeout(heartbeat, recruiting.next()).await {
                Ok(Some((node, promise))) => drop(promises.insert(node, promise)),
                Ok(None) => tokio::time::sleep(heartbeat).await,
                Err(_) => {}
            }
        }
        // One that may not be chosen must not count as whole.
        let may_lead = |node: NodeId| {
            let left_out =
                sabotage::is(Sabotage::WholeWithoutChoice) && last_lead.is_some_and(|lead| lead.node == node);
            may_lead(node) && !left_out
        };
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
            // What it wrote when somebody else had promoted it is in its position.
            let astray = !goes_on && self.database().is_some_and(|database| self.is_astray(&database));
            if astray {
                let Some(actor) = self.loss_is_accepted() else {
                    return Err(DutyError::Refused(STRAYED.into()));
                };
                return self.lead_with_loss(term, actor, promises.len(), voters[0].len()).await;
            }
            let (kind, why) = self.why_it_leads(last_lead);
            let cause = format!("elected in term {term}, by {} of {} voters: {why}", promises.len(), voters[0].len());
            self.write(Change::Lead { node: me, term, lossy: false }, cause).await?;
            core.observers().leaderships.led(kind);
            self.accepted = None;
            return Ok(());
        }
        let reason = match choice {
            Choice::Other(node) => {
                tracing::info!(%node, %term, "leadership goes to the node with the furthest database");
                return Ok(hand_over::transfer(&core, node).await?);
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

    /// Why this node was elected, where `last` had led before: for those who count, and for people.
    fn why_it_leads(&self, last: Option<Lead>) -> (&'static str, String) {
        let core = self.core();
        match last {
            None => (BOOTSTRAP, "it is the first to lead".into()),
            Some(last) if last.node == core.id() => (RESUMED, "it led before".into()),
            Some(last) if core.was_handed_over(last.term) => (HANDOVER, format!("node {} handed over", last.node)),
            Some(last) => (FAILOVER, format!("node {} was not heard any more", last.node)),
        }
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
    pub(super) fn loss_is_accepted(&self) -> Option<String> {
        let Accepted { actor, until, lead } = self.accepted.as_ref()?;
        let last = self.core.state_machine().read(|applied| applied.state.lead);
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
        let last = self.core.state_machine().read(|applied| applied.state.lead);
        // Also where the answer to it is lost.
        self.lossy = Some(term);
        self.write(Change::Lead { node: self.core.id(), term, lossy: true }, cause).await?;
        self.core.observers().leaderships.led(self.why_it_leads(last).0);
        self.accepted = None;
        Ok(())
    }
}
