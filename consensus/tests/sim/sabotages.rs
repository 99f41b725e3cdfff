//! The simulation finds what is broken on purpose.

use qluster_consensus::sabotage::Sabotage;

use crate::check::Invariant;
use crate::seeds::{report, search};

/// Each is found within so many seeds.
const WITHIN: u64 = 1000;

/// Those that it takes more seeds to find, or other faults than there are yet. They are tried by name only, with the
/// variables `SIM_SABOTAGE` and `SIM_WITHIN`.
const RARE: [Sabotage; 13] = [
    Sabotage::PromiseAsPrimary,
    Sabotage::TermBeforeWal,
    Sabotage::ForgetPromise,
    Sabotage::AdmitBeforeHeld,
    Sabotage::VoterBeforeRule,
    Sabotage::NoBarrier,
    Sabotage::RemoveBeforeHeld,
    Sabotage::CountOutsider,
    Sabotage::CountUntagged,
    Sabotage::LeaseInHandOver,
    Sabotage::VoteInSpiteOfPromise,
    Sabotage::VoteWhenRemoved,
    Sabotage::ResumeAfterAnother,
];

/// What is broken for safety does not count as found where all that fails is that the cluster is well in the end.
fn counts(sabotage: Sabotage, found: Invariant) -> bool {
    sabotage == Sabotage::KeepOldRule || !format!("{found:?}").ends_with("InTheEnd")
}

#[test]
fn each_sabotage_is_found() {
    let only = std::env::var("SIM_SABOTAGE").ok();
    let within = std::env::var("SIM_WITHIN").ok().and_then(|value| value.parse().ok()).unwrap_or(WITHIN);
    let mut missed = Vec::new();
    for sabotage in Sabotage::ALL {
        let name = format!("{sabotage:?}");
        match &only {
            Some(only) if *only != name => continue,
            None if RARE.contains(&sabotage) => continue,
            _ => {}
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
