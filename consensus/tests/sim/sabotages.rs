//! The simulation finds what is broken on purpose.

use qluster_consensus::env::sabotage::Sabotage;

use crate::check::Invariant;
use crate::seeds::{report, search};

/// Within how many seeds each is found. One is tried alone with the variable `SIM_SABOTAGE`, within others with `SIM_WITHIN`,
/// and `SIM_SHOW` shows what comes of it in one seed, whether or not something is found.
const WITHIN: u64 = 1000;

/// What is broken for safety does not count as found if all that fails is that the cluster is well in the end.
fn counts(sabotage: Sabotage, found: Invariant) -> bool {
    match sabotage {
        Sabotage::KeepOldRule => true,
        // That it serves beside another is not what is broken.
        Sabotage::PromiseAsPrimary | Sabotage::ResumeAfterAnother => found == Invariant::AcknowledgedStays,
        _ => !format!("{found:?}").ends_with("InTheEnd"),
    }
}

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
        if let (Some(_), Some(seed)) = (&only, std::env::var("SIM_SHOW").ok().and_then(|seed| seed.parse().ok())) {
            println!("{}", report(seed, Some(sabotage)));
            return;
        }
        let (begun, mut first) = (std::time::Instant::now(), 1);
        let found = loop {
            let (found, _) = search(first, (within + 1).saturating_sub(first), 1, Some(sabotage));
            let Some((seed, violation)) =
                found.into_iter().next().and_then(|found| Some((found.seed, found.violation?)))
            else {
                break None;
            };
            if counts(sabotage, violation.invariant) {
                break Some((seed, violation));
            }
            first = seed + 1;
        };
        match found {
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
