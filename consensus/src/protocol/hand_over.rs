//! To whom leadership is handed: pure functions.

use crate::model::{Node, NodeId, NodeRole, NodeState, Term, WalPosition};
use crate::protocol::database::{DatabaseRole, DatabaseStatus};

/// A node that could take over, as its newest report has it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) node: &'a Node,
    /// How its database is; None if it has none.
    pub(crate) database: Option<DatabaseStatus>,
    /// How far its database is.
    pub(crate) position: Option<WalPosition>,
}

/// The node that the leader `me` hands over to: of the other voters that are up and fit, the one with the furthest
/// database. If `streams_in` is given, only one that streams from `me` in that term counts: another would find the database
/// of `me` further than its own, and hand back.
pub(crate) fn best_target<'a>(
    me: NodeId,
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    streams_in: Option<Term>,
) -> Option<NodeId> {
    let is_fit = |candidate: &Candidate<'_>| {
        let Candidate { node, database, .. } = candidate;
        let standby = |status: &DatabaseStatus| status.role == DatabaseRole::Standby && status.unfit.is_none();
        let streams = |term| database.as_ref().is_some_and(|status| status.streams_from(me, term));
        node.id != me
            && node.role == NodeRole::Voter
            && node.votes()
            && database.as_ref().is_none_or(standby)
            && streams_in.is_none_or(streams)
    };
    let fit = candidates.into_iter().filter(is_fit);
    fit.map(|candidate| (candidate.position, candidate.node.id)).max().map(|(_, node)| node)
}

/// What a node that an operator wants to lead has answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer<'a> {
    /// Nothing.
    None,
    /// How its database is, if it has one.
    Database(Option<&'a DatabaseStatus>),
}

/// Why `node` cannot be made the leader by an operator; None if it can. In a cluster that manages `databases`, it has to
/// have one that streams.
pub(crate) fn unfit(node: &Node, answer: &Answer<'_>, databases: bool) -> Option<String> {
    let id = node.id;
    if node.role != NodeRole::Voter {
        return Some(format!("node {id} is a {}, which never leads", node.role));
    }
    if node.state == NodeState::Down {
        return Some(format!("node {id} was declared down: {}", node.reason.as_deref().unwrap_or("no reason given")));
    }
    let Answer::Database(database) = answer else { return Some(format!("node {id} does not answer")) };
    if !databases {
        return None;
    }
    let Some(status) = database else { return Some(format!("node {id} has no database")) };
    if let Some(reason) = &status.unfit {
        return Some(format!("the database of node {id} is not fit: {reason}"));
    }
    if status.role != DatabaseRole::Standby {
        return Some(format!("the database of node {id} is {}", status.role));
    }
    (!status.streaming).then(|| format!("the database of node {id} does not stream"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Port};

    const ME: NodeId = NodeId(1);

    fn node(id: u64, role: NodeRole, state: NodeState) -> Node {
        let (ip, api_port) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap());
        let reason = (state == NodeState::Down).then(|| "its disk is full".to_owned());
        Node { id: NodeId(id), ip, db_port: None, api_port, role, upgrade_to: role, state, reason }
    }

    fn voter(id: u64) -> Node {
        node(id, NodeRole::Voter, NodeState::Up)
    }

    /// A standby that streams from this node in term 4.
    fn streams() -> DatabaseStatus {
        let follows = Some((ME, Term(4)));
        DatabaseStatus { follows, streaming: true, ..DatabaseStatus::unknown(DatabaseRole::Standby) }
    }

    #[test]
    fn the_furthest_of_those_that_are_fit_takes_over() {
        let at = |lsn| Some(WalPosition { term: Term(4), lsn: Lsn(lsn) });
        let two = voter(2);
        let first = || (streams(), at(10));
        let full = || DatabaseStatus { unfit: Some("its disk is full".into()), ..streams() };
        let (down, witness, away) = (
            node(3, NodeRole::Voter, NodeState::Down),
            node(3, NodeRole::Witness, NodeState::Up),
            node(3, NodeRole::Voter, NodeState::Unreachable),
        );
        for (case, third, (database, position), streams_in, expected) in [
            ("the third is further", voter(3), (streams(), at(11)), None, Some(3)),
            ("it is behind", voter(3), (streams(), at(9)), None, Some(2)),
            ("both are as far", voter(3), (streams(), at(10)), None, Some(3)),
            ("it is not fit", voter(3), (full(), at(11)), None, Some(2)),
            ("it is a primary", voter(3), (DatabaseStatus::unknown(DatabaseRole::Primary), at(11)), None, Some(2)),
            ("it is a witness", witness, (streams(), at(11)), None, Some(2)),
            ("it is down", down, (streams(), at(11)), None, Some(2)),
            ("the leader does not reach it, and it reports", away, (streams(), at(11)), None, Some(3)),
            ("it does not stream", voter(3), (DatabaseStatus { streaming: false, ..streams() }, at(11)), None, Some(3)),
            (
                "it does not stream, and has to",
                voter(3),
                (DatabaseStatus { streaming: false, ..streams() }, at(11)),
                Some(4),
                Some(2),
            ),
            ("both stream from an earlier term", voter(3), (streams(), at(11)), Some(5), None),
            ("it is this node", voter(1), (streams(), at(11)), None, Some(2)),
        ] {
            let third = Candidate { node: &third, database: Some(database), position };
            let (database, position) = first();
            let second = Candidate { node: &two, database: Some(database), position };
            let target = best_target(ME, [second, third], streams_in.map(Term));
            assert_eq!(target, expected.map(NodeId), "{case}");
        }
        // A cluster without databases.
        let plain = Candidate { node: &two, database: None, position: None };
        assert_eq!(best_target(ME, [plain], None), Some(NodeId(2)));
        assert_eq!(best_target(ME, [], None), None);
    }

    #[test]
    fn why_a_node_cannot_be_made_the_leader_is_told() {
        let replica = node(2, NodeRole::Replica, NodeState::Up);
        let down = node(2, NodeRole::Voter, NodeState::Down);
        let status = streams();
        let full = DatabaseStatus { unfit: Some("its disk is full".into()), ..streams() };
        let primary = DatabaseStatus::unknown(DatabaseRole::Primary);
        let alone = DatabaseStatus { streaming: false, ..streams() };
        let database = |status| Answer::Database(Some(status));
        for (node, answer, databases, expected) in [
            (voter(2), database(&status), true, None),
            (replica, database(&status), true, Some("node 2 is a replica, which never leads")),
            (down, database(&status), true, Some("node 2 was declared down: its disk is full")),
            (voter(2), Answer::None, true, Some("node 2 does not answer")),
            (voter(2), Answer::None, false, Some("node 2 does not answer")),
            (voter(2), Answer::Database(None), false, None),
            (voter(2), Answer::Database(None), true, Some("node 2 has no database")),
            (voter(2), database(&full), true, Some("the database of node 2 is not fit: its disk is full")),
            (voter(2), database(&primary), true, Some("the database of node 2 is a primary")),
            (voter(2), database(&alone), true, Some("the database of node 2 does not stream")),
        ] {
            assert_eq!(unfit(&node, &answer, databases).as_deref(), expected, "{node:?} {answer:?}");
        }
    }
}
