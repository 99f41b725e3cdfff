//! The faults, and their order.

use std::fmt;

use super::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    KillAgent,
    KillDatabase,
    KillNode,
    PowerCut,
    FreezeAgent {
        long: bool,
    },
    FreezeDatabase {
        long: bool,
    },
    FreezeNode {
        long: bool,
    },
    /// It is cut off from the other nodes; clients still reach it.
    Isolate,
    /// It is cut off from the other nodes and from clients.
    IsolateFromAll,
    /// What it sends to other nodes is lost, or what they send to it.
    Mute,
    Deafen,
    /// Each node is cut off from every other.
    IsolateEach,
    Slow,
    Lossy,
    ClockForward,
    ClockBack,
    FullDisk,
    /// A person promotes it, without asking the cluster.
    Promote,
    Switchover,
    NodeDown,
    AddAndRemove,
    Rejoin,
}

/// The node that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Leader,
    Standby,
    /// All nodes, or none in particular.
    Cluster,
}

/// A kind of fault, and the node that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) victim: Victim,
}

/// Faults of leaders and of standbys.
const PERSONAL: [Kind; 18] = [
    Kind::KillAgent,
    Kind::KillDatabase,
    Kind::KillNode,
    Kind::FreezeAgent { long: false },
    Kind::FreezeAgent { long: true },
    Kind::FreezeDatabase { long: false },
    Kind::FreezeDatabase { long: true },
    Kind::FreezeNode { long: false },
    Kind::FreezeNode { long: true },
    Kind::Isolate,
    Kind::IsolateFromAll,
    Kind::Mute,
    Kind::Deafen,
    Kind::Slow,
    Kind::Lossy,
    Kind::FullDisk,
    Kind::NodeDown,
    Kind::Rejoin,
];

/// Faults of standbys alone.
const SUBORDINATE: [Kind; 1] = [Kind::Promote];

/// Faults of the cluster.
const COMMON: [Kind; 6] =
    [Kind::PowerCut, Kind::IsolateEach, Kind::ClockForward, Kind::ClockBack, Kind::Switchover, Kind::AddAndRemove];

/// An endless sequence of faults: all of them in a random order, then all of them in another order.
pub(crate) struct Deck {
    all: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    /// A deck without the kinds that are not possible here.
    pub(crate) fn new(possible: impl Fn(Kind) -> bool) -> Self {
        let of = |kinds: &[Kind], victim| kinds.iter().map(move |&kind| Fault { kind, victim }).collect::<Vec<_>>();
        let all = [
            of(&PERSONAL, Victim::Leader),
            of(&PERSONAL, Victim::Standby),
            of(&SUBORDINATE, Victim::Standby),
            of(&COMMON, Victim::Cluster),
        ]
        .concat();
        Self { all: all.into_iter().filter(|fault| possible(fault.kind)).collect(), left: Vec::new() }
    }

    pub(crate) fn draw(&mut self, random: &mut Random) -> Option<Fault> {
        if self.left.is_empty() {
            self.left = self.all.clone();
            random.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::KillAgent => "kill -9 of the daemon",
            Kind::KillDatabase => "kill -9 of PostgreSQL",
            Kind::KillNode => "kill -9 of the node",
            Kind::PowerCut => "power cut of all nodes",
            Kind::FreezeAgent { long: false } => "short freeze of the daemon",
            Kind::FreezeAgent { long: true } => "long freeze of the daemon",
            Kind::FreezeDatabase { long: false } => "short freeze of PostgreSQL",
            Kind::FreezeDatabase { long: true } => "long freeze of PostgreSQL",
            Kind::FreezeNode { long: false } => "short freeze of the node",
            Kind::FreezeNode { long: true } => "long freeze of the node",
            Kind::Isolate => "partition, clients reach it",
            Kind::IsolateFromAll => "partition, clients do not",
            Kind::Mute => "one-way: nobody hears it",
            Kind::Deafen => "one-way: it hears nobody",
            Kind::IsolateEach => "partition, each from each",
            Kind::Slow => "slow link",
            Kind::Lossy => "lossy link",
            Kind::ClockForward => "clock forward",
            Kind::ClockBack => "clock back",
            Kind::FullDisk => "full disk",
            Kind::Promote => "promoted by hand",
            Kind::Switchover => "switchover",
            Kind::NodeDown => "node-down, and up again",
            Kind::AddAndRemove => "another node, added and removed",
            Kind::Rejoin => "removed, wiped and joined",
        };
        match self.victim {
            Victim::Leader => write!(f, "{kind}: leader"),
            Victim::Standby => write!(f, "{kind}: standby"),
            Victim::Cluster => f.write_str(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_comes_before_any_comes_again_and_has_a_name_of_its_own() {
        let mut deck = Deck::new(|_| true);
        let mut random = Random::new(5);
        let first: BTreeSet<String> = (0..43).filter_map(|_| deck.draw(&mut random)).map(|f| f.to_string()).collect();
        assert_eq!(first.len(), 43);
        assert_eq!(deck.left.len(), 0);
        assert!(deck.draw(&mut random).is_some());
    }

    #[test]
    fn what_is_not_possible_is_left_out_and_a_seed_repeats() {
        let draw = |seed| {
            let (mut deck, mut random) = (Deck::new(|kind| kind != Kind::Slow), Random::new(seed));
            (0..60).filter_map(|_| deck.draw(&mut random)).collect::<Vec<_>>()
        };
        assert!(draw(1).iter().all(|fault| fault.kind != Kind::Slow));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
