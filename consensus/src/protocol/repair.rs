//! Decides how a database follows the primary: it streams at once, or is rewound, or cloned. Pure functions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::env::sabotage::{self, Sabotage};
use crate::model::{Lsn, Node, NodeId};
use crate::protocol::database::{DatabaseError, DatabaseRole};

/// What a database that cannot simply stream needs. It is durable before the first byte of the database changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repair {
    /// It is rewound to where it left the primary's history.
    Rewind,
    /// It is cloned from the primary.
    Clone,
}

impl std::fmt::Display for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Repair::Rewind => "rewind",
            Repair::Clone => "clone",
        })
    }
}

/// What is known of a database that is to follow a primary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follower {
    pub(crate) role: DatabaseRole,
    /// The repair that is noted.
    pub(crate) repair: Option<Repair>,
    /// Whether it was told already to follow this very primary, in this term.
    pub(crate) follows: bool,
    /// Whether the primary that it follows no longer has the WAL that it needs.
    pub(crate) lacks_wal: bool,
    /// Whether its WAL counts for nothing: see [`is_astray`].
    pub(crate) astray: bool,
}

/// What comes next for a database that is to follow a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: it follows.
    Wait,
    /// Fence it, and compare its WAL with the primary's history: see [`compared`].
    Compare,
    /// Repair it, for this reason, if the repair was not noted before.
    Repair(Repair, Option<Why>),
}

/// Why a database needs a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has no data.
    Absent,
    /// The primary no longer has the WAL that it needs.
    LacksWal,
    /// Somebody else than qluster promoted it.
    Strayed,
}

/// Decides what comes next for a database that is to follow a primary.
///
/// A repair that was noted is done first, whatever the database looks like: it may have been interrupted half-way. A
/// database without data needs a clone, whatever was noted.
pub(crate) fn next(known: &Follower) -> Next {
    match *known {
        Follower { role: DatabaseRole::Absent, repair: Some(Repair::Clone), .. } => Next::Repair(Repair::Clone, None),
        Follower { role: DatabaseRole::Absent, .. } => Next::Repair(Repair::Clone, Some(Why::Absent)),
        Follower { repair: Some(repair), .. } => Next::Repair(repair, None),
        Follower { follows: true, lacks_wal: true, .. } => Next::Repair(Repair::Clone, Some(Why::LacksWal)),
        Follower { astray: true, .. } => Next::Repair(Repair::Rewind, Some(Why::Strayed)),
        Follower { follows: true, .. } => Next::Wait,
        Follower { .. } => Next::Compare,
    }
}

/// What the comparison of a fenced database's WAL with the primary's history leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Its WAL is a prefix of the primary's: it streams.
    Stream,
    /// The two part: it streams all the same. Only a sabotage decides so.
    StreamDiverged,
    /// The two part here: it is rewound.
    Rewind(Lsn),
    /// Somebody else than qluster promoted it, which its fence has shown: it is rewound.
    RewindStrayed,
}

/// Decides by the comparison: `parted` is where the WAL leaves the primary's history, if it does.
pub(crate) fn compared(parted: Result<(), Lsn>, astray: bool) -> Compared {
    match parted {
        _ if astray => Compared::RewindStrayed,
        Ok(()) => Compared::Stream,
        Err(_) if sabotage::is(Sabotage::FollowDiverged) => Compared::StreamDiverged,
        Err(fork) => Compared::Rewind(fork),
    }
}

/// A way to make a database follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It was to stream.
    Stream,
    /// It was to be rewound.
    Rewind,
}

/// The repair that comes next after a try failed; None if the same is to be tried again.
///
/// Only a failure that no further try can mend leads on. What passes, such as a primary that is away, is not worth a
/// clone.
pub(crate) fn after_failure(tried: Tried, error: &DatabaseError) -> Option<Repair> {
    match (error, tried) {
        (DatabaseError::Hopeless { .. }, Tried::Stream) => Some(Repair::Rewind),
        (DatabaseError::Hopeless { .. }, Tried::Rewind) => Some(Repair::Clone),
        (DatabaseError::Unfit { .. } | DatabaseError::Failed { .. }, _) => None,
    }
}

