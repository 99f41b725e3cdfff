//! The scenes of each plot.

use super::*;

pub(super) fn of(plot: Plot) -> &'static [Scene] {
    match plot {
        Plot::Deposed => &DEPOSED,
        Plot::Unreached => &UNREACHED,
        Plot::Forgetful => &FORGETFUL,
        Plot::Tail => &TAIL,
        Plot::Longest => &LONGEST,
        Plot::Torn => &TORN,
        Plot::Growth => &GROWTH,
        Plot::Shrink => &SHRINK,
        Plot::Namesake => &NAMESAKE,
        Plot::Farewell => &FAREWELL,
        Plot::Revenant => &REVENANT,
        Plot::Expelled => &EXPELLED,
        Plot::Outsider => &OUTSIDER,
        Plot::Interlude => &INTERLUDE,
        Plot::Usurper => &USURPER,
    }
}

/// Long enough for an election, and for a promotion after it.
const ELECTION: Duration = Duration::from_millis(6000);
/// Long enough for what comes only if a rule is broken.
const SOON: Duration = Duration::from_millis(1500);
const TWICE_SOON: Duration = Duration::from_millis(3000);

/// Waits for nothing.
const AT_ONCE: Scene = Scene { waits_for: "nothing", until: |_, _| true, within: Duration::ZERO, then: nothing };

/// Whoever leads next is checked when it is promoted, so at the end most plots have only to wait for that.
const ANOTHER_IS_PROMOTED: Scene =
    Scene { waits_for: "another database is promoted", until: another_is_promoted, within: ELECTION, then: nothing };

/// Gives the checks time to find the broken rule.
const NEVER: Scene = Scene { waits_for: "a rule is found broken", until: |_, _| false, within: SOON, then: nothing };

const DEPOSED: [Scene; 4] = [
    Scene { then: |_, sim| sim.quiet = true, ..AT_ONCE },
    Scene {
        waits_for: "all databases hold the same",
        until: |stage, sim| stage.all_are_equal(sim),
        within: SOON,
        then: |stage, sim| {
            kill(sim, stage.leader);
            freeze(sim, stage.leader);
        },
    },
    // The first of the others is elected, the second is not recruited.
    Scene {
        waits_for: "another node is elected",
        until: |stage, sim| stage.elected(sim).is_some(),
        within: ELECTION,
        then: |stage, sim| {
            let elected = stage.elected(sim).unwrap();
            stage.cast(elected.node);
            cut(sim, stage.other(0), stage.other(1));
            thaw(sim, stage.leader);
            start(sim, stage.leader, 0);
            sim.quiet = false;
        },
    },
    ANOTHER_IS_PROMOTED,
];

const UNREACHED: [Scene; 5] = [
    // The first of the others lags, the second holds what is acknowledged.
    Scene {
        then: |stage, sim| {
            freeze(sim, stage.other(0));
            stage.remember(sim);
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "three more appends are acknowledged",
        until: |stage, sim| stage.more_is_acknowledged(sim, 3),
        within: TWICE_SOON,
        then: |stage, sim| {
            cut_off(sim, stage.other(1));
            cut_power(sim, stage.leader);
            start(sim, stage.leader, 50);
        },
    },
    Scene {
        waits_for: "the leader is promoted again, and the first of the others knows it",
        until: |stage, sim| {
            let announced = sim.nodes[&stage.other(0)]
                .with(|cluster, _| cluster.state(|state| state.promoted.as_ref().map(|promoted| promoted.term)));
            promoted_after(sim, stage.leader, stage.term) && announced.flatten() > Some(Term(stage.term))
        },
        within: ELECTION,
        then: |stage, sim| {
            freeze(sim, stage.leader);
            thaw(sim, stage.other(0));
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
        },
    },
    Scene {
        waits_for: "the first of the others follows the new term",
        until: |stage, sim| db(sim, stage.other(0), |db| db.follows == Some((stage.leader, Term(stage.term)))),
        within: SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            heal(sim);
        },
    },
    ANOTHER_IS_PROMOTED,
];

