//! The sync rule: putting another rule in force (PostgreSQL's documentation, `synchronous_standby_names`).
//!
//! A walsender acknowledges a commit when, by the rule that *it* has loaded, enough standbys hold the commit. So a new rule
//! is in force when no walsender has another one. A walsender does not show which rule it has. It only shows the priority of
//! its own standby, and with `ANY` all priorities are 1. So an *intermediate rule* goes first: `FIRST` with the same count
//! and standbys. It gives each standby a priority that it has under no other rule. What a walsender acknowledges under the
//! intermediate rule is held as the new rule asks, since the first of its standbys are some of the new rule's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::SyncRule;

use super::CHECK_PERIOD;
use crate::database::error::{Error, Result};
use crate::database::sessions::client::{QUERY_TIMEOUT, cell, lsn, within};
use crate::database::sessions::report::Session;
use crate::database::{Postgres, Turn};
use crate::formats::directions::Directions;
use crate::formats::sync_names::{NOBODY, standby_names, sync_names};
use crate::os::lock::lock;

/// How long walsenders may take to load a rule. It is longer than a walsender waits for a standby that is gone
/// (`wal_sender_timeout`).
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// After this priority, the low ones are used again.
const MAX_PRIORITY: usize = 200;

/// What is known about the rule that is in force.
#[derive(Default)]
pub(crate) struct SyncRuleState {
    /// The postmaster, and the rule that is in force on it. None if that is not known.
    in_force: Mutex<Option<(i32, String)>>,
    /// Whether another rule than qluster's was in force, so that commits may have waited for nobody.
    drifted: AtomicBool,
    /// The last priority in the last intermediate rule.
    last_priority: Mutex<usize>,
}

impl SyncRuleState {
    /// Notes that the rule in force is not known.
    pub(crate) fn forget(&self) {
        *lock(&self.in_force) = None;
    }

    /// Notes that this rule is in force on this postmaster.
    pub(crate) fn set_in_force(&self, pid: Option<i32>, names: String) {
        *lock(&self.in_force) = pid.map(|pid| (pid, names));
    }

    fn is_in_force(&self, pid: Option<i32>, names: &str) -> bool {
        let in_force = lock(&self.in_force);
        in_force.as_ref().is_some_and(|(on, rule)| Some(*on) == pid && rule == names)
    }

    /// Notes that somebody changed the rule.
    pub(crate) fn note_drift(&self) {
        self.forget();
        self.drifted.store(true, Ordering::SeqCst);
    }
}

/// A walsender of one of our standbys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sender {
    /// The name of its standby.
    name: String,
    state: String,
    /// By the rule that it has loaded. Shown as 0 while it has no position.
    priority: usize,
    flushed: Option<Lsn>,
}

/// An intermediate rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intermediate {
    count: usize,
    /// How many priorities are before those of `names`.
    offset: usize,
    names: Vec<String>,
}

impl Intermediate {
    /// The intermediate rule before `rule`. Its priorities are ones that no walsender has under another rule: neither those
    /// that are shown, nor those up to `last`, since a walsender may be about to load an earlier intermediate rule. The
    /// standbys that are furthest come first, so that commits do not wait for one that lags.
    fn new(rule: &SyncRule, senders: &[Sender], last: usize) -> Self {
        let mut names = standby_names(rule);
        let flushed = |name: &String| senders.iter().filter(|sender| &sender.name == name).map(|s| s.flushed).max();
        names.sort_by_key(|name| std::cmp::Reverse(flushed(name)));
        let shown = senders.iter().map(|sender| sender.priority).max().unwrap_or_default();
        let last = if last < MAX_PRIORITY { last } else { 0 };
        Self { count: rule.count, offset: shown.max(last).max(1), names }
    }

    /// The value of `synchronous_standby_names`.
    fn text(&self) -> String {
        let nobody = std::iter::repeat_n(NOBODY, self.offset);
        let names: Vec<&str> = nobody.chain(self.names.iter().map(String::as_str)).collect();
        format!("FIRST {} ({})", self.count, names.join(", "))
    }

    /// Its last priority.
    fn last(&self) -> usize {
        self.offset + self.names.len()
    }

