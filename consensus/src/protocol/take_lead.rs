//! Taking a term up: what an elected node does next, decided from the promises that it has. Pure functions.
//!
//! The node asks every voter for a promise ([`Promise`]), its own database among them. It leads once it knows whose
//! database has every commit that was ever acknowledged, and if that database is its own. Otherwise it hands over, or nobody leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::env::clock::Instant;
use crate::env::sabotage::{self, Sabotage};
use crate::model::{Node, NodeId};
use crate::protocol::choice::{Choice, Promise, choose, is_majority, is_whole, may_lead};
use crate::protocol::database::{DatabaseRole, DatabaseStatus};
use crate::protocol::repair::Repair;
use crate::protocol::state::{Lead, Promoted};

/// How long a node waits for its own database to be fenced before it lets another lead that can, or tries again.
const OWN_FENCE_TIME: Duration = Duration::from_secs(1);
/// How long it may take another voter to stop its database and to start it as a standby before it promises.
const OTHERS_FENCE_TIME: Duration = Duration::from_secs(5);
/// How long an operator's override counts: by then the node is elected, or cannot be.
const OVERRIDE_TIME: Duration = Duration::from_secs(30);

/// What is known while a term is taken up.
#[derive(Clone, Debug)]
pub(crate) struct Recruitment<'a> {
    pub(crate) me: NodeId,
    /// One set, or two in a joint membership.
    pub(crate) voters: &'a [BTreeSet<NodeId>],
    pub(crate) nodes: &'a BTreeMap<NodeId, Node>,
    /// The leader that was announced last.
    pub(crate) lead: Option<Lead>,
    /// The primary that was announced last.
    pub(crate) promoted: Option<&'a Promoted>,
    pub(crate) promises: &'a BTreeMap<NodeId, Promise>,
    /// Whether the own database goes on serving as the primary: see [`goes_on`].
    pub(crate) goes_on: bool,
    /// Whether the own database is still being fenced.
    pub(crate) fencing: bool,
    /// Whether the own database has WAL that somebody else than qluster had it write.
    pub(crate) astray: bool,
    /// Whether an operator has accepted that commits are lost if this node leads.
    pub(crate) overridden: bool,
    /// Whether a voter is still being asked.
    pub(crate) asking: bool,
    /// How long this try takes.
    pub(crate) tried: Duration,
    /// How long this node has waited, in this and earlier tries, for more than its own promise.
    pub(crate) waited: Duration,
    /// The setting `leader-voting-timeout`.
    pub(crate) voting_timeout: Duration,
}

/// What an elected node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for the own promise and take the others' meanwhile; look again after this time, if one is given.
    AwaitOwn(Option<Duration>),
    /// Wait for more promises, and say why there are too few.
    AwaitMajority,
    /// There are too few promises, and the own one is missing: say so, and try again from the start. The own database
    /// may be fit by then.
    TryAgain,
    /// Wait this long for another promise: its database may have as much as the furthest, and be fit.
    AwaitFit(Duration),
    /// Lead.
    Lead,
    /// Lead although others may have acknowledged commits that this node lacks: an operator has accepted that.
    LeadWithLoss,
    /// Do not lead: the own database has to be rewound, since somebody else than qluster promoted it.
    RefuseStrayed,
    /// Hand leadership to the node with the furthest database.
    HandOver(NodeId),
    /// Nobody leads: the furthest database, of this node, is not fit for this reason. A leader with less could lack
    /// acknowledged commits.
    NobodyFit(NodeId, String),
    /// Nobody leads: those who promised are witnesses.
    NobodyMayLead,
}

