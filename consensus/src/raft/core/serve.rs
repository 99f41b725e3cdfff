//! Requests of peers, as this node's core serves them.

use std::convert::identity;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::Snapshot;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::RaftLogStorage;

use super::Core;
use crate::env::lock::lock;
use crate::env::sabotage::{self, Sabotage};
use crate::raft::transport::{PeerResponse, SnapshotChunk};
use crate::raft::types::{Raft, SnapshotMeta, TypeConfig, Vote};
use crate::raft::wire::{AppendRequest, AppendResponse, LogPosition, TransferRequest, VoteRequest, VoteResponse};

/// The largest snapshot that is accepted from a leader, in bytes.
const LARGEST_SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;

impl Core {
    /// Serves a peer's append. While the core is being rebuilt it fails, and the peer tries again: appends that wait could
    /// overtake each other, and if an append conflicts after an acknowledged entry, openraft thinks that a log was lost.
    pub(crate) async fn append(&self, request: AppendRequest) -> PeerResponse {
        if *self.0.rebuilding.borrow() {
            return PeerResponse::Failed("its Raft core is being rebuilt".into());
        }
        let request: AppendEntriesRequest<TypeConfig> = match request.try_into() {
            Ok(request) => request,
            Err(nonsense) => return failed(nonsense),
        };
        match self.raft().append_entries(request).await {
            Ok(response) => {
                let response = AppendResponse::from(response);
                let node_timeout = self.config().node_timeout;
                if !matches!(response, AppendResponse::HigherVote(_))
                    && let Err(error) = self.grant_lease(node_timeout.get()).await
                {
                    return failed(error);
                }
                PeerResponse::Append { response, node_timeout }
            }
            Err(error) => failed(error),
        }
    }

    /// Serves a peer's request for a vote. If the leader that this node has granted a lease to hands its lead over, the
    /// lease does not count. That leader itself may be voted for, too: it has just restarted.
    pub(crate) async fn vote(&self, mut request: VoteRequest) -> PeerResponse {
        let raft = self.ready().await;
        request.leadership_transfer |= self.voted_for_the_same(&request);
        if self.must_wait() && !request.leadership_transfer {
            return self.reject();
        }
        raft.vote(request.into()).await.map_or_else(failed, |response| PeerResponse::Vote(response.into()))
    }

    /// Serves a peer's request for a pre-vote.
    pub(crate) async fn pre_vote(&self, request: VoteRequest) -> PeerResponse {
        let raft = self.ready().await;
        if !self.must_wait() {
            let response = raft.pre_vote(request.into()).await;
            return response.map_or_else(failed, |response| PeerResponse::Vote(response.into()));
        }
        if !self.voted_for_the_same(&request) {
            return self.reject();
        }
        // This is openraft's answer without openraft's own lease, which makes no exceptions.
        let own = self.own_vote();
        match self.0.store.clone().get_log_state().await {
            Ok(log) => {
                let last = log.last_log_id.map(LogPosition::from);
                let granted = request.last >= last && Vote::from(request.vote) >= Vote::from(own);
                PeerResponse::Vote(VoteResponse { vote: own, granted, last })
            }
            Err(error) => failed(error),
        }
    }

    /// Whether this node may vote for nobody but the leader that it has granted a lease to.
    fn must_wait(&self) -> bool {
        self.has_granted_lease() && !sabotage::is(Sabotage::VoteInSpiteOfPromise)
    }

    /// Whether the candidate is the node that this node voted for, or follows.
    fn voted_for_the_same(&self, request: &VoteRequest) -> bool {
        self.own_vote().voted_for == request.vote.voted_for
    }

    /// The refusal of a vote. It has this node's own vote in it. If it had the candidate's, the candidate would adopt the
    /// hypothetical term of a pre-vote, and unseat the leader.
    pub(crate) fn reject(&self) -> PeerResponse {
        PeerResponse::Vote(VoteResponse { vote: self.own_vote(), granted: false, last: None })
    }

    /// Serves a leader's hand-over, to this node or to another.
    pub(crate) async fn transfer(&self, request: TransferRequest) -> PeerResponse {
        // The lease that was granted to this leader does not count for its successor. An earlier leader cannot say that.
        let own = self.own_vote();
        if request.from == own {
            self.note_contact(None);
            self.0.handed_over.fetch_max(own.term.0, Ordering::Relaxed);
        }
        let taken = self
            .on_core(|raft| {
                let request = request.clone().into();
                async move { raft.handle_transfer_leader(request).await }.boxed()
            })
            .await;
        taken.map_or_else(identity, |taken| PeerResponse::Transfer(taken.map_err(Into::into)))
    }

    /// Serves a piece of a snapshot, and installs the snapshot when it is complete.
    pub(crate) async fn snapshot(&self, chunk: SnapshotChunk) -> PeerResponse {
        let data = {
            let mut receiving = lock(&self.0.snapshot);
            let (transfer, data) = receiving.get_or_insert_with(|| (chunk.transfer, Vec::new()));
            if *transfer != chunk.transfer {
                (*transfer, *data) = (chunk.transfer, Vec::new());
            }
            if data.len() as u64 != chunk.offset || data.len() + chunk.data.len() > LARGEST_SNAPSHOT_BYTES {
                let reason =
                    format!("a piece of a snapshot for offset {} does not follow {} bytes", chunk.offset, data.len());
                *receiving = None;
                return PeerResponse::Failed(reason);
            }
            data.extend_from_slice(&chunk.data);
            if !chunk.last {
                return PeerResponse::SnapshotPart;
            }
            receiving.take().map(|(_, data)| data).unwrap_or_default()
        };
        let meta: SnapshotMeta = match chunk.meta.try_into() {
            Ok(meta) => meta,
            Err(nonsense) => return failed(nonsense),
        };
        // openraft stops for good if a snapshot cannot be installed, as it does if a disk fails.
        if let Err(error) = self.state_machine().check(&data) {
            tracing::warn!(%error, "a snapshot that a peer sent is refused");
            return PeerResponse::Failed(format!("the snapshot cannot be read: {error}"));
        }
        let vote = chunk.vote.into();
        let installed = self
            .on_core(|raft| {
                let snapshot = Snapshot { meta: meta.clone(), snapshot: data.clone() };
                async move { raft.install_full_snapshot(vote, snapshot).await }.boxed()
            })
            .await;
        if installed.is_ok() {
            self.note_contact(Some(self.config().node_timeout.get()));
        }
        installed.map_or_else(identity, |response| PeerResponse::Snapshot(response.into()))
    }

    /// Lets the core serve a request, and serves it again if the core was rebuilt meanwhile.
    async fn on_core<T, E: std::fmt::Display>(
        &self,
        serve: impl Fn(Raft) -> BoxFuture<'static, Result<T, E>> + Send,
    ) -> Result<T, PeerResponse> {
        let mut rebuilt = self.0.raft.subscribe();
        loop {
            self.ready().await;
            let raft = rebuilt.borrow_and_update().clone();
            match serve(raft).await {
                Ok(served) => return Ok(served),
                Err(error) => {
                    self.ready().await;
                    if !rebuilt.has_changed().unwrap_or(false) {
                        return Err(PeerResponse::Failed(error.to_string()));
                    }
                }
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> PeerResponse {
    PeerResponse::Failed(error.to_string())
}