    /// Whether a walsender has loaded it, or acknowledges nothing until then.
    fn has(&self, sender: &Sender) -> bool {
        // A walsender loads the settings before it streams, and a base backup acknowledges nothing.
        if matches!(sender.state.as_str(), "startup" | "backup") {
            return true;
        }
        // Without a position it shows 0, whatever it has loaded. It has a position after the first reply.
        let wanted = self.names.iter().position(|name| *name == sender.name).map_or(0, |at| self.offset + at + 1);
        sender.flushed.is_some() && sender.priority == wanted
    }
}

/// Whether the checkpointer may not have loaded the rule that was written last: until it has loaded one, commits wait for
/// nobody. After an intermediate rule, the next one was only written when the checkpointer had loaded it.
fn may_be_undefined(before: &str) -> bool {
    before.is_empty() || before.starts_with("FIRST")
}

impl Postgres {
    pub(crate) async fn do_set_sync_rule(&self, rule: SyncRule) -> Result<()> {
        let turn = self.turn().await;
        let Directions::Leads(_) = self.data_dir.settings.directions() else {
            return Err(Error::Unfit("it is no primary".into()));
        };
        let session = self.answering().await?;
        if session.report(QUERY_TIMEOUT).await?.in_recovery {
            return Err(Error::Unfit("it is no primary yet".into()));
        }
        self.change_rule(&turn, &session, &rule).await
    }

    /// Puts a rule in force on a primary, unless it is in force.
    pub(super) async fn change_rule(&self, turn: &Turn, session: &Session, rule: &SyncRule) -> Result<()> {
        let names = sync_names(rule);
        let pid = self.data_dir.postmaster.pid();
        if self.sync_rule.is_in_force(pid, &names) {
            return Ok(());
        }
        self.sync_rule.forget();
        if names.is_empty() {
            let stamp = self.direct(turn, Directions::Leads(names.clone()), None).await?;
            self.loaded(&stamp).await?;
        } else {
            self.pass_intermediate(turn, session, rule).await?;
            // No need to wait: a walsender with the intermediate rule acknowledges nothing that this rule would not.
            self.direct(turn, Directions::Leads(names.clone()), None).await?;
        }
        self.sync_rule.set_in_force(pid, names);
        Ok(())
    }

