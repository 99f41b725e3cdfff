//! The accepted side of a connection: it serves.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dropshot::{WebsocketChannelResult, WebsocketConnection};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use qluster_consensus::model::NodeId;
use qluster_consensus::protocol::version::Versions;
use qluster_consensus::raft::store::Identity;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::error::PeerError;
use super::log::{PeerLog, State, Subject};
use super::wire::{self, Frame, Greeting, Hello, Proofs};
use crate::security::{Security, nonce};

/// Whoever connects must have greeted within this time.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// A connection on which nothing arrives for this time is dead: its peer would have sent several pings.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// How many unanswered requests a connection may have before no more are read from it.
const UNANSWERED_LIMIT: usize = 256;
/// How many bytes these requests may have together.
const UNANSWERED_LIMIT_BYTES: usize = wire::MESSAGE_LIMIT_BYTES;

/// Serves the peer at the other end of `upgraded`, which comes from `remote`, until it goes away.
///
/// The peer must prove that it knows the cluster's secret if `security` has one, greet the node `identity` in its
/// cluster, and have one of `versions` in common with it. A node without an identity refuses every peer. Requests are
/// given to `serve` as they arrive. The future of each is polled once before the next request is read, so that requests
/// queue in the order of their arrival. Answers are sent as they are ready. Futures that are not done when the connection
/// ends are dropped.
///
/// Failures are noted in `log`. They are not errors of the HTTP server: the result is always `Ok`.
pub async fn accept<F>(
    upgraded: WebsocketConnection,
    remote: SocketAddr,
    identity: Option<Identity>,
    versions: Versions,
    security: Arc<Security>,
    serve: F,
    log: Arc<PeerLog>,
) -> WebsocketChannelResult
where
    F: Fn(NodeId, PeerRequest) -> BoxFuture<'static, PeerResponse>,
{
    let host = remote.ip();
    let socket = wire::for_greeting(upgraded.into_inner(), Role::Server).await;
    let late = |_| Err((Subject::Stranger(host), PeerError::Late { awaited: "greeting", within: GREETING_DEADLINE }));
    let greeted =
        timeout(GREETING_DEADLINE, greet(socket, remote, identity, versions, &security)).await.unwrap_or_else(late);
    let (socket, from) = match greeted {
        Ok(greeted) => greeted,
        Err((subject, error)) => {
            let who = match subject {
                Subject::From(node, _) => format!("node {node} at {host}"),
                _ => format!("a connection from {host}"),
            };
            let reason = error.chain();
            log.change(subject, error.state(), || format!("refused {who}: {reason}"));
            return Ok(());
        }
    };
    let subject = Subject::From(from, host);
    log.change(subject, State::Connected, || format!("node {from} at {host} connected"));
    let Err(why) = serve_all(socket, from, serve).await;
    log.change(subject, State::Lost, || format!("a connection of node {from} at {host} ended: {}", why.chain()));
    Ok(())
}

/// Finds out who connects, and whether it may be served.
async fn greet<S>(
    mut socket: WebSocketStream<S>,
    remote: SocketAddr,
    identity: Option<Identity>,
    versions: Versions,
    security: &Security,
) -> Result<(WebSocketStream<S>, NodeId), (Subject, PeerError)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stranger = |error| (Subject::Stranger(remote.ip()), error);
    let bytes = wire::receive(&mut socket).await.map_err(stranger)?;
    let (subject, verdict) = match wire::decode_hello(&bytes, versions) {
        Ok(hello) => {
            // First of all: a stranger does not even learn which cluster this is.
            let welcome = prove(&mut socket, &hello, remote, security).await.map_err(stranger)?;
            // Without a proof, anybody may claim to be any node.
            let subject = match welcome {
                Ok(_) => Subject::From(hello.from, remote.ip()),
                Err(_) => Subject::Stranger(remote.ip()),
            };
            (subject, welcome.and_then(|welcome| judge(&hello, identity).map(|()| (hello.from, welcome))))
        }
        Err(error) => (Subject::Stranger(remote.ip()), Err(error)),
    };
    let failed = |error| (subject, error);
    let message = match &verdict {
        Ok((_, welcome)) => wire::encode(welcome),
        Err(error) => wire::encode(&Greeting::Refused { reason: error.to_string() }),
    };
    // The refusal is worth more than the news that it could not be delivered.
    let sent = socket.send(message.map_err(failed)?).await;
    let (from, _) = verdict.map_err(failed)?;
    sent.map_err(|error| failed(error.into()))?;
    Ok((wire::for_frames(socket, Role::Server).await, from))
}

