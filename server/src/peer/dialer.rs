//! The dialing side of a connection: it asks.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use qluster_consensus::model::NodeId;
use qluster_consensus::protocol::version::Spoken;
use qluster_consensus::raft::store::Identity;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, Transport, TransportError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::error::PeerError;
use super::log::{PeerLog, State, Subject};
use super::stream::{Stream, connect};
use super::wire::{self, Frame, Greeting, Hello, Proofs, Stage};
use crate::os::lock::lock;
use crate::security::{Role as ProofOf, Security, nonce};
use crate::tasks::Owned;

/// How many requests to one node may wait to be sent.
const QUEUE_LIMIT: usize = 1024;
/// How many of them are written at a time.
const BATCH_LIMIT: usize = 64;
/// A node must be connected and have greeted within this time.
const DIAL_DEADLINE: Duration = Duration::from_secs(1);
/// The least time between two attempts to dial a node.
const REDIAL_INTERVAL: Duration = Duration::from_millis(20);
/// If a request is unanswered and nothing arrives for this time, a ping asks whether the node is still there. The
/// accepting side answers the ping even if it is slow to answer the request.
const PROBE_DELAY: Duration = Duration::from_millis(100);
/// If nothing arrives for this time after a ping, the node or the network to it is gone. What is written until then is
/// lost on the dead connection. But with a shorter deadline, a slow network could not transfer a piece of a snapshot.
const PROBE_DEADLINE: Duration = Duration::from_millis(600);
/// How often a ping is sent while no request is unanswered, so that the node does not take the connection for dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Carries requests to other nodes, over one WebSocket to `/peer` on the API port of each.
///
/// A connection is made when it is first needed, and again if it is needed after it was lost. Each node has a task, which
/// ends when the transport is dropped.
pub struct WebSocketTransport {
    identity: Identity,
    security: Arc<Security>,
    log: Arc<PeerLog>,
    versions: Spoken,
    links: Mutex<HashMap<NodeId, Link>>,
}

/// The connection to a node, and the queue of requests for it.
struct Link {
    address: SocketAddr,
    line: mpsc::Sender<Call>,
    /// Ends with the link. If it panics, `line` is closed, and the next request makes another link.
    _task: Owned,
}

/// A request in the queue.
struct Call {
    request: PeerRequest,
    claim: Claim,
    answer: Answer,
}

/// Where the answer goes, or the reason why a request was not sent.
type Answer = oneshot::Sender<Result<PeerResponse, String>>;

/// A request is either sent or given up: whoever comes first has the claim, and the other side sees it.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl WebSocketTransport {
    /// A transport for the node `identity` that speaks `versions`, and notes in `log` what becomes of its connections. If
    /// `security` has a secret or TLS, it speaks only to nodes that have them, too.
    pub fn new(identity: Identity, security: Arc<Security>, log: Arc<PeerLog>, versions: Spoken) -> Arc<Self> {
        Arc::new(Self { identity, security, log, versions, links: Mutex::default() })
    }

    fn link(&self, to: NodeId, address: SocketAddr) -> Link {
        let (line, calls) = mpsc::channel(QUEUE_LIMIT);
        let versions = self.versions.clone();
        let hello = Hello { versions: versions.now(), cluster: self.identity.cluster, from: self.identity.node, to };
        let dialer = Dialer { hello, versions, address, security: self.security.clone(), log: self.log.clone() };
        let task = Owned::start(format!("connection to node {to}"), dialer.run(calls));
        Link { address, line, _task: task }
    }

    /// Puts a request into the queue, or returns why that cannot be done.
    fn enqueue(&self, to: NodeId, address: SocketAddr, call: Call) -> Result<(), &'static str> {
        let mut links = lock(&self.links);
        let link = links.entry(to).or_insert_with(|| self.link(to, address));
        // A node can move. Its old connection ends, and with it what waits there.
        if link.address != address || link.line.is_closed() {
            *link = self.link(to, address);
        }
        link.line.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => "too many requests wait for it",
            TrySendError::Closed(_) => "its connection is being closed",
        })
    }
}

