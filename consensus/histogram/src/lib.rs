//! Stands in for the crate of this name, with whose histograms openraft counts how large its batches are.
//!
//! That crate makes the tables of all of its sixteen resolutions when the first histogram is made, and openraft uses one:
//! 27 MiB in every agent, more than all else together, for figures that nobody reads. Here a histogram has one bucket for
//! each power of two, and there are no tables. What openraft needs of it is all that there is.

use std::fmt;
use std::marker::PhantomData;

/// One for zero, and one for each power of two.
const BUCKETS: usize = 65;

/// How often values of each magnitude came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One that has counted nothing.
    #[expect(clippy::new_without_default, reason = "openraft asks for no more")]
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], slots: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value that came so often.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = u64::BITS - value.leading_zeros();
        self.counts[bucket as usize] += count;
    }

    /// Below which values so many of all lie, as the least of their magnitude; all zero where nothing was counted.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().sum();
        let at = |permille: u64| self.at(u128::from(samples) * u128::from(permille));
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The least value of the bucket in which the count passes so many thousandths.
    fn at(&self, thousandths: u128) -> u64 {
        let mut passed = 0;
        let bucket = self.counts.iter().position(|&count| {
            passed += u128::from(count) * 1000;
            passed > 0 && passed >= thousandths
        });
        match bucket {
            None | Some(0) => 0,
            Some(bucket) => 1 << (bucket - 1),
        }
    }
}

/// Below which values so many percent of all lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    /// How many values there are.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p99, .. } = self;
        write!(f, "{samples} values, half of them up to about {p50}, 99 % up to about {p99}")
    }
}

/// Histograms one below the other, for people.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(&'static str, Histogram)>);

impl AsciiChart {
    /// One without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more.
    pub fn add(mut self, name: &'static str, histogram: Histogram) -> Self {
        self.0.push((name, histogram));
        self
    }

    /// The chart, to be shown.
    pub fn detailed(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_their_magnitude() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().samples, 0);
        assert_eq!(histogram.percentile_stats().p99, 0);
        histogram.record_n(0, 500);
        histogram.record_n(5, 400);
        histogram.record_n(1 << 20, 99);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p10, stats.p50), (1000, 0, 0, 0));
        assert_eq!((stats.p90, stats.p99, stats.p99_9), (4, 1 << 20, 1 << 20));
        let chart = AsciiChart::new().add("batches", histogram).to_string();
        assert_eq!(chart, "batches: 1000 values, half of them up to about 0, 99 % up to about 1048576\n");
    }
}
