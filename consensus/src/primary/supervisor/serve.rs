//! Being the primary of a term: promoting, announcing, keeping the sync rule, letting clients in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Supervisor, SupervisorError};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{NodeId, Term};
use crate::primary::sync_rule;
use crate::protocol::command::Change;
use crate::protocol::database::{Database, DatabaseRole, DatabaseStatus, SyncRule};
use crate::protocol::promotion::{AfterFailure, Promotion, after_failure, is_spent, promotion};
use crate::protocol::sync_rule::{InForce, Rules};

impl Supervisor {
    /// Is the primary of `term`. A database that cannot be promoted is not tried for ever: others may be fit.
    pub(super) async fn lead(&mut self, term: Term) -> Result<(), SupervisorError> {
        let result = self.serve_term(term).await;
        if result.is_ok() {
            self.failed = None;
            return result;
        }
        let announced = self.is_announced(term);
        match after_failure(announced, self.failed == Some(term)) {
            AfterFailure::TryAgain if announced => {}
            AfterFailure::TryAgain => self.failed = Some(term),
            AfterFailure::GiveUp => {
                tracing::warn!(%term, "the database could not be promoted twice: leadership is given up");
                self.failed = None;
                self.give_up().await?;
            }
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
    async fn serve_term(&mut self, term: Term) -> Result<(), SupervisorError> {
        let Some(database) = self.database() else { return Ok(()) };
        let status = database.status().borrow().clone();
        let way = promotion(term, self.is_announced(term), is_ours(&status), &self.record.borrow().history);
        if way == Promotion::Serve {
            return self.serve(&database, term).await;
        }
        let rule = sync_rule::rules(&self.core, &self.local, term).wanted;
        if way == Promotion::Promote {
            let end = self.fenced_for(term, &database, status.role).await?;
            if self.lossy != Some(term) && self.note_stray(&database)? {
                return self.give_up().await;
            }
            if is_spent(term, &self.record.borrow().history, end) {
                tracing::warn!(%term, "the database was promoted in this term and went down: leadership is given up");
                return self.give_up().await;
            }
            self.keep(|record| record.history = record.history.before(term).promoted(term, end))?;
        } else {
            self.in_force.send_replace(InForce::default());
            database.set_sync_rule(rule.clone()).await?;
        }
        let timeline = if way == Promotion::GoOn {
            let untold = || SupervisorError::Refused("the primary does not report its timeline".into());
            status.timeline.ok_or_else(untold)?
        } else {
            self.local.may_serve.store(true, Ordering::Relaxed);
            let promotion = database.promote(rule.clone()).await?;
            self.keep(|record| record.history = record.history.before(term).promoted(term, promotion.start))?;
            promotion.timeline
        };
        self.in_force.send_replace(InForce::new(rule));
        let history = self.record.borrow().history.clone();
        let cause = format!("its database was promoted, on timeline {timeline}");
        self.write(Change::Promoted { node: self.core.id(), term, timeline, history }, cause).await
    }

    /// Keeps the sync rule of the announced primary as the voters ask, and lets clients in once the term's first write is
    /// held under it. Before that it is not known which commits of earlier terms will last (Raft paper, figure 8), so no
    /// client may see them.
    async fn serve(&mut self, database: &Arc<dyn Database>, term: Term) -> Result<(), SupervisorError> {
        let (core, local) = (self.core.clone(), self.local.clone());
        let mut progress = core.state_machine().progress();
        let mut raft_changes = core.raft_status_changes();
        let mut status = database.status();
        loop {
            progress.borrow_and_update();
            if !is_ours(&status.borrow_and_update()) {
                // The term's promotion is spent: a standby that follows this primary may have what its database lost.
                tracing::warn!(%term, "the database of the leader is down: leadership is given up");
                return self.give_up().await;
            }
            let Rules { wanted: rule, rest, .. } = sync_rule::rules(&core, &local, term);
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
            let unproven = rest.clone().filter(|_| self.in_force.borrow().rest != rest);
            let changed = async {
                let is_same = |now: Rules| (now.wanted, now.rest) == (rule.clone(), rest.clone());
                while is_same(sync_rule::rules(&core, &local, term)) && is_ours(&status.borrow_and_update()) {
                    tokio::select! {
                        _ = progress.changed() => {}
                        () = raft_changes.changed() => {}
                        _ = status.changed() => {}
                        // A committed membership is visible a little after its entry is applied.
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

/// What a primary waits for while its rule is not known to be met, as a text for people; None if it waits for nobody.
fn waits(rule: &SyncRule, admitted: bool) -> Option<String> {
    let names = rule.standbys.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
    let until = if admitted { "commits are acknowledged" } else { "clients are let in" };
    (rule.count > 0).then(|| format!("waits for {} of the nodes {names} to follow before {until}", rule.count))
}
