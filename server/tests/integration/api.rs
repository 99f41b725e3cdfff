//! The API of real daemons, from outside: what they answer to good and bad requests, in all states that they can be in.
//! Most tests need no database. For the others, `apt-get install postgresql-15` (or newer) provides PostgreSQL.

use std::time::{Duration, Instant};

use qluster_consensus::model::{
    ClusterInfo, ClusterMap, ClusterStatus, Config, Event, EventKind, Leader, Node, NodeId, NodeRole, NodeState,
    NodeStatus, ReadonlyStatements,
};
use qluster_server::database::DbConfig;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Ground, WAIT_DEADLINE, free_port, holds, id_of, leader, parted, until};

/// Reads that every member answers.
const READS: [&str; 5] = ["/map", "/status", "/info", "/config", "/sql/readonly"];

/// Changes that only the leader makes. Each is well-formed, and each names a node that does not exist.
fn changes() -> [(Method, String, Option<Value>); 5] {
    [
        (Method::POST, "/config".into(), Some(json!({"autoremove-minimum": 9}))),
        (Method::POST, "/node?ip=127.0.0.1&role=voter&api-port=1".into(), None),
        (Method::PATCH, "/node/77?db-port=5432&api-port=8080".into(), None),
        (Method::DELETE, "/node/77".into(), None),
        (Method::POST, "/node-down/77".into(), None),
    ]
}

/// Of `nodes`, exactly one says that it leads, and the others name it.
async fn one_leads<'a>(nodes: &[&'a Daemon]) -> (Leader, &'a Daemon, Vec<&'a Daemon>) {
    let leader = leader(nodes).await;
    let (leads, follow) = parted(nodes, &leader);
    assert_eq!(leads.get("/is-leader").await.ok::<Leader>(), leader);
    for node in &follow {
        node.get("/is-leader").await.names(417, &leader);
    }
    (leader, leads, follow)
}

/// The longest time until a cluster gives up a leader, or a request.
fn longest_election(config: &Config) -> Duration {
    config.node_timeout.get() * 3 / 2 + config.pre_voting_timeout.get() + config.leader_voting_timeout.get()
}

