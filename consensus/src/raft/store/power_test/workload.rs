//! Everything that a store keeps, written step by step; and what it has to hold after each step.

use std::collections::BTreeMap;
use std::io;

use futures::stream;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership, RaftSnapshotBuilder};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::disk::Disk;
use crate::model::{ConfigUpdate, Lsn, NodeId, NodeRole, Port, Term, WalHistory, WalStart};
use crate::protocol::command::{Change, Command};
use crate::protocol::peer::Peer;
use crate::protocol::version::{Spoken, Versions};
use crate::raft::state_machine::StateMachine;
use crate::raft::store::{DatabaseRecord, Identity, Repair, Store, StoreError};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::raft::wire::SnapshotMetadata;

type Payload = EntryPayload<Command, NodeId, Peer>;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    pub identity: Option<Identity>,
    pub record: DatabaseRecord,
    pub removed: bool,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub log: BTreeMap<u64, Entry>,
    pub snapshot: Option<(SnapshotMetadata, Vec<u8>)>,
}

/// A call of the store.
#[derive(Clone, Debug)]
pub enum Step {
    Identity(Identity),
    Vote(Vote),
    Append(Vec<Entry>),
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
    DatabaseRecord(DatabaseRecord),
    Removed,
    /// The log up to this index is applied, and a snapshot is built.
    Build(u64),
    /// A snapshot comes from the leader.
    Install(SnapshotMetadata, Vec<u8>),
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: Vote::new_committed(term, NodeId(1)).leader_id.to_committed(), index }
}

fn entry(term: u64, index: u64, payload: Payload) -> Entry {
    Entry { log_id: log_id(term, index), payload }
}

fn command(cause: String, change: Change) -> Payload {
    let (time, actor) = ("2026-01-31T12:00:00Z".into(), "operator".into());
    EntryPayload::Normal(Command { id: Uuid::from_u128(cause.len() as u128), time, actor, cause, change })
}

fn added(term: u64, index: u64, size: usize) -> Entry {
    let change = Change::AddNode {
        ip: [10, 0, 0, u8::try_from(index % 256).unwrap()].into(),
        api_port: Port::constant(8080),
        role: NodeRole::Voter,
    };
    entry(term, index, command("x".repeat(size), change))
}

fn members(term: u64, index: u64) -> Entry {
    let peers = [1, 2, 3].map(|node| (NodeId(node), Peer { address: ([10, 0, 0, node as u8], 8080).into() }));
    let members =
        Membership::new_with_defaults(vec![peers.iter().map(|(id, _)| *id).collect()], peers.map(|(id, _)| id));
    entry(term, index, EntryPayload::Membership(members))
}

fn record(term: u64, repair: Option<Repair>) -> DatabaseRecord {
    let history = WalHistory((1..=term).map(|term| WalStart { term: Term(term), lsn: Lsn(term << 24) }).collect());
    DatabaseRecord { promise: Term(term), history, repair }
}

