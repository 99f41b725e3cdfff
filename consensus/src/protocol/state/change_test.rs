//! What the state accepts, refuses and keeps.

use std::collections::VecDeque;

use uuid::Uuid;

use super::State;
use crate::model::{
    ConfigUpdate, Duration, EventKind, LogIndex, Node, NodeId, NodeRole, NodeState, Port, Term, WalHistory,
};
use crate::protocol::command::{Change, Command, Outcome};

/// A state with a log: each command gets the next index.
struct Cluster {
    state: State,
    index: u64,
}

impl Cluster {
    /// A cluster of node 1, a voter.
    fn new() -> Self {
        let mut cluster = Self { state: State::default(), index: 0 };
        let node = Node {
            id: NodeId(1),
            ip: [127, 0, 0, 1].into(),
            db_port: Port::new(5001),
            api_port: port(8001),
            role: NodeRole::Voter,
            upgrade_to: NodeRole::Voter,
            state: NodeState::Up,
            reason: None,
        };
        assert_eq!(cluster.write(Change::Create { cluster: Uuid::from_u128(7), node }), Outcome::Done);
        cluster
    }

    fn write(&mut self, change: Change) -> Outcome {
        self.index += 1;
        let command = Command {
            id: Uuid::from_u128(u128::from(self.index)),
            time: "2026-01-31T12:00:00Z".into(),
            actor: "test".into(),
            cause: "a test".into(),
            change,
        };
        self.state.apply(LogIndex(self.index), Term(1), command)
    }

    fn add(&mut self, number: u16, role: NodeRole) -> NodeId {
        let change = Change::AddNode { ip: [127, 0, 0, 1].into(), api_port: port(8000 + number), role };
        match self.write(change) {
            Outcome::Node(node) => node.id,
            other => panic!("{other:?}"),
        }
    }

    fn enroll(&mut self, node: NodeId) -> Outcome {
        let api_port = self.state.nodes[&node].api_port;
        self.write(Change::UpgradeNode { node, db_port: port(5000 + node.0 as u16), api_port })
    }
}

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(reason) | Outcome::Invalid(reason) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_node_is_added_as_a_listener_enrolled_declared_down_brought_back_and_removed() {
    let mut cluster = Cluster::new();
    let id = cluster.add(2, NodeRole::Voter);
    assert_eq!(cluster.state.nodes[&id].role, NodeRole::Listener);
    assert_eq!(cluster.state.config.replication_factor, 1);

    assert!(matches!(cluster.enroll(id), Outcome::Node(node) if node.role == NodeRole::Voter));
    assert_eq!(cluster.state.config.replication_factor, 2);

    cluster.write(Change::DownNode { node: id });
    let down = &cluster.state.nodes[&id];
    assert_eq!((down.state, down.reason.as_deref()), (NodeState::Down, Some("a test")));
    assert_eq!(cluster.state.voters().count(), 1);

    cluster.enroll(id);
    assert_eq!(cluster.state.nodes[&id].state, NodeState::Up);
    cluster.write(Change::DownNode { node: id });
    cluster.write(Change::RemoveNode { node: id });
    assert!(cluster.state.was_removed(id));
    assert_eq!(cluster.state.config.replication_factor, 1);
    let kinds: Vec<_> = cluster.state.events.iter().map(|event| event.kind).collect();
    use EventKind::*;
    assert_eq!(kinds, [ClusterCreated, NodeAdded, NodeUpgraded, NodeDown, NodeUpgraded, NodeDown, NodeRemoved]);
}

#[test]
fn ids_are_never_used_again() {
    let mut cluster = Cluster::new();
    let first = cluster.add(2, NodeRole::Voter);
    cluster.write(Change::RemoveNode { node: first });
    let second = cluster.add(2, NodeRole::Voter);
    assert!(second > first);
    // A listener that starts over gets a new id, and its old one is gone.
    let third = cluster.add(2, NodeRole::Voter);
    assert!(third > second && cluster.state.was_removed(second));
}

#[test]
fn what_the_state_does_not_allow_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::new();
    let voter = cluster.add(2, NodeRole::Voter);
    cluster.enroll(voter);
    let witness = cluster.add(3, NodeRole::Witness);
    cluster.enroll(witness);
    let second_witness = cluster.add(4, NodeRole::Witness);
    cluster.enroll(second_witness);
    let third_witness = cluster.add(5, NodeRole::Witness);
    let listener = cluster.add(6, NodeRole::Listener);
    let before = State { recent: VecDeque::new(), ..cluster.state.clone() };

    let api_port = port(8005);
    for (change, expected) in [
        (Change::UpgradeNode { node: third_witness, db_port: port(1), api_port }, "witnesses must not be more"),
        (Change::UpgradeNode { node: third_witness, db_port: port(1), api_port: port(9) }, "with api-port 8005"),
        (Change::UpgradeNode { node: listener, db_port: port(1), api_port: port(8006) }, "stay a listener"),
        (Change::UpgradeNode { node: NodeId(99), db_port: port(1), api_port }, "node 99 is not part"),
        (Change::RemoveNode { node: voter }, "declared down first"),
        (Change::DownNode { node: voter }, "witnesses must not be more"),
        (
            Change::AddNode { ip: [127, 0, 0, 1].into(), api_port: port(8003), role: NodeRole::Voter },
            "node 3 is at 127.0.0.1, port 8003, already",
        ),
        (
            Change::AddNode { ip: [127, 0, 0, 1].into(), api_port: port(8002), role: NodeRole::Voter },
            "node 2 is at 127.0.0.1, port 8002, already",
        ),
        (Change::Lead { node: voter, term: Term(9), lossy: false }, "term 9 is over"),
        (Change::Promoted { node: voter, term: Term(1), timeline: 1, history: WalHistory::default() }, "does not lead"),
        (
            Change::SetConfig(ConfigUpdate {
                node_timeout: Some(Duration::from_millis(100)),
                ..ConfigUpdate::default()
            }),
            "three times heartbeat-interval",
        ),
    ] {
        let reason = reason(cluster.write(change.clone()));
        assert!(reason.contains(expected), "{change:?}: {reason}");
        assert_eq!(State { recent: VecDeque::new(), ..cluster.state.clone() }, before, "{change:?}");
    }
}

