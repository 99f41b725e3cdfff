//! Whether one cluster could have given the answers of all nodes: two nodes never speak for it at once.

use std::collections::BTreeMap;
use std::time::Instant;

/// A node spoke for the cluster: it acknowledged a row, or said that it leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Claim {
    /// The index of the node.
    pub(crate) node: usize,
    /// A number that grows from one leader to the next: a timeline, or a term.
    pub(crate) epoch: u64,
    /// When the request was sent, and when the answer came.
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
}

/// Claims that came too late, each with the claim that it should have respected: its request was sent after another
/// node had spoken in a later epoch. If two nodes spoke in one epoch, the one that spoke later counts as later.
pub(crate) fn overtaken(claims: &[Claim]) -> Vec<(Claim, Claim)> {
    let mut firsts: BTreeMap<(u64, usize), Claim> = BTreeMap::new();
    for claim in claims {
        let first = firsts.entry((claim.epoch, claim.node)).or_insert(*claim);
        if claim.at < first.at {
            *first = *claim;
        }
    }
    let mut order: Vec<Claim> = firsts.into_values().collect();
    order.sort_by_key(|first| (first.epoch, first.at));
    // From which claim on a node had to be silent in an epoch. There are few epochs and nodes, and many claims.
    let silenced: BTreeMap<(u64, usize), Claim> = (0..order.len())
        .filter_map(|own| {
            let Claim { node, epoch, .. } = order[own];
            let others = order[own + 1..].iter().filter(|later| later.node != node);
            Some(((epoch, node), *others.min_by_key(|later| later.at)?))
        })
        .collect();
    let late = |claim: &Claim| {
        let other = silenced.get(&(claim.epoch, claim.node)).filter(|other| other.at < claim.sent)?;
        Some((*claim, *other))
    };
    claims.iter().filter_map(late).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The indices of the claims, given as `(node, epoch, sent, at)`, that are too late.
    fn late(claims: &[(usize, u64, u64, u64)]) -> Vec<usize> {
        let zero = Instant::now();
        let time = |millis| zero + Duration::from_millis(millis);
        let claims: Vec<Claim> = claims
            .iter()
            .map(|&(node, epoch, sent, at)| Claim { node, epoch, sent: time(sent), at: time(at) })
            .collect();
        overtaken(&claims).iter().filter_map(|(late, _)| claims.iter().position(|claim| claim == late)).collect()
    }

    #[test]
    fn who_was_asked_before_the_other_spoke_may_answer_after() {
        for (claims, expected) in [
            // One after the other.
            (&[(0, 1, 0, 1), (0, 1, 2, 3), (1, 2, 4, 5)][..], &[][..]),
            // Asked before, answered late.
            (&[(0, 1, 0, 1), (1, 2, 4, 5), (0, 1, 3, 9)], &[]),
            // At the same instant is not after.
            (&[(1, 2, 4, 5), (0, 1, 5, 9)], &[]),
            // Asked after the other had spoken.
            (&[(0, 1, 0, 1), (1, 2, 4, 5), (0, 1, 6, 9)], &[2]),
            // The first claim counts, whatever their order.
            (&[(1, 2, 7, 8), (0, 1, 6, 9), (1, 2, 4, 5)], &[1]),
            // A node does not silence itself.
            (&[(0, 2, 0, 1), (0, 1, 2, 3)], &[]),
            // A node between two epochs of another.
            (&[(0, 1, 0, 1), (1, 2, 2, 3), (0, 3, 4, 5), (1, 2, 6, 7), (0, 3, 8, 9)], &[3]),
            // Two nodes in one epoch: the first must be silent once the other has spoken.
            (&[(0, 2, 0, 1), (1, 2, 2, 3), (1, 2, 4, 5)], &[]),
            (&[(0, 2, 0, 1), (1, 2, 2, 3), (0, 2, 4, 5)], &[2]),
            (&[], &[]),
        ] {
            assert_eq!(late(claims), expected, "{claims:?}");
        }
    }
}
