//! The client against nodes that misbehave: small servers on real sockets, each with a script.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use qluster_client::model::{self, ConfigUpdate, ErrorCode, LogIndex, NodeId, NodeRole, Port};
use qluster_client::{Cause, ClusterClient, ClusterClientBuilder, Error};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// What a node does with a request.
enum Reply {
    Answer(u16, Value),
    Text(u16, &'static str),
    /// Closes the connection without an answer.
    Drop,
    /// Keeps the connection open without an answer.
    Hang,
}

/// What a node sees of a request.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    authorization: Option<String>,
    body: String,
}

struct Node {
    address: String,
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

/// A node that was bound and does not serve yet, so that others can name it.
struct Bound(std::net::TcpListener);

impl Bound {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Serves: `script` gets how many requests there were before, and the request line.
    fn serve(self, script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Node {
        let port = self.port();
        let listener = TcpListener::from_std(self.0).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), seen.clone());
        let task = tokio::spawn(async move {
            // Connections end with the node.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), log.clone());
                connections.spawn(serve(stream, script, log));
            }
        });
        Node { address: format!("http://127.0.0.1:{port}"), port, seen, task }
    }
}

/// A port at which connections are refused, and which nobody else gets meanwhile.
struct Gone(TcpSocket);

impl Gone {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

async fn serve(stream: TcpStream, script: Arc<impl Fn(usize, &str) -> Reply>, log: Arc<Mutex<Vec<Request>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            let found = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
            found.into_iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
        let before = {
            let mut log = log.lock().unwrap();
            let body = String::from_utf8(body).unwrap();
            log.push(Request { line: line.clone(), authorization: header("authorization"), body });
            log.len() - 1
        };
        let (status, body, kind) = match script(before, &line) {
            Reply::Answer(status, body) => (status, body.to_string(), "application/json"),
            Reply::Text(status, body) => (status, body.to_owned(), "text/plain"),
            Reply::Drop => return,
            Reply::Hang => std::future::pending().await,
        };
        let head = format!("HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Node {
    fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        Bound::new().serve(script)
    }

    /// The request lines so far.
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|request| request.line.clone()).collect()
    }

    /// How often it was asked for this.
    fn count(&self, line: &str) -> usize {
        self.seen().iter().filter(|seen| seen.starts_with(line)).count()
    }

    /// Ends, and closes its connections.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn leader(port: u16) -> Value {
    json!({"id": 1, "term": 7, "ip": "127.0.0.1", "api-port": port, "db-port": 5432})
}

fn refusal(status: u16, code: ErrorCode, leader: Value) -> Reply {
    let body = json!({"message": "no", "error-code": code, "request-id": "1", "leader": leader});
    Reply::Answer(status, body)
}

fn settings() -> Value {
    serde_json::to_value(model::Config::default()).unwrap()
}

fn map(index: u64, ports: &[u16]) -> Value {
    let node = |(position, port): (usize, &u16)| {
        let id = position + 1;
        let node = json!({
            "id": id, "ip": "127.0.0.1", "db-port": 5432, "api-port": port, "role": "voter", "upgrade-to": "voter",
            "state": "up", "reason": null
        });
        (id.to_string(), node)
    };
    let nodes: serde_json::Map<String, Value> = ports.iter().enumerate().map(node).collect();
    json!({"leader": null, "reason": null, "nodes": nodes, "config": settings(), "term": 7, "index": index})
}

