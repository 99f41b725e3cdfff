//! What the database of a node has to do, decided from what is known: a pure function.

use crate::env::clock::Instant;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Node, NodeId, Term, WalHistory};
use crate::protocol::database::{DatabaseRole, Primary};
use crate::protocol::state::{Lead, Promoted};

/// What is known when it is planned.
#[derive(Clone, Debug)]
pub(crate) struct View {
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
    /// The node of that primary, where it is a member.
    pub(crate) primary: Option<Node>,
    pub(crate) promise: Term,
    /// The term of the newest entry that is applied here.
    pub(crate) applied: Term,
    /// What the own database is; none where there is none.
    pub(crate) database: Option<DatabaseRole>,
    /// Whether somebody else has promoted it.
    pub(crate) strayed: bool,
    /// Whether its promotion was begun and it was not fenced since: it may take writes before it shows.
    pub(crate) may_serve: bool,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing: all is as it should be, or what is to be is not known yet.
    Rest,
    /// Take up the term that this node was elected in.
    TakeLead(Term),
    /// Be the primary of the term.
    Lead(Term),
    /// Serve nobody any more.
    Demote,
    /// Follow a primary.
    Follow(Primary, WalHistory),
    /// Stop: this node was removed from the cluster.
    Stop,
}

/// Decides what there is to do.
pub(crate) fn plan(view: &View) -> Wanted {
    let serves = view.may_serve || view.database == Some(DatabaseRole::Primary);
    if view.removed {
        return if view.database.is_some() { Wanted::Stop } else { Wanted::Rest };
    }
    if view.strayed && view.database == Some(DatabaseRole::Primary) {
        return Wanted::Demote;
    }
    if view.leading && view.member {
        // It led before it restarted: its heartbeats are under way, and its peers' promises hold so long.
        let over = view.fence_at.map_or(view.now >= view.grace, |fence_at| view.now >= fence_at);
        let spared = view.fence_at.is_none() && sabotage::is(Sabotage::ResumeAfterAnother);
        if serves && over && !spared && !sabotage::is(Sabotage::NeverDemote) {
            return Wanted::Demote;
        }
        if view.lead != Some(Lead { node: view.me, term: view.term }) && !sabotage::is(Sabotage::PromoteBeforeLead) {
            // Who led last, and who is a member, is known once an entry of this term is applied.
            return if view.applied == view.term { Wanted::TakeLead(view.term) } else { Wanted::Rest };
        }
        return match view.fence_at {
            Some(fence_at) if view.now < fence_at && view.promise <= view.term => Wanted::Lead(view.term),
            Some(_) if serves && !over && !sabotage::is(Sabotage::NeverDemote) => Wanted::Demote,
            _ => Wanted::Rest,
        };
    }
    let bent = [Sabotage::NeverDemote, Sabotage::PromiseAsPrimary, Sabotage::ResumeAfterAnother];
    if serves && !bent.into_iter().any(sabotage::is) {
        // Until it is elected again, its peers' promises to it hold.
        return if view.resumes && view.now < view.grace { Wanted::Rest } else { Wanted::Demote };
    }
    let Some(promoted) = view.promoted.as_ref().filter(|_| view.database.is_some()) else { return Wanted::Rest };
    // Whoever was announced as a leader after it has deposed it, and is not promoted yet.
    let newest = view.lead.is_some_and(|lead| lead.term == promoted.term);
    if promoted.node == view.me || promoted.term < view.promise || !newest {
        return Wanted::Rest;
    }
    match &view.primary {
        Some(Node { ip, db_port: Some(port), .. }) => {
            let Promoted { node, term, timeline, .. } = *promoted;
            Wanted::Follow(Primary { node, term, ip: *ip, port: *port, timeline }, promoted.history.clone())
        }
        _ => Wanted::Rest,
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
    fn follower() -> View {
        View {
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
    fn leader() -> View {
        View {
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
        for (view, expected) in [
            (leader(), Wanted::Lead(Term(5))),
            (View { database: None, ..leader() }, Wanted::Lead(Term(5))),
            (View { now: at(5500), ..leader() }, Wanted::Demote),
            (View { fence_at: None, ..leader() }, Wanted::Demote),
            // It restarted within its lease, and its first heartbeats are under way.
            (View { fence_at: None, grace: at(5600), ..leader() }, Wanted::Rest),
            (View { now: at(5500), database: Some(DatabaseRole::Standby), ..leader() }, Wanted::Rest),
            (View { leading: false, ..leader() }, Wanted::Demote),
            (View { leading: false, grace: at(9000), ..leader() }, Wanted::Demote),
            // It restarted, and is about to be elected again.
            (View { leading: false, resumes: true, grace: at(9000), ..leader() }, Wanted::Rest),
            (View { leading: false, resumes: true, ..leader() }, Wanted::Demote),
            // Somebody else promoted it, whoever leads.
            (View { strayed: true, ..leader() }, Wanted::Demote),
            (View { strayed: true, lead: None, promoted: None, ..leader() }, Wanted::Demote),
            (View { strayed: true, database: Some(DatabaseRole::Standby), ..leader() }, Wanted::Lead(Term(5))),
        ] {
            assert_eq!(plan(&view), expected, "{view:?}");
        }
    }

    #[test]
    fn the_first_node_waits_for_the_entry_that_creates_the_cluster() {
        let database = Some(DatabaseRole::Standby);
        let view = View { member: false, lead: None, promoted: None, database, ..leader() };
        assert_eq!(plan(&view), Wanted::Rest);
    }

    #[test]
    fn nothing_is_promoted_before_the_leader_of_this_term_is_announced() {
        for lead in [None, lead(OTHER, 5), lead(ME, 4)] {
            assert_eq!(plan(&View { lead, ..leader() }), Wanted::TakeLead(Term(5)));
        }
    }

    #[test]
    fn a_primary_serves_without_a_lease_no_longer_because_its_lead_is_not_announced_yet() {
        let elected = View { lead: lead(ME, 4), grace: at(5600), fence_at: None, ..leader() };
        assert_eq!(plan(&elected), Wanted::TakeLead(Term(5)));
        assert_eq!(plan(&View { now: at(5600), ..elected.clone() }), Wanted::Demote);
        assert_eq!(plan(&View { fence_at: Some(at(5000)), ..elected }), Wanted::Demote);
    }

    #[test]
    fn a_term_is_taken_up_once_an_entry_of_it_is_applied() {
        assert_eq!(plan(&View { lead: lead(OTHER, 4), applied: Term(4), ..leader() }), Wanted::Rest);
    }

    #[test]
    fn a_promotion_that_was_begun_counts_as_serving_until_it_is_fenced() {
        let begun = View { database: Some(DatabaseRole::Standby), may_serve: true, ..leader() };
        assert_eq!(plan(&View { now: at(5500), ..begun.clone() }), Wanted::Demote);
        assert_eq!(plan(&View { leading: false, ..begun }), Wanted::Demote);
    }

    #[test]
    fn a_leader_that_has_promised_for_a_later_term_serves_its_own_no_more() {
        assert_eq!(plan(&View { promise: Term(6), ..leader() }), Wanted::Demote);
    }

    #[test]
    fn a_standby_follows_an_announced_primary_and_no_other() {
        assert!(matches!(plan(&follower()), Wanted::Follow(Primary { node: OTHER, term: Term(5), .. }, _)));
        for view in [
            View { promoted: None, ..follower() },
            View { promise: Term(6), ..follower() },
            // A newer leader is announced and not promoted yet.
            View { lead: lead(NodeId(3), 6), ..follower() },
            View { primary: None, ..follower() },
            View { promoted: promoted(ME, 5), ..follower() },
            View { database: None, ..follower() },
        ] {
            assert_eq!(plan(&view), Wanted::Rest, "{view:?}");
        }
    }

    #[test]
    fn a_primary_that_does_not_lead_is_demoted_before_anything_else() {
        assert_eq!(plan(&View { database: Some(DatabaseRole::Primary), ..follower() }), Wanted::Demote);
    }

    #[test]
    fn a_removed_node_stops_its_database() {
        assert_eq!(plan(&View { removed: true, ..leader() }), Wanted::Stop);
        assert_eq!(plan(&View { removed: true, database: None, ..follower() }), Wanted::Rest);
    }
}
