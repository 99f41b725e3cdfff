//! Histories without a violation, and the same history for the same seed.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use qluster_consensus::sabotage::Sabotage;

use crate::watch_panics;
use crate::world::{Outcome, lock, run};

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// Runs seeds on all cores, and returns the first that fails, if one does, and how many were run.
pub fn search(first: u64, count: u64, bent: Option<Sabotage>) -> (Option<Outcome>, u64, Totals) {
    watch_panics();
    let next = AtomicU64::new(first);
    let found = Mutex::new(None::<Outcome>);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || lock(&found).as_ref().is_some_and(|found| found.seed < seed) {
                        return;
                    }
                    let outcome = run(seed, bent, false);
                    lock(&totals).add(&outcome);
                    if outcome.violation.is_some() {
                        let mut found = lock(&found);
                        if found.as_ref().is_none_or(|found| found.seed > seed) {
                            *found = Some(outcome);
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let ran = found.as_ref().map_or(count, |found| found.seed - first + 1);
    (found, ran, totals.into_inner().unwrap())
}

/// What all histories together did.
#[derive(Default)]
pub struct Totals {
    histories: u64,
    steps: u64,
    simulated: f64,
    acknowledged: u64,
    promotions: u64,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.histories += 1;
        self.steps += outcome.steps;
        self.simulated += outcome.simulated.as_secs_f64() - 1000.0;
        self.acknowledged += outcome.acknowledged;
        self.promotions += outcome.promotions;
    }
}

/// A violation, for people.
pub fn report(seed: u64, bent: Option<Sabotage>) -> String {
    let outcome = run(seed, bent, true);
    let Some(violation) = outcome.violation else { return format!("seed {seed} is not repeatable") };
    format!("seed {seed}: {:?}: {}\n\n{}", violation.invariant, violation.how, outcome.lines.join("\n"))
}

#[test]
fn histories_are_free_of_violations() {
    let (first, count) = (number("SIM_SEED", 1), number("SIM_SEEDS", 20));
    let begun = Instant::now();
    let (found, ran, totals) = search(first, count, None);
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{ran} histories, {:.0} simulated s, {} steps, {} promotions, {} appends acknowledged, in {took:.1} s: {:.1} \
         histories/s, {:.0} steps/s",
        totals.simulated,
        totals.steps,
        totals.promotions,
        totals.acknowledged,
        totals.histories as f64 / took,
        totals.steps as f64 / took
    );
    if let Some(found) = found {
        panic!("{}", report(found.seed, None));
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    watch_panics();
    for seed in number("SIM_SEED", 1)..number("SIM_SEED", 1) + 10 {
        let (one, other) = (run(seed, None, false), run(seed, None, true));
        assert_eq!((one.steps, one.digest), (other.steps, other.digest), "seed {seed}");
    }
}
