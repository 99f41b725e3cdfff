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

/// Long enough for an election, in milliseconds, and for a promotion after it.
const ELECTION: u64 = 6000;
/// Long enough for what comes only where a rule is broken.
const SOON: u64 = 1500;

const DEPOSED: [Scene; 4] = [
    scene(at_once, 0, |_, sim| sim.quiet = true),
    scene(
        |stage, sim| stage.all_are_equal(sim),
        SOON,
        |stage, sim| {
            kill(sim, stage.leader);
            freeze(sim, stage.leader);
        },
    ),
    // The first of the others is elected, the second is not recruited.
    scene(
        |stage, sim| stage.elected(sim).is_some(),
        ELECTION,
        |stage, sim| {
            let (elected, _) = stage.elected(sim).unwrap();
            stage.cast(elected);
            cut(sim, stage.other(0), stage.other(1));
            thaw(sim, stage.leader);
            start(sim, stage.leader, 0);
            sim.quiet = false;
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const UNREACHED: [Scene; 5] = [
    // The first of the others lags, the second holds what is acknowledged.
    scene(at_once, 0, |stage, sim| {
        freeze(sim, stage.other(0));
        stage.remember(sim);
    }),
    scene(
        |stage, sim| stage.more_is_acknowledged(sim, 3),
        2 * SOON,
        |stage, sim| {
            cut_off(sim, stage.other(1));
            cut_power(sim, stage.leader);
            start(sim, stage.leader, 50);
        },
    ),
    scene(
        |stage, sim| {
            let announced = sim.nodes[&stage.other(0)]
                .with(|cluster, _| cluster.state(|state| state.promoted.as_ref().map(|promoted| promoted.term)));
            promoted_after(sim, stage.leader, stage.term) && announced.flatten() > Some(Term(stage.term))
        },
        ELECTION,
        |stage, sim| {
            freeze(sim, stage.leader);
            thaw(sim, stage.other(0));
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
        },
    ),
    scene(
        |stage, sim| db(sim, stage.other(0), |db| db.follows == Some((stage.leader, Term(stage.term)))),
        SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            heal(sim);
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const FORGETFUL: [Scene; 6] = [
    scene(at_once, 0, |_, sim| sim.quiet = true),
    scene(
        |stage, sim| stage.all_are_equal(sim),
        SOON,
        |stage, sim| {
            let leader = stage.leader;
            sim.say(|| format!("node {leader}: the agent is stopped"));
            sim.nodes.get_mut(&leader).unwrap().paused = Some(Duration::MAX);
        },
    ),
    // The first of the others is elected, and recruits the second.
    scene(
        |stage, sim| stage.elected(sim).is_some(),
        ELECTION,
        |stage, sim| {
            let (elected, term) = stage.elected(sim).unwrap();
            stage.cast(elected);
            stage.term = term;
            cut(sim, elected, stage.leader);
        },
    ),
    scene(
        |stage, sim| has_promised(sim, stage.other(1), stage.term),
        SOON,
        |stage, sim| {
            // Its promise still arrives.
            cut_way(sim, stage.other(0), stage.other(1));
            kill(sim, stage.other(1));
            start(sim, stage.other(1), 5);
            sim.quiet = false;
            stage.remember(sim);
        },
    ),
    scene(|stage, sim| stage.more_is_acknowledged(sim, 1), SOON, |_, sim| heal(sim)),
    scene(another_is_promoted, ELECTION, nothing),
];

const TAIL: [Scene; 5] = [
    scene(at_once, 0, |stage, sim| {
        for &other in &stage.others {
            freeze(sim, other);
        }
    }),
    scene(
        |stage, sim| {
            let had = stage.others.iter().map(|&other| db(sim, other, |db| db.wal.len())).max();
            db(sim, stage.leader, |db| db.flushed) > had.unwrap_or(0) + 1
        },
        2 * SOON,
        |stage, sim| {
            cut_off(sim, stage.other(1));
            crash_database(sim, stage.leader);
            thaw(sim, stage.other(0));
        },
    ),
    scene(
        |stage, sim| promoted_after(sim, stage.leader, stage.term),
        ELECTION,
        |stage, sim| {
            freeze(sim, stage.other(0));
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
        },
    ),
    scene(
        |stage, sim| db(sim, stage.leader, |db| db.open),
        SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            heal(sim);
            thaw(sim, stage.other(0));
            thaw(sim, stage.other(1));
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const LONGEST: [Scene; 7] = [
    scene(at_once, 0, |stage, sim| {
        for &other in &stage.others {
            freeze(sim, other);
        }
    }),
    scene(
        |stage, sim| {
            let had = stage.others.iter().map(|&other| db(sim, other, |db| db.wal.len())).max();
            db(sim, stage.leader, |db| db.flushed) > had.unwrap_or(0) + 12
        },
        2 * SOON,
        |stage, sim| {
            sim.quiet = true;
            cut_power(sim, stage.leader);
            for &other in &stage.others {
                thaw(sim, other);
            }
        },
    ),
    scene(
        |stage, sim| {
            let elected = stage.elected(sim);
            elected.is_some_and(|(id, _)| promoted_after(sim, id, stage.term) && db(sim, id, |db| db.open))
        },
        ELECTION,
        |stage, sim| {
            let (elected, term) = stage.elected(sim).unwrap();
            stage.cast(elected);
            stage.term = term;
            stage.remember(sim);
            sim.quiet = false;
        },
    ),
    scene(
        |stage, sim| stage.more_is_acknowledged(sim, 1),
        SOON,
        |stage, sim| {
            cut_power(sim, stage.other(0));
            freeze(sim, stage.leader);
            start(sim, stage.leader, 0);
        },
    ),
    // It is recruited before it is fenced for a primary to follow.
    scene(
        |stage, sim| stage.elected(sim).is_some() && sim.now > stage.since + Duration::from_millis(50),
        ELECTION,
        |stage, sim| stage.remember(sim),
    ),
    scene(|stage, sim| sim.now > stage.since + Duration::from_millis(60), SOON, |stage, sim| thaw(sim, stage.leader)),
    scene(|stage, sim| stage.another_leads(sim), ELECTION, nothing),
];

const TORN: [Scene; 5] = [
    scene(at_once, 0, |stage, sim| {
        for &other in &stage.others {
            freeze(sim, other);
        }
    }),
    scene(
        |stage, sim| {
            let had = stage.others.iter().map(|&other| db(sim, other, |db| db.wal.len())).max();
            db(sim, stage.leader, |db| db.flushed) > had.unwrap_or(0) + 1
        },
        2 * SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            for &other in &stage.others {
                thaw(sim, other);
            }
        },
    ),
    scene(another_is_promoted, ELECTION, |stage, sim| {
        let (elected, _) = stage.elected(sim).unwrap_or((stage.other(0), 0));
        stage.cast(elected);
        start(sim, stage.leader, 0);
    }),
    scene(
        |stage, sim| db(sim, stage.leader, |db| db.torn.is_some()),
        ELECTION,
        |stage, sim| {
            kill(sim, stage.leader);
            start(sim, stage.leader, 5);
            cut_power(sim, stage.other(0));
        },
    ),
    scene(|stage, sim| db(sim, stage.leader, |db| db.role == DatabaseRole::Primary), ELECTION, nothing),
];

/// Majorities of n and of n + 1 voters meet. Where databases and witnesses are as many, all databases hold what is
/// acknowledged, and these are fewer than a majority: then the rule has to be raised before the voter is added.
const GROWTH: [Scene; 5] = [
    scene(at_once, 0, |stage, sim| {
        sim.no_upgrades = true;
        order(stage, sim, Order::Add(VOTER));
    }),
    scene(
        |_, sim| sim.nodes.len() == 3 && db(sim, NodeId(3), Db::streaming),
        2 * SOON,
        |stage, sim| {
            stage.others.push(NodeId(3));
            freeze(sim, NodeId(3));
            stage.remember(sim);
        },
    ),
    // By then the leader knows that it streams.
    scene(
        |stage, sim| stage.more_is_acknowledged(sim, 3) && sim.now > stage.since + Duration::from_millis(800),
        2 * SOON,
        |stage, sim| order(stage, sim, Order::Upgrade(NodeId(3))),
    ),
    scene(
        |_, sim| voters(sim, NodeId(3)).is_some_and(|voters| voters.len() == 3),
        2 * SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            thaw(sim, NodeId(3));
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const SHRINK: [Scene; 5] = [
    scene(at_once, 0, |stage, sim| {
        sim.no_upgrades = true;
        freeze(sim, stage.other(0));
        freeze(sim, stage.other(1));
        stage.remember(sim);
    }),
    scene(
        |stage, sim| stage.more_is_acknowledged(sim, 3),
        2 * SOON,
        |stage, sim| {
            order(stage, sim, Order::Down(stage.other(2)));
        },
    ),
    scene(
        |stage, sim| voters(sim, stage.other(0)).is_some_and(|voters| voters.len() == 4),
        SOON,
        |stage, sim| order(stage, sim, Order::Down(stage.other(3))),
    ),
    scene(
        |stage, sim| voters(sim, stage.other(0)).is_some_and(|voters| voters.len() == 3),
        SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            thaw(sim, stage.other(0));
            thaw(sim, stage.other(1));
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const NAMESAKE: [Scene; 5] = [
    // The first of the others lags, the second has no agent any more.
    scene(at_once, 0, |stage, sim| {
        kill(sim, stage.other(1));
        freeze(sim, stage.other(0));
        stage.remember(sim);
    }),
    scene(
        |stage, sim| stage.more_is_acknowledged(sim, 2),
        2 * SOON,
        |stage, sim| {
            crash_database(sim, stage.leader);
            thaw(sim, stage.other(0));
        },
    ),
    scene(
        |stage, sim| {
            let (term, start) = db(sim, stage.leader, |db| (db.rule.term, db.start));
            let follows = Some((stage.leader, term));
            promoted_after(sim, stage.leader, stage.term)
                && db(sim, stage.other(0), |db| db.follows == follows && db.flushed > start)
        },
        ELECTION,
        |stage, sim| {
            freeze(sim, stage.other(0));
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
            stage.remember(sim);
        },
    ),
    scene(
        |stage, sim| {
            let had = db(sim, stage.other(0), |db| db.wal.len());
            lock(&sim.world).oracle.known.values().any(|&(end, _)| end > had)
        },
        SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            start(sim, stage.other(1), 0);
            thaw(sim, stage.other(0));
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const FAREWELL: [Scene; 3] = [
    scene(at_once, 0, |stage, sim| order(stage, sim, Order::Lead(stage.other(0)))),
    scene(
        |stage, sim| inside(sim, stage.other(0)).is_some_and(|(term, _)| term > stage.term),
        2 * SOON,
        |stage, sim| cut_off(sim, stage.leader),
    ),
    scene(|_, _| false, SOON, nothing),
];

const REVENANT: [Scene; 5] = [
    scene(at_once, 0, |_, sim| sim.quiet = true),
    // The first of the others does not hear the leader any more, and seeks another.
    scene(|stage, sim| stage.all_are_equal(sim), SOON, |stage, sim| cut_way(sim, stage.leader, stage.other(0))),
    scene(
        |_, _| true,
        0,
        |stage, sim| {
            let mut world = lock(&sim.world);
            stage.acknowledged = world.random.random_range(1500..2500);
        },
    ),
    scene(
        |stage, sim| sim.now > stage.since + Duration::from_millis(stage.acknowledged),
        ELECTION,
        |stage, sim| {
            cut_off(sim, stage.leader);
            kill(sim, stage.other(1));
            start(sim, stage.other(1), 5);
        },
    ),
    scene(|_, _| false, SOON, nothing),
];

const EXPELLED: [Scene; 4] = [
    // The first two of the others know nothing of the removal of the first.
    scene(at_once, 0, |stage, sim| {
        for id in [stage.other(0), stage.other(1)] {
            for other in [stage.leader, stage.other(2), stage.other(3)] {
                cut(sim, id, other);
            }
        }
        order(stage, sim, Order::Remove(stage.other(0)));
    }),
    scene(
        |stage, sim| {
            let gone =
                sim.nodes[&stage.leader].with(|cluster, _| cluster.state(|state| state.was_removed(stage.other(0))));
            gone == Some(true) && sim.now > stage.since + Duration::from_millis(1000)
        },
        ELECTION,
        |stage, sim| {
            heal(sim);
            for other in [stage.leader, stage.other(2), stage.other(3)] {
                cut(sim, stage.other(1), other);
            }
        },
    ),
    scene(
        |stage, sim| {
            sim.nodes[&stage.other(0)].with(|_, store| store.removed().is_ok_and(|removed| removed)) == Some(true)
        },
        2 * SOON,
        nothing,
    ),
    scene(|_, _| false, SOON, nothing),
];

const OUTSIDER: [Scene; 6] = [
    scene(at_once, 0, |stage, sim| {
        sim.no_upgrades = true;
        order(stage, sim, Order::Down(stage.other(0)));
    }),
    // The first of the others is elected while its vote is being taken: the rest begin to seek a leader later.
    scene(
        |stage, sim| sim.nodes[&stage.other(0)].with(|cluster, _| cluster.inside().voters.len()) == Some(2),
        SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            for id in [stage.other(1), stage.other(2)] {
                kill(sim, id);
                start(sim, id, 700);
            }
        },
    ),
    // It is no voter any more, and leads.
    scene(
        |stage, sim| {
            promoted_after(sim, stage.other(0), stage.term)
                && db(sim, stage.other(0), |db| db.open)
                && voters(sim, stage.other(0)).is_some_and(|voters| !voters.contains(&stage.other(0)))
        },
        ELECTION,
        |stage, sim| {
            freeze(sim, stage.other(2));
            stage.remember(sim);
        },
    ),
    scene(
        |stage, sim| {
            let had = db(sim, stage.other(2), |db| db.wal.len());
            lock(&sim.world).oracle.known.values().any(|&(end, _)| end > had)
        },
        SOON,
        |stage, sim| {
            stage.term = db(sim, stage.other(0), |db| db.rule.term.0);
            cut_power(sim, stage.other(0));
            cut_power(sim, stage.other(1));
            thaw(sim, stage.other(2));
            start(sim, stage.leader, 0);
        },
    ),
    scene(|stage, sim| stage.another_leads(sim), ELECTION, nothing),
    scene(|_, _| false, SOON, nothing),
];

const INTERLUDE: [Scene; 8] = [
    scene(at_once, 0, |_, sim| sim.quiet = true),
    scene(|stage, sim| stage.all_are_equal(sim), SOON, |stage, sim| kill(sim, stage.leader)),
    scene(
        |stage, sim| stage.elected(sim).is_some(),
        ELECTION,
        |stage, sim| {
            let (elected, term) = stage.elected(sim).unwrap();
            stage.cast(elected);
            stage.term = term;
        },
    ),
    // It has recruited the second, and is not promoted before the earlier primary's agent knows that it leads.
    scene(
        |stage, sim| {
            let led = sim.nodes[&stage.other(0)].with(|cluster, _| cluster.state(|state| state.lead)).flatten();
            led.is_some_and(|lead| lead.term == Term(stage.term))
        },
        2 * SOON,
        |stage, sim| {
            freeze(sim, stage.other(0));
            start(sim, stage.leader, 0);
        },
    ),
    scene(
        |stage, sim| {
            let led = sim.nodes[&stage.leader].with(|cluster, _| cluster.state(|state| state.lead)).flatten();
            led.is_some_and(|lead| lead.term == Term(stage.term))
        },
        SOON,
        |stage, sim| thaw(sim, stage.other(0)),
    ),
    scene(
        |stage, sim| db(sim, stage.other(0), |db| db.role == DatabaseRole::Primary),
        SOON,
        |stage, sim| {
            cut_off(sim, stage.other(0));
            kill(sim, stage.other(1));
            start(sim, stage.other(1), 0);
            sim.quiet = false;
            stage.remember(sim);
        },
    ),
    scene(
        |stage, sim| promoted_after(sim, stage.leader, stage.term) && stage.more_is_acknowledged(sim, 2),
        ELECTION,
        |stage, sim| {
            stage.term = db(sim, stage.leader, |db| db.rule.term.0);
            cut_power(sim, stage.leader);
            heal(sim);
        },
    ),
    scene(another_is_promoted, ELECTION, nothing),
];

const USURPER: [Scene; 3] = [
    // The first of the others strays while it is cut off; the second holds what is acknowledged from then on.
    scene(
        |stage, sim| db(sim, stage.other(0), Db::streaming) && db(sim, stage.other(1), Db::streaming),
        SOON,
        |stage, sim| {
            cut_off(sim, stage.other(0));
            stray(sim, stage.other(0));
            stage.remember(sim);
        },
    ),
    scene(
        |stage, sim| stage.more_is_acknowledged(sim, 3),
        2 * SOON,
        |stage, sim| {
            cut_power(sim, stage.leader);
            heal(sim);
        },
    ),
    scene(another_is_promoted, ELECTION, |stage, sim| start(sim, stage.leader, 0)),
];