#[tokio::test]
async fn every_operation_is_answered_by_leader_follower_survivor_and_stranger() {
    let ground = Ground::new();
    let stranger = ground.node("stranger", &["run"]);
    let mut nodes = ground.three().await;

    // The leader serves everything.
    let (leading, leads, follow) = one_leads(&nodes.each_ref()).await;
    let map: ClusterMap = leads.get("/map").await.ok();
    assert_eq!(map.leader, Some(leading.id));
    let info: ClusterInfo = leads.get("/info").await.ok();
    assert!(info.logs.is_sorted_by_key(|log| log.index) && !info.logs.is_empty());
    let config: Config = leads.get("/config").await.ok();
    assert_eq!((&config, &info.config), (&map.config, &map.config));
    leads.get("/sql/readonly").await.ok::<ReadonlyStatements>();
    assert!(leads.get("/db-config").await.refused(412).contains("no database"));
    assert!(leads.get("/rpc").await.body.contains("leader elected"));
    assert!(!leads.get("/events").await.ok::<Vec<Event>>().is_empty());
    let changed: Config = leads.configure(json!({"node-timeout": "4s"})).await.ok();
    assert_eq!(changed, Config { node_timeout: "4s".parse().unwrap(), ..config });
    let (leading, leads, _) = one_leads(&nodes.each_ref()).await;
    assert_eq!(leads.post(&format!("/leader?node={}", leading.id)).await.ok::<Leader>(), leading);
    let path = format!("/node?ip=127.0.0.1&role=replica&api-port={}", free_port());
    let added: Node = leads.post(&path).await.ok();
    assert_eq!((added.role, added.upgrade_to), (NodeRole::Listener, NodeRole::Replica));
    let id = added.id;
    assert!(leads.patch(&format!("/node/{id}?db-port=1&api-port=1")).await.refused(412).contains("does not answer"));
    assert_eq!(leads.post(&format!("/node-down/{id}")).await.ok::<Node>().state, NodeState::Down);
    assert_eq!(leads.delete(&format!("/node/{id}")).await.ok::<Node>().id, id);
    for (method, path, json) in changes().into_iter().skip(2) {
        assert!(leads.ask(method, &path, json).await.refused(412).contains("node 77 is not part of the cluster"));
    }
    assert!(leads.post("/leader?node=77").await.refused(412).contains("node 77 is not part of the cluster"));

    // A follower answers what it knows, and sends whoever changes something to the leader.
    assert_eq!(follow.len(), 2);
    let (leading, leads, follow) = one_leads(&nodes.each_ref()).await;
    for follower in &follow {
        for path in READS {
            assert_eq!(follower.get(path).await.status, 200, "{path}");
        }
        assert_eq!(follower.get("/leader").await.ok::<Leader>(), leading);
        assert!(follower.get("/db-config").await.refused(412).contains("no database"));
        assert!(follower.get("/rpc").await.body.contains("leader elected"));
        assert!(!follower.get("/events").await.ok::<Vec<Event>>().is_empty());
        for (method, path, json) in changes() {
            follower.ask(method, &path, json).await.names(417, &leading);
        }
        // It lacks the 417 of the others.
        follower.post(&format!("/leader?node={}", leading.id)).await.names(412, &leading);
    }

    // A planned switchover.
    let target = id_of(&leads.map().await, follow[0]);
    assert_eq!(leads.post(&format!("/leader?node={target}")).await.ok::<Leader>().id, target);
    let (switched, leads, follow) = one_leads(&nodes.each_ref()).await;
    assert!(switched.id == target && switched.term > leading.term);

    // A follower's long poll hears of the change.
    let before = follow[0].map().await.index;
    let poll = follow[0].ask_later(format!("/map?after-index={before}&wait=20s"));
    leads.configure(json!({"autoremove-minimum": 4})).await.ok::<Config>();
    assert!(poll.await.unwrap().unwrap().ok::<ClusterMap>().index > before);

    // A node that is in no cluster says so.
    for path in ["/is-leader", "/leader", "/db-config"].into_iter().chain(READS) {
        assert!(stranger.get(path).await.refused(412).contains("not part of a cluster"), "{path}");
    }
    for (method, path, json) in changes().into_iter().chain([(Method::POST, "/leader?node=1".into(), None)]) {
        assert!(stranger.ask(method, &path, json).await.refused(412).contains("not part of a cluster"), "{path}");
    }
    assert!(stranger.get("/map?after-index=0&wait=5m").await.refused(412).contains("not part of a cluster"));
    assert_eq!(stranger.get("/events").await.ok::<Vec<Event>>(), []);
    assert_eq!(stranger.get("/events?after-index=0&wait=5m").await.ok::<Vec<Event>>(), []);
    assert_eq!(stranger.get("/rpc").await.status, 200);

    // The leader alone: it may not know it yet, but it answers in time, and nothing is changed.
    let config: Config = leads.get("/config").await.ok();
    let limit = longest_election(&config);
    let port = leads.port;
    nodes.iter_mut().filter(|node| node.port != port).for_each(Daemon::kill);
    let survivor = nodes.iter().find(|node| node.port == port).unwrap();
    let unsure = survivor.configure(json!({"autoremove-minimum": 8})).await;
    assert!(matches!(unsure.status, 410 | 420 | 530), "{unsure:?}");
    assert!(unsure.took < 2 * limit, "{unsure:?}");
    survivor.until_get("/is-leader", 530).await;
    for path in ["/is-leader", "/leader"] {
        let answer = survivor.get(path).await;
        assert!(answer.refused(530).contains("no majority"), "{answer:?}");
    }
    for (method, path, json) in changes().into_iter().chain([(Method::POST, format!("/leader?node={target}"), None)]) {
        let answer = survivor.ask(method, &path, json).await;
        assert!(answer.refused(530).contains("no majority"), "{answer:?}");
        assert!(answer.took < 2 * limit, "{answer:?}");
    }
    for path in READS {
        assert_eq!(survivor.get(path).await.status, 200, "{path}");
    }
    let map = survivor.map().await;
    assert!(map.leader.is_none() && map.reason.unwrap().contains("of 3 voters, this node reaches 1"));
    assert_eq!(map.config, config);
    assert!(survivor.get("/db-config").await.refused(412).contains("no database"));
    assert!(survivor.get("/rpc").await.body.contains("leader elected"));
    assert!(!survivor.get("/events").await.ok::<Vec<Event>>().is_empty());
}

