//! The commands `leader` and `switchover`.

use std::net::SocketAddr;

use qluster_client::model::{DatabaseRole, Leader, NodeId, NodeRole, NodeState};

use super::status::{Line, Overview, overview};
use crate::confirm::{confirm, confirm_by_word};
use crate::failure::Failure;
use crate::output::{Style, bytes, optional, plain, table};
use crate::session::{Session, node};

pub(super) async fn show(session: &Session) -> Result<(), Failure> {
    let leader = session.cluster.leader().await?;
    session.out.show(&leader, |style| render(&leader, style))
}

fn render(leader: &Leader, style: Style) -> String {
    let Leader { id, term, ip, api_port, db_port } = leader;
    let at = |port: qluster_client::model::Port| SocketAddr::new(*ip, port.get());
    let row = [plain(id), plain(term), plain(at(*api_port)), optional(db_port.map(at))];
    table(style, ["NODE", "TERM", "API", "DATABASE"], [row])
}

/// Hands the leadership over to `target`, or to the fit voter that lags least.
pub(super) async fn switch_over(session: &Session, target: Option<NodeId>) -> Result<(), Failure> {
    let mut overview = overview(session).await?;
    if overview.leader.is_none() && tokio::time::timeout(ELECTION_WAIT, session.cluster.leader()).await.is_ok() {
        overview = super::status::overview(session).await?;
    }
    let Some(leader) = overview.leader else {
        let reason = overview.reason.clone().unwrap_or_else(|| "an election is under way".into());
        return Err(Failure::NobodyLeads {
            message: format!("nobody leads, so there is nothing to hand over: {reason}"),
            hint: LOST,
        });
    };
    let target = match target {
        Some(target) => known(&overview, target)?,
        None => best(&overview)?,
    };
    if leader == target.id {
        return Err(Failure::refused(format!("node {leader} already leads"), "qluster status shows the other nodes"));
    }
    let mut warning = format!(
        "Node {leader} hands over to node {}{}. Clients of the primary are disconnected, and writes wait for a moment.",
        target.id,
        behind(target)
    );
    if let Some(why) = &target.why {
        warning.push_str(&format!("\nNode {} may not be fit: {why}.", target.id));
    }
    confirm(session.yes, &warning).await?;
    let leader = session.cluster.switch_over(target.id).await?;
    session.out.show(&leader, |style| render(&leader, style))
}

/// How long to wait for an election. Most elections are over by then.
const ELECTION_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

const LOST: &str = "if the nodes that may have the newest commits are gone for good: qluster switchover NODE \
                    --accept-data-loss";

/// Makes `target` the leader even if it lacks acknowledged commits.
pub(super) async fn switch_over_with_loss(session: &Session, target: NodeId) -> Result<(), Failure> {
    let overview = overview(session).await?;
    let target = known(&overview, target)?.id;
    let missing: Vec<_> = overview
        .nodes
        .iter()
        .filter(|line| line.id != target && line.role.votes() && line.state != NodeState::Up)
        .map(|line| line.id.to_string())
        .collect();
    let missing = match missing[..] {
        [] => String::new(),
        _ => format!(" Not up now: node {}.", missing.join(", ")),
    };
    let warning = format!(
        "Node {target} becomes the leader although it may lack commits that were acknowledged to clients. Commits that \
         only other nodes have are LOST, and the databases of those nodes are rewound or cloned when they come \
         back.{missing}"
    );
    confirm_by_word(session.yes, &warning, "lose data").await?;
    let leader = session.cluster.switch_over_with_loss(target).await?;
    session.out.show(&leader, |style| render(&leader, style))
}

fn known(overview: &Overview, id: NodeId) -> Result<&Line, Failure> {
    overview.nodes.iter().find(|line| line.id == id).ok_or_else(|| {
        let ids: Vec<_> = overview.nodes.iter().map(|line| line.id.to_string()).collect();
        Failure::refused(format!("node {id} is not part of the cluster"), format!("the nodes are: {}", ids.join(", ")))
    })
}

/// The voter that is fit and lags least.
fn best(overview: &Overview) -> Result<&Line, Failure> {
    let fit = |line: &&Line| {
        let voter = line.role == NodeRole::Voter && line.state == NodeState::Up && !line.leads;
        voter && line.why.is_none()
    };
    let lag = |line: &&Line| line.database.as_ref().map_or(0, |database| database.lag.unwrap_or(u64::MAX));
    overview.nodes.iter().filter(fit).min_by_key(|line| (lag(line), line.id)).ok_or_else(|| {
        Failure::refused(
            "no other voter is fit to lead",
            "qluster status shows why; to try a node all the same, name it",
        )
    })
}

fn behind(line: &Line) -> String {
    match line.database.as_ref().filter(|database| database.role == DatabaseRole::Standby) {
        Some(database) => database.lag.map_or_else(String::new, |lag| format!(", which lags by {}", bytes(lag))),
        None => String::new(),
    }
}

/// The node and the address of the leader's database, or of that of node `id`.
pub(super) async fn database(session: &Session, id: Option<NodeId>) -> Result<(NodeId, SocketAddr), Failure> {
    let (id, address) = match id {
        Some(id) => {
            let map = session.cluster.map().await?;
            let node = node(&map, id)?;
            (id, node.db_port.map(|port| SocketAddr::new(node.ip, port.get())))
        }
        None => {
            let leader = session.cluster.leader().await?;
            (leader.id, leader.db_port.map(|port| SocketAddr::new(leader.ip, port.get())))
        }
    };
    let none = || Failure::refused(format!("node {id} has no database"), "qluster status shows which nodes have one");
    Ok((id, address.ok_or_else(none)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The best of these nodes: role, state, lag, why not fit. The first one leads.
    fn best_of(nodes: &[(&str, &str, u64, Option<&str>)]) -> Option<u64> {
        let lines = nodes.iter().enumerate().map(|(number, (role, state, lag, why))| {
            let database = json!({"role": "standby", "unfit": null, "lsn": null, "replayed": null, "lag": lag,
                "wal-term": 2, "timeline": 2, "follows": 1, "streaming": true, "progress": null});
            let database = (*role != "witness").then(|| serde_json::from_value(database).unwrap());
            Line {
                id: NodeId(number as u64 + 1),
                role: serde_json::from_value(json!(role)).unwrap(),
                state: serde_json::from_value(json!(state)).unwrap(),
                leads: number == 0,
                database,
                why: why.map(str::to_owned),
                ..Line::example()
            }
        });
        let nodes = lines.collect();
        let overview = Overview { leader: Some(NodeId(1)), reason: None, term: qluster_client::model::Term(2), nodes };
        best(&overview).ok().map(|line| line.id.0)
    }

    #[test]
    fn the_fit_voter_that_lags_least_is_the_best_to_lead() {
        let leads = ("voter", "up", 0, None);
        for (others, expected) in [
            (vec![("voter", "up", 900, None), ("voter", "up", 100, None)], Some(3)),
            (vec![("voter", "up", 100, None), ("voter", "up", 100, None)], Some(2)),
            (vec![("voter", "up", 0, Some("its disk is full")), ("voter", "up", 100, None)], Some(3)),
            (vec![("voter", "unreachable", 0, None), ("voter", "down", 0, None)], None),
            (vec![("witness", "up", 0, None), ("replica", "up", 0, None)], None),
            (vec![], None),
        ] {
            let nodes: Vec<_> = std::iter::once(leads).chain(others).collect();
            assert_eq!(best_of(&nodes), expected, "{nodes:?}");
        }
    }
}
