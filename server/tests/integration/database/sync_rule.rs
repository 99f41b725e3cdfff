//! Commits that wait for standbys.

use std::time::Duration;

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::Database;
use rustix::process::Signal;

use super::node::*;

#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_the_standbys_of_the_rule_from_the_first_one() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.postgres.promote(rule(1, &[2], 1)).await.unwrap();
    one.postgres.admit().await.unwrap();
    let client = one.connect().await;
    let write = tokio::spawn(async move { client.batch_execute("CREATE TABLE t (id bigint)").await });

    let two = Node::new(&ground, 2).await.watched();
    assert!(!write.is_finished());
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    tokio::time::timeout(WAIT_DEADLINE, write).await.unwrap().unwrap().unwrap();

    // It holds nothing for another term.
    one.postgres.set_sync_rule(rule(2, &[2], 1)).await.unwrap();
    let client = one.connect().await;
    let write = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (1)").await });
    until_number(&one.connect().await, WAITING, 1).await;
    assert!(!write.is_finished());

    // It does once it follows in that term.
    two.postgres.fence(DEADLINE).await.unwrap();
    two.postgres.follow(one.as_primary(2, promotion)).await.unwrap();
    tokio::time::timeout(WAIT_DEADLINE, write).await.unwrap().unwrap().unwrap();

    // A rule of nobody lets commits through.
    two.postgres.fence(DEADLINE).await.unwrap();
    one.postgres.set_sync_rule(rule(2, &[], 0)).await.unwrap();
    one.execute("INSERT INTO t VALUES (2)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_rule_is_in_force_when_it_is_set_also_where_only_its_count_changed() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let (two, three) = (Node::new(&ground, 2).await.watched(), Node::new(&ground, 3).await.watched());
    for node in [&two, &three] {
        node.copy_from(one.as_primary(1, promotion)).await.unwrap();
    }
    one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
    one.execute("INSERT INTO t VALUES (0)").await;
    let observer = one.connect().await;
    let of = "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type =";
    let receiver = number(&three.connect().await, &format!("{of} 'walreceiver'")).await.try_into().unwrap();
    let sender = format!("{of} 'walsender' AND application_name = 'qluster_2_1'");
    let sender = number(&observer, &sender).await.try_into().unwrap();
    signal(receiver, Signal::STOP);

    for row in 0..10 {
        one.postgres.set_sync_rule(rule(1, &[2, 3], 1)).await.unwrap();
        one.execute("INSERT INTO t VALUES (1)").await;
        if row == 0 {
            // The rule does not count as in force while a sender has not loaded it.
            signal(sender, Signal::STOP);
            let postgres = one.postgres.clone();
            let mut set = tokio::spawn(async move { postgres.set_sync_rule(rule(1, &[2, 3], 2)).await });
            let fresh = "SELECT (current_setting('synchronous_standby_names') ~ '^[A-Z]+ 2')::int::bigint";
            until_number(&observer, fresh, 1).await;
            let early = tokio::time::timeout(Duration::from_millis(300), &mut set).await;
            signal(sender, Signal::CONT);
            assert!(early.is_err(), "a sender has not loaded it yet");
            set.await.unwrap().unwrap();
        } else {
            one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
        }
        let client = one.connect().await;
        let write = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (2)").await });
        while number(&observer, WAITING).await == 0 {
            assert!(!write.is_finished(), "acknowledged in round {row}");
        }
        // Nothing is done for a rule that is in force.
        let conf = one.config.data_dir.join("qluster.conf");
        let before = std::fs::read_to_string(&conf).unwrap();
        one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&conf).unwrap(), before);
        assert!(!write.is_finished());
        one.postgres.set_sync_rule(rule(1, &[2, 3], 1)).await.unwrap();
        // Waiters are released when a standby reports, and it reports at once if there is something to write.
        one.execute("INSERT INTO t VALUES (3)").await;
        tokio::time::timeout(WAIT_DEADLINE, write).await.unwrap().unwrap().unwrap();
    }

    signal(receiver, Signal::CONT);
    one.postgres.set_sync_rule(rule(1, &[2, 3], 2)).await.unwrap();
    tokio::time::timeout(WAIT_DEADLINE, one.execute("INSERT INTO t VALUES (3)")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_held_before_it_is_said_to_be() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    assert!(one.postgres.hold().await.is_err(), "a standby");
    let promotion = one.postgres.promote(rule(1, &[2], 1)).await.unwrap();
    one.postgres.admit().await.unwrap();
    let observer = one.connect().await;

    // Nobody follows. What is given up leaves nothing behind.
    for wait in [5, 20, 100, 400] {
        let held = tokio::time::timeout(Duration::from_millis(wait), one.postgres.hold()).await;
        assert!(held.is_err(), "nobody holds it");
    }
    let left =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qluster' AND backend_type = 'client backend'";
    until_number(&observer, left, 1).await;
    assert_eq!(number(&observer, WAITING).await, 0);

    // It is held once somebody follows, in this term.
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(0, promotion)).await.unwrap();
    let postgres = one.postgres.clone();
    let hold = tokio::spawn(async move { postgres.hold().await });
    let streams =
        "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn = pg_current_wal_lsn()";
    until_number(&observer, streams, 1).await;
    assert!(!hold.is_finished(), "the standby of another term");
    let end = number(&observer, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await;
    two.postgres.fence(DEADLINE).await.unwrap();
    two.postgres.follow(one.as_primary(1, promotion)).await.unwrap();
    tokio::time::timeout(WAIT_DEADLINE, hold).await.unwrap().unwrap().unwrap();
    assert!(two.postgres.fence(DEADLINE).await.unwrap() >= Lsn(end.try_into().unwrap()));

    // Nobody has to hold it.
    one.postgres.set_sync_rule(rule(1, &[], 0)).await.unwrap();
    one.postgres.hold().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_rule_that_somebody_undoes_stays_or_comes_back() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let wanted = rule(1, &[2], 1);
    node.postgres.set_sync_rule(wanted.clone()).await.unwrap();
    let client = node.connect().await;
    let in_force =
        "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting LIKE 'ANY 1 %'";
    let all = "SELECT count(*) FROM pg_settings WHERE name = 'work_mem' AND setting = '1234'";

    // The user's file, replaced by one that lacks our line, and one with a line behind that.
    let settings = node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    for (users, memory) in [
        ("synchronous_standby_names = ''\n".to_owned(), "on"),
        (format!("{text}\nsynchronous_standby_names = ''\n"), "off"),
    ] {
        std::fs::write(&settings, format!("{users}work_mem = 1234kB\nenable_seqscan = {memory}\n")).unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let loaded = format!("SELECT count(*) FROM pg_settings WHERE name = 'enable_seqscan' AND setting = '{memory}'");
        until_number(&client, &loaded, 1).await;
        assert_eq!((number(&client, in_force).await, number(&client, all).await), (1, 1), "{users}");
    }
    node.postgres.set_sync_rule(rule(1, &[2, 3], 1)).await.unwrap();
    node.postgres.set_sync_rule(wanted.clone()).await.unwrap();

    // What is read after our file is taken out again.
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = ''").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until_number(&client, in_force, 0).await;
    until_number(&client, in_force, 1).await;
    let auto = std::fs::read_to_string(node.config.data_dir.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("synchronous_standby_names"), "{auto}");
    node.postgres.set_sync_rule(wanted).await.unwrap();
    until_number(&client, in_force, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_a_place_left_proves_its_commits_once_there_is_one() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    node.postgres.hold().await.unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = try_connect(node.config.ip, node.config.port).await {
        clients.push(client);
    }
    let postgres = node.postgres.clone();
    let held = tokio::spawn(async move { postgres.hold().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!held.is_finished());
    drop(clients);
    held.await.unwrap().unwrap();
}
