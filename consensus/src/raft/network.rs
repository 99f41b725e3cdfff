//! openraft's network over a [`Transport`].

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::env::lock::lock;
use crate::env::sabotage::{self, Sabotage};
use crate::model::NodeId;
use crate::protocol::peer::Peer;
use crate::raft::context::Context;
use crate::raft::transport::{PeerRequest, PeerResponse, SnapshotChunk, TransportError};
use crate::raft::types::{TypeConfig, Vote};
use crate::raft::wire::AppendResponse;

/// How many appends to one node may be under way at once.
const PIPELINED_APPENDS: usize = 64;
/// The size of the pieces in which a snapshot is sent, in bytes. It is well below the limit of a frame.
const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;
/// How long a peer may take to answer a piece of a snapshot. It answers the last one when the snapshot is on disk.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

type SnapshotData = Vec<u8>;
type RaftSnapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type CallResult = Result<PeerResponse, RPCError<TypeConfig>>;

/// Makes connections to the other members.
pub(crate) struct Network {
    context: Arc<Context>,
    /// An append that is not answered within this time is sent again (`replication-retry-interval`).
    retry: Duration,
}

/// The connection of a core to one other member.
pub(crate) struct Line {
    context: Arc<Context>,
    retry: Duration,
    to: NodeId,
    address: SocketAddr,
}

impl Network {
    pub(crate) fn new(context: Arc<Context>, retry: Duration) -> Self {
        Self { context, retry }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, node: &Peer) -> Line {
        Line { context: self.context.clone(), retry: self.retry, to: target, address: node.address }
    }
}

impl Line {
    /// Sends a request. It is queued when this returns.
    fn call(&self, request: PeerRequest, timeout: Duration) -> BoxFuture<'static, CallResult> {
        let answer = self.context.transport.call(self.to, self.address, request, timeout);
        let (context, to) = (self.context.clone(), self.to);
        Box::pin(async move {
            match answer.await {
                Ok(PeerResponse::Removed) => {
                    context.removed.send_if_modified(|removed| !std::mem::replace(removed, true));
                    Err(unreachable(format!("node {to} says that this node was removed from the cluster")))
                }
                Ok(PeerResponse::Failed(reason)) => {
                    Err(NetworkError::from_string(format!("node {to}: {reason}")).into())
                }
                Ok(response) => Ok(response),
                Err(error @ TransportError::Unreachable { .. }) => Err(Unreachable::new(&error).into()),
                // openraft sends it again at once: the timeout is the interval between two attempts.
                Err(error @ TransportError::Timeout { .. }) => Err(NetworkError::new(&error).into()),
            }
        })
    }

    /// Sends an append, and notes the lease that its receiver grants.
    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>>> {
        let term = request.vote.leader_id().term;
        let sent = self.context.clock.now();
        let answer = self.call(PeerRequest::Append(request.into()), timeout);
        let (context, to) = (self.context.clone(), self.to);
        Box::pin(async move {
            match answer.await? {
                PeerResponse::Append { response, node_timeout } => {
                    if !matches!(response, AppendResponse::HigherVote(_)) {
                        // The lease counts from when the append was sent: the receiver heard it later than that.
                        let sent = if sabotage::is(Sabotage::LeaseFromReceipt) { context.clock.now() } else { sent };
                        lock(&context.grants).note(term, to, sent, node_timeout.get());
                    }
                    Ok(response.into())
                }
                other => Err(unexpected(to, &other)),
            }
        })
    }

    async fn vote_of(
        &self,
        request: PeerRequest,
        timeout: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(request, timeout).await? {
            PeerResponse::Vote(response) => Ok(response.into()),
            other => Err(unexpected(self.to, &other)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: RaftSnapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let transfer = self.context.random.uuid();
        let data = snapshot.snapshot;
        let mut offset = 0;
        loop {
            let end = data.len().min(offset + SNAPSHOT_PIECE_BYTES);
            let chunk = SnapshotChunk {
                transfer,
                vote: vote.into(),
                meta: (&snapshot.meta).into(),
                offset: offset as u64,
                data: data[offset..end].to_vec(),
                last: end == data.len(),
            };
            match self.call(PeerRequest::Snapshot(chunk), SNAPSHOT_TIMEOUT).await? {
                PeerResponse::SnapshotPart => offset = end,
                PeerResponse::Snapshot(response) => return Ok(response.into()),
                other => return Err(unexpected(self.to, &other)),
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Line {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.append(rpc, self.retry).await
    }

    /// Sends appends as they come, and yields their answers in order. The first answer that is no full success ends the
    /// stream.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let line = &*self;
        let answers = input
            .map(move |request| {
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(previous);
                let answer = line.append(request, line.retry);
                async move { (answer.await, previous, last) }
            })
            .buffered(PIPELINED_APPENDS);
        let results = stream::unfold(Some(answers.boxed()), |answers| async move {
            let mut answers = answers?;
            let (answer, previous, last) = answers.next().await?;
            Some(match answer {
                Ok(AppendEntriesResponse::Conflict) if previous.is_none() => {
                    (Err(unreachable("a peer lacks the entry before the first one".into())), None)
                }
                Ok(response) => {
                    let partial = matches!(&response, AppendEntriesResponse::PartialSuccess(up_to) if *up_to != last);
                    let result = response.into_stream_result(previous, last);
                    let go_on = result.is_ok() && !partial;
                    (Ok(result), go_on.then_some(answers))
                }
                Err(error) => (Err(error), None),
            })
        });
        Box::pin(async move { Ok(results.boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_of(PeerRequest::Vote(rpc.into()), option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let position = *lock(&self.context.candidate);
        self.vote_of(PeerRequest::PreVote { request: rpc.into(), position }, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => sent.map_err(|error| match error {
                RPCError::Network(error) => StreamingError::Network(error),
                RPCError::Unreachable(error) => StreamingError::Unreachable(error),
                other => StreamingError::Unreachable(Unreachable::new(&other)),
            }),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(PeerRequest::Transfer(req.into()), option.hard_ttl()).await? {
            PeerResponse::Transfer(response) => Ok(response.map_err(Into::into)),
            other => Err(unexpected(self.to, &other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(self.retry)))
    }
}

fn unreachable(reason: String) -> RPCError<TypeConfig> {
    Unreachable::from_string(reason).into()
}

fn unexpected(from: NodeId, response: &PeerResponse) -> RPCError<TypeConfig> {
    unreachable(format!("node {from} gave an answer that does not fit the question: {response:?}"))
}