impl Transport for WebSocketTransport {
    /// As the trait says; it must be called within a tokio runtime.
    fn call(
        &self,
        to: NodeId,
        address: SocketAddr,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let unreachable = move |reason| TransportError::Unreachable { node: to, address, reason };
        let asked = Instant::now();
        let (claim, (answer, answered)) = (Claim::default(), oneshot::channel());
        if let Err(reason) = self.enqueue(to, address, Call { request, claim: claim.clone(), answer }) {
            return futures::future::ready(Err(unreachable(reason.into()))).boxed();
        }
        async move {
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(answer)) => answer.map_err(unreachable),
                Ok(Err(_)) if claim.take() => Err(unreachable("its connection was closed".into())),
                // The connection was lost. The request may have arrived.
                Ok(Err(_)) => Err(TransportError::Timeout { node: to, address, timeout: asked.elapsed() }),
                Err(_) if claim.take() => Err(unreachable(format!("nothing could be sent to it within {timeout:?}"))),
                Err(_) => Err(TransportError::Timeout { node: to, address, timeout }),
            }
        }
        .boxed()
    }

    fn forget(&self, id: NodeId) {
        lock(&self.links).remove(&id);
    }
}

/// Keeps the connection to a node.
struct Dialer {
    hello: Hello,
    /// The versions that the next greeting offers.
    versions: Spoken,
    address: SocketAddr,
    security: Arc<Security>,
    log: Arc<PeerLog>,
}

impl Dialer {
    async fn run(self, mut calls: mpsc::Receiver<Call>) {
        let (to, address) = (self.hello.to, self.address);
        let subject = Subject::To(to);
        let mut next_dial = Instant::now();
        while let Some(first) = calls.recv().await {
            sleep_until(next_dial).await;
            if first.answer.is_closed() {
                continue;
            }
            next_dial = Instant::now() + REDIAL_INTERVAL;
            let late = |_| Err(PeerError::Late { awaited: "greeting", within: DIAL_DEADLINE });
            match timeout(DIAL_DEADLINE, self.dial()).await.unwrap_or_else(late) {
                Ok(socket) => {
                    self.log.change(subject, State::Connected, || format!("connected to node {to} at {address}"));
                    let Err(why) = converse(socket, first, &mut calls).await else { return };
                    let text = || format!("the connection to node {to} at {address} was lost: {}", why.chain());
                    self.log.change(subject, State::Lost, text);
                }
                Err(error) => {
                    let reason = error.chain();
                    let _ = first.answer.send(Err(reason.clone()));
                    while let Ok(call) = calls.try_recv() {
                        let _ = call.answer.send(Err(reason.clone()));
                    }
                    let (state, what) = match error {
                        PeerError::Refused(_) => (error.state(), "refuses this node"),
                        PeerError::Distrusted(_) | PeerError::Tls(_) => (error.state(), "is not trusted"),
                        _ => (State::Unreachable, "is not reachable"),
                    };
                    self.log.change(subject, state, || format!("node {to} at {address} {what}: {reason}"));
                }
            }
        }
    }

    /// Connects and greets.
    async fn dial(&self) -> Result<WebSocketStream<Stream>, PeerError> {
        let tls = self.security.keys().tls.as_ref().map(|tls| tls.client.clone());
        let stream = connect(self.address, tls).await?;
        // TLS, if there is any, is below this.
        let url = format!("ws://{}/peer", self.address);
        let limits = Some(Stage::Greeting.limits());
        let (mut socket, _) = tokio_tungstenite::client_async_with_config(url, stream, limits).await?;
        socket.send(wire::encode(&Hello { versions: self.versions.now(), ..self.hello })?).await?;
        let mut greeting = wire::decode(&wire::receive(&mut socket).await?, "greeting")?;
        let mut asked = None;
        if let Greeting::Prove { nonce: accepting } = greeting {
            let statement = self.hello.statement(nonce(), accepting);
            let proofs = self.security.prove(ProofOf::Dialing, &statement);
            if proofs.is_empty() {
                return Err(PeerError::Refused("it asks for the cluster's secret, and this node has none".into()));
            }
            socket.send(wire::encode(&Proofs { nonce: statement.dialing, proofs })?).await?;
            greeting = wire::decode(&wire::receive(&mut socket).await?, "greeting")?;
            asked = Some(statement);
        }
        match (greeting, asked) {
            (Greeting::Welcome, _) if !self.security.has_secret() => {}
            (Greeting::Proven { proof }, Some(statement)) if self.security.is_proven(proof, &statement) => {}
            (Greeting::Refused { reason }, _) => return Err(PeerError::Refused(reason)),
            _ => return Err(PeerError::Distrusted("it does not prove that it knows the cluster's secret")),
        }
        Ok(wire::for_frames(socket, Role::Client).await)
    }
}

