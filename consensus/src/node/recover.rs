//! The way out for a cluster that has lost its majority for good: one node goes on alone, as a cluster with a new id.
//!
//! It is done while the node is not running, to its store alone. What its log holds counts as committed, to the end:
//! the node may have acknowledged any of it to a leader that is gone. Its database, what is known of its WAL and its
//! promises stay as they are, so that its first election takes the database up as any other does.

use crate::env::clock::Clock;
use crate::env::random::Random;
use crate::model::{Event, EventKind, LogIndex, Node, NodeId, NodeRole, NodeState, Term, WalHistory};
use crate::protocol::state::State;
use crate::raft::state_machine::Applied;
use crate::raft::store::{Identity, Repair, Store, StoreError};
use crate::raft::wire::LogPosition;

/// A node that could go on alone, and what that would cost.
pub struct Survivor {
    store: Store,
    applied: Applied,
    /// The end of its log.
    last: LogPosition,
    identity: Identity,
    node: Node,
}

/// Why a node cannot go on alone.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Its store cannot be read or written.
    #[error("the node's store cannot be used")]
    Store(#[from] StoreError),
    /// The state in its store is not understood.
    #[error("the cluster's state in the node's store is not understood")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is not in a state that allows it.
    #[error("{0}")]
    Refused(String),
}

impl Survivor {
    /// Looks at the node whose store this is. Nothing is changed.
    pub fn find(store: Store) -> Result<Self, RecoverError> {
        let refused = |reason: String| Err(RecoverError::Refused(reason));
        let Some(identity) = store.identity()? else {
            return refused("this node is part of no cluster: there is nothing to recover".into());
        };
        let id = identity.node;
        let applied = Applied::whole(&store)?;
        let Some(last) = applied.last else {
            return refused(format!("node {id} has not heard of its cluster yet: it cannot go on in its place"));
        };
        let node = match applied.state.nodes.get(&id) {
            Some(node) if !store.removed()? => node.clone(),
            _ => return refused(format!("node {id} was removed from its cluster: it cannot go on in its place")),
        };
        match node.role {
            NodeRole::Voter | NodeRole::Replica => {}
            NodeRole::Witness => {
                return refused(format!("node {id} is a witness: it has no database to go on with"));
            }
            NodeRole::Listener => {
                return refused(format!("node {id} was never enrolled: its database may be incomplete"));
            }
        }
        if applied.state.nodes.len() == 1 {
            return refused(format!("node {id} is the only member of its cluster: it leads alone, once it runs"));
        }
        if store.database_record()?.repair == Some(Repair::Clone) {
            return refused(format!("the database of node {id} was to be cloned: it may be incomplete"));
        }
        Ok(Self { store, applied, last, identity, node })
    }

    /// Which node of which cluster it is so far.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The node, as its cluster knew it.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The members that would be given up.
    pub fn others(&self) -> impl Iterator<Item = &Node> {
        self.applied.state.nodes.values().filter(|node| node.id != self.identity.node)
    }

    /// The node whose database was the primary last, as far as this one knows, and in which term.
    pub fn last_primary(&self) -> Option<(NodeId, Term)> {
        self.applied.state.promoted.as_ref().map(|promoted| (promoted.node, promoted.term))
    }

    /// Which terms wrote the WAL of its database.
    pub fn wal(&self) -> Result<WalHistory, RecoverError> {
        Ok(self.store.database_record()?.history)
    }

    /// Whether the database has diverged from the last primary, and was to be rewound. It can lead once the loss is
    /// accepted by `POST /leader` as well.
    pub fn needs_rewind(&self) -> Result<bool, RecoverError> {
        Ok(self.store.database_record()?.repair == Some(Repair::Rewind))
    }

    /// Makes the node the only member of a cluster with a new id, in one write; returns what it is now.
    pub fn go_on_alone(self) -> Result<Identity, RecoverError> {
        let Self { store, applied, last, identity, node } = self;
        let now = Identity { cluster: Random::from_os().uuid(), node: identity.node };
        // An entry's place of its own for what happens here, so that whoever waits for something newer sees it.
        let at = LogPosition { index: last.index + 1, ..last };
        let state = alone(applied.state, identity, now, node, at);
        // It is elected in a later term than any that it has voted in or promised for.
        let promise = store.database_record()?.promise;
        store.go_on_alone(&now, &state, at, promise)?;
        Ok(now)
    }
}