/// Decides what an elected node does next.
///
/// - Promises are *enough* if they come from a majority of each voter set, or from the node that led last with all WAL of
///   its lead ([`is_whole`]): either way the furthest of them has every acknowledged commit.
/// - Until then it waits. Whoever is slow to be fenced may have more, so an operator's override counts only after the time
///   that a fence takes.
/// - A database of its own that hangs in its fence is not waited for if another can lead.
/// - With enough promises, the furthest database leads. If that one is not fit, another may have as much and be fit, so
///   the rest of the voters get one `leader-voting-timeout`. Then nobody leads, unless an operator overrides that.
/// - A primary that goes on serving leads in any case: it has all WAL that its standbys have.
pub(crate) fn next_step(known: &Recruitment<'_>) -> Step {
    let Recruitment { me, voters, promises, .. } = *known;
    let votes = |node: NodeId| known.nodes.get(&node).is_some_and(may_lead);
    let enough = is_majority(voters, |voter| promises.contains_key(&voter))
        || is_whole(known.lead, known.promoted, promises, votes);
    // A node that may not be chosen must not count as whole either.
    let left_out =
        |node| sabotage::is(Sabotage::WholeWithoutChoice) && known.lead.is_some_and(|lead| lead.node == node);
    let choice = enough.then(|| choose(me, promises, |node| votes(node) && !left_out(node)));
    if known.fencing {
        return match choice {
            Some(Choice::Other(node)) if known.tried >= OWN_FENCE_TIME => Step::HandOver(node),
            Some(Choice::Other(_)) => Step::AwaitOwn(Some(OWN_FENCE_TIME.saturating_sub(known.tried))),
            _ => Step::AwaitOwn(None),
        };
    }
    let overrides = known.overridden && promises.contains_key(&me);
    let Some(choice) = choice else {
        if overrides && known.waited >= OTHERS_FENCE_TIME.max(known.voting_timeout) {
            return Step::LeadWithLoss;
        }
        let hopeless = !promises.contains_key(&me) && known.tried >= OWN_FENCE_TIME;
        return if hopeless { Step::TryAgain } else { Step::AwaitMajority };
    };
    if known.goes_on {
        return Step::Lead;
    }
    match choice {
        // What it wrote after somebody else had promoted it counts in its position.
        Choice::Me if known.astray && known.overridden => Step::LeadWithLoss,
        Choice::Me if known.astray => Step::RefuseStrayed,
        Choice::Me => Step::Lead,
        Choice::Other(node) => Step::HandOver(node),
        _ if known.asking && known.waited < known.voting_timeout => {
            Step::AwaitFit(known.voting_timeout.saturating_sub(known.waited))
        }
        _ if overrides => Step::LeadWithLoss,
        Choice::Unfit(node, reason) => Step::NobodyFit(node, reason),
        Choice::Nobody => Step::NobodyMayLead,
    }
}

/// Whether a database that `serves` as the primary goes on doing so under the new term of its node, `me`: no other node
/// led in between (`lead` is the last one), so nothing was acknowledged that it lacks.
pub(crate) fn goes_on(me: NodeId, serves: bool, lead: Option<Lead>) -> bool {
    serves && (lead.is_none_or(|lead| lead.node == me) || sabotage::is(Sabotage::ResumeAfterAnother))
}

/// An operator's word that a node may lead although others may have acknowledged commits that it lacks.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    actor: String,
    until: Instant,
    /// The leader that was announced last when it was given.
    lead: Option<Lead>,
}

impl Override {
    /// The word of `actor`, given `now`, when `lead` was the leader announced last.
    pub(crate) fn new(actor: String, now: Instant, lead: Option<Lead>) -> Self {
        Self { actor, until: now + OVERRIDE_TIME, lead }
    }

    /// Who gave it, if it counts: for a while, and until somebody leads. Then there is nothing left to accept.
    pub(crate) fn actor(&self, now: Instant, lead: Option<Lead>) -> Option<&str> {
        (now < self.until && lead == self.lead).then_some(&*self.actor)
    }
}

