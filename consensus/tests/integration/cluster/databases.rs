//! What becomes of the databases: who is promoted, who follows, what is held.

use std::time::Duration;

use qluster_consensus::env::clock::Clock;
use qluster_consensus::model::{EventKind, NodeId, NodeRole, NodeState};
use qluster_consensus::protocol::database::DatabaseRole;

use super::ONE;
use super::harness::{Harness, Kind};

#[tokio::test(flavor = "multi_thread")]
async fn databases_follow_the_leader_and_what_was_acknowledged_is_kept() {
    let mut cluster = Harness::with_databases(3).await;
    let first = cluster.leader().await;
    cluster.serving(first.id).await;
    cluster.write_acknowledged(100).await;

    cluster.kill_with_database(first.id).await;
    let second = cluster.leader().await;
    cluster.serving(second.id).await;
    assert_eq!(cluster.database(second.id).rows(), 100);
    cluster.write_acknowledged(50).await;

    cluster.restart(first.id).await;
    cluster.following(first.id, second.id).await;
    assert_eq!(cluster.database(first.id).role(), DatabaseRole::Standby);

    // A planned change of the leader: it promotes, the former primary follows.
    let target = first.id;
    cluster
        .until("the target streams", || {
            cluster.node(second.id).reports().iter().any(|report| {
                report.node == target && report.database.as_ref().is_some_and(|database| database.streaming)
            })
        })
        .await;
    cluster.node(second.id).switch_over(target, "test").await.unwrap();
    cluster.serving(target).await;
    cluster.following(second.id, target).await;
    assert_eq!(cluster.database(target).rows(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_cut_off_is_fenced_before_another_is_promoted() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await;
    cluster.serving(leader.id).await;
    cluster.isolate(leader.id);
    cluster
        .until("another database is promoted", || {
            let primaries: Vec<_> = (1..=3).map(NodeId).filter(|id| cluster.database(*id).serves()).collect();
            assert!(primaries.len() <= 1, "two primaries serve: {primaries:?}");
            primaries.iter().any(|id| *id != leader.id)
        })
        .await;
    cluster.heal();
    let next = cluster.leader().await;
    cluster.following(leader.id, next.id).await;
}

/// Guards against a fence that begins a quarter of the new time-out before the end of a lease that is shorter than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_timeout_that_is_raised_far_ends_no_lease() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await;
    cluster.serving(leader.id).await;
    let node = cluster.node(leader.id);
    let has_lease = |seconds| {
        let left = node.lease_end().map(|end| end.saturating_sub(Clock::boottime().now()));
        left.is_some_and(|left| left > Duration::from_secs(seconds))
    };
    cluster.set(serde_json::json!({"node-timeout": "5s"})).await;
    cluster.until("the lease is longer", || has_lease(4)).await;
    // The leader knows it first. Until others do, its lease is what they promised.
    cluster.lose(&[Kind::Heartbeat]);
    let raised = serde_json::from_value(serde_json::json!({"node-timeout": "30s"})).unwrap();
    node.set_config(raised, "test").await.unwrap();
    for _ in 0..20 {
        // It looks at what it has to do with each change of its database.
        cluster.database(leader.id).insert();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(cluster.database(leader.id).serves(), "it was demoted");
    }
    cluster.lose(&[]);
    cluster.until("the lease is longer still", || has_lease(20)).await;
    assert!(cluster.database(leader.id).serves(), "it was demoted");
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_database_crashes_gives_its_lead_up() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await;
    cluster.serving(leader.id).await;
    cluster.database(leader.id).crash();
    cluster
        .until("another term has a primary", || {
            let promoted = (1..=3).map(NodeId).find(|id| cluster.database(*id).serves());
            promoted.is_some_and(|id| cluster.node(id).is_leader().is_ok_and(|now| now.term > leader.term))
        })
        .await;
}

/// The other two nodes of three.
fn others(id: NodeId) -> [NodeId; 2] {
    [NodeId(id.0 % 3 + 1), NodeId((id.0 + 1) % 3 + 1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_let_in_once_the_first_write_of_the_term_is_held() {
    let mut cluster = Harness::with_databases(3).await;
    let first = cluster.leader().await.id;
    cluster.until("clients are let in", || cluster.database(first).admits()).await;
    cluster.write_acknowledged(10).await;
    for id in others(first) {
        cluster.until("it has all rows", || cluster.database(id).rows() == 10).await;
        cluster.database(id).set_deaf(true);
    }
    cluster.kill_with_database(first).await;
    let second = cluster.leader().await.id;
    cluster.serving(second).await;
    let standby = others(second).into_iter().find(|id| *id != first).unwrap();
    cluster.following(standby, second).await;
    // What it has written before cannot reach the standby, so no client may see it yet.
    let waits = |reason: &str| reason.contains("before clients are let in");
    cluster
        .until("it says what it waits for", || {
            let own = cluster.node(second).reports().into_iter().find(|report| report.node == second).unwrap();
            own.note.is_some_and(|note| waits(&note))
        })
        .await;
    cluster.database(second).insert();
    assert!(!cluster.database(second).admits());
    cluster.database(standby).set_deaf(false);
    cluster.until("clients are let in", || cluster.database(second).admits()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_is_added_once_all_that_was_acknowledged_is_held_with_it() {
    let mut cluster = Harness::with_databases(1).await;
    cluster.write_acknowledged(10).await;
    let second = cluster.add(NodeRole::Voter).await;
    cluster.following(second, ONE).await;
    cluster.database(second).set_deaf(true);
    // A row that the second does not get.
    cluster.database(ONE).insert();
    let node = cluster.node(ONE);
    let upgrading = cluster.upgrade(second);
    let raising = async {
        cluster.until("it is upgraded", || node.map().unwrap().nodes[&second].role == NodeRole::Voter).await;
        cluster.until("the rule is raised", || cluster.database(ONE).sync_rule().count == 1).await;
        assert_eq!(node.voters(), [ONE].into());
        cluster.database(second).set_deaf(false);
    };
    tokio::join!(upgrading, raising);
    assert_eq!(node.voters(), [ONE, second].into());
    cluster
        .until("that is told", || {
            let events = futures::FutureExt::now_or_never(node.events(None, 1000, Duration::ZERO)).unwrap();
            events.iter().any(|event| event.kind == EventKind::CommitsHeld && event.cause.contains("of 2 voters"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_databases_and_a_witness_commits_go_on_without_one_that_is_gone_until_it_is_back() {
    let mut cluster = Harness::with_databases(2).await;
    let witness = cluster.add(NodeRole::Witness).await;
    cluster.upgrade(witness).await;
    cluster.write_acknowledged(10).await;
    let first = cluster.leader().await.id;
    cluster.kill_with_database(first).await;
    let second = cluster.leader().await.id;
    assert!(second != first && second != witness);
    cluster.write_acknowledged(10).await;
    let node = cluster.node(second);
    assert_eq!(node.map().unwrap().nodes[&first].state, NodeState::Down);
    assert_eq!(node.voters(), [second, witness].into());
    cluster.until("clients are let in", || cluster.database(second).admits()).await;

    cluster.restart(first).await;
    cluster
        .until("it has its vote again", || {
            node.map().unwrap().nodes[&first].state == NodeState::Up && node.voters().len() == 3
        })
        .await;
    assert_eq!(cluster.database(second).sync_rule().count, 1);
    cluster.write_acknowledged(10).await;
    assert_eq!(cluster.database(first).rows(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_is_not_fit_is_declared_down_until_it_is() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await.id;
    cluster.serving(leader).await;
    // The leader hands over first.
    cluster.database(leader).set_unfit(Some("its disk is full"));
    let of_leader = || cluster.node(others(leader)[0]).map().unwrap().nodes[&leader].clone();
    cluster.until("it is down", || of_leader().state == NodeState::Down).await;
    assert_eq!(of_leader().reason.as_deref(), Some("its disk is full"));
    let next = cluster.leader().await.id;
    assert_ne!(next, leader);
    cluster.database(leader).set_unfit(None);
    cluster.until("it is back", || of_leader().state == NodeState::Up).await;
    cluster.until("it votes", || cluster.node(next).voters().len() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_primary_has_no_more_the_wal_that_it_needs_is_cloned() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await.id;
    cluster.serving(leader).await;
    let standby = cluster.database(others(leader)[0]);
    standby.lack_wal();
    cluster.until("it is a copy", || !standby.lacks_wal() && standby.streams()).await;
    cluster.write_acknowledged(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leads_without_enough_promises_and_an_operator_may_accept_what_that_costs() {
    let mut cluster = Harness::with_databases(3).await;
    let first = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    let [left, broken] = others(first);
    let refused = cluster.node(left).lead_with_loss(left, "operator").await.unwrap_err();
    assert!(refused.to_string().contains("no commit has to be given up"), "{refused}");

    cluster.database(broken).break_down("its pages are gone");
    cluster.kill_with_database(first).await;
    cluster
        .until("it is said why nobody leads", || {
            let events = futures::FutureExt::now_or_never(cluster.node(left).events(None, 1, Duration::ZERO)).unwrap();
            events
                .iter()
                .any(|event| event.kind == EventKind::NobodyLeads && event.cause.contains("its pages are gone"))
        })
        .await;
    for id in [left, broken] {
        let reason = cluster.node(id).map().unwrap().reason.unwrap_or_default();
        assert!(reason.contains("its pages are gone"), "node {id}: {reason}");
    }
    // Whichever was elected, and whichever is asked.
    let leader = cluster.node(broken).lead_with_loss(left, "operator").await.unwrap();
    assert_eq!(leader.id, left);
    // Told by the node that answered: it has applied it.
    let events = cluster.node(broken).events(None, 100, Duration::ZERO).await;
    let accepted = events.iter().find(|event| event.kind == EventKind::DataLossAccepted).unwrap();
    assert!(accepted.cause.contains("operator has accepted"), "{accepted:?}");
    cluster.serving(left).await;
    assert_eq!(cluster.database(left).rows(), 10, "here nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_led_last_leads_again_though_the_only_other_voter_has_to_be_rewound() {
    let mut cluster = Harness::with_databases(3).await;
    let diverged = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    cluster.isolate(diverged);
    // Nobody ever hears of it.
    cluster.database(diverged).insert();
    cluster.database(diverged).set_unrewindable(true);
    cluster.until("another leads", || others(diverged).iter().any(|id| cluster.database(*id).admits())).await;
    cluster.heal();
    let last = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    let note = || cluster.node(diverged).reports().into_iter().find(|report| report.node == diverged)?.note;
    cluster.until("it cannot be rewound", || note().is_some_and(|note| note.contains("not reached"))).await;

    let gone = others(diverged).into_iter().find(|id| *id != last).unwrap();
    cluster.kill_with_database(gone).await;
    cluster.kill_with_database(last).await;
    cluster.restart(last).await;
    cluster.serving(last).await;
    assert_eq!(cluster.leader().await.id, last);
    assert!(!cluster.database(last).admits(), "nobody else holds what is written");
    cluster.database(diverged).set_unrewindable(false);
    cluster.until("clients are let in", || cluster.database(last).admits()).await;
    assert_eq!(cluster.database(diverged).rows(), 20);
}

/// Three databases, of which somebody has promoted a standby, and the primary is gone; and who that was, the one that has
/// strayed, and the other, which has all that was acknowledged: 20 rows.
async fn with_a_stray() -> (Harness, NodeId, NodeId, NodeId) {
    let mut cluster = Harness::with_databases(3).await;
    let first = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    let [strayed, other] = others(first);
    for id in [strayed, other] {
        cluster.following(id, first).await;
    }
    cluster.database(strayed).set_unrewindable(true);
    cluster.database(strayed).stray(100);
    let note = || cluster.node(strayed).reports().into_iter().find(|report| report.node == strayed)?.note;
    cluster.until("it is to be rewound", || note().is_some_and(|note| note.contains("not reached"))).await;
    assert_eq!(cluster.database(strayed).role(), DatabaseRole::Standby);
    // By its LSN the other has less than the strayed one, and more than that had when it strayed.
    cluster.write_acknowledged(10).await;
    cluster.kill_with_database(first).await;
    let why = || cluster.node(other).map().ok().and_then(|map| map.reason).unwrap_or_default();
    cluster.until("it refuses", || why().contains("its database needs a rewind")).await;
    (cluster, first, strayed, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_database_wrote_that_somebody_else_promoted_counts_for_nothing() {
    let (mut cluster, first, strayed, _) = with_a_stray().await;
    cluster.restart(first).await;
    cluster.database(strayed).set_unrewindable(false);
    let last = cluster.leader().await.id;
    cluster.following(strayed, last).await;
    cluster.write_acknowledged(10).await;
    cluster.until("it has what the others have", || cluster.database(strayed).rows() == 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_cannot_follow_as_it_is_is_rewound() {
    let mut cluster = Harness::with_databases(3).await;
    let first = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    for id in others(first) {
        cluster.following(id, first).await;
        cluster.database(id).go_off();
    }
    cluster.kill_with_database(first).await;
    let next = cluster.leader().await.id;
    let standby = others(first).into_iter().find(|id| *id != next).unwrap();
    cluster.until("it is rewound", || !cluster.database(standby).is_off()).await;
    cluster.following(standby, next).await;
    cluster.write_acknowledged(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_database_leads_also_when_somebody_else_has_promoted_it() {
    let cluster = Harness::with_databases(1).await;
    cluster.write_acknowledged(10).await;
    cluster.database(ONE).crash();
    cluster.database(ONE).stray(5);
    cluster.until("it is let in to", || cluster.database(ONE).admits()).await;
    assert_eq!(cluster.database(ONE).rows(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_else_promoted_leads_where_an_operator_accepts_it() {
    let (cluster, _, strayed, other) = with_a_stray().await;
    assert_eq!(cluster.node(other).lead_with_loss(strayed, "operator").await.unwrap().id, strayed);
    cluster.serving(strayed).await;
    // Told by a node that has applied it; and that is never an election like any other.
    let events = cluster.node(strayed).events(None, 100, Duration::ZERO).await;
    assert!(events.iter().any(|event| event.kind == EventKind::DataLossAccepted), "{events:?}");
    cluster.following(other, strayed).await;
    cluster.until("it has what that has", || cluster.database(other).rows() == 110).await;
    cluster.until("clients are let in", || cluster.database(strayed).admits()).await;
    cluster.write_acknowledged(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_whose_target_lacks_the_last_of_the_wal_leaves_the_leader() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    let [target, other] = others(leader);
    cluster.following(target, leader).await;
    cluster.database(target).set_deaf(true);
    cluster.write_acknowledged(10).await;
    let refused = cluster.node(leader).switch_over(target, "test").await.unwrap_err();
    assert!(refused.to_string().contains("did not get the last of the WAL"), "{refused}");
    cluster
        .until("one that has all leads", || {
            let leads = |id: &NodeId| cluster.node(*id).is_leader().is_ok() && cluster.database(*id).serves();
            [leader, other].iter().any(|id| leads(id) && cluster.database(*id).rows() == 20)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_cannot_be_promoted_does_not_lead_for_ever() {
    // Each needs the other's promise.
    let cluster = Harness::with_databases(2).await;
    let first = cluster.leader().await.id;
    cluster.write_acknowledged(10).await;
    let target = NodeId(3 - first.0);
    cluster.following(target, first).await;
    cluster.database(target).refuse_promotions("there is no watchdog");
    // It is elected, and written to the log as the leader; the other has as much WAL as it has.
    let _ = cluster.node(first).switch_over(target, "test").await;
    cluster
        .until("the other leads", || cluster.database(first).admits() && cluster.node(first).is_leader().is_ok())
        .await;
    cluster.write_acknowledged(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_hangs_hands_over_once_the_others_have_promised() {
    let cluster = Harness::with_databases(3).await;
    let before = cluster.leader().await;
    let first = before.id;
    cluster.write_acknowledged(10).await;
    let [target, other] = others(first);
    cluster.following(target, first).await;
    cluster.database(target).hang_when_fenced();
    let leader = cluster.node(first);
    let asked = tokio::spawn(async move { leader.switch_over(target, "test").await });
    cluster
        .until("another leads", || {
            let leads = |id: &NodeId| cluster.node(*id).is_leader().is_ok_and(|now| now.term > before.term);
            [first, other].iter().any(|id| leads(id) && cluster.database(*id).serves())
        })
        .await;
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_database_keeps_wal_for_the_others() {
    let cluster = Harness::with_databases(3).await;
    for id in (1..=3).map(NodeId) {
        cluster.until("it does", || cluster.database(id).kept_for() == others(id).into()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_started_without_its_database_makes_no_promise() {
    let mut cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await.id;
    let [bare, other] = [1, 2].map(|next| NodeId((leader.0 - 1 + next) % 3 + 1));
    cluster.kill(bare).await;
    cluster.bare.insert(bare);
    cluster.restart(bare).await;
    cluster.kill_with_database(leader).await;
    // What only its database holds would be lost under the other.
    let why = || cluster.node(other).map().ok().and_then(|map| map.reason).unwrap_or_default();
    cluster.until("it refuses", || why().contains("was started without")).await;

    cluster.kill(bare).await;
    cluster.bare.clear();
    cluster.restart(bare).await;
    cluster.leader().await;
}
