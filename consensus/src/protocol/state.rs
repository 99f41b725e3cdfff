//! The replicated state, and the pure function that applies commands to it.
//!
//! Every node applies the same commands in the same order and has the same state. What a node sees for itself (whom it
//! reaches, whether its lease holds) is not in here.

mod change;
#[cfg(test)]
mod change_test;
mod declared_by;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::change::check_voters;
pub use self::declared_by::DeclaredBy;
use crate::model::{Config, Event, EventKind, LogIndex, Node, NodeId, NodeRole, Port, Term, WalHistory};
use crate::protocol::command::{Change, Command, Outcome};
use crate::protocol::readonly::Readonly;
use crate::protocol::version::Version;

/// How many events are kept: the newest.
const EVENTS_KEPT: usize = 1000;
/// How many outcomes of commands are kept, the newest, to recognize a command that is written twice. The writer of a
/// command gives up long before that many others are written.
const OUTCOMES_KEPT: usize = 1000;

/// What the cluster has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The version that the log is written in from here on, and this state, if it is a snapshot. It stays the first
    /// field in all versions.
    pub version: Version,
    /// Identifies the cluster; None before its first entry.
    pub cluster: Option<Uuid>,
    /// The settings.
    pub config: Config,
    /// The members.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The id of the node that is added next. A lower id that no member has is that of a removed node.
    pub next_node: u64,
    /// The newest leader that announced itself.
    pub lead: Option<Lead>,
    /// The newest primary that announced itself.
    pub promoted: Option<Promoted>,
    /// The voters under whose sync rule all commits that were ever acknowledged are held. While these are the voters, it
    /// stays true without further proof, since every commit is acknowledged under their rule. It becomes None before
    /// another node gets a vote.
    pub held: Option<BTreeSet<NodeId>>,
    /// How often `held` became None: a proof from before counts no longer.
    pub held_void: u64,
    /// Who declared each node down that is down.
    pub down_by: BTreeMap<NodeId, DeclaredBy>,
    /// The statements that do not write.
    pub readonly: Readonly,
    /// The newest entry that changed what the map tells.
    pub map_index: LogIndex,
    /// What happened, oldest first.
    pub events: VecDeque<Event>,
    pub(super) recent: VecDeque<(Uuid, Outcome)>,
}

/// A leader, as it was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// The node.
    pub node: NodeId,
    /// The term that it leads.
    pub term: Term,
}

/// A primary, as it was announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// The node.
    pub node: NodeId,
    /// The term that it leads.
    pub term: Term,
    /// The timeline that its promotion began.
    pub timeline: u32,
    /// Its whole WAL history.
    pub history: WalHistory,
}

impl State {
    /// Applies a command that stands at `index` of the log, written by the leader of `term`. A command that was applied
    /// before changes nothing and has the outcome that it had.
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
                    push(&mut self.events, EVENTS_KEPT, Event { index, time, term, kind, node, cause, actor });
                }
                outcome
            }
            Err(refused) => refused,
        };
        push(&mut self.recent, OUTCOMES_KEPT, (command.id, outcome.clone()));
        outcome
    }

    /// What became of the command `id`; None if it was not applied, or not lately.
    pub fn outcome(&self, id: Uuid) -> Option<&Outcome> {
        self.recent.iter().rev().find(|(known, _)| *known == id).map(|(_, outcome)| outcome)
    }

    /// The nodes that have a vote.
    pub fn voters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.votes())
    }

    /// Whether the node `id` was a member once and no longer is.
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
        push(&mut self.events, EVENTS_KEPT, event);
    }

    /// Why no node can be added at an address; None if one can.
    pub(crate) fn taken(&self, ip: IpAddr, api_port: Port) -> Option<String> {
        let at = |node: &&Node| (node.ip, node.api_port) == (ip, api_port) && node.role != NodeRole::Listener;
        let node = self.nodes.values().find(at)?;
        Some(format!("node {} is at {ip}, port {api_port}, already: remove it first", node.id))
    }

    fn forget_held(&mut self) {
        self.held = None;
        self.held_void += 1;
    }
}

fn push<T>(queue: &mut VecDeque<T>, most: usize, item: T) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}
