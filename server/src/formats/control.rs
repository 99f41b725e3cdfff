//! PostgreSQL's control file, as `pg_controldata` prints it (PostgreSQL's documentation, "pg_controldata").

use qluster_consensus::model::Lsn;

use super::Error;

/// The parts of a control file that qluster needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ControlData {
    /// Identifies the database cluster and its physical copies.
    pub(crate) system_identifier: String,
    /// State of the database cluster, such as `in production`, `shut down`, `in archive recovery`.
    pub(crate) state: String,
    /// Timeline of the last checkpoint.
    pub(crate) timeline: Option<u32>,
    /// Timeline of the point up to which a standby must recover to be consistent. 0 if there is no such point.
    pub(crate) recovers_on: Option<u32>,
    /// Position of the last checkpoint record.
    pub(crate) checkpoint: Option<Lsn>,
    /// Size of a WAL file (segment), in bytes.
    pub(crate) segment: Option<u64>,
    /// Settings of the primary that a standby must not go below (PostgreSQL's documentation, "Hot Standby").
    pub(crate) floors: Vec<(&'static str, u64)>,
}

/// These settings: their names in the control file, and in the configuration.
const FLOORS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

impl ControlData {
    /// Reads the output of `pg_controldata`, in English.
    ///
    /// # Errors
    ///
    /// If it has no system identifier.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        fn parsed<T: std::str::FromStr>(value: Option<&str>) -> Option<T> {
            value.and_then(|value| value.parse().ok())
        }
        let system_identifier = field("Database system identifier").filter(|value| value.parse::<u64>().is_ok());
        let Some(system_identifier) = system_identifier else {
            return Err(Error { what: "output of pg_controldata", text: text.chars().take(200).collect() });
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

    /// Whether the database was a primary when it was last running.
    pub(crate) fn was_primary(&self) -> bool {
        PRIMARY_STATES.contains(&self.state.as_str())
    }
}

/// States that a primary leaves in its control file. A standby that was consistent once never leaves one of them: it enters
/// archive recovery at once (PostgreSQL's `pg_control.h`, `DBState`).
const PRIMARY_STATES: [&str; 4] = ["in production", "shutting down", "shut down", "in crash recovery"];

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

    proptest! {
        #[test]
        fn odd_text_is_refused_and_does_not_panic(text in "\\PC{0,200}") {
            let _ = ControlData::parse(&text);
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
    }
}
