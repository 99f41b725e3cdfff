//! WAL files: their names, and where records are in them.

use qluster_consensus::model::Lsn;

/// Where in `pg_wal` the WAL of a timeline at an LSN is: the name of the file, and the offset in it in bytes. `segment` is
/// the size of these files in bytes, a power of two (PostgreSQL's `xlog_internal.h`, `XLogFileName`).
pub(crate) fn place_of(timeline: u32, at: Lsn, segment: u64) -> (String, u64) {
    let (number, per_id) = (at.0 / segment, (1 << 32) / segment);
    (format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id), at.0 % segment)
}

/// The size of a WAL page, of its header, and of the header of the first page of a file, in bytes (`xlog_internal.h`).
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
const LONG_PAGE_HEADER: u64 = 40;
/// How many bytes of a record are compared. Its header has a checksum. After the header, the first record of a timeline has
/// the time of the promotion (`xlogrecord.h`, `xl_end_of_recovery`).
const RECORD: u64 = 40;

/// The offset in a WAL file of the record that begins at `offset`, or after the page header that is there; and how many
/// bytes to read to tell this record from others.
pub(crate) fn first_record(offset: u64) -> (u64, usize) {
    let header = match offset {
        0 => LONG_PAGE_HEADER,
        _ if offset.is_multiple_of(PAGE) => PAGE_HEADER,
        _ => 0,
    };
    let goes_on = (offset + header) % PAGE + RECORD > PAGE;
    (offset + header, (RECORD + if goes_on { PAGE_HEADER } else { 0 }) as usize)
}

/// The timeline in the name of a WAL file.
pub(crate) fn timeline_of_file(name: &str) -> Option<u32> {
    let digits = name.get(..8).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::timelines::history_file;
    use super::*;

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
    fn a_record_is_after_the_header_of_its_page_and_may_continue_on_the_next() {
        let late = 2 * PAGE - 16;
        for (offset, expected) in [(0, (40, 40)), (PAGE, (8216, 40)), (8300, (8300, 40)), (late, (late, 64))] {
            assert_eq!(first_record(offset), expected);
        }
    }

    #[test]
    fn a_wal_file_is_named_after_its_timeline() {
        assert_eq!(timeline_of_file("0000001A00000000000000A3"), Some(26));
    }

    proptest! {
        #[test]
        fn only_a_wal_file_has_a_timeline(timeline: u32, odd in "[+-]?[0-9A-Fa-f ]{0,9}|\\PC{0,9}") {
            prop_assert_eq!(timeline_of_file(&history_file(timeline)), Some(timeline));
            if let Some(timeline) = timeline_of_file(&odd) {
                prop_assert_eq!(format!("{timeline:08x}"), odd[..8].to_ascii_lowercase());
            }
        }
    }
}
