//! A database that somebody else than its agent promotes.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{Database, DatabaseError, DatabaseRole, Promotion};

use super::node::*;

/// Waits until it is noted that the database of a node is a standby.
async fn noted(node: &Node) {
    let what = format!("node {} is known as a standby", node.config.node);
    until(&what, WAIT_DEADLINE, async || {
        let names = entries_of(&node.config.run_dir);
        holds(names.iter().any(|name| name == "standby"), names)
    })
    .await;
}

/// A primary with a table of one row, its promotion, and a standby of it that is known as one.
async fn pair(ground: &Ground) -> (Node, Promotion, Node) {
    let (one, promotion) = Node::primary(ground, 1, 1).await;
    one.execute("CREATE TABLE t AS SELECT 1 AS id").await;
    let two = Node::new(ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.has_rows(1).await;
    noted(&two).await;
    (one, promotion, two)
}

fn strayed(node: &Node) -> bool {
    node.postgres.status().borrow().strayed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_somebody_else_promotes_has_strayed_until_it_is_rewound() {
    let ground = Ground::new();
    let (one, promotion, two) = pair(&ground).await;
    let primary = one.as_primary(1, promotion);
    assert!(!strayed(&two));

    two.execute("SELECT pg_promote()").await;
    two.until("strayed", |status| status.role == DatabaseRole::Primary && status.strayed).await;
    // It waits for nobody with that, as a client that commits by default would, for ever.
    two.execute("SET synchronous_commit = local; INSERT INTO t SELECT generate_series(1, 1000)").await;
    two.execute("CHECKPOINT").await;
    one.execute("INSERT INTO t VALUES (2)").await;

    // As a standby it is one whose WAL does not count, under the next agent, too.
    let end = two.postgres.fence(DEADLINE).await.unwrap();
    assert!(end > one.postgres.status().borrow().lsn.unwrap());
    assert!(strayed(&two));
    let two = two.reopened().await.watched();
    two.until("strayed", |status| status.role == DatabaseRole::Standby && status.strayed).await;

    // There is no term whose start says where its WAL branches off.
    two.postgres.rewind(primary, Lsn(u64::MAX)).await.unwrap();
    two.streaming().await;
    two.has_rows(2).await;
    assert!(!strayed(&two));
    let two = two.reopened().await;
    assert!(!strayed(&two));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_strayed_and_died_before_its_first_checkpoint_is_cloned() {
    let ground = Ground::new();
    let (one, promotion, two) = pair(&ground).await;
    let primary = one.as_primary(1, promotion);
    // So much is to be written that a checkpoint, which takes its time, is not done when it dies.
    one.execute("INSERT INTO t SELECT generate_series(2, 300000)").await;
    two.has_rows(300_000).await;
    two.execute("SELECT pg_promote()").await;
    two.execute("SET synchronous_commit = local; DELETE FROM t WHERE id % 2 = 0").await;
    kill(two.postgres.pid().unwrap());
    two.postgres.fence(DEADLINE).await.unwrap();
    one.execute("INSERT INTO t VALUES (0)").await;
    // pg_rewind would find nothing to do.
    let failed = two.postgres.rewind(primary.clone(), Lsn(u64::MAX)).await.unwrap_err();
    assert!(matches!(failed, DatabaseError::Hopeless { .. }), "{failed}");
    two.copy_from(primary).await.unwrap();
    two.has_rows(300_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_promoted_without_an_agent_and_died_has_strayed() {
    let ground = Ground::new();
    let (one, promotion, mut two) = pair(&ground).await;
    two.run.take().unwrap().abort();
    two.execute("SELECT pg_promote()").await;
    two.execute("SET synchronous_commit = local; INSERT INTO t VALUES (9)").await;
    kill(two.postgres.pid().unwrap());
    let two = two.reopened().await.watched();
    two.postgres.fence(DEADLINE).await.unwrap();
    assert!(strayed(&two));

    // The next primary begins a timeline of the same number.
    one.postgres.fence(DEADLINE).await.unwrap();
    assert!(!strayed(&one));
    let second = one.promote(2).await;
    assert_eq!(second.timeline, promotion.timeline + 1);
    one.execute("INSERT INTO t VALUES (2)").await;
    let primary = one.as_primary(2, second);
    let failed = two.postgres.rewind(primary.clone(), Lsn(u64::MAX)).await.unwrap_err();
    assert!(matches!(failed, DatabaseError::Hopeless { .. }), "{failed}");
    assert!(strayed(&two));
    two.copy_from(primary).await.unwrap();
    two.has_rows(2).await;
    assert!(!strayed(&two));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_started_as_a_primary_has_no_timeline_of_its_own_and_is_cloned() {
    let ground = Ground::new();
    let (one, promotion, mut two) = pair(&ground).await;
    let primary = one.as_primary(1, promotion);
    two.run.take().unwrap().abort();
    let program = std::fs::read_link(format!("/proc/{}/exe", two.postgres.pid().unwrap())).unwrap();
    two.postgres.stop().await.unwrap();
    let data_dir = &two.config.data_dir;
    std::fs::remove_file(data_dir.join("standby.signal")).unwrap();
    let owner = std::fs::metadata(data_dir).unwrap();
    let mut server = Command::new(program);
    server.arg("-D").arg(data_dir).current_dir(data_dir).uid(owner.uid()).gid(owner.gid());
    let mut server = server.spawn().unwrap();
    until("it starts", WAIT_DEADLINE, async || try_connect(two.config.ip, two.config.port).await.map(drop)).await;
    two.execute("SET synchronous_commit = local; INSERT INTO t VALUES (9)").await;
    server.kill().unwrap();
    server.wait().unwrap();
    one.execute("INSERT INTO t VALUES (2)").await;

    let two = two.reopened().await.watched();
    two.postgres.fence(DEADLINE).await.unwrap();
    assert!(strayed(&two));
    let failed = two.postgres.rewind(primary.clone(), Lsn(u64::MAX)).await.unwrap_err();
    assert!(matches!(failed, DatabaseError::Hopeless { .. }), "{failed}");
    two.copy_from(primary).await.unwrap();
    two.has_rows(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_seen_to_have_strayed_is_known_though_nothing_was_noted_of_it_before() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    let two = Node::new(&ground, 2).await;
    let primary = one.as_primary(1, promotion);
    Database::copy_from(two.postgres.as_ref(), primary.clone()).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();
    assert!(!two.config.run_dir.join("standby").exists());
    two.execute("SELECT pg_promote()").await;
    two.execute("CHECKPOINT").await;
    two.postgres.demote(DEADLINE).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();
    assert!(strayed(&two));
    // A timeline that the primary lacks is not followed, whatever is known.
    let failed = two.postgres.follow(primary.clone()).await.unwrap_err();
    assert!(matches!(failed, DatabaseError::Hopeless { .. }), "{failed}");
    two.postgres.rewind(primary, Lsn(u64::MAX)).await.unwrap();
    let two = two.watched();
    two.streaming().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_promoted_as_it_was_told_has_not_strayed_however_it_ends() {
    let ground = Ground::new();
    let (mut node, _) = Node::primary(&ground, 1, 1).await;
    for term in [2, 3] {
        // Killed while no agent is there, and a standby again under the next.
        node.run.take().unwrap().abort();
        kill(node.postgres.pid().unwrap());
        node = node.reopened().await.watched();
        node.until("a standby", |status| status.role == DatabaseRole::Standby).await;
        noted(&node).await;
        assert!(!strayed(&node));
        // Where it has strayed and is to lead all the same, that is over.
        let end = node.postgres.fence(DEADLINE).await.unwrap();
        if term == 3 {
            node.execute("SELECT pg_promote()").await;
            assert!(node.postgres.fence(DEADLINE).await.unwrap() > end);
            assert!(strayed(&node));
        }
        // What it wrote meanwhile belongs to the term that it is promoted in.
        assert_eq!(node.promote(term).await.start, end);
        assert!(!strayed(&node));
        node.postgres.fence(DEADLINE).await.unwrap();
        assert!(!strayed(&node));
        node.promote(term).await;
    }
    node.postgres.stop().await.unwrap();
    node = node.reopened().await.watched();
    node.postgres.fence(DEADLINE).await.unwrap();
    assert!(!strayed(&node));
}
