//! From and to openraft's types. Entries are moved, not copied.

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest};

use super::log::{LogEntry, LogPayload, LogPosition, Membership, PlacedMembership, SnapshotMetadata, VoteRecord};
use super::rpc::{
    AppendRequest, AppendResponse, SnapshotResponse, TransferRefused, TransferRequest, VoteRequest, VoteResponse,
};
use crate::model::{NodeId, Term};
use crate::protocol::peer::Peer;
use crate::raft::types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};

type RaftMembership = openraft::Membership<NodeId, Peer>;
type RaftPayload = openraft::EntryPayload<crate::protocol::command::Command, NodeId, Peer>;

/// A membership that cannot be: a set of voters is empty, or a voter is no member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a membership makes no sense: {reason}")]
pub struct InvalidMembership {
    reason: String,
}

impl From<Vote> for VoteRecord {
    fn from(vote: Vote) -> Self {
        Self { term: Term(vote.leader_id.term), voted_for: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(VoteRecord { term, voted_for, committed }: VoteRecord) -> Self {
        Self { committed, ..Vote::new(term.0, voted_for) }
    }
}

impl From<LogId> for LogPosition {
    fn from(id: LogId) -> Self {
        Self { term: Term(id.leader_id.term), index: id.index }
    }
}

impl From<LogPosition> for LogId {
    fn from(LogPosition { term, index }: LogPosition) -> Self {
        Self::new_term_index(term.0, index)
    }
}

impl From<Entry> for LogEntry {
    fn from(Entry { log_id, payload }: Entry) -> Self {
        let payload = match payload {
            RaftPayload::Blank => LogPayload::Blank,
            RaftPayload::Normal(command) => LogPayload::Command(command),
            RaftPayload::Membership(membership) => LogPayload::Membership((&membership).into()),
        };
        Self { position: log_id.into(), payload }
    }
}

impl LogEntry {
    /// The entry for openraft. It is no `TryFrom`, since openraft might implement that one day.
    ///
    /// # Errors
    ///
    /// If it is a membership that cannot be.
    pub(crate) fn into_raft(self) -> Result<Entry, InvalidMembership> {
        let Self { position, payload } = self;
        let payload = match payload {
            LogPayload::Blank => RaftPayload::Blank,
            LogPayload::Command(command) => RaftPayload::Normal(command),
            LogPayload::Membership(membership) => RaftPayload::Membership(membership.try_into()?),
        };
        Ok(Entry { log_id: position.into(), payload })
    }
}

impl From<&RaftMembership> for Membership {
    fn from(membership: &RaftMembership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
        }
    }
}

impl TryFrom<Membership> for RaftMembership {
    type Error = InvalidMembership;

    fn try_from(Membership { voters, members }: Membership) -> Result<Self, Self::Error> {
        Self::new(voters, members).map_err(|error| InvalidMembership { reason: error.to_string() })
    }
}

impl From<&StoredMembership> for PlacedMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self { position: stored.log_id().map(Into::into), membership: stored.membership().into() }
    }
}

impl TryFrom<PlacedMembership> for StoredMembership {
    type Error = InvalidMembership;

    fn try_from(PlacedMembership { position, membership }: PlacedMembership) -> Result<Self, Self::Error> {
        Ok(Self::new(position.map(Into::into), membership.try_into()?))
    }
}

impl From<&SnapshotMeta> for SnapshotMetadata {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.map(Into::into),
            membership: (&meta.last_membership).into(),
            snapshot_id: String::new(),
        }
    }
}

impl TryFrom<SnapshotMetadata> for SnapshotMeta {
    type Error = InvalidMembership;

    fn try_from(SnapshotMetadata { last, membership, snapshot_id: _ }: SnapshotMetadata) -> Result<Self, Self::Error> {
        Ok(Self { last_log_id: last.map(Into::into), last_membership: membership.try_into()? })
    }
}

