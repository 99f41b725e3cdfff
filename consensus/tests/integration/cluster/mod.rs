//! A cluster of real nodes in one process, over a transport that can be cut: it forms, elects, survives, changes.

mod databases;
mod harness;
mod model;
mod versions;

use std::time::Duration;

use harness::{Harness, Kind};
use qluster_consensus::env::clock::Clock;
use qluster_consensus::model::{ConfigUpdate, EventKind, LogIndex, NodeId, NodeRole, NodeState, Term};
use qluster_consensus::node::cluster::ClusterError;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, SnapshotChunk};
use qluster_consensus::raft::wire::VoteRecord;
use uuid::Uuid;

const ONE: NodeId = NodeId(1);

fn update(json: serde_json::Value) -> ConfigUpdate {
    serde_json::from_value(json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_elect_one_leader_and_survive_its_death() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.claimants(), [leader.id]);

    cluster.kill(leader.id).await;
    let next = cluster.leader().await;
    assert!(next.id != leader.id && next.term > leader.term);

    cluster.restart(leader.id).await;
    cluster.settled(3).await;
    let elected = |kind: &EventKind| *kind == EventKind::LeaderElected;
    let events = cluster.node(leader.id).events(None, 1000, Duration::ZERO).await;
    assert!(events.iter().filter(|event| elected(&event.kind)).count() >= 2, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_restarts_within_its_lease_is_elected_again_at_once() {
    let mut cluster = Harness::without_databases(3).await;
    // Nobody else stands before.
    cluster.set(serde_json::json!({"node-timeout": "10s"})).await;
    let leader = cluster.leader().await;
    let start = std::time::Instant::now();
    cluster.kill(leader.id).await;
    cluster.restart(leader.id).await;
    let again = cluster.leader().await;
    assert!(again.id == leader.id && again.term > leader.term, "{again:?} after {leader:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Its promise is longer than the setting that it finds when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_restarts_keeps_what_it_promised_before_node_timeout_was_lowered() {
    let mut cluster = Harness::without_databases(3).await;
    let usual = cluster.node(ONE).config().unwrap().node_timeout;
    cluster.set(serde_json::json!({"node-timeout": "6s"})).await;
    let leader = cluster.leader().await;
    cluster
        .until("the lease is longer", || {
            let left = cluster.node(leader.id).lease_end().map(|end| end.saturating_sub(Clock::boottime().now()));
            left.is_some_and(|left| left > Duration::from_secs(5))
        })
        .await;
    cluster.set(serde_json::json!({"node-timeout": usual})).await;
    let others: Vec<_> = (1..=3).map(NodeId).filter(|id| *id != leader.id).collect();
    for id in &others {
        cluster.kill(*id).await;
    }
    cluster.isolate(leader.id);
    for id in &others {
        cluster.restart(*id).await;
    }
    cluster
        .until("another leads", || {
            let lead = cluster.claimants();
            assert!(lead.len() <= 1, "two lead at once: {lead:?}");
            lead.iter().any(|id| *id != leader.id)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_leader_that_comes_back_does_not_unseat_the_new_one() {
    let mut cluster = Harness::without_databases(3).await;
    let old = cluster.leader().await;
    cluster.kill(old.id).await;
    let new = cluster.leader().await;
    // It stands, and nobody tells it that it cannot win.
    cluster.isolate(old.id);
    let asked = |cluster: &Harness| cluster.sent(Kind::PreVote) + cluster.sent(Kind::Vote);
    let before = asked(&cluster);
    cluster.restart(old.id).await;
    cluster.until("it has stood several times", || asked(&cluster) >= before + 6).await;
    cluster.heal();
    cluster.settled(3).await;
    assert_eq!(cluster.leader().await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_telling_that_it_leads_before_another_does() {
    let cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    assert!(cluster.node(leader.id).lease_end().is_some());
    cluster.isolate(leader.id);
    let others: Vec<_> = (1..=3).map(NodeId).filter(|id| *id != leader.id).collect();
    assert!(others.iter().all(|&id| cluster.node(id).lease_end().is_none()));
    // At no instant do two nodes claim to lead.
    cluster
        .until("another node leads", || {
            let claimants = cluster.claimants();
            assert!(claimants.len() <= 1, "{claimants:?}");
            claimants.iter().any(|id| others.contains(id))
        })
        .await;
    let refused = cluster.node(leader.id).set_config(update(serde_json::json!({})), "test").await.unwrap_err();
    assert!(matches!(&refused, ClusterError::NoLeader(reason) if reason.contains("no majority")), "{refused:?}");
    cluster.heal();
    cluster.settled(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_live_on_every_node_and_leadership_outlives_their_change() {
    let cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader.id);
    let timing = serde_json::json!({"node-timeout": "900ms", "heartbeat-interval": "70ms"});
    let config = node.set_config(update(timing), "test").await.unwrap();
    cluster
        .until("all nodes have the settings", || (1..=3).all(|id| cluster.node(NodeId(id)).config().unwrap() == config))
        .await;
    // The Raft cores were rebuilt under the leader, which leads on in its term and writes.
    let again = serde_json::json!({"autoremove-minimum": 5});
    node.set_config(update(again), "test").await.unwrap();
    assert_eq!(cluster.leader().await, leader);

    for (wrong, expected) in [
        (serde_json::json!({"heartbeat-interval": "500ms"}), "three times heartbeat-interval"),
        (serde_json::json!({"replication-factor": 9, "quorum-replication": false}), "at most 3"),
    ] {
        let before = node.config().unwrap();
        let error = node.set_config(update(wrong), "test").await.unwrap_err();
        assert!(matches!(&error, ClusterError::Invalid(reason) if reason.contains(expected)), "{error:?}");
        assert_eq!(node.config().unwrap(), before);
    }
}

fn count(sent: &[Kind], kind: Kind) -> usize {
    sent.iter().filter(|sent| **sent == kind).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heartbeat_interval_says_how_often_the_leader_is_heard() {
    let cluster = Harness::without_databases(3).await;
    let often = count(&cluster.sent_within(Duration::from_millis(1200)).await, Kind::Heartbeat);
    cluster.set(serde_json::json!({"node-timeout": "3s", "heartbeat-interval": "600ms"})).await;
    let seldom = count(&cluster.sent_within(Duration::from_millis(1200)).await, Kind::Heartbeat);
    assert!(seldom > 0 && often > 2 * seldom, "{often} at 60ms, {seldom} at 600ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_keeps_the_settings_that_are_in_force() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await.id;
    let before = count(&cluster.sent_within(Duration::from_millis(1200)).await, Kind::Heartbeat);
    let other = NodeId(leader.0 % 3 + 1);
    cluster.kill(other).await;
    cluster.restart(other).await;
    cluster.settled(3).await;
    cluster.node(leader).switch_over(other, "test").await.unwrap();
    let after = count(&cluster.sent_within(Duration::from_millis(1200)).await, Kind::Heartbeat);
    assert!(after * 2 > before, "{before} heartbeats before, {after} after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_interval_says_when_unanswered_entries_are_sent_again() {
    let cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await.id;
    let mut tries = Vec::new();
    for interval in ["100ms", "500ms"] {
        cluster.set(serde_json::json!({"replication-retry-interval": interval})).await;
        cluster.settled(3).await;
        cluster.lose(&[Kind::Entries]);
        let node = cluster.node(leader);
        let change = update(serde_json::json!({"autoremove-minimum": tries.len() + 5}));
        let write = tokio::spawn(async move { node.set_config(change, "test").await });
        tries.push(count(&cluster.sent_within(Duration::from_millis(1200)).await, Kind::Entries));
        cluster.lose(&[]);
        // Whether it was confirmed in time is not what is asked here.
        let _ = write.await.unwrap();
    }
    assert!(tries[1] > 0 && tries[0] > 2 * tries[1], "{tries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_node_timeout_finds_the_next_leader_sooner() {
    let mut elapsed = Vec::new();
    for timeout in ["300ms", "3s"] {
        let mut cluster = Harness::without_databases(3).await;
        cluster.set(serde_json::json!({"node-timeout": timeout})).await;
        let leader = cluster.leader().await;
        let start = std::time::Instant::now();
        cluster.kill(leader.id).await;
        cluster.leader().await;
        elapsed.push(start.elapsed());
    }
    assert!(elapsed[0] * 2 < elapsed[1], "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prevote_that_is_not_won_in_time_is_begun_again() {
    let mut rounds = Vec::new();
    for timeout in ["100ms", "900ms"] {
        let mut cluster = Harness::without_databases(3).await;
        cluster.set(serde_json::json!({"pre-voting-timeout": timeout, "node-timeout": "300ms"})).await;
        let leader = cluster.leader().await.id;
        cluster.lose(&[Kind::PreVote]);
        cluster.kill(leader).await;
        let sent = cluster.sent_within(Duration::from_secs(3)).await;
        assert_eq!(count(&sent, Kind::Vote), 0, "a vote without a pre-vote");
        rounds.push(count(&sent, Kind::PreVote));
    }
    assert!(rounds[1] > 0 && rounds[0] > 2 * rounds[1], "{rounds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_that_gives_no_leader_in_time_goes_back_to_the_prevote() {
    let mut rounds = Vec::new();
    for timeout in ["200ms", "1500ms"] {
        let mut cluster = Harness::without_databases(3).await;
        cluster.set(serde_json::json!({"leader-voting-timeout": timeout, "node-timeout": "300ms"})).await;
        let leader = cluster.leader().await.id;
        cluster.lose(&[Kind::Vote]);
        cluster.kill(leader).await;
        let sent = cluster.sent_within(Duration::from_secs(4)).await;
        let mut asked = false;
        for kind in &sent {
            match kind {
                Kind::PreVote => asked = true,
                Kind::Vote => assert!(asked, "a vote without a pre-vote before it: {sent:?}"),
                _ => {}
            }
        }
        rounds.push(count(&sent, Kind::Vote));
        // The rounds changed terms and elected nobody; with votes that arrive, somebody is.
        cluster.lose(&[]);
        cluster.leader().await;
    }
    assert!(rounds[0] > rounds[1], "{rounds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_tells_who_leads_and_a_factor_above_the_majority_is_waited_for() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    let follower = NodeId(leader.id.0 % 3 + 1);
    let told = cluster.node(follower).set_config(update(serde_json::json!({})), "test").await.unwrap_err();
    assert!(matches!(&told, ClusterError::NotLeader(known) if **known == leader), "{told:?}");

    let node = cluster.node(leader.id);
    let all = serde_json::json!({"quorum-replication": false, "replication-factor": 3});
    node.set_config(update(all), "test").await.unwrap();
    cluster.kill(follower).await;
    let minimum = update(serde_json::json!({"autoremove-minimum": 4}));
    let unconfirmed = node.set_config(minimum, "test").await.unwrap_err();
    assert!(matches!(unconfirmed, ClusterError::Unconfirmed(_)), "{unconfirmed:?}");
    assert_eq!(node.config().unwrap().autoremove_minimum, 4, "it is committed by a majority all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_is_added_upgraded_made_leader_declared_down_and_removed() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    let fourth = cluster.add(NodeRole::Voter).await;
    let node = cluster.node(leader.id);
    assert_eq!(node.map().unwrap().nodes[&fourth].role, NodeRole::Listener);
    cluster.upgrade(fourth).await;
    assert_eq!(node.config().unwrap().replication_factor, 3);

    assert_eq!(node.switch_over(fourth, "test").await.unwrap().id, fourth);
    assert_eq!(cluster.leader().await.id, fourth);
    // Who leads hands over before it is declared down, and before it is removed.
    let down = cluster.node(fourth).down_node(fourth, "a test", "operator").await.unwrap();
    assert_eq!(down.state, NodeState::Down);
    let next = cluster.leader().await;
    assert_ne!(next.id, fourth);
    cluster.node(next.id).remove_node(fourth, "test").await.unwrap();
    cluster.until("the removed node has noticed", || *cluster.node(fourth).removed().borrow()).await;
    assert!(matches!(cluster.node(fourth).map(), Err(ClusterError::Precondition(_))));

    let fifth = cluster.add(NodeRole::Voter).await;
    assert!(fifth > fourth, "an id was used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_was_to_be_handed_over_is_never_held_again_in_its_term() {
    let cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader.id);
    // The target gets the order and cannot win. It may still stand at any time, and win votes in spite of all promises.
    cluster.lose(&[Kind::Vote]);
    let target = NodeId(leader.id.0 % 3 + 1);
    let votes = cluster.sent(Kind::Vote);
    let switching = {
        let node = node.clone();
        tokio::spawn(async move { node.switch_over(target, "test").await })
    };
    cluster.until("the target stands", || cluster.sent(Kind::Vote) > votes).await;
    while !switching.is_finished() {
        assert!(node.is_leader().is_err(), "the term that is handed over has a lease");
        assert_eq!(node.lease_end(), None);
        tokio::task::yield_now().await;
    }
    let refused = switching.await.unwrap().unwrap_err();
    // A heartbeat that meets the target's higher term ends the old leader's, which then waits for the next one.
    let told = refused.to_string().contains("could not take over") || matches!(refused, ClusterError::NoLeader(_));
    assert!(told, "{refused}");
    cluster.lose(&[]);
    assert!(cluster.leader().await.term > leader.term);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_while_it_is_away_notices_when_it_is_back() {
    let mut cluster = Harness::without_databases(3).await;
    let leader = cluster.leader().await;
    let away = NodeId(leader.id.0 % 3 + 1);
    cluster.kill(away).await;
    cluster.node(leader.id).remove_node(away, "test").await.unwrap();
    cluster.restart(away).await;
    cluster.until("it has noticed", || *cluster.node(away).removed().borrow()).await;
    assert_eq!(cluster.leader().await.id, leader.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_votes_and_never_leads() {
    let mut cluster = Harness::without_databases(2).await;
    let witness = cluster.add(NodeRole::Witness).await;
    cluster.upgrade(witness).await;
    let leader = cluster.leader().await;
    cluster.kill(leader.id).await;
    let next = cluster.leader().await;
    assert!(next.id != witness && next.id != leader.id);
    let refused = cluster.node(next.id).switch_over(witness, "test").await.unwrap_err();
    assert!(refused.to_string().contains("never leads"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn autoremove_removes_who_is_not_seen_and_stops_at_the_minimum() {
    let mut cluster = Harness::without_databases(3).await;
    let fourth = cluster.add(NodeRole::Voter).await;
    cluster.upgrade(fourth).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader.id);
    node.set_config(update(serde_json::json!({"autoremove-enabled": true})), "test").await.unwrap();
    let gone: Vec<_> = (1..=4).map(NodeId).filter(|id| *id != leader.id).take(2).collect();
    cluster.kill(gone[0]).await;
    cluster.until("it is removed", || !node.map().unwrap().nodes.contains_key(&gone[0])).await;
    let mut events = node.events(None, 1000, Duration::ZERO).await;
    events.retain(|event| event.kind == EventKind::NodeRemoved);
    let removed = events.pop().unwrap();
    assert_eq!(removed.actor, "autoremove");

    // Only then two of three are a majority.
    cluster.until("it has no vote any more", || node.voters().len() == 3).await;
    cluster.kill(gone[1]).await;
    cluster
        .until("it is told unreachable", || node.map().unwrap().nodes[&gone[1]].state == NodeState::Unreachable)
        .await;
    tokio::time::sleep(15 * node.config().unwrap().node_timeout.get()).await;
    assert!(node.map().unwrap().nodes.contains_key(&gone[1]), "removed below the minimum");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_compacted_and_a_new_node_gets_a_snapshot() {
    let mut cluster = Harness::without_databases(1).await;
    let node = cluster.node(ONE);
    for minimum in 0..2500u32 {
        let change = serde_json::json!({"autoremove-minimum": minimum % 2 + 1});
        node.set_config(update(change), "test").await.unwrap();
    }
    let info = node.info().await.unwrap();
    let kinds: Vec<_> = info.logs[0].payload.keys().map(String::as_str).collect();
    assert_eq!((info.logs.len(), kinds), (1, vec!["snapshot"]), "the log is compacted");
    let second = cluster.add(NodeRole::Voter).await;
    cluster.upgrade(second).await;
    let applied = |id| cluster.node(id).map().map(|map| map.index).unwrap_or(LogIndex(0));
    cluster.until("the new node has the state", || applied(second) == applied(ONE)).await;
    assert_eq!(cluster.node(second).config().unwrap(), node.config().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_none_is_refused_and_the_node_goes_on() {
    let cluster = Harness::without_databases(1).await;
    let (node, before) = (cluster.node(ONE), cluster.leader().await);
    let two = NodeId(2);
    // Of a leader of the far future, so that nothing but its bytes speaks against it.
    let piece = |transfer, offset, data: Vec<u8>, last| {
        let vote = VoteRecord { term: Term(1000), voted_for: two, committed: true };
        let meta = Default::default();
        PeerRequest::Snapshot(SnapshotChunk { transfer: Uuid::from_u128(transfer), vote, meta, offset, data, last })
    };
    let refused = async |request| match node.serve(two, request).await {
        PeerResponse::Failed(reason) => reason,
        other => panic!("{other:?}"),
    };
    for (number, data) in
        [vec![], vec![0xff; 1000], vec![1], (0..=255).cycle().take(100_000).collect()].into_iter().enumerate()
    {
        let reason = refused(piece(number as u128, 0, data, true)).await;
        assert!(reason.contains("the snapshot cannot be read"), "{reason}");
    }
    // Pieces that follow nothing, and more than one may be.
    assert!(refused(piece(10, 1, vec![0], false)).await.contains("does not follow 0 bytes"));
    assert!(refused(piece(11, u64::MAX, vec![0], true)).await.contains("does not follow 0 bytes"));
    for offset in 0..16 {
        let answer = node.serve(two, piece(12, offset << 22, vec![0; 1 << 22], false)).await;
        assert!(matches!(answer, PeerResponse::SnapshotPart), "{answer:?}");
    }
    assert!(refused(piece(12, 1 << 26, vec![0], false)).await.contains("does not follow"));
    assert_eq!(node.is_leader().unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_which_a_task_has_panicked_says_so() {
    let cluster = Harness::with_databases(3).await;
    let leader = cluster.leader().await.id;
    cluster.serving(leader).await;
    assert_eq!(cluster.node(leader).stopped(), None);
    cluster.database(leader).panic_when_fenced();
    cluster.database(leader).crash();
    cluster
        .until("it says so", || cluster.node(leader).stopped().is_some_and(|reason| reason.contains("panicked")))
        .await;
}