/// The state of a cluster of which `node` alone is left: what was agreed on stays.
fn alone(mut state: State, before: Identity, now: Identity, node: Node, at: LogPosition) -> State {
    let given_up: Vec<_> = state.nodes.keys().filter(|&&id| id != node.id).map(ToString::to_string).collect();
    let cause = format!(
        "an operator has given up the nodes {} of the cluster {}: acknowledged commits may be lost by this; node {} goes \
         on alone as the cluster {}",
        given_up.join(", "),
        before.cluster,
        node.id,
        now.cluster
    );
    let event = Event {
        index: LogIndex(at.index),
        time: Clock::boottime().time_of_day(),
        term: at.term,
        kind: EventKind::Recovered,
        node: Some(node.id),
        cause,
        actor: "recover".into(),
    };
    let (role, upgrade_to) = (NodeRole::Voter, NodeRole::Voter);
    let lasting = Node { role, upgrade_to, state: NodeState::Up, reason: None, ..node };
    state.recover(now.cluster, lasting, event);
    state
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Lsn, Port, WalStart};
    use crate::protocol::command::Change;
    use crate::protocol::version::{Version, Versions};
    use crate::raft::store::DatabaseRecord;
    use crate::raft::store::test_log::{append, ends, position, store_with};

    const CLUSTER: Uuid = Uuid::from_u128(7);

    fn port(port: u16) -> Port {
        Port::new(port).unwrap()
    }

    fn add(role: NodeRole, api_port: u16) -> Change {
        Change::AddNode { ip: [127, 0, 0, 1].into(), api_port: port(api_port), role }
    }

    fn upgrade(node: u64, api_port: u16) -> Change {
        Change::UpgradeNode { node: NodeId(node), db_port: port(5000), api_port: port(api_port) }
    }

    /// The store of `node` in a cluster of voters 1 and 2, the replica 3, the witness 4 and the listener 5; 6 was removed.
    /// The log was written in term 2.
    fn store(dir: &std::path::Path, node: u64) -> Store {
        let first = Node {
            id: NodeId(1),
            ip: [127, 0, 0, 1].into(),
            db_port: Some(port(5000)),
            api_port: port(8001),
            role: NodeRole::Voter,
            upgrade_to: NodeRole::Voter,
            state: NodeState::Up,
            reason: None,
        };
        let changes = [
            Change::Create { cluster: CLUSTER, node: first },
            add(NodeRole::Voter, 8002),
            upgrade(2, 8002),
            add(NodeRole::Replica, 8003),
            upgrade(3, 8003),
            add(NodeRole::Witness, 8004),
            upgrade(4, 8004),
            add(NodeRole::Voter, 8005),
            add(NodeRole::Voter, 8006),
            Change::RemoveNode { node: NodeId(6) },
        ];
        store_with(&dir.join("store"), &Identity { cluster: CLUSTER, node: NodeId(node) }, changes)
    }

    #[test]
    fn what_the_log_holds_counts_to_its_end_and_what_the_database_owes_stays() {
        for (node, promise, term) in [(2, 2, 2), (3, 9, 9)] {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path(), node);
            let history = WalHistory(vec![WalStart { term: Term(2), lsn: Lsn(100) }]);
            let record = DatabaseRecord { promise: Term(promise), history, repair: None };
            store.set_database_record(&record).unwrap();
            let survivor = Survivor::find(store).unwrap();
            assert_eq!(survivor.others().count(), 4);
            let now = survivor.go_on_alone().unwrap();
            assert_ne!(now.cluster, CLUSTER);

            let store = Store::open(&dir.path().join("store")).unwrap();
            assert_eq!(store.identity().unwrap(), Some(now));
            assert_eq!(store.database_record().unwrap(), record);
            assert_eq!(ends(&store), (term, Some(position(11)), Some(position(11))));
            let applied = Applied::whole(&store).unwrap();
            let voters: Vec<_> = applied.membership.membership.voters.into_iter().flatten().collect();
            assert_eq!(voters, [NodeId(node)]);
            let state = applied.state;
            let node = &state.nodes[&NodeId(node)];
            assert!(node.votes() && node.upgrade_to == NodeRole::Voter && state.nodes.len() == 1, "{node:?}");
            assert_eq!((state.cluster, state.next_node, state.map_index), (Some(now.cluster), 7, LogIndex(11)));
            assert_eq!(state.events.back().unwrap().kind, EventKind::Recovered);
        }
    }

    #[test]
    fn a_log_that_goes_on_in_a_version_that_is_not_known_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), 2);
        let change = Change::RaiseVersion { version: Version(Versions::KNOWN.newest.0 + 1) };
        append(&store, 11, [change]);
        let refused = Survivor::find(store).err().unwrap();
        assert!(matches!(refused, RecoverError::Store(StoreError::Version(_))), "{refused}");
    }

    #[test]
    fn a_node_without_a_whole_database_does_not_go_on() {
        for (node, repair, expected) in [
            (4, None, "a witness"),
            (5, None, "never enrolled"),
            (6, None, "was removed"),
            (2, Some(Repair::Clone), "was to be cloned"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path(), node);
            store.set_database_record(&DatabaseRecord { repair, ..DatabaseRecord::default() }).unwrap();
            let error = Survivor::find(store).err().unwrap().to_string();
            assert!(error.contains(expected), "{node}: {error}");
        }
    }
}
