//! What PostgreSQL's own files say: the control file (as `pg_controldata` prints it), and timeline history files.

use qluster_consensus::model::Lsn;

use super::error::{Error, Result};

/// What is needed of a control file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ControlData {
    /// Identifies the database cluster and its physical copies.
    pub(super) system_identifier: String,
    /// Such as `in production`, `shut down`, `in archive recovery`.
    pub(super) state: String,
    /// Timeline of the last checkpoint.
    pub(super) timeline: Option<u32>,
    /// Timeline of the point up to which it has to recover; 0 where it has not to.
    pub(super) recovers_on: Option<u32>,
    /// Where the last checkpoint is.
    pub(super) checkpoint: Option<Lsn>,
    /// Size of its WAL files, in bytes.
    pub(super) segment: Option<u64>,
    /// Settings of the primary that a standby may not fall below.
    pub(super) floors: Vec<(&'static str, u64)>,
}

/// Settings in the control file: as it names them, and as they are set.
const FLOORS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

impl ControlData {
    /// Reads the output of `pg_controldata`, in English.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        fn parsed<T: std::str::FromStr>(value: Option<&str>) -> Option<T> {
            value.and_then(|value| value.parse().ok())
        }
        let system_identifier = field("Database system identifier").filter(|value| value.parse::<u64>().is_ok());
        let Some(system_identifier) = system_identifier else {
            return Err(Error::Odd { what: "output of pg_controldata", text: text.chars().take(200).collect() });
        };
        Ok(Self {
            system_identifier: system_identifier.into(),
            state: field("Database cluster state").unwrap_or_default().into(),
            timeline: parsed(field("Latest checkpoint's TimeLineID")),
            recovers_on: parsed(field("Min recovery ending loc's timeline")),
            checkpoint: parsed(field("Latest checkpoint location")),
            segment: parsed(field("Bytes per WAL segment")).filter(|segment: &u64| segment.is_power_of_two()),
            floors: FLOORS.iter().filter_map(|&(name, setting)| Some((setting, parsed(field(name))?))).collect(),
        })
    }

    /// Whether the database was a primary when it ended.
    pub(super) fn was_primary(&self) -> bool {
        OF_PRIMARIES.contains(&self.state.as_str())
    }
}

/// States of a control file that a primary leaves, and a standby that was consistent never: that enters archive recovery at
/// once (PostgreSQL's `pg_control.h`, `DBState`).
const OF_PRIMARIES: [&str; 4] = ["in production", "shutting down", "shut down", "in crash recovery"];

