//! The replicated state, and the pure function that applies commands to it.
//!
//! Every node applies the same commands in the same order and has the same state. What a node sees for itself (whom it
//! reaches, whether its lease holds) is not in here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::env::sabotage::{self, Sabotage};
use crate::model::{Config, Event, EventKind, LogIndex, Node, NodeId, NodeRole, NodeState, Port, Term, WalHistory};
use crate::protocol::command::{Change, Command, Outcome};
use crate::protocol::readonly::Readonly;
use crate::protocol::version::Version;

/// So many events are kept, the newest.
const EVENTS: usize = 1000;
/// The outcomes of so many commands are kept, the newest, to recognize one that is written twice. The writer of a
/// command gives up long before so many others were written.
const RECENT: usize = 1000;

/// What the cluster has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What the log is written in from here on, and this state, where it is a snapshot. It stays the first field in all
    /// versions.
    pub version: Version,
    /// Identifies the cluster; none before its first entry.
    pub cluster: Option<Uuid>,
    /// The settings.
    pub config: Config,
    /// The members.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The id of the node that is added next. Ids below it that are no members were removed.
    pub next_node: u64,
    /// The newest leader that announced itself.
    pub lead: Option<Lead>,
    /// The newest primary that announced itself.
    pub promoted: Option<Promoted>,
    /// The voters as which ask all that was ever acknowledged is held. While they are the voters, this stays true without
    /// further proof, since all is acknowledged under their rule. Before another gets a vote it is none.
    pub held: Option<BTreeSet<NodeId>>,
    /// How often that became void: a proof from before counts no more.
    pub held_void: u64,
    /// Who declared the nodes down that are.
    pub down_by: BTreeMap<NodeId, String>,
    /// The statements that do not write.
    pub readonly: Readonly,
    /// The newest entry that changed what the map tells.
    pub map_index: LogIndex,
    /// What happened, oldest first.
    pub events: VecDeque<Event>,
    recent: VecDeque<(Uuid, Outcome)>,
}

/// A leader, as it was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Who.
    pub node: NodeId,
    /// The term that it leads.
    pub term: Term,
}

/// A primary, as it was announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// Who.
    pub node: NodeId,
    /// The term that it leads.
    pub term: Term,
    /// The timeline that its promotion began.
    pub timeline: u32,
    /// Its whole WAL history.
    pub history: WalHistory,
}

/// What a change did: the outcome, and the event that tells of it.
type Changed = Result<(Outcome, EventKind, Option<NodeId>), Outcome>;

impl State {
    /// Applies a command that stands at `index` of the log, written by the leader of `term`.
    pub fn apply(&mut self, index: LogIndex, term: Term, command: Command) -> Outcome {
        if let Some(outcome) = self.outcome(command.id) {
            return outcome.clone();
        }
        let outcome = match self.change(term, &command) {
            Ok((outcome, kind, node)) => {
                let of_map = !matches!(
                    kind,
                    EventKind::DatabasePromoted
                        | EventKind::ReadonlyStatementsChanged
                        | EventKind::CommitsHeld
                        | EventKind::NobodyLeads
                        | EventKind::VersionRaised
                );
                if of_map {
                    self.map_index = index;
                }
                let Command { time, cause, actor, change, .. } = command;
                if !matches!(&change, Change::Readonly(change) if !change.is_event()) {
                    push(&mut self.events, EVENTS, Event { index, time, term, kind, node, cause, actor });
                }
                outcome
            }
            Err(refused) => refused,
        };
        push(&mut self.recent, RECENT, (command.id, outcome.clone()));
        outcome
    }

    /// What became of the command `id`, where it was applied not long ago.
    pub fn outcome(&self, id: Uuid) -> Option<&Outcome> {
        self.recent.iter().rev().find(|(known, _)| *known == id).map(|(_, outcome)| outcome)
    }

