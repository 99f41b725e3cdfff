//! Ceasing to lead: by a hand-over that somebody asked for, or since this node cannot serve.

use std::time::Duration;

use super::{STOP_TIME, Supervisor, SupervisorError};
use crate::model::{Lsn, NodeId};
use crate::primary::hand_over;
use crate::protocol::database::DatabaseRole;

/// How often the successor is asked how far its database is.
const WAL_POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Supervisor {
    /// Hands leadership to `target`. A primary is stopped in good order first, so that its standbys have all of its WAL.
    /// If the target does not have it, or cannot take over, this node leads again in the usual way.
    pub(super) async fn hand_over(&mut self, target: NodeId) -> Result<(), SupervisorError> {
        if let Some(database) = self.database()
            && database.status().borrow().role == DatabaseRole::Primary
        {
            self.serves_no_more();
            // Until it has stopped it serves, and may do so only under the lease.
            let last = tokio::select! {
                stopped = database.stop() => stopped?,
                () = self.lease_is_over() => {
                    return Err(SupervisorError::Refused("the lease was about to end".into()));
                }
                () = tokio::time::sleep(STOP_TIME) => {
                    return Err(SupervisorError::Refused(format!("the database did not stop within {STOP_TIME:?}")));
                }
            };
            self.wait_for_wal(target, last).await?;
        }
        Ok(hand_over::transfer(&self.core, target).await?)
    }

    /// Waits until the WAL of `target` has passed the last record that this primary wrote: it was on its way when the
    /// primary stopped.
    async fn wait_for_wal(&self, target: NodeId, last: Lsn) -> Result<(), SupervisorError> {
        let core = &self.core;
        let node = core.state_machine().read(|applied| applied.state.nodes.get(&target).cloned());
        let node = node.ok_or_else(|| SupervisorError::Refused(format!("node {target} is not part of the cluster")))?;
        let limit = core.config().leader_voting_timeout.get();
        let passed = async {
            loop {
                let report = hand_over::ask(core, &node).await;
                let end = report.and_then(|report| report.database?.lsn);
                if end.is_some_and(|end| end > last) {
                    return;
                }
                tokio::time::sleep(WAL_POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(limit, passed).await.map_err(|_| {
            SupervisorError::Refused(format!(
                "node {target} did not get the last of the WAL, up to {last}, within {limit:?}"
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

    /// Hands leadership to another node that is fit, or gives the term up and stands for election again.
    pub(super) async fn give_up(&mut self) -> Result<(), SupervisorError> {
        let core = self.core.clone();
        // The standbys of a primary that is gone no longer stream, and are fit all the same.
        if let Some(target) = hand_over::best_target(&core, &self.views, None)
            && hand_over::transfer(&core, target).await.is_ok()
        {
            return Ok(());
        }
        Ok(hand_over::give_up_term(&core).await?)
    }
}
