//! What is there before, and settings of others.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qluster_consensus::model::Lsn;
use qluster_consensus::protocol::database::{Database, DatabaseRole, DatabaseStatus, Promotion};
use qluster_server::database::Postgres;
use tokio_postgres::NoTls;

use super::node::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_adopted_or_refused() {
    let ground = Ground::new();
    let one = Node::new(&ground, 1).await;
    one.postgres.initialize().await.unwrap();
    let identifier = one.postgres.system_identifier().await.unwrap();
    let auto = one.config.data_dir.join("postgresql.auto.conf");
    std::fs::write(&auto, "primary_conninfo = 'host=192.0.2.1'\nwork_mem = '5MB'\nmax_connections = '123'\n").unwrap();
    one.postgres.initialize().await.unwrap();
    assert_eq!(one.postgres.system_identifier().await.unwrap(), identifier, "it is not created twice");

    // Its settings are taken over, other than those that are qluster's.
    one.postgres.fence(DEADLINE).await.unwrap();
    let found = one.postgres.settings().await.unwrap();
    assert_eq!(found.system_identifier, identifier);
    let setting = |name: &str| found.settings.iter().find(|setting| setting.name == name);
    assert_eq!(setting("work_mem").map(|setting| setting.value.as_str()), Some("5120"));
    assert_eq!(setting("max_connections").map(|setting| setting.value.as_str()), Some("123"));
    assert_eq!(setting("primary_conninfo"), None);
    assert_eq!(setting("data_checksums").map(|setting| setting.value.as_str()), Some("on"));

    // Another one is no primary for it.
    let (other, promotion) = Node::primary(&ground, 2, 1).await;
    for error in [
        one.postgres.follow(other.as_primary(1, promotion)).await.unwrap_err(),
        one.postgres.rewind(other.as_primary(1, promotion), promotion.start).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("another one"), "{error}");
    }
    assert_eq!(one.postgres.status().borrow().role, DatabaseRole::Standby);

    // Stopped on purpose, it stays so.
    one.postgres.stop().await.unwrap();
    let one = one.watched();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(one.postgres.status().borrow().role, DatabaseRole::Stopped);
    let error = one.postgres.settings().await.unwrap_err();
    assert!(error.to_string().contains("connect"), "{error}");

    // A directory of somebody else is left alone.
    let mut foreign = one.config.clone();
    foreign.data_dir = ground.path().join("foreign");
    std::fs::create_dir(&foreign.data_dir).unwrap();
    std::fs::write(foreign.data_dir.join("thesis.txt"), "").unwrap();
    let error = Postgres::open(foreign).await.err().unwrap().to_string();
    assert!(error.contains("thesis.txt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why_and_runs_once_it_can() {
    let ground = Ground::new();
    let node = Node::new(&ground, 1).await;
    node.postgres.initialize().await.unwrap();
    let settings = node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nshared_buffers = much\n")).unwrap();
    let node = node.watched();
    let why = |status: &DatabaseStatus| status.unfit.as_ref().is_some_and(|why| why.contains("shared_buffers"));
    node.until("unfit", why).await;
    std::fs::write(&settings, text).unwrap();
    node.until("fit", |status| status.role == DatabaseRole::Standby && status.unfit.is_none()).await;

    // The user's lines on who may connect are taken over as they change.
    let access = node.config.data_dir.join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();
    std::fs::write(&access, format!("host all postgres all reject\n{text}")).unwrap();
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", node.config.port);
    until("clients are rejected", WAIT_DEADLINE, async || {
        holds(tokio_postgres::connect(&config, NoTls).await.is_err(), "a client was let in")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_what_an_operation_started_is_noticed_while_the_monitor_would_still_wait() {
    let ground = Ground::new();
    let node = Node::new(&ground, 1).await;
    node.postgres.initialize().await.unwrap();
    let node = node.watched();
    let paused = |status: &DatabaseStatus| {
        let why = status.unfit.as_ref();
        status.role == DatabaseRole::Stopped && why.is_some_and(|why| why.contains("keeps ending"))
    };
    // It is killed until the pauses between its starts are long. How often that takes depends on whether the monitor has
    // seen each one run.
    let mut pauses = 0;
    while pauses < 5 {
        let pid = end_what_was_started(&node, paused).await;
        until("it pauses, or has started again", WAIT_DEADLINE, async || {
            let (status, new) = (node.postgres.status().borrow().clone(), node.postgres.pid());
            holds(paused(&status) || new.is_some_and(|new| new != pid), (status, new))
        })
        .await;
        pauses += u32::from(paused(&node.postgres.status().borrow()));
    }
    end_what_was_started(&node, paused).await;
    node.until("stopped, and not started", paused).await;
}

/// Has an operation start PostgreSQL, and kills it.
async fn end_what_was_started(node: &Node, paused: impl Fn(&DatabaseStatus) -> bool) -> i32 {
    node.postgres.fence(DEADLINE).await.unwrap();
    node.until("running", |status| !paused(status)).await;
    let pid = node.postgres.pid().unwrap();
    kill(pid);
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_path_that_is_too_long_is_avoided() {
    let ground = Ground::new();
    let mut config = Node::config(&ground, 1);
    config.run_dir = ground.path().join("r".repeat(100));
    let node = Node::open(config).await;
    node.postgres.initialize().await.unwrap();
    assert!(node.postgres.fence(DEADLINE).await.unwrap() > Lsn(0));
    let dir: PathBuf = node.postgres.socket_dir().into();
    node.postgres.stop().await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_with_an_error_give_way_to_the_last_good_ones() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let access = node.config.data_dir.join("pg_hba.conf");
    let text = std::fs::read_to_string(&access).unwrap();

    // Lines that PostgreSQL only warns of, as it has neither.
    std::fs::write(&access, format!("hostssl all nobody all reject\nhostgssenc all nobody all reject\n{text}"))
        .unwrap();
    node.postgres.fence(DEADLINE).await.unwrap();
    node.promote(2).await;

    let taken = std::fs::read_to_string(node.config.data_dir.join("qluster_hba.good")).unwrap();
    assert!(taken.starts_with("hostssl"), "{taken}");

    for seen in [false, true] {
        node.postgres.fence(DEADLINE).await.unwrap();
        node.postgres.promote(rule(3, &[], 0)).await.unwrap();
        std::fs::write(&access, format!("{text}host everything {seen}\n")).unwrap();
        if seen {
            // As the monitor does while they are closed.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        node.postgres.admit().await.unwrap();
        node.execute("SELECT 1").await;
    }
    // It also starts, under another agent.
    node.postgres.demote(DEADLINE).await.unwrap();
    let node = node.reopened().await.watched();
    node.postgres.fence(DEADLINE).await.unwrap();
    node.execute("SELECT 1").await;

    // In time the corrected ones are taken over.
    std::fs::write(&access, format!("host all postgres all reject\n{text}")).unwrap();
    until("clients are rejected", WAIT_DEADLINE, async || {
        holds(try_connect(node.config.ip, node.config.port).await.is_err(), "a client was let in")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_loaded_are_named() {
    let ground = Ground::new();
    let node = Node::new(&ground, 1).await;
    node.postgres.initialize().await.unwrap();
    let node = node.watched();
    node.postgres.fence(DEADLINE).await.unwrap();
    let settings = node.config.data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nwork_memm = '4MB'\n")).unwrap();

    let begun = Instant::now();
    let error = node.postgres.promote(rule(1, &[], 0)).await.unwrap_err().to_string();
    assert!(error.contains("work_memm"), "{error}");
    assert!(timed("a promotion that fails", begun, begun.elapsed()) < Duration::from_secs(3));
    let why = |status: &DatabaseStatus| status.unfit.as_ref().is_some_and(|why| why.contains("work_memm"));
    node.until("unfit", why).await;
    std::fs::write(&settings, &text).unwrap();
    node.until("fit", |status| status.role == DatabaseRole::Standby && status.unfit.is_none()).await;

    // A standby that still has its primary.
    node.postgres.fence(DEADLINE).await.unwrap();
    let primary = Promotion { timeline: 1, start: Lsn(0) };
    node.postgres.follow(node.as_primary(1, primary)).await.unwrap();
    let client = node.connect().await;
    let follows = "SELECT count(*) FROM pg_settings WHERE name = 'primary_conninfo' AND setting <> ''";
    until_number(&client, follows, 1).await;
    std::fs::write(&settings, format!("{text}\nwork_memm = '4MB'\n")).unwrap();
    let error = node.postgres.fence(DEADLINE).await.unwrap_err().to_string();
    assert!(error.contains("work_memm"), "{error}");
    std::fs::write(&settings, &text).unwrap();
    node.postgres.fence(DEADLINE).await.unwrap();

    // What takes a restart, and a value that is refused, keep nothing else from being loaded.
    std::fs::write(&settings, format!("{text}\nwork_mem = much\nshared_buffers = 256MB\n")).unwrap();
    node.promote(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_server_that_runs_is_put_aside_before_it_is_too_large() {
    let ground = Ground::new();
    let (node, _) = Node::primary(&ground, 1, 1).await;
    let log = node.config.run_dir.join("postgresql.log");
    let length = || std::fs::metadata(&log).unwrap().len();
    let mut text = "a line that somebody has logged\n".repeat(1 << 19);
    text.push_str("the last of them\n");
    std::fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    until("the log is put aside", WAIT_DEADLINE, async || {
        let length = length();
        holds(length <= 1 << 20, length)
    })
    .await;
    let aside = std::fs::read_to_string(node.config.run_dir.join("postgresql.log.1")).unwrap();
    assert!(aside.contains("the last of them\n"));
    node.execute("DO $$ BEGIN RAISE LOG 'it goes on'; END $$").await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("it goes on") && !log.contains('\0'), "{log}");
}