#[tokio::test]
async fn balancers_checks_have_one_code_for_each_method_and_say_why() {
    let ground = Ground::new();
    let stranger = ground.node("stranger", &["run"]);
    let member = ground.bootstrap().await;
    stranger.until_refused("/map", "not part of a cluster").await;
    // Without databases, nobody is to get sessions.
    for (path, strange, known) in [
        ("/primary", "not part of a cluster", "has no database"),
        ("/replica", "not part of a cluster", "has no database"),
        ("/replica?lag=16MB", "not part of a cluster", "has no database"),
        ("/read-only?lag=0", "not part of a cluster", "has no database"),
        ("/health", "not part of a cluster", "has no database"),
        ("/readiness", "not part of a cluster", ""),
        ("/liveness", "", ""),
    ] {
        for (node, why) in [(&stranger, strange), (&member, known)] {
            let answer = node.get(path).await;
            match why {
                "" => assert_eq!(answer.status, 200, "{answer:?}"),
                why => assert!(answer.refused(503).contains(why), "{answer:?}"),
            }
            for method in [Method::HEAD, Method::OPTIONS] {
                assert_eq!(node.ask(method, path, None).await.status, answer.status, "{path}");
            }
        }
    }
    for lag in ["", "much", "-1", "1.5MB", "16parsec"] {
        let answer = member.get(&format!("/replica?lag={lag}")).await;
        assert!(answer.refused(400).contains("expected a number of bytes"), "{answer:?}");
        assert_eq!(member.ask(Method::HEAD, &format!("/replica?lag={lag}"), None).await.status, 400);
    }
    assert!(member.get("/replica?tag=1").await.refused(400).contains("expected `lag`"));
    assert_eq!(member.post("/primary").await.status, 405);

    let status: ClusterStatus = member.get("/status").await.ok();
    assert_eq!(status.nodes.len(), 1);
    assert_eq!(status.nodes[&status.node].database, None);
    assert_eq!(member.get("/readiness").await.ok::<NodeStatus>().id, status.node);
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_was_expected_and_change_nothing() {
    let ground = Ground::new();
    let node = ground.bootstrap().await;
    let known = || async { [node.get("/config").await, node.get("/map").await, node.get("/events").await] };
    let told = |answers: [Answer; 3]| answers.map(|answer| answer.body);
    let before = told(known().await);

    let port = "a port from 1 to 65535";
    let id = "a node id (a whole number from 0)";
    let index = "a log index (a whole number from 0)";
    let host = "the IPv4 or IPv6 address of one host";
    let roles = "expected one of `voter`, `witness`, `replica`, `listener`";
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let huge = "x".repeat(50_000);
    let mut requests: Vec<(Method, String, &str)> = vec![
        (get.clone(), "/map?after-index=first".into(), index),
        (get.clone(), "/map?after-index=-1".into(), index),
        (get.clone(), "/map?after-index=18446744073709551616".into(), index),
        (get.clone(), "/map?after-index=".into(), index),
        (get.clone(), "/map?after-index=%ff".into(), index),
        (get.clone(), "/map?after-index=1&after-index=2".into(), "duplicate field `after-index`"),
        (get.clone(), "/map?after-index=1&wait=10%20parsecs".into(), "expected a duration such as `1s`"),
        (get.clone(), "/map?after-index=1&wait=-1s".into(), "expected a duration such as `1s`"),
        (get.clone(), "/map?after-index=1&wait=10h".into(), "at most 5m"),
        (get.clone(), "/map?wait=1s".into(), "without after-index"),
        (get.clone(), "/map?index=1".into(), "expected `after-index` or `wait`"),
        (get.clone(), format!("/map?{huge}=1"), "expected `after-index` or `wait`"),
        (get.clone(), format!("/map?after-index={huge}"), index),
        (get.clone(), "/events?after-index=first".into(), index),
        (get.clone(), "/events?after-index=0&wait=10%20parsecs".into(), "expected a duration such as `1s`"),
        (get.clone(), "/events?after-index=0&wait=10h".into(), "at most 5m"),
        (get.clone(), "/events?wait=1s".into(), "without after-index"),
        (get.clone(), "/events?newest=1".into(), "expected one of `after-index`, `limit`, `wait`"),
        (post.clone(), "/leader".into(), "missing field `node`"),
        (post.clone(), "/leader?node=".into(), id),
        (post.clone(), "/leader?node=1&node=2".into(), "duplicate field `node`"),
        (post.clone(), "/leader?node=1&force=true".into(), "unknown field `force`"),
        (post.clone(), "/node".into(), "missing field"),
        (post.clone(), "/node?ip=127.0.0.1".into(), "missing field `role`"),
        (post.clone(), "/node?role=voter".into(), "missing field `ip`"),
        (post.clone(), "/node?ip=127.0.0.1&role=voter&role=voter".into(), "duplicate field `role`"),
        (post.clone(), "/node?ip=127.0.0.1&role=voter&weight=3".into(), "unknown field `weight`"),
        (post.clone(), "/node?ip=127.0.0.1&role=king".into(), roles),
        (post.clone(), "/node?ip=127.0.0.1&role=Voter".into(), roles),
        (post.clone(), "/node?ip=127.0.0.1&role=".into(), roles),
        (patch.clone(), "/node/1".into(), "missing field"),
        (patch.clone(), "/node/1?db-port=5432".into(), "missing field `api-port`"),
        (patch.clone(), "/node/1?api-port=8080".into(), "missing field `db-port`"),
        (patch.clone(), "/node/1?db-port=1&db-port=1&api-port=2".into(), "duplicate field `db-port`"),
        (patch.clone(), "/node/1?db-port=1&api-port=2&role=voter".into(), "unknown field `role`"),
    ];
    for ip in
        ["localhost", "db1.example.org", "", "10.0.0", "10.0.0.256", "10.0.0.1:8080", "0.0.0.0", "::", "224.0.0.1"]
    {
        requests.push((post.clone(), format!("/node?ip={ip}&role=voter"), host));
    }
    for wrong in ["0", "70000", "-1", "http", "", "1.5", "%00"] {
        requests.push((post.clone(), format!("/node?ip=127.0.0.1&role=voter&api-port={wrong}"), port));
        requests.push((patch.clone(), format!("/node/1?db-port={wrong}&api-port=8080"), port));
        requests.push((patch.clone(), format!("/node/1?db-port=5432&api-port={wrong}"), port));
    }
    for wrong in ["-1", "one", "1.5", "%20", "18446744073709551616", &huge] {
        requests.push((post.clone(), format!("/leader?node={wrong}"), id));
        requests.push((post.clone(), format!("/node-down/{wrong}"), id));
        requests.push((patch.clone(), format!("/node/{wrong}?db-port=5432&api-port=8080"), id));
        requests.push((delete.clone(), format!("/node/{wrong}"), id));
    }
    for wrong in ["0", "100000", "-1", "all", "", "99999999999999999999"] {
        requests.push((get.clone(), format!("/events?limit={wrong}"), "a limit from 1 to 1000"));
    }
    for (method, path, expected) in requests {
        let answer = node.ask(method, &path, None).await;
        let reason = answer.refused(400);
        assert!(reason.contains(expected), "expected `{expected}`: {answer:?}");
    }

    let json = "application/json";
    let large = format!("{{\"node-timeout\": \"{}\"}}", " ".repeat(10 << 20));
    let bodies = [
        ("", json, "unable to parse JSON body"),
        ("{", json, "unable to parse JSON body"),
        ("{\"node-timeout\": \"2s\"", json, "unable to parse JSON body"),
        ("{\"node-timeout\": \"2s\"}{}", json, "expected one value"),
        ("\u{0}\u{1}", json, "unable to parse JSON body"),
        ("null", json, "expected an object with settings"),
        ("\"2s\"", json, "expected an object with settings"),
        ("[]", json, "expected an object with settings"),
        ("[\"2s\"]", json, "expected an object with settings"),
        (&large, json, "maximum size of 65536 bytes"),
        (
            "{\"node-timeout\": \"2s\"}",
            "application/x-www-form-urlencoded",
            "expected content type \"application/json\"",
        ),
        ("{\"node-timeout\": \"2s\"}", "text/plain", "content-type"),
        ("{\"node-timeuot\": \"2s\"}", json, "unknown field `node-timeuot`, expected one of `node-timeout`"),
        ("{\"node-timeout\": \"2s\", \"node-timeout\": \"3s\"}", json, "duplicate field `node-timeout`"),
        ("{\"node-timeout\": \"5 parsecs\"}", json, "expected a duration such as `1s`"),
        ("{\"node-timeout\": 2000}", json, "expected a duration such as `1s`"),
        ("{\"node-timeout\": \"2us\"}", json, "whole milliseconds"),
        ("{\"node-timeout\": \"2h\"}", json, "expected 10ms to 1h"),
        ("{\"node-timeout\": \"500ms\"}", json, "three times heartbeat-interval"),
        ("{\"heartbeat-interval\": \"400ms\"}", json, "three times heartbeat-interval"),
        ("{\"autoremove-minimum\": 5, \"heartbeat-interval\": \"1m\"}", json, "three times heartbeat-interval"),
        ("{\"replication-factor\": -1}", json, "invalid value"),
        ("{\"replication-factor\": 1}", json, "disable quorum-replication"),
        ("{\"replication-factor\": 2, \"quorum-replication\": false}", json, "at most 1, the number of voters"),
        ("{\"quorum-replication\": \"yes\"}", json, "expected a boolean"),
        ("{\"autoremove-minimum\": 0}", json, "at least 1"),
    ];
    for (body, kind, expected) in bodies {
        let answer = node.ask_raw(Method::POST, "/config", Some((body.into(), kind))).await;
        let reason = answer.refused(400);
        assert!(reason.contains(expected), "expected `{expected}`: {answer:?}");
    }

    // Wrong methods and unknown paths are the framework's to answer.
    for (method, path, status) in [
        (Method::PUT, "/config", 405),
        (Method::DELETE, "/config", 405),
        (Method::POST, "/map", 405),
        (Method::PATCH, "/leader", 405),
        (Method::GET, "/node", 405),
        (Method::GET, "/node/1", 405),
        (Method::GET, "/node-down/1", 405),
        (Method::GET, "/page", 404),
        (Method::GET, "/nothing", 404),
        (Method::DELETE, "/node/1/2", 404),
    ] {
        node.ask(method, path, None).await.refused(status);
    }

    assert_eq!(told(known().await), before);
}

#[tokio::test]
async fn a_long_poll_is_answered_when_there_is_something_newer_or_its_time_is_over() {
    let ground = Ground::new();
    let node = ground.bootstrap().await;
    let map = node.map().await;

    // What is newer already is answered at once.
    let wait = Duration::from_secs(20);
    for path in ["/map?after-index=0&wait=20s", "/events?after-index=0&wait=20s"] {
        let answer = node.get(path).await;
        assert!(answer.status == 200 && answer.took < wait / 4, "{answer:?}");
    }

    // What is not, when the time is over, and as it is.
    let short = Duration::from_millis(300);
    let answer = node.get(&format!("/map?after-index={}&wait=300ms", map.index)).await;
    assert_eq!(answer.ok::<ClusterMap>(), map);
    assert!(answer.took >= short && answer.took < wait / 2, "{answer:?}");
    let last = node.get("/events").await.ok::<Vec<Event>>().pop().unwrap().index;
    let answer = node.get(&format!("/events?after-index={last}&wait=300ms")).await;
    assert_eq!(answer.ok::<Vec<Event>>(), []);
    assert!(answer.took >= short && answer.took < wait / 2, "{answer:?}");
    // Without `wait`, events are not waited for.
    let answer = node.get(&format!("/events?after-index={last}")).await;
    assert_eq!(answer.ok::<Vec<Event>>(), []);

    // A change ends the wait of all.
    let index = map.index;
    let polls = [
        node.ask_later(format!("/map?after-index={index}&wait=20s")),
        node.ask_later(format!("/map?after-index={index}")),
        node.ask_later(format!("/events?after-index={last}&wait=20s")),
    ];
    node.get(&format!("/map?after-index={index}&wait=200ms")).await.ok::<ClusterMap>();
    assert!(polls.iter().all(|poll| !poll.is_finished()));
    node.configure(json!({"autoremove-minimum": 5})).await.ok::<Config>();
    let [first, second, events] = polls;
    for poll in [first, second] {
        let answer = poll.await.unwrap().unwrap();
        let newer: ClusterMap = answer.ok();
        assert!(newer.index > index && newer.config.autoremove_minimum == 5, "{answer:?}");
        assert!(answer.took < wait / 2, "{answer:?}");
    }
    let answer = events.await.unwrap().unwrap();
    let heard: Vec<Event> = answer.ok();
    assert_eq!(heard.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::ConfigChanged]);
    assert!(heard[0].actor.contains("operator") && heard[0].cause.contains("autoremove-minimum"), "{heard:?}");
    assert!(answer.took < wait / 2, "{answer:?}");

    // Events come by index, oldest first, and in parts.
    node.configure(json!({"autoremove-minimum": 6})).await.ok::<Config>();
    let all: Vec<Event> = node.get("/events").await.ok();
    assert!(all.is_sorted_by(|one, other| one.index < other.index), "{all:?}");
    assert_eq!(node.get("/events?limit=1").await.ok::<Vec<Event>>(), all[all.len() - 1..]);
    assert_eq!(node.get("/events?limit=1000").await.ok::<Vec<Event>>(), all);
    let mut read: Vec<Event> = Vec::new();
    loop {
        let after = read.last().map_or(0, |event| event.index.0);
        let next: Vec<Event> = node.get(&format!("/events?after-index={after}&limit=1")).await.ok();
        if next.is_empty() {
            break;
        }
        read.extend(next);
    }
    assert_eq!(read, all);
    // They are the lines of the text.
    let text = node.get("/rpc").await.body;
    let lines: Vec<_> = all.iter().map(|event| text.find(&format!("{} term", event.time)).unwrap()).collect();
    assert!(lines.is_sorted(), "{text}");
}

