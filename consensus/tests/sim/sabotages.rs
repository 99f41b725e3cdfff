//! The simulation finds what is broken on purpose.

use qluster_consensus::sabotage::Sabotage;

use crate::seeds::{report, search};

/// Each is found within so many seeds.
const WITHIN: u64 = 300;

#[test]
fn each_sabotage_is_found() {
    let only = std::env::var("SIM_SABOTAGE").ok();
    let within = std::env::var("SIM_WITHIN").ok().and_then(|value| value.parse().ok()).unwrap_or(WITHIN);
    let mut missed = Vec::new();
    for sabotage in Sabotage::ALL {
        let name = format!("{sabotage:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let begun = std::time::Instant::now();
        let (found, _) = search(1, within, 1, Some(sabotage));
        match found.into_iter().next().and_then(|found| Some((found.seed, found.violation?))) {
            Some((seed, violation)) => {
                println!("{name}: seed {seed}: {:?}: {} ({:.1?})", violation.invariant, violation.how, begun.elapsed());
                if only.is_some() {
                    println!("{}", report(seed, Some(sabotage)));
                }
            }
            None => {
                println!("{name}: not within {within} seeds ({:.1?})", begun.elapsed());
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
