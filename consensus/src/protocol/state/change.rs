//! What each change does to the state, or why it is refused.

use std::net::IpAddr;

use uuid::Uuid;

use super::{DeclaredBy, Lead, Promoted, State};
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Config, ConfigUpdate, EventKind, Node, NodeId, NodeRole, NodeState, Port, Term};
use crate::protocol::command::{Change, Command, Outcome};

/// What a change did: the outcome, the kind of the event that tells of it, and the node that it concerned.
type Changed = Result<(Outcome, EventKind, Option<NodeId>), Outcome>;

impl State {
    /// Makes the change of a command that was written in `term`, or refuses it and changes nothing.
    pub(super) fn change(&mut self, term: Term, command: &Command) -> Changed {
        match &command.change {
            Change::Create { cluster, node } => self.create(*cluster, node),
            Change::SetConfig(update) => self.set_config(update),
            Change::AddNode { ip, api_port, role } => self.add(*ip, *api_port, *role),
            Change::UpgradeNode { node, db_port, api_port } => self.enroll(*node, *db_port, *api_port),
            Change::DownNode { node } => self.down(*node, command),
            Change::RemoveNode { node } => self.remove(*node),
            Change::Reach { node, reachable } => self.reach(*node, *reachable, &command.cause),
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

    fn set_config(&mut self, update: &ConfigUpdate) -> Changed {
        let updated = self.config.updated(update, self.voters().count()).map_err(Outcome::Invalid)?;
        let before = std::mem::replace(&mut self.config, updated);
        let factor = |config: &Config| (config.quorum_replication, config.replication_factor);
        if factor(&before) != factor(&self.config) {
            // What was acknowledged under another factor is held by fewer nodes, or by others.
            self.forget_held();
        }
        Ok((Outcome::Done, EventKind::ConfigChanged, None))
    }

    /// Adds a node as a listener, which is to become `role`.
    fn add(&mut self, ip: IpAddr, api_port: Port, role: NodeRole) -> Changed {
        if let Some(reason) = self.taken(ip, api_port) {
            return refused(reason);
        }
        // A node at this address was never more than a listener: its host starts over, under a new id.
        self.nodes.retain(|_, node| (node.ip, node.api_port) != (ip, api_port));
        let node = Node {
            id: NodeId(self.next_node),
            ip,
            db_port: None,
            api_port,
            role: NodeRole::Listener,
            upgrade_to: role,
            state: NodeState::Up,
            reason: None,
        };
        self.next_node += 1;
        self.nodes.insert(node.id, node.clone());
        Ok((Outcome::Node(Box::new(node.clone())), EventKind::NodeAdded, Some(node.id)))
    }

    /// Enrolls a listener in its role, or brings back a node that was declared down.
    fn enroll(&mut self, id: NodeId, db_port: Port, api_port: Port) -> Changed {
        let mut enrolled = self.member(id)?.clone();
        if enrolled.upgrade_to == NodeRole::Listener {
            return refused(format!("node {id} was added to stay a listener"));
        }
        if enrolled.api_port != api_port {
            return refused(format!(
                "node {id} was added with api-port {}, not {api_port}: remove it and add it with that port",
                enrolled.api_port
            ));
        }
        enrolled.role = enrolled.upgrade_to;
        // If the first node has no database, the cluster manages none.
        let databases = self.voters().any(|voter| voter.db_port.is_some());
        enrolled.db_port = (databases && enrolled.role.has_database()).then_some(db_port);
        enrolled.state = NodeState::Up;
        enrolled.reason = None;
        let changed = self.replace(enrolled, EventKind::NodeUpgraded)?;
        self.down_by.remove(&id);
        Ok(changed)
    }

    /// Declares a node down, for the cause of `command`.
    fn down(&mut self, id: NodeId, command: &Command) -> Changed {
        let mut down = self.member(id)?.clone();
        down.state = NodeState::Down;
        down.reason = Some(command.cause.clone());
        let changed = self.replace(down, EventKind::NodeDown)?;
        self.down_by.insert(id, DeclaredBy::from(command.actor.clone()));
        Ok(changed)
    }

    fn remove(&mut self, id: NodeId) -> Changed {
        let removed = self.member(id)?.clone();
        // It stops when it learns of this, and the others may need its vote until they do without.
        if removed.votes() {
            return refused(format!("node {id} has a vote: it must be declared down first"));
        }
        self.nodes.remove(&id);
        self.down_by.remove(&id);
        if sabotage::is(Sabotage::ReuseId) {
            self.next_node = id.0;
        }
        Ok((Outcome::Node(Box::new(removed)), EventKind::NodeRemoved, Some(id)))
    }

    /// Notes that the leader reaches a node again, or does not reach it, for `cause`.
    fn reach(&mut self, id: NodeId, reachable: bool, cause: &str) -> Changed {
        let mut seen = self.member(id)?.clone();
        let (from, to, kind) = if reachable {
            (NodeState::Unreachable, NodeState::Up, EventKind::NodeReachable)
        } else {
            (NodeState::Up, NodeState::Unreachable, EventKind::NodeUnreachable)
        };
        if seen.state != from {
            return refused(format!("node {id} is not in the state that this changes"));
        }
        seen.state = to;
        seen.reason = (!reachable).then(|| cause.to_owned());
        self.replace(seen, kind)
    }

    fn member(&self, id: NodeId) -> Result<&Node, Outcome> {
        self.nodes.get(&id).ok_or_else(|| Outcome::Refused(format!("node {id} is not part of the cluster")))
    }

    /// Puts `node` in the place of its former self, if the cluster can have the voters that there are then.
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

/// Whether a cluster can have these voters: at least one that may lead, and no more witnesses than databases, so that
/// witnesses alone elect nobody (a majority always includes a node that has the data).
///
/// # Errors
///
/// [`Outcome::Refused`], with the rule that they break.
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