#[tokio::test]
async fn a_node_is_added_upgraded_declared_down_brought_back_and_removed() {
    let ground = Ground::new();
    let nodes = ground.three().await;
    let (leading, leads, _) = one_leads(&nodes.each_ref()).await;

    // A node that was added is a listener until it is upgraded, which it must answer for.
    let path = format!("/node?ip=127.0.0.1&role=voter&api-port={}", free_port());
    let absent: Node = leads.post(&path).await.ok();
    assert_eq!((absent.id, absent.role, absent.upgrade_to), (NodeId(4), NodeRole::Listener, NodeRole::Voter));
    assert_eq!(absent.db_port, None);
    assert_eq!(leads.map().await.nodes[&absent.id].role, NodeRole::Listener);
    let upgrade = format!("/node/{}?db-port=5432&api-port={}", absent.id, absent.api_port);
    assert!(leads.patch(&upgrade).await.refused(412).contains("node 4 does not answer"));
    assert!(leads.post("/leader?node=4").await.refused(412).contains("listener, which never leads"));
    leads.until("node 4 is missed", |map| map.nodes[&absent.id].state == NodeState::Unreachable).await;
    assert!(leads.patch(&upgrade).await.refused(412).contains("node 4 does not answer"));
    assert_eq!(leads.delete("/node/4").await.ok::<Node>().id, absent.id);
    assert!(leads.delete("/node/4").await.refused(412).contains("node 4 is not part of the cluster"));
    // The next node has an id of its own, even on the same host.
    assert_eq!(leads.post(&path).await.ok::<Node>().id, NodeId(5));
    assert_eq!(leads.delete("/node/5").await.ok::<Node>().id, NodeId(5));

    // A real one joins.
    let mut joined = ground.node("joined", &["join", &leads.url("")]);
    let map = joined.until("it votes", |map| map.nodes.get(&NodeId(6)).is_some_and(Node::votes)).await;
    let id = id_of(&map, &joined);
    assert_eq!((id, map.nodes[&id].role, map.nodes[&id].state), (NodeId(6), NodeRole::Voter, NodeState::Up));
    let (right, wrong) = (joined.port, free_port());
    let refused = leads.patch(&format!("/node/6?db-port=5432&api-port={wrong}")).await.refused(412);
    assert!(refused.contains(&format!("was added with api-port {right}, not {wrong}")), "{refused}");
    // Who is there is there once.
    let again = leads.post(&format!("/node?ip=127.0.0.1&role=voter&api-port={right}")).await.refused(412);
    assert!(again.contains("node 6 is at 127.0.0.1"), "{again}");

    let down: Node = leads.post("/node-down/6").await.ok();
    assert_eq!((down.state, down.role), (NodeState::Down, NodeRole::Voter));
    assert!(down.reason.is_some());
    assert!(leads.post("/leader?node=6").await.refused(412).contains("declared down"));
    let up: Node = leads.patch(&format!("/node/6?db-port=5432&api-port={right}")).await.ok();
    assert_eq!((up.state, up.role, up.reason), (NodeState::Up, NodeRole::Voter, None));

    // A removed node notices, says so to whoever asks, and stays.
    assert_eq!(leads.delete("/node/6").await.ok::<Node>().id, id);
    assert!(joined.until_get("/is-leader", 412).await.error().message.contains("was removed"));
    for path in ["/leader", "/db-config"].into_iter().chain(READS) {
        let reason = joined.get(path).await.refused(412);
        assert!(reason.contains("was removed") || path == "/db-config", "{path}: {reason}");
    }
    for (method, path, json) in changes().into_iter().chain([(Method::POST, "/leader?node=1".into(), None)]) {
        assert!(joined.ask(method, &path, json).await.refused(412).contains("was removed"), "{path}");
    }
    assert_eq!(joined.get("/rpc").await.status, 200);
    assert!(!joined.get("/events").await.ok::<Vec<Event>>().is_empty());
    assert!(joined.is_alive());
    let (_, leads_now, _) = one_leads(&nodes.each_ref()).await;
    assert_eq!(leads_now.port, leads.port, "its removal cost the others their leader");

    // The events are in order.
    let events: Vec<Event> = leads.get("/events").await.ok();
    let of_it: Vec<_> = events.iter().filter(|event| event.node == Some(id)).map(|event| event.kind).collect();
    use EventKind::{NodeAdded, NodeDown, NodeReachable, NodeRemoved, NodeUnreachable, NodeUpgraded};
    let told: Vec<_> = of_it.into_iter().filter(|kind| !matches!(kind, NodeReachable | NodeUnreachable)).collect();
    // Its vote went before it did.
    assert_eq!(told, [NodeAdded, NodeUpgraded, NodeDown, NodeUpgraded, NodeDown, NodeRemoved]);

    // It does not take part again because it starts again.
    assert!(joined.terminate().await.0.success());
    joined.start(&["run"]);
    joined.until_refused("/map", "was removed").await;

    // A leader that is declared down hands over first, and comes back as a follower.
    let down: Node = leads.post(&format!("/node-down/{}", leading.id)).await.ok();
    assert_eq!((down.id, down.state), (leading.id, NodeState::Down));
    let (next, leads, _) = one_leads(&nodes.each_ref()).await;
    assert_ne!(next.id, leading.id);
    let path = format!("/node/{}?db-port=5432&api-port={}", leading.id, leading.api_port);
    for _ in 0..2 {
        assert_eq!(leads.patch(&path).await.ok::<Node>().state, NodeState::Up);
    }

    // So does one that is removed.
    let (leading, leads, follow) = one_leads(&nodes.each_ref()).await;
    assert_eq!(leads.delete(&format!("/node/{}", leading.id)).await.ok::<Node>().id, leading.id);
    let (next, leads_now, _) = one_leads(&follow).await;
    assert!(next.term > leading.term);
    assert!(!leads_now.map().await.nodes.contains_key(&leading.id));
    assert!(leads.until_get("/is-leader", 412).await.error().message.contains("was removed"));
}

