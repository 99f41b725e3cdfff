//! The sync rule: putting another one in force.
//!
//! A commit is acknowledged by whichever walsender finds, by the rule that *it* has loaded, that enough standbys hold
//! it. A new rule is in force once no walsender has another. None tells which one it has, other than by the priority of
//! its own standby, which `ANY` makes 1 for all. So a rule in between goes first, `FIRST` with the same count and
//! standbys, which gives each a priority that it has by no other rule; what a sender then acknowledges is held as the
//! new rule asks, since the first of its standbys are some of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::SyncRule;

use super::error::{Error, Result};
use super::home::lock;
use super::replication::STEP;
use super::session::{self, PATIENCE, Session, cell, within};
use super::settings::{Directions, NOBODY, standby_names, sync_names};
use super::{Postgres, Turn};

/// How long walsenders may take to load a rule: longer than one waits for a standby that is gone (`wal_sender_timeout`).
const LOAD: Duration = Duration::from_secs(10);

/// Priorities are used again beyond this one.
const PRIORITIES: usize = 200;

/// A walsender of one of our standbys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sender {
    /// The name of its standby.
    name: String,
    state: String,
    /// By the rule that it has loaded; shown as 0 while it has no position.
    priority: usize,
    flushed: Option<Lsn>,
}

/// A rule in between.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Between {
    count: usize,
    /// How many priorities come before those of `names`.
    offset: usize,
    names: Vec<String>,
}

impl Between {
    /// One on the way to `rule`, with priorities that no sender may have by another: neither those that are shown nor
    /// those up to `last`, of an earlier one that a sender may be about to load. The freshest standbys come first, so
    /// that commits wait for none that lags.
    fn new(rule: &SyncRule, senders: &[Sender], last: usize) -> Self {
        let mut names = standby_names(rule);
        let flushed = |name: &String| senders.iter().filter(|sender| &sender.name == name).map(|s| s.flushed).max();
        names.sort_by_key(|name| std::cmp::Reverse(flushed(name)));
        let shown = senders.iter().map(|sender| sender.priority).max().unwrap_or_default();
        let last = if last < PRIORITIES { last } else { 0 };
        Self { count: rule.count, offset: shown.max(last).max(1), names }
    }

    /// The value of `synchronous_standby_names`.
    fn text(&self) -> String {
        let nobody = std::iter::repeat_n(NOBODY, self.offset);
        let names: Vec<&str> = nobody.chain(self.names.iter().map(String::as_str)).collect();
        format!("FIRST {} ({})", self.count, names.join(", "))
    }

    /// The last priority that it gives.
    fn last(&self) -> usize {
        self.offset + self.names.len()
    }

    /// Whether a sender has loaded it, or acknowledges nothing before it has.
    fn has(&self, sender: &Sender) -> bool {
        // Before it streams it loads what there is, and a base backup acknowledges nothing.
        if matches!(sender.state.as_str(), "startup" | "backup") {
            return true;
        }
        // Without a position it shows 0 whatever it has loaded. It has one at the first reply.
        let wanted = self.names.iter().position(|name| *name == sender.name).map_or(0, |at| self.offset + at + 1);
        sender.flushed.is_some() && sender.priority == wanted
    }
}

/// Whether a rule that was last written may not be in force for the checkpointer: commits wait for nobody until that
/// has loaded one. A rule in between gives way to the next only after it has.
fn may_be_undefined(before: &str) -> bool {
    before.is_empty() || before.starts_with("FIRST")
}

impl Postgres {
    pub(super) async fn do_set_sync_rule(&self, rule: SyncRule) -> Result<()> {
        let turn = self.turn().await;
        let Directions::Leads(_) = self.home.directions() else {
            return Err(Error::Unfit("it is no primary".into()));
        };
        let session = self.answering().await?;
        if session.report(PATIENCE).await?.in_recovery {
            return Err(Error::Unfit("it is no primary yet".into()));
        }
        self.change_rule(&turn, &session, &rule).await
    }

    /// Puts a rule in force on a primary, unless it is.
    pub(super) async fn change_rule(&self, turn: &Turn, session: &Session, rule: &SyncRule) -> Result<()> {
        let names = sync_names(rule);
        let wanted = self.home.pid().map(|pid| (pid, names.clone()));
        if wanted.is_some() && *lock(&self.in_force) == wanted {
            return Ok(());
        }
        *lock(&self.in_force) = None;
        if names.is_empty() {
            let stamp = self.direct(turn, Directions::Leads(names), None).await?;
            self.loaded(&stamp).await?;
        } else {
            self.go_between(turn, session, rule).await?;
            // Not waited for: who has still the rule in between acknowledges nothing that this one would not.
            self.direct(turn, Directions::Leads(names), None).await?;
        }
        *lock(&self.in_force) = wanted;
        Ok(())
    }