/// Says that it leads, and answers the change by `reply`, which gets how many changes there were before.
fn leading(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Node {
    let bound = Bound::new();
    let port = bound.port();
    let changes = Mutex::new(0);
    bound.serve(move |_, line| match line {
        "GET /leader" => Reply::Answer(200, leader(port)),
        "POST /config" => {
            let mut changes = changes.lock().unwrap();
            *changes += 1;
            reply(*changes - 1)
        }
        other => panic!("{other}"),
    })
}

fn quick<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> ClusterClientBuilder {
    ClusterClient::builder(nodes.into_iter().map(|node| node.address.clone()))
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .deadline(Duration::from_secs(20))
}

fn update() -> ConfigUpdate {
    ConfigUpdate { autoremove_enabled: Some(true), ..Default::default() }
}

#[tokio::test]
async fn a_change_goes_to_the_leader_that_another_node_names() {
    let leads = leading(|_| Reply::Answer(200, settings()));
    let port = leads.port;
    let follower = Node::start(move |_, _| Reply::Answer(200, leader(port)));
    let client = quick([&follower]).token("secret").build().unwrap();

    assert_eq!(client.update_config(&update()).await.unwrap(), model::Config::default());
    assert_eq!(follower.seen(), ["GET /leader"]);
    assert_eq!(leads.seen(), ["POST /config"]);
    let sent = leads.seen.lock().unwrap()[0].clone();
    assert_eq!(sent.authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(serde_json::from_str::<ConfigUpdate>(&sent.body).unwrap(), update());

    // The next one goes there at once.
    client.update_config(&update()).await.unwrap();
    assert_eq!(follower.seen().len(), 1);
    assert_eq!(leads.seen().len(), 2);
}

#[tokio::test]
async fn a_deposed_leader_s_hint_is_followed() {
    for (status, code) in
        [(417, ErrorCode::NotLeader), (410, ErrorCode::Superseded), (412, ErrorCode::PreconditionFailed)]
    {
        let new = leading(|_| Reply::Answer(200, settings()));
        let port = new.port;
        let old = leading(move |_| refusal(status, code, leader(port)));
        quick([&old]).build().unwrap().update_config(&update()).await.unwrap();
        assert_eq!(old.count("POST"), 1, "{status}");
        assert_eq!(new.count("POST"), 1, "{status}");
    }
}

#[tokio::test]
async fn a_change_that_was_superseded_is_repeated_at_whoever_leads_then() {
    let node = leading(|before| match before {
        0 => refusal(410, ErrorCode::Superseded, Value::Null),
        _ => Reply::Answer(200, settings()),
    });
    quick([&node]).build().unwrap().update_config(&update()).await.unwrap();
    assert_eq!(node.seen(), ["GET /leader", "POST /config", "GET /leader", "POST /config"]);
}

#[tokio::test]
async fn without_a_leader_a_change_waits_for_one() {
    let node = leading(|before| match before {
        0..3 => refusal(530, ErrorCode::NoLeader, Value::Null),
        _ => Reply::Answer(200, settings()),
    });
    quick([&node]).build().unwrap().update_config(&update()).await.unwrap();
    assert_eq!(node.count("POST"), 4);
}

#[tokio::test]
async fn a_change_that_was_not_confirmed_is_not_repeated() {
    for (status, code) in [(420, ErrorCode::Unconfirmed), (500, ErrorCode::Internal)] {
        let node = leading(move |_| refusal(status, code, Value::Null));
        let error = quick([&node]).build().unwrap().update_config(&update()).await.unwrap_err();
        assert!(matches!(error, Error::Unconfirmed { .. }), "{error:?}");
        assert_eq!(error.code(), Some(code));
        assert_eq!(node.count("POST"), 1);
    }
}

#[tokio::test]
async fn a_change_whose_connection_is_lost_is_not_repeated() {
    let node = leading(|_| Reply::Drop);
    let error = quick([&node]).build().unwrap().update_config(&update()).await.unwrap_err();
    assert!(matches!(&error, Error::Unconfirmed { cause, .. } if matches!(**cause, Cause::Lost(_))), "{error:?}");
    assert_eq!(node.count("POST"), 1);
}

/// Guards against sending on a connection that the node has closed: that looks like a loss after sending.
#[tokio::test]
async fn a_change_after_another_opens_its_own_connection() {
    let node = leading(|before| match before {
        0 | 2 => Reply::Answer(200, settings()),
        _ => Reply::Drop,
    });
    let client = quick([&node]).build().unwrap();
    client.update_config(&update()).await.unwrap();
    assert!(matches!(client.update_config(&update()).await, Err(Error::Unconfirmed { .. })));
    client.update_config(&update()).await.unwrap();
    assert_eq!(node.count("POST"), 3);
}

#[tokio::test]
async fn a_change_that_could_not_be_sent_is_tried_at_the_next_leader() {
    let nobody = Gone::new();
    let gone = nobody.port();
    let leads = leading(|_| Reply::Answer(200, settings()));
    let port = leads.port;
    // The follower takes a moment to notice.
    let follower = Node::start(move |before, _| Reply::Answer(200, leader(if before == 0 { gone } else { port })));
    quick([&follower]).build().unwrap().update_config(&update()).await.unwrap();
    assert_eq!(follower.count("GET /leader"), 2);
    assert_eq!(leads.count("POST"), 1);
}

#[tokio::test]
async fn a_change_that_is_refused_is_not_repeated() {
    for (status, code) in
        [(400, ErrorCode::BadRequest), (403, ErrorCode::Forbidden), (412, ErrorCode::PreconditionFailed)]
    {
        let node = leading(move |_| refusal(status, code, Value::Null));
        let error = quick([&node]).build().unwrap().update_config(&update()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert_eq!(error.code(), Some(code));
        assert_eq!(node.count("POST"), 1);
    }
}

/// Guards against chasing a leader that names itself as the one who could do what it refuses.
#[tokio::test]
async fn a_refusal_that_names_the_node_itself_is_a_refusal() {
    let bound = Bound::new();
    let port = bound.port();
    let node = bound.serve(move |_, line| match line {
        "GET /leader" => Reply::Answer(200, leader(port)),
        _ => refusal(412, ErrorCode::PreconditionFailed, leader(port)),
    });
    let error = quick([&node]).build().unwrap().remove_node(NodeId(3)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(node.seen(), ["GET /leader", "DELETE /node/3"]);
}

#[tokio::test]
async fn nodes_that_name_each_other_are_not_asked_in_a_storm() {
    let (first, second) = (Bound::new(), Bound::new());
    let (one, two) = (first.port(), second.port());
    let other = |port| {
        move |_: usize, line: &str| match line {
            "GET /leader" => Reply::Answer(200, leader(port)),
            _ => refusal(417, ErrorCode::NotLeader, leader(port)),
        }
    };
    let (first, second) = (first.serve(other(two)), second.serve(other(one)));
    let client = quick([&first, &second]).deadline(Duration::from_secs(2)).build().unwrap();
    let error = client.update_config(&update()).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::NotLeader));
    let asked = first.seen().len() + second.seen().len();
    // Half of the hints wait for at least 25 ms once the pauses have grown; a storm is thousands.
    assert!(asked < 400, "{asked}");
}

#[tokio::test]
async fn the_deadline_is_kept() {
    let no_leader = Node::start(|_, _| refusal(530, ErrorCode::NoLeader, Value::Null));
    let hangs = Node::start(|_, _| Reply::Hang);
    let silent = leading(|_| Reply::Hang);
    let deadline = Duration::from_secs(2);
    for node in [&no_leader, &hangs, &silent] {
        let client = quick([node]).deadline(deadline).attempt_timeout(Duration::from_secs(60)).build().unwrap();
        let start = Instant::now();
        let error = client.update_config(&update()).await.unwrap_err();
        let took = start.elapsed();
        assert!(took < deadline * 10, "{took:?}");
        // Where the change was sent, it may take effect yet.
        assert_eq!(matches!(error, Error::Unconfirmed { .. }), std::ptr::eq(node, &silent), "{error:?}");
    }
    assert!(no_leader.count("GET /leader") > 1);
}

/// Guards against the attempt that has hardly any time: "no answer within 1 ms" says nothing of the cluster.
#[tokio::test]
async fn past_the_deadline_what_a_node_answered_is_told() {
    let node = Node::start(|before, _| match before {
        0 => refusal(530, ErrorCode::NoLeader, Value::Null),
        _ => Reply::Hang,
    });
    let client =
        quick([&node]).deadline(Duration::from_secs(1)).attempt_timeout(Duration::from_secs(60)).build().unwrap();
    let error = client.leader().await.unwrap_err();
    assert!(matches!(error, Error::Deadline { attempts: 2, .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::NoLeader));
}

#[tokio::test]
async fn a_read_is_answered_by_the_first_node_that_can_and_that_one_goes_first_afterwards() {
    let gone = Gone::new();
    let drops = Node::start(|_, _| Reply::Drop);
    let hangs = Node::start(|_, _| Reply::Hang);
    let stopped = Node::start(|_, _| refusal(531, ErrorCode::Unavailable, Value::Null));
    let foreign = Node::start(|_, _| Reply::Text(502, "bad gateway"));
    let alone = Node::start(|_, _| refusal(412, ErrorCode::PreconditionFailed, Value::Null));
    let good = Node::start(|_, _| Reply::Answer(200, settings()));
    let bad = [&drops, &hangs, &stopped, &foreign, &alone];
    let addresses = bad.into_iter().chain([&good]).map(|node| node.address.clone());
    let client = ClusterClient::builder([format!("127.0.0.1:{}", gone.port())].into_iter().chain(addresses))
        .attempt_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    client.config().await.unwrap();
    client.config().await.unwrap();
    assert_eq!(bad.map(|node| node.seen().len()), [1; 5]);
    assert_eq!(good.seen().len(), 2);
}

#[tokio::test]
async fn a_read_that_every_node_would_refuse_is_not_repeated() {
    let unknown = || Node::start(|_, _| refusal(401, ErrorCode::Unauthenticated, Value::Null));
    let (first, second) = (unknown(), unknown());
    let error = quick([&first, &second]).build().unwrap().config().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!((first.seen().len(), second.seen().len()), (1, 0));

    let alone = Node::start(|_, _| refusal(412, ErrorCode::PreconditionFailed, Value::Null));
    let defect = Node::start(|_, _| refusal(500, ErrorCode::Internal, Value::Null));
    let error = quick([&alone, &defect]).build().unwrap().config().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!((alone.seen().len(), defect.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_node_leads_or_not() {
    let leads = Node::start(|_, _| Reply::Answer(200, leader(1)));
    let client = quick([&leads]).build().unwrap();
    assert!(client.is_leader(&leads.address).await.unwrap());
    for (status, code) in [
        (412, ErrorCode::PreconditionFailed),
        (417, ErrorCode::NotLeader),
        (530, ErrorCode::NoLeader),
        (531, ErrorCode::Unavailable),
    ] {
        let node = Node::start(move |_, _| refusal(status, code, Value::Null));
        assert!(!client.is_leader(&node.address).await.unwrap(), "{status}");
    }
    let defect = Node::start(|_, _| refusal(500, ErrorCode::Internal, Value::Null));
    assert_eq!(client.is_leader(&defect.address).await.unwrap_err().code(), Some(ErrorCode::Internal));
    let gone = Gone::new();
    let address = format!("127.0.0.1:{}", gone.port());
    assert!(matches!(client.is_leader(&address).await, Err(Error::Deadline { .. })));
}

#[tokio::test]
async fn addresses_are_learned_from_maps() {
    let spare = Node::start(|_, _| Reply::Answer(200, settings()));
    let port = spare.port;
    let bound = Bound::new();
    let own = bound.port();
    let first = bound.serve(move |_, line| match line {
        "GET /map" => Reply::Answer(200, map(1, &[own, port])),
        _ => Reply::Drop,
    });
    let client = quick([&first]).build().unwrap();
    client.map().await.unwrap();
    assert_eq!(client.addresses(), [first.address.clone(), spare.address.clone()]);
    client.config().await.unwrap();
    assert_eq!(spare.seen(), ["GET /config"]);
}

#[tokio::test]
async fn a_watch_goes_on_at_another_node_and_never_goes_back() {
    let (one, two) = (Bound::new(), Bound::new());
    let ports = [one.port(), two.port()];
    // The first tells 1, then 2, and dies while it waits.
    let first = one.serve(move |_, line| match line {
        "GET /map" => Reply::Answer(200, map(1, &ports)),
        "GET /map?after-index=1&wait=1s" => Reply::Answer(200, map(2, &ports)),
        _ => Reply::Hang,
    });
    // The second lags behind, catches up, and tells the same twice.
    let second = two.serve(move |before, _| Reply::Answer(200, map([1, 2, 3, 3, 5][before.min(4)], &ports)));
    let client = quick([&first]).wait(model::Duration::from_millis(1000)).build().unwrap();
    let mut maps = client.watch_map();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(maps.next().await.unwrap().unwrap().index.0);
    }
    // It waits at the first now.
    assert!(maps.next().now_or_never().is_none());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(maps.next().now_or_never().is_none());
    first.kill().await;
    for _ in 0..2 {
        seen.push(maps.next().await.unwrap().unwrap().index.0);
    }
    assert_eq!(seen, [1, 2, 3, 5]);
    assert_eq!(second.seen()[0], "GET /map?after-index=2&wait=1s");
}

#[tokio::test]
async fn a_watch_tells_that_nobody_answers_and_goes_on() {
    let node = Node::start(|before, _| match before {
        0 => Reply::Answer(200, map(1, &[])),
        1..5 => Reply::Hang,
        _ => Reply::Answer(200, map(2, &[])),
    });
    let client = quick([&node])
        .wait(model::Duration::from_millis(10))
        .attempt_timeout(Duration::from_millis(400))
        .deadline(Duration::from_millis(790))
        .build()
        .unwrap();
    let seen: Vec<_> = client.watch_map().map(|map| map.map(|map| map.index.0)).take(3).collect().await;
    assert!(matches!(seen[..], [Ok(1), Err(Error::Deadline { .. }), _]), "{seen:?}");
}

#[tokio::test]
async fn a_watch_outlasts_a_node_that_is_no_member_for_a_while() {
    let node = Node::start(|before, _| match before {
        0 => Reply::Answer(200, map(1, &[])),
        1 => refusal(412, ErrorCode::PreconditionFailed, Value::Null),
        2 => refusal(500, ErrorCode::Internal, Value::Null),
        _ => Reply::Answer(200, map(2, &[])),
    });
    let client = quick([&node]).build().unwrap();
    let seen: Vec<_> = client.watch_map().map(|map| map.map(|map| map.index.0)).take(4).collect().await;
    assert!(matches!(seen[..], [Ok(1), Err(_), Err(_), Ok(2)]), "{seen:?}");
}

#[tokio::test]
async fn a_watch_ends_where_the_credential_is_refused() {
    let node = Node::start(|_, _| refusal(401, ErrorCode::Unauthenticated, Value::Null));
    let client = quick([&node]).build().unwrap();
    let seen: Vec<_> = client.watch_map().collect().await;
    assert!(matches!(seen[..], [Err(Error::Refused { .. })]), "{seen:?}");
    // A second request gets the same answer, whatever else happens meanwhile.
    let mut events = client.watch_events(LogIndex(0));
    assert!(events.next().await.unwrap().is_err());
    assert!(events.next().await.is_none() && events.next().await.is_none());
}

#[tokio::test]
async fn a_watch_tells_of_a_leader_that_is_in_the_log_for_long() {
    let with_leader = || {
        let mut map = map(1, &[]);
        map["leader"] = json!(1);
        map
    };
    let node = Node::start(move |before, _| Reply::Answer(200, if before < 2 { map(1, &[]) } else { with_leader() }));
    let client = quick([&node]).wait(model::Duration::from_millis(10)).build().unwrap();
    let seen: Vec<_> = client.watch_map().map(|map| map.unwrap().leader).take(2).collect().await;
    assert_eq!(seen, [None, Some(NodeId(1))]);
}

#[tokio::test]
async fn a_hand_over_that_nobody_has_taken_yet_is_not_confirmed() {
    let bound = Bound::new();
    let port = bound.port();
    let node = bound.serve(move |_, line| match line {
        "GET /leader" => Reply::Answer(200, leader(port)),
        "GET /map" => Reply::Answer(200, map(1, &[port])),
        _ => refusal(530, ErrorCode::NoLeader, Value::Null),
    });
    let client = quick([&node]).deadline(Duration::from_secs(2)).build().unwrap();
    for changed in [client.switch_over(NodeId(1)).await, client.switch_over_with_loss(NodeId(1)).await] {
        assert!(matches!(changed, Err(Error::Unconfirmed { .. })), "{changed:?}");
    }
    assert_eq!(node.seen().iter().filter(|line| line.contains("accept-data-loss")).count(), 1);
}

#[tokio::test]
async fn a_hand_over_whose_time_ends_in_the_search_for_the_leader_is_not_confirmed() {
    let bound = Bound::new();
    let port = bound.port();
    let node = bound.serve(move |before, line| match line {
        "GET /leader" if before == 0 => Reply::Answer(200, leader(port)),
        "GET /leader" => Reply::Hang,
        _ => refusal(530, ErrorCode::NoLeader, Value::Null),
    });
    let client = quick([&node]).deadline(Duration::from_secs(2)).build().unwrap();
    let changed = client.switch_over(NodeId(1)).await;
    assert!(matches!(changed, Err(Error::Unconfirmed { operation: "POST /leader", .. })), "{changed:?}");
}

#[tokio::test]
async fn a_watch_of_a_node_that_does_not_wait_is_no_storm() {
    let node = Node::start(|_, _| Reply::Answer(200, map(1, &[])));
    let client = quick([&node]).wait(model::Duration::from_millis(60_000)).build().unwrap();
    let mut maps = client.watch_map();
    maps.next().await.unwrap().unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(500), maps.next()).await;
    assert!((2..100).contains(&node.seen().len()), "{}", node.seen().len());
}

#[tokio::test]
async fn events_are_watched_one_by_one() {
    let event = |index: u64| {
        json!({
            "index": index, "time": "2026-01-31T12:00:00.123Z", "term": 7, "kind": "node-added", "node": 2,
            "cause": "asked for", "actor": "operator"
        })
    };
    let node = Node::start(move |_, line| match line {
        "GET /events?after-index=4&wait=1m" => Reply::Answer(200, json!([event(5), event(6)])),
        "GET /events?after-index=6&wait=1m" => Reply::Answer(200, json!([event(9)])),
        "GET /events?after-index=7&limit=10" => Reply::Answer(200, json!([event(9)])),
        _ => Reply::Hang,
    });
    let client = quick([&node]).wait(model::Duration::from_millis(60_000)).build().unwrap();
    let events: Vec<_> = client.watch_events(LogIndex(4)).take(3).map(|event| event.unwrap().index.0).collect().await;
    assert_eq!(events, [5, 6, 9]);
    assert_eq!(client.events(Some(LogIndex(7)), Some(10)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_operation_asks_for_what_it_says() {
    let bound = Bound::new();
    let port = bound.port();
    let node = bound.serve(move |_, line| {
        let answer = match line.split(['?', '/']).nth(1).unwrap() {
            "leader" => leader(port),
            "info" => json!({
                "cluster-id": "8f2b1c7e-52d4-4e0a-9d3f-6a1b0c5e7f90", "term": 7, "applied-index": 42,
                "config": settings(), "logs": []
            }),
            "db-config" => json!({"version": "15.4", "system-identifier": "1", "settings": []}),
            "sql" => json!([]),
            "rpc" => return Reply::Text(200, "one\ntwo\n"),
            "node" | "node-down" => map(1, &[port])["nodes"]["1"].clone(),
            other => panic!("{other}"),
        };
        Reply::Answer(200, answer)
    });
    let client = quick([&node]).build().unwrap();
    let own = node.address.clone();
    let (id, db_port, api_port) = (NodeId(4), Port::new(5432).unwrap(), Port::new(8080).unwrap());
    assert_eq!(client.leader().await.unwrap().id, NodeId(1));
    assert_eq!(client.info().await.unwrap().applied_index, LogIndex(42));
    assert_eq!(client.db_config(&own).await.unwrap().version, "15.4");
    assert_eq!(client.readonly_statements().await.unwrap().0, []);
    assert_eq!(client.rpc(&own).await.unwrap(), "one\ntwo\n");
    client.switch_over(id).await.unwrap();
    client.add_node("2001:db8::1".parse().unwrap(), NodeRole::Witness, None).await.unwrap();
    client.add_node("10.0.0.4".parse().unwrap(), NodeRole::Voter, Some(api_port)).await.unwrap();
    client.upgrade_node(id, db_port, api_port).await.unwrap();
    client.node_down(id).await.unwrap();
    client.remove_node(id).await.unwrap();
    assert_eq!(
        node.seen(),
        [
            "GET /leader",
            "GET /info",
            "GET /db-config",
            "GET /sql/readonly",
            "GET /rpc",
            "POST /leader?node=4",
            "POST /node?ip=2001%3Adb8%3A%3A1&role=witness",
            "POST /node?api-port=8080&ip=10.0.0.4&role=voter",
            "PATCH /node/4?api-port=8080&db-port=5432",
            "POST /node-down/4",
            "DELETE /node/4",
        ]
    );
}

#[test]
fn a_client_needs_addresses_and_a_token_that_can_be_sent() {
    assert!(matches!(ClusterClient::new(Vec::<String>::new()), Err(Error::NoAddress)));
    assert!(matches!(ClusterClient::new(["ftp://10.0.0.1"]), Err(Error::Address { .. })));
    let client = ClusterClient::builder(["10.0.0.1:8080"]).token("new\nline").build();
    assert!(matches!(client, Err(Error::Token)));
}