#[test]
fn the_last_voter_stays() {
    let mut cluster = Cluster::new();
    assert!(reason(cluster.write(Change::DownNode { node: NodeId(1) })).contains("no voter would be left"));
    assert!(reason(cluster.write(Change::RemoveNode { node: NodeId(1) })).contains("has a vote"));
}

#[test]
fn a_command_that_is_written_twice_is_applied_once() {
    let mut cluster = Cluster::new();
    let command = Command {
        id: Uuid::from_u128(99),
        time: String::new(),
        actor: String::new(),
        cause: String::new(),
        change: Change::AddNode { ip: [10, 0, 0, 1].into(), api_port: port(80), role: NodeRole::Voter },
    };
    let first = cluster.state.apply(LogIndex(5), Term(1), command.clone());
    let second = cluster.state.apply(LogIndex(6), Term(1), command);
    assert_eq!(first, second);
    assert_eq!(cluster.state.nodes.len(), 2);
}

#[test]
fn reachability_is_told_once_and_never_brings_back_a_node_that_is_down() {
    let mut cluster = Cluster::new();
    let node = cluster.add(2, NodeRole::Voter);
    assert!(matches!(cluster.write(Change::Reach { node, reachable: false }), Outcome::Node(_)));
    assert!(matches!(cluster.write(Change::Reach { node, reachable: false }), Outcome::Refused(_)));
    cluster.write(Change::DownNode { node });
    assert!(matches!(cluster.write(Change::Reach { node, reachable: true }), Outcome::Refused(_)));
    assert_eq!(cluster.state.nodes[&node].state, NodeState::Down);
}

#[test]
fn a_leader_is_announced_in_its_own_term_and_its_primary_after_it() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.write(Change::Lead { node: NodeId(1), term: Term(1), lossy: false }), Outcome::Done);
    let map_index = cluster.state.map_index;
    let history = WalHistory::default();
    let promoted = Change::Promoted { node: NodeId(1), term: Term(1), timeline: 2, history };
    assert_eq!(cluster.write(promoted), Outcome::Done);
    assert_eq!(cluster.state.promoted.as_ref().map(|promoted| promoted.timeline), Some(2));
    assert_eq!(cluster.state.map_index, map_index);
}

#[test]
fn what_is_held_is_forgotten_if_more_votes_or_another_factor_could_undo_it() {
    let mut cluster = Cluster::new();
    let second = cluster.add(2, NodeRole::Voter);
    let held = |void, voters: &[NodeId]| Change::Held { voters: voters.iter().copied().collect(), void };
    let first = NodeId(1);
    cluster.write(held(0, &[first]));
    assert!(cluster.state.held.is_some());
    // From here on the rule may be raised, before the second votes.
    cluster.enroll(second);
    assert_eq!(cluster.state.held, None);
    assert!(reason(cluster.write(held(0, &[first]))).contains("have changed since"));
    cluster.write(held(1, &[first, second]));
    assert!(cluster.state.held.is_some());
    // Its vote goes once the present voters' rule is held, and comes back as any other.
    cluster.write(Change::DownNode { node: second });
    assert!(cluster.state.held.is_some());
    assert_eq!(cluster.write(held(1, &[first, second])), Outcome::Done);
    cluster.enroll(second);
    assert_eq!(cluster.state.held, None);

    cluster.write(held(2, &[first, second]));
    let update = |update| Change::SetConfig(update);
    cluster.write(update(ConfigUpdate { autoremove_minimum: Some(5), ..ConfigUpdate::default() }));
    assert!(cluster.state.held.is_some());
    cluster.write(update(ConfigUpdate { quorum_replication: Some(false), ..ConfigUpdate::default() }));
    assert_eq!(cluster.state.held, None);
}

#[test]
fn a_state_survives_a_snapshot() {
    let mut cluster = Cluster::new();
    cluster.add(2, NodeRole::Voter);
    let bytes = postcard::to_stdvec(&cluster.state).unwrap();
    assert_eq!(postcard::from_bytes::<State>(&bytes).unwrap(), cluster.state);
}
