//! What the supervisor of a node's database has to do, decided from what is known: a pure function.

use crate::env::clock::Instant;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Node, NodeId, Term, WalHistory};
use crate::protocol::database::{DatabaseRole, Primary};
use crate::protocol::state::{Lead, Promoted};

/// What is known.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) me: NodeId,
    pub(crate) now: Instant,
    /// Until when a leader that has just restarted may still prove its lease.
    pub(crate) grace: Instant,
    pub(crate) removed: bool,
    pub(crate) term: Term,
    /// Whether this node is part of the cluster, as far as it has applied its log.
    pub(crate) member: bool,
    /// Whether this node leads that term, as Raft sees it.
    pub(crate) leading: bool,
    /// Whether this node led before it restarted, and has voted for no other since.
    pub(crate) resumes: bool,
    /// When the database has to be fenced: some time before the lease ends.
    pub(crate) fence_at: Option<Instant>,
    pub(crate) lead: Option<Lead>,
    pub(crate) promoted: Option<Promoted>,
    /// The node of that primary; None if it is no member.
    pub(crate) primary: Option<Node>,
    pub(crate) promise: Term,
    /// The term of the newest entry that is applied here.
    pub(crate) applied: Term,
    /// What this node's database is; None if it has none.
    pub(crate) database: Option<DatabaseRole>,
    /// Whether somebody else has promoted it.
    pub(crate) strayed: bool,
    /// Whether its promotion was begun and it was not fenced since: it may take writes before it shows.
    pub(crate) may_serve: bool,
}

/// What the supervisor has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Nothing: all is as it should be, or it is not known yet how it should be.
    Wait,
    /// Take up this term, in which this node was elected.
    TakeLead(Term),
    /// Be the primary of the term.
    Lead(Term),
    /// Stop serving as the primary.
    Demote,
    /// Follow this primary, which has this WAL history.
    Follow(Primary, WalHistory),
    /// Stop: this node was removed from the cluster.
    Stop,
}