/// Name of the history file of a timeline.
pub(super) fn history_file(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// The timelines that led to one, oldest first: the number of each, and where it ended. The last one goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timelines(Vec<(u32, Lsn)>);

impl Timelines {
    /// Those that led to `timeline`, whose history file has this text (PostgreSQL's documentation, "Timelines").
    pub(super) fn parse(timeline: u32, history: &str) -> Result<Self> {
        let odd = || Error::Odd { what: "timeline history", text: history.chars().take(200).collect() };
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

    /// Where these part from `others` by what pg_rewind goes by. That is the greatest LSN where the last ones have the
    /// same number: it does nothing then. Otherwise it goes by numbers and where each begins
    /// (`findCommonAncestorTimeline`). None where they have nothing in common.
    pub(super) fn part_from(&self, others: &Self) -> Option<Lsn> {
        if self.last() == others.last() {
            return Some(Lsn(u64::MAX));
        }
        let common = self.common(others);
        let place = common.len().checked_sub(1)?;
        Some(self.0[place].1.min(others.0[place].1))
    }

    /// The last timeline that pg_rewind takes for common, and where it begins; none where that cannot be one.
    pub(super) fn last_common(&self, others: &Self) -> Option<(u32, Lsn)> {
        let common = self.common(others).last().copied();
        common.filter(|&(timeline, _)| self.last() != others.last() || timeline == self.last())
    }

    /// The number of the last one.
    pub(super) fn last(&self) -> u32 {
        self.0.last().map_or(0, |(timeline, _)| *timeline)
    }

    /// Where the last one begins; 0/0 for the first of all.
    pub(super) fn begin_of_last(&self) -> Lsn {
        self.begin(0)
    }

    /// Where the one before the last begins.
    pub(super) fn begin_of_parent(&self) -> Lsn {
        self.begin(1)
    }

    fn begin(&self, before_last: usize) -> Lsn {
        self.0.iter().rev().nth(before_last + 1).map_or(Lsn(0), |&(_, end)| end)
    }

    /// The timelines that both have by number and by where each begins, which goes along.
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

/// Where in `pg_wal` the WAL of a timeline at an LSN is: the file's name, and the offset in it. `segment` is the size of
/// these files in bytes, a power of two (PostgreSQL's `xlog_internal.h`, `XLogFileName`).
pub(super) fn place_of(timeline: u32, at: Lsn, segment: u64) -> (String, u64) {
    let (number, per_id) = (at.0 / segment, (1 << 32) / segment);
    (format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id), at.0 % segment)
}

/// A page of WAL, its header, and that of the first page of a file, in bytes (`xlog_internal.h`).
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
const LONG_PAGE_HEADER: u64 = 40;
/// Of a record so much is looked at: its header has a checksum, and behind that comes the time of the promotion, where it
/// is the first of a timeline (`xlogrecord.h`, `xl_end_of_recovery`).
const RECORD: u64 = 40;

/// Where, in a file of WAL, the record is that begins at this offset or behind the header of the page there; and how many
/// bytes have as much of it as tells it from others.
pub(super) fn first_record(offset: u64) -> (u64, usize) {
    let header = match offset {
        0 => LONG_PAGE_HEADER,
        _ if offset.is_multiple_of(PAGE) => PAGE_HEADER,
        _ => 0,
    };
    let goes_on = (offset + header) % PAGE + RECORD > PAGE;
    (offset + header, (RECORD + if goes_on { PAGE_HEADER } else { 0 }) as usize)
}

/// The timeline in the name of a WAL file.
pub(super) fn timeline_of_file(name: &str) -> Option<u32> {
    let digits = name.get(..8).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONTROL: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7286543210123456789
Database cluster state:               in archive recovery
pg_control last modified:             Mon 01 Jan 2024 10:00:00 AM UTC
Latest checkpoint location:           0/2000060
Latest checkpoint's REDO location:    0/2000028
Latest checkpoint's TimeLineID:       3
max_connections setting:              200
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
";

    #[test]
    fn a_control_file_is_read() {
        let data = ControlData::parse(CONTROL).unwrap();
        assert_eq!(data.system_identifier, "7286543210123456789");
        for (state, expected) in [
            ("in archive recovery", false),
            ("shut down in recovery", false),
            ("shut down", true),
            ("in production", true),
            ("in crash recovery", true),
        ] {
            let data = ControlData::parse(&CONTROL.replace("in archive recovery", state)).unwrap();
            assert_eq!((data.was_primary(), data.state.as_str()), (expected, state));
        }
        assert_eq!((data.timeline, data.checkpoint), (Some(3), Some(Lsn(0x200_0060))));
        assert_eq!(data.floors[0], ("max_connections", 200));
        assert_eq!(data.floors.len(), 5);
    }

    #[test]
    fn wal_is_found_by_timeline_and_lsn() {
        let mb = 1 << 20;
        assert_eq!(place_of(12, "0/B2F77E0".parse().unwrap(), 16 * mb), ("0000000C000000000000000B".into(), 0x2F77E0));
        assert_eq!(place_of(1, "16/B374D848".parse().unwrap(), 16 * mb), ("0000000100000016000000B3".into(), 0x74D848));
        assert_eq!(
            place_of(1, "16/B374D848".parse().unwrap(), 64 * mb),
            ("00000001000000160000002C".into(), 0x374D848)
        );
    }

    #[test]
    fn a_record_is_behind_the_header_of_its_page_and_may_go_on_behind_the_next() {
        let late = 2 * PAGE - 16;
        for (offset, expected) in [(0, (40, 40)), (PAGE, (8216, 40)), (8300, (8300, 40)), (late, (late, 64))] {
            assert_eq!(first_record(offset), expected);
        }
    }

    #[test]
    fn timelines_part_where_pg_rewind_finds_that_they_do() {
        let end = Lsn(u64::MAX);
        let first = "1\t0/3000\tno recovery target specified\n";
        let second = "1\t0/3000\tx\n\n2\t0/5000\tx\n";
        for ((mine, my_past), (theirs, their_past), expected) in [
            ((1, ""), (1, ""), Some(end)),
            ((1, ""), (2, first), Some(Lsn(0x3000))),
            ((2, first), (2, first), Some(end)),
            // They begin at two places, which pg_rewind does not look at.
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
        assert_eq!(timeline_of_file("0000001A00000000000000A3"), Some(26));
    }

    proptest! {
        #[test]
        fn odd_text_is_refused_and_does_not_panic(text in "\\PC{0,200}") {
            let _ = ControlData::parse(&text);
            let _ = Timelines::parse(1, &text);
            let _ = timeline_of_file(&text);
        }

        #[test]
        fn a_changed_control_file_is_read_as_it_is_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut text: Vec<char> = CONTROL.chars().collect();
            changes.into_iter().for_each(|(place, change)| *place.get_mut(&mut text) = change);
            let text: String = text[..=cut.index(text.len())].iter().collect();
            if let Ok(data) = ControlData::parse(&text) {
                prop_assert!(data.system_identifier.parse::<u64>().is_ok() && text.contains(&data.system_identifier));
                prop_assert!(data.floors.len() <= FLOORS.len());
            }
        }

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
        fn only_a_wal_file_has_a_timeline(timeline: u32, odd in "[+-]?[0-9A-Fa-f ]{0,9}|\\PC{0,9}") {
            prop_assert_eq!(timeline_of_file(&history_file(timeline)), Some(timeline));
            if let Some(timeline) = timeline_of_file(&odd) {
                prop_assert_eq!(format!("{timeline:08x}"), odd[..8].to_ascii_lowercase());
            }
        }
    }
}
