//! The peer channel over real sockets, at a real server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dropshot::{RequestContext, ServerBuilder, WebsocketChannelResult, WebsocketConnection};
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, SinkExt, StreamExt};
use qluster_consensus::model::{NodeId, Term};
use qluster_consensus::protocol::version::{Spoken, Version, Versions};
use qluster_consensus::raft::store::Identity;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, Transport, TransportError};
use qluster_server::peer::{PeerLog, WebSocketTransport, accept};
use qluster_server::security::{Security, SecuritySettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::{holds, until};

/// Long for what takes a fraction of a second, so that only a hang runs into it.
const WAIT_DEADLINE: Duration = Duration::from_secs(20);
const CLUSTER: Uuid = Uuid::from_u128(7);
const VERSIONS: Versions = Versions::KNOWN;
const ME: NodeId = NodeId(1);
const THEM: NodeId = NodeId(2);

type Serve = Arc<dyn Fn(NodeId, PeerRequest) -> BoxFuture<'static, PeerResponse> + Send + Sync>;

/// The server's channel without the rest of its API.
#[dropshot::api_description]
trait PeerApi {
    type Context;

    #[channel { protocol = WEBSOCKETS, path = "/peer" }]
    async fn peer(rqctx: RequestContext<Self::Context>, upgraded: WebsocketConnection) -> WebsocketChannelResult;
}

struct Accepting {
    identity: Option<Identity>,
    security: Arc<Security>,
    serve: Serve,
    log: Arc<PeerLog>,
}

impl PeerApi for Accepting {
    type Context = Self;

    async fn peer(rqctx: RequestContext<Self>, upgraded: WebsocketConnection) -> WebsocketChannelResult {
        let this = rqctx.context();
        let serve = this.serve.clone();
        let serve = move |from, request| serve(from, request);
        let (remote, security) = (rqctx.request.remote_addr(), this.security.clone());
        accept(upgraded, remote, this.identity, VERSIONS, security, serve, this.log.clone()).await
    }
}

/// A node's server. It has threads of its own, so that dropping it is as a kill is: all its connections break.
struct Server {
    address: SocketAddr,
    log: Arc<PeerLog>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    fn start(address: SocketAddr, identity: Option<Identity>, serve: Serve) -> Self {
        Self::protected(address, identity, Security::none(), serve)
    }

    fn protected(address: SocketAddr, identity: Option<Identity>, security: Arc<Security>, serve: Serve) -> Self {
        let log = Arc::new(PeerLog::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let context = Accepting { identity, security, serve, log: log.clone() };
        let api = peer_api_mod::api_description::<Accepting>().unwrap();
        let config = dropshot::ConfigDropshot { bind_address: address, ..Default::default() };
        let discard = slog::Logger::root(slog::Discard, slog::o!());
        let _entered = runtime.enter();
        let server = ServerBuilder::new(api, context, discard).config(config).start().unwrap();
        let address = server.local_addr();
        runtime.spawn(server);
        Self { address, log, runtime: Some(runtime) }
    }

    fn echo() -> Self {
        Self::start(anywhere(), Some(identity(THEM)), Arc::new(|_, request| echo(request)))
    }

    fn notes(&self) -> Vec<String> {
        notes(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The wait is for the port, which must be free for the next server.
            std::thread::spawn(move || runtime.shutdown_timeout(WAIT_DEADLINE)).join().unwrap();
        }
    }
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// The same at an IP address of its own, so that no other test takes the port while its server is down.
fn anywhere_else(host: u8) -> SocketAddr {
    ([127, 0, 0, host], 0).into()
}

fn identity(node: NodeId) -> Identity {
    Identity { cluster: CLUSTER, node }
}

fn notes(log: &PeerLog) -> Vec<String> {
    log.lines().into_iter().map(|(_, text)| text).collect()
}

/// A client, and its log.
fn dialer() -> (Arc<WebSocketTransport>, Arc<PeerLog>) {
    let log = Arc::new(PeerLog::default());
    (WebSocketTransport::new(identity(ME), Security::none(), log.clone(), Spoken::new(VERSIONS)), log)
}

/// A small request that carries a number.
fn number(number: u64) -> PeerRequest {
    PeerRequest::Recruit { term: Term(number) }
}

fn told(request: &PeerRequest) -> u64 {
    match request {
        PeerRequest::Recruit { term } => term.0,
        other => panic!("no number: {other:?}"),
    }
}

/// The answer that carries a number.
fn answer(number: u64) -> PeerResponse {
    PeerResponse::Failed(number.to_string())
}

fn echo(request: PeerRequest) -> BoxFuture<'static, PeerResponse> {
    futures::future::ready(answer(told(&request))).boxed()
}

fn answered(response: Result<PeerResponse, TransportError>) -> u64 {
    match response.unwrap() {
        PeerResponse::Failed(number) => number.parse().unwrap(),
        other => panic!("no number: {other:?}"),
    }
}

/// Waits until `count` lines are noted.
async fn until_noted(notes: impl Fn() -> Vec<String>, count: usize) {
    until(&format!("{count} lines are noted"), WAIT_DEADLINE, async || {
        let notes = notes();
        holds(notes.len() == count, notes)
    })
    .await;
}

/// Waits until the server has been asked `count` times.
async fn until_served(served: &AtomicU64, count: u64) {
    until(&format!("{count} calls arrive"), WAIT_DEADLINE, async || {
        let served = served.load(Ordering::SeqCst);
        holds(served >= count, served)
    })
    .await;
}

fn unreachable_why(response: Result<PeerResponse, TransportError>) -> String {
    match response {
        Err(TransportError::Unreachable { reason, .. }) => reason,
        other => panic!("reached: {other:?}"),
    }
}

fn timed_out(response: &Result<PeerResponse, TransportError>) -> bool {
    matches!(response, Err(TransportError::Timeout { .. }))
}

#[tokio::test]
async fn requests_are_answered_and_the_sender_is_known() {
    let sender = Arc::new(Mutex::new(None));
    let seen = sender.clone();
    let serve = move |from, request| {
        *seen.lock().unwrap() = Some(from);
        echo(request)
    };
    let server = Server::start(anywhere(), Some(identity(THEM)), Arc::new(serve));
    let (transport, log) = dialer();
    assert_eq!(answered(transport.call(THEM, server.address, number(42), WAIT_DEADLINE).await), 42);
    assert_eq!(*sender.lock().unwrap(), Some(ME));
    assert_eq!(notes(&log), [format!("connected to node 2 at {}", server.address)]);
    assert_eq!(server.notes(), ["node 1 at 127.0.0.1 connected"]);

    drop(transport);
    until_noted(|| server.notes(), 2).await;
    assert_eq!(server.notes()[1], "a connection of node 1 at 127.0.0.1 ended: the other side closed it");
}

#[tokio::test]
async fn requests_arrive_in_order_although_answers_overtake_each_other() {
    const REQUESTS: u64 = 1000;
    // Each takes its place in line after a few awaits that do not wait, all in primitives of tokio's; then every second
    // answer waits for the one after it.
    let free = Arc::new(tokio::sync::Semaphore::new(10));
    let (line, mut arrived) = tokio::sync::mpsc::channel(REQUESTS as usize);
    let last = Arc::new(tokio::sync::watch::Sender::new(0));
    let serve = move |_, request: PeerRequest| {
        let (free, line, last, number) = (free.clone(), line.clone(), last.clone(), told(&request));
        async move {
            for _ in 0..5 {
                drop(free.acquire().await.unwrap());
            }
            line.send(number).await.unwrap();
            last.send_modify(|last| *last = number.max(*last));
            let wanted = if number % 2 == 0 { number + 1 } else { number };
            last.subscribe().wait_for(|last| *last >= wanted).await.unwrap();
            answer(number)
        }
        .boxed()
    };
    let server = Server::start(anywhere(), Some(identity(THEM)), Arc::new(serve));
    let (transport, _) = dialer();
    let order = Mutex::new(Vec::new());
    let calls = (0..REQUESTS).map(|sent| {
        let call = transport.call(THEM, server.address, number(sent), WAIT_DEADLINE);
        let order = &order;
        async move {
            assert_eq!(answered(call.await), sent);
            order.lock().unwrap().push(sent);
        }
    });
    // All are in line before the first one is polled.
    let calls: Vec<_> = calls.collect();
    join_all(calls).await;
    for expected in 0..REQUESTS {
        assert_eq!(arrived.recv().await, Some(expected));
    }
    assert!(!order.lock().unwrap().is_sorted(), "no answer overtook another");
}

#[tokio::test]
async fn no_more_requests_are_served_at_once_than_allowed() {
    let (served, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::watch::Sender::new(false)));
    let (count, opened) = (served.clone(), gate.clone());
    let serve = move |_, request| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut opened = opened.subscribe();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            echo(request).await
        }
        .boxed()
    };
    let server = Server::start(anywhere(), Some(identity(THEM)), Arc::new(serve));
    let (transport, _) = dialer();
    let calls: Vec<_> =
        (0..400).map(|sent| transport.call(THEM, server.address, number(sent), WAIT_DEADLINE)).collect();
    until_served(&served, 256).await;
    assert_eq!(served.load(Ordering::SeqCst), 256);
    gate.send_replace(true);
    let answers: Vec<_> = join_all(calls).await.into_iter().map(answered).collect();
    assert_eq!(answers, (0..400).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_messages_pass_in_both_directions_at_once() {
    // More than the sockets hold, so that a side that does not read while it writes would hang.
    let text = "x".repeat(1 << 20);
    let serve = |_, _| futures::future::ready(PeerResponse::Failed("y".repeat(1 << 20))).boxed();
    let server = Server::start(anywhere(), Some(identity(THEM)), Arc::new(serve));
    let (transport, _) = dialer();
    let request = || {
        let mut report = report();
        report.database.as_mut().unwrap().unfit = Some(text.clone());
        PeerRequest::Report(Box::new(report))
    };
    let calls = (0..32).map(|_| transport.call(THEM, server.address, request(), WAIT_DEADLINE));
    for response in join_all(calls).await {
        assert!(matches!(response.unwrap(), PeerResponse::Failed(text) if text.len() == 1 << 20));
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_sent_and_breaks_nothing() {
    let server = Server::echo();
    let (transport, _) = dialer();
    let mut large = report();
    large.database.as_mut().unwrap().unfit = Some("x".repeat(33 << 20));
    let large = transport.call(THEM, server.address, PeerRequest::Report(Box::new(large)), WAIT_DEADLINE);
    let small = transport.call(THEM, server.address, number(1), WAIT_DEADLINE);
    assert!(unreachable_why(large.await).contains("over the limit"));
    assert_eq!(answered(small.await), 1);
    assert_eq!(server.notes(), ["node 1 at 127.0.0.1 connected"]);
}

fn report() -> qluster_consensus::raft::transport::NodeReport {
    use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus};
    let database = Some(DatabaseStatus::unknown(DatabaseRole::Standby));
    qluster_consensus::raft::transport::NodeReport {
        node: ME,
        applied: qluster_consensus::model::LogIndex(3),
        sees: [THEM].into(),
        database,
        position: None,
        note: None,
        version: Version::FIRST,
    }
}

#[tokio::test]
async fn strangers_are_refused_and_noted_once() {
    let other = Uuid::from_u128(8);
    let cases = [
        (
            Some(Identity { cluster: other, node: THEM }),
            format!("it belongs to cluster {CLUSTER}, and this node to cluster {other}"),
        ),
        (Some(identity(NodeId(3))), "it looks for node 2, and this is node 3".into()),
        (None, "this node is not part of a cluster yet".into()),
    ];
    for (identity, reason) in cases {
        let server = Server::start(anywhere(), identity, Arc::new(|_, request| echo(request)));
        let (transport, log) = dialer();
        for _ in 0..5 {
            let refused = transport.call(THEM, server.address, number(1), WAIT_DEADLINE).await;
            assert_eq!(unreachable_why(refused), reason);
        }
        assert_eq!(notes(&log), [format!("node 2 at {} refuses this node: {reason}", server.address)]);
        assert_eq!(server.notes(), [format!("refused node 1 at 127.0.0.1: {reason}")]);
    }
}

/// What protects a node that knows these secrets.
fn secured(secrets: &[&str]) -> Arc<Security> {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let text: String = secrets.iter().map(|secret| format!("{}\n", secret.repeat(32))).collect();
    std::fs::write(file.path(), text).unwrap();
    let settings = SecuritySettings { peer_secret_file: Some(file.path().into()), ..Default::default() };
    Security::load(settings, [127, 0, 0, 1].into()).unwrap()
}

#[tokio::test]
async fn nodes_talk_where_each_proves_a_secret_that_the_other_knows() {
    for (dialing, accepting, expected) in [
        (secured(&["a"]), secured(&["a"]), None),
        (secured(&["a", "b"]), secured(&["b", "c"]), None),
        (
            secured(&["a"]),
            secured(&["b"]),
            Some("refuses this node: it does not know the secret of this node's cluster"),
        ),
        (Security::none(), secured(&["b"]), Some("refuses this node: it asks for the cluster's secret")),
        (secured(&["a"]), Security::none(), Some("is not trusted: it does not prove that it knows")),
    ] {
        let serve = Arc::new(|_, request| echo(request));
        let server = Server::protected(anywhere(), Some(identity(THEM)), accepting, serve);
        let log = Arc::new(PeerLog::default());
        let transport = WebSocketTransport::new(identity(ME), dialing, log.clone(), Spoken::new(VERSIONS));
        let answer = transport.call(THEM, server.address, number(3), WAIT_DEADLINE).await;
        match expected {
            None => assert_eq!(answered(answer), 3),
            Some(why) => {
                unreachable_why(answer);
                let notes = notes(&log);
                assert!(notes.len() == 1 && notes[0].contains(why), "{notes:?}");
                assert!(server.notes().iter().all(|note| !note.contains("connected")) || why.contains("not trusted"));
            }
        }
    }
}

/// What a server answers to bytes in place of the greeting. None if it closes the connection.
async fn greet_with(address: SocketAddr, greeting: Message) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/peer"), stream).await.unwrap();
    socket.send(greeting).await.unwrap();
    match tokio::time::timeout(WAIT_DEADLINE, socket.next()).await.unwrap() {
        Some(Ok(Message::Binary(bytes))) => Some(bytes.into()),
        _ => None,
    }
}

#[tokio::test]
async fn another_version_is_refused_whatever_follows_it() {
    let server = Server::echo();
    let mut hello = postcard::to_stdvec(&Versions { oldest: Version(2), newest: Version(2) }).unwrap();
    hello.extend(b"in a format of the future");
    for _ in 0..3 {
        let answer = greet_with(server.address, Message::binary(hello.clone())).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("upgrade qluster on the one that is dialed"), "{answer}");
    }
    assert_eq!(server.notes().len(), 1, "{:?}", server.notes());
}