/// A workload with each kind of step, in an order in which they come in a node's life.
pub fn workload() -> Vec<Step> {
    let setting = Change::SetConfig(ConfigUpdate { autoremove_minimum: Some(5), ..Default::default() });
    let installed = SnapshotMetadata { last: Some(log_id(4, 40).into()), ..Default::default() };
    vec![
        Step::Identity(Identity { cluster: Uuid::from_u128(7), node: NodeId(1) }),
        Step::Vote(Vote::new(1, NodeId(1))),
        Step::Append(vec![members(1, 0), added(1, 1, 10), entry(1, 2, EntryPayload::Blank)]),
        Step::Committed(log_id(1, 1)),
        Step::DatabaseRecord(record(1, None)),
        Step::Append(vec![entry(1, 3, command("why".into(), setting)), added(1, 4, 3000)]),
        // A leader of term 2 knows another end of the log.
        Step::Vote(Vote::new(2, NodeId(2))),
        Step::Vote(Vote::new_committed(2, NodeId(2))),
        Step::Truncate(Some(log_id(1, 2))),
        Step::Append(vec![added(2, 3, 20), added(2, 4, 21)]),
        Step::Append((5..20).map(|index| added(2, index, 600)).collect()),
        Step::Committed(log_id(2, 12)),
        Step::Build(12),
        Step::Purge(log_id(2, 8)),
        Step::DatabaseRecord(record(2, Some(Repair::Rewind))),
        Step::Append(vec![added(2, 20, 5)]),
        Step::Committed(log_id(2, 15)),
        Step::Build(15),
        Step::Purge(log_id(2, 15)),
        // It was away for long: the log of the leader begins behind the end of its own.
        Step::Vote(Vote::new_committed(4, NodeId(3))),
        Step::Install(installed, postcard::to_stdvec(&crate::protocol::state::State::default()).unwrap()),
        Step::Purge(log_id(4, 40)),
        Step::Append((41..44).map(|index| added(4, index, 2)).collect()),
        Step::DatabaseRecord(record(4, Some(Repair::Clone))),
        // All of what it has is replaced.
        Step::Truncate(None),
        Step::Append(vec![added(5, 41, 1)]),
        Step::Removed,
        Step::Committed(log_id(5, 41)),
    ]
}

impl Kept {
    /// What a store holds that held this and was asked for `step`.
    fn after(&self, step: &Step, built: Option<(SnapshotMetadata, Vec<u8>)>) -> Self {
        let mut kept = self.clone();
        match step {
            Step::Identity(identity) => kept.identity = Some(*identity),
            Step::Vote(vote) => kept.vote = Some(*vote),
            Step::Append(entries) => kept.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone()))),
            Step::Truncate(keep) => kept.log.retain(|index, _| keep.is_some_and(|keep| *index <= keep.index)),
            Step::Purge(upto) => {
                kept.purged = Some(*upto);
                kept.log.retain(|index, _| *index > upto.index);
            }
            Step::Committed(committed) => kept.committed = Some(*committed),
            Step::DatabaseRecord(record) => kept.record = record.clone(),
            Step::Removed => kept.removed = true,
            Step::Build(_) => kept.snapshot = built,
            Step::Install(meta, data) => kept.snapshot = Some((meta.clone(), data.clone())),
        }
        kept
    }

    /// What `store` holds.
    pub async fn of(store: &Store) -> Result<Self, StoreError> {
        let mut reader = store.clone();
        let io = |error: io::Error| StoreError::Failed { cause: error.to_string() };
        Ok(Self {
            identity: store.identity()?,
            record: store.database_record()?,
            removed: store.removed()?,
            vote: reader.read_vote().await.map_err(io)?,
            committed: reader.read_committed().await.map_err(io)?,
            purged: reader.get_log_state().await.map_err(io)?.last_purged_log_id,
            log: reader
                .try_get_log_entries(..)
                .await
                .map_err(io)?
                .into_iter()
                .map(|entry| (entry.log_id.index, entry))
                .collect(),
            snapshot: store.snapshot()?,
        })
    }
}

/// What became of a workload: the states that it went through, and when each was asked for and acknowledged, counted
/// in operations of the disk.
#[derive(Debug)]
pub struct Course {
    pub states: Vec<Kept>,
    asked: Vec<usize>,
    acknowledged: Vec<Option<usize>>,
    /// Why it ended early.
    pub error: Option<String>,
}

impl Step {
    /// Whether it can be asked for without waiting for the disk.
    fn can_queue(&self) -> bool {
        matches!(self, Step::Append(_) | Step::Truncate(_) | Step::Purge(_) | Step::Committed(_))
    }
}

impl Course {
    /// The states that may be found if the disk stopped after `done` operations.
    pub fn possible(&self, done: usize) -> std::ops::RangeInclusive<usize> {
        let acknowledged = self.acknowledged.iter().rposition(|at| at.is_some_and(|at| at <= done)).unwrap_or(0);
        let asked = self.asked.iter().rposition(|at| *at <= done).unwrap_or(0);
        acknowledged..=asked
    }
}

