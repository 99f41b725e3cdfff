//! A real daemon under attack, by clients that are slow, silent or endless, or that belong to another cluster. It goes on
//! serving all others, and its memory does not grow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use qluster_consensus::model::{Leader, NodeId};
use qluster_consensus::protocol::version::{Version, Versions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use uuid::Uuid;

use crate::support::raw::{answer, connect, exchange, head};
use crate::support::{Daemon, Ground, WAIT_DEADLINE, free_port, holds, until};

/// Connections that do nothing, or next to nothing, at once.
const IDLE: usize = 2000;

/// A daemon that leads, and its state before the attack.
struct Target {
    node: Daemon,
    leader: Leader,
    memory: u64,
    _ground: Ground,
}

impl Target {
    async fn new() -> Self {
        let ground = Ground::new();
        let node = ground.bootstrap().await;
        let leader = node.get("/is-leader").await.ok();
        // What is used once is there from then on.
        for minimum in 1..50 {
            node.configure(json!({ "autoremove-minimum": minimum })).await.ok::<serde_json::Value>();
            node.get("/events").await;
        }
        let memory = node.memory();
        Self { node, leader, memory, _ground: ground }
    }

    /// The daemon serves others: on a connection that it has had for long, and on a new one.
    async fn serves(&self, what: &str) {
        assert_eq!(self.node.get("/is-leader").await.ok::<Leader>(), self.leader, "{what}");
        assert_eq!(exchange(self.node.port, &head("GET", "/is-leader", "")).status, Some(200), "{what}");
        self.node.configure(json!({ "autoremove-minimum": 7 })).await.ok::<serde_json::Value>();
    }

    /// It has not grown beyond `times` what it was.
    fn is_small(&self, times: u64, what: &str) {
        let memory = self.node.memory();
        println!("{what}: {} KiB before, {memory} KiB now", self.memory);
        assert!(memory < times * self.memory, "{what}: {} KiB before, {memory} KiB now", self.memory);
    }
}

/// As many connections as asked for. For that the process may open as many files as the system lets it, from then on:
/// that is more than before, so it takes nothing from other tests of the same process.
fn crowd(port: u16, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let join = |_| {
        let mut stream = connect(port);
        stream.write_all(says).unwrap();
        stream
    };
    (0..count).map(join).collect()
}

fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_cost_little_and_keep_nobody_out() {
    let target = Target::new().await;
    for (what, says) in [
        ("silent", &b""[..]),
        ("half a line", b"GET /is-le"),
        ("half a head", b"GET /is-leader HTTP/1.1\r\nhost: x\r\n"),
        ("HTTP/2, and nothing asked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("kept after an answer", b"GET /is-leader HTTP/1.1\r\nhost: x\r\n\r\n"),
    ] {
        let crowd = crowd(target.node.port, IDLE, says);
        target.serves(what).await;
        target.is_small(4, what);
        drop(crowd);
    }
    target.serves("when they are gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_is_not_waited_for_for_ever() {
    let target = Target::new().await;
    let port = target.node.port;
    let begun = Instant::now();
    let mut heads = crowd(port, 50, b"GET /is-leader HTTP/1.1\r\nx");
    let headers = "content-type: application/json\r\ncontent-length: 1000\r\n";
    let mut bodies = crowd(port, 50, &head("POST", "/config", headers));
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    bodies.extend(crowd(port, 50, &head("POST", "/config", chunked)));
    // A byte now and then, so that something moves.
    let mut slow = bodies.len() + heads.len();
    let mut late = Vec::new();
    let deadline = Duration::from_secs(90);
    while slow > 0 {
        assert!(begun.elapsed() < deadline, "{slow} of them are still there");
        heads.retain_mut(|stream| stream.write_all(b"x").is_ok() && !is_closed(stream));
        bodies.retain_mut(|stream| {
            // Of the chunked ones this is a chunk that never ends.
            let _ = stream.write_all(b"1");
            let mut buffer = [0; 4096];
            stream.set_nonblocking(true).unwrap();
            match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(length) => {
                    late.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                    false
                }
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
        slow = bodies.len() + heads.len();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all are gone after {:?}", begun.elapsed());
    assert!(late.len() >= 50 && late.iter().all(|answer| answer.starts_with("HTTP/1.1 400")), "{:?}", late.first());
    assert!(late.iter().any(|answer| answer.contains("the body did not come within 10s")), "{:?}", late.first());
    target.serves("when they are gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_connection_is_served_or_closed() {
    let target = Target::new().await;
    let port = target.node.port;
    // Who has said all and hears on is answered, unless the end of what it says is read before the answer is there: that is
    // how the client of a poll goes away, too, and hyper then closes the connection.
    let answered = (0..50).any(|_| {
        let mut whole = connect(port);
        whole.write_all(b"GET /is-leader HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        whole.shutdown(Shutdown::Write).unwrap();
        let status = answer(&mut whole).status;
        assert!(matches!(status, None | Some(200)), "{status:?}");
        status.is_some()
    });
    assert!(answered);
    // Who has not said all, and says no more, is not waited for.
    let headers = "content-type: application/json\r\ncontent-length: 1000\r\n";
    let post = [head("POST", "/config", headers), b"{\"node".to_vec()].concat();
    for says in [&b""[..], b"GET", b"GET /is-leader HTTP/1.1\r\n", &post] {
        let mut half = connect(port);
        half.write_all(says).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
        let status = answer(&mut half).status;
        assert!(matches!(status, None | Some(400)), "{status:?}");
    }
    // Who asks for the news and goes away, again and again.
    for _ in 0..IDLE {
        let mut gone = connect(port);
        gone.write_all(&head("GET", "/map?after-index=1000000&wait=5m", "")).unwrap();
    }
    target.serves("half of a connection").await;
    target.is_small(4, "polls whose clients are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_cut_short() {
    let target = Target::new().await;
    let port = target.node.port;
    let many: String = (0..10_000).map(|number| format!("x-{number}: {}\r\n", "y".repeat(100))).collect();
    let long = format!("x: {}\r\n", "y".repeat(10 << 20));
    for (what, headers) in [("many headers", many), ("a long header", long)] {
        for _ in 0..20 {
            let status = exchange(port, &head("GET", "/is-leader", &headers)).status;
            assert!(matches!(status, None | Some(400 | 431)), "{what}: {status:?}");
        }
        target.serves(what).await;
        target.is_small(4, what);
    }
    // Who asks and asks, and does not read: the system's buffers are full, and no more is taken.
    let asks = b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000_000);
    let crowd: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = connect(port);
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            assert!(stream.write_all(&asks).is_err(), "all was taken");
            stream
        })
        .collect();
    target.serves("who does not read").await;
    target.is_small(4, "who does not read");
    drop(crowd);
}

/// A connection to `/peer` after `says`, a message of WebSocket's.
fn peer(port: u16, says: &[u8]) -> TcpStream {
    peer_of(port, "", says)
}

/// The same with more headers.
fn peer_of(port: u16, headers: &str, says: &[u8]) -> TcpStream {
    let mut stream = connect(port);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let head = format!("GET /peer HTTP/1.1\r\nhost: node\r\n{upgrade}{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(says).unwrap();
    stream
}

/// A binary frame of a client that declares `length` bytes.
fn frame(length: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82, 0xff];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_is_no_peer() {
    let target = Target::new().await;
    let hello = postcard::to_stdvec(&(Versions::KNOWN, Uuid::from_u128(7), NodeId(2), NodeId(1))).unwrap();
    let hello = frame(hello.len() as u64, &hello);
    for (headers, expected) in [("", Some(0x82)), ("origin: http://elsewhere.example\r\n", None)] {
        let mut first = [0];
        let read = peer_of(target.node.port, headers, &hello).read(&mut first).unwrap_or_default();
        let binary = Some(first[0]).filter(|&first| read > 0 && first == 0x82);
        assert_eq!(binary, expected, "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_elsewhere_and_frames_without_end_cost_nothing() {
    let target = Target::new().await;
    let port = target.node.port;
    let hello = |versions: Versions, cluster| {
        let hello = postcard::to_stdvec(&(versions, cluster, NodeId(2), NodeId(1))).unwrap();
        frame(hello.len() as u64, &hello)
    };
    let own: Uuid =
        target.node.get("/info").await.json::<serde_json::Value>()["cluster-id"].as_str().unwrap().parse().unwrap();
    let future = Versions { oldest: Version(999), newest: Version(999) };
    let stranger = hello(Versions::KNOWN, Uuid::from_u128(1));
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(peer(port, &stranger));
        crowd.push(peer(port, &hello(future, own)));
        // Declared before it is known who is there, and afterwards.
        crowd.push(peer(port, &frame(4 << 30, &[0; 1000])));
        for length in [4 << 30, u64::MAX >> 1] {
            let mut greeted = peer(port, &hello(Versions::KNOWN, own));
            let mut welcome = [0; 2];
            greeted.read_exact(&mut welcome).unwrap();
            greeted.write_all(&frame(length, &[0; 1000])).unwrap();
            crowd.push(greeted);
        }
        crowd.push(peer(port, b"\x81\x7f rubbish"));
        // Greets, and then nothing.
        crowd.push(peer(port, b""));
    }
    target.serves("while they are there").await;
    target.is_small(4, "peers of elsewhere");
    until("all are closed", 2 * WAIT_DEADLINE, async || {
        crowd.retain_mut(|stream| !is_closed(stream));
        holds(crowd.is_empty(), format!("{} are open", crowd.len()))
    })
    .await;
    target.serves("when they are gone").await;
    let told = target.node.get("/rpc").await.body;
    assert!(
        told.contains("it belongs to cluster 00000000-0000-0000-0000-000000000001, and this node to cluster"),
        "{told}"
    );
    assert!(told.lines().count() < 1200, "{} lines", told.lines().count());
}

#[tokio::test]
async fn a_copy_of_another_nodes_store_is_refused() {
    let ground = Ground::new();
    let mut first = ground.bootstrap().await;
    first.configure(json!({ "autoremove-minimum": 9 })).await.ok::<serde_json::Value>();
    first.kill();
    let mut other = ground.node("other", &["run"]);
    other.until_get("/map", 412).await;
    other.kill();
    std::fs::copy(first.dir.join("data/raft.redb"), other.dir.join("data/raft.redb")).unwrap();
    other.start(&["run"]);
    other.ended().await;
    let log = std::fs::read_to_string(other.dir.join("log")).unwrap();
    let expected = format!("is that of node 1 at 127.0.0.1:{}, and not of a node at", first.port);
    assert!(log.contains(&expected), "{log}");
    // The first one has it still.
    first.start(&["run"]);
    first.until_get("/is-leader", 200).await;
}

/// Once a write to its store failed, the node takes no part any more, and says so by ending: whoever runs it starts it
/// again, which mends what passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_store_fails_ends_and_comes_back_when_there_is_room() {
    let ground = Ground::new();
    let mut node = ground.bootstrap().await;
    // Below the size of the store, and above that of the log.
    node.limit_files(64 * 1024);
    let body = r#"{"node-timeout":"2s"}"#;
    let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let mut change = connect(node.port);
    change.write_all(&[head("POST", "/config", &headers), body.into()].concat()).unwrap();
    let (status, _) = node.ended().await;
    assert!(!status.success());
    let log = std::fs::read_to_string(node.dir.join("log")).unwrap();
    assert!(log.contains("consensus has stopped on this node"), "{log}");
    node.start(&["run"]);
    node.until_get("/is-leader", 200).await;
}

/// With a thousand connections at most, a thousand silent ones would keep everybody else out.
#[tokio::test]
async fn a_daemon_takes_as_many_connections_as_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let mut low = tokio::process::Command::new("sh");
    low.args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_qluster-server"), "--ip", "127.0.0.1"]);
    low.args(["--api-port", &free_port().to_string(), "--data-dir", directory.path().to_str().unwrap(), "run"]);
    let low = low.current_dir(directory.path()).stderr(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let pid = low.id().unwrap();
    let limit = || {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default().to_owned();
        line.split_whitespace().next().and_then(|limit| limit.parse::<u64>().ok())
    };
    let wanted = maximum.map_or(8192, |maximum| maximum.min(8192));
    until(&format!("its limit is {wanted}"), WAIT_DEADLINE, async || {
        let limit = limit();
        holds(limit == Some(wanted), limit)
    })
    .await;
}