    /// The nodes that have a vote.
    pub fn voters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.votes())
    }

    /// Whether the node `id` was a member once and is none any more.
    pub fn was_removed(&self, id: NodeId) -> bool {
        id.0 < self.next_node && !self.nodes.contains_key(&id)
    }

    /// Makes `node` the only member of the cluster that goes on as `cluster`, and notes the event that tells of it.
    /// Ids go on where they were, and what is known of the last primary stays.
    pub(crate) fn recover(&mut self, cluster: Uuid, node: Node, event: Event) {
        self.cluster = Some(cluster);
        self.down_by.clear();
        self.nodes = BTreeMap::from([(node.id, node)]);
        self.config = self.config.clone().with_voters(1);
        self.forget_held();
        self.map_index = event.index;
        push(&mut self.events, EVENTS, event);
    }

    fn change(&mut self, term: Term, command: &Command) -> Changed {
        match &command.change {
            Change::Create { cluster, node } => self.create(*cluster, node),
            Change::SetConfig(update) => {
                let updated = self.config.updated(update, self.voters().count()).map_err(Outcome::Invalid)?;
                let before = std::mem::replace(&mut self.config, updated);
                let factor = |config: &Config| (config.quorum_replication, config.replication_factor);
                if factor(&before) != factor(&self.config) {
                    // What was acknowledged under another factor is held by fewer, or by others.
                    self.forget_held();
                }
                Ok((Outcome::Done, EventKind::ConfigChanged, None))
            }
            Change::AddNode { ip, api_port, role } => {
                if let Some(reason) = self.taken(*ip, *api_port) {
                    return refused(reason);
                }
                // It never was more than a listener: its host starts over, under a new id.
                self.nodes.retain(|_, node| (node.ip, node.api_port) != (*ip, *api_port));
                let node = Node {
                    id: NodeId(self.next_node),
                    ip: *ip,
                    db_port: None,
                    api_port: *api_port,
                    role: NodeRole::Listener,
                    upgrade_to: *role,
                    state: NodeState::Up,
                    reason: None,
                };
                self.next_node += 1;
                self.nodes.insert(node.id, node.clone());
                Ok((Outcome::Node(Box::new(node.clone())), EventKind::NodeAdded, Some(node.id)))
            }
            Change::UpgradeNode { node, db_port, api_port } => {
                let mut upgraded = self.member(*node)?.clone();
                if upgraded.upgrade_to == NodeRole::Listener {
                    return refused(format!("node {node} was added to stay a listener"));
                }
                if upgraded.api_port != *api_port {
                    return refused(format!(
                        "node {node} was added with api-port {}, not {api_port}: remove it and add it with that port",
                        upgraded.api_port
                    ));
                }
                upgraded.role = upgraded.upgrade_to;
                // Where the first node has no database, the cluster manages none.
                let databases = self.voters().any(|voter| voter.db_port.is_some());
                upgraded.db_port = (databases && upgraded.role.has_database()).then_some(*db_port);
                upgraded.state = NodeState::Up;
                upgraded.reason = None;
                let changed = self.replace(upgraded, EventKind::NodeUpgraded)?;
                self.down_by.remove(node);
                Ok(changed)
            }
            Change::DownNode { node } => {
                let mut down = self.member(*node)?.clone();
                down.state = NodeState::Down;
                down.reason = Some(command.cause.clone());
                let changed = self.replace(down, EventKind::NodeDown)?;
                self.down_by.insert(*node, command.actor.clone());
                Ok(changed)
            }
            Change::RemoveNode { node } => {
                let removed = self.member(*node)?.clone();
                // It stops when it learns of this, and its vote may be needed until the others do without.
                if removed.votes() {
                    return refused(format!("node {node} has a vote: it must be declared down first"));
                }
                self.nodes.remove(node);
                self.down_by.remove(node);
                if sabotage::is(Sabotage::ReuseId) {
                    self.next_node = node.0;
                }
                Ok((Outcome::Node(Box::new(removed)), EventKind::NodeRemoved, Some(*node)))
            }
            Change::Reach { node, reachable } => {
                let mut seen = self.member(*node)?.clone();
                let (from, to, kind) = if *reachable {
                    (NodeState::Unreachable, NodeState::Up, EventKind::NodeReachable)
                } else {
                    (NodeState::Up, NodeState::Unreachable, EventKind::NodeUnreachable)
                };
                if seen.state != from {
                    return refused(format!("node {node} is not in the state that this changes"));
                }
                seen.state = to;
                seen.reason = (!reachable).then(|| command.cause.clone());
                self.replace(seen, kind)
            }
            Change::Lead { node, term: led, lossy } => {
                self.member(*node)?;
                if *led != term {
                    return refused(format!("term {led} is over: this entry is of term {term}"));
                }
                self.lead = Some(Lead { node: *node, term });
                let kind = if *lossy { EventKind::DataLossAccepted } else { EventKind::LeaderElected };
                Ok((Outcome::Done, kind, Some(*node)))
            }
            Change::Promoted { node, term: led, timeline, history } => {
                if self.lead != Some(Lead { node: *node, term: *led }) {
                    return refused(format!("node {node} does not lead term {led}"));
                }
                self.promoted =
                    Some(Promoted { node: *node, term: *led, timeline: *timeline, history: history.clone() });
                Ok((Outcome::Done, EventKind::DatabasePromoted, Some(*node)))
            }
            Change::Held { voters, void } => {
                if *void != self.held_void {
                    return refused("the voters, or the factor, have changed since");
                }
                self.held = Some(voters.clone());
                Ok((Outcome::Done, EventKind::CommitsHeld, None))
            }
            Change::NobodyLeads { node } => Ok((Outcome::Done, EventKind::NobodyLeads, Some(*node))),
            Change::Readonly(change) => {
                self.readonly.apply(term, change).map_err(Outcome::Refused)?;
                Ok((Outcome::Done, EventKind::ReadonlyStatementsChanged, None))
            }
            Change::RaiseVersion { version } => {
                if *version <= self.version {
                    return refused(format!("version {} is spoken already", self.version));
                }
                self.version = *version;
                Ok((Outcome::Done, EventKind::VersionRaised, None))
            }
        }
    }

    fn create(&mut self, cluster: Uuid, node: &Node) -> Changed {
        if self.cluster.is_some() {
            return refused("the cluster exists already");
        }
        self.cluster = Some(cluster);
        self.next_node = node.id.0 + 1;
        self.nodes.insert(node.id, node.clone());
        self.config = self.config.clone().with_voters(1);
        Ok((Outcome::Done, EventKind::ClusterCreated, Some(node.id)))
    }

    /// Why no node can be added at an address, where that is so.
    pub(crate) fn taken(&self, ip: IpAddr, api_port: Port) -> Option<String> {
        let at = |node: &&Node| (node.ip, node.api_port) == (ip, api_port) && node.role != NodeRole::Listener;
        let node = self.nodes.values().find(at)?;
        Some(format!("node {} is at {ip}, port {api_port}, already: remove it first", node.id))
    }

    fn forget_held(&mut self) {
        self.held = None;
        self.held_void += 1;
    }

    fn member(&self, id: NodeId) -> Result<&Node, Outcome> {
        self.nodes.get(&id).ok_or_else(|| Outcome::Refused(format!("node {id} is not part of the cluster")))
    }

    /// Puts `node` in the place of its former self, where the voters that there are then may be the voters.
    fn replace(&mut self, node: Node, kind: EventKind) -> Changed {
        let voters: Vec<_> = self
            .nodes
            .values()
            .map(|other| if other.id == node.id { &node } else { other })
            .filter(|node| node.votes())
            .collect();
        check_voters(&voters)?;
        let count = voters.len();
        if node.votes() && !self.nodes.get(&node.id).is_some_and(Node::votes) {
            // From now on the sync rule may be raised, and what is acknowledged under a rule for more voters may be held
            // by fewer of the present ones.
            self.forget_held();
        }
        self.nodes.insert(node.id, node.clone());
        self.config = self.config.clone().with_voters(count);
        Ok((Outcome::Node(Box::new(node.clone())), kind, Some(node.id)))
    }
}

