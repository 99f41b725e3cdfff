//! The bytes of our types are those of openraft's: of the release that wrote the first stores and spoke the first
//! version. If this fails after an upgrade of openraft, openraft has changed its own encoding; ours is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::*;
use crate::model::{NodeId, Term};
use crate::protocol::command::{Change, Command};
use crate::protocol::peer::Peer;
use crate::raft::types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};

fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap()
}

/// Our value and openraft's have the same bytes, and each is read from them.
fn same<Own, Theirs>(own: &Own, theirs: &Theirs)
where
    Own: Serialize + DeserializeOwned + Debug + PartialEq,
    Theirs: Serialize + DeserializeOwned,
{
    assert_eq!(bytes(own), bytes(theirs), "{own:?}");
    assert_eq!(postcard::from_bytes::<Own>(&bytes(theirs)).unwrap(), *own);
    assert_eq!(bytes(&postcard::from_bytes::<Theirs>(&bytes(own)).unwrap()), bytes(own));
}

fn vote(term: u64, node: u64, committed: bool) -> VoteRecord {
    VoteRecord { term: Term(term), voted_for: NodeId(node), committed }
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { term: Term(term), index }
}

fn membership() -> Membership {
    let members = [1, 2, 300].map(|id| (NodeId(id), Peer { address: ([127, 0, 0, 1], 8080).into() })).into();
    Membership { voters: vec![[NodeId(1), NodeId(2)].into(), [NodeId(1)].into()], members }
}

fn command(cause: String) -> Command {
    let (time, actor) = ("2026-01-31T12:00:00Z".into(), "operator".into());
    Command { id: Uuid::from_u128(7), time, actor, cause, change: Change::DownNode { node: NodeId(300) } }
}

fn entries() -> Vec<LogEntry> {
    let payloads =
        [LogPayload::Blank, LogPayload::Command(command("a test".into())), LogPayload::Membership(membership())];
    (1000..).zip(payloads).map(|(index, payload)| LogEntry { position: position(3, index), payload }).collect()
}

fn metadata() -> SnapshotMetadata {
    let membership = PlacedMembership { position: Some(position(2, 1 << 40)), membership: membership() };
    SnapshotMetadata { last: Some(position(3, u64::MAX)), membership, ..Default::default() }
}

/// An append for openraft, with entries that openraft's types were made of field by field.
fn raft_append() -> AppendEntriesRequest<TypeConfig> {
    let peers: BTreeMap<_, _> =
        [1, 2, 300].map(|id| (NodeId(id), Peer { address: ([127, 0, 0, 1], 8080).into() })).into();
    let voters = vec![BTreeSet::from([NodeId(1), NodeId(2)]), BTreeSet::from([NodeId(1)])];
    let payloads = [
        openraft::EntryPayload::Blank,
        openraft::EntryPayload::Normal(command("a test".into())),
        openraft::EntryPayload::Membership(openraft::Membership::new(voters, peers).unwrap()),
    ];
    let entry = |(index, payload)| Entry { log_id: LogId::new_term_index(3, index), payload };
    AppendEntriesRequest {
        vote: Vote::new_committed(3, NodeId(200)),
        prev_log_id: Some(LogId::new_term_index(2, 999)),
        entries: (1000..).zip(payloads).map(entry).collect(),
        leader_commit: None,
    }
}

#[test]
fn what_the_store_keeps_has_the_bytes_of_openraft() {
    same(&vote(300, 200, false), &Vote::new(300, NodeId(200)));
    same(&vote(0, 0, true), &Vote::new_committed(0, NodeId(0)));
    same(&position(300, 1 << 40), &LogId::new_term_index(300, 1 << 40));
    for (own, theirs) in entries().iter().zip(raft_append().entries) {
        same(own, &theirs);
        assert_eq!(LogEntry::from(theirs.clone()), *own);
        assert_eq!(own.clone().into_raft().unwrap(), theirs);
    }
    let theirs = SnapshotMeta {
        last_log_id: Some(LogId::new_term_index(3, u64::MAX)),
        last_membership: StoredMembership::new(
            Some(LogId::new_term_index(2, 1 << 40)),
            membership().try_into().unwrap(),
        ),
    };
    same(&metadata(), &theirs);
    assert_eq!(SnapshotMetadata::from(&theirs), metadata());
    assert_eq!(SnapshotMeta::try_from(metadata()).unwrap(), theirs);
    same(&SnapshotMetadata::default(), &SnapshotMeta::default());
    assert_eq!(SnapshotMeta::try_from(SnapshotMetadata::default()).unwrap(), SnapshotMeta::default());
}