impl From<AppendEntriesRequest<TypeConfig>> for AppendRequest {
    fn from(request: AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            previous: request.prev_log_id.map(Into::into),
            entries: request.entries.into_iter().map(Into::into).collect(),
            committed: request.leader_commit.map(Into::into),
        }
    }
}

impl TryFrom<AppendRequest> for AppendEntriesRequest<TypeConfig> {
    type Error = InvalidMembership;

    fn try_from(AppendRequest { vote, previous, entries, committed }: AppendRequest) -> Result<Self, Self::Error> {
        Ok(Self {
            vote: vote.into(),
            prev_log_id: previous.map(Into::into),
            entries: entries.into_iter().map(LogEntry::into_raft).collect::<Result<_, _>>()?,
            leader_commit: committed.map(Into::into),
        })
    }
}

impl From<AppendEntriesResponse<TypeConfig>> for AppendResponse {
    fn from(response: AppendEntriesResponse<TypeConfig>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(last) => Self::PartialSuccess(last.map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendResponse> for AppendEntriesResponse<TypeConfig> {
    fn from(response: AppendResponse) -> Self {
        match response {
            AppendResponse::Success => Self::Success,
            AppendResponse::PartialSuccess(last) => Self::PartialSuccess(last.map(Into::into)),
            AppendResponse::Conflict => Self::Conflict,
            AppendResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<openraft::raft::VoteRequest<TypeConfig>> for VoteRequest {
    fn from(request: openraft::raft::VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            last: request.last_log_id.map(Into::into),
            leadership_transfer: request.leadership_transfer,
        }
    }
}

impl From<VoteRequest> for openraft::raft::VoteRequest<TypeConfig> {
    fn from(VoteRequest { vote, last, leadership_transfer }: VoteRequest) -> Self {
        Self { vote: vote.into(), last_log_id: last.map(Into::into), leadership_transfer }
    }
}

impl From<openraft::raft::VoteResponse<TypeConfig>> for VoteResponse {
    fn from(response: openraft::raft::VoteResponse<TypeConfig>) -> Self {
        Self { vote: response.vote.into(), granted: response.vote_granted, last: response.last_log_id.map(Into::into) }
    }
}

impl From<VoteResponse> for openraft::raft::VoteResponse<TypeConfig> {
    fn from(VoteResponse { vote, granted, last }: VoteResponse) -> Self {
        Self { vote: vote.into(), vote_granted: granted, last_log_id: last.map(Into::into) }
    }
}

impl From<TransferLeaderRequest<TypeConfig>> for TransferRequest {
    fn from(request: TransferLeaderRequest<TypeConfig>) -> Self {
        Self {
            from: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Into::into),
        }
    }
}

impl From<TransferRequest> for TransferLeaderRequest<TypeConfig> {
    fn from(TransferRequest { from, to, last }: TransferRequest) -> Self {
        Self::new(from.into(), to, last.map(Into::into))
    }
}

impl From<TransferLeaderError<TypeConfig>> for TransferRefused {
    fn from(error: TransferLeaderError<TypeConfig>) -> Self {
        match error {
            TransferLeaderError::VoteChanged { expected, actual } => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            TransferLeaderError::LogNotFlushed { expected, actual } => {
                Self::LogNotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        }
    }
}

impl From<TransferRefused> for TransferLeaderError<TypeConfig> {
    fn from(refused: TransferRefused) -> Self {
        match refused {
            TransferRefused::VoteChanged { expected, actual } => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            TransferRefused::LogNotFlushed { expected, actual } => {
                Self::LogNotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        }
    }
}

impl From<openraft::raft::SnapshotResponse<TypeConfig>> for SnapshotResponse {
    fn from(response: openraft::raft::SnapshotResponse<TypeConfig>) -> Self {
        Self { vote: response.vote.into() }
    }
}

impl From<SnapshotResponse> for openraft::raft::SnapshotResponse<TypeConfig> {
    fn from(SnapshotResponse { vote }: SnapshotResponse) -> Self {
        Self { vote: vote.into() }
    }
}