/// Whether a cluster can have these voters: at least one that may lead, and never fewer databases than witnesses, so
/// that witnesses alone elect nobody (a majority always includes a node that has the data).
pub(crate) fn check_voters(voters: &[&Node]) -> Result<(), Outcome> {
    let databases = voters.iter().filter(|node| node.role == NodeRole::Voter).count();
    let witnesses = voters.len() - databases;
    if databases == 0 {
        return Err(Outcome::Refused("no voter would be left that may lead".into()));
    }
    if witnesses > databases {
        return Err(Outcome::Refused(format!(
            "the cluster would have {witnesses} witnesses and {databases} other voters: witnesses must not be more"
        )));
    }
    Ok(())
}

fn refused(reason: impl Into<String>) -> Changed {
    Err(Outcome::Refused(reason.into()))
}

fn push<T>(queue: &mut VecDeque<T>, most: usize, item: T) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigUpdate, Duration, Port};

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

        fn upgrade(&mut self, node: NodeId) -> Outcome {
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
    fn a_node_is_added_as_a_listener_upgraded_declared_down_brought_back_and_removed() {
        let mut cluster = Cluster::new();
        let id = cluster.add(2, NodeRole::Voter);
        assert_eq!(cluster.state.nodes[&id].role, NodeRole::Listener);
        assert_eq!(cluster.state.config.replication_factor, 1);

        assert!(matches!(cluster.upgrade(id), Outcome::Node(node) if node.role == NodeRole::Voter));
        assert_eq!(cluster.state.config.replication_factor, 2);

        cluster.write(Change::DownNode { node: id });
        let down = &cluster.state.nodes[&id];
        assert_eq!((down.state, down.reason.as_deref()), (NodeState::Down, Some("a test")));
        assert_eq!(cluster.state.voters().count(), 1);

        cluster.upgrade(id);
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
        cluster.upgrade(voter);
        let witness = cluster.add(3, NodeRole::Witness);
        cluster.upgrade(witness);
        let second_witness = cluster.add(4, NodeRole::Witness);
        cluster.upgrade(second_witness);
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
            (
                Change::Promoted { node: voter, term: Term(1), timeline: 1, history: WalHistory::default() },
                "does not lead",
            ),
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
    fn what_is_held_is_forgotten_where_more_votes_or_another_factor_could_undo_it() {
        let mut cluster = Cluster::new();
        let second = cluster.add(2, NodeRole::Voter);
        let held = |void, voters: &[NodeId]| Change::Held { voters: voters.iter().copied().collect(), void };
        let first = NodeId(1);
        cluster.write(held(0, &[first]));
        assert!(cluster.state.held.is_some());
        // From here on the rule may be raised, before the second votes.
        cluster.upgrade(second);
        assert_eq!(cluster.state.held, None);
        assert!(reason(cluster.write(held(0, &[first]))).contains("have changed since"));
        cluster.write(held(1, &[first, second]));
        assert!(cluster.state.held.is_some());
        // Its vote goes once the present voters' rule is held, and comes back as any other.
        cluster.write(Change::DownNode { node: second });
        assert!(cluster.state.held.is_some());
        assert_eq!(cluster.write(held(1, &[first, second])), Outcome::Done);
        cluster.upgrade(second);
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
}
