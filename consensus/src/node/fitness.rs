//! Whether a node's database is fit to be counted on: if it is not fit for long, the node has itself declared down; once it
//! is fit again, the node asks to be brought back.

use std::time::Duration;

use crate::env::clock::Instant;
use crate::model::{Node, NodeState};
use crate::primary::local::Local;
use crate::protocol::database::DatabaseRole;
use crate::protocol::state::DeclaredBy;
use crate::raft::core::Core;

/// For how many node time-outs a database has to be unfit before its node has itself declared down: longer than a restart
/// or a short rewind takes.
const UNFIT_NODE_TIMEOUTS: u32 = 10;
/// For how many node time-outs a database has to be fit before its node asks to be brought back.
const FIT_NODE_TIMEOUTS: u32 = 2;

/// What a node asks the leader for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To be declared down, for this reason.
    Down(String),
    /// To be brought back.
    Up,
}

/// How the database of this node has been.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Health {
    /// Why it is not fit now; None if it is.
    unfit: Option<String>,
    /// Whether it is a standby that streams.
    streams: bool,
    /// Since when it has been in its present state: fit; or unfit and streaming; or unfit and not streaming.
    since: Instant,
    /// Whether it was unfit for long since its node was declared down. A restart, such as by the operator who did so, is
    /// short.
    failed: bool,
}

impl Health {
    /// Notes how it is now.
    fn note(&mut self, unfit: Option<String>, streams: bool, down: bool, timeout: Duration, now: Instant) {
        // One that streamed until now has been of use until now, too.
        if unfit.is_some() != self.unfit.is_some() || (unfit.is_some() && streams != self.streams) {
            self.since = now;
        }
        let long = unfit.is_some() && now.saturating_sub(self.since) >= UNFIT_NODE_TIMEOUTS * timeout;
        self.failed = down && (self.failed || long);
        self.unfit = unfit;
        self.streams = streams;
    }
}

/// What the node asks the leader for, if anything.
///
/// A standby that streams holds what is committed, fit or not. If it were declared down, fewer would hold each commit, for
/// nothing. The node of an unfit primary asks, too: it hands over first. A node that an operator declared down stays down,
/// unless its database has since been unfit long enough for the node to ask for that itself.
fn ask(node: &Node, declared_by: Option<&DeclaredBy>, health: &Health, timeout: Duration, now: Instant) -> Option<Ask> {
    let lasted = now.saturating_sub(health.since);
    match (&health.unfit, node.state) {
        (Some(reason), NodeState::Up | NodeState::Unreachable) if node.role.has_database() && !health.streams => {
            (lasted >= UNFIT_NODE_TIMEOUTS * timeout).then(|| Ask::Down(reason.clone()))
        }
        (None, NodeState::Down) => {
            // None if the state does not tell: it counts as an operator's word.
            let returns = declared_by.is_some_and(DeclaredBy::leaves_return_to_the_node);
            ((returns || health.failed) && lasted >= FIT_NODE_TIMEOUTS * timeout).then_some(Ask::Up)
        }
        _ => None,
    }
}