#[tokio::test]
async fn bytes_that_are_no_greeting_close_the_connection() {
    let server = Server::echo();
    let (transport, _) = dialer();
    let garbage = [
        Message::binary(vec![]),
        Message::binary(vec![1, 2, 3]),
        Message::text("hello"),
        Message::binary(vec![1; 8 << 10]),
    ];
    for greeting in garbage {
        // The last one is larger than anything that a stranger may send.
        let _ = greet_with(server.address, greeting).await;
    }
    // It serves others as before.
    assert_eq!(answered(transport.call(THEM, server.address, number(1), WAIT_DEADLINE).await), 1);
    let notes = server.notes();
    assert!(notes.iter().filter(|note| note.starts_with("refused a connection from 127.0.0.1: ")).count() >= 3);
}

#[tokio::test]
async fn bytes_that_are_no_frame_close_the_connection() {
    let server = Server::echo();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let url = format!("ws://{}/peer", server.address);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let hello = postcard::to_stdvec(&(VERSIONS, CLUSTER, ME, THEM)).unwrap();
    socket.send(Message::binary(hello)).await.unwrap();
    socket.next().await.unwrap().unwrap();
    socket.send(Message::binary(vec![0xff; 100])).await.unwrap();
    assert!(!matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    until_noted(|| server.notes(), 2).await;
    assert!(server.notes()[1].contains("it sent bytes that are no frame"), "{:?}", server.notes());
}

/// The most memory that this process ever asked for, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_huge_declared_frame_costs_nothing() {
    let server = Server::echo();
    let before = peak();
    for greeted in [false, true] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let url = format!("ws://{}/peer", server.address);
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        if greeted {
            let hello = postcard::to_stdvec(&(VERSIONS, CLUSTER, ME, THEM)).unwrap();
            socket.send(Message::binary(hello)).await.unwrap();
            socket.next().await.unwrap().unwrap();
        }
        let mut stream = socket.into_inner();
        // Final, binary, masked, of 64 GiB, and a first part of it. Other tests in this process take far less.
        let mut frame = vec![0x82, 0xff];
        frame.extend((64_u64 << 30).to_be_bytes());
        frame.extend([0; 4 + 1000]);
        stream.write_all(&frame).await.unwrap();
        let mut end = Vec::new();
        // It may be reset, because not all that was sent was read.
        let _ = tokio::time::timeout(WAIT_DEADLINE, stream.read_to_end(&mut end)).await.unwrap();
    }
    until_noted(|| server.notes(), 3).await;
    assert!(server.notes()[0].contains("too long"), "{:?}", server.notes());
    assert!(server.notes()[2].contains("too long"), "{:?}", server.notes());
    assert!(peak() < before + (16 << 20), "{} KiB more", peak() - before);
}