const FORGETFUL: [Scene; 6] = [
    Scene { then: |_, sim| sim.quiet = true, ..AT_ONCE },
    Scene {
        waits_for: "all databases hold the same",
        until: |stage, sim| stage.all_are_equal(sim),
        within: SOON,
        then: |stage, sim| {
            let leader = stage.leader;
            sim.say(|| format!("node {leader}: the agent is stopped"));
            sim.nodes.get_mut(&leader).unwrap().paused = Some(Duration::MAX);
        },
    },
    // The first of the others is elected, and recruits the second.
    Scene {
        waits_for: "another node is elected",
        until: |stage, sim| stage.elected(sim).is_some(),
        within: ELECTION,
        then: |stage, sim| {
            let elected = stage.elected(sim).unwrap();
            stage.cast(elected.node);
            stage.term = elected.term;
            cut(sim, elected.node, stage.leader);
        },
    },
    Scene {
        waits_for: "the second of the others is recruited",
        until: |stage, sim| has_promised(sim, stage.other(1), stage.term),
        within: SOON,
        then: |stage, sim| {
            // Its promise still arrives.
            cut_way(sim, stage.other(0), stage.other(1));
            kill(sim, stage.other(1));
            start(sim, stage.other(1), 5);
            sim.quiet = false;
            stage.remember(sim);
        },
    },
    Scene {
        waits_for: "one more append is acknowledged",
        until: |stage, sim| stage.more_is_acknowledged(sim, 1),
        within: SOON,
        then: |_, sim| heal(sim),
    },
    ANOTHER_IS_PROMOTED,
];

const TAIL: [Scene; 5] = [
    Scene {
        then: |stage, sim| {
            for &other in &stage.others {
                freeze(sim, other);
            }
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "the leader's database has flushed more than the others hold",
        until: |stage, sim| {
            let had = stage.others.iter().map(|&other| db(sim, other, |db| db.wal.len())).max();
            db(sim, stage.leader, |db| db.flushed) > had.unwrap_or(0) + 1
        },
        within: TWICE_SOON,
        then: |stage, sim| {
            cut_off(sim, stage.other(1));
            crash_database(sim, stage.leader);
            thaw(sim, stage.other(0));
        },
    },
    Scene {
        waits_for: "the leader is promoted again",
        until: |stage, sim| promoted_after(sim, stage.leader, stage.term),
        within: ELECTION,
        then: |stage, sim| {
            freeze(sim, stage.other(0));
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
        },
    },
    Scene {
        waits_for: "its database takes clients",
        until: |stage, sim| db(sim, stage.leader, |db| db.open),
        within: SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            heal(sim);
            thaw(sim, stage.other(0));
            thaw(sim, stage.other(1));
        },
    },
    ANOTHER_IS_PROMOTED,
];

