//! The run: rounds of faults, and after each the checks that the cluster is well again and that nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::clock;
use super::fault::{Deck, Fault, Kind};
use super::inflict::{Inflicted, deposes, inflict, lasts};
use super::ledger::gap;
use super::table::Round;
use super::world::World;
use crate::args::Chaos;
use crate::wait::pause;

/// How long an election may take, if one is possible at all.
const ELECTION_LIMIT: Duration = Duration::from_secs(10);
/// How long clients run without a fault, so that there is something to lose.
const CALM: Duration = Duration::from_millis(700);
/// Every this many rounds, all rows are looked for, not only new ones.
const FULL_AUDIT: usize = 20;

/// The result of a run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rounds: Vec<Round>,
    /// How many rows clients know of.
    pub(crate) rows: usize,
    /// How many of them are lost, and how many answers came too late, including those outside of a round.
    pub(crate) lost: usize,
    pub(crate) late: usize,
    /// How many daemons ended by themselves.
    pub(crate) ended: usize,
}

/// Puts faults into the cluster until there were enough. The result is in `report`, even if this fails.
pub(crate) fn run(world: &mut World, options: &Chaos, report: &mut Report) -> Result<()> {
    let done = rounds(world, options, report);
    let late = world.late();
    let of = |number: fn(&Round) -> usize| report.rounds.iter().map(number).sum::<usize>();
    report.late = late + of(|round| round.overtaken);
    report.lost += of(|round| round.lost);
    report.rows = world.ledger.len();
    report.ended = world.ended;
    done
}

fn rounds(world: &mut World, options: &Chaos, report: &mut Report) -> Result<()> {
    let steps_clock = clock::may_step();
    if !steps_clock {
        world.journal.tell("this machine's clock may not be set: faults of the clock are left out");
    }
    let mut deck = Deck::new(|kind| steps_clock || !matches!(kind, Kind::ClockForward | Kind::ClockBack));
    let end = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * u64::from(minutes)));
    let (mut count, mut failed) = (0, false);
    while options.faults.is_none_or(|faults| count < faults) && end.is_none_or(|end| Instant::now() < end) {
        let draw = || deck.draw(&mut world.random);
        let faults: Vec<Fault> = std::iter::repeat_with(draw).take(options.together as usize).flatten().collect();
        count += options.together;
        let names = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" + ");
        let all = report.rounds.len() % FULL_AUDIT == FULL_AUDIT - 1;
        let round = round(world, faults, all, options.sabotage.is_some());
        let round = round.with_context(|| format!("fault {count}, {names}"))?;
        failed |= round.lost + round.overtaken > 0;
        report.rounds.push(round);
        if failed && options.sabotage.is_some() {
            break;
        }
    }
    // What clients learn from here on is not looked for any more.
    world.dismiss_clients();
    report.lost = world.audit(true)?;
    Ok(())
}

fn round(world: &mut World, faults: Vec<Fault>, all: bool, sabotaged: bool) -> Result<Round> {
    pause(CALM)?;
    let start = Instant::now();
    let mut inflicted: Vec<Inflicted> = Vec::new();
    for &fault in &faults {
        if !inflicted.is_empty() {
            let between = world.random.millis(0, 800);
            pause(between)?;
        }
        inflicted.push(inflict(world, fault).with_context(|| format!("putting in: {fault}"))?);
    }
    for one in inflicted.iter().filter(|one| deposes(one.fault)) {
        wait_for_another(world, one.node)?;
    }
    let rest = faults.iter().map(|&fault| lasts(fault, &mut world.random)).max().unwrap_or_default();
    pause(rest)?;
    let whom: Vec<String> = inflicted.iter().map(name).collect();
    inflicted.sort_by_key(Inflicted::ends);
    for one in inflicted {
        let fault = one.fault;
        one.end(world).with_context(|| format!("ending: {fault}"))?;
    }
    let healed = Instant::now();
    let recovered = world.recover(healed);
    // A cluster with a broken rule may not be well again because of what it lost, so that is looked for in any case.
    let (lost, overtaken) = match &recovered {
        Err(_) if !sabotaged => (0, 0),
        _ => (world.audit(all)?, world.late()),
    };
    let recovered = match recovered {
        Err(error) if lost + overtaken > 0 => {
            world.journal.tell(format!("it is not well again: {error:#}"));
            healed.elapsed()
        }
        recovered => recovered?,
    };
    let gap = world.ledger.with_acks(|acks| gap(acks, start, healed + recovered));
    note_first_ack(world, healed);
    world.journal.tell(format!(
        "{}: gap {:.1} s, well {:.1} s after its end, {lost} lost, {overtaken} late",
        whom.join(" + "),
        gap.as_secs_f64(),
        recovered.as_secs_f64()
    ));
    Ok(Round { faults, gap, lost, overtaken })
}

fn name(inflicted: &Inflicted) -> String {
    let node = inflicted.node.map_or(String::new(), |node| format!(", node {}", node + 1));
    format!("{}{node}", inflicted.fault)
}

/// Waits until another node than `old` leads. It is no failure if none can, because of faults that come together.
fn wait_for_another(world: &World, old: Option<usize>) -> Result<()> {
    let (start, compass) = (Instant::now(), world.watch.compass());
    while start.elapsed() < ELECTION_LIMIT {
        if compass.leader().is_some_and(|leader| Some(leader) != old) {
            return Ok(());
        }
        pause(Duration::from_millis(50))?;
    }
    world.journal.note("no other node was elected while the fault lasted");
    Ok(())
}

fn note_first_ack(world: &World, since: Instant) {
    let first = world.ledger.with_acks(|acks| acks.iter().find(|ack| ack.sent > since).copied());
    if let Some(ack) = first {
        let at = world.journal.offset(ack.at);
        let (node, timeline) = (ack.node + 1, ack.timeline);
        world
            .journal
            .note(format!("row {} was acknowledged first, by node {node}, timeline {timeline}, at {at}", ack.row));
    }
}

/// Fails if a process of the nodes still runs at the end.
pub(crate) fn check_nothing_runs(world: &mut World) -> Result<()> {
    let left = world.cluster.stop();
    let still: Vec<u32> = world.cluster.nodes().iter().flat_map(|node| node.processes()).collect();
    match [left, still].concat() {
        left if left.is_empty() => Ok(()),
        left => bail!("at the end these processes of the nodes still run: {left:?}"),
    }
}