#[tokio::test]
async fn a_killed_node_is_reached_as_soon_as_it_is_back() {
    let served = Arc::new(AtomicU64::new(0));
    let count = served.clone();
    let never = move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        futures::future::pending().boxed()
    };
    let server = Server::start(anywhere_else(2), Some(identity(THEM)), Arc::new(never));
    let address = server.address;
    let (transport, log) = dialer();
    let pending: Vec<_> = (0..10).map(|sent| transport.call(THEM, address, number(sent), WAIT_DEADLINE)).collect();
    until_served(&served, 10).await;
    let killed = Instant::now();
    drop(server);
    for response in join_all(pending).await {
        assert!(timed_out(&response), "{response:?}");
    }
    assert!(killed.elapsed() < WAIT_DEADLINE / 2, "they waited for their own time-out");
    for _ in 0..20 {
        unreachable_why(transport.call(THEM, address, number(1), WAIT_DEADLINE).await);
    }
    let lines = notes(&log);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].starts_with(&format!("the connection to node 2 at {address} was lost: ")), "{lines:?}");
    assert!(lines[2].starts_with(&format!("node 2 at {address} is not reachable: cannot connect: ")), "{lines:?}");

    let _back = Server::start(address, Some(identity(THEM)), Arc::new(|_, request| echo(request)));
    // The first request after it came back gets there.
    assert_eq!(answered(transport.call(THEM, address, number(5), WAIT_DEADLINE / 10).await), 5);
    assert_eq!(notes(&log).last().unwrap(), &format!("connected to node 2 at {address}"));
}