/// Sends `first` and all that comes after it, and hands out the answers. Returns when there is nothing more to send.
///
/// # Errors
///
/// Why the connection was lost. Requests that are unanswered then get no answer.
async fn converse<S>(socket: WebSocketStream<S>, first: Call, calls: &mut mpsc::Receiver<Call>) -> Result<(), PeerError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let mut asked = Asked::default();
    let mut outgoing = VecDeque::new();
    let mut quiet_since = Instant::now();
    let mut probed: Option<Instant> = None;
    outgoing.extend(asked.ask(first));
    let mut writing = true;
    loop {
        let due = match probed {
            Some(probed) => probed + PROBE_DEADLINE,
            None if asked.waiting.is_empty() => quiet_since + KEEP_ALIVE_INTERVAL,
            None => quiet_since + PROBE_DELAY,
        };
        tokio::select! {
            // What has arrived counts before the clock does: this process, too, may have been frozen.
            biased;
            message = stream.next() => {
                (quiet_since, probed) = (Instant::now(), None);
                let Some(bytes) = wire::received(message)? else { continue };
                let Frame::Response { id, body } = wire::decode(&bytes, "frame")? else {
                    return Err(PeerError::Unexpected("a request on a connection for answers"));
                };
                asked.answer(id, body)?;
            }
            written = poll_fn(|cx| wire::write(&mut sink, &mut outgoing, cx)), if writing => {
                written?;
                writing = false;
            }
            call = calls.recv(), if !writing => {
                let Some(call) = call else { return Ok(()) };
                if asked.waiting.is_empty() {
                    quiet_since = Instant::now();
                }
                outgoing.extend(asked.ask(call));
                while outgoing.len() < BATCH_LIMIT && let Ok(call) = calls.try_recv() {
                    outgoing.extend(asked.ask(call));
                }
                writing = true;
            }
            () = sleep_until(due) => {
                if probed.is_some() {
                    return Err(PeerError::Late { awaited: "sign of life", within: PROBE_DEADLINE });
                }
                asked.clean();
                // If it cannot be written, the node does not read, which is no sign of life either.
                probed = Some(Instant::now());
                outgoing.push_back(Message::Ping(Default::default()));
                writing = true;
            }
        }
    }
}

/// The requests that were sent over a connection.
#[derive(Default)]
struct Asked {
    next: u64,
    waiting: HashMap<u64, Answer>,
    clean_at: usize,
}

impl Asked {
    /// Encodes a request whose answer is still wanted, and counts it as sent.
    fn ask(&mut self, call: Call) -> Option<Message> {
        if call.answer.is_closed() {
            return None;
        }
        let id = self.next;
        let message = match wire::encode(&Frame::Request { id, body: call.request }) {
            Ok(message) => message,
            Err(error) => {
                let _ = call.answer.send(Err(error.chain()));
                return None;
            }
        };
        if !call.claim.take() {
            return None;
        }
        self.next += 1;
        self.waiting.insert(id, call.answer);
        if self.waiting.len() > self.clean_at {
            self.clean();
        }
        Some(message)
    }

    /// Hands out an answer, unless nobody waits for it any more.
    fn answer(&mut self, id: u64, body: PeerResponse) -> Result<(), PeerError> {
        if id >= self.next {
            return Err(PeerError::Unexpected("an answer to nothing"));
        }
        if let Some(answer) = self.waiting.remove(&id) {
            let _ = answer.send(Ok(body));
        }
        Ok(())
    }

    /// Forgets the requests that nobody waits for any more: a node may never answer some.
    fn clean(&mut self) {
        self.waiting.retain(|_, answer| !answer.is_closed());
        self.clean_at = 2 * self.waiting.len().max(QUEUE_LIMIT);
    }
}
