//! Timelines of a database, and their history files.

use qluster_consensus::model::Lsn;

use super::Error;

/// Name of a timeline's history file in `pg_wal`.
pub(crate) fn history_file(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// A timeline with its ancestors, oldest first: the number of each, and where it ended. The last one has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timelines(Vec<(u32, Lsn)>);

impl Timelines {
    /// Those of `timeline`, whose history file has this text (PostgreSQL's documentation, "Timelines").
    ///
    /// # Errors
    ///
    /// If the text is no history, or is empty although `timeline` is not the first.
    pub(crate) fn parse(timeline: u32, history: &str) -> Result<Self, Error> {
        let odd = || Error { what: "timeline history", text: history.chars().take(200).collect() };
        let lines = history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let past = lines.map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        let mut all: Vec<(u32, Lsn)> = past.collect::<Option<_>>().ok_or_else(odd)?;
        if timeline > 1 && all.is_empty() {
            return Err(odd());
        }
        all.push((timeline, Lsn(u64::MAX)));
        Ok(Self(all))
    }

    /// Where these diverge from `others`, as pg_rewind sees it. If the last ones have the same number, that is the greatest
    /// LSN: then pg_rewind does nothing. Otherwise it compares the numbers, and where each timeline begins
    /// (`findCommonAncestorTimeline`). None if they have nothing in common.
    pub(crate) fn part_from(&self, others: &Self) -> Option<Lsn> {
        if self.last() == others.last() {
            return Some(Lsn(u64::MAX));
        }
        let common = self.common(others);
        let place = common.len().checked_sub(1)?;
        Some(self.0[place].1.min(others.0[place].1))
    }

    /// The last timeline that pg_rewind takes for common, and where it begins. None if there can be no common one.
    pub(crate) fn last_common(&self, others: &Self) -> Option<(u32, Lsn)> {
        let common = self.common(others).last().copied();
        common.filter(|&(timeline, _)| self.last() != others.last() || timeline == self.last())
    }

    /// The number of the last timeline.
    pub(crate) fn last(&self) -> u32 {
        self.0.last().map_or(0, |(timeline, _)| *timeline)
    }

    /// Where the last timeline begins. 0/0 for timeline 1.
    pub(crate) fn begin_of_last(&self) -> Lsn {
        self.begin(0)
    }

    /// Where the parent of the last timeline begins.
    pub(crate) fn begin_of_parent(&self) -> Lsn {
        self.begin(1)
    }

    fn begin(&self, before_last: usize) -> Lsn {
        self.0.iter().rev().nth(before_last + 1).map_or(Lsn(0), |&(_, end)| end)
    }

    /// The timelines that both have, with the same number and the same begin. Each with where it begins.
    fn common(&self, others: &Self) -> Vec<(u32, Lsn)> {
        let mut begin = (Lsn(0), Lsn(0));
        let mut common = Vec::new();
        for (&(mine, my_end), &(theirs, their_end)) in self.0.iter().zip(&others.0) {
            if mine != theirs || begin.0 != begin.1 {
                break;
            }
            common.push((mine, begin.0));
            begin = (my_end, their_end);
        }
        common
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timelines_part_where_pg_rewind_finds_that_they_do() {
        let end = Lsn(u64::MAX);
        let first = "1\t0/3000\tno recovery target specified\n";
        let second = "1\t0/3000\tx\n\n2\t0/5000\tx\n";
        for ((mine, my_past), (theirs, their_past), expected) in [
            ((1, ""), (1, ""), Some(end)),
            ((1, ""), (2, first), Some(Lsn(0x3000))),
            ((2, first), (2, first), Some(end)),
            // They begin at different positions. pg_rewind does not check that.
            ((2, first), (2, "1\t0/4000\tx"), Some(end)),
            ((2, first), (3, "1\t0/4000\tx\n2\t0/5000\tx"), Some(Lsn(0x3000))),
            ((2, first), (3, second), Some(Lsn(0x5000))),
            ((3, second), (4, "1\t0/3000\tx\n2\t0/4000\tx\n3\t0/6000\tx"), Some(Lsn(0x4000))),
            ((4, second), (3, second), Some(Lsn(0x5000))),
            ((5, "4\t0/3000\tx"), (2, first), None),
        ] {
            let (mine, theirs) =
                (Timelines::parse(mine, my_past).unwrap(), Timelines::parse(theirs, their_past).unwrap());
            assert_eq!(mine.part_from(&theirs), expected, "{mine:?} {theirs:?}");
            assert_eq!(theirs.part_from(&mine), expected, "{mine:?} {theirs:?}");
        }
        let last_common = |mine: (u32, &str), theirs: (u32, &str)| {
            Timelines::parse(mine.0, mine.1).unwrap().last_common(&Timelines::parse(theirs.0, theirs.1).unwrap())
        };
        assert_eq!(last_common((3, second), (3, second)), Some((3, Lsn(0x5000))));
        assert_eq!(last_common((2, first), (3, second)), Some((2, Lsn(0x3000))));
        assert_eq!(last_common((2, first), (2, "1\t0/4000\tx")), None);
        for odd in ["1", "x\t0/3000", "1\t0-3000"] {
            assert!(Timelines::parse(2, odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_timeline_begins_at_the_last_switch_of_its_history() {
        let past = "1\t0/3000148\tno recovery target specified\n\n2\t16/B374D848\tno recovery target specified\n";
        let timelines = Timelines::parse(3, past).unwrap();
        assert_eq!(timelines.begin_of_last().to_string(), "16/B374D848");
        assert_eq!(timelines.begin_of_parent().to_string(), "0/3000148");
        assert_eq!(Timelines::parse(1, "# nothing\n").unwrap().begin_of_last(), Lsn(0));
        for odd in ["", "# nothing\n", "1\n", "1\tx\ty\n"] {
            assert!(Timelines::parse(2, odd).is_err(), "{odd:?}");
        }
        assert_eq!(history_file(26), "0000001A.history");
    }

    proptest! {
        #[test]
        fn a_timeline_begins_where_the_last_line_says_or_is_refused(
            lines in prop::collection::vec("([0-9]{1,10}|x)?[\t ](([0-9A-F]{1,9}/[0-9A-F]{1,9})|\\PC{0,9})[\t ]\\PC{0,20}", 0..5),
        ) {
            let text = lines.join("\n");
            if let Ok(timelines) = Timelines::parse(9, &text) {
                let start = timelines.begin_of_last();
                let lsn = |line: &String| line.split_whitespace().nth(1).and_then(|lsn| lsn.parse::<Lsn>().ok());
                prop_assert!(lines.iter().filter_map(lsn).any(|lsn| lsn == start));
            }
        }

        #[test]
        fn odd_text_is_refused_and_does_not_panic(text in "\\PC{0,200}") {
            let _ = Timelines::parse(1, &text);
        }
    }
}
