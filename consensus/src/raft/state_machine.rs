//! The state machine: the replicated state in memory. When a node starts, it is built from the snapshot and the log.

use std::io;
use std::sync::{Arc, RwLock};

use futures::{Stream, StreamExt};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use tokio::sync::watch;

use crate::model::{LogIndex, Term};
use crate::protocol::command::{Change, Command, Outcome};
use crate::protocol::state::State;
use crate::protocol::version::{Spoken, UnknownVersion, Version, Versions};
use crate::raft::store::{Store, StoreError};
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::raft::wire::{LogEntry, LogPayload, LogPosition, PlacedMembership, SnapshotMetadata};

/// The state machine of a node. Clones share the state.
#[derive(Clone)]
pub struct StateMachine(Arc<Shared>);

struct Shared {
    store: Store,
    versions: Spoken,
    applied: RwLock<Applied>,
    /// Shows how far the log was applied, for tasks that wait for an entry.
    progress: watch::Sender<Progress>,
}

/// The state, and which entries are in it.
#[derive(Clone, Default)]
pub(crate) struct Applied {
    pub(crate) state: State,
    pub(crate) last: Option<LogPosition>,
    pub(crate) membership: PlacedMembership,
}

/// How far the log was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
}

/// Why a snapshot that a peer sent cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It is of a version that this program does not know.
    #[error(transparent)]
    Version(#[from] UnknownVersion),
    /// Its bytes are no snapshot.
    #[error(transparent)]
    Bytes(#[from] postcard::Error),
}

impl StateMachine {
    /// The state machine over `store`, with the state of its snapshot. It raises `versions` as the log does.
    ///
    /// # Errors
    ///
    /// If the snapshot cannot be read, or is of a version that this program does not know.
    pub fn new(store: Store, versions: Spoken) -> Result<Self, StoreError> {
        let applied = Applied::stored(&store, &versions)?;
        let progress = watch::Sender::new(applied.progress());
        Ok(Self(Arc::new(Shared { store, versions, applied: RwLock::new(applied), progress })))
    }

    /// The state that is committed in `store`. It raises `versions` as the log does.
    pub(crate) fn committed(store: &Store, versions: &Spoken) -> Result<State, StoreError> {
        let Applied { mut state, last, .. } = Applied::stored(store, versions)?;
        for entry in store.committed_entries(last.map_or(0, |last| last.index.saturating_add(1)))? {
            follow(versions, &entry)?;
            if let LogPayload::Command(command) = entry.payload {
                state.apply(LogIndex(entry.position.index), entry.position.term, command);
            }
        }
        Ok(state)
    }

    /// Whether `data`, which a peer sent, is a snapshot of the state, of a version that this program knows.
    pub(crate) fn check(&self, data: &[u8]) -> Result<(), Unreadable> {
        self.0.versions.check(version_of(data)?)?;
        postcard::from_bytes::<State>(data)?;
        Ok(())
    }

    /// Calls `look` with the present state, which is locked meanwhile.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Applied) -> T) -> T {
        // A poisoned lock means that applying an entry panicked. The state may be half changed then, so nobody may see it.
        look(&self.0.applied.read().expect("applying a command panicked"))
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    fn write<T>(&self, change: impl FnOnce(&mut Applied) -> T) -> T {
        let mut applied = self.0.applied.write().expect("applying a command panicked");
        let result = change(&mut applied);
        let progress = applied.progress();
        drop(applied);
        self.0.progress.send_if_modified(|known| std::mem::replace(known, progress) != progress);
        result
    }
}

impl Applied {
    /// The state in the snapshot of `store`, or the first state if there is no snapshot. It raises `versions` as the
    /// snapshot says.
    pub(crate) fn stored(store: &Store, versions: &Spoken) -> Result<Self, StoreError> {
        let Some((meta, data)) = store.snapshot()? else { return Ok(Self::default()) };
        let failed = |source| StoreError::Value { what: "read the state in the snapshot".into(), source };
        versions.follow(version_of(&data).map_err(failed)?)?;
        Self::from_snapshot(meta, &data).map_err(failed)
    }

    /// The state after the whole log in `store`, to its end, committed or not. Fails if an entry is of a version that this
    /// program does not know.
    pub(crate) fn whole(store: &Store) -> Result<Self, StoreError> {
        let versions = Spoken::new(Versions::KNOWN);
        let mut applied = Self::stored(store, &versions)?;
        for entry in store.entries(0..u64::MAX, usize::MAX)? {
            follow(&versions, &entry)?;
            applied.apply(entry);
        }
        Ok(applied)
    }

    /// Applies the next entry. Does nothing if it was applied before.
    pub(crate) fn apply(&mut self, entry: LogEntry) -> Outcome {
        // After the Raft core was rebuilt, its predecessor may have applied more than the new one knows.
        let LogEntry { position, payload } = entry;
        if self.last.is_some_and(|last| last.index >= position.index) {
            return Outcome::Done;
        }
        self.last = Some(position);
        match payload {
            LogPayload::Blank => Outcome::Done,
            LogPayload::Command(command) => self.state.apply(LogIndex(position.index), position.term, command),
            LogPayload::Membership(membership) => {
                self.membership = PlacedMembership { position: Some(position), membership };
                Outcome::Done
            }
        }
    }

    pub(crate) fn from_snapshot(meta: SnapshotMetadata, data: &[u8]) -> Result<Self, postcard::Error> {
        Ok(Self { state: postcard::from_bytes(data)?, last: meta.last, membership: meta.membership })
    }

    fn progress(&self) -> Progress {
        self.last.map_or(Progress::default(), |last| Progress { index: LogIndex(last.index), term: last.term })
    }
}

/// Raises `versions` if `entry` does. Fails if this program does not know the new version: it could not apply later entries
/// as the other nodes do.
pub(crate) fn follow(versions: &Spoken, entry: &LogEntry) -> Result<(), UnknownVersion> {
    match &entry.payload {
        LogPayload::Command(Command { change: Change::RaiseVersion { version }, .. }) => versions.follow(*version),
        _ => Ok(()),
    }
}

/// The version of a snapshot. If the version is not known, nothing else of the snapshot can be read.
fn version_of(data: &[u8]) -> Result<Version, postcard::Error> {
    Ok(postcard::take_from_bytes(data)?.0)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let (last, membership) = self.read(|applied| (applied.last, applied.membership.clone()));
        Ok((last.map(Into::into), membership.try_into().map_err(io::Error::other)?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let entry = LogEntry::from(entry);
            follow(&self.0.versions, &entry).map_err(io::Error::other)?;
            let outcome = self.write(|applied| applied.apply(entry));
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), io::Error> {
        self.0.versions.follow(version_of(&data).map_err(io::Error::other)?).map_err(io::Error::other)?;
        let meta = SnapshotMetadata::from(meta);
        let installed = Applied::from_snapshot(meta.clone(), &data).map_err(io::Error::other)?;
        self.0.store.set_snapshot(&meta, &data).map_err(io::Error::other)?;
        self.write(|applied| *applied = installed);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>>, io::Error> {
        let snapshot = self.0.store.snapshot().map_err(io::Error::other)?;
        let Some((meta, snapshot)) = snapshot else { return Ok(None) };
        Ok(Some(Snapshot { meta: meta.try_into().map_err(io::Error::other)?, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>, io::Error> {
        let (meta, state) = self.read(|applied| {
            let membership = applied.membership.clone();
            let meta = SnapshotMetadata { last: applied.last, membership, ..Default::default() };
            (meta, postcard::to_stdvec(&applied.state))
        });
        let snapshot = state.map_err(io::Error::other)?;
        self.0.store.set_snapshot(&meta, &snapshot).map_err(io::Error::other)?;
        Ok(Snapshot { meta: meta.try_into().map_err(io::Error::other)?, snapshot })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::{ConfigUpdate, NodeRole, Port};
    use crate::protocol::command::{Change, Command};
    use crate::protocol::version::Versions;

    const NEWER: Versions = Versions { newest: Version(2), ..Versions::KNOWN };

    /// A state with a node, settings and events in it.
    fn state() -> State {
        let mut state = State::default();
        let (ip, api_port) = ([10, 0, 0, 1].into(), Port::constant(8080));
        let changes = [
            Change::AddNode { ip, api_port, role: NodeRole::Voter },
            Change::SetConfig(ConfigUpdate { autoremove_minimum: Some(5), ..Default::default() }),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (id, time, actor) = (Uuid::from_u128(number as u128), "2026-01-31T12:00:00Z".into(), "test".into());
            let command = Command { id, time, actor, cause: "a test".into(), change };
            state.apply(LogIndex(number as u64), Term(1), command);
        }
        state
    }

    #[test]
    fn a_snapshot_is_told_from_other_bytes() {
        let state_machine = StateMachine::new(store(), Spoken::new(Versions::KNOWN)).unwrap();
        let data = postcard::to_stdvec(&state()).unwrap();
        assert_eq!(state_machine.check(&data), Ok(()));
        assert!(state_machine.check(&data[..data.len() - 1]).is_err());
        for version in [Version(0), NEWER.newest] {
            let other = state_machine.check(&postcard::to_stdvec(&(version, state())).unwrap());
            assert!(matches!(other, Err(Unreadable::Version(_))), "{other:?}");
        }
    }

    proptest! {
        /// Any bytes are read or refused, and what was read can be written and read again.
        #[test]
        fn a_changed_snapshot_is_read_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            odd in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            let mut data = postcard::to_stdvec(&state()).unwrap();
            changes.into_iter().for_each(|(place, change)| *place.get_mut(&mut data) = change);
            data.truncate(cut.index(data.len()) + 1);
            for data in [data, odd] {
                if let Ok(applied) = Applied::from_snapshot(SnapshotMetadata::default(), &data) {
                    let again = postcard::to_stdvec(&applied.state).unwrap();
                    prop_assert_eq!(postcard::from_bytes::<State>(&again).unwrap(), applied.state);
                }
            }
        }
    }

    fn store() -> Store {
        Store::with_backend_in_line(redb::backends::InMemoryBackend::new()).unwrap()
    }

    #[tokio::test]
    async fn a_snapshot_of_a_version_that_is_not_known_is_refused_from_a_leader_and_from_the_store() {
        let (theirs, ours) = (store(), store());
        let mut newer = StateMachine::new(theirs.clone(), Spoken::new(NEWER)).unwrap();
        newer.write(|applied| applied.state.version = Version(2));
        let snapshot = newer.build_snapshot().await.unwrap();
        let mut older = StateMachine::new(ours.clone(), Spoken::new(Versions::KNOWN)).unwrap();
        let refused = older.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("the cluster speaks version 2"), "{refused}");
        assert!(ours.snapshot().unwrap().is_none());
        let refused = StateMachine::new(theirs.clone(), Spoken::new(Versions::KNOWN)).err().unwrap();
        assert!(matches!(refused, StoreError::Version(_)), "{refused}");

        let spoken = Spoken::new(NEWER);
        StateMachine::new(theirs, spoken.clone()).unwrap();
        assert_eq!(spoken.now().oldest, Version(2));
    }
}
