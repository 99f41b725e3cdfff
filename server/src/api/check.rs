//! The checks of load balancers: whether this node should get traffic of a kind. A pure function of what the node knows.
//! The checks have the names and the meaning of Patroni's, so that what is written for these works here.
//!
//! | check | met by |
//! |---|---|
//! | `/primary` | the leader, while its lease holds and its database lets clients in: never two nodes at once |
//! | `/replica` | a standby that may be read from; with `lag`, one whose lag is known and not larger |
//! | `/read-only` | a node that meets `/primary` or `/replica` |
//! | `/health` | a database that runs |
//! | `/liveness` | a node whose consensus runs, or is starting; if it is not met, a restart may help |
//! | `/readiness` | the leader, or a standby that streams from it; without a database, a node that knows the leader |
//!
//! `/liveness` needs no judgement: see [`Context::alive`](crate::api::context::Context::alive).

use qluster_consensus::model::{Bytes, DatabaseRole, Leader, Node, NodeDatabase, NodeState, NodeStatus};

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it takes writes.
    Primary,
    /// Whether it takes reads and nothing else.
    Replica,
    /// Whether it takes reads.
    ReadOnly,
    /// Whether its database runs.
    Health,
    /// Whether the node is a working part of its cluster.
    Readiness,
}

/// What a check goes by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The leader, or why there is none.
    pub leader: Result<Leader, String>,
    /// This node as a member of the cluster; None if it is not a member.
    pub node: Option<Node>,
    /// The status of this node.
    pub status: NodeStatus,
    /// Whether its database is a primary that lets clients in.
    pub admits: bool,
}

/// Whether a check is met, for a standby within `lag`.
///
/// # Errors
///
/// Why the check is not met, in a sentence.
pub fn judge(check: Check, lag: Option<Bytes>, seen: &Seen) -> Result<(), String> {
    match check {
        Check::Primary => primary(seen),
        Check::Replica => replica(seen).and_then(|()| within(lag, &seen.status)),
        Check::ReadOnly => match &seen.status.database {
            Some(database) if database.role == DatabaseRole::Primary => primary(seen),
            _ => replica(seen).and_then(|()| within(lag, &seen.status)),
        },
        Check::Health => runs(seen).map(drop),
        Check::Readiness => ready(lag, seen),
    }
}

fn primary(seen: &Seen) -> Result<(), String> {
    let leader = seen.leader.as_ref().map_err(Clone::clone)?;
    if leader.id != seen.status.id {
        return Err(format!("this node does not lead, node {} does", leader.id));
    }
    match runs(seen)?.role {
        DatabaseRole::Primary if seen.admits => Ok(()),
        DatabaseRole::Primary => Err("this node leads, but its database lets no clients in yet".into()),
        role => Err(format!("this node leads, but its database is {role}")),
    }
}

fn replica(seen: &Seen) -> Result<(), String> {
    let database = runs(seen)?;
    if database.role != DatabaseRole::Standby {
        return Err(format!("the database of this node is {}, not a standby", database.role));
    }
    let node = seen.node.as_ref().ok_or("this node is not part of the cluster")?;
    if !node.role.has_database() {
        return Err(format!("this node is a {}: it is no replica before it is enrolled", node.role));
    }
    if node.state == NodeState::Down {
        let reason = node.reason.as_deref().unwrap_or("it has problems");
        return Err(format!("this node was declared down: {reason}"));
    }
    match &database.unfit {
        // Whatever keeps it from leading does not keep it from following.
        Some(unfit) if !database.streaming => Err(format!("the database of this node is not fit: {unfit}")),
        _ => Ok(()),
    }
}

fn ready(lag: Option<Bytes>, seen: &Seen) -> Result<(), String> {
    let leader = seen.leader.as_ref().map_err(Clone::clone)?;
    match &seen.status.database {
        None => Ok(()),
        Some(_) if leader.id == seen.status.id => primary(seen),
        Some(database) => {
            replica(seen)?;
            if !(database.streaming && database.follows == Some(leader.id)) {
                return Err(format!("the database of this node does not stream from node {}, which leads", leader.id));
            }
            within(lag, &seen.status)
        }
    }
}

/// The database of this node, if it runs.
fn runs(seen: &Seen) -> Result<&NodeDatabase, String> {
    let database = seen.status.database.as_ref().ok_or("this node has no database")?;
    if database.role.runs() {
        return Ok(database);
    }
    let why = database.unfit.as_ref().map(|unfit| format!(": {unfit}")).unwrap_or_default();
    Err(format!("the database of this node is {}{why}", database.role))
}