const LONGEST: [Scene; 7] = [
    Scene {
        then: |stage, sim| {
            for &other in &stage.others {
                freeze(sim, other);
            }
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "the leader's database has flushed far more than the others hold",
        until: |stage, sim| {
            let had = stage.others.iter().map(|&other| db(sim, other, |db| db.wal.len())).max();
            db(sim, stage.leader, |db| db.flushed) > had.unwrap_or(0) + 12
        },
        within: TWICE_SOON,
        then: |stage, sim| {
            sim.quiet = true;
            cut_power(sim, stage.leader);
            for &other in &stage.others {
                thaw(sim, other);
            }
        },
    },
    Scene {
        waits_for: "another node is promoted and takes clients",
        until: |stage, sim| {
            let elected = stage.elected(sim);
            elected.is_some_and(|Elected { node, .. }| {
                promoted_after(sim, node, stage.term) && db(sim, node, |db| db.open)
            })
        },
        within: ELECTION,
        then: |stage, sim| {
            let elected = stage.elected(sim).unwrap();
            stage.cast(elected.node);
            stage.term = elected.term;
            stage.remember(sim);
            sim.quiet = false;
        },
    },
    Scene {
        waits_for: "one more append is acknowledged",
        until: |stage, sim| stage.more_is_acknowledged(sim, 1),
        within: SOON,
        then: |stage, sim| {
            cut_power(sim, stage.other(0));
            freeze(sim, stage.leader);
            start(sim, stage.leader, 0);
        },
    },
    // It is recruited before it is fenced for a primary to follow.
    Scene {
        waits_for: "a node is elected, and 50 ms have passed",
        until: |stage, sim| stage.elected(sim).is_some() && sim.now > stage.since + Duration::from_millis(50),
        within: ELECTION,
        then: |stage, sim| stage.remember(sim),
    },
    Scene {
        waits_for: "60 ms have passed",
        until: |stage, sim| sim.now > stage.since + Duration::from_millis(60),
        within: SOON,
        then: |stage, sim| thaw(sim, stage.leader),
    },
    Scene {
        waits_for: "another node leads",
        until: |stage, sim| stage.another_leads(sim),
        within: ELECTION,
        then: nothing,
    },
];

const TORN: [Scene; 5] = [
    Scene {
        then: |stage, sim| {
            for &other in &stage.others {
                freeze(sim, other);
            }
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "the leader's database has flushed more than the others hold",
        until: |stage, sim| {
            let had = stage.others.iter().map(|&other| db(sim, other, |db| db.wal.len())).max();
            db(sim, stage.leader, |db| db.flushed) > had.unwrap_or(0) + 1
        },
        within: TWICE_SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            for &other in &stage.others {
                thaw(sim, other);
            }
        },
    },
    Scene {
        waits_for: "another database is promoted",
        until: another_is_promoted,
        within: ELECTION,
        then: |stage, sim| {
            let elected = stage.elected(sim).map_or(stage.other(0), |elected| elected.node);
            stage.cast(elected);
            start(sim, stage.leader, 0);
        },
    },
    Scene {
        waits_for: "the leader's database is being rewound",
        until: |stage, sim| db(sim, stage.leader, |db| db.torn.is_some()),
        within: ELECTION,
        then: |stage, sim| {
            kill(sim, stage.leader);
            start(sim, stage.leader, 5);
            cut_power(sim, stage.other(0));
        },
    },
    Scene {
        waits_for: "the leader's database is a primary",
        until: |stage, sim| db(sim, stage.leader, |db| db.role == DatabaseRole::Primary),
        within: ELECTION,
        then: nothing,
    },
];

/// Majorities of n and of n + 1 voters meet. Where databases and witnesses are as many, all databases hold what is
/// acknowledged, and these are fewer than a majority: then the rule has to be raised before the voter is added.
const GROWTH: [Scene; 5] = [
    Scene {
        then: |stage, sim| {
            sim.no_upgrades = true;
            order(stage, sim, Order::Add(VOTER));
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "node 3 streams",
        until: |_, sim| sim.nodes.len() == 3 && db(sim, NodeId(3), Db::streaming),
        within: TWICE_SOON,
        then: |stage, sim| {
            stage.others.push(NodeId(3));
            freeze(sim, NodeId(3));
            stage.remember(sim);
        },
    },
    // By then the leader knows that it streams.
    Scene {
        waits_for: "three more appends are acknowledged, and 800 ms have passed",
        until: |stage, sim| stage.more_is_acknowledged(sim, 3) && sim.now > stage.since + Duration::from_millis(800),
        within: TWICE_SOON,
        then: |stage, sim| order(stage, sim, Order::Upgrade(NodeId(3))),
    },
    Scene {
        waits_for: "node 3 votes",
        until: |_, sim| voters(sim, NodeId(3)).is_some_and(|voters| voters.len() == 3),
        within: TWICE_SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            thaw(sim, NodeId(3));
        },
    },
    ANOTHER_IS_PROMOTED,
];

const SHRINK: [Scene; 5] = [
    Scene {
        then: |stage, sim| {
            sim.no_upgrades = true;
            freeze(sim, stage.other(0));
            freeze(sim, stage.other(1));
            stage.remember(sim);
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "three more appends are acknowledged",
        until: |stage, sim| stage.more_is_acknowledged(sim, 3),
        within: TWICE_SOON,
        then: |stage, sim| {
            order(stage, sim, Order::Down(stage.other(2)));
        },
    },
    Scene {
        waits_for: "four voters are left",
        until: |stage, sim| voters(sim, stage.other(0)).is_some_and(|voters| voters.len() == 4),
        within: SOON,
        then: |stage, sim| order(stage, sim, Order::Down(stage.other(3))),
    },
    Scene {
        waits_for: "three voters are left",
        until: |stage, sim| voters(sim, stage.other(0)).is_some_and(|voters| voters.len() == 3),
        within: SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            thaw(sim, stage.other(0));
            thaw(sim, stage.other(1));
        },
    },
    ANOTHER_IS_PROMOTED,
];

const NAMESAKE: [Scene; 5] = [
    // The first of the others lags, the second has no agent any more.
    Scene {
        then: |stage, sim| {
            kill(sim, stage.other(1));
            freeze(sim, stage.other(0));
            stage.remember(sim);
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "two more appends are acknowledged",
        until: |stage, sim| stage.more_is_acknowledged(sim, 2),
        within: TWICE_SOON,
        then: |stage, sim| {
            crash_database(sim, stage.leader);
            thaw(sim, stage.other(0));
        },
    },
    Scene {
        waits_for: "the leader is promoted again, and the first of the others has WAL of the new term",
        until: |stage, sim| {
            let (term, start) = db(sim, stage.leader, |db| (db.rule.term, db.start));
            let follows = Some((stage.leader, term));
            promoted_after(sim, stage.leader, stage.term)
                && db(sim, stage.other(0), |db| db.follows == follows && db.flushed > start)
        },
        within: ELECTION,
        then: |stage, sim| {
            freeze(sim, stage.other(0));
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
            stage.remember(sim);
        },
    },
    Scene {
        waits_for: "an append is acknowledged that the first of the others lacks",
        until: |stage, sim| {
            let had = db(sim, stage.other(0), |db| db.wal.len());
            lock(&sim.world).oracle.known.values().any(|&(end, _)| end > had)
        },
        within: SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            start(sim, stage.other(1), 0);
            thaw(sim, stage.other(0));
        },
    },
    ANOTHER_IS_PROMOTED,
];

const FAREWELL: [Scene; 3] = [
    Scene { then: |stage, sim| order(stage, sim, Order::Lead(stage.other(0))), ..AT_ONCE },
    Scene {
        waits_for: "the first of the others is in a later term",
        until: |stage, sim| view(sim, stage.other(0)).is_some_and(|view| view.term > stage.term),
        within: TWICE_SOON,
        then: |stage, sim| cut_off(sim, stage.leader),
    },
    NEVER,
];

const REVENANT: [Scene; 5] = [
    Scene { then: |_, sim| sim.quiet = true, ..AT_ONCE },
    // The first of the others does not hear the leader any more, and seeks another.
    Scene {
        waits_for: "all databases hold the same",
        until: |stage, sim| stage.all_are_equal(sim),
        within: SOON,
        then: |stage, sim| cut_way(sim, stage.leader, stage.other(0)),
    },
    Scene {
        then: |stage, sim| {
            let mut world = lock(&sim.world);
            stage.delay = Duration::from_millis(world.random.random_range(1500..2500));
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "the delay is over",
        until: |stage, sim| sim.now > stage.since + stage.delay,
        within: ELECTION,
        then: |stage, sim| {
            cut_off(sim, stage.leader);
            kill(sim, stage.other(1));
            start(sim, stage.other(1), 5);
        },
    },
    NEVER,
];

const EXPELLED: [Scene; 4] = [
    // The first two of the others know nothing of the removal of the first.
    Scene {
        then: |stage, sim| {
            for id in [stage.other(0), stage.other(1)] {
                for other in [stage.leader, stage.other(2), stage.other(3)] {
                    cut(sim, id, other);
                }
            }
            order(stage, sim, Order::Remove(stage.other(0)));
        },
        ..AT_ONCE
    },
    Scene {
        waits_for: "the leader has removed the first of the others, and a second has passed",
        until: |stage, sim| {
            let gone =
                sim.nodes[&stage.leader].with(|cluster, _| cluster.state(|state| state.was_removed(stage.other(0))));
            gone == Some(true) && sim.now > stage.since + Duration::from_millis(1000)
        },
        within: ELECTION,
        then: |stage, sim| {
            heal(sim);
            for other in [stage.leader, stage.other(2), stage.other(3)] {
                cut(sim, stage.other(1), other);
            }
        },
    },
    Scene {
        waits_for: "the first of the others knows that it was removed",
        until: |stage, sim| {
            sim.nodes[&stage.other(0)].with(|_, store| store.removed().is_ok_and(|removed| removed)) == Some(true)
        },
        within: TWICE_SOON,
        then: nothing,
    },
    NEVER,
];

const OUTSIDER: [Scene; 6] = [
    Scene {
        then: |stage, sim| {
            sim.no_upgrades = true;
            order(stage, sim, Order::Down(stage.other(0)));
        },
        ..AT_ONCE
    },
    // The first of the others is elected while its vote is being taken: the rest begin to seek a leader later.
    Scene {
        waits_for: "the vote of the first of the others is being taken",
        until: |stage, sim| sim.nodes[&stage.other(0)].with(|cluster, _| cluster.inside().voters.len()) == Some(2),
        within: SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            for id in [stage.other(1), stage.other(2)] {
                kill(sim, id);
                start(sim, id, 700);
            }
        },
    },
    // It is no voter any more, and leads.
    Scene {
        waits_for: "the first of the others is promoted, takes clients and has no vote",
        until: |stage, sim| {
            promoted_after(sim, stage.other(0), stage.term)
                && db(sim, stage.other(0), |db| db.open)
                && voters(sim, stage.other(0)).is_some_and(|voters| !voters.contains(&stage.other(0)))
        },
        within: ELECTION,
        then: |stage, sim| {
            freeze(sim, stage.other(2));
            stage.remember(sim);
        },
    },
    Scene {
        waits_for: "an append is acknowledged that the third of the others lacks",
        until: |stage, sim| {
            let had = db(sim, stage.other(2), |db| db.wal.len());
            lock(&sim.world).oracle.known.values().any(|&(end, _)| end > had)
        },
        within: SOON,
        then: |stage, sim| {
            stage.term = db(sim, stage.other(0), |db| db.rule.term.0);
            cut_power(sim, stage.other(0));
            cut_power(sim, stage.other(1));
            thaw(sim, stage.other(2));
            start(sim, stage.leader, 0);
        },
    },
    Scene {
        waits_for: "another node leads",
        until: |stage, sim| stage.another_leads(sim),
        within: ELECTION,
        then: nothing,
    },
    NEVER,
];

const INTERLUDE: [Scene; 8] = [
    Scene { then: |_, sim| sim.quiet = true, ..AT_ONCE },
    Scene {
        waits_for: "all databases hold the same",
        until: |stage, sim| stage.all_are_equal(sim),
        within: SOON,
        then: |stage, sim| kill(sim, stage.leader),
    },
    Scene {
        waits_for: "another node is elected",
        until: |stage, sim| stage.elected(sim).is_some(),
        within: ELECTION,
        then: |stage, sim| {
            let elected = stage.elected(sim).unwrap();
            stage.cast(elected.node);
            stage.term = elected.term;
        },
    },
    // It has recruited the second, and is not promoted before the earlier primary's agent knows that it leads.
    Scene {
        waits_for: "the first of the others knows that it leads",
        until: |stage, sim| {
            let led = sim.nodes[&stage.other(0)].with(|cluster, _| cluster.state(|state| state.lead)).flatten();
            led.is_some_and(|lead| lead.term == Term(stage.term))
        },
        within: TWICE_SOON,
        then: |stage, sim| {
            freeze(sim, stage.other(0));
            start(sim, stage.leader, 0);
        },
    },
    Scene {
        waits_for: "the earlier leader knows that too",
        until: |stage, sim| {
            let led = sim.nodes[&stage.leader].with(|cluster, _| cluster.state(|state| state.lead)).flatten();
            led.is_some_and(|lead| lead.term == Term(stage.term))
        },
        within: SOON,
        then: |stage, sim| thaw(sim, stage.other(0)),
    },
    Scene {
        waits_for: "the first of the others is a primary",
        until: |stage, sim| db(sim, stage.other(0), |db| db.role == DatabaseRole::Primary),
        within: SOON,
        then: |stage, sim| {
            cut_off(sim, stage.other(0));
            kill(sim, stage.other(1));
            start(sim, stage.other(1), 0);
            sim.quiet = false;
            stage.remember(sim);
        },
    },
    Scene {
        waits_for: "the earlier leader is promoted again, and two more appends are acknowledged",
        until: |stage, sim| promoted_after(sim, stage.leader, stage.term) && stage.more_is_acknowledged(sim, 2),
        within: ELECTION,
        then: |stage, sim| {
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
            cut_power(sim, stage.leader);
            heal(sim);
        },
    },
    ANOTHER_IS_PROMOTED,
];

const USURPER: [Scene; 3] = [
    // The first of the others strays while it is cut off; the second holds what is acknowledged from then on.
    Scene {
        waits_for: "the first two of the others stream",
        until: |stage, sim| db(sim, stage.other(0), Db::streaming) && db(sim, stage.other(1), Db::streaming),
        within: SOON,
        then: |stage, sim| {
            cut_off(sim, stage.other(0));
            stray(sim, stage.other(0));
            stage.remember(sim);
        },
    },
    Scene {
        waits_for: "three more appends are acknowledged",
        until: |stage, sim| stage.more_is_acknowledged(sim, 3),
        within: TWICE_SOON,
        then: |stage, sim| {
            cut_power(sim, stage.leader);
            heal(sim);
        },
    },
    Scene {
        waits_for: "another database is promoted",
        until: another_is_promoted,
        within: ELECTION,
        then: |stage, sim| start(sim, stage.leader, 0),
    },
];