#[tokio::test]
async fn a_node_whose_vote_is_needed_is_not_let_go() {
    let ground = Ground::new();
    let mut nodes = ground.three().await;
    let (leading, leads, follow) = one_leads(&nodes.each_ref()).await;
    let map = leads.map().await;
    let (follower, dead) = (id_of(&map, follow[0]), id_of(&map, follow[1]));
    let (port, dead_port) = (leads.port, follow[1].port);

    // Of three voters one is dead: the other two are needed.
    nodes.iter_mut().filter(|node| node.port == dead_port).for_each(Daemon::kill);
    let leads = nodes.iter().find(|node| node.port == port).unwrap();
    leads.until("the dead node is missed", |map| map.nodes[&dead].state == NodeState::Unreachable).await;
    for id in [follower, leading.id] {
        for answer in [leads.delete(&format!("/node/{id}")).await, leads.post(&format!("/node-down/{id}")).await] {
            assert!(answer.refused(412).contains("no majority"), "{answer:?}");
        }
    }
    assert!(leads.post(&format!("/leader?node={dead}")).await.refused(412).contains("does not answer"));
    // The dead one can go, and comes back for nothing.
    assert_eq!(leads.delete(&format!("/node/{dead}")).await.ok::<Node>().id, dead);

    // Of two voters one is dead: neither can go, whether or not the leader knows it yet.
    leads.configure(json!({"node-timeout": "5s"})).await.ok::<Config>();
    let live: Vec<_> = nodes.iter().filter(|node| node.port != dead_port).collect();
    let (leading, leads, follow) = one_leads(&live).await;
    let (port, dead_port) = (leads.port, follow[0].port);
    nodes.iter_mut().filter(|node| node.port == dead_port).for_each(Daemon::kill);
    let leads = nodes.iter().find(|node| node.port == port).unwrap();
    let before = leads.map().await;
    let answer = leads.delete(&format!("/node/{}", leading.id)).await;
    answer.refused(412);
    assert_eq!(leads.map().await.nodes.keys().collect::<Vec<_>>(), before.nodes.keys().collect::<Vec<_>>());
    leads.until_get("/is-leader", 530).await;
    leads.delete(&format!("/node/{}", leading.id)).await.refused(530);
}

