//! Histories without a violation, and the same history for the same seed.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qluster_consensus::env::sabotage::Sabotage;

use crate::watch_panics;
use crate::world::{Outcome, lock, run};

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// How often progress is printed.
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs seeds on all cores until `enough` have failed, and returns those that failed, the smallest first.
pub fn search(first: u64, count: u64, enough: usize, bent: Option<Sabotage>) -> (Vec<Outcome>, Totals) {
    watch_panics();
    let next = AtomicU64::new(first);
    let found = Mutex::new(Vec::<Outcome>::new());
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (begun, told) = (Instant::now(), Mutex::new(Instant::now()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while lock(&found).len() < enough {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run(seed, bent, false);
                    let histories = lock(&totals).add(&outcome);
                    if outcome.violation.is_some() {
                        lock(&found).push(outcome);
                    }
                    let mut told = lock(&told);
                    if told.elapsed() >= PROGRESS {
                        *told = Instant::now();
                        let (failed, rate) = (lock(&found).len(), histories as f64 / begun.elapsed().as_secs_f64());
                        println!("{histories} of {count} histories, {rate:.1} histories/s, {failed} with a violation");
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|outcome| outcome.seed);
    (found, totals.into_inner().unwrap())
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
    /// Adds one; returned is how many there are then.
    fn add(&mut self, outcome: &Outcome) -> u64 {
        self.histories += 1;
        self.steps += outcome.steps;
        self.simulated += outcome.simulated.as_secs_f64() - 1000.0;
        self.acknowledged += outcome.acknowledged;
        self.promotions += outcome.promotions;
        self.histories
    }

    fn told(&self, took: f64) -> String {
        format!(
            "{} histories, {:.0} simulated s, {} steps, {} promotions, {} appends acknowledged, in {took:.1} s: {:.1} \
             histories/s, {:.0} steps/s",
            self.histories,
            self.simulated,
            self.steps,
            self.promotions,
            self.acknowledged,
            self.histories as f64 / took,
            self.steps as f64 / took
        )
    }
}

/// A violation, for people.
pub fn report(seed: u64, bent: Option<Sabotage>) -> String {
    watch_panics();
    let outcome = run(seed, bent, true);
    let Some(violation) = outcome.violation else {
        return format!("seed {seed}: no violation\n\n{}", outcome.lines.join("\n"));
    };
    format!("seed {seed}: {:?}: {}\n\n{}", violation.invariant, violation.how, outcome.lines.join("\n"))
}

/// So many failures are enough.
const ENOUGH: usize = 10;

#[test]
fn histories_are_free_of_violations() {
    let (first, count) = (number("SIM_SEED", 1), number("SIM_SEEDS", 20));
    let begun = Instant::now();
    let (found, totals) = search(first, count, ENOUGH, None);
    println!("{}", totals.told(begun.elapsed().as_secs_f64()));
    let Some(smallest) = found.first() else { return };
    let others = found[1..].iter().filter_map(|outcome| {
        let violation = outcome.violation.as_ref()?;
        Some(format!("\nseed {}: {:?}: {}", outcome.seed, violation.invariant, violation.how))
    });
    let others: String = others.collect();
    panic!("{}\n{others}", report(smallest.seed, None));
}

/// Histories that once broke something. What comes to pass in a seed changes with the code, so they are no proof that it
/// stays mended, but cost nothing.
#[test]
fn what_was_mended_stays_so() {
    watch_panics();
    for (seed, what) in [
        (63, "a leader that restarted told its old settings for the newest"),
        (184, "a leader that restarted wrote other entries in place of those that its disk had lost"),
        (176, "a first node that was removed did not start"),
        (61, "a node whose database needs a clone was elected, and never asked the others for long enough"),
        (395, "a voter that was declared down held the newest commit, and was not considered"),
        (7801, "a node whose vote was being taken had the longest log, and did not stand"),
        (10533, "a first node that was paused while it was created gave up"),
    ] {
        let outcome = run(seed, None, false);
        assert!(outcome.violation.is_none(), "{what}: {}", report(seed, None));
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