/// Decides what there is to do.
pub(crate) fn plan(known: &Situation) -> Task {
    let serves = known.may_serve || known.database == Some(DatabaseRole::Primary);
    if known.removed {
        return if known.database.is_some() { Task::Stop } else { Task::Wait };
    }
    if known.strayed && known.database == Some(DatabaseRole::Primary) {
        return Task::Demote;
    }
    if known.leading && known.member {
        // Without a lease, it may have led before it restarted: its heartbeats are under way, and until then its peers'
        // grants hold.
        let over = known.fence_at.map_or(known.now >= known.grace, |fence_at| known.now >= fence_at);
        let spared = known.fence_at.is_none() && sabotage::is(Sabotage::ResumeAfterAnother);
        if serves && over && !spared && !sabotage::is(Sabotage::NeverDemote) {
            return Task::Demote;
        }
        if known.lead != Some(Lead { node: known.me, term: known.term }) && !sabotage::is(Sabotage::PromoteBeforeLead) {
            // Once an entry of this term is applied, it is known who led last and who is a member.
            return if known.applied == known.term { Task::TakeLead(known.term) } else { Task::Wait };
        }
        return match known.fence_at {
            Some(fence_at) if known.now < fence_at && known.promise <= known.term => Task::Lead(known.term),
            Some(_) if serves && !over && !sabotage::is(Sabotage::NeverDemote) => Task::Demote,
            _ => Task::Wait,
        };
    }
    let bent = [Sabotage::NeverDemote, Sabotage::PromiseAsPrimary, Sabotage::ResumeAfterAnother];
    if serves && !bent.into_iter().any(sabotage::is) {
        // Its peers' grants to it hold until it is elected again.
        return if known.resumes && known.now < known.grace { Task::Wait } else { Task::Demote };
    }
    let Some(promoted) = known.promoted.as_ref().filter(|_| known.database.is_some()) else { return Task::Wait };
    // A leader that was announced after it has deposed it, and is not promoted yet.
    let newest = known.lead.is_some_and(|lead| lead.term == promoted.term);
    if promoted.node == known.me || promoted.term < known.promise || !newest {
        return Task::Wait;
    }
    match &known.primary {
        Some(Node { ip, db_port: Some(port), .. }) => {
            let Promoted { node, term, timeline, .. } = *promoted;
            Task::Follow(Primary { node, term, ip: *ip, port: *port, timeline }, promoted.history.clone())
        }
        _ => Task::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{NodeRole, NodeState, Port};

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn at(millis: u64) -> Instant {
        Duration::from_millis(millis)
    }

    fn promoted(node: NodeId, term: u64) -> Option<Promoted> {
        Some(Promoted { node, term: Term(term), timeline: 2, history: WalHistory::default() })
    }

    fn lead(node: NodeId, term: u64) -> Option<Lead> {
        Some(Lead { node, term: Term(term) })
    }

    /// A follower of node 2, which leads term 5 and is promoted.
    fn follower() -> Situation {
        Situation {
            me: ME,
            now: at(5000),
            grace: at(1000),
            removed: false,
            term: Term(5),
            member: true,
            leading: false,
            resumes: false,
            fence_at: None,
            lead: lead(OTHER, 5),
            promoted: promoted(OTHER, 5),
            primary: Some(Node {
                id: OTHER,
                ip: [10, 0, 0, 2].into(),
                db_port: Port::new(5432),
                api_port: Port::new(8080).unwrap(),
                role: NodeRole::Voter,
                upgrade_to: NodeRole::Voter,
                state: NodeState::Up,
                reason: None,
            }),
            promise: Term(5),
            applied: Term(5),
            database: Some(DatabaseRole::Standby),
            strayed: false,
            may_serve: false,
        }
    }

    /// The leader of term 5, with half a second of its lease left before it has to fence.
    fn leader() -> Situation {
        Situation {
            leading: true,
            fence_at: Some(at(5500)),
            lead: lead(ME, 5),
            promoted: promoted(ME, 5),
            database: Some(DatabaseRole::Primary),
            ..follower()
        }
    }

    #[test]
    fn a_leader_leads_while_its_lease_holds_and_fences_before_it_ends() {
        for (known, expected) in [
            (leader(), Task::Lead(Term(5))),
            (Situation { database: None, ..leader() }, Task::Lead(Term(5))),
            (Situation { now: at(5500), ..leader() }, Task::Demote),
            (Situation { fence_at: None, ..leader() }, Task::Demote),
            // It restarted within its lease, and its first heartbeats are under way.
            (Situation { fence_at: None, grace: at(5600), ..leader() }, Task::Wait),
            (Situation { now: at(5500), database: Some(DatabaseRole::Standby), ..leader() }, Task::Wait),
            (Situation { leading: false, ..leader() }, Task::Demote),
            (Situation { leading: false, grace: at(9000), ..leader() }, Task::Demote),
            // It restarted, and is about to be elected again.
            (Situation { leading: false, resumes: true, grace: at(9000), ..leader() }, Task::Wait),
            (Situation { leading: false, resumes: true, ..leader() }, Task::Demote),
            // Somebody else promoted it, whoever leads.
            (Situation { strayed: true, ..leader() }, Task::Demote),
            (Situation { strayed: true, lead: None, promoted: None, ..leader() }, Task::Demote),
            (Situation { strayed: true, database: Some(DatabaseRole::Standby), ..leader() }, Task::Lead(Term(5))),
        ] {
            assert_eq!(plan(&known), expected, "{known:?}");
        }
    }

    #[test]
    fn the_first_node_waits_for_the_entry_that_creates_the_cluster() {
        let database = Some(DatabaseRole::Standby);
        let known = Situation { member: false, lead: None, promoted: None, database, ..leader() };
        assert_eq!(plan(&known), Task::Wait);
    }

    #[test]
    fn nothing_is_promoted_before_the_leader_of_this_term_is_announced() {
        for lead in [None, lead(OTHER, 5), lead(ME, 4)] {
            assert_eq!(plan(&Situation { lead, ..leader() }), Task::TakeLead(Term(5)));
        }
    }

    #[test]
    fn a_primary_serves_without_a_lease_no_longer_because_its_lead_is_not_announced_yet() {
        let elected = Situation { lead: lead(ME, 4), grace: at(5600), fence_at: None, ..leader() };
        assert_eq!(plan(&elected), Task::TakeLead(Term(5)));
        assert_eq!(plan(&Situation { now: at(5600), ..elected.clone() }), Task::Demote);
        assert_eq!(plan(&Situation { fence_at: Some(at(5000)), ..elected }), Task::Demote);
    }

    #[test]
    fn a_term_is_taken_up_once_an_entry_of_it_is_applied() {
        assert_eq!(plan(&Situation { lead: lead(OTHER, 4), applied: Term(4), ..leader() }), Task::Wait);
    }

    #[test]
    fn a_promotion_that_was_begun_counts_as_serving_until_it_is_fenced() {
        let begun = Situation { database: Some(DatabaseRole::Standby), may_serve: true, ..leader() };
        assert_eq!(plan(&Situation { now: at(5500), ..begun.clone() }), Task::Demote);
        assert_eq!(plan(&Situation { leading: false, ..begun }), Task::Demote);
    }

    #[test]
    fn a_leader_that_has_promised_for_a_later_term_serves_its_own_no_more() {
        assert_eq!(plan(&Situation { promise: Term(6), ..leader() }), Task::Demote);
    }

    #[test]
    fn a_standby_follows_an_announced_primary_and_no_other() {
        assert!(matches!(plan(&follower()), Task::Follow(Primary { node: OTHER, term: Term(5), .. }, _)));
        for known in [
            Situation { promoted: None, ..follower() },
            Situation { promise: Term(6), ..follower() },
            // A newer leader is announced and not promoted yet.
            Situation { lead: lead(NodeId(3), 6), ..follower() },
            Situation { primary: None, ..follower() },
            Situation { promoted: promoted(ME, 5), ..follower() },
            Situation { database: None, ..follower() },
        ] {
            assert_eq!(plan(&known), Task::Wait, "{known:?}");
        }
    }

    #[test]
    fn a_primary_that_does_not_lead_is_demoted_before_anything_else() {
        assert_eq!(plan(&Situation { database: Some(DatabaseRole::Primary), ..follower() }), Task::Demote);
    }

    #[test]
    fn a_removed_node_stops_its_database() {
        assert_eq!(plan(&Situation { removed: true, ..leader() }), Task::Stop);
        assert_eq!(plan(&Situation { removed: true, database: None, ..follower() }), Task::Wait);
    }
}