    /// Waits until all senders have loaded a rule that is at least as strict.
    async fn go_between(&self, turn: &Turn, session: &Session, rule: &SyncRule) -> Result<()> {
        let drifted = self.drifted.load(Ordering::SeqCst);
        let undefined = match self.home.directions() {
            Directions::Leads(before) => drifted || may_be_undefined(&before),
            _ => true,
        };
        let between = Between::new(rule, &senders(session).await?, *lock(&self.priorities));
        // Before it is written, so that no other has the same priorities whatever becomes of this.
        *lock(&self.priorities) = between.last();
        let stamp = self.direct(turn, Directions::Leads(between.text()), None).await?;
        // Senders that are not shown yet were signalled as well, or begin with it.
        let client = self.loaded(&stamp).await?;
        if undefined {
            // That commits are to wait at all is said by the checkpointer. It reads its settings before it begins the
            // checkpoint that is asked for now.
            let done = client.batch_execute("CHECKPOINT").await;
            done.map_err(|source| Error::Query { attempted: "checkpoint", source })?;
            self.drifted.store(false, Ordering::SeqCst);
        }
        let begun = Instant::now();
        loop {
            let senders = senders(session).await?;
            if senders.iter().all(|sender| between.has(sender)) {
                return Ok(());
            }
            if begun.elapsed() > LOAD {
                tracing::warn!(?senders, "walsenders do not load the sync rule");
                return Err(Error::Unanswered { attempted: "load the sync rule", within: begun.elapsed() });
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

/// The walsenders of our standbys.
async fn senders(session: &Session) -> Result<Vec<Sender>> {
    let sql = "SELECT application_name, state, sync_priority, flush_lsn::text FROM pg_stat_replication
                WHERE starts_with(application_name, 'qluster_')";
    let rows = within(PATIENCE, "look at its senders", session.client.query(sql, &[])).await?;
    let sender = |row| {
        Ok(Sender {
            name: cell(row, 0)?,
            state: cell::<Option<String>>(row, 1)?.unwrap_or_default(),
            priority: cell::<Option<i32>>(row, 2)?.and_then(|priority| priority.try_into().ok()).unwrap_or_default(),
            flushed: session::lsn(row, 3)?,
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
    fn a_rule_in_between_puts_the_freshest_first_and_uses_priorities_that_nobody_has() {
        let senders = |priority| {
            [sender("qluster_2_7", "streaming", 1, Some(5)), sender("qluster_3_7", "streaming", priority, Some(9))]
        };
        for (priority, last, expected) in [
            (1, 0, "FIRST 2 (qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
            (2, 0, "FIRST 2 (qluster_nobody, qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
            (1, 3, "FIRST 2 (qluster_nobody, qluster_nobody, qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
            (1, PRIORITIES, "FIRST 2 (qluster_nobody, qluster_3_7, qluster_2_7, qluster_4_7)"),
        ] {
            let between = Between::new(&rule(&[2, 3, 4], 2), &senders(priority), last);
            assert_eq!(between.text(), expected, "{priority} {last}");
            assert_eq!(between.last(), between.offset + 3);
        }
        assert_eq!(Between::new(&rule(&[], 1), &[], 0).text(), "FIRST 1 (qluster_nobody)");
    }

    #[test]
    fn a_sender_has_the_rule_in_between_once_its_priority_says_so() {
        let between = Between { count: 1, offset: 3, names: vec!["qluster_2_7".into(), "qluster_3_7".into()] };
        for (sender, expected) in [
            (sender("qluster_2_7", "streaming", 4, Some(1)), true),
            (sender("qluster_3_7", "catchup", 5, Some(1)), true),
            (sender("qluster_2_7", "streaming", 1, Some(1)), false),
            (sender("qluster_2_7", "catchup", 1, Some(1)), false),
            (sender("qluster_2_7", "stopping", 5, Some(1)), false),
            (sender("qluster_2_7", "streaming", 0, None), false),
            // Who is not named counts no more, which is shown once it has a position.
            (sender("qluster_4_7", "streaming", 0, Some(1)), true),
            (sender("qluster_4_7", "streaming", 1, Some(1)), false),
            (sender("qluster_4_7", "streaming", 0, None), false),
            (sender("qluster_2_7", "startup", 0, None), true),
            (sender("qluster_2_7", "backup", 0, None), true),
        ] {
            assert_eq!(between.has(&sender), expected, "{sender:?}");
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