    /// Waits until all walsenders have loaded a rule that is at least as strict.
    async fn pass_intermediate(&self, turn: &Turn, session: &Session, rule: &SyncRule) -> Result<()> {
        let drifted = self.sync_rule.drifted.load(Ordering::SeqCst);
        let undefined = match self.data_dir.settings.directions() {
            Directions::Leads(before) => drifted || may_be_undefined(&before),
            _ => true,
        };
        let intermediate = Intermediate::new(rule, &senders(session).await?, *lock(&self.sync_rule.last_priority));
        // Noted before the rule is written: whatever happens, no other rule gets the same priorities.
        *lock(&self.sync_rule.last_priority) = intermediate.last();
        let stamp = self.direct(turn, Directions::Leads(intermediate.text()), None).await?;
        // Walsenders that are not shown yet were signalled, too, or begin with this rule.
        let client = self.loaded(&stamp).await?;
        if undefined {
            // The checkpointer says whether commits wait at all. It reads its settings before it begins this checkpoint.
            let done = client.batch_execute("CHECKPOINT").await;
            done.map_err(|source| Error::Query { attempted: "checkpoint", source })?;
            self.sync_rule.drifted.store(false, Ordering::SeqCst);
        }
        let begun = Instant::now();
        loop {
            let senders = senders(session).await?;
            if senders.iter().all(|sender| intermediate.has(sender)) {
                return Ok(());
            }
            if begun.elapsed() > LOAD_TIMEOUT {
                tracing::warn!(?senders, "walsenders do not load the sync rule");
                return Err(Error::Unanswered { attempted: "load the sync rule", within: begun.elapsed() });
            }
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }
}

/// The walsenders of our standbys.
async fn senders(session: &Session) -> Result<Vec<Sender>> {
    let sql = "SELECT application_name, state, sync_priority, flush_lsn::text FROM pg_stat_replication
                WHERE starts_with(application_name, 'qluster_')";
    let rows = within(QUERY_TIMEOUT, "look at its senders", session.client.query(sql, &[])).await?;
    let sender = |row| {
        Ok(Sender {
            name: cell(row, 0)?,
            state: cell::<Option<String>>(row, 1)?.unwrap_or_default(),
            priority: cell::<Option<i32>>(row, 2)?.and_then(|priority| priority.try_into().ok()).unwrap_or_default(),
            flushed: lsn(row, 3)?,
        })
    };
    rows.iter().map(sender).collect()
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::{NodeId, Term};

    use super::*;

    fn rule(nodes: &[u64], count: usize) -> SyncRule {
        SyncRule { term: Term(7), standbys: nodes.iter().map(|&node| NodeId(node)).collect(), count }
    }

    fn sender(name: &str, state: &str, priority: usize, flushed: Option<u64>) -> Sender {
        Sender { name: name.into(), state: state.into(), priority, flushed: flushed.map(Lsn) }
    }

    #[test]
    fn a_rule_is_in_force_on_one_postmaster_until_somebody_changes_it() {
        let state = SyncRuleState::default();
        assert!(!state.is_in_force(None, "a") && !state.is_in_force(Some(7), "a"));
        state.set_in_force(Some(7), "a".into());
        assert!(state.is_in_force(Some(7), "a"));
        assert!(!state.is_in_force(Some(8), "a") && !state.is_in_force(Some(7), "b") && !state.is_in_force(None, "a"));
        state.note_drift();
        assert!(!state.is_in_force(Some(7), "a"));
    }

    #[test]
    fn an_intermediate_rule_begins_with_the_furthest_and_has_priorities_that_no_other_has() {
        let senders = |priority| {
            [sender("qluster_2_7", "streaming", 1, Some(5)), sender("qluster_3_7", "streaming", priority, Some(9))]
        };
        for (priority, last, expected) in [
            (1, 0, "FIRST 2 (qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
            (2, 0, "FIRST 2 (qluster_nobody, qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
            (1, 3, "FIRST 2 (qluster_nobody, qluster_nobody, qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
            (1, MAX_PRIORITY, "FIRST 2 (qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
        ] {
            let intermediate = Intermediate::new(&rule(&[2, 3, 4], 2), &senders(priority), last);
            assert_eq!(intermediate.text(), expected, "{priority} {last}");
            assert_eq!(intermediate.last(), intermediate.offset + 3);
        }
        assert_eq!(Intermediate::new(&rule(&[], 1), &[], 0).text(), "FIRST 1 (qluster_nobody)");
    }

    #[test]
    fn a_sender_has_the_intermediate_rule_when_its_priority_says_so() {
        let intermediate =
            Intermediate { count: 1, offset: 3, names: vec!["qluster_2_7".into(), "qluster_3_7".into()] };
        for (sender, expected) in [
            (sender("qluster_2_7", "streaming", 4, Some(1)), true),
            (sender("qluster_3_7", "catchup", 5, Some(1)), true),
            (sender("qluster_2_7", "streaming", 1, Some(1)), false),
            (sender("qluster_2_7", "catchup", 1, Some(1)), false),
            (sender("qluster_2_7", "stopping", 5, Some(1)), false),
            (sender("qluster_2_7", "streaming", 0, None), false),
            // A standby that is not named does not count any more. That shows when it has a position.
            (sender("qluster_4_7", "streaming", 0, Some(1)), true),
            (sender("qluster_4_7", "streaming", 1, Some(1)), false),
            (sender("qluster_4_7", "streaming", 0, None), false),
            (sender("qluster_2_7", "startup", 0, None), true),
            (sender("qluster_2_7", "backup", 0, None), true),
        ] {
            assert_eq!(intermediate.has(&sender), expected, "{sender:?}");
        }
    }

    #[test]
    fn the_checkpointer_is_waited_for_unless_a_whole_rule_was_in_force() {
        for (before, expected) in
            [("", true), ("FIRST 1 (qluster_nobody, qluster_2_7)", true), ("ANY 1 (qluster_2_7)", false)]
        {
            assert_eq!(may_be_undefined(before), expected, "{before}");
        }
    }
}
