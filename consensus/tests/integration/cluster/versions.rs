//! Clusters whose nodes run programs of different versions.

use std::time::Duration;

use qluster_consensus::model::{EventKind, NodeId, NodeState};
use qluster_consensus::node::cluster::StartError;
use qluster_consensus::protocol::version::{Version, Versions};
use qluster_consensus::raft::store::StoreError;

use super::harness::Harness;
use crate::support::{WAIT_DEADLINE, holds, until};

const OLD: Versions = Versions::KNOWN;
const NEW: Versions = Versions { newest: Version(2), ..OLD };

async fn is_raised(cluster: &Harness, id: NodeId) -> bool {
    let events = cluster.node(id).events(None, 1000, Duration::ZERO).await;
    events.iter().any(|event| event.kind == EventKind::VersionRaised)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_raised_with_its_last_member_and_takes_no_older_program_from_then_on() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    let mut ids = [1, 2, 3].map(NodeId);
    // The leader last.
    ids.sort_by_key(|id| *id == leader.id);
    for id in ids {
        cluster.settled(3).await;
        assert!(!is_raised(&cluster, leader.id).await, "before node {id}");
        cluster.replace(id, NEW).await.unwrap();
    }
    for id in ids {
        until(&format!("node {id} learns of it"), WAIT_DEADLINE, async || {
            holds(is_raised(&cluster, id).await, &cluster)
        })
        .await;
    }
    cluster.settled(3).await;

    // It cannot apply what follows as the others do, so it stops; they go on.
    let old = ids[0];
    let reason = match cluster.replace(old, OLD).await {
        Err(StartError::Store(StoreError::Version(unknown))) => unknown.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(()) => {
            let node = cluster.node(old);
            cluster.until("it stops", || node.map().is_err()).await;
            node.map().unwrap_err().to_string()
        }
    };
    assert!(reason.contains("the cluster speaks version 2, and this qluster knows versions 1 to 1"), "{reason}");
    assert!(cluster.leader().await.id != old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_not_raised_beyond_a_member_that_is_away() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await.id;
    let mut others = [1, 2, 3].map(NodeId).into_iter().filter(|id| *id != leader);
    let (away, other) = (others.next().unwrap(), others.next().unwrap());
    cluster.kill(away).await;
    cluster.replace(other, NEW).await.unwrap();
    cluster.replace(leader, NEW).await.unwrap();
    cluster
        .until("it is noticed", || {
            let map = cluster.node(other).map();
            map.is_ok_and(|map| map.nodes[&away].state == NodeState::Unreachable)
        })
        .await;
    assert!(!is_raised(&cluster, other).await);
    // Back with the old program, it takes part.
    cluster.restart(away).await;
    cluster.settled(3).await;
    assert!(!is_raised(&cluster, away).await);
}
