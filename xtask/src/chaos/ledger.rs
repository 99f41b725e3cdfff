//! The record of what clients know: rows that were acknowledged, and rows that were read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::epochs::Claim;

/// The table of the rows.
pub(crate) const TABLE: &str = "qluster_chaos";

/// An acknowledged row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ack {
    pub(crate) row: i64,
    /// The client that wrote it, and the node.
    pub(crate) client: usize,
    pub(crate) node: usize,
    /// The timeline of the primary.
    pub(crate) timeline: u64,
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
}

impl Ack {
    pub(crate) fn claim(&self) -> Claim {
        Claim { node: self.node, epoch: self.timeline, sent: self.sent, at: self.at }
    }
}

/// How a client first learned of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Word {
    pub(crate) node: usize,
    pub(crate) at: Instant,
    /// Whether it was acknowledged. Otherwise a client has read it.
    pub(crate) acknowledged: bool,
}

/// The record, which all clients write to.
#[derive(Default)]
pub(crate) struct Ledger {
    next: AtomicI64,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    acks: Vec<Ack>,
    known: BTreeMap<i64, Word>,
    /// The rows among them that were never looked for.
    fresh: BTreeSet<i64>,
    /// The rows that were found missing already.
    lost: BTreeSet<i64>,
}

impl Ledger {
    /// The next row that nobody has written yet.
    pub(crate) fn next(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The newest row that a client tried to write.
    pub(crate) fn newest(&self) -> i64 {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn acknowledged(&self, ack: Ack) {
        let mut books = self.books();
        books.acks.push(ack);
        books.learn(ack.row, Word { node: ack.node, at: ack.at, acknowledged: true });
    }

    /// Records that a client has read rows from the primary `node`.
    pub(crate) fn shown(&self, rows: impl Iterator<Item = i64>, node: usize) {
        let at = Instant::now();
        let mut books = self.books();
        rows.for_each(|row| books.learn(row, Word { node, at, acknowledged: false }));
    }

    /// Passes all acknowledgements to `look`, in the order in which they came.
    pub(crate) fn with_acks<T>(&self, look: impl FnOnce(&[Ack]) -> T) -> T {
        look(&self.books().acks)
    }

    /// The rows to look for: all that clients know of, or those that are new since the last time.
    pub(crate) fn expected(&self, all: bool) -> BTreeSet<i64> {
        let books = self.books();
        match all {
            true => books.known.keys().filter(|row| !books.lost.contains(row)).copied().collect(),
            false => books.fresh.clone(),
        }
    }

    /// Records that rows were looked for. Returns those that are lost, each with how a client learned of it.
    pub(crate) fn settle(&self, expected: &BTreeSet<i64>, found: &BTreeSet<i64>) -> Vec<(i64, Word)> {
        let mut books = self.books();
        books.fresh.retain(|row| !expected.contains(row));
        let missing: Vec<i64> = expected.difference(found).copied().collect();
        books.lost.extend(&missing);
        missing.iter().filter_map(|row| Some((*row, *books.known.get(row)?))).collect()
    }

    /// How many rows clients know of.
    pub(crate) fn len(&self) -> usize {
        self.books().known.len()
    }

    /// If another holder panics, it leaves whole entries behind.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn learn(&mut self, row: i64, word: Word) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.known.entry(row) {
            entry.insert(word);
            self.fresh.insert(row);
        }
    }
}

/// The longest time without an acknowledgement between two instants. Both count as acknowledgements.
pub(crate) fn gap(acks: &[Ack], from: Instant, to: Instant) -> std::time::Duration {
    let mut times: Vec<Instant> = acks.iter().map(|ack| ack.at).filter(|&at| from <= at && at <= to).collect();
    times.extend([from, to]);
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ack(row: i64, at: Instant) -> Ack {
        Ack { row, client: 0, node: 0, timeline: 1, sent: at, at }
    }

    #[test]
    fn a_row_that_is_known_and_missing_is_lost_once() {
        let ledger = Ledger::default();
        let now = Instant::now();
        [1, 2, 4].into_iter().for_each(|row| ledger.acknowledged(ack(row, now)));
        ledger.shown([2, 3].into_iter(), 1);
        assert_eq!(ledger.len(), 4);
        let expected = ledger.expected(false);
        assert_eq!(expected, BTreeSet::from([1, 2, 3, 4]));
        // It came after the question what to look for, so it is looked for next time.
        ledger.acknowledged(ack(5, now));
        let lost = ledger.settle(&expected, &BTreeSet::from([1, 2, 9]));
        let lost: Vec<_> = lost.iter().map(|(row, word)| (*row, word.node, word.acknowledged)).collect();
        assert_eq!(lost, [(3, 1, false), (4, 0, true)]);
        assert_eq!(ledger.expected(false), BTreeSet::from([5]));
        assert_eq!(ledger.expected(true), BTreeSet::from([1, 2, 5]));
    }

    #[test]
    fn the_gap_is_the_longest_silence_within_its_bounds() {
        let zero = Instant::now();
        let time = |millis| zero + Duration::from_millis(millis);
        let acks: Vec<Ack> = [10, 20, 25, 60, 100].map(|at| ack(1, time(at))).to_vec();
        for (from, to, expected) in [(0, 100, 40), (0, 30, 10), (26, 50, 24), (61, 65, 4), (25, 60, 35)] {
            assert_eq!(gap(&acks, time(from), time(to)), Duration::from_millis(expected), "{from} to {to}");
        }
    }
}
