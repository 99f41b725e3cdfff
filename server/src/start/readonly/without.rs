//! A leader that cannot judge statements: it withdraws what an earlier leader has published, since nobody would notice
//! when that is no longer true, and says why there is no list.

use std::time::Duration;

use qluster_consensus::model::Term;
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::readonly::{Readonly, ReadonlyChange, ReadonlyUpdate};

use crate::report;

/// How often a node checks whether it leads, and whether something is published.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no list.
const REASON: &str = "the leader's qluster-server was built without the feature `readonly-statements`: it cannot judge \
                      statements";

/// Withdraws what is published, while this node leads; never returns.
pub(super) async fn run(cluster: Cluster) {
    let mut logged = None;
    loop {
        if let Ok(leader) = cluster.is_leader() {
            let failed = withdraw(&cluster, leader.term).await;
            if let Some(error) = failed.as_ref().filter(|error| logged.as_ref() != Some(*error)) {
                tracing::warn!(error, "the reason why there is no list of statements could not be recorded");
            }
            logged = failed;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Makes the changes that are still due; returns why one failed.
async fn withdraw(cluster: &Cluster, term: Term) -> Option<String> {
    while let Some(what) = cluster.readonly_part(next) {
        let generation = cluster.readonly_part(|readonly| readonly.generation) + 1;
        let change = ReadonlyChange { term, generation, what };
        if let Err(error) = cluster.change_readonly(change, REASON).await {
            return Some(report::chain(&error));
        }
    }
    None
}

/// The next change of what the cluster has agreed on; None when nothing is published, and the reason is known.
fn next(agreed: &Readonly) -> Option<ReadonlyUpdate> {
    if agreed.reason.as_deref() != Some(REASON) {
        return Some(ReadonlyUpdate::Reason(Some(REASON.into())));
    }
    let database = agreed.databases.keys().next()?.clone();
    Some(ReadonlyUpdate::Forgotten { database })
}

#[cfg(test)]
mod tests {
    use qluster_consensus::protocol::readonly::Judged;

    use super::*;

    #[test]
    fn the_reason_is_told_and_then_everything_is_withdrawn() {
        let judged = Judged {
            version: "1".into(),
            postgresql: 15,
            generation: 3,
            basis: String::new(),
            hashes: Default::default(),
        };
        let databases = ["a", "b"].map(|name| (name.to_owned(), judged.clone())).into();
        let mut agreed = Readonly { generation: 3, databases, reason: None };
        let term = Term(7);
        let mut updates = Vec::new();
        while let Some(what) = next(&agreed) {
            updates.push(what.clone());
            let generation = agreed.generation + 1;
            agreed.apply(term, &ReadonlyChange { term, generation, what }).unwrap();
        }
        assert_eq!(updates.len(), 3);
        assert!(agreed.databases.is_empty());
        assert!(agreed.reason.is_some_and(|reason| reason.contains("the feature `readonly-statements`")));
    }
}