#[tokio::test]
async fn a_node_that_takes_connections_and_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind(anywhere_else(3)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (transport, _) = dialer();
    let start = Instant::now();
    let short = Duration::from_millis(100);
    let (first, second) = futures::join!(
        transport.call(THEM, address, number(1), short),
        transport.call(THEM, address, number(2), WAIT_DEADLINE),
    );
    // Neither was sent.
    assert_eq!(unreachable_why(first), format!("nothing could be sent to it within {short:?}"));
    assert_eq!(unreachable_why(second), "no greeting within 1s");
    assert!(start.elapsed() < WAIT_DEADLINE / 2);
    drop(listener);
    let _server = Server::start(address, Some(identity(THEM)), Arc::new(|_, request| echo(request)));
    assert_eq!(answered(transport.call(THEM, address, number(3), WAIT_DEADLINE).await), 3);
}

/// Passes bytes on between its port and `target`, until it is frozen: then connections stay open, and nothing passes.
async fn relay(target: SocketAddr, mut frozen: tokio::sync::watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            frozen.mark_unchanged();
            let mut frozen = frozen.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = frozen.changed() => std::future::pending().await,
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_replaced() {
    let server = Server::echo();
    let freeze = tokio::sync::watch::Sender::new(false);
    let address = relay(server.address, freeze.subscribe()).await;
    let (transport, log) = dialer();
    assert_eq!(answered(transport.call(THEM, address, number(1), WAIT_DEADLINE).await), 1);
    // This connection is dead from now on, and new ones are not.
    freeze.send_replace(true);
    let start = Instant::now();
    let timeout = Duration::from_millis(150);
    let mut sent = 0;
    while let response = transport.call(THEM, address, number(2), timeout).await
        && response.is_err()
    {
        assert!(start.elapsed() < WAIT_DEADLINE);
        sent += u32::from(timed_out(&response));
    }
    assert!(sent > 0);
    let lines = notes(&log);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].ends_with("was lost: no sign of life within 600ms"), "{lines:?}");
}

