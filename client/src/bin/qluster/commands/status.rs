//! The command `status`.
//!
//! The map has the nodes and the leader. The positions of the databases change too often for the map; `/status` has
//! them. All nodes are asked at the same time: a node that is cut off from the others has an older map, and the table
//! says which nodes do not answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use comfy_table::Cell;
use futures::future::join_all;
use qluster_client::ClusterClient;
use qluster_client::model::{
    ClusterMap, ClusterStatus, DatabaseRole, Node, NodeDatabase, NodeId, NodeRole, NodeState, Term,
};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Style, Tone, bytes, cell, optional, plain, table};
use crate::session::Session;

/// How long a node may take to answer. A node that works answers within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The cluster as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Overview {
    pub(super) leader: Option<NodeId>,
    /// Why nobody leads; `None` if a node leads.
    pub(super) reason: Option<String>,
    pub(super) term: Term,
    pub(super) nodes: Vec<Line>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Line {
    pub(super) id: NodeId,
    pub(super) role: NodeRole,
    pub(super) state: NodeState,
    pub(super) leads: bool,
    /// Whether the node answered this command.
    pub(super) answers: bool,
    pub(super) api_address: SocketAddr,
    pub(super) database_address: Option<SocketAddr>,
    /// `None` if the node has no database, or if no node knows of it.
    pub(super) database: Option<NodeDatabase>,
    /// The newest term that the node knows.
    pub(super) term: Option<Term>,
    /// Why the node is not fit; `None` if it is.
    #[serde(rename = "why-not-fit")]
    pub(super) why: Option<String>,
}

/// What one node answered.
#[derive(Debug)]
struct Answer {
    map: ClusterMap,
    /// `None` if the node's version has no `/status`.
    status: Option<ClusterStatus>,
}

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let overview = overview(session).await?;
    session.out.show(&overview, |style| render(&overview, style))
}

/// The cluster as it is now; an error if no node answers.
pub(super) async fn overview(session: &Session) -> Result<Overview, Failure> {
    // The map of any node has the addresses of the others.
    let map = session.cluster.map().await?;
    Ok(look(&session.cluster).await.unwrap_or_else(|| sum_up(map, BTreeMap::new())))
}

/// Asks each node that is known once; `None` if no node answers.
pub(super) async fn look(cluster: &ClusterClient) -> Option<Overview> {
    let addresses = cluster.addresses();
    let answers = join_all(addresses.iter().map(|address| ask(cluster, address))).await;
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();
    let newest =
        answers.iter().map(|answer| &answer.map).max_by_key(|map| (map.leader.is_some(), map.term, map.index))?;
    let map = newest.clone();
    let by_node = answers.into_iter().filter_map(|answer| Some((who(&answer)?, answer)));
    Some(sum_up(map, by_node.collect()))
}

async fn ask(cluster: &ClusterClient, address: &str) -> Option<Answer> {
    let both = async { tokio::join!(cluster.map_at(address), cluster.status_at(address)) };
    let (map, status) = tokio::time::timeout(ANSWER_TIMEOUT, both).await.ok()?;
    Some(Answer { map: map.ok()?, status: status.ok() })
}

fn who(answer: &Answer) -> Option<NodeId> {
    answer.status.as_ref().map(|status| status.node)
}

/// Combines the map with the answers. The status of a database is the leader's, which knows best how far behind it is;
/// if the leader has none, it is that of the database's own node.
fn sum_up(map: ClusterMap, answers: BTreeMap<NodeId, Answer>) -> Overview {
    let told = |by: NodeId, of: NodeId| answers.get(&by)?.status.as_ref()?.nodes.get(&of);
    let ClusterMap { leader, reason, term, nodes, .. } = map;
    let managed = nodes.values().any(|node| node.db_port.is_some());
    let lines = nodes.into_values().map(|node| {
        let status = leader.and_then(|leader| told(leader, node.id)).or_else(|| told(node.id, node.id));
        let leads = leader == Some(node.id);
        let answers_here = answers.get(&node.id);
        let database = status.and_then(|status| status.database.clone());
        let note = status.and_then(|status| status.note.clone());
        let why = why(&node, leads, database.as_ref(), note, managed && status.is_some());
        Line {
            id: node.id,
            role: node.role,
            state: node.state,
            leads,
            answers: answers_here.is_some(),
            api_address: node.api_address(),
            database_address: node.db_port.map(|port| SocketAddr::new(node.ip, port.get())),
            database,
            term: answers_here.map(|answer| answer.map.term),
            why,
        }
    });
    let lines: Vec<Line> = lines.collect();
    // Nodes of an older version do not say who they are, so it is not known which ones answered.
    let silence = !answers.is_empty();
    let lines = lines.into_iter().map(|mut line| {
        if silence && !line.answers && line.why.is_none() {
            line.why = Some("does not answer this command, although the leader reaches it".into());
        }
        line
    });
    Overview { leader, reason, term, nodes: lines.collect() }
}

