//! What standbys have, and what they come back with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qluster_consensus::model::{Lsn, NodeId, Term};
use qluster_consensus::protocol::database::{Database, DatabaseRole, DatabaseStatus, SyncRule};
use qluster_server::database::Passwords;
use rustix::process::Signal;
use tokio_postgres::NoTls;

use super::node::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_fenced_at_the_end_of_all_that_it_has_received() {
    let ground = Ground::new();
    let (mut one, mut promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id bigint PRIMARY KEY, filler text)").await;
    let mut two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    // The primary is killed while it writes, so that the standby often ends in the midst of a record.
    for term in 1..5 {
        let standby = BTreeSet::from([two.config.node]);
        let rule = SyncRule { term: Term(term), standbys: standby, count: 1 };
        one.postgres.set_sync_rule(rule).await.unwrap();
        two.streaming().await;
        let before = one.rows().await;
        let acknowledged = Arc::new(AtomicI64::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (acknowledged, ip, port) = (acknowledged.clone(), one.config.ip, one.config.port);
                tokio::spawn(async move {
                    let client = connect(ip, port).await;
                    for row in 0.. {
                        let id = i64::try_from(term).unwrap() * 1_000_000 + row * 4 + writer;
                        let sql =
                            "INSERT INTO t SELECT $1, string_agg(random()::text, '') FROM generate_series(1, 200)";
                        if client.execute(sql, &[&id]).await.is_err() {
                            return;
                        }
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        until_acknowledged(&acknowledged, 200).await;
        // As a killed host: nobody shuts down, and nobody comes back by itself.
        let processes = one.postgres.pid().unwrap();
        one.run.take().unwrap().abort();
        kill(processes);
        for writer in writers {
            writer.await.unwrap();
        }
        let begun = Instant::now();
        let end =
            timed("fence of a standby whose primary was killed", begun, two.postgres.fence(DEADLINE).await.unwrap());
        let begun = Instant::now();
        let next = timed("promote", begun, two.promote(term + 1).await);
        assert_eq!(next.start, end);
        assert!(two.rows().await >= before + acknowledged.load(Ordering::SeqCst));

        one = one.reopened().await.watched();
        one.postgres.fence(DEADLINE).await.unwrap();
        let primary = two.as_primary(term + 1, next);
        one.postgres.rewind(primary, next.start).await.unwrap();
        one.streaming().await;
        (one, two, promotion) = (two, one, next);
    }
    assert!(promotion.timeline > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_fenced_whose_receiver_waits_at_the_end_of_a_timeline_and_follows_under_its_new_name() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    // It streams on from its former primary, and that ends the timeline. The startup process gets to it when the receiver
    // waits, and finds no next timeline: so it waits a while, too.
    one.postgres.fence(DEADLINE).await.unwrap();
    let client = two.connect().await;
    until_number(&client, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'", 1).await;
    let startup = number(&client, "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = 'startup'").await;
    let startup = i32::try_from(startup).unwrap();
    signal(startup, Signal::STOP);
    let promotion = one.promote(2).await;
    until_number(&client, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'WalReceiverWaitStart'", 1).await;
    std::fs::remove_file(two.config.data_dir.join("pg_wal/00000003.history")).unwrap();
    signal(startup, Signal::CONT);
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE wait_event IN ('WalReceiverWaitStart', 'RecoveryRetrieveRetryInterval')";
    until_number(&client, waiting, 2).await;
    let fence = tokio::time::timeout(WAIT_DEADLINE, two.postgres.fence(DEADLINE)).await;
    fence.expect("it is never fenced").unwrap();

    two.postgres.follow(one.as_primary(2, promotion)).await.unwrap();
    two.streaming().await;
    let named =
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'qluster_2_2' AND state = 'streaming'";
    until_number(&one.connect().await, named, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standbys_with_a_password_give_it() {
    let ground = Ground::new();
    let nodes = [1, 2].map(|id| {
        let mut config = Node::config(&ground, id);
        config.replication_passwords = Some(Passwords::new(|| vec!["it's a \\ secret: 'ö'".into()]));
        config
    });
    let [one, two] = nodes;
    let one = Node::open(one).await.watched();
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    let two = Node::open(two).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.streaming().await;
    two.postgres.fence(DEADLINE).await.unwrap();
    let second = two.promote(2).await;
    one.postgres.rewind(two.as_primary(2, second), second.start).await.unwrap();
    one.streaming().await;

    // It is in no setting, and nobody gets in without it.
    let settings = format!("{:?}", one.postgres.settings().await.unwrap());
    assert!(!settings.contains("secret:"), "{settings}");
    let config = format!("host=127.0.0.1 port={} user=qluster dbname=postgres password=wrong", two.config.port);
    assert!(tokio_postgres::connect(&config, NoTls).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_standbys_is_replaced_while_they_stream() {
    let ground = Ground::new();
    let known = [1, 2].map(|_| Arc::new(Mutex::new(vec!["old"])));
    let mut nodes = Vec::new();
    for (id, known) in [1, 2].into_iter().zip(&known) {
        let (mut config, known) = (Node::config(&ground, id), known.clone());
        let now = move || known.lock().unwrap().iter().map(|&password| password.into()).collect();
        config.replication_passwords = Some(Passwords::new(now));
        let node = Node::open(config).await.watched();
        tokio::spawn(node.postgres.clone().keep_password());
        nodes.push(node);
    }
    let [one, two] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    one.postgres.initialize().await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.streaming().await;

    // The primary changes it first, and the standby, which knows both, finds that out when it connects again.
    *known[1].lock().unwrap() = vec!["old", "new"];
    *known[0].lock().unwrap() = vec!["new", "old"];
    let config = format!("host=127.0.0.1 port={} user=qluster dbname=postgres password=new", one.config.port);
    let connect = async || tokio_postgres::connect(&config, NoTls).await.map(drop);
    until("the new password is set", WAIT_DEADLINE, connect).await;
    let client = one.connect().await;
    let reconnects = async || {
        let pid = number(&client, "SELECT pid::bigint FROM pg_stat_replication").await;
        client.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
        let another = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND pid <> ";
        until_number(&client, &format!("{another}{pid}"), 1).await;
    };
    reconnects().await;

    // Once the old one is no more known, nothing is amiss.
    known.iter().for_each(|known| *known.lock().unwrap() = vec!["new"]);
    reconnects().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_has_all_of_a_primary_that_stopped_once_it_is_beyond_its_last_record() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    assert_eq!(Node::new(&ground, 9).await.postgres.stop().await.unwrap(), Lsn(0), "there is none");
    one.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) AS id").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    one.execute("INSERT INTO t SELECT generate_series(1, 50000)").await;
    let written = number(&one.connect().await, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await;
    let last = one.postgres.stop().await.unwrap();
    assert!(last >= Lsn(written.try_into().unwrap()), "{last}");
    assert_eq!(one.postgres.stop().await.unwrap(), last, "it is stopped");
    assert!(two.postgres.fence(DEADLINE).await.unwrap() > last);
    // A primary that was killed does not know.
    two.promote(2).await;
    kill(two.postgres.pid().unwrap());
    two.postgres.demote(DEADLINE).await.unwrap();
    assert_eq!(two.postgres.stop().await.unwrap(), Lsn(u64::MAX));
}

/// Writes so much WAL, with checkpoints between, that a primary removes all earlier WAL unless it has to keep it.
async fn churn(primary: &Node) {
    for _ in 0..6 {
        primary.execute("INSERT INTO t SELECT generate_series(1, 100)").await;
        primary.execute("SELECT pg_switch_wal()").await;
        primary.execute("CHECKPOINT").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_away_finds_the_wal_that_it_lacks() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    let settings = one.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    let small = "wal_keep_size = 0\nmin_wal_size = 32MB\nmax_wal_size = 32MB\ncheckpoint_completion_target = 0\n";
    std::fs::write(&settings, format!("{text}\n{small}")).unwrap();
    let one = one.watched();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let (two, three) = (Node::new(&ground, 2).await.watched(), Node::new(&ground, 3).await.watched());
    for node in [&two, &three] {
        node.copy_from(one.as_primary(1, promotion)).await.unwrap();
    }
    let keep = async |node: &Node, standbys: &[(u64, Option<Lsn>)]| {
        let standbys: BTreeMap<_, _> = standbys.iter().map(|&(node, lsn)| (NodeId(node), lsn)).collect();
        node.postgres.keep_wal(standbys).await.unwrap();
    };
    let slots = "SELECT count(*) FROM pg_replication_slots";
    keep(&one, &[(1, None), (2, None), (3, None)]).await;
    keep(&two, &[(1, None), (2, None), (3, None)]).await;
    assert_eq!(number(&one.connect().await, slots).await, 2);
    assert_eq!(number(&two.connect().await, slots).await, 2);

    // It is away, and comes back to the same primary.
    let lsn_of = |node: &Node| node.postgres.status().borrow().lsn;
    let position = three.streaming().await.lsn;
    three.postgres.stop().await.unwrap();
    churn(&one).await;
    keep(&one, &[(2, None), (3, None)]).await;
    churn(&one).await;
    three.postgres.fence(DEADLINE).await.unwrap();
    three.postgres.follow(one.as_primary(1, promotion)).await.unwrap();
    three.streaming().await;
    three.has_rows(1200).await;

    // The slot went along with whoever streams, and WAL behind it is gone.
    let kept = "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = 'qluster_3'";
    let wanted = i64::try_from(position.unwrap().0).unwrap() + (64 << 20);
    until(&format!("the slot has gone along to {wanted}"), WAIT_DEADLINE, async || {
        let kept = number(&one.connect().await, kept).await;
        if kept < wanted {
            keep(&one, &[(2, None), (3, None)]).await;
        }
        holds(kept >= wanted, kept)
    })
    .await;

    // It is away again, the primary is lost, and a standby of it has the WAL.
    let away = three.streaming().await.lsn;
    three.postgres.stop().await.unwrap();
    churn(&one).await;
    two.has_rows(1800).await;
    two.execute("CHECKPOINT").await;
    keep(&two, &[(1, lsn_of(&one)), (3, away)]).await;
    let moved = number(&two.connect().await, &kept.replace("_3", "_1")).await;
    assert!(moved > i64::try_from(position.unwrap().0).unwrap() + (64 << 20), "{moved}");
    keep(&two, &[(1, None), (3, None)]).await;
    churn(&one).await;
    two.has_rows(2400).await;
    two.execute("CHECKPOINT").await;
    one.postgres.demote(DEADLINE).await.unwrap();
    two.postgres.fence(DEADLINE).await.unwrap();
    let second = two.promote(2).await;
    churn(&two).await;
    for node in [&three, &one] {
        node.postgres.fence(DEADLINE).await.unwrap();
        node.postgres.follow(two.as_primary(2, second)).await.unwrap();
        node.streaming().await;
        node.has_rows(3000).await;
    }

    // Those of nodes that are gone vanish, others' slots do not.
    let client = two.connect().await;
    client.batch_execute("SELECT pg_create_physical_replication_slot('qluster_mine', true)").await.unwrap();
    keep(&two, &[(3, None)]).await;
    assert_eq!(number(&client, slots).await, 2);
    keep(&two, &[(9, None)]).await;
    assert_eq!(number(&client, &format!("{slots} WHERE slot_name IN ('qluster_9', 'qluster_mine')")).await, 2);
    assert_eq!(number(&client, slots).await, 2);

    // What is kept has bounds. A standby that was outrun is copied again.
    client.batch_execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    churn(&two).await;
    let lost = format!("{slots} WHERE wal_status = 'lost' AND slot_name = 'qluster_9'");
    assert_eq!(number(&client, &lost).await, 1);
    keep(&two, &[(9, None)]).await;
    assert_eq!(number(&client, &lost).await, 0);
    assert_eq!(number(&client, &format!("{slots} WHERE slot_name = 'qluster_9'")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_wal_is_gone_at_the_primary_says_so() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    let settings = one.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    let small = "wal_keep_size = 0\nmin_wal_size = 32MB\nmax_wal_size = 32MB\n";
    std::fs::write(&settings, format!("{text}\n{small}")).unwrap();
    let one = one.watched();
    one.postgres.fence(DEADLINE).await.unwrap();
    let promotion = one.promote(1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    assert!(!two.streaming().await.lacks_wal);
    two.postgres.stop().await.unwrap();
    churn(&one).await;
    two.postgres.fence(DEADLINE).await.unwrap();
    two.postgres.follow(one.as_primary(1, promotion)).await.unwrap();
    let status = two.until("one that lacks WAL", |status| status.lacks_wal).await;
    assert_eq!((status.role, status.streaming), (DatabaseRole::Standby, false));
    assert!(status.unfit.is_some_and(|unfit| unfit.contains("must be cloned")));

    // A clone has what it needs, and one whose primary is merely away lacks nothing.
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    assert!(!two.streaming().await.lacks_wal);
    two.has_rows(600).await;
    one.postgres.stop().await.unwrap();
    two.until("one that waits", |status| !status.streaming).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!two.postgres.status().borrow().lacks_wal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_does_not_stream_for_another_reason_says_what_postgresql_does() {
    let ground = Ground::new();
    let (mut one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    assert_eq!(two.streaming().await.hindrance, None);

    // Sessions are let in, the receiver is not. An agent would mend that.
    one.run.take().unwrap().abort();
    let rules: String = one.connect().await.query_one("SHOW hba_file", &[]).await.unwrap().get(0);
    let before = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host replication all all reject\n{before}")).unwrap();
    one.execute("SELECT pg_reload_conf()").await;
    let told = until("it says why it does not stream", WAIT_DEADLINE, async || {
        let status = two.postgres.status().borrow().clone();
        if let Some(told) = status.hindrance {
            assert!(!status.streaming && status.unfit.is_none(), "{:?}", status.unfit);
            return Ok(told);
        }
        // It may have come back before the rules were loaded.
        one.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
        Err(status)
    })
    .await;
    assert!(told.contains("the database of node 1, which it follows, answers, but it does not stream"), "{told}");
    assert!(told.contains("pg_hba.conf rejects replication connection"), "{told}");

    std::fs::write(&rules, before).unwrap();
    one.execute("SELECT pg_reload_conf()").await;
    assert_eq!(two.streaming().await.hindrance, None);
}

/// A filesystem in memory, until it is dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(dir: &std::path::Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(dir).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "tmpfs"])
            .arg(dir)
            .status();
        mounted.is_ok_and(|mounted| mounted.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_disk_is_full_removes_the_wal_that_it_does_not_need() {
    let ground = Ground::new();
    let Some(_small) = Small::mount(&ground.path().join("small"), 300) else {
        eprintln!("skipped: mounting takes root");
        return;
    };
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    let mut config = Node::config(&ground, 2);
    config.data_dir = ground.path().join("small/data");
    let two = Node::open(config).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    fn full(status: &DatabaseStatus) -> bool {
        status.unfit.as_ref().is_some_and(|why| why.contains("is full"))
    }
    two.until("streaming", |status| status.streaming && !full(status)).await;
    // Otherwise eight files are kept, each with its copies of earlier timelines, and others get another name.
    for setting in ["wal_keep_size = 0", "wal_recycle = off"] {
        two.execute(&format!("ALTER SYSTEM SET {setting}")).await;
    }
    // Each promotion begins a file of WAL, and each switch. A restartpoint could remove those before, if there were one.
    let mut status = two.postgres.status();
    let seen = tokio::spawn(async move { status.wait_for(full).await.map(drop) });
    let mut term = 1;
    while !seen.is_finished() {
        term += 1;
        one.postgres.fence(DEADLINE).await.unwrap();
        let promotion = one.promote(term).await;
        one.execute("SELECT pg_switch_wal()").await;
        two.postgres.fence(DEADLINE).await.unwrap();
        two.postgres.follow(one.as_primary(term, promotion)).await.unwrap();
        two.until("streaming", |status| status.streaming).await;
    }
    two.until("room again", |status| status.streaming && !full(status)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_has_less_than_its_primary_is_started_anew() {
    let ground = Ground::new();
    let (one, promotion) = Node::primary(&ground, 1, 1).await;
    one.execute("CREATE TABLE t (id bigint)").await;
    let two = Node::new(&ground, 2).await.watched();
    two.copy_from(one.as_primary(1, promotion)).await.unwrap();
    two.streaming().await;
    let before = two.postgres.pid().unwrap();

    // The primary takes more connections from now on, as it is started again; the standby hears of it by the WAL alone.
    let settings = one.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nmax_connections = 222\n")).unwrap();
    one.postgres.demote(DEADLINE).await.unwrap();
    one.postgres.fence(DEADLINE).await.unwrap();
    // Before it hears of the change, or it would be started again under the fence.
    two.postgres.fence(DEADLINE).await.unwrap();
    let second = one.promote(2).await;
    two.postgres.follow(one.as_primary(2, second)).await.unwrap();
    one.execute("INSERT INTO t SELECT generate_series(1, 10)").await;
    until("it is started again", WAIT_DEADLINE, async || {
        let pid = two.postgres.pid();
        holds(pid.is_some_and(|pid| pid != before), pid)
    })
    .await;
    two.streaming().await;
    two.has_rows(10).await;
}
