//! Being the primary of a term: promoting, announcing, keeping the sync rule, letting clients in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Duty, DutyError};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{NodeId, Term};
use crate::primary::local::InForce;
use crate::primary::sync_rule;
use crate::protocol::command::Change;
use crate::protocol::database::{Database, DatabaseRole, DatabaseStatus, SyncRule};

impl Duty {
    /// Is the primary of `term`. A database that cannot be promoted is not tried for ever: others may be fit.
    pub(super) async fn lead(&mut self, term: Term) -> Result<(), DutyError> {
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
        self.core.state_machine().read(|applied| {
            let promoted = applied.state.promoted.as_ref();
            promoted.is_some_and(|promoted| promoted.node == self.core.id() && promoted.term == term)
        })
    }

    fn admitted(&self) -> bool {
        self.local.admitted.load(Ordering::Relaxed)
    }

    /// Promotes, announces, keeps the sync rule, and lets clients in.
    async fn serve_term(&mut self, term: Term) -> Result<(), DutyError> {
        let Some(database) = self.database() else { return Ok(()) };
        let core = self.core().clone();
        let me = core.id();
        let status = database.status().borrow().clone();
        let serves = is_ours(&status);
        if self.is_announced(term) {
            return self.serve(&database, term).await;
        }
        let rule = sync_rule::wanted(&core, &self.local, term);
        let begun = self.record.borrow().history.0.last().copied().filter(|start| start.term == term);
        if serves {
            self.in_force.send_replace(InForce::default());
            database.set_sync_rule(rule.clone()).await?;
        } else {
            let end = match self.fenced.take() {
                Some((fenced, end)) if fenced == term && status.role == DatabaseRole::Standby => end,
                _ => self.fence(&database).await?,
            };
            if self.lossy != Some(term) && self.strays(&database)? {
                return self.give_up().await;
            }
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
        let mut progress = core.state_machine().progress();
        let mut raft_changes = core.raft_status_changes();
        let mut status = database.status();
        loop {
            progress.borrow_and_update();
            if !is_ours(&status.borrow_and_update()) {
                // The term's promotion is spent: whoever follows this primary may have what its database lost.
                tracing::warn!(%term, "the database of the leader is down: leadership is given up");
                return self.give_up().await;
            }
            let rule = sync_rule::wanted(&core, &local, term);
            let kept = sabotage::is(Sabotage::KeepOldRule) && self.in_force.borrow().rule.is_some();
            if self.in_force.borrow().rule.as_ref() != Some(&rule) && !kept {
                self.in_force.send_replace(InForce::default());
                database.set_sync_rule(rule.clone()).await?;
                self.in_force.send_replace(InForce::new(rule.clone()));
            }
            let held = self.in_force.borrow().held;
            if (held || sabotage::is(Sabotage::AdmitBeforeHeld)) && !self.admitted() {
                database.admit().await?;
                self.local.admitted.store(true, Ordering::Relaxed);
                tracing::info!(%term, "clients are let in");
            }
            if held {
                return Ok(());
            }
            self.tell(waits(&rule, self.admitted()));
            let rest = sync_rule::of_the_rest(&core, &local, term);
            let unproven = rest.clone().filter(|_| self.in_force.borrow().rest != rest);
            let changed = async {
                while sync_rule::wanted(&core, &local, term) == rule
                    && sync_rule::of_the_rest(&core, &local, term) == rest
                    && is_ours(&status.borrow_and_update())
                {
                    tokio::select! {
                        _ = progress.changed() => {}
                        () = raft_changes.changed() => {}
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
}

/// Whether a database is a primary, and was told to be one.
pub(super) fn is_ours(status: &DatabaseStatus) -> bool {
    status.role == DatabaseRole::Primary && !status.strayed
}

/// What a primary waits for whose rule is not known to be met, for people.
fn waits(rule: &SyncRule, admitted: bool) -> Option<String> {
    let names = rule.standbys.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
    let until = if admitted { "commits are acknowledged" } else { "clients are let in" };
    (rule.count > 0).then(|| format!("waits for {} of the nodes {names} to follow before {until}", rule.count))
}