#[tokio::test]
async fn a_voter_of_two_can_go_and_the_other_goes_on() {
    let ground = Ground::new();
    let first = ground.bootstrap().await;
    for round in 2..6 {
        let second = ground.node(&format!("{round}"), &["join", &first.url("")]);
        let id = NodeId(round);
        first.until("two voters", |map| map.nodes.get(&id).is_some_and(Node::votes)).await;
        assert_eq!(first.delete(&format!("/node/{id}")).await.ok::<Node>().id, id);
        assert_eq!(first.configure(json!({"autoremove-minimum": round})).await.ok::<Config>().replication_factor, 1);
        second.until_refused("/map", "was removed").await;
    }
    // The leader of two, too.
    let second = ground.node("last", &["join", &first.url("")]);
    first.until("two voters", |map| map.nodes.values().filter(|node| node.votes()).count() == 2).await;
    assert_eq!(first.delete("/node/1").await.ok::<Node>().id, NodeId(1));
    second.until_get("/is-leader", 200).await;
    second.configure(json!({"autoremove-minimum": 2})).await.ok::<Config>();
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused() {
    let ground = Ground::new();
    let first = ground.bootstrap().await;
    let witness = ground.node("witness", &["join", "--role", "witness", &first.url("")]);
    let before = first.until("the witness votes", |map| map.nodes.get(&NodeId(2)).is_some_and(Node::votes)).await;
    for (id, port) in [(1, first.port), (2, witness.port)] {
        let reason = first.post(&format!("/node?ip=127.0.0.1&role=voter&api-port={port}")).await.refused(412);
        assert!(reason.contains(&format!("node {id} is at 127.0.0.1, port {port}")), "{reason}");
    }
    // Without api-port, it is the port of who is asked.
    first.post("/node?ip=127.0.0.1&role=voter").await.refused(412);
    assert_eq!(first.map().await, before);
}

#[tokio::test]
async fn a_listener_stays_one_and_tells_who_is_who() {
    let ground = Ground::new();
    let first = ground.bootstrap().await;
    let mut listener = ground.node("listener", &["join", "--role", "listener", &first.url("")]);
    let is_there = |map: &ClusterMap| map.nodes.get(&NodeId(2)).is_some_and(|node| node.role == NodeRole::Listener);
    first.until("the listener is there", is_there).await;
    listener.until_get("/map", 200).await;
    // Whether it answers is part of the map, and may change.
    until("both tell the same map", WAIT_DEADLINE, async || {
        let (map, told) = (first.map().await, listener.map().await);
        holds(told == map, (told, map))
    })
    .await;
    assert_eq!(listener.map().await.nodes[&NodeId(2)].db_port, None);
    let leader: Leader = first.get("/leader").await.ok();
    listener.until_get("/is-leader", 417).await.names(417, &leader);
    assert_eq!(listener.until_get("/readiness", 200).await.ok::<NodeStatus>().database, None);
    let port = listener.port;
    let upgrade = format!("/node/2?db-port=5432&api-port={port}");
    // Before the leader has heard of it, that is the reason.
    while let reason = first.patch(&upgrade).await.refused(412)
        && !reason.contains("stay a listener")
    {
        assert!(reason.contains("does not answer") || reason.contains("not caught up"), "{reason}");
    }

    assert!(listener.terminate().await.0.success());
    listener.start(&["run"]);
    listener.until("it is the same listener", is_there).await;
}

#[tokio::test]
async fn a_witness_that_starts_again_makes_no_database_of_the_settings_that_all_hosts_have() {
    let ground = Ground::new();
    let (mine, its) = (ground.database("1"), ground.database("2"));
    let (my_port, its_port) = (free_port().to_string(), free_port().to_string());
    fn settings<'a>(data: &'a str, port: &'a str) -> [&'a str; 4] {
        ["--db-data-dir", data, "--db-port", port]
    }
    let first = ground.node("1", &[&settings(&mine, &my_port)[..], &["bootstrap"]].concat());
    first.until_get("/primary", 200).await;
    let url = first.url("");
    let join = ["join", "--role", "witness", &url];
    let mut witness = ground.node("2", &[&settings(&its, &its_port)[..], &join].concat());
    first.until("the witness votes", |map| map.nodes.get(&NodeId(2)).is_some_and(Node::votes)).await;
    assert!(witness.terminate().await.0.success());
    witness.start(&[&settings(&its, &its_port)[..], &["run"]].concat());
    assert_eq!(witness.until_get("/readiness", 200).await.ok::<NodeStatus>().database, None);
    assert!(!std::path::Path::new(&its).exists());
}

