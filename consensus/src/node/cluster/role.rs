//! A line in the log for each change of this node's part in the cluster, with its reason.

use std::sync::Weak;
use std::time::Duration;

use super::{Cluster, Inner};
use crate::model::{EventKind, NodeId, Term};

/// How often a node looks whether a lease has ended, which happens by time alone.
const LEASE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What this node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It knows no leader.
    Seeks,
    Leads(Term),
    Follows(NodeId, Term),
}

/// Logs what this node is, whenever that has changed; ends with the cluster.
pub(super) async fn tell(cluster: Weak<Inner>) {
    let mut told = Role::Seeks;
    loop {
        let Some(cluster) = cluster.upgrade().map(Cluster) else { return };
        let role = cluster.role();
        if role != told {
            cluster.tell_role(role, told);
            told = role;
        }
        let core = cluster.0.core.clone();
        drop(cluster);
        let (mut progress, mut raft_changes) = (core.state_machine().progress(), core.raft_status_changes());
        tokio::select! {
            _ = progress.changed() => {}
            () = raft_changes.changed() => {}
            () = tokio::time::sleep(LEASE_CHECK_INTERVAL) => {}
        }
    }
}

impl Cluster {
    fn role(&self) -> Role {
        match self.known_leader() {
            Some(leader) if leader.id == self.0.identity.node => Role::Leads(leader.term),
            Some(leader) => Role::Follows(leader.id, leader.term),
            None => Role::Seeks,
        }
    }

    fn tell_role(&self, role: Role, before: Role) {
        match role {
            Role::Leads(term) => tracing::info!(%term, why = self.why_elected(term), "this node leads"),
            Role::Follows(leader, term) => {
                tracing::info!(%leader, %term, why = self.why_elected(term), "this node follows another");
            }
            Role::Seeks => tracing::warn!(why = self.why_lost(before), "this node knows no leader any more"),
        }
    }

    /// Why there is no longer a leader.
    fn why_lost(&self, before: Role) -> String {
        let core = &self.0.core;
        match before {
            // Its lease did not run out: it was given up.
            Role::Leads(term) if core.raft_status().leader == Some(core.id()) && core.lease_end(term).is_none() => {
                format!("it hands its lead of term {term} over")
            }
            Role::Follows(_, term) if core.was_handed_over(term) => "the leader hands over".into(),
            _ => self.why_no_leader(),
        }
    }

    /// Why the leader of `term` was elected, as the cluster was told.
    fn why_elected(&self, term: Term) -> String {
        let is_it = |kind| matches!(kind, EventKind::LeaderElected | EventKind::DataLossAccepted);
        let cause = self.read(|state| {
            let event = state.events.iter().rev().find(|event| event.term == term && is_it(event.kind));
            event.map(|event| event.cause.clone())
        });
        cause.unwrap_or_else(|| "the log entry with the reason was compacted".into())
    }
}