#[test]
fn requests_and_answers_have_the_bytes_of_openraft() {
    let (last, raft_last) = (Some(position(3, 300)), Some(LogId::new_term_index(3, 300)));
    let append = AppendRequest {
        vote: vote(3, 200, true),
        previous: Some(position(2, 999)),
        entries: entries(),
        committed: None,
    };
    same(&append, &raft_append());
    assert_eq!(AppendRequest::from(raft_append()), append);
    let heartbeat = AppendRequest { entries: Vec::new(), committed: last, previous: None, ..append };
    let raft_heartbeat =
        AppendEntriesRequest { entries: Vec::new(), leader_commit: raft_last, prev_log_id: None, ..raft_append() };
    same(&heartbeat, &raft_heartbeat);

    for (own, theirs) in [
        (AppendResponse::Success, AppendEntriesResponse::<TypeConfig>::Success),
        (AppendResponse::PartialSuccess(last), AppendEntriesResponse::PartialSuccess(raft_last)),
        (AppendResponse::PartialSuccess(None), AppendEntriesResponse::PartialSuccess(None)),
        (AppendResponse::Conflict, AppendEntriesResponse::Conflict),
        (AppendResponse::HigherVote(vote(9, 2, false)), AppendEntriesResponse::HigherVote(Vote::new(9, NodeId(2)))),
    ] {
        same(&own, &theirs);
        assert_eq!(AppendResponse::from(theirs.clone()), own);
        assert_eq!(AppendEntriesResponse::from(own), theirs);
    }

    for leadership_transfer in [false, true] {
        let own = VoteRequest { vote: vote(4, 2, false), last, leadership_transfer };
        let theirs = openraft::raft::VoteRequest::<TypeConfig> {
            vote: Vote::new(4, NodeId(2)),
            last_log_id: raft_last,
            leadership_transfer,
        };
        same(&own, &theirs);
        assert_eq!(VoteRequest::from(theirs.clone()), own);
        assert_eq!(openraft::raft::VoteRequest::from(own), theirs);
    }

    for granted in [false, true] {
        let own = VoteResponse { vote: vote(4, 2, false), granted, last };
        let theirs = openraft::raft::VoteResponse::<TypeConfig>::new(Vote::new(4, NodeId(2)), raft_last, granted);
        same(&own, &theirs);
        assert_eq!(VoteResponse::from(theirs.clone()), own);
        assert_eq!(openraft::raft::VoteResponse::from(own), theirs);
    }

    let own = TransferRequest { from: vote(4, 2, true), to: NodeId(3), last };
    let theirs = TransferLeaderRequest::<TypeConfig>::new(Vote::new_committed(4, NodeId(2)), NodeId(3), raft_last);
    same(&own, &theirs);
    assert_eq!(TransferRequest::from(theirs.clone()), own);
    assert_eq!(TransferLeaderRequest::from(own), theirs);

    let (expected, actual) = (vote(4, 2, true), vote(5, 3, false));
    let (raft_expected, raft_actual) = (Vote::new_committed(4, NodeId(2)), Vote::new(5, NodeId(3)));
    for (own, theirs) in [
        (
            TransferRefused::VoteChanged { expected, actual },
            TransferLeaderError::<TypeConfig>::VoteChanged { expected: raft_expected, actual: raft_actual },
        ),
        (
            TransferRefused::LogNotFlushed { expected: last, actual: None },
            TransferLeaderError::LogNotFlushed { expected: raft_last, actual: None },
        ),
    ] {
        same::<TransferResponse, openraft::raft::TransferLeaderResponse<TypeConfig>>(
            &Err(own.clone()),
            &Err(theirs.clone()),
        );
        assert_eq!(TransferRefused::from(theirs.clone()), own);
        assert_eq!(TransferLeaderError::from(own), theirs);
    }
    same::<TransferResponse, openraft::raft::TransferLeaderResponse<TypeConfig>>(&Ok(()), &Ok(()));

    let own = SnapshotResponse { vote: vote(4, 2, true) };
    let theirs = openraft::raft::SnapshotResponse::<TypeConfig>::new(Vote::new_committed(4, NodeId(2)));
    same(&own, &theirs);
    assert_eq!(SnapshotResponse::from(theirs.clone()), own);
    assert_eq!(openraft::raft::SnapshotResponse::from(own), theirs);
}