#[tokio::test]
async fn a_node_ends_when_it_is_told_to_whoever_waits_for_it() {
    let ground = Ground::new();
    let mut nodes = ground.three().await;
    let (_, leads, follow) = one_leads(&nodes.each_ref()).await;
    let (first, second) = (follow[0].port, leads.port);

    // First a follower, then the leader; each has peers, and somebody waits for its news.
    let wait = Duration::from_secs(20);
    for port in [first, second] {
        let node = nodes.iter_mut().find(|node| node.port == port).unwrap();
        let polls = ["/map", "/events"].map(|path| node.ask_later(format!("{path}?after-index=1000000&wait=20s")));
        // The polls have arrived by the time a later request has been answered.
        node.get("/map?after-index=1000000&wait=100ms").await.ok::<ClusterMap>();
        assert!(polls.iter().all(|poll| !poll.is_finished()));
        let (status, took) = node.terminate().await;
        assert!(status.success(), "{status:?}");
        assert!(took < wait / 4, "{took:?}");
        for poll in polls {
            let begun = Instant::now();
            let _ = poll.await.unwrap();
            assert!(begun.elapsed() < wait / 4, "a long poll outlives its node");
        }
    }

    // The last one never led. It knows nobody to send a caller to.
    let last = nodes.iter().find(|node| ![first, second].contains(&node.port)).unwrap();
    let config: Config = last.get("/config").await.ok();
    last.until_get("/is-leader", 530).await;
    let asked = changes().into_iter().chain([
        (Method::POST, "/leader?node=1".into(), None),
        (Method::GET, "/leader".into(), None),
        (Method::GET, "/is-leader".into(), None),
    ]);
    for (method, path, json) in asked {
        let answer = last.ask(method, &path, json).await;
        assert!(!answer.refused(530).is_empty() && answer.error().leader.is_none(), "{answer:?}");
        assert!(answer.took < 2 * longest_election(&config), "{answer:?}");
    }
    for path in READS {
        assert_eq!(last.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_settings_of_a_real_database_are_told() {
    let ground = Ground::new();
    let port = free_port().to_string();
    let data = ground.database("db");
    let mut node = ground.node("db", &["--db-data-dir", &data, "--db-port", &port, "bootstrap"]);
    let config: DbConfig = until("the settings are told", WAIT_DEADLINE, async || {
        let leads = node.until_get("/is-leader", 200).await;
        assert_eq!(leads.ok::<Leader>().db_port.unwrap().to_string(), port);
        let answer = node.get("/db-config").await;
        if answer.status == 200 {
            return Ok(answer.ok());
        }
        assert!(answer.refused(531).contains("does not answer"), "{answer:?}");
        Err(answer)
    })
    .await;
    assert!(config.version.chars().next().is_some_and(|digit| digit.is_ascii_digit()), "{config:?}");
    assert!(config.system_identifier.parse::<u64>().is_ok(), "{config:?}");
    assert!(config.settings.is_sorted_by(|one, other| one.name < other.name), "{config:?}");
    let setting = config.settings.iter().find(|setting| setting.name == "port").unwrap();
    assert_eq!((setting.value.as_str(), setting.pending_restart), (port.as_str(), false));

    // A database that hangs is not waited for for long.
    ground.pause_databases(true);
    let answer = node.get("/db-config").await;
    assert!(answer.refused(531).contains("does not answer"), "{answer:?}");
    assert!(answer.took < WAIT_DEADLINE / 2, "{answer:?}");
    ground.pause_databases(false);
    node.until_get("/db-config", 200).await;

    // It outlives its agent.
    let (status, _) = node.terminate().await;
    assert!(status.success(), "{status:?}");
    assert!(ground.runs_a_database());
}