#[tokio::test]
async fn a_slow_answer_does_not_cost_the_connection() {
    let serve = |_, request| {
        async move {
            // Longer than a silent connection lives.
            tokio::time::sleep(Duration::from_secs(2)).await;
            echo(request).await
        }
        .boxed()
    };
    let server = Server::start(anywhere(), Some(identity(THEM)), Arc::new(serve));
    let (transport, log) = dialer();
    let short = transport.call(THEM, server.address, number(1), Duration::from_millis(10));
    let long = transport.call(THEM, server.address, number(2), WAIT_DEADLINE);
    let (short, long) = futures::join!(short, long);
    assert!(short.is_err());
    assert_eq!(answered(long), 2);
    assert_eq!(notes(&log).len(), 1, "{:?}", notes(&log));
}

#[tokio::test]
async fn a_node_that_moved_is_followed_and_a_forgotten_one_left() {
    let (first, second) = (Server::echo(), Server::echo());
    let (transport, _) = dialer();
    assert_eq!(answered(transport.call(THEM, first.address, number(1), WAIT_DEADLINE).await), 1);
    assert_eq!(answered(transport.call(THEM, second.address, number(2), WAIT_DEADLINE).await), 2);
    until_noted(|| first.notes(), 2).await;
    assert_eq!(second.notes(), ["node 1 at 127.0.0.1 connected"]);
    transport.forget(THEM);
    until_noted(|| second.notes(), 2).await;
}

