//! What a node tells of its cluster.

use std::time::Duration;

use super::{Cluster, ClusterError, report};
use crate::model::{
    ClusterInfo, ClusterLog, ClusterMap, ClusterStatus, Config, Event, LogIndex, ReadonlyStatements, Term,
};
use crate::node::tasks::own_report;
use crate::protocol::command::Change;
use crate::protocol::readonly::{Readonly, ReadonlyChange};
use crate::protocol::state::State;
use crate::raft::propose::Reason;
use crate::raft::transport::NodeReport;
use crate::raft::views::validity;
use crate::raft::wire::LogEntry;

/// How many log entries [`Cluster::info`] tells at most: the newest.
const LOG_ENTRIES_TOLD: u64 = 1000;

impl Cluster {
    /// The map as this node knows it.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Precondition`] or [`ClusterError::Unavailable`] if this node is no member, or its consensus does not
    /// run. So do the other questions fail here.
    pub fn map(&self) -> Result<ClusterMap, ClusterError> {
        self.check_member()?;
        let leader = self.known_leader().map(|leader| leader.id);
        let reason = leader.is_none().then(|| self.why_no_leader());
        let term = self.0.core.raft_status().term;
        Ok(self.read(|state| ClusterMap {
            leader,
            reason,
            nodes: state.nodes.clone(),
            config: state.config.clone(),
            term,
            index: state.map_index,
        }))
    }

    /// The map once it is newer than `after`, or when `wait` is over.
    ///
    /// # Errors
    ///
    /// As [`Cluster::map`].
    pub async fn map_after(&self, after: LogIndex, wait: Duration) -> Result<ClusterMap, ClusterError> {
        self.wait_for(wait, |state| state.map_index > after).await?;
        self.map()
    }

    /// The settings.
    ///
    /// # Errors
    ///
    /// As [`Cluster::map`].
    pub fn config(&self) -> Result<Config, ClusterError> {
        self.check_member()?;
        Ok(self.0.core.config())
    }

    /// What a node that was added needs to start: the settings, and the newest entries of the log or the state instead.
    ///
    /// # Errors
    ///
    /// As [`Cluster::map`], and [`ClusterError::Internal`] if the log cannot be read.
    pub async fn info(&self) -> Result<ClusterInfo, ClusterError> {
        self.check_member()?;
        let core = &self.0.core;
        let (state, last) = core.state_machine().read(|applied| (applied.state.clone(), applied.last));
        let applied = last.map_or(0, |last| last.index);
        let internal = |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Internal {
            attempted: "reading the cluster's log",
            source,
        };
        let first = applied.saturating_sub(LOG_ENTRIES_TOLD - 1);
        let entries = core.entries(first..=applied).map_err(|error| internal(error.into()))?;
        let compacted = entries.first().is_none_or(|entry| entry.position.index > 0);
        let term = core.raft_status().term;
        let logs = if compacted {
            let payload = serde_json::to_value(&state).map_err(|error| internal(error.into()))?;
            let term = last.map_or(Term(0), |last| last.term);
            vec![ClusterLog { index: LogIndex(applied), term, payload: [("snapshot".into(), payload)].into() }]
        } else {
            entries
                .into_iter()
                .map(LogEntry::into_api)
                .collect::<Result<_, _>>()
                .map_err(|error| internal(error.into()))?
        };
        let cluster_id = self.0.identity.cluster;
        Ok(ClusterInfo { cluster_id, term, applied_index: LogIndex(applied), config: state.config, logs })
    }

    /// The statements that do not write, with their generation; no statements if that generation is `known`.
    ///
    /// # Errors
    ///
    /// As [`Cluster::map`].
    pub fn readonly(&self, known: Option<u64>) -> Result<(u64, Option<ReadonlyStatements>), ClusterError> {
        self.check_member()?;
        Ok(self.read(|state| {
            let generation = state.readonly.generation;
            (generation, (known != Some(generation)).then(|| state.readonly.told()))
        }))
    }

    /// The statements that do not write, once their generation is another than `known`, or when `wait` is over.
    ///
    /// # Errors
    ///
    /// As [`Cluster::map`].
    pub async fn readonly_after(
        &self,
        known: u64,
        wait: Duration,
    ) -> Result<(u64, Option<ReadonlyStatements>), ClusterError> {
        self.wait_for(wait, |state| state.readonly.generation != known).await?;
        self.readonly(Some(known))
    }

    /// What the cluster has agreed on about the statements that do not write.
    pub fn agreed_readonly(&self) -> Readonly {
        self.read(|state| state.readonly.clone())
    }

    /// A part of [`Cluster::agreed_readonly`], without a copy of the whole.
    pub fn readonly_part<T>(&self, look: impl FnOnce(&Readonly) -> T) -> T {
        self.read(|state| look(&state.readonly))
    }

    /// Changes the statements that do not write, for `cause`.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Precondition`] if the change is of another term, or does not follow what is agreed on by then; else
    /// as every change.
    pub async fn change_readonly(&self, change: ReadonlyChange, cause: &str) -> Result<(), ClusterError> {
        self.change(Change::Readonly(change), Reason::own(&self.0.core, cause)).await?;
        Ok(())
    }

    /// The newest `limit` events; if `after` is given, the oldest `limit` events after that index. Waits up to `wait` for
    /// one that is newer than `after`.
    pub async fn events(&self, after: Option<LogIndex>, limit: usize, wait: Duration) -> Vec<Event> {
        if let Some(after) = after
            && !wait.is_zero()
        {
            let newer = |state: &State| state.events.back().is_some_and(|event| event.index > after);
            // A node that is no member tells its events all the same.
            let _ = self.wait_for(wait, newer).await;
        }
        self.read(|state| match after {
            Some(after) => state.events.iter().filter(|event| event.index > after).take(limit).cloned().collect(),
            None => state.events.iter().skip(state.events.len().saturating_sub(limit)).cloned().collect(),
        })
    }

    /// How the nodes are, as this one heard from them lately.
    ///
    /// # Errors
    ///
    /// As [`Cluster::map`].
    pub fn status(&self) -> Result<ClusterStatus, ClusterError> {
        self.check_member()?;
        let leader = self.known_leader().map(|leader| (leader.id, leader.term));
        Ok(report::status(self.0.identity.node, leader, self.reports()))
    }

    /// The newest report of each other node, and this node's own.
    pub fn reports(&self) -> Vec<NodeReport> {
        let (core, views) = (&self.0.core, &self.0.views);
        let (now, age) = (core.clock().now(), validity(core));
        let nodes: Vec<_> = self.read(|state| state.nodes.keys().copied().collect());
        let others = nodes.into_iter().filter_map(|node| views.fresh(node, now, age));
        others.chain([own_report(core, &self.0.local, views)]).collect()
    }

    /// Waits until the state is as `goal` says, for `wait` at most. That it is not by then is no error.
    pub(super) async fn wait_for(&self, wait: Duration, goal: impl Fn(&State) -> bool) -> Result<(), ClusterError> {
        self.check_member()?;
        let mut progress = self.0.core.state_machine().progress();
        let mut removed = self.0.removed.subscribe();
        let reached = async {
            loop {
                progress.borrow_and_update();
                if self.read(&goal) || *removed.borrow_and_update() {
                    return;
                }
                tokio::select! { _ = progress.changed() => {}, _ = removed.changed() => {} }
            }
        };
        // That nothing happened in time is an answer, too.
        let _ = tokio::time::timeout(wait, reached).await;
        Ok(())
    }
}
