//! Who is the primary changes.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use qluster_consensus::model::{Lsn, NodeId, Term};
use qluster_consensus::protocol::database::{Database, DatabaseError, DatabaseRole, DatabaseStatus, Primary, SyncRule};
use tokio_postgres::NoTls;

use super::node::*;

/// Where databases part that do not.
const NOWHERE: Lsn = Lsn(u64::MAX);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_fails_over_and_takes_the_old_primary_back() {
    let ground = Ground::new();

    // The first node is created, led, and written to.
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    assert_eq!(promotion.timeline, 2);
    assert_eq!(one.promote(1).await, promotion, "a promotion is repeated");
    one.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)").await;
    let status = one.until("primary", |status| status.role == DatabaseRole::Primary).await;
    assert_eq!((status.timeline, status.follows, status.streaming), (Some(2), None, false));

    // The second clones it, and streams what is written.
    let two = Node::new(&ground, 2).await;
    assert_eq!(two.postgres.status().borrow().role, DatabaseRole::Absent);
    let two = two.watched();
    let begun = Instant::now();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    timed("clone", begun, ());
    let status = two.streaming().await;
    assert_eq!((status.follows, status.timeline, status.progress), (Some((NodeId(1), Term(1))), Some(2), None));
    one.execute("INSERT INTO t SELECT generate_series(1001, 2000)").await;
    two.has_rows(2000).await;
    assert_eq!(one.postgres.system_identifier().await.unwrap(), two.postgres.system_identifier().await.unwrap());

    // The first primary is killed, comes back as a standby by itself, and waits for orders.
    kill(one.postgres.pid().unwrap());
    let end_of_one = one.postgres.fence(DEADLINE).await.unwrap();
    one.until("standby", |status| status.role == DatabaseRole::Standby && status.follows.is_none()).await;

    // The second is fenced at the end of what it has received, and promoted there.
    let received = two.postgres.status().borrow().lsn.unwrap();
    let begun = Instant::now();
    let end_of_two = timed("fence of a standby", begun, two.postgres.fence(DEADLINE).await.unwrap());
    assert!(received <= end_of_two && end_of_two <= end_of_one, "{received} {end_of_two} {end_of_one}");
    let begun = Instant::now();
    let second = timed("promote", begun, two.promote(2).await);
    assert_eq!((second.timeline, second.start), (3, end_of_two));
    two.execute("INSERT INTO t SELECT generate_series(2001, 3000)").await;

    // The first, told to follow, does.
    one.postgres.follow(two.as_primary(2, second)).await.unwrap();
    one.streaming().await;
    one.has_rows(3000).await;

    // It is led although the second still leads: what both write parts them.
    let begun = Instant::now();
    timed("fence of a streaming standby", begun, one.postgres.fence(DEADLINE).await.unwrap());
    let third = one.promote(3).await;
    one.execute("INSERT INTO t SELECT generate_series(3001, 4000)").await;
    two.execute("INSERT INTO t SELECT generate_series(5001, 5500)").await;

    // A primary that cannot be reached is no reason to clone, a rewind that was interrupted is.
    let away = Primary { port: Node::config(&ground, 9).port, ..one.as_primary(3, third) };
    let error = two.postgres.rewind(away, third.start).await.unwrap_err();
    assert!(!matches!(error, DatabaseError::Hopeless { .. }), "{error:?}");
    let mark = two.config.run_dir.join("rewinding");
    std::fs::write(&mark, "").unwrap();
    let error = two.postgres.rewind(one.as_primary(3, third), third.start).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Hopeless { .. }), "{error:?}");
    std::fs::remove_file(&mark).unwrap();

    // The second, a primary still, is rewound.
    let begun = Instant::now();
    two.postgres.rewind(one.as_primary(3, third), third.start).await.unwrap();
    timed("rewind", begun, ());
    let status = two.streaming().await;
    assert_eq!(status.follows, Some((NodeId(1), Term(3))));
    two.has_rows(4000).await;

    // A standby that is killed comes back and follows on.
    let killed = two.postgres.pid().unwrap();
    let begun = Instant::now();
    kill(killed);
    two.until("noticed as ended", |status| !status.streaming).await;
    timed("crash noticed", begun, ());
    two.streaming().await;
    timed("crashed standby streams", begun, ());
    assert_ne!(two.postgres.pid(), Some(killed));
    assert_eq!(two.postgres.status().borrow().follows, Some((NodeId(1), Term(3))));

    // Both outlive their agents.
    for (node, role) in [(one, DatabaseRole::Primary), (two, DatabaseRole::Standby)] {
        let pid = node.postgres.pid();
        let node = node.reopened().await.watched();
        let status = node.until("taken over", |status| status.role == role).await;
        assert_eq!((node.postgres.pid(), status.role), (pid, role));
        let follows = (role == DatabaseRole::Standby).then_some((NodeId(1), Term(3)));
        assert_eq!(status.follows, follows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_acknowledges_nothing_more() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    node.execute("CREATE TABLE t (id bigint PRIMARY KEY)").await;

    let acknowledged = Arc::new(AtomicI64::new(0));
    let mut writers = Vec::new();
    for writer in 0..4 {
        // Before anything is demoted: one that is still connecting then could not.
        let client = connect(node.config.ip, node.config.port).await;
        let acknowledged = acknowledged.clone();
        writers.push(tokio::spawn(async move {
            for row in 0.. {
                let id: i64 = row * 4 + writer;
                if client.execute("INSERT INTO t VALUES ($1)", &[&id]).await.is_err() {
                    return;
                }
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    until_acknowledged(&acknowledged, 100).await;
    let begun = Instant::now();
    node.postgres.demote(DEADLINE).await.unwrap();
    timed("demote under load", begun, ());
    assert!(begun.elapsed() < DEADLINE);
    assert_eq!(node.postgres.status().borrow().role, DatabaseRole::Stopped);
    assert_eq!(node.postgres.pid(), None);
    for writer in writers {
        writer.await.unwrap();
    }

    // It stays stopped until it is fenced, and then has all that was acknowledged.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.postgres.pid(), None);
    node.postgres.demote(DEADLINE).await.unwrap();
    let begun = Instant::now();
    timed("fence of a stopped one", begun, node.postgres.fence(DEADLINE).await.unwrap());
    assert!(node.rows().await >= acknowledged.load(Ordering::SeqCst));
    // A standby is not touched by it.
    let pid = node.postgres.pid();
    node.postgres.demote(DEADLINE).await.unwrap();
    assert_eq!(node.postgres.pid(), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_ended_by_the_deadline() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let client = node.connect().await;
    for pid in ground.processes() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }
    let begun = Instant::now();
    // They are killed at three quarters of it.
    let deadline = Duration::from_secs(4);
    node.postgres.demote(deadline).await.unwrap();
    timed("demote of a frozen one", begun, ());
    assert!(begun.elapsed() < deadline, "{:?}", begun.elapsed());
    assert!(client.batch_execute("SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_that_are_dropped_can_be_repeated() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t AS SELECT generate_series(1, 200000) AS id").await;
    let two = Node::new(&ground, 2).await.watched();
    let primary = one.as_primary(1, promotion);
    for wait in [1, 20, 80, 200, 400] {
        let cloned = tokio::time::timeout(Duration::from_millis(wait), two.copy_from(primary.clone()));
        let _ = cloned.await;
    }
    two.copy_from(primary.clone()).await.unwrap();
    two.has_rows(200_000).await;
    for wait in [1, 5, 10, 20, 40] {
        let _ = tokio::time::timeout(Duration::from_millis(wait), two.postgres.fence(DEADLINE)).await;
        let _ = tokio::time::timeout(Duration::from_millis(wait), two.postgres.follow(primary.clone())).await;
    }
    let end = two.postgres.fence(DEADLINE).await.unwrap();
    for wait in [1, 5, 10] {
        let rule = SyncRule { term: Term(2), ..Default::default() };
        let _ = tokio::time::timeout(Duration::from_millis(wait), two.postgres.promote(rule)).await;
    }
    assert_eq!(two.promote(2).await.start, end);
    // What was begun to be promoted is a primary to whoever fences it.
    let pid = two.postgres.pid();
    two.postgres.fence(DEADLINE).await.unwrap();
    assert_ne!(two.postgres.pid(), pid);
    let left = entries_of(&two.config.data_dir);
    assert!(left.iter().all(|name| !name.starts_with("qluster.new")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_shut_out_from_before_a_promotion_until_they_are_let_in() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t AS SELECT 1 AS id").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();

    // A reader; one that is let in by the rules of before and has not said who it is; and one that comes after that one
    // was accepted.
    let reader = two.connect().await;
    let (ip, port) = (two.config.ip, two.config.port);
    let slow = tokio::net::TcpStream::connect((ip, port.get())).await.unwrap();
    let after = two.connect().await;
    let begun = Instant::now();
    let second = timed("promote with clients", begun, two.postgres.promote(rule(2, &[], 0)).await.unwrap());
    assert!(reader.batch_execute("SELECT 1").await.is_err());
    assert!(after.batch_execute("SELECT 1").await.is_err());
    let mut config = tokio_postgres::Config::new();
    config.user("postgres").dbname("postgres");
    assert!(config.connect_raw(slow, NoTls).await.is_err());
    let refused = |error: tokio_postgres::Error| {
        assert!(error.as_db_error().unwrap().message().contains("pg_hba.conf"), "{error:?}");
    };
    refused(try_connect(ip, port).await.err().unwrap());

    // So it stays under another agent, and when the user changes who may connect.
    let two = two.reopened().await.watched();
    two.until("primary", |status| status.role == DatabaseRole::Primary).await;
    std::fs::write(two.config.data_dir.join("pg_ident.conf"), "mine a b\n").unwrap();
    until("the user's lines are taken over", WAIT_DEADLINE, async || {
        let taken_over = std::fs::read_to_string(two.config.data_dir.join("qluster_ident.conf")).unwrap();
        holds(taken_over.contains("mine a b"), taken_over)
    })
    .await;
    refused(try_connect(ip, port).await.err().unwrap());

    // Standbys get in. Clients do, once they are let in, and by rules that hold.
    one.postgres.fence(DEADLINE).await.unwrap();
    assert_eq!(one.rows().await, 1, "a fenced standby has readers");
    one.postgres.rewind(two.as_primary(2, second), second.start).await.unwrap();
    one.streaming().await;
    let access = two.config.data_dir.join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();
    std::fs::write(&access, "host everything\n").unwrap();
    std::fs::remove_file(two.config.data_dir.join("qluster_hba.good")).unwrap();
    let error = two.postgres.admit().await.unwrap_err().to_string();
    assert!(error.contains("pg_hba.conf has an error"), "{error}");
    refused(try_connect(ip, port).await.err().unwrap());
    std::fs::write(&access, text).unwrap();
    two.postgres.admit().await.unwrap();
    two.execute("INSERT INTO t VALUES (2)").await;
    one.has_rows(2).await;
    let kept = two.connect().await;
    two.postgres.admit().await.unwrap();
    kept.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_programs_have_moved_is_ended() {
    let ground = Ground::new();
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    let installed =
        versions.map(|version| version.path().join("bin")).find(|bin| bin.join("postgres").exists()).unwrap();
    let (copy, link) = (ground.path().join("copy"), ground.path().join("bin"));
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(installed.join("postgres"), copy.join("postgres")).unwrap();
    for name in ["initdb", "pg_controldata"] {
        std::os::unix::fs::symlink(installed.join(name), copy.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    let mut config = Node::config(&ground, 1);
    config.bin_dir = Some(link.clone());
    let node = Node::open(config).await;
    node.postgres.initialize().await.unwrap();
    node.postgres.fence(DEADLINE).await.unwrap();
    node.promote(1).await;

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&installed, &link).unwrap();
    node.postgres.demote(DEADLINE).await.unwrap();
    assert_eq!((node.postgres.pid(), ground.processes()), (None, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_agent_loses_its_session_is_still_one() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let primary = |status: &DatabaseStatus| status.role == DatabaseRole::Primary && status.lsn.is_some();
    node.until("primary", primary).await;
    let mut status = node.postgres.status();
    let watcher = tokio::spawn(async move {
        loop {
            status.changed().await.unwrap();
            let seen = status.borrow_and_update().clone();
            if seen.role != DatabaseRole::Primary {
                return seen;
            }
        }
    });
    let client = node.connect().await;
    let mut clients = Vec::new();
    while let Ok(client) = try_connect(node.config.ip, node.config.port).await {
        clients.push(client);
    }
    // Whoever comes first gets the place of the agent.
    let (ip, port) = (node.config.ip, node.config.port);
    let takes_the_place = tokio::spawn(async move {
        loop {
            if let Ok(client) = try_connect(ip, port).await {
                clients.push(client);
            }
        }
    });
    let agents = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%synchronous_standby_names%'
                     AND pid <> pg_backend_pid()";
    let crowded = |status: &DatabaseStatus| status.unfit.as_ref().is_some_and(|why| why.contains("too many clients"));
    until("the agent finds no place", WAIT_DEADLINE, async || {
        let status = node.postgres.status().borrow().clone();
        if !crowded(&status) {
            client.batch_execute(agents).await.unwrap();
        }
        holds(crowded(&status), status)
    })
    .await;
    takes_the_place.abort();
    let _ = takes_the_place.await;
    node.until("primary", primary).await;
    assert!(!watcher.is_finished(), "{:?}", watcher.await);
    watcher.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_that_ends_before_it_has_changed_anything_leaves_a_standby() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    let script = ground.path().join("pg_rewind");
    let does = |lines: &str| {
        std::fs::write(&script, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let mut config = Node::config(&ground, 2);
    config.programs.insert("pg_rewind".into(), script.to_str().unwrap().into());
    let two = Node::open(config).await.watched();
    let primary = one.as_primary(1, promotion);
    two.copy_from(primary.clone()).await.unwrap();
    let standby = |status: &DatabaseStatus| status.role == DatabaseRole::Standby && status.unfit.is_none();

    does("echo 'connection to server failed: Connection refused' >&2; exit 1");
    let failed = two.postgres.rewind(primary.clone(), NOWHERE).await.unwrap_err();
    assert!(!matches!(failed, DatabaseError::Hopeless { .. }), "{failed:?}");
    two.until("a standby again", standby).await;

    // The leader changes, say, while it is under way.
    let begin = async |lines: &str| {
        does(&format!("{lines}; echo '1/4 kB (26%) copied' >&2; sleep 600"));
        let (postgres, primary) = (two.postgres.clone(), primary.clone());
        let rewind = tokio::spawn(async move { Database::rewind(postgres.as_ref(), primary, NOWHERE).await });
        two.until("rewinding", |status| status.progress == Some(26)).await;
        rewind.abort();
        let _ = rewind.await;
    };
    begin("echo 'pg_rewind: rewinding from last common checkpoint at 0/28 on timeline 1' >&2").await;
    two.until("a standby again", standby).await;

    begin("echo 'pg_rewind: need to copy 5 MB (total source directory size is 20 MB)' >&2").await;
    let status = two.until("stopped", |status| status.role == DatabaseRole::Stopped && status.unfit.is_some()).await;
    assert!(status.unfit.as_ref().unwrap().contains("must be cloned"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_that_fails_after_it_has_changed_something_asks_for_a_clone() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id int)").await;
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    let real = versions.map(|version| version.path().join("bin/pg_rewind")).find(|path| path.exists()).unwrap();
    // What says that it has begun is PostgreSQL's own.
    let script = ground.path().join("pg_rewind");
    std::fs::write(&script, format!("#!/bin/sh\n{} \"$@\"\nexit 1\n", real.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = Node::config(&ground, 2);
    config.programs.insert("pg_rewind".into(), script.to_str().unwrap().into());
    let two = Node::open(config).await.watched();
    let primary = one.as_primary(1, promotion);
    two.copy_from(primary.clone()).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();
    let fork = two.promote(2).await.start;
    for node in [&one, &two] {
        node.execute("INSERT INTO t VALUES (1)").await;
    }
    let failed = two.postgres.rewind(primary, fork).await.unwrap_err();
    assert!(matches!(failed, DatabaseError::Hopeless { .. }), "{failed:?}");
    let status = two.until("stopped", |status| status.role == DatabaseRole::Stopped && status.unfit.is_some()).await;
    assert!(status.unfit.as_ref().unwrap().contains("must be cloned"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn timelines_of_one_number_that_two_promotions_began_are_not_taken_for_one() {
    let ground = Ground::new();
    let (one, first) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id int)").await;
    let (two, three) = (Node::new(&ground, 2).await.watched(), Node::new(&ground, 3).await.watched());
    for node in [&two, &three] {
        node.copy_from(one.as_primary(1, first)).await.unwrap();
        node.streaming().await;
    }
    // Stopped in good order, it has sent all that it wrote to both.
    one.postgres.stop().await.unwrap();
    let ends = [two.postgres.fence(DEADLINE).await.unwrap(), three.postgres.fence(DEADLINE).await.unwrap()];
    assert_eq!(ends[0], ends[1]);

    // The second is promoted and lost before anybody has heard of that, so the third chooses the same number.
    let (second, third) = (two.promote(2).await, three.promote(3).await);
    assert_eq!(second, third);
    two.execute("INSERT INTO t SELECT generate_series(1, 3)").await;
    three.execute("INSERT INTO t SELECT generate_series(11, 30)").await;
    two.postgres.demote(DEADLINE).await.unwrap();
    let failed = two.postgres.rewind(three.as_primary(3, third), third.start).await.unwrap_err();
    assert!(matches!(failed, DatabaseError::Hopeless { .. }), "{failed:?}");
    assert!(failed.to_string().contains("its timelines do not show that"), "{failed}");
    two.copy_from(three.as_primary(3, third)).await.unwrap();
    two.streaming().await;
    two.has_rows(20).await;

    // Where it is one timeline, there is nothing to rewind, whatever was told.
    two.postgres.rewind(three.as_primary(3, third), third.start).await.unwrap();
    two.postgres.settle(three.as_primary(3, third)).await.unwrap();
    two.has_rows(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_start_is_kept_and_says_why() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t AS SELECT 1 AS id").await;
    let settings = |node: &Node| node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(settings(&one)).unwrap();
    // As on a host that lacks an extension of the primary's.
    std::fs::write(settings(&one), format!("{text}\nshared_preload_libraries = 'not_here'\n")).unwrap();
    let two = Node::new(&ground, 2).await.watched();
    Database::copy_from(two.postgres.as_ref(), one.as_primary(1, promotion)).await.unwrap();
    let ends = |status: &DatabaseStatus| status.unfit.as_ref().is_some_and(|unfit| unfit.contains("not_here"));
    two.until("says why it does not start", ends).await;
    std::fs::write(settings(&two), text).unwrap();
    two.streaming().await;
    two.has_rows(1).await;
}