/// Why a node is not fit for its role. `managed`: the cluster has databases, and the status of this node is known.
fn why(
    node: &Node,
    leads: bool,
    database: Option<&NodeDatabase>,
    note: Option<String>,
    managed: bool,
) -> Option<String> {
    let not_up = || (node.state != NodeState::Up).then(|| node.reason.clone()).flatten();
    let unfit = || database?.unfit.clone();
    let idle = || {
        let waits = database.is_some_and(|database| database.role == DatabaseRole::Standby && !database.streaming);
        let why = if leads { "its database is being promoted" } else { "its database does not stream" };
        waits.then(|| why.into())
    };
    let none = || (managed && node.role.has_database() && database.is_none()).then(|| "it has no database".into());
    let listener = || {
        (node.role != node.upgrade_to)
            .then(|| format!("waits to be enrolled as a {}: qluster node enroll {}", node.upgrade_to, node.id))
    };
    not_up().or_else(unfit).or(note).or_else(idle).or_else(none).or_else(listener)
}

/// A sentence that says who leads.
pub(super) fn who_leads(map: &ClusterMap) -> String {
    sentence(map.leader, map.reason.as_deref(), map.term)
}

fn sentence(leader: Option<NodeId>, reason: Option<&str>, term: Term) -> String {
    match (leader, reason) {
        (Some(leader), _) => format!("Node {leader} leads in term {term}."),
        (None, Some(reason)) => format!("Nobody leads: {reason}."),
        (None, None) => "Nobody leads.".into(),
    }
}

/// The sentence and the table. If the terminal is too narrow for the reasons, they are below the table.
pub(super) fn render(overview: &Overview, style: Style) -> String {
    let Overview { leader, reason, term, nodes } = overview;
    let whole = |style| table(style, [&HEADER[..], &["WHY NOT FIT"]].concat(), nodes.iter().map(row_with_reason));
    let width = whole(Style { colour: false, ..style }).lines().map(|line| line.chars().count()).max();
    let lines = if width > style.width.map(usize::from) && style.width.is_some() {
        let reasons = nodes.iter().filter_map(|line| Some(format!("\nNode {}: {}", line.id, line.why.as_ref()?)));
        table(style, HEADER.to_vec(), nodes.iter().map(row)) + &reasons.collect::<String>()
    } else {
        whole(style)
    };
    format!("{}\n\n{lines}", sentence(*leader, reason.as_deref(), *term))
}

const HEADER: [&str; 8] = ["NODE", "ROLE", "STATE", "ADDRESS", "DATABASE", "LAG", "TL", "TERM"];

fn row(line: &Line) -> Vec<Cell> {
    let database = line.database.as_ref();
    let state = match (line.state, line.leads) {
        (NodeState::Up, true) => cell("leads", Tone::Good),
        (NodeState::Up, false) => plain("up"),
        (NodeState::Unreachable, _) => cell("unreachable", Tone::Caution),
        (NodeState::Down, _) => cell("down", Tone::Bad),
    };
    vec![
        plain(line.id),
        plain(line.role),
        state,
        plain(line.api_address),
        told(line.database_address, database),
        lag(database),
        optional(database.and_then(|database| database.timeline)),
        optional(line.term),
    ]
}

