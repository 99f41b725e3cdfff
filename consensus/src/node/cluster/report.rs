//! What the nodes' reports say to those who ask over the API.

use crate::model::{ClusterStatus, Lsn, NodeDatabase, NodeId, NodeStatus, Term, WalPosition};
use crate::protocol::database::{DatabaseRole, DatabaseStatus};
use crate::raft::transport::NodeReport;

/// How the nodes are, as `node` heard of them; `leader` is who leads, and in which term.
pub(super) fn status(node: NodeId, leader: Option<(NodeId, Term)>, reports: Vec<NodeReport>) -> ClusterStatus {
    let primary = reports.iter().find_map(|report| primary_position(report, leader?));
    let told = |report: NodeReport| {
        let NodeReport { node: id, applied, sees, database, position, note, version: _ } = report;
        let database = database.map(|database| tell(database, position, primary));
        (id, NodeStatus { id, applied_index: applied, sees, database, note })
    };
    ClusterStatus { node, nodes: reports.into_iter().map(told).collect() }
}

/// Where the WAL of the leader's database ends; None unless this is the leader's report and its database is a primary. The
/// lag of others is not measured by a primary of an earlier term.
fn primary_position(report: &NodeReport, (leader, term): (NodeId, Term)) -> Option<WalPosition> {
    let primary = report.node == leader && report.database.as_ref()?.role == DatabaseRole::Primary;
    report.position.filter(|position| primary && position.term == term)
}

fn tell(status: DatabaseStatus, position: Option<WalPosition>, primary: Option<WalPosition>) -> NodeDatabase {
    let DatabaseStatus { role, unfit, lsn, replayed, timeline, follows, streaming, progress, .. } = status;
    // Only what the same primary wrote compares. Reports are of different instants: a standby's may be the newer.
    let same = |mine: WalPosition| primary.filter(|primary| primary.term == mine.term);
    let behind = |lsn: Option<Lsn>| Some(same(position?)?.lsn.0.saturating_sub(lsn?.0));
    let lag = behind(position.map(|position| position.lsn));
    // A primary has nothing to replay.
    let replay_lag = if role == DatabaseRole::Primary { lag } else { behind(replayed) };
    let follows = follows.map(|(node, _)| node);
    let wal_term = position.map(|position| position.term);
    NodeDatabase { role, unfit, lsn, replayed, lag, replay_lag, wal_term, timeline, follows, streaming, progress }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::LogIndex;
    use crate::protocol::version::Version;

    fn report(node: u64, role: DatabaseRole, term: u64, lsn: u64) -> NodeReport {
        NodeReport {
            node: NodeId(node),
            applied: LogIndex(9),
            sees: BTreeSet::new(),
            database: Some(DatabaseStatus { lsn: Some(Lsn(lsn)), ..DatabaseStatus::unknown(role) }),
            position: Some(WalPosition { term: Term(term), lsn: Lsn(lsn) }),
            note: None,
            version: Version::FIRST,
        }
    }

    fn lags(leader: Option<(u64, u64)>, reports: &[NodeReport]) -> Vec<Option<u64>> {
        let leader = leader.map(|(node, term)| (NodeId(node), Term(term)));
        let status = status(NodeId(1), leader, reports.to_vec());
        status.nodes.into_values().map(|node| node.database.and_then(|database| database.lag)).collect()
    }

    #[test]
    fn lag_is_told_if_the_primary_of_now_wrote_both_positions() {
        use DatabaseRole::{Primary, Standby};
        let primary = report(1, Primary, 4, 500);
        let all = [primary.clone(), report(2, Standby, 4, 372), report(3, Standby, 4, 600), report(4, Standby, 3, 500)];
        assert_eq!(lags(Some((1, 4)), &all), [Some(0), Some(128), Some(0), None]);
        // Nobody leads, another does, or the leader's database was not promoted yet.
        assert_eq!(lags(None, &all), [None; 4]);
        assert_eq!(lags(Some((2, 5)), &all), [None; 4]);
        assert_eq!(lags(Some((1, 4)), &[report(1, Standby, 4, 500), report(2, Standby, 4, 372)]), [None; 2]);
    }

    #[test]
    fn what_a_standby_has_and_has_not_replayed_is_lag_to_its_readers() {
        let mut standby = report(2, DatabaseRole::Standby, 4, 480);
        standby.database.as_mut().unwrap().replayed = Some(Lsn(300));
        let reports = vec![report(1, DatabaseRole::Primary, 4, 500), standby, report(3, DatabaseRole::Standby, 4, 500)];
        let status = status(NodeId(1), Some((NodeId(1), Term(4))), reports);
        let lags = status.nodes.into_values().filter_map(|node| Some(node.database?.replay_lag));
        assert_eq!(lags.collect::<Vec<_>>(), [Some(0), Some(200), None]);
    }

    #[test]
    fn a_node_without_a_database_has_none() {
        let witness = NodeReport { database: None, position: None, ..report(2, DatabaseRole::Standby, 4, 0) };
        let status = status(NodeId(1), Some((NodeId(1), Term(4))), vec![witness]);
        assert_eq!(status.nodes[&NodeId(2)].database, None);
    }
}
