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
        let (found, ran, _) = search(1, within, Some(sabotage));
        match found.and_then(|found| found.violation) {
            Some(violation) => {
                println!("{name}: seed {ran}: {:?}: {} ({:.1?})", violation.invariant, violation.how, begun.elapsed());
                if only.is_some() {
                    println!("{}", report(ran, Some(sabotage)));
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