/// Looks once a node time-out how the database is, and asks the leader by it; never ends.
pub(crate) async fn run<F>(core: Core, local: Local, leader: impl Fn(Ask) -> F)
where
    F: Future<Output = Result<(), String>>,
{
    let mut health = Health { since: core.clock().now(), ..Health::default() };
    let mut refused = None;
    loop {
        let timeout = core.config().node_timeout.get();
        tokio::time::sleep(timeout).await;
        let own = core.state_machine().read(|applied| {
            let state = &applied.state;
            state.nodes.get(&core.id()).map(|node| (node.clone(), state.down_by.get(&node.id).cloned()))
        });
        let Some((node, declared_by)) = own else { continue };
        let now = core.clock().now();
        let streams = local.status().is_some_and(|status| status.role == DatabaseRole::Standby && status.streaming);
        health.note(local.unfit(), streams, node.state == NodeState::Down, timeout, now);
        let Some(ask) = ask(&node, declared_by.as_ref(), &health, timeout, now) else { continue };
        let refusal = leader(ask.clone()).await.err();
        match &refusal {
            None => tracing::info!(?ask, "asked the leader"),
            Some(reason) if refused.as_ref() != Some(reason) => {
                tracing::info!(?ask, reason, "asked the leader, which does not do it yet");
            }
            Some(_) => {}
        }
        refused = refusal;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeId, NodeRole, Port};

    fn at(seconds: u64) -> Instant {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_asks_to_be_declared_down_and_to_be_brought_back() {
        let node = |role, state| {
            let (ip, api_port) = ([127, 0, 0, 1].into(), Port::new(8000).unwrap());
            Node { id: NodeId(1), ip, db_port: None, api_port, role, upgrade_to: role, state, reason: None }
        };
        let full = || Some("its disk is full".to_owned());
        let health = |unfit: Option<String>, since, failed| Health { unfit, streams: false, since: at(since), failed };
        let streams = |health: Health| Health { streams: true, ..health };
        let down = || Some(Ask::Down("its disk is full".into()));
        use NodeRole::{Listener, Replica, Voter};
        use NodeState::{Down, Unreachable, Up};
        for (role, state, by, health, expected) in [
            (Voter, Up, None, health(None, 0, false), None),
            (Voter, Up, None, health(full(), 91, false), None),
            (Voter, Up, None, health(full(), 90, false), down()),
            (Voter, Unreachable, None, health(full(), 90, false), down()),
            (Replica, Up, None, health(full(), 90, false), down()),
            // A standby that streams is of use.
            (Voter, Up, None, streams(health(full(), 0, false)), None),
            (Replica, Unreachable, None, streams(health(full(), 0, false)), None),
            (Voter, Down, Some("node 1"), streams(health(None, 98, false)), Some(Ask::Up)),
            (Listener, Up, None, health(full(), 0, false), None),
            (Voter, Down, Some("node 1"), health(full(), 0, false), None),
            (Voter, Down, Some("node 1"), health(None, 99, false), None),
            (Voter, Down, Some("node 2"), health(None, 98, false), Some(Ask::Up)),
            // An operator has a reason that this node does not see, unless it sees one as well.
            (Voter, Down, Some("operator at ::1"), health(None, 0, false), None),
            (Voter, Down, Some("operator at ::1"), health(None, 0, true), Some(Ask::Up)),
            (Voter, Down, None, health(None, 0, false), None),
        ] {
            let by = by.map(|actor: &str| DeclaredBy::from(actor.to_owned()));
            let asked = ask(&node(role, state), by.as_ref(), &health, at(1), at(100));
            assert_eq!(asked, expected, "{role} {state} {by:?} {health:?}");
        }
    }

    #[test]
    fn health_lasts_from_its_last_change_and_a_failure_counts_while_the_node_is_down() {
        let mut health = Health::default();
        let mut note = |unfit: Option<&str>, down, second| {
            health.note(unfit.map(str::to_owned), false, down, at(1), at(second));
            health.clone()
        };
        let expected = |unfit: Option<&str>, since, failed| Health {
            unfit: unfit.map(str::to_owned),
            streams: false,
            since: at(since),
            failed,
        };
        assert_eq!(note(Some("one"), false, 5), expected(Some("one"), 5, false));
        assert_eq!(note(Some("another"), false, 6), expected(Some("another"), 5, false));
        // A restart does not count.
        assert_eq!(note(Some("another"), true, 7), expected(Some("another"), 5, false));
        assert_eq!(note(None, true, 8), expected(None, 8, false));
        assert_eq!(note(Some("one"), true, 9), expected(Some("one"), 9, false));
        assert_eq!(note(Some("one"), true, 19), expected(Some("one"), 9, true));
        assert_eq!(note(None, true, 20), expected(None, 20, true));
        assert_eq!(note(None, false, 21), expected(None, 20, false));
    }
}