fn row_with_reason(line: &Line) -> Vec<Cell> {
    let mut cells = row(line);
    cells.push(line.why.as_deref().map_or_else(|| plain(""), |why| cell(why, Tone::Caution)));
    cells
}

/// The port of a database, and what the database does.
fn told(address: Option<SocketAddr>, database: Option<&NodeDatabase>) -> Cell {
    let port = address.map(|address| format!(":{} ", address.port())).unwrap_or_default();
    let Some(database) = database else { return optional(address.map(|_| port.trim_end().to_owned())) };
    let (does, tone) = match (database.role, database.streaming) {
        (DatabaseRole::Primary, _) => ("primary".into(), Tone::Good),
        (DatabaseRole::Standby, true) => ("streams".into(), Tone::Plain),
        (DatabaseRole::Standby, false) => ("standby".into(), Tone::Caution),
        (DatabaseRole::Starting, _) => ("starts".into(), Tone::Caution),
        (DatabaseRole::Stopped, _) => ("stopped".into(), Tone::Bad),
        (DatabaseRole::Absent, _) => ("absent".into(), Tone::Bad),
        (DatabaseRole::Rebuilding, _) => {
            (database.progress.map_or("rebuilds".into(), |percent| format!("rebuilds {percent} %")), Tone::Caution)
        }
    };
    cell(format!("{port}{does}"), tone)
}

fn lag(database: Option<&NodeDatabase>) -> Cell {
    match database {
        Some(NodeDatabase { role: DatabaseRole::Standby, lag: Some(lag), .. }) => plain(bytes(*lag)),
        Some(NodeDatabase { role: DatabaseRole::Standby, lag: None, .. }) => cell("unknown", Tone::Caution),
        _ => plain("-"),
    }
}

#[cfg(test)]
impl Line {
    /// A voter that is up, for tests.
    pub(super) fn example() -> Self {
        Self {
            id: NodeId(2),
            role: NodeRole::Voter,
            state: NodeState::Up,
            leads: false,
            answers: true,
            api_address: SocketAddr::from(([10, 0, 0, 2], 8080)),
            database_address: Some(SocketAddr::from(([10, 0, 0, 2], 5432))),
            database: None,
            term: Some(Term(2)),
            why: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(value: serde_json::Value) -> Node {
        let mut whole = json!({"id": 2, "ip": "10.0.0.2", "db-port": 5432, "api-port": 8080, "role": "voter",
            "upgrade-to": "voter", "state": "up", "reason": null});
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn database(value: serde_json::Value) -> NodeDatabase {
        let mut whole = json!({"role": "standby", "unfit": null, "lsn": "0/3000000", "replayed": null, "lag": 0,
            "wal-term": 2, "timeline": 2, "follows": 1, "streaming": true, "progress": null});
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_node_that_is_not_fit_says_why_the_gravest_reason_first() {
        let well = database(json!({}));
        let idle = database(json!({"streaming": false}));
        let full = database(json!({"unfit": "the disk is full", "streaming": false}));
        let away = json!({"state": "unreachable", "reason": "no answer for 2s"});
        let note = || Some("waits for a clone".to_owned());
        for (node, leads, database, note, expected) in [
            (node(json!({})), false, Some(&well), None, None),
            (node(json!({})), false, Some(&idle), None, Some("its database does not stream")),
            (node(json!({})), true, Some(&idle), None, Some("its database is being promoted")),
            (node(json!({})), false, Some(&idle), note(), Some("waits for a clone")),
            (node(json!({})), false, Some(&full), note(), Some("the disk is full")),
            (node(away), false, Some(&full), note(), Some("no answer for 2s")),
            (node(json!({})), false, None, None, Some("it has no database")),
            (node(json!({"role": "witness", "upgrade-to": "witness"})), false, None, None, None),
            (
                node(json!({"role": "listener"})),
                false,
                Some(&well),
                None,
                Some("waits to be enrolled as a voter: qluster node enroll 2"),
            ),
            (node(json!({"role": "listener", "upgrade-to": "listener"})), false, None, None, None),
        ] {
            assert_eq!(why(&node, leads, database, note, true).as_deref(), expected);
        }
        assert_eq!(why(&node(json!({})), false, None, None, false), None);
    }
}