/// Whether the database of node `me` counts for nothing, since somebody else than qluster promoted it (`strayed`).
///
/// What it wrote then looks like WAL of the term before, and would outdo what that term's primary has acknowledged. If no
/// other of the `voters` has a database, nobody can have more, and it counts.
pub(crate) fn is_astray(
    strayed: bool,
    me: NodeId,
    voters: &[BTreeSet<NodeId>],
    nodes: &BTreeMap<NodeId, Node>,
) -> bool {
    let holds = |id: &NodeId| nodes.get(id).is_none_or(|node| node.role.has_database());
    let others = voters.iter().flatten().any(|id| *id != me && holds(id));
    strayed && others && !sabotage::is(Sabotage::CountStrayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeRole, NodeState, Port};

    /// A fenced standby that follows nobody.
    fn follower() -> Follower {
        Follower { role: DatabaseRole::Standby, repair: None, follows: false, lacks_wal: false, astray: false }
    }

    #[test]
    fn a_database_waits_is_compared_or_is_repaired() {
        let follows = Follower { follows: true, ..follower() };
        let (rewind, clone) = (Some(Repair::Rewind), Some(Repair::Clone));
        let absent = Follower { role: DatabaseRole::Absent, ..follower() };
        for (case, known, expected) in [
            ("it follows nobody", follower(), Next::Compare),
            ("it follows another primary, or term", Follower { lacks_wal: true, ..follower() }, Next::Compare),
            ("it follows", follows, Next::Wait),
            ("it lacks WAL", Follower { lacks_wal: true, ..follows }, Next::Repair(Repair::Clone, Some(Why::LacksWal))),
            ("it strayed", Follower { astray: true, ..follower() }, Next::Repair(Repair::Rewind, Some(Why::Strayed))),
            (
                "it strayed while it followed",
                Follower { astray: true, ..follows },
                Next::Repair(Repair::Rewind, Some(Why::Strayed)),
            ),
            (
                "it strayed, and lacks WAL, too",
                Follower { astray: true, lacks_wal: true, ..follows },
                Next::Repair(Repair::Clone, Some(Why::LacksWal)),
            ),
            ("a rewind is noted", Follower { repair: rewind, ..follower() }, Next::Repair(Repair::Rewind, None)),
            (
                "a rewind was begun, and it streams",
                Follower { repair: rewind, lacks_wal: true, ..follows },
                Next::Repair(Repair::Rewind, None),
            ),
            (
                "a clone is noted, and it strayed",
                Follower { repair: clone, astray: true, ..follower() },
                Next::Repair(Repair::Clone, None),
            ),
            ("there is no database", absent, Next::Repair(Repair::Clone, Some(Why::Absent))),
            (
                "there is none to rewind",
                Follower { repair: rewind, ..absent },
                Next::Repair(Repair::Clone, Some(Why::Absent)),
            ),
            ("there is none yet", Follower { repair: clone, ..absent }, Next::Repair(Repair::Clone, None)),
        ] {
            assert_eq!(next(&known), expected, "{case}");
        }
    }

    #[test]
    fn a_prefix_streams_and_a_fork_or_stray_wal_is_rewound() {
        for (case, parted, astray, expected) in [
            ("a prefix", Ok(()), false, Compared::Stream),
            ("a fork", Err(Lsn(9)), false, Compared::Rewind(Lsn(9))),
            ("looks like a prefix, and strayed", Ok(()), true, Compared::RewindStrayed),
            ("a fork, and strayed", Err(Lsn(9)), true, Compared::RewindStrayed),
        ] {
            assert_eq!(compared(parted, astray), expected, "{case}");
        }
    }

    #[test]
    fn only_what_no_further_try_can_mend_leads_to_the_next_repair() {
        let (attempted, reason) = (|| "rewind it".to_owned(), || "for a reason".to_owned());
        let hopeless = DatabaseError::Hopeless { attempted: attempted(), reason: reason() };
        let unfit = DatabaseError::Unfit { attempted: attempted(), reason: reason() };
        let failed = DatabaseError::Failed { attempted: attempted(), source: reason().into() };
        for (tried, error, expected) in [
            (Tried::Stream, &hopeless, Some(Repair::Rewind)),
            (Tried::Rewind, &hopeless, Some(Repair::Clone)),
            (Tried::Stream, &unfit, None),
            (Tried::Rewind, &unfit, None),
            (Tried::Stream, &failed, None),
            (Tried::Rewind, &failed, None),
        ] {
            assert_eq!(after_failure(tried, error), expected, "{tried:?} {error:?}");
        }
    }

    #[test]
    fn a_stray_database_counts_only_if_no_other_voter_has_one() {
        let node = |id, role| {
            let (ip, api_port, state) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap(), NodeState::Up);
            let (id, db_port, reason) = (NodeId(id), None, None);
            (id, Node { id, ip, db_port, api_port, role, upgrade_to: role, state, reason })
        };
        let nodes = [node(1, NodeRole::Voter), node(2, NodeRole::Voter), node(9, NodeRole::Witness)].into();
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        for (case, strayed, voters, expected) in [
            ("it did not stray", false, vec![set(&[1, 2])], false),
            ("another has a database", true, vec![set(&[1, 2])], true),
            ("in either set", true, vec![set(&[1]), set(&[1, 2])], true),
            ("it is alone", true, vec![set(&[1])], false),
            ("beside a witness", true, vec![set(&[1, 9])], false),
            ("a voter that is not known may have one", true, vec![set(&[1, 7])], true),
        ] {
            assert_eq!(is_astray(strayed, NodeId(1), &voters, &nodes), expected, "{case}");
        }
    }
}