/// Why an operator's override is of no use for a node whose database is as `status` says and needs `repair`; None if it
/// is of use. A rewind that was not begun is no longer needed then: what the database has is what counts.
pub(crate) fn refuses_override(status: Option<&DatabaseStatus>, repair: Option<Repair>) -> Option<String> {
    let Some(status) = status else { return Some("it has no database".into()) };
    if repair == Some(Repair::Clone) {
        return Some("its database needs a clone: there is nothing that it could lead with".into());
    }
    if status.role != DatabaseRole::Standby || status.unfit.is_some() {
        let unfit = status.unfit.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        return Some(format!("its database is {}{unfit}", status.role));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, NodeRole, NodeState, Port, Term, WalHistory, WalPosition, WalStart};

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Nodes 1 to 3 are voters with a database, 9 is a witness.
    fn nodes() -> BTreeMap<NodeId, Node> {
        let node = |id| {
            let (ip, api_port) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap());
            let role = if id == 9 { NodeRole::Witness } else { NodeRole::Voter };
            let (upgrade_to, state, db_port, reason) = (role, NodeState::Up, None, None);
            (NodeId(id), Node { id: NodeId(id), ip, db_port, api_port, role, upgrade_to, state, reason })
        };
        [1, 2, 3, 9].map(node).into()
    }

    /// Promises by node and LSN, of term 4.
    fn promises(given: &[(u64, u64)]) -> BTreeMap<NodeId, Promise> {
        let promise = |lsn| Promise { position: Some(WalPosition { term: Term(4), lsn: Lsn(lsn) }), unfit: None };
        given.iter().map(|&(node, lsn)| (NodeId(node), promise(lsn))).collect()
    }

    /// What is known of a cluster of nodes 1 to 3 in which nobody has led, but for the promises.
    struct Known {
        voters: Vec<BTreeSet<NodeId>>,
        nodes: BTreeMap<NodeId, Node>,
        promises: BTreeMap<NodeId, Promise>,
    }

    impl Known {
        fn new(given: &[(u64, u64)]) -> Self {
            Self { voters: vec![ids(&[1, 2, 3])], nodes: nodes(), promises: promises(given) }
        }

        fn with_unfit(mut self, node: u64) -> Self {
            self.promises.get_mut(&NodeId(node)).unwrap().unfit = Some("its disk is full".into());
            self
        }

        fn recruitment(&self) -> Recruitment<'_> {
            Recruitment {
                me: ME,
                voters: &self.voters,
                nodes: &self.nodes,
                lead: None,
                promoted: None,
                promises: &self.promises,
                goes_on: false,
                fencing: false,
                astray: false,
                overridden: false,
                asking: true,
                tried: Duration::ZERO,
                waited: Duration::ZERO,
                voting_timeout: seconds(2),
            }
        }
    }

    #[test]
    fn a_majority_is_waited_for_and_then_the_furthest_leads() {
        for (case, given, expected) in [
            ("nobody has promised", &[][..], Step::AwaitMajority),
            ("one of three", &[(1, 9)], Step::AwaitMajority),
            ("two of three, this node is as far", &[(1, 9), (2, 9)], Step::Lead),
            ("two of three, another is further", &[(1, 9), (2, 10)], Step::HandOver(OTHER)),
            ("two others, the own database refused", &[(2, 9), (3, 9)], Step::HandOver(NodeId(3))),
            ("who is no voter does not count", &[(1, 9), (9, 0)], Step::AwaitMajority),
        ] {
            assert_eq!(next_step(&Known::new(given).recruitment()), expected, "{case}");
        }
    }

    #[test]
    fn the_own_database_is_waited_for_unless_it_hangs_and_another_can_lead() {
        for (case, given, tried, expected) in [
            ("nobody else has promised", &[][..], 9, Step::AwaitOwn(None)),
            ("the others are no majority", &[(2, 9)], 9, Step::AwaitOwn(None)),
            ("another can, for a second more", &[(2, 9), (3, 9)], 0, Step::AwaitOwn(Some(seconds(1)))),
            ("another can", &[(2, 9), (3, 9)], 1, Step::HandOver(NodeId(3))),
        ] {
            let known = Known::new(given);
            let known = Recruitment { fencing: true, tried: seconds(tried), ..known.recruitment() };
            assert_eq!(next_step(&known), expected, "{case}");
        }
    }

    #[test]
    fn a_try_without_the_own_promise_ends_and_one_with_it_goes_on() {
        for (case, given, tried, expected) in [
            ("it refused just now", &[(2, 9)][..], 0, Step::AwaitMajority),
            ("it refused a while ago", &[(2, 9)], 1, Step::TryAgain),
            ("it has promised", &[(1, 9)], 60, Step::AwaitMajority),
        ] {
            let known = Known::new(given);
            let known = Recruitment { tried: seconds(tried), ..known.recruitment() };
            assert_eq!(next_step(&known), expected, "{case}");
        }
    }

    #[test]
    fn the_node_that_led_last_is_enough_if_it_has_the_wal_of_its_lead() {
        let lead = |node| Some(Lead { node, term: Term(4) });
        let promoted = |node| {
            let history = WalHistory(vec![WalStart { term: Term(4), lsn: Lsn(5) }]);
            Promoted { node, term: Term(4), timeline: 2, history }
        };
        for (case, given, node, expected) in [
            ("this node led last", &[(1, 9)][..], ME, Step::Lead),
            ("another did, and has promised", &[(2, 9)], OTHER, Step::HandOver(OTHER)),
            ("another did, and has not", &[(1, 9)], OTHER, Step::AwaitMajority),
        ] {
            let (known, promoted) = (Known::new(given), promoted(node));
            let known = Recruitment { lead: lead(node), promoted: Some(&promoted), ..known.recruitment() };
            assert_eq!(next_step(&known), expected, "{case}");
        }
    }

    #[test]
    fn a_primary_that_goes_on_leads_whatever_was_last_seen_of_its_wal() {
        let known = Known::new(&[(1, 9), (2, 10)]).with_unfit(2);
        let known = Recruitment { goes_on: true, astray: true, ..known.recruitment() };
        assert_eq!(next_step(&known), Step::Lead);
        let lead = |node| Some(Lead { node, term: Term(4) });
        for (serves, lead, expected) in
            [(true, None, true), (true, lead(ME), true), (true, lead(OTHER), false), (false, lead(ME), false)]
        {
            assert_eq!(goes_on(ME, serves, lead), expected, "{serves} {lead:?}");
        }
    }

    #[test]
    fn a_furthest_database_that_is_not_fit_has_nobody_lead_once_the_rest_had_their_time() {
        let nobody = || Step::NobodyFit(OTHER, "its disk is full".into());
        for (case, asking, waited, expected) in [
            ("the third may have as much", true, 0, Step::AwaitFit(seconds(2))),
            ("it has a second left", true, 1, Step::AwaitFit(seconds(1))),
            ("it had its time", true, 2, nobody()),
            ("all have answered", false, 0, nobody()),
        ] {
            let known = Known::new(&[(1, 9), (2, 10)]).with_unfit(2);
            let known = Recruitment { asking, waited: seconds(waited), ..known.recruitment() };
            assert_eq!(next_step(&known), expected, "{case}");
        }
        let known = Known { voters: vec![ids(&[1, 9])], ..Known::new(&[(9, 0)]) };
        let alone = Known { voters: vec![ids(&[9])], ..known };
        let known = Recruitment { asking: false, ..alone.recruitment() };
        assert_eq!(next_step(&known), Step::NobodyMayLead);
    }

    #[test]
    fn an_override_counts_with_the_own_promise_and_after_the_time_of_a_fence() {
        for (case, given, waited, expected) in [
            ("others may still be fenced", &[(1, 9)][..], 4, Step::AwaitMajority),
            ("they had their time", &[(1, 9)], 5, Step::LeadWithLoss),
            ("the own database has not promised", &[(2, 9)], 60, Step::AwaitMajority),
            ("a majority has", &[(1, 9), (2, 9)], 60, Step::Lead),
            ("another has more and is fit", &[(1, 9), (2, 10)], 60, Step::HandOver(OTHER)),
        ] {
            let known = Known::new(given);
            let known = Recruitment { overridden: true, waited: seconds(waited), ..known.recruitment() };
            assert_eq!(next_step(&known), expected, "{case}");
            // A voting time-out that is longer than a fence is waited for, too.
            if expected == Step::LeadWithLoss {
                assert_eq!(next_step(&Recruitment { voting_timeout: seconds(6), ..known }), Step::AwaitMajority);
            }
        }
        let unfit = Known::new(&[(1, 9), (2, 10)]).with_unfit(2);
        let known = Recruitment { overridden: true, asking: false, ..unfit.recruitment() };
        assert_eq!(next_step(&known), Step::LeadWithLoss);
    }

    #[test]
    fn a_database_that_somebody_else_promoted_leads_by_an_override_only() {
        let known = Known::new(&[(1, 9), (2, 8)]);
        let astray = Recruitment { astray: true, ..known.recruitment() };
        assert_eq!(next_step(&astray), Step::RefuseStrayed);
        assert_eq!(next_step(&Recruitment { overridden: true, ..astray }), Step::LeadWithLoss);
    }

    #[test]
    fn an_override_lasts_half_a_minute_and_until_somebody_leads() {
        let lead = |term| Some(Lead { node: OTHER, term: Term(term) });
        let word = Override::new("operator at ::1".into(), seconds(100), lead(4));
        for (now, last, counts) in [
            (100, lead(4), true),
            (129, lead(4), true),
            (130, lead(4), false),
            (101, lead(5), false),
            (101, None, false),
        ] {
            let expected = counts.then_some("operator at ::1");
            assert_eq!(word.actor(seconds(now), last), expected, "{now} {last:?}");
        }
    }

    #[test]
    fn an_override_is_refused_if_there_is_nothing_to_lead_with() {
        let status = |role| DatabaseStatus::unknown(role);
        let full = DatabaseStatus { unfit: Some("its disk is full".into()), ..status(DatabaseRole::Standby) };
        for (status, repair, expected) in [
            (None, None, Some("no database")),
            (Some(status(DatabaseRole::Standby)), None, None),
            (Some(status(DatabaseRole::Standby)), Some(Repair::Rewind), None),
            (Some(status(DatabaseRole::Standby)), Some(Repair::Clone), Some("needs a clone")),
            (Some(status(DatabaseRole::Primary)), None, Some("its database is a primary")),
            (Some(full), None, Some("its disk is full")),
        ] {
            let reason = refuses_override(status.as_ref(), repair);
            let told = reason.as_deref().map(|reason| expected.is_some_and(|expected| reason.contains(expected)));
            assert_eq!(told, expected.map(|_| true), "{status:?} {repair:?}: {reason:?}");
        }
    }
}
