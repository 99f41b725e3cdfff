//! Random choices that a seed repeats.

use std::time::Duration;

/// A generator of numbers. Not for secrets: the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// It steps by the golden ratio through all 64-bit numbers, and mixes the bits of each, so that neighbours look
    /// unlike.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
            word = (word ^ (word >> shift)).wrapping_mul(factor);
        }
        word ^ (word >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // The limits are so small that the bias of the remainder does not show.
        (self.next() % limit as u64) as usize
    }

    /// A time of at least `from` and less than `to` milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }

    /// One of several things. None if there are none.
    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }

    /// Puts things into a random order.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let first = |seed| Random::new(seed).next();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn nothing_is_out_of_its_range_and_all_of_it_is_met() {
        let mut random = Random::new(1);
        let mut met = [0; 5];
        (0..1000).for_each(|_| met[random.below(5)] += 1);
        assert!(met.iter().all(|&count| count > 100), "{met:?}");
        assert!((0..100).map(|_| random.millis(10, 20)).all(|time| (10..20).contains(&time.as_millis())));
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut things: Vec<u32> = (0..50).collect();
        Random::new(3).shuffle(&mut things);
        assert!(!things.is_sorted());
        things.sort();
        assert_eq!(things, (0..50).collect::<Vec<_>>());
        assert_eq!(Random::new(3).choose::<u32>(&[]), None);
    }
}