/// When a step is done.
enum Answer {
    Now,
    Later(oneshot::Receiver<Result<(), io::Error>>),
    /// Readers see it at once. It is durable with the next write.
    Deferred,
}

/// Makes `store`, on `disk`, do `steps`, until one fails. With `held`, steps that nobody waits for are queued in groups
/// while the disk is held, so that they share a transaction.
pub async fn go_through(store: &Store, disk: &Disk, steps: &[Step], held: bool) -> Course {
    let mut course =
        Course { states: vec![Kept::default()], asked: vec![0], acknowledged: vec![Some(disk.count())], error: None };
    let mut state_machine = StateMachine::new(store.clone(), Spoken::new(Versions::KNOWN)).unwrap();
    for group in steps.chunk_by(|one, other| held && one.can_queue() && other.can_queue()) {
        let asked = disk.count();
        let guard = (group.len() > 1).then(|| disk.hold());
        let mut answers = Vec::new();
        for step in group {
            let before = course.states.last().unwrap().clone();
            let built = match step {
                Step::Build(upto) => Some(applied(&mut state_machine, &before, *upto).await),
                _ => None,
            };
            course.states.push(before.after(step, built));
            course.asked.push(asked);
            answers.push(ask(&mut store.clone(), &mut state_machine, step).await);
        }
        drop(guard);
        for answer in answers {
            let acknowledged = match answer {
                Ok(Answer::Later(flushed)) => flushed.await.unwrap().map(|()| Some(disk.count())),
                Ok(Answer::Now) => Ok(Some(disk.count())),
                Ok(Answer::Deferred) => Ok(None),
                Err(error) => Err(error),
            };
            course.acknowledged.push(acknowledged.unwrap_or_else(|error| {
                course.error.get_or_insert(error.to_string());
                None
            }));
        }
        if course.error.is_some() {
            break;
        }
    }
    course
}

/// Applies the log up to `upto`, and returns the snapshot of the state.
async fn applied(state_machine: &mut StateMachine, kept: &Kept, upto: u64) -> (SnapshotMetadata, Vec<u8>) {
    let last = state_machine.read(|applied| applied.last);
    let next = last.map_or(0, |last| last.index + 1);
    let entries: Vec<_> = kept.log.range(next..=upto).map(|(_, entry)| Ok((entry.clone(), None))).collect();
    state_machine.apply(stream::iter(entries)).await.unwrap();
    state_machine.read(|applied| {
        let membership = applied.membership.clone();
        let meta = SnapshotMetadata { last: applied.last, membership, ..Default::default() };
        (meta, postcard::to_stdvec(&applied.state).unwrap())
    })
}

async fn ask(store: &mut Store, state_machine: &mut StateMachine, step: &Step) -> Result<Answer, io::Error> {
    match step {
        Step::Identity(identity) => store.set_identity(identity)?,
        Step::Vote(vote) => store.save_vote(vote).await?,
        Step::Append(entries) => {
            let (flushed, receiver) = TypeConfig::oneshot();
            store.append(entries.clone(), IOFlushed::signal(flushed)).await?;
            return Ok(Answer::Later(receiver));
        }
        Step::Truncate(keep) => {
            store.truncate_after(*keep).await?;
            return Ok(Answer::Deferred);
        }
        Step::Purge(upto) => {
            store.purge(*upto).await?;
            return Ok(Answer::Deferred);
        }
        Step::Committed(committed) => {
            store.save_committed(Some(*committed)).await?;
            return Ok(Answer::Deferred);
        }
        Step::DatabaseRecord(record) => store.set_database_record(record)?,
        Step::Removed => store.set_removed(true)?,
        Step::Build(_) => drop(state_machine.build_snapshot().await?),
        Step::Install(meta, data) => {
            state_machine.install_snapshot(&meta.clone().try_into().unwrap(), data.clone()).await?
        }
    }
    Ok(Answer::Now)
}