#[test]
fn a_vote_for_nobody_is_refused() {
    let nobody = bytes(&(7_u64, None::<u64>, true));
    assert!(postcard::from_bytes::<VoteRecord>(&nobody).is_err());
    assert!(postcard::from_bytes::<VoteRecord>(&bytes(&(7_u64, Some(1_u64), true))).is_ok());
}

#[test]
fn a_membership_that_cannot_be_is_refused() {
    let empty_set = Membership { voters: vec![[NodeId(1)].into(), BTreeSet::new()], ..membership() };
    let no_member = Membership { voters: vec![[NodeId(9)].into()], ..membership() };
    for membership in [empty_set, no_member] {
        let entry = LogEntry { position: position(1, 1), payload: LogPayload::Membership(membership.clone()) };
        let append =
            AppendRequest { vote: vote(1, 1, true), previous: None, entries: vec![entry.clone()], committed: None };
        assert!(AppendEntriesRequest::<TypeConfig>::try_from(append).is_err(), "{membership:?}");
        let membership = PlacedMembership { position: None, membership };
        assert!(SnapshotMeta::try_from(SnapshotMetadata { membership, ..Default::default() }).is_err());
    }
}

fn any_vote() -> impl Strategy<Value = VoteRecord> {
    any::<(u64, u64, bool)>().prop_map(|(term, node, committed)| vote(term, node, committed))
}

fn any_position() -> impl Strategy<Value = LogPosition> {
    any::<(u64, u64)>().prop_map(|(term, index)| position(term, index))
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let sets = prop::collection::vec(prop::collection::btree_set(any::<u64>().prop_map(NodeId), 1..5), 0..3);
    (sets, prop::collection::btree_set(any::<u64>().prop_map(NodeId), 0..3)).prop_map(|(voters, learners)| {
        let ids = voters.iter().flatten().chain(&learners);
        let peer = |id: &NodeId| (*id, Peer { address: ([10, 0, 0, 1], id.0 as u16).into() });
        Membership { members: ids.map(peer).collect(), voters }
    })
}

fn any_entry() -> impl Strategy<Value = LogEntry> {
    let payload = prop_oneof![
        Just(LogPayload::Blank),
        any::<String>().prop_map(|cause| LogPayload::Command(command(cause))),
        any_membership().prop_map(LogPayload::Membership),
    ];
    (any_position(), payload).prop_map(|(position, payload)| LogEntry { position, payload })
}

proptest! {
    /// What is written is read again; and openraft has it unchanged between.
    #[test]
    fn appends_come_back_as_they_were(
        vote in any_vote(),
        previous in prop::option::of(any_position()),
        entries in prop::collection::vec(any_entry(), 0..5),
        committed in prop::option::of(any_position()),
    ) {
        let append = AppendRequest { vote, previous, entries, committed };
        let read: AppendRequest = postcard::from_bytes(&bytes(&append)).unwrap();
        prop_assert_eq!(&read, &append);
        let raft = AppendEntriesRequest::<TypeConfig>::try_from(read).unwrap();
        prop_assert_eq!(bytes(&raft), bytes(&append));
        prop_assert_eq!(AppendRequest::from(raft), append);
    }

    #[test]
    fn metadata_comes_back_as_it_was(
        last in prop::option::of(any_position()),
        position in prop::option::of(any_position()),
        membership in any_membership(),
    ) {
        let membership = PlacedMembership { position, membership };
        let metadata = SnapshotMetadata { last, membership, ..Default::default() };
        let read: SnapshotMetadata = postcard::from_bytes(&bytes(&metadata)).unwrap();
        prop_assert_eq!(&read, &metadata);
        prop_assert_eq!(SnapshotMetadata::from(&SnapshotMeta::try_from(read).unwrap()), metadata);
    }

    /// Whatever a peer sends is read or refused, by us and on the way to openraft.
    #[test]
    fn any_bytes_are_read_or_refused(odd in prop::collection::vec(any::<u8>(), 0..300), places in any::<[prop::sample::Index; 4]>()) {
        let mut changed = bytes(&AppendRequest {
            vote: vote(3, 200, true), previous: None, entries: entries(), committed: None,
        });
        places.iter().zip(&odd).for_each(|(place, byte)| *place.get_mut(&mut changed) = *byte);
        for bytes in [odd, changed] {
            if let Ok(append) = postcard::from_bytes::<AppendRequest>(&bytes) {
                let _ = AppendEntriesRequest::<TypeConfig>::try_from(append);
            }
            if let Ok(metadata) = postcard::from_bytes::<SnapshotMetadata>(&bytes) {
                let _ = SnapshotMeta::try_from(metadata);
            }
        }
    }
}