/// Asks the other side to prove that it knows the cluster's secret, if there is one. Returns the greeting that welcomes
/// it, or why it is not welcome.
///
/// # Errors
///
/// The connection failed.
async fn prove<S>(
    socket: &mut WebSocketStream<S>,
    hello: &Hello,
    remote: SocketAddr,
    security: &Security,
) -> Result<Result<Greeting, PeerError>, PeerError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !security.has_secret() {
        return Ok(Ok(Greeting::Welcome));
    }
    let accepting = nonce();
    socket.send(wire::encode(&Greeting::Prove { nonce: accepting })?).await?;
    let Proofs { nonce: dialing, proofs } = wire::decode(&wire::receive(socket).await?, "proof")?;
    let proof = security.answer_proofs(remote.ip(), &proofs, &hello.statement(dialing, accepting));
    let unknown = || PeerError::Distrusted("it does not know the secret of this node's cluster");
    Ok(proof.map(|proof| Greeting::Proven { proof }).ok_or_else(unknown))
}

/// Whether this node serves the sender of `hello`; otherwise why not.
fn judge(hello: &Hello, identity: Option<Identity>) -> Result<(), PeerError> {
    let reason = match identity {
        None => "this node is not part of a cluster yet".to_owned(),
        Some(me) if hello.cluster != me.cluster => {
            format!("it belongs to cluster {}, and this node to cluster {}", hello.cluster, me.cluster)
        }
        Some(me) if hello.to != me.node => format!("it looks for node {}, and this is node {}", hello.to, me.node),
        Some(_) => return Ok(()),
    };
    Err(PeerError::Refused(reason))
}

/// Serves requests until the connection ends; returns why it did.
async fn serve_all<S, F>(
    socket: WebSocketStream<S>,
    from: NodeId,
    serve: F,
) -> Result<std::convert::Infallible, PeerError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(NodeId, PeerRequest) -> BoxFuture<'static, PeerResponse>,
{
    let (mut sink, mut stream) = socket.split();
    let mut in_flight = FuturesUnordered::new();
    let mut held = 0;
    let mut answers = VecDeque::new();
    let mut writing = false;
    let mut active = Instant::now();
    loop {
        let room = in_flight.len() + answers.len() < UNANSWERED_LIMIT && held < UNANSWERED_LIMIT_BYTES;
        // Requests make progress even while answers cannot be written: they may hold what other peers wait for.
        tokio::select! {
            message = stream.next(), if room => {
                active = Instant::now();
                let Some(bytes) = wire::received(message)? else { continue };
                let Frame::Request { id, body } = wire::decode(&bytes, "frame")? else {
                    return Err(PeerError::Unexpected("an answer to nothing"));
                };
                let mut answer = serve(from, body);
                // tokio's primitives return "pending" once a task has done much without a pause, and then a request would
                // not get its place in the queue. So its first poll is exempt.
                match unconstrained(&mut answer).now_or_never() {
                    Some(answer) => answers.push_back(encode_answer(id, answer)?),
                    None => {
                        held += bytes.len();
                        in_flight.push(async move { (id, bytes.len(), answer.await) });
                    }
                }
                writing |= !answers.is_empty();
            }
            Some((id, size, answer)) = in_flight.next() => {
                active = Instant::now();
                held -= size;
                answers.push_back(encode_answer(id, answer)?);
                writing = true;
            }
            written = poll_fn(|cx| wire::write(&mut sink, &mut answers, cx)), if writing => {
                written?;
                writing = false;
            }
            () = sleep_until(active + IDLE_LIMIT), if room => {
                return Err(PeerError::Late { awaited: "sign of life", within: IDLE_LIMIT });
            }
        }
    }
}

fn encode_answer(id: u64, body: PeerResponse) -> Result<Message, PeerError> {
    wire::encode(&Frame::Response { id, body }).or_else(|error| {
        let body = PeerResponse::Failed(error.chain());
        wire::encode(&Frame::Response { id, body })
    })
}