#[tokio::test]
async fn a_full_line_is_said_at_once() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (transport, _) = dialer();
    let calls: Vec<_> = (0..2000).map(|sent| transport.call(THEM, address, number(sent), WAIT_DEADLINE)).collect();
    let full = calls.into_iter().rev().take(500).map(|call| call.now_or_never());
    for response in full {
        assert_eq!(unreachable_why(response.unwrap()), "too many requests wait for it");
    }
}

/// Answers must not wait until the ones before them are acknowledged, which takes the asking side's operating system
/// 40 ms if it has nothing to send itself.
#[tokio::test]
async fn answers_do_not_wait_for_each_other() {
    const ROUNDS: usize = 200;
    const AT_ONCE: u64 = 4;
    let serve = |_, request: PeerRequest| {
        async move {
            // Each in a write of its own.
            for _ in 0..told(&request) * 3 {
                tokio::task::yield_now().await;
            }
            echo(request).await
        }
        .boxed()
    };
    let server = Server::start(anywhere(), Some(identity(THEM)), Arc::new(serve));
    let (transport, _) = dialer();
    answered(transport.call(THEM, server.address, number(0), WAIT_DEADLINE).await);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (kind, at_once) in [1, AT_ONCE].into_iter().enumerate() {
            let start = Instant::now();
            let calls = (0..at_once).map(|sent| transport.call(THEM, server.address, number(sent), WAIT_DEADLINE));
            join_all(calls).await.into_iter().for_each(|response| assert!(response.is_ok()));
            times[kind].push(start.elapsed());
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    let [one, several] = times.map(|times| (times[ROUNDS / 2], times[ROUNDS * 95 / 100]));
    println!(
        "one: median {:?}, 95 % {:?}; {AT_ONCE} at once: median {:?}, 95 % {:?}",
        one.0, one.1, several.0, several.1
    );
    assert!(several.0 < one.0 + Duration::from_millis(30), "{several:?}, one alone {one:?}");
}