fn within(limit: Option<Bytes>, status: &NodeStatus) -> Result<(), String> {
    let Some(limit) = limit else { return Ok(()) };
    match status.database.as_ref().and_then(|database| database.replay_lag) {
        Some(lag) if lag <= limit.0 => Ok(()),
        Some(lag) => Err(format!("this node is {lag} bytes behind, more than {limit}")),
        None => Err("it is not known how far this node is behind".into()),
    }
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::{LogIndex, NodeId, NodeRole, Port, Term};

    use super::*;
    use Check::*;

    const ALL: [Check; 5] = [Primary, Replica, ReadOnly, Health, Readiness];

    fn leader(id: u64) -> Leader {
        let (ip, port) = ([127, 0, 0, 1].into(), Port::new(8080));
        Leader { id: NodeId(id), term: Term(7), ip, api_port: port.unwrap(), db_port: port }
    }

    /// Node 2, a standby that streams from node 1.
    fn standby() -> Seen {
        let (id, api_port, ip) = (NodeId(2), Port::new(8080).unwrap(), [127, 0, 0, 1].into());
        let (role, state) = (NodeRole::Voter, NodeState::Up);
        Seen {
            leader: Ok(leader(1)),
            node: Some(Node { id, ip, db_port: None, api_port, role, upgrade_to: role, state, reason: None }),
            status: NodeStatus {
                id,
                database: Some(NodeDatabase {
                    role: DatabaseRole::Standby,
                    unfit: None,
                    lsn: None,
                    replayed: None,
                    lag: Some(0),
                    replay_lag: Some(1000),
                    wal_term: None,
                    timeline: None,
                    follows: Some(NodeId(1)),
                    streaming: true,
                    progress: None,
                }),
                applied_index: LogIndex(1),
                sees: Default::default(),
                note: None,
            },
            admits: false,
        }
    }

    fn with(change: impl FnOnce(&mut Seen)) -> Seen {
        let mut seen = standby();
        change(&mut seen);
        seen
    }

    fn database(seen: &mut Seen) -> &mut NodeDatabase {
        seen.status.database.as_mut().unwrap()
    }

    fn leads(role: DatabaseRole, admits: bool) -> Seen {
        with(|seen| {
            seen.leader = Ok(leader(2));
            seen.admits = admits;
            let database = database(seen);
            (database.role, database.streaming, database.follows) = (role, false, None);
        })
    }

    #[test]
    fn each_state_meets_the_checks_that_it_should() {
        use DatabaseRole::{Rebuilding, Standby, Starting};
        let nobody = || Err("an election is under way".to_owned());
        let cases: [(&str, Seen, &[Check]); 13] = [
            ("a standby", standby(), &[Replica, ReadOnly, Health, Readiness]),
            ("a primary", leads(DatabaseRole::Primary, true), &[Primary, ReadOnly, Health, Readiness]),
            ("a primary behind closed doors", leads(DatabaseRole::Primary, false), &[Health]),
            ("a leader before its promotion", leads(Standby, false), &[Replica, ReadOnly, Health]),
            ("a leader whose database starts", leads(Starting, false), &[]),
            (
                "a primary without a lease",
                with(|seen| {
                    seen.leader = nobody();
                    database(seen).role = DatabaseRole::Primary;
                    seen.admits = true;
                }),
                &[Health],
            ),
            (
                "a deposed primary",
                with(|seen| {
                    database(seen).role = DatabaseRole::Primary;
                    seen.admits = true;
                }),
                &[Health],
            ),
            ("a standby without a leader", with(|seen| seen.leader = nobody()), &[Replica, ReadOnly, Health]),
            (
                "a standby that does not stream",
                with(|seen| database(seen).streaming = false),
                &[Replica, ReadOnly, Health],
            ),
            (
                "a standby that is to be rewound",
                with(|seen| {
                    database(seen).streaming = false;
                    database(seen).unfit = Some("its database has to be rewound".into());
                }),
                &[Health],
            ),
            (
                "a standby that was declared down",
                with(|seen| seen.node.as_mut().unwrap().state = NodeState::Down),
                &[Health],
            ),
            ("a clone under way", with(|seen| database(seen).role = Rebuilding), &[]),
            ("a witness", with(|seen| seen.status.database = None), &[Readiness]),
        ];
        for (what, seen, expected) in cases {
            let met: Vec<_> = ALL.into_iter().filter(|check| judge(*check, None, &seen).is_ok()).collect();
            assert_eq!(met, expected, "{what}");
        }
    }

    #[test]
    fn the_limit_of_the_lag_is_kept_by_standbys_alone_and_an_unknown_lag_is_beyond_it() {
        let limited = |check, limit, seen: &Seen| judge(check, Some(Bytes(limit)), seen).is_ok();
        let unknown = with(|seen| database(seen).replay_lag = None);
        for check in [Replica, ReadOnly, Readiness] {
            assert!(limited(check, 1000, &standby()) && !limited(check, 999, &standby()), "{check:?}");
            assert!(!limited(check, u64::MAX, &unknown), "{check:?}");
        }
        let primary = leads(DatabaseRole::Primary, true);
        assert!(limited(ReadOnly, 0, &primary) && limited(Readiness, 0, &primary) && !limited(Replica, 0, &primary));
    }

    #[test]
    fn whoever_is_not_met_says_why() {
        let reason = |check, seen: &Seen| judge(check, Some(Bytes(999)), seen).unwrap_err();
        assert_eq!(reason(Primary, &standby()), "this node does not lead, node 1 does");
        assert_eq!(reason(Replica, &standby()), "this node is 1000 bytes behind, more than 999B");
        let down = with(|seen| {
            let node = seen.node.as_mut().unwrap();
            (node.state, node.reason) = (NodeState::Down, Some("disk".into()));
        });
        assert_eq!(reason(ReadOnly, &down), "this node was declared down: disk");
    }
}
